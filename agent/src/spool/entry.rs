//! One entry that is being written: created, filled, sealed.
//!
//! Invariants: every file is created by us (`O_EXCL`, `O_NOFOLLOW`) in a directory that we hold
//! open and locked; `manifest.json` is written last and the rename that takes `.partial` away comes
//! after everything is synced. From its creation on the entry holds `identity.json`, a manifest as
//! it would have to read if the handler died now, so that salvage has to guess nothing.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use cdh_bundle::{Digests, DumpId, EntryKind, EntryRecord, Manifest};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, openat, renameat, unlinkat};

/// The manifest of an entry whose handler has died, as far as it had come.
pub const IDENTITY: &str = "identity.json";
/// Space kept for finishing the entry when the disk runs full.
const RESERVE: &str = ".reserve";

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// The spool's directory is not there and cannot be made, or cannot be opened.
    #[error("cannot use the spool {path}")]
    Unusable {
        /// The spool.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Others could plant files in it.
    #[error(
        "the spool {path} belongs to user {owner} and has mode {mode:04o}: only its owner may write to it"
    )]
    NotPrivate {
        /// The spool.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
    /// Somebody works on the entry.
    #[error("{path} is being written")]
    Busy {
        /// The entry.
        path: PathBuf,
    },
    /// A file of the entry cannot be written or read.
    #[error("cannot write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// Opens the spool, makes it where it is missing, and refuses one that others may write to.
pub(super) fn open_spool(path: &Path) -> Result<OwnedFd, SpoolError> {
    let unusable = |source| SpoolError::Unusable {
        path: path.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(unusable)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let spool =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|error| unusable(error.into()))?;
    let metadata = File::from(spool.try_clone().map_err(unusable)?)
        .metadata()
        .map_err(unusable)?;
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own || metadata.mode() & 0o022 != 0 {
        return Err(SpoolError::NotPrivate {
            path: path.to_owned(),
            owner: metadata.uid(),
            mode: metadata.mode() & 0o7777,
        });
    }
    Ok(spool)
}

/// An entry that is being written. Dropping it leaves it as it is, for the shipper to salvage.
#[derive(Debug)]
pub struct PartialEntry {
    path: PathBuf,
    id: DumpId,
    spool: OwnedFd,
    directory: OwnedFd,
    records: Vec<(EntryKind, Digests)>,
}

impl PartialEntry {
    /// Makes an empty entry and locks it.
    ///
    /// # Errors
    /// When the spool cannot be used.
    pub fn create(spool_path: &Path, id: DumpId) -> Result<Self, SpoolError> {
        let spool = open_spool(spool_path)?;
        // It gets its name when it is locked: the shipper never sees one that is not.
        let (hidden, name) = (format!(".{id}.new"), format!("{id}.partial"));
        let path = spool_path.join(&name);
        let make = || -> io::Result<OwnedFd> {
            rustix::fs::mkdirat(&spool, hidden.as_str(), Mode::RWXU)?;
            let directory = open_directory(&spool, &hidden)?;
            flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
            renameat(&spool, hidden.as_str(), &spool, name.as_str())?;
            Ok(directory)
        };
        let directory = make().map_err(|source| SpoolError::Io {
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            path,
            id,
            spool,
            directory,
            records: Vec::new(),
        })
    }

    /// Takes over the entry of a handler that is gone; `None` where there is none any more.
    ///
    /// # Errors
    /// [`SpoolError::Busy`] when its handler lives.
    pub fn take_over(spool_path: &Path, id: DumpId) -> Result<Option<Self>, SpoolError> {
        let spool = open_spool(spool_path)?;
        let name = format!("{id}.partial");
        let path = spool_path.join(&name);
        let failed = |source| SpoolError::Io {
            path: path.clone(),
            source,
        };
        let directory = match open_directory(&spool, &name) {
            Ok(directory) => directory,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        };
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(SpoolError::Busy { path }),
            Err(error) => return Err(failed(error.into())),
        }
        // Between open and lock its handler may have sealed it, and then the name is gone.
        match open_directory(&spool, &name) {
            Ok(_) => Ok(Some(Self {
                path,
                id,
                spool,
                directory,
                records: Vec::new(),
            })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> DumpId {
        self.id
    }

    /// Where it is, as long as it is not sealed.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a file for an entry of the bundle; [`Self::record`] makes it part of the dump.
    ///
    /// # Errors
    /// When it is there already or cannot be created.
    pub fn create_file(&self, name: &str) -> Result<File, SpoolError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        openat(
            &self.directory,
            name,
            flags | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        )
        .map(File::from)
        .map_err(|error| self.failed(name, error.into()))
    }

    /// Opens a file of the entry for reading and writing; `None` where there is none.
    ///
    /// # Errors
    /// When what is there is no regular file of ours.
    pub fn open_file(&self, name: &str) -> Result<Option<File>, SpoolError> {
        // NONBLOCK: a planted FIFO must not stop us.
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.directory, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.failed(name, error.into())),
        };
        let metadata = file.metadata().map_err(|error| self.failed(name, error))?;
        if !metadata.is_file() || metadata.nlink() != 1 {
            return Err(self.failed(name, io::Error::other("not a file of ours")));
        }
        Ok(Some(file))
    }

    /// Writes and syncs a whole file of the bundle.
    ///
    /// # Errors
    /// When it cannot be written; it is removed then.
    pub fn write_file(&mut self, kind: EntryKind, bytes: &[u8]) -> Result<(), SpoolError> {
        let name = kind.file_name();
        let mut file = self.create_file(&name)?;
        match file.write_all(bytes).and_then(|()| file.sync_all()) {
            Ok(()) => {
                self.record(kind, Digests::of(bytes));
                Ok(())
            }
            Err(error) => {
                self.remove_file(&name);
                Err(self.failed(&name, error))
            }
        }
    }

    /// Makes a file that was written otherwise part of the dump: reads and syncs it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn adopt_file(&mut self, kind: EntryKind) -> Result<(), SpoolError> {
        let name = kind.file_name();
        let missing = || self.failed(&name, io::ErrorKind::NotFound.into());
        let mut file = self.open_file(&name)?.ok_or_else(missing)?;
        let mut digest = || {
            let digests = Digests::of_reader(&mut file)?;
            file.sync_all()?;
            Ok(digests)
        };
        let digests = digest().map_err(|error| self.failed(&name, error))?;
        self.record(kind, digests);
        Ok(())
    }

    /// Makes a file part of the dump whose digests are known.
    pub fn record(&mut self, kind: EntryKind, digests: Digests) {
        self.records.push((kind, digests));
    }

    /// Removes a file that shall not be part of the dump.
    pub fn remove_file(&self, name: &str) {
        let _ = unlinkat(&self.directory, name, AtFlags::empty());
    }

    /// Names of the files that are there.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn file_names(&self) -> Result<Vec<String>, SpoolError> {
        let mut names = Vec::new();
        let read =
            || -> io::Result<rustix::fs::Dir> { Ok(rustix::fs::Dir::read_from(&self.directory)?) };
        for entry in read().map_err(|error| self.failed("", error))? {
            let entry = entry.map_err(|error| self.failed("", error.into()))?;
            // Ours are all UTF-8.
            if let Ok(name) = entry.file_name().to_str() {
                if name != "." && name != ".." {
                    names.push(name.to_owned());
                }
            }
        }
        Ok(names)
    }

    /// Writes `identity.json` anew: the old one or the new one is there, never half of one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_identity(&self, manifest: &Manifest) -> Result<(), SpoolError> {
        self.write_whole(IDENTITY, manifest)
    }

    /// Sets disk space aside.
    ///
    /// # Errors
    /// When there is not that much.
    pub fn reserve(&self, bytes: u64) -> Result<(), SpoolError> {
        let file = self.create_file(RESERVE)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)
            .map_err(|error| self.failed(RESERVE, error.into()))
    }

    /// Gives back what was set aside.
    pub fn release_reserve(&self) {
        self.remove_file(RESERVE);
    }

    /// Syncs the directory, so that what was written so far survives a power cut.
    ///
    /// # Errors
    /// When that fails.
    pub fn sync(&self) -> Result<(), SpoolError> {
        rustix::fs::fsync(&self.directory).map_err(|error| self.failed("", error.into()))
    }

    /// The records of all files so far, in the order in which they were added.
    #[must_use]
    pub fn records(&self, stem: &str) -> Vec<EntryRecord> {
        let record = |(kind, digests): &(EntryKind, Digests)| EntryRecord {
            name: kind.bundle_name(stem),
            size: digests.size,
            crc32: digests.crc32,
            sha256: digests.sha256,
            stored_size: None,
        };
        self.records.iter().map(record).collect()
    }

    /// Completes the manifest with the records, writes it, and gives the entry its final name.
    ///
    /// # Errors
    /// When a step fails; the entry is then still `.partial`.
    pub fn seal(self, mut manifest: Manifest) -> Result<PathBuf, SpoolError> {
        self.release_reserve();
        manifest.entries = self.records(&manifest.stem);
        self.write_whole(&EntryKind::Manifest.file_name(), &manifest)?;
        self.finish()
    }

    /// Gives an entry whose manifest stands its final name.
    pub(super) fn finish(self) -> Result<PathBuf, SpoolError> {
        self.release_reserve();
        self.remove_file(IDENTITY);
        self.sync()?;
        let (old, new) = (format!("{}.partial", self.id), self.id.to_string());
        renameat(&self.spool, old.as_str(), &self.spool, new.as_str())
            .and_then(|()| rustix::fs::fsync(&self.spool))
            .map_err(|error| self.failed("", error.into()))?;
        Ok(self.path.with_file_name(new))
    }

    fn write_whole(&self, name: &str, manifest: &Manifest) -> Result<(), SpoolError> {
        let temporary = format!("{name}.new");
        self.remove_file(&temporary);
        let mut file = self.create_file(&temporary)?;
        let mut write = || -> io::Result<()> {
            file.write_all(&serde_json::to_vec_pretty(manifest)?)?;
            // `identity.json` only has to outlive the handler, the manifest also a power cut.
            if name != IDENTITY {
                file.sync_all()?;
            }
            renameat(&self.directory, temporary.as_str(), &self.directory, name)?;
            Ok(())
        };
        write().map_err(|error| self.failed(name, error))
    }

    fn failed(&self, name: &str, source: io::Error) -> SpoolError {
        SpoolError::Io {
            path: self.path.join(name),
            source,
        }
    }
}

/// Reads a file of the entry that must be small.
pub(super) fn read_small(file: &mut File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn open_directory(parent: impl AsFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// Renames an entry inside the spool and syncs the spool.
pub(crate) fn rename_entry(spool: &Path, from: &str, to: &str) -> io::Result<()> {
    fs::rename(spool.join(from), spool.join(to))?;
    File::open(spool)?.sync_all()
}
