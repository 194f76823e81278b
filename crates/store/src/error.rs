//! Errors of stores.

use std::borrow::Cow;
use std::io;

use cdh_bundle::BundleError;

use crate::DumpSummary;

/// Why an operation of a store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No such store, or no such object.
    #[error("{path} does not exist")]
    NotFound {
        /// What was looked for.
        path: String,
    },
    /// The path of a directory store is that of a file.
    #[error("{path} is a file, not a directory")]
    NotADirectory {
        /// The path.
        path: String,
    },
    /// The open directory is no longer at its path.
    #[error("the store was deleted or replaced while it was open: {path}")]
    Removed {
        /// The path.
        path: String,
    },
    /// There is no such bucket.
    #[error("bucket does not exist: {place}")]
    NoBucket {
        /// Which store.
        place: String,
    },
    /// The server does not know the credentials, or refuses their signature.
    #[error("{place} rejected the credentials: {said}")]
    Credentials {
        /// Which store.
        place: String,
        /// The server's words, escaped.
        said: String,
    },
    /// No permission.
    #[error("permission denied: {path}{}", after_colon(said.as_deref()))]
    Denied {
        /// What was refused.
        path: String,
        /// The server's message, escaped; `None` if the file system refused.
        said: Option<String>,
    },
    /// No source of the chain has credentials.
    #[error("no credentials for {place}: {problem}")]
    NoCredentials {
        /// Which store.
        place: String,
        /// What was tried.
        problem: String,
    },
    /// The named profile is not in the AWS files.
    #[error("profile `{name}` does not exist in {}", files.join(" or "))]
    NoProfile {
        /// The profile.
        name: String,
        /// The files that were read.
        files: Vec<String>,
        /// The existing profiles.
        known: Vec<String>,
    },
    /// The bucket is in another region, or no region is known.
    #[error("wrong region for {place}: {said}")]
    Region {
        /// Which store.
        place: String,
        /// The server's words, escaped.
        said: String,
        /// The bucket's region, if the server named it.
        region: Option<String>,
    },
    /// This machine's clock and the server's differ too much for signatures.
    #[error("the clock of this machine differs from that of {place}: {said}")]
    ClockSkew {
        /// Which store.
        place: String,
        /// The server's words, escaped.
        said: String,
    },
    /// The endpoint answers, but cannot be the S3 server that the URL describes.
    #[error("{place}: {problem}")]
    Endpoint {
        /// Which store.
        place: String,
        /// What is wrong with it.
        problem: EndpointProblem,
    },
    /// The server understood the request and refused it.
    #[error("{place} refused the request: {said}")]
    Refused {
        /// Which store.
        place: String,
        /// The server's words, escaped.
        said: String,
    },
    /// The caller requested a stop; progress is saved.
    #[error("interrupted")]
    Stopped,
    /// The server no longer knows an upload in progress: the next attempt starts over.
    #[error("the server has lost the upload of {key}")]
    UploadLost {
        /// Which key.
        key: String,
    },
    /// It is currently unreachable.
    #[error("cannot reach {place}: {problem}")]
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
    /// The key exists with other content.
    #[error("{key} already exists with other content")]
    Conflict {
        /// Which key.
        key: String,
    },
    /// It was replaced while it was read.
    #[error("{key} was replaced while it was read")]
    Changed {
        /// Which key.
        key: String,
    },
    /// The body is shorter or longer than announced.
    #[error("{key}: expected {expected} bytes, got {found}")]
    Length {
        /// Which key.
        key: String,
        /// Announced.
        expected: u64,
        /// Came.
        found: u64,
    },
    /// A key that would lead out of the store.
    #[error("invalid object key `{text}`: {problem}")]
    Key {
        /// What was given.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A URL or an option that does not describe a store.
    #[error("invalid store `{text}`: {problem}")]
    Url {
        /// What was given.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An option that buckets do not have.
    #[error("invalid store `{text}`: unknown option `{option}`")]
    UnknownOption {
        /// The URL, or `option=value` of a config file.
        text: String,
        /// The option's name.
        option: String,
        /// The known option with the most similar name.
        similar: Option<&'static str>,
        /// All valid options.
        known: &'static [&'static str],
    },
    /// A manifest or bundle in the store is damaged.
    #[error("cannot read {key}")]
    Bundle {
        /// Which key.
        key: String,
        /// Cause.
        #[source]
        source: BundleError,
    },
    /// The file system failed.
    #[error("cannot access {path}")]
    Io {
        /// What was used.
        path: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// Why an endpoint cannot be the S3 server that a store's URL describes. A retry does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointProblem {
    /// An `https://` request was sent to a server without TLS.
    #[error("the server does not use TLS")]
    PlainHttp,
    /// An `http://` request was sent to a server with TLS.
    #[error("the server expects TLS")]
    Tls,
    /// The certificate was issued by an authority that is not trusted.
    #[error("the server's certificate is not trusted: {said}")]
    Untrusted {
        /// The TLS library's message.
        said: String,
    },
    /// The certificate is trusted, but not valid for this host or at this time.
    #[error("the server's certificate is not valid: {said}")]
    Certificate {
        /// The TLS library's message.
        said: String,
    },
    /// The server redirects its clients to another one.
    #[error("the server redirects to {to}")]
    Redirect {
        /// Scheme and host of the other server, escaped.
        to: String,
    },
    /// The proxy requires a login.
    #[error("the proxy requires a login")]
    ProxyLogin,
    /// The answer is not that of an S3 server.
    #[error("the answer does not come from an S3 server: {said}")]
    NotS3 {
        /// Status and content type of the answer.
        said: String,
    },
}

impl EndpointProblem {
    fn hint(&self) -> Cow<'static, str> {
        let fixed = match self {
            Self::Redirect { to } => {
                return format!("set `endpoint={to}` if that is the S3 API, and not a login page or a web console").into();
            }
            Self::ProxyLogin => {
                "put user and password into HTTP_PROXY and HTTPS_PROXY: `http://USER:PASSWORD@HOST:PORT`, \
                 or the server's host into NO_PROXY"
            }
            Self::PlainHttp => "use `http://` instead of `https://` in `endpoint=`",
            Self::Tls => "use `https://` instead of `http://` in `endpoint=`",
            Self::Untrusted { .. } => {
                "pass the certificate of its authority: `ca=/path/to/ca.pem` in the store's URL, or AWS_CA_BUNDLE"
            }
            Self::Certificate { .. } => {
                "use the host name that the certificate is for in `endpoint=`, or renew the certificate"
            }
            Self::NotS3 { .. } => {
                "set `endpoint=` to the address of the S3 API, not to that of a web console; \
                 also check HTTP_PROXY and HTTPS_PROXY"
            }
        };
        fixed.into()
    }
}

