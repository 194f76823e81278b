//! Counts entries and bytes in the spool.

use std::fs;
use std::io;
use std::path::Path;

use cdh_bundle::{BundleError, SpoolState, list_spool};
use serde::Serialize;

/// Subdirectory for entries that cannot be processed.
pub const QUARANTINE: &str = "quarantine";

/// Number of entries in each state, and their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SpoolCount {
    /// Entries that wait for upload.
    pub sealed: u64,
    /// Entries that are being written, or were left by dead handlers.
    pub partial: u64,
    /// Those of `partial` whose handlers died: the shipper will salvage them.
    pub abandoned: u64,
    /// Entries in quarantine.
    pub quarantined: u64,
    /// Bytes on disk of all these entries.
    pub bytes: u64,
}

/// Counts the spool; all zero if it does not exist.
///
/// # Errors
/// Fails if a directory cannot be read.
pub fn count(spool: &Path) -> Result<SpoolCount, BundleError> {
    let mut count = SpoolCount::default();
    let entries = match list_spool(spool) {
        Err(BundleError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(count);
        }
        entries => entries?,
    };
    for entry in entries {
        match entry.state {
            SpoolState::Sealed => count.sealed += 1,
            SpoolState::Live => count.partial += 1,
            _ => {
                count.partial += 1;
                count.abandoned += 1;
            }
        }
        count.bytes += size_of(&entry.path);
    }
    for entry in fs::read_dir(spool.join(QUARANTINE))
        .into_iter()
        .flatten()
        .flatten()
    {
        count.quarantined += 1;
        count.bytes += size_of(&entry.path());
    }
    Ok(count)
}

/// Bytes on disk of an entry's files. Entries may vanish during the scan, which is not an error.
pub(crate) fn size_of(entry: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = fs::read_dir(entry).into_iter().flatten().flatten();
    files
        .filter_map(|file| file.metadata().ok())
        .map(|metadata| metadata.blocks() * 512)
        .sum()
}

#[cfg(test)]
mod tests {
    use cdh_bundle::DumpId;

    use super::*;

    #[test]
    fn spool_count_ignores_files_and_foreign_directories() {
        let spool = tempfile::tempdir().unwrap();
        let at = |name: String| spool.path().join(name);
        fs::create_dir(at(DumpId::random().to_string())).unwrap();
        fs::create_dir(at("lost+found".to_owned())).unwrap();
        fs::write(at(DumpId::random().to_string()), "not a directory").unwrap();
        std::os::unix::fs::symlink("/", at(format!("{}.partial", DumpId::random()))).unwrap();
        let found = count(spool.path()).unwrap();
        assert_eq!((found.sealed, found.partial, found.abandoned), (1, 0, 0));
        assert_eq!(
            count(&spool.path().join("absent")).unwrap(),
            SpoolCount::default()
        );
    }
}
