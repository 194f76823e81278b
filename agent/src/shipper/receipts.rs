//! Receipts: which dumps the store has with their complete cores. The collector deletes a core file only with one.
//!
//! ```text
//! <state>/uploads/collected/<id>   an empty file
//! ```
//!
//! Invariant: a receipt is written after the upload was verified and before the entry leaves the spool. An entry that
//! leaves the spool otherwise (quota, quarantine, an operator) has none. Receipts are written only while the directory
//! exists: the collector creates it and removes receipts that it does not need.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cdh_bundle::{DumpId, Manifest, Verdict};
use rustix::fs::OFlags;

use crate::private_file::PrivateDirectory;

const DIRECTORY: &str = "collected";
/// Age below which an unknown receipt is kept: the shipper may be faster than the collector, which records a dump when
/// its handler has ended.
const UNKNOWN: Duration = Duration::from_secs(3600);

/// The receipts of one node.
#[derive(Clone, Debug)]
pub(crate) struct UploadReceipts {
    directory: PathBuf,
}

impl UploadReceipts {
    /// Those below the shipper's directory ([`AgentPaths::uploads`](crate::AgentPaths::uploads)).
    #[must_use]
    pub(crate) fn of(uploads: &Path) -> Self {
        Self {
            directory: uploads.join(DIRECTORY),
        }
    }

    /// Asks the shipper for receipts.
    ///
    /// # Errors
    /// Fails if the directory cannot be created or is not private.
    pub(crate) fn begin(&self) -> io::Result<()> {
        PrivateDirectory::create(&self.directory).map(|_| ())
    }

    /// Removes all of them and asks for no more.
    pub(crate) fn end(&self) {
        let _ = fs::remove_dir_all(&self.directory);
    }

    /// Writes the receipt for an uploaded dump, if receipts are wanted and the dump has its complete core.
    ///
    /// # Errors
    /// Fails if it cannot be written; the core file then remains.
    pub(super) fn write(&self, manifest: &Manifest) -> io::Result<()> {
        let is_complete = manifest.verdict == Verdict::Complete && manifest.core.is_some();
        if !is_complete || !self.directory.exists() {
            return Ok(());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE;
        let name = manifest.id.to_string();
        PrivateDirectory::open(&self.directory)?.open_file(&name, flags)?;
        Ok(())
    }

    /// Whether the store has this dump with its complete core.
    #[must_use]
    pub(crate) fn has(&self, dump: DumpId) -> bool {
        PrivateDirectory::open(&self.directory)
            .and_then(|directory| directory.open_file(&dump.to_string(), OFlags::RDONLY))
            .is_ok()
    }

    /// Removes one.
    pub(crate) fn remove(&self, dump: DumpId) {
        if let Ok(directory) = PrivateDirectory::open(&self.directory) {
            let _ = directory.remove(&dump.to_string());
        }
    }

    /// Removes old receipts of dumps that the collector does not know.
    pub(crate) fn retain(&self, is_known: impl Fn(DumpId) -> bool) {
        for item in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let dump = item.file_name().to_str().and_then(|name| name.parse().ok());
            let age = item.metadata().and_then(|metadata| metadata.modified());
            let is_old = age.is_ok_and(|at| at.elapsed().is_ok_and(|age| age >= UNKNOWN));
            if let Some(dump) = dump
                && is_old
                && !is_known(dump)
            {
                self.remove(dump);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_that_the_collector_does_not_know_are_removed_after_a_while() {
        let place = tempfile::tempdir().unwrap();
        let receipts = UploadReceipts::of(place.path());
        receipts.begin().unwrap();
        let ids = [DumpId::random(), DumpId::random(), DumpId::random()];
        for (id, age) in ids.iter().zip([2, 2, 0]) {
            let path = place.path().join(DIRECTORY).join(id.to_string());
            let file = fs::File::create(path).unwrap();
            let at = std::time::SystemTime::now() - UNKNOWN * age;
            file.set_modified(at).unwrap();
        }
        receipts.retain(|id| id == ids[0]);
        assert_eq!(ids.map(|id| receipts.has(id)), [true, false, true]);
        receipts.remove(ids[0]);
        assert!(!receipts.has(ids[0]));
        receipts.end();
        assert!(!receipts.has(ids[2]));
    }
}
