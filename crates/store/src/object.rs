//! Facts that a store reports about its objects.

use cdh_bundle::Digests;
use jiff::Timestamp;

use crate::ObjectKey;

/// Facts about an object that was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStat {
    /// Bytes.
    pub size: u64,
    /// Changes with the content; has no other meaning. Without quotes.
    pub etag: Option<String>,
    /// When it was written.
    pub modified: Option<Timestamp>,
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    /// Its name.
    pub key: ObjectKey,
    /// Bytes.
    pub size: u64,
    /// As in [`ObjectStat`].
    pub etag: Option<String>,
    /// When it was written.
    pub modified: Option<Timestamp>,
}

impl ListedObject {
    /// The listing's facts about it, for [`Store::read_pinned`](crate::Store::read_pinned).
    #[must_use]
    pub fn stat(&self) -> ObjectStat {
        ObjectStat {
            size: self.size,
            etag: self.etag.clone(),
            modified: self.modified,
        }
    }
}

/// The depth of a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// Every object.
    #[default]
    All,
    /// Up to the next `/` after [`Listing::under`]; longer keys are merged into a
    /// [`Listed::Prefix`].
    Level,
}

/// What to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listing<'l> {
    /// The prefix of every key; need not end with `/`.
    pub under: &'l str,
    /// Only keys that sort after this one; a prefix that contains it may or may not be reported.
    pub start_after: Option<&'l str>,
    /// How deep.
    pub depth: Depth,
    /// Whether one request to a server is enough, with any names that it returns.
    pub first_page: bool,
}

impl<'l> Listing<'l> {
    /// Every object whose key begins with `under`.
    #[must_use]
    pub fn all(under: &'l str) -> Self {
        Self {
            under,
            ..Self::default()
        }
    }

    /// One level: the objects directly under `under`, which is empty or ends with `/`.
    #[must_use]
    pub fn level(under: &'l str) -> Self {
        Self {
            under,
            depth: Depth::Level,
            ..Self::default()
        }
    }

    /// Only keys that sort after `key`, which need not exist.
    #[must_use]
    pub fn after(self, key: &'l str) -> Self {
        Self {
            start_after: Some(key),
            ..self
        }
    }
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// An object.
    Object(ListedObject),
    /// Prefix of further keys, with `/` at the end: `dumps/2026-01-31/`.
    Prefix(String),
}

/// What was sent, with the checksums to verify it in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Digests of the sent bytes.
    pub digests: Digests,
    /// Their CRC-64/NVME, if it was computed.
    pub crc64: Option<u64>,
    /// Their expected etag according to the rules for MD5 etags, if it was computed.
    pub etag: Option<String>,
}

impl Receipt {
    /// With the digests only.
    #[must_use]
    pub fn new(digests: Digests) -> Self {
        Self {
            digests,
            crc64: None,
            etag: None,
        }
    }
}
