//! What goes wrong with stores.

use std::io;

use cdh_bundle::BundleError;

use crate::DumpSummary;

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No such store, or no such object.
    #[error("{path} does not exist")]
    NotFound {
        /// What was looked for.
        path: String,
    },
    /// There is no such bucket.
    #[error("bucket does not exist: {place}")]
    NoBucket {
        /// Which store.
        place: String,
    },
    /// The server does not know who asks, or does not believe it.
    #[error("{place} does not accept the credentials: {said}")]
    Credentials {
        /// Which store.
        place: String,
        /// The server's words, made harmless.
        said: String,
    },
    /// No permission.
    #[error("no permission for {path}{}", after_colon(said.as_deref()))]
    Denied {
        /// What was refused.
        path: String,
        /// The server's words, made harmless.
        said: Option<String>,
    },
    /// There is nothing to log in with.
    #[error("no credentials for {place}: {problem}")]
    NoCredentials {
        /// Which store.
        place: String,
        /// What was looked at.
        problem: String,
    },
    /// The bucket is elsewhere, or no region is known.
    #[error("wrong region for {place}: {said}")]
    Region {
        /// Which store.
        place: String,
        /// The server's words, made harmless.
        said: String,
    },
    /// This machine's clock and the server's differ too much for signatures.
    #[error("the clocks of this machine and of {place} differ: {said}")]
    ClockSkew {
        /// Which store.
        place: String,
        /// The server's words, made harmless.
        said: String,
    },
    /// It understood and does not do it.
    #[error("{place} refused: {said}")]
    Refused {
        /// Which store.
        place: String,
        /// The server's words, made harmless.
        said: String,
    },
    /// Whoever asked wants to stop; what was done is noted.
    #[error("stopped")]
    Stopped,
    /// An upload that had begun is no longer known to the server: it starts over the next time.
    #[error("the server has lost the upload of {key}")]
    UploadLost {
        /// Which key.
        key: String,
    },
    /// It cannot be reached now.
    #[error("{place} cannot be reached: {problem}")]
    Unreachable {
        /// Which store.
        place: String,
        /// What was tried.
        problem: String,
    },
    /// This version cannot use it.
    #[error("{what} is not supported")]
    Unsupported {
        /// What.
        what: String,
    },
    /// Something else stands under the key.
    #[error("{key} exists with other content")]
    Conflict {
        /// Which key.
        key: String,
    },
    /// It was replaced while it was read.
    #[error("{key} was replaced by another object since it was looked at")]
    Changed {
        /// Which key.
        key: String,
    },
    /// The body ended early or went on.
    #[error("{key}: {found} bytes came instead of {expected}")]
    Length {
        /// Which key.
        key: String,
        /// Announced.
        expected: u64,
        /// Came.
        found: u64,
    },
    /// A key that would leave the store.
    #[error("`{text}` is not an object key: {problem}")]
    Key {
        /// What was given.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A store's name that is none.
    #[error("`{text}` does not name a store: {problem}")]
    Url {
        /// What was given.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A manifest or bundle in the store is broken.
    #[error("{key} cannot be read")]
    Bundle {
        /// Which key.
        key: String,
        /// Cause.
        #[source]
        source: BundleError,
    },
    /// The file system failed.
    #[error("cannot use {path}")]
    Io {
        /// What was used.
        path: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    /// Sorts an error of the operating system about `path`; one of a store inside it comes out again.
    pub(crate) fn from_io(path: impl Into<String>, source: io::Error) -> Self {
        let source = match source.downcast::<Self>() {
            Ok(error) => return error,
            Err(source) => source,
        };
        let path = path.into();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path },
            io::ErrorKind::PermissionDenied => Self::Denied { path, said: None },
            _ => Self::Io { path, source },
        }
    }
}

fn after_colon(text: Option<&str>) -> String {
    text.map(|text| format!(": {text}")).unwrap_or_default()
}

impl StoreError {
    /// What to do about it, where that is known: imperative and runnable.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoCredentials { .. } => {
                "log in with `aws configure` or `aws sso login`, set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, or name a profile with `?profile=NAME` in the store's URL"
            }
            Self::NoBucket { .. } => {
                "check its name and `?endpoint=URL`, or create it with `aws s3 mb s3://BUCKET` (`aws s3 ls` lists \
                 the buckets; cdh never creates one)"
            }
            Self::Credentials { .. } => {
                "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile, with \
                 `aws sts get-caller-identity`; expired ones are renewed with `aws sso login`"
            }
            Self::Denied { said: Some(_), .. } => {
                "ask for the rights: reading takes s3:ListBucket and s3:GetObject, the agent \
                 s3:PutObject, s3:AbortMultipartUpload and s3:DeleteObject, `cdh rm` s3:DeleteObject"
            }
            Self::Region { .. } => "add `?region=REGION` to the store's URL, or set AWS_REGION",
            Self::ClockSkew { .. } => "set this machine's clock: `timedatectl set-ntp true`",
            Self::Unreachable { .. } => {
                "check the network, `?endpoint=URL` and HTTPS_PROXY, then try again"
            }
            Self::Changed { .. } | Self::UploadLost { .. } => "try again",
            _ => return None,
        })
    }
}

/// Why a reference means no dump.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// There is none.
    #[error("no dump is called `{reference}`")]
    NotFound {
        /// What was given.
        reference: String,
    },
    /// There are several.
    #[error("`{reference}` begins the ids of {} dumps", candidates.len())]
    Ambiguous {
        /// What was given.
        reference: String,
        /// At most ten of them, newest first.
        candidates: Vec<DumpSummary>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a bundle did not reach a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShipError {
    /// The store failed: worth another try.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The spool entry is broken.
    #[error("the bundle cannot be made")]
    Bundle(#[from] BundleError),
    /// What is in the store is not what was sent.
    #[error("{key} holds {found} after the upload instead of {expected}")]
    Verify {
        /// Which key.
        key: String,
        /// Sent.
        expected: String,
        /// Found.
        found: String,
    },
}
