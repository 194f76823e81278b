//! What a store says about its objects.

use cdh_bundle::Digests;
use jiff::Timestamp;

use crate::ObjectKey;

/// What is known of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStat {
    /// Bytes.
    pub size: u64,
    /// Changes with the content; means nothing else. Without quotes.
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
    /// What the listing says of it, for [`Store::read_pinned`](crate::Store::read_pinned).
    #[must_use]
    pub fn stat(&self) -> ObjectStat {
        ObjectStat {
            size: self.size,
            etag: self.etag.clone(),
            modified: self.modified,
        }
    }
}

/// How deep a listing goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// Every object.
    #[default]
    All,
    /// Up to the next `/` after [`Listing::under`]; what goes on there is a [`Listed::Prefix`].
    Level,
}

/// What to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listing<'l> {
    /// Begin of every key; need not end at a `/`.
    pub under: &'l str,
    /// Only keys that come after this one in the order of bytes; its own prefix may or may not be reported.
    pub start_after: Option<&'l str>,
    /// How deep.
    pub depth: Depth,
    /// Whether one request of a server is enough, with whatever names it returns.
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

    /// Only what comes after `key` in the order of bytes; it needs not exist.
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
    /// Begin of further keys, with its `/` at the end: `dumps/2026-01-31/`.
    Prefix(String),
}

/// What was sent, and how the store can be asked for it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Digests of the bytes that were sent.
    pub digests: Digests,
    /// CRC-64/NVME of them, where it was computed.
    pub crc64: Option<u64>,
    /// The etag that they must have by the rules of MD5 etags, where it was computed.
    pub etag: Option<String>,
}

impl Receipt {
    /// With nothing but the digests.
    #[must_use]
    pub fn new(digests: Digests) -> Self {
        Self {
            digests,
            crc64: None,
            etag: None,
        }
    }
}