impl StoreError {
    /// Converts an operating system error about `path`; returns a contained store error unchanged.
    pub(crate) fn from_io(path: impl Into<String>, source: io::Error) -> Self {
        let source = match source.downcast::<Self>() {
            Ok(error) => return error,
            Err(source) => source,
        };
        let path = path.into();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path },
            io::ErrorKind::PermissionDenied => Self::Denied { path, said: None },
            io::ErrorKind::NotADirectory => Self::NotADirectory { path },
            _ => Self::Io { path, source },
        }
    }
}

fn after_colon(text: Option<&str>) -> String {
    text.map(|text| format!(": {text}")).unwrap_or_default()
}

/// The text of [`StoreError::Unreachable`] if nothing listens on the port.
pub(crate) const CONNECTION_REFUSED: &str = "connection refused";
/// Its text if the host name has no address.
pub(crate) const UNKNOWN_HOST: &str = "the host name cannot be resolved";
/// Its text if no answer arrives in time.
pub(crate) const TIMED_OUT: &str = "no answer in time";

impl StoreError {
    /// How to fix it, if known: imperative and runnable.
    #[must_use]
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        let fixed = match self {
            Self::NoCredentials { .. } => {
                "log in with `aws configure` or `aws sso login`, set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, or name a profile with `?profile=NAME` in the store's URL"
            }
            Self::NoProfile { known, .. } if known.is_empty() => {
                "create it with `aws configure --profile NAME`, or leave `profile=` and AWS_PROFILE out"
            }
            Self::NoProfile { known, .. } => {
                return Some(format!("profiles that exist: {}", known.join(", ")).into());
            }
            Self::NoBucket { place } if has_endpoint_path(place) => {
                "check the name of the bucket, and the path of `endpoint=`: most S3 servers have none, and the bucket \
                 goes into `s3://BUCKET`"
            }
            Self::NoBucket { place } => {
                let at = endpoint_flag(place);
                let hint = format!(
                    "check its name and `?endpoint=URL`, or create it with `aws s3 mb s3://BUCKET{at}` \
                     (`aws s3 ls{at}` lists the buckets; cdh never creates one)"
                );
                return Some(hint.into());
            }
            Self::Credentials { said, .. } if is_expired(said) => {
                "renew them: `aws sso login`, or new values of AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
            }
            // Only Amazon's servers have an STS.
            Self::Credentials { place, .. } if endpoint(place).is_some() => {
                let at = endpoint_flag(place);
                let hint = format!(
                    "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile, with `aws s3 ls{at}`"
                );
                return Some(hint.into());
            }
            Self::Credentials { .. } => {
                "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the profile, with \
                 `aws sts get-caller-identity`"
            }
            Self::Denied { said: Some(_), .. } => {
                "ask for the rights: reading needs s3:ListBucket and s3:GetObject, the agent \
                 s3:PutObject, s3:AbortMultipartUpload and s3:DeleteObject, `cdh rm` s3:DeleteObject"
            }
            Self::Region {
                region: Some(region),
                ..
            } => {
                return Some(
                    format!(
                        "add `?region={region}` to the store's URL, or set AWS_REGION={region}"
                    )
                    .into(),
                );
            }
            Self::Region { .. } => "add `?region=REGION` to the store's URL, or set AWS_REGION",
            Self::ClockSkew { .. } => "set this machine's clock: `timedatectl set-ntp true`",
            Self::Endpoint { problem, .. } => return Some(problem.hint()),
            Self::Unreachable { problem, .. } => match problem.as_str() {
                CONNECTION_REFUSED => {
                    "check host and port of `endpoint=`, and that the server runs, then try again"
                }
                UNKNOWN_HOST => "check the host name in `endpoint=` and the DNS, then try again",
                TIMED_OUT => {
                    "check host and port of `endpoint=`, firewalls and HTTPS_PROXY, then try again"
                }
                _ => "check the network, `?endpoint=URL` and HTTPS_PROXY, then try again",
            },
            Self::Url { .. } => {
                "pass `s3://bucket/prefix?endpoint=https://host:port&region=REGION`, or a directory"
            }
            Self::UnknownOption { similar, known, .. } => {
                let hint = match similar {
                    Some(similar) => format!("did you mean `{similar}`?"),
                    None => format!("options are {}", known.join(", ")),
                };
                return Some(hint.into());
            }
            Self::Changed { .. } | Self::UploadLost { .. } => "try again",
            _ => return None,
        };
        Some(fixed.into())
    }
}

