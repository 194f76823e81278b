//! Which files are in the spool or the store already, so that a restarted agent does not store them twice.
//!
//! Invariant: a file is noted after its dump is sealed. An agent that dies in between stores the file once more: twice
//! rather than never.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use cdh_bundle::DumpId;
use serde::{Deserialize, Serialize};

use super::core_file::FileIdentity;
use crate::private_file::PrivateDirectory;

const NAME: &str = "collected.json";
/// Bytes of the record: about 50,000 files.
const LIMIT: u64 = 8 << 20;

/// State of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredFile {
    file: FileIdentity,
    /// Its dump; `None` if the policy wants none.
    dump: Option<DumpId>,
}

/// The record in the agent's own directory.
#[derive(Debug)]
pub(super) struct StoredFiles {
    directory: PrivateDirectory,
    files: BTreeMap<FileIdentity, Option<DumpId>>,
}

impl StoredFiles {
    /// Reads the record; a broken one is as none.
    ///
    /// # Errors
    /// If the directory cannot be made or is not private.
    pub(super) fn open(place: &Path) -> io::Result<Self> {
        let directory = PrivateDirectory::create(place)?;
        let bytes = directory.read(NAME, LIMIT).unwrap_or_default();
        let found: Vec<StoredFile> = serde_json::from_slice(&bytes).unwrap_or_default();
        let files = found.into_iter().map(|one| (one.file, one.dump)).collect();
        Ok(Self { directory, files })
    }

    /// The dump of a file; `None` inside if the policy wanted none.
    pub(super) fn get(&self, file: FileIdentity) -> Option<Option<DumpId>> {
        self.files.get(&file).copied()
    }

    /// Notes a file.
    ///
    /// # Errors
    /// If the record cannot be written; it is noted in memory all the same.
    pub(super) fn insert(&mut self, file: FileIdentity, dump: Option<DumpId>) -> io::Result<()> {
        self.files.insert(file, dump);
        self.write()
    }

    /// Forgets files that are in no directory any more.
    ///
    /// # Errors
    /// If the record cannot be written.
    pub(super) fn retain(&mut self, is_there: impl Fn(&FileIdentity) -> bool) -> io::Result<()> {
        let before = self.files.len();
        self.files.retain(|file, _| is_there(file));
        match self.files.len() == before {
            true => Ok(()),
            false => self.write(),
        }
    }

    fn write(&self) -> io::Result<()> {
        let all = self.files.iter().map(|(file, dump)| StoredFile {
            file: *file,
            dump: *dump,
        });
        let bytes = serde_json::to_vec(&all.collect::<Vec<_>>())?;
        let _lock = self.directory.lock()?;
        self.directory.replace(NAME, &bytes)
    }
}
