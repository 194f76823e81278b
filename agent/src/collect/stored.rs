//! Records which files are in the spool or the store already, so that a restarted agent does not store
//! them twice.
//!
//! Invariants: a file is recorded after its dump is sealed. If an agent dies in between, the file is stored twice,
//! which is better than never. The number of records is limited per directory and in total, and a directory with many
//! records does not displace those of others.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use cdh_bundle::DumpId;
use serde::{Deserialize, Serialize};

use super::core_file::FileIdentity;
use super::directories::DirectoryKey;
use crate::private_file::PrivateDirectory;

const NAME: &str = "collected.json";
/// Maximum size of the record in bytes. A file needs up to 240, so `TOTAL` of them fit.
const LIMIT: u64 = 8 << 20;
/// Maximum number of files in all directories.
const TOTAL: usize = 32_768;

/// State of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredFile {
    /// Device and inode of its directory, because an inode number is only unique on one device.
    directory: DirectoryKey,
    file: FileIdentity,
    /// Its dump; `None` if the policy stores none.
    dump: Option<DumpId>,
}

/// The record in the agent's own directory.
#[derive(Debug)]
pub(super) struct StoredFiles {
    place: PrivateDirectory,
    files: BTreeMap<DirectoryKey, BTreeMap<FileIdentity, Option<DumpId>>>,
    /// Maximum number of files in one directory.
    per_directory: usize,
}

impl StoredFiles {
    /// Reads the record; a damaged record counts as empty.
    ///
    /// # Errors
    /// If the directory cannot be created or is not private.
    pub(super) fn open(place: &Path, per_directory: usize) -> io::Result<Self> {
        let place = PrivateDirectory::create(place)?;
        let bytes = place.read(NAME, LIMIT).unwrap_or_default();
        let found: Vec<StoredFile> = serde_json::from_slice(&bytes).unwrap_or_default();
        let mut stored = Self {
            place,
            files: BTreeMap::new(),
            per_directory,
        };
        for one in found {
            stored.add(one.directory, one.file, one.dump);
        }
        Ok(stored)
    }

    /// The dump of a file; `None` inside if the policy stored none.
    pub(super) fn get(
        &self,
        directory: DirectoryKey,
        file: FileIdentity,
    ) -> Option<Option<DumpId>> {
        self.files.get(&directory)?.get(&file).copied()
    }

    /// Whether a file has this dump.
    pub(super) fn has_dump(&self, dump: DumpId) -> bool {
        let mut dumps = self.files.values().flat_map(BTreeMap::values);
        dumps.any(|of| *of == Some(dump))
    }

    /// Records a file.
    ///
    /// # Errors
    /// If the record cannot be written; the file is recorded in memory nevertheless.
    pub(super) fn insert(
        &mut self,
        directory: DirectoryKey,
        file: FileIdentity,
        dump: Option<DumpId>,
    ) -> io::Result<()> {
        self.add(directory, file, dump);
        self.write()
    }

    /// Removes a deleted file.
    ///
    /// # Errors
    /// If the record cannot be written.
    pub(super) fn remove(&mut self, directory: DirectoryKey, file: FileIdentity) -> io::Result<()> {
        self.retain(|of, one| (of, one) != (directory, &file))
    }

    /// Removes files that are in no directory any more.
    ///
    /// # Errors
    /// If the record cannot be written.
    pub(super) fn retain(
        &mut self,
        is_there: impl Fn(DirectoryKey, &FileIdentity) -> bool,
    ) -> io::Result<()> {
        let before = self.len();
        self.files.retain(|directory, files| {
            files.retain(|file, _| is_there(*directory, file));
            !files.is_empty()
        });
        match self.len() == before {
            true => Ok(()),
            false => self.write(),
        }
    }

    fn len(&self) -> usize {
        self.files.values().map(BTreeMap::len).sum()
    }

    /// Adds a file and drops the oldest ones above the limits: of its directory, then of the fullest directory.
    fn add(&mut self, directory: DirectoryKey, file: FileIdentity, dump: Option<DumpId>) {
        let files = self.files.entry(directory).or_default();
        files.insert(file, dump);
        if files.len() > self.per_directory {
            drop_oldest(files);
        }
        if self.len() > TOTAL {
            let fullest = self.files.values_mut().max_by_key(|files| files.len());
            fullest.into_iter().for_each(drop_oldest);
        }
    }

    fn write(&self) -> io::Result<()> {
        let all = self.files.iter().flat_map(|(directory, files)| {
            files.iter().map(|(file, dump)| StoredFile {
                directory: *directory,
                file: *file,
                dump: *dump,
            })
        });
        let bytes = serde_json::to_vec(&all.collect::<Vec<_>>())?;
        let _lock = self.place.lock()?;
        self.place.replace(NAME, &bytes)
    }
}

fn drop_oldest(files: &mut BTreeMap<FileIdentity, Option<DumpId>>) {
    let oldest = files.keys().min_by_key(|file| file.modified_at()).copied();
    if let Some(oldest) = oldest {
        files.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(inode: u64) -> FileIdentity {
        FileIdentity::for_test(inode, i64::try_from(inode).unwrap())
    }

    #[test]
    fn stored_files_of_two_devices_are_different_files() {
        let place = tempfile::tempdir().unwrap();
        let mut stored = StoredFiles::open(place.path(), 4).unwrap();
        stored.insert((1, 2), file(7), None).unwrap();
        assert_eq!(stored.get((1, 2), file(7)), Some(None));
        assert_eq!(stored.get((9, 2), file(7)), None);
        let again = StoredFiles::open(place.path(), 4).unwrap();
        assert_eq!(again.get((1, 2), file(7)), Some(None));
    }

    #[test]
    fn stored_files_are_limited_for_each_directory() {
        let place = tempfile::tempdir().unwrap();
        let mut stored = StoredFiles::open(place.path(), 4).unwrap();
        stored.insert((1, 1), file(1), None).unwrap();
        for inode in 1..=9 {
            stored.insert((1, 2), file(inode), None).unwrap();
        }
        assert_eq!(stored.len(), 1 + 4);
        assert_eq!(stored.get((1, 1), file(1)), Some(None));
        assert_eq!(stored.get((1, 2), file(5)), None, "the oldest are dropped");
        assert_eq!(stored.get((1, 2), file(6)), Some(None));
        stored.remove((1, 2), file(6)).unwrap();
        assert_eq!(stored.len(), 4);
    }

    #[test]
    fn damaged_record_of_stored_files_counts_as_empty() {
        let place = tempfile::tempdir().unwrap();
        let mut stored = StoredFiles::open(place.path(), 4).unwrap();
        stored.insert((1, 1), file(1), None).unwrap();
        std::fs::write(place.path().join(NAME), "[{").unwrap();
        assert_eq!(StoredFiles::open(place.path(), 4).unwrap().len(), 0);
    }

    #[test]
    fn record_of_the_maximum_number_of_files_is_readable() {
        let place = tempfile::tempdir().unwrap();
        let mut stored = StoredFiles::open(place.path(), 4096).unwrap();
        let widest = FileIdentity::for_test(u64::MAX, i64::MIN);
        for inode in 0..u64::try_from(TOTAL + 9).unwrap() {
            let directory = (u64::MAX, u64::MAX - inode % 16);
            let file = FileIdentity::for_test(u64::MAX - inode, i64::MIN);
            stored.add(directory, file, Some(DumpId::random()));
        }
        stored.insert((0, 0), widest, None).unwrap();
        let again = StoredFiles::open(place.path(), 4096).unwrap();
        assert_eq!(again.len(), TOTAL);
    }
}