/// The endpoint in a store's description, `s3://bucket at https://host`; `None` for Amazon's own.
fn endpoint(place: &str) -> Option<&str> {
    place.split_once(" at ").map(|(_, endpoint)| endpoint)
}

/// The option for the AWS CLI to reach the same server: ` --endpoint-url https://host`. An endpoint that a
/// shell would split or interpret is not shown.
fn endpoint_flag(place: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]@%+".contains(c);
    match endpoint(place) {
        Some(endpoint) if endpoint.chars().all(plain) => format!(" --endpoint-url {endpoint}"),
        Some(_) => " --endpoint-url URL".to_owned(),
        None => String::new(),
    }
}

/// Whether the endpoint in a store's description has a path.
fn has_endpoint_path(place: &str) -> bool {
    let host = endpoint(place).and_then(|endpoint| endpoint.split_once("://"));
    host.is_some_and(|(_, host)| host.trim_end_matches('/').contains('/'))
}

fn is_expired(said: &str) -> bool {
    ["ExpiredToken", "TokenRefreshRequired", "RequestExpired"]
        .iter()
        .any(|code| said.starts_with(code))
}

/// Why a reference does not identify a dump.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// There is none.
    #[error("no dump `{reference}`")]
    NotFound {
        /// What was given.
        reference: String,
    },
    /// There are several.
    #[error("`{reference}` is ambiguous: {count} dumps have ids that start with it")]
    Ambiguous {
        /// What was given.
        reference: String,
        /// How many there are.
        count: usize,
        /// A maximum of ten candidates, newest first.
        candidates: Vec<DumpSummary>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a bundle was not stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShipError {
    /// The store failed; a retry may help.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The spool entry is damaged.
    #[error("cannot build the bundle")]
    Bundle(#[from] BundleError),
    /// The stored bytes differ from those that were sent.
    #[error("{key}: expected {expected} after the upload, found {found}")]
    Verify {
        /// Which key.
        key: String,
        /// Sent.
        expected: String,
        /// Found.
        found: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aws_hints_name_the_endpoint_of_servers_that_are_not_amazons() {
        let hint = |error: StoreError| error.hint().unwrap().into_owned();
        let at = |place: &str| place.to_owned();
        let own = hint(StoreError::NoBucket {
            place: at("s3://b/p at https://s3.example:9000"),
        });
        for part in [
            "`aws s3 mb s3://BUCKET --endpoint-url https://s3.example:9000`",
            "`aws s3 ls --endpoint-url https://s3.example:9000`",
        ] {
            assert!(own.contains(part), "{own}");
        }
        let amazon = hint(StoreError::NoBucket {
            place: at("s3://b"),
        });
        assert!(amazon.contains("`aws s3 ls`"), "{amazon}");
        let said = "InvalidAccessKeyId".to_owned();
        let refused = hint(StoreError::Credentials {
            place: at("s3://b at http://127.0.0.1:8333"),
            said: said.clone(),
        });
        assert!(
            refused.contains("aws s3 ls --endpoint-url http://127.0.0.1:8333"),
            "{refused}"
        );
        assert!(!refused.contains("sts"), "{refused}");
        let hostile = hint(StoreError::NoBucket {
            place: at("s3://b at http://x;reboot"),
        });
        assert!(!hostile.contains("reboot"), "{hostile}");
    }
}
