//! Puts, gets and lists bundles; answers which dumps there are.
//!
//! ```text
//! dumps/<YYYY-MM-DD>/<HHMMSS>Z_<namespace>_<pod>_<exe>_<signal>_<fingerprint>_<verdict>_<id>.zip
//! dumps/<YYYY-MM-DD>/<HHMMSS>Z_…_<id>.manifest.json
//! ```
//!
//! The invariant: the manifest's object is the commit record. It is written after the bundle was
//! verified and removed before the bundle is, so that a dump that is listed can be read. A key is the
//! whole index: a listing opens no object.

#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used)
)]
#![cfg_attr(test, allow(clippy::panic))]

mod catalog;
mod directory;
mod draft;
mod error;
mod key;
mod query;
mod ship;
mod summary;
mod url;

use std::io::Read;
use std::ops::ControlFlow;
use std::sync::Arc;

use cdh_bundle::Digests;
use cdh_elfcore::ByteSource;

pub use catalog::Catalog;
pub use directory::DirectoryStore;
pub use error::{ResolveError, ShipError, StoreError};
pub use key::ObjectKey;
pub use query::Query;
pub use ship::{Shipped, remove_dump, ship};
pub use summary::DumpSummary;
pub use url::{StoreUrl, open_store};

/// What is known of an object without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectStat {
    /// Bytes.
    pub size: u64,
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    /// Its name.
    pub key: ObjectKey,
    /// Bytes.
    pub size: u64,
}

/// A place for objects. Calls block; an implementation over a network brings its own runtime.
pub trait Store: Send + Sync {
    /// For people: `directory /var/lib/cdh/store`.
    fn describe(&self) -> String;

    /// Stores exactly `len` bytes of `body`; afterwards they are durable, before that invisible.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when other content stands under `key`: nothing is ever overwritten.
    fn put(&self, key: &ObjectKey, body: &mut dyn Read, len: u64) -> Result<Digests, StoreError>;

    /// What is known of an object; `None` where there is none.
    ///
    /// # Errors
    /// When the store cannot tell.
    fn stat(&self, key: &ObjectKey) -> Result<Option<ObjectStat>, StoreError>;

    /// Opens an object for reading at any place.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where there is none.
    fn read(&self, key: &ObjectKey) -> Result<Arc<dyn ByteSource>, StoreError>;

    /// Visits every object whose key begins with `under`, in the order of keys, until `visit` breaks.
    ///
    /// # Errors
    /// When the store cannot be listed.
    fn list(
        &self,
        under: &str,
        visit: &mut dyn FnMut(ListedObject) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// Removes an object; one that is not there is no error.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError>;
}
