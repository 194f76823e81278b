//! Digests of blobs, and the running SHA-256 of a reader.

use std::fmt;

use cdh_bundle::Sha256;
use sha2::Digest as _;

/// `sha256:…`: the identity of a manifest, a configuration or a layer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(Sha256);

impl Digest {
    /// Parses `sha256:` and 64 hexadecimal digits; other algorithms are not supported.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Sha256::parse(text.strip_prefix("sha256:")?).map(Self)
    }

    /// The digest of `data`.
    #[must_use]
    pub fn of(data: &[u8]) -> Self {
        Self(Sha256::of(data))
    }

    /// The hexadecimal digits alone: safe as a file name.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The digest of the bytes so far.
#[derive(Clone, Default)]
pub(crate) struct RunningDigest(sha2::Sha256);

impl RunningDigest {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        Digest(Sha256::from_bytes(self.0.finalize().into()))
    }
}
