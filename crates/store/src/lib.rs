//! Stores: puts, gets and lists bundles, and finds dumps.
//!
//! ```text
//! dumps/<YYYY-MM-DD>/<HHMMSS>Z_<namespace>_<pod>_<exe>_<signal>_<fingerprint>_<verdict>_<id>.zip
//! dumps/<YYYY-MM-DD>/<HHMMSS>Z_…_<id>.manifest.json
//! ```
//!
//! Invariant: the manifest's object is the commit record. It is written after the bundle was verified
//! and removed before the bundle is, so a listed dump is always readable. The key is the complete
//! index: a listing opens no object.

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

/// A place for objects. Calls block; a network implementation brings its own runtime.
pub trait Store: Send + Sync {
    /// For people: `directory /var/lib/cdh/store`.
    fn describe(&self) -> String;

    /// Checks without writing that the store is usable: that its bucket or directory exists and that the
    /// server accepts the credentials.
    ///
    /// # Errors
    /// [`StoreError::NoBucket`] or [`StoreError::NotFound`] if it does not exist,
    /// [`StoreError::Denied`] if listing is not permitted (writing may still be), or why it is
    /// unreachable.
    fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Stores exactly `len` bytes of `body`. Afterwards they are durable, before that invisible.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if `key` exists with other content: objects are never overwritten.
    fn put(&self, key: &ObjectKey, body: &mut dyn Read, len: u64) -> Result<Receipt, StoreError>;

    /// Like [`put`](Self::put), and records progress in the file `journal`, so that the same upload
    /// resumes after a failure or a restart. The file is removed at the end. A store without
    /// partial uploads does not use it.
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

    /// Compares the stored object with what was sent, using the checksum that the store returns.
    /// Without a checksum, reads the object back.
    ///
    /// # Errors
    /// [`ShipError::Verify`] if it is missing or different.
    fn verify(&self, key: &ObjectKey, sent: &Receipt) -> Result<(), ShipError> {
        ship::read_back(self, key, sent)
    }

    /// Facts about an object; `None` if it does not exist.
    ///
    /// # Errors
    /// If the store does not answer.
    fn stat(&self, key: &ObjectKey) -> Result<Option<ObjectStat>, StoreError>;

    /// Opens the current version of an object for random reads. If it is replaced later, reads
    /// fail, with [`StoreError::Changed`] inside the I/O error.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none.
    fn read(&self, key: &ObjectKey) -> Result<Arc<dyn ByteSource>, StoreError> {
        let not_found = || StoreError::NotFound {
            path: key.to_string(),
        };
        let stat = self.stat(key)?.ok_or_else(not_found)?;
        self.read_pinned(key, &stat)
    }

    /// Opens the object that `stat` describes without another request. If it was replaced since,
    /// fails with [`StoreError::Changed`], here or inside the I/O error of a later read.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none, [`StoreError::Changed`].
    fn read_pinned(
        &self,
        key: &ObjectKey,
        stat: &ObjectStat,
    ) -> Result<Arc<dyn ByteSource>, StoreError>;

    /// Passes `range` of the object that `stat` describes to `sink`, in order and as it arrives. While
    /// no bytes arrive, `sink` is called with none from time to time, so that it can stop the
    /// transfer. Broken connections are resumed.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] if `sink` breaks, [`StoreError::Changed`], or if no bytes arrive for
    /// some time.
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

    /// Visits the listed objects in the order of keys, until `visit` breaks. Objects with names that
    /// [`ObjectKey`] refuses are skipped.
    ///
    /// # Errors
    /// If the store cannot be listed.
    fn list(
        &self,
        listing: &Listing<'_>,
        visit: &mut dyn FnMut(Listed) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// Removes an object; a missing one is not an error.
    ///
    /// # Errors
    /// If it cannot be removed.
    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// A presigned URL that reads the object until `expires` has passed.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] if the store has no URLs.
    fn share(&self, key: &ObjectKey, expires: Duration) -> Result<String, StoreError>;

    /// Aborts uploads of dumps that began longer than `age` ago and never finished; returns their
    /// number. A store without partial uploads has none.
    ///
    /// # Errors
    /// If the store does not answer.
    fn abort_stale_uploads(&self, age: Duration) -> Result<usize, StoreError> {
        let _ = age;
        Ok(0)
    }
}
