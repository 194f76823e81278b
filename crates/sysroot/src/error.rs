//! Errors between an image's name and its files, with advice.

use std::io;

use crate::Digest;

/// Why an image could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// An invalid image name.
    #[error("invalid image reference `{text}`: {problem}")]
    Reference {
        /// What was given.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No answer.
    #[error("registry `{registry}` cannot be reached")]
    Unreachable {
        /// Its host.
        registry: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The registry requires a login, or refuses it.
    #[error("registry `{registry}` denies access to `{repository}`: {said}")]
    Denied {
        /// Its host.
        registry: String,
        /// What was asked for.
        repository: String,
        /// What it said.
        said: String,
    },
    /// Not there (any more).
    #[error("registry `{registry}` has no {what}")]
    NotFound {
        /// Its host.
        registry: String,
        /// What was asked for.
        what: String,
    },
    /// Any other answer.
    #[error("registry `{registry}` answers {status} for {what}{said}")]
    Status {
        /// Its host.
        registry: String,
        /// What was asked for.
        what: String,
        /// HTTP status.
        status: u16,
        /// The registry's message, after a colon; empty if there is none.
        said: String,
    },
    /// Too many redirects, or one to a place that must not be followed.
    #[error("registry `{registry}` redirects {problem}")]
    Redirect {
        /// Its host.
        registry: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The bytes do not have the requested digest.
    #[error("{what} has digest {found}, expected {expected}")]
    Digest {
        /// What was read.
        what: String,
        /// As asked for.
        expected: Digest,
        /// As received.
        found: Digest,
    },
    /// More or fewer bytes than the manifest promises.
    #[error("{what} ends after {found} of {expected} bytes")]
    Truncated {
        /// What was read.
        what: String,
        /// The digest in the manifest.
        expected: u64,
        /// As received.
        found: u64,
    },
    /// An invalid manifest, index or token.
    #[error("{what} is not valid: {problem}")]
    Malformed {
        /// What was read.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No image for the core's processor architecture.
    #[error("the image exists only for {offered}, not for {wanted}")]
    Platform {
        /// The core's.
        wanted: String,
        /// Those of the index.
        offered: String,
    },
    /// A layer that no builder would create.
    #[error("layer {layer} is refused: {problem}")]
    Layer {
        /// Which.
        layer: Digest,
        /// Why.
        problem: String,
    },
    /// The network is needed but not allowed.
    #[error("{what} is not in the cache, and `--offline` forbids pulling it")]
    Offline {
        /// What is missing.
        what: String,
    },
    /// An error of a credential helper, a certificate or a configuration file.
    #[error("cannot use {what}: {problem}")]
    Configuration {
        /// Which file or program.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// The layer was not read to its end, because nothing more was needed.
    #[error("nothing more is needed")]
    Stopped,
    /// The cache is not writable.
    #[error("cannot write to the cache")]
    Cache {
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl PullError {
    /// How to fix it: imperative and runnable.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Reference { .. } => {
                "give it as `repository@sha256:…`; `cdh info` shows what the dump has".to_owned()
            }
            Self::Unreachable { .. } => {
                "check the network and HTTPS_PROXY; for a registry without TLS set `insecure = true` in \
                 registries.conf, for one with its own CA pass `--registry-ca <FILE>`"
                    .to_owned()
            }
            Self::Denied { registry, .. } => format!(
                "log in with `podman login {registry}` or `docker login {registry}`, pass the image pull \
                 secret as `--auth-file <FILE>`, or pass `--sysroot <DIR>`"
            ),
            Self::NotFound { .. } => {
                "the image may have been deleted: name a copy with `--image <REF>`, or pass `--sysroot <DIR>`"
                    .to_owned()
            }
            Self::Digest { .. } | Self::Truncated { .. } | Self::Layer { .. } => {
                "do not trust this registry's copy: name another with `--image <REF>`, or pass `--sysroot <DIR>`"
                    .to_owned()
            }
            Self::Platform { .. } => {
                "name the image that ran with `--image <REF>`: its platform is the core's".to_owned()
            }
            Self::Offline { .. } => "run again without `--offline`, or pass `--sysroot <DIR>`".to_owned(),
            Self::Cache { .. } => {
                "make room with `cdh cache clear`, or set XDG_CACHE_HOME to a place that can be written".to_owned()
            }
            _ => "try again later, or pass `--sysroot <DIR>`".to_owned(),
        }
    }

    /// Whether the evidence is contradictory, rather than unavailable.
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        matches!(self, Self::Digest { .. } | Self::Truncated { .. })
    }

    /// Whether a retry may help.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }
}
