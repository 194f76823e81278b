//! A spool entry that is being written: the handler's additions to the bundle's [`EntryDir`].
//!
//! From the start, the entry contains `identity.json`: a provisional manifest, valid if the handler
//! dies at this point, so that salvage need not guess. Invariant: a file that could not be written
//! completely is removed, because sealing includes every file that it finds.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use cdh_bundle::{BundleError, Digests, DumpId, EntryDir, EntryFile, EntryKind, Manifest};
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, fallocate, openat, renameat, unlinkat};

/// The provisional manifest, used if the handler dies.
pub(crate) const IDENTITY: &str = "identity.json";
/// Disk space reserved for finishing the entry when the disk becomes full.
const RESERVE: &str = ".reserve";

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// The spool's directory does not exist and cannot be created, or cannot be opened.
    #[error("cannot use the spool {path}")]
    Unusable {
        /// The spool.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Other users could plant files in it.
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
    /// The entry cannot be created, read or sealed.
    #[error(transparent)]
    Entry(#[from] BundleError),
    /// A file of the entry outside the bundle cannot be written or read.
    #[error("cannot use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// Creates the spool if it is missing, and refuses one that other users may write to.
///
/// # Errors
/// Fails if it cannot be created or is not private.
pub(crate) fn prepare_spool(path: &Path) -> Result<(), SpoolError> {
    let unusable = |source| SpoolError::Unusable {
        path: path.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(unusable)?;
    let metadata = std::fs::metadata(path).map_err(unusable)?;
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own || metadata.mode() & 0o022 != 0 {
        return Err(SpoolError::NotPrivate {
            path: path.to_owned(),
            owner: metadata.uid(),
            mode: metadata.mode() & 0o7777,
        });
    }
    Ok(())
}

/// An entry that is being written. Dropping it leaves it unchanged, for the shipper to salvage.
pub struct PartialEntry {
    entry: EntryDir,
}

impl PartialEntry {
    /// Creates an empty entry and locks it.
    ///
    /// # Errors
    /// Fails if the spool cannot be used.
    pub fn create(spool: &Path, id: DumpId) -> Result<Self, SpoolError> {
        prepare_spool(spool)?;
        // A concurrent sweep that checks the lock of the new directory holds it for a moment.
        let mut attempts = 0;
        loop {
            match EntryDir::create(spool, id) {
                Ok(entry) => return Ok(Self { entry }),
                Err(BundleError::Io { source, .. })
                    if source.kind() == io::ErrorKind::WouldBlock && attempts < 100 =>
                {
                    attempts += 1;
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes over the entry of a handler that died.
    ///
    /// # Errors
    /// [`BundleError::Busy`] if its handler is running.
    pub fn take_over(spool: &Path, id: DumpId) -> Result<Self, SpoolError> {
        prepare_spool(spool)?;
        Ok(Self {
            entry: EntryDir::adopt(spool, id)?,
        })
    }

    /// Id of the dump.
    #[must_use]
    pub fn id(&self) -> DumpId {
        self.entry.id()
    }

    /// Path of the entry until it is sealed.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.entry.path()
    }

    /// Creates a file of the bundle.
    ///
    /// # Errors
    /// Fails if it exists or cannot be created.
    pub fn create_file(&self, kind: &EntryKind) -> Result<EntryFile, SpoolError> {
        Ok(self.entry.create_file(kind)?)
    }

    /// Creates a file that is not part of the bundle.
    ///
    /// # Errors
    /// Fails if it exists or cannot be created.
    pub(crate) fn create_beside(&self, name: &str) -> Result<File, SpoolError> {
        self.create_other(name)
            .map_err(|error| self.failed(name, error))
    }

    /// Opens the directory again: the returned descriptor does not hold the lock.
    ///
    /// # Errors
    /// Fails if no descriptor is available.
    pub(crate) fn directory(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat(self.entry.descriptor(), ".", flags, Mode::empty())?)
    }

    /// Records a file's digests, so that sealing need not read it again.
    pub fn record(&mut self, kind: &EntryKind, digests: Digests) {
        self.entry.record(kind, digests);
    }

    /// Writes a file of the bundle completely or not at all.
    ///
    /// # Errors
    /// Fails if it cannot be written; it is then removed.
    pub fn write_file(&mut self, kind: &EntryKind, bytes: &[u8]) -> Result<(), SpoolError> {
        self.entry.write_file(kind, bytes).map_err(|error| {
            self.remove_file(&kind.file_name());
            error.into()
        })
    }

    /// Opens a file of the entry for reading and writing; `None` if there is none, or if it is not
    /// ours.
    ///
    /// # Errors
    /// Fails if it cannot be opened.
    pub fn open_file(&self, name: &str) -> Result<Option<File>, SpoolError> {
        // NONBLOCK: a planted FIFO must not block the handler.
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = || match openat(self.entry.descriptor(), name, flags, Mode::empty()) {
            Ok(file) => {
                let file = File::from(file);
                let metadata = file.metadata()?;
                // With a second hard link, we would write into another user's file.
                Ok((metadata.is_file() && metadata.nlink() == 1).then_some(file))
            }
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP | rustix::io::Errno::ISDIR) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        };
        open().map_err(|error| self.failed(name, error))
    }

    /// Reads a small file of ours; `None` if there is none.
    ///
    /// # Errors
    /// Fails if it cannot be read.
    pub(crate) fn read_file(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, SpoolError> {
        let Some(file) = self.open_file(name)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(limit)
            .read_to_end(&mut bytes)
            .map_err(|error| self.failed(name, error))?;
        Ok(Some(bytes))
    }

    /// Kinds of the bundle's files that exist.
    ///
    /// # Errors
    /// Fails if the directory cannot be read.
    pub(crate) fn kinds(&self) -> Result<Vec<EntryKind>, SpoolError> {
        Ok(self.entry.kinds()?)
    }

    /// Removes a file that must not become part of the dump.
    pub fn remove_file(&self, name: &str) {
        let _ = unlinkat(self.entry.descriptor(), name, AtFlags::empty());
    }

    /// Replaces `identity.json` atomically: the old or the new one exists, never a part. This
    /// survives the death of the handler; [`Self::sync`] makes it survive a crash of the node.
    ///
    /// # Errors
    /// Fails if it cannot be written.
    pub fn write_identity(&self, manifest: &Manifest) -> Result<(), SpoolError> {
        const DRAFT: &str = "identity.json.new";
        self.remove_file(DRAFT);
        let write = || -> io::Result<()> {
            let mut file = self.create_other(DRAFT)?;
            file.write_all(&serde_json::to_vec(manifest)?)?;
            let directory = self.entry.descriptor();
            Ok(renameat(directory, DRAFT, directory, IDENTITY)?)
        };
        write().map_err(|error| self.failed(IDENTITY, error))
    }

    /// Reserves disk space.
    ///
    /// # Errors
    /// Fails if there is not enough space.
    pub fn reserve(&self, bytes: u64) -> Result<(), SpoolError> {
        let reserve = || -> io::Result<()> {
            let file = self.create_other(RESERVE)?;
            Ok(fallocate(&file, FallocateFlags::empty(), 0, bytes)?)
        };
        reserve().map_err(|error| self.failed(RESERVE, error))
    }

    /// Deletes the entry: there will be no dump.
    pub(crate) fn discard(self) {
        let path = self.path().to_owned();
        // Rename it first: if this is interrupted, the shipper deletes it under its new name.
        let gone = path.with_file_name(format!(".removed-{}", self.id()));
        if std::fs::rename(&path, &gone).is_ok() {
            let _ = std::fs::remove_dir_all(&gone);
        } else {
            let _ = std::fs::remove_dir_all(&path);
        }
    }

    /// Releases the reserved disk space.
    pub fn release_reserve(&self) {
        self.remove_file(RESERVE);
    }

    /// Syncs the directory and `identity.json`, so that they survive a power failure.
    ///
    /// # Errors
    /// Fails if the sync fails.
    pub fn sync(&self) -> Result<(), SpoolError> {
        if let Some(identity) = self.open_file(IDENTITY)? {
            identity
                .sync_all()
                .map_err(|error| self.failed(IDENTITY, error))?;
        }
        rustix::fs::fsync(self.entry.descriptor()).map_err(|error| self.failed("", error.into()))
    }

    /// Writes the manifest with the records of all files, and renames the entry to its final name.
    ///
    /// # Errors
    /// Fails if a step fails; the entry is then still `.partial`.
    pub fn seal(self, manifest: Manifest) -> Result<PathBuf, SpoolError> {
        self.release_reserve();
        let sealed = self.entry.seal(manifest)?;
        // The note marked the entry as being written.
        super::forget_need(&sealed);
        Ok(sealed)
    }

    /// Creates a file that is not part of the bundle.
    fn create_other(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(openat(self.entry.descriptor(), name, flags | OFlags::CLOEXEC, mode)?.into())
    }

    fn failed(&self, name: &str, source: io::Error) -> SpoolError {
        SpoolError::Io {
            path: self.path().join(name),
            source,
        }
    }
}
