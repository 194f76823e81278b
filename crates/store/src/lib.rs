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

mod capture_order;
mod catalog;
mod directory;
mod draft;
mod elsewhere;
mod error;
mod first_seen;
mod key;
mod legacy_key;
mod manifest_cache;
mod modules;
mod newest;
mod object;
mod pages;
mod query;
mod retention;
#[cfg(feature = "s3")]
mod s3;
mod ship;
mod similar;
mod summary;
mod survey;
mod url;

use std::io::{self, Read};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cdh_elfcore::ByteSource;

pub use catalog::Catalog;
pub use directory::DirectoryStore;
pub use elsewhere::find_elsewhere;
pub use error::{EndpointProblem, ResolveError, ShipError, StoreError};
pub use first_seen::{FirstSeenIndex, FirstSeenWriter};
pub use key::ObjectKey;
pub use manifest_cache::ManifestCache;
pub use modules::StoredModule;
pub use object::{Depth, Listed, ListedObject, Listing, ObjectStat, Receipt};
pub use query::{ManifestFacts, Query, command_line, is_signal, unit};
pub use retention::{Expired, ReadManifests, Retention, RetentionPlan};
#[cfg(feature = "s3")]
pub use s3::S3Store;
pub use ship::{Flow, ShipOptions, Shipped, remove_dump, ship, ship_resumable};
pub use similar::nearest;
pub use summary::{CutNames, DumpSummary};
pub use survey::{FirstSeen, Reach, Survey, SurveyOptions};
pub use url::{S3Keys, StoreUrl, open_store, open_store_as};

/// A place for objects. Calls block; an implementation over a network brings its own runtime.
pub trait Store: Send + Sync {
    /// For people: `directory /var/lib/cdh/store`.
    fn describe(&self) -> String;

    /// Checks that the store can be used, without writing to it: that its bucket or directory exists and
    /// that the server accepts the credentials.
    ///
    /// # Errors
    /// [`StoreError::NoBucket`] or [`StoreError::NotFound`] when it does not exist,
    /// [`StoreError::Denied`] when it may not be listed (writing may still be allowed), or why it
    /// cannot be reached.
    fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Stores exactly `len` bytes of `body`; afterwards they are durable, before that invisible.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when `key` has other content: nothing is ever overwritten.
    fn put(&self, key: &ObjectKey, body: &mut dyn Read, len: u64) -> Result<Receipt, StoreError>;

    /// As [`put`](Self::put), and remembers in the file `journal` how far it came, so that the same
    /// bytes under the same key go on from there after a failure or a restart. The file is removed
    /// when all is done. A store that takes everything at once needs none.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    fn put_resumable(
        &self,
        key: &ObjectKey,
        body: &mut dyn Read,
        len: u64,
        journal: &Path,
    ) -> Result<Receipt, StoreError> {
        let _ = journal;
        self.put(key, body, len)
    }

    /// Asks the store what it holds under `key` and compares that with what was sent; reads all of
    /// it back unless the store itself gives a checksum.
    ///
    /// # Errors
    /// [`ShipError::Verify`] when it is not there or something else.
    fn verify(&self, key: &ObjectKey, sent: &Receipt) -> Result<(), ShipError> {
        ship::read_back(self, key, sent)
    }

    /// What is known of an object; `None` where there is none.
    ///
    /// # Errors
    /// When the store cannot answer.
    fn stat(&self, key: &ObjectKey) -> Result<Option<ObjectStat>, StoreError>;

    /// Opens an object for reading at any place, as it is now: one that is replaced later fails to
    /// be read further, with [`StoreError::Changed`] inside the I/O error.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where there is none.
    fn read(&self, key: &ObjectKey) -> Result<Arc<dyn ByteSource>, StoreError> {
        let not_found = || StoreError::NotFound {
            path: key.to_string(),
        };
        let stat = self.stat(key)?.ok_or_else(not_found)?;
        self.read_pinned(key, &stat)
    }

    /// Opens the object that `stat` is of, without asking for it again: one that has been replaced
    /// since fails with [`StoreError::Changed`], here or inside the I/O error of a later read.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where there is none, [`StoreError::Changed`].
    fn read_pinned(
        &self,
        key: &ObjectKey,
        stat: &ObjectStat,
    ) -> Result<Arc<dyn ByteSource>, StoreError>;

    /// Hands `range` of the object that `stat` is of to `sink`, in order and as it arrives; with no
    /// bytes now and then while none arrive, so that `sink` can end it by breaking. What is cut on the
    /// way goes on where it was cut.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] when `sink` breaks, [`StoreError::Changed`], or when the bytes cannot be
    /// had for some time.
    fn read_range(
        &self,
        key: &ObjectKey,
        stat: &ObjectStat,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let source = self.read_pinned(key, stat)?;
        let failed = |error| StoreError::from_io(key.as_str(), error);
        let mut buffer = vec![0; 1 << 20];
        let mut at = range.start;
        while at < range.end {
            let left = usize::try_from(range.end.saturating_sub(at)).unwrap_or(usize::MAX);
            let wanted = left.min(buffer.len());
            let part = buffer.get_mut(..wanted).unwrap_or_default();
            let count = source.read_at(at, part).map_err(failed)?;
            let part = part.get(..count).unwrap_or_default();
            if part.is_empty() {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
            if sink(part).is_break() {
                return Err(StoreError::Stopped);
            }
            at = at.saturating_add(count as u64);
        }
        Ok(())
    }

    /// Visits what `listing` asks for, in the order of keys, until `visit` breaks. Objects with names
    /// that [`ObjectKey`] refuses are passed over.
    ///
    /// # Errors
    /// When the store cannot be listed.
    fn list(
        &self,
        listing: &Listing<'_>,
        visit: &mut dyn FnMut(Listed) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// Removes an object; one that is not there is no error.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// A presigned URL that reads the object until `expires` is over.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] where the store has no such thing.
    fn share(&self, key: &ObjectKey, expires: Duration) -> Result<String, StoreError>;

    /// Gives up uploads of dumps that were begun longer than `age` ago and never finished; says how
    /// many. A store that keeps no halves has none.
    ///
    /// # Errors
    /// When the store cannot answer.
    fn abort_stale_uploads(&self, age: Duration) -> Result<usize, StoreError> {
        let _ = age;
        Ok(0)
    }
}
