//! Small files that several of our processes share, in a directory that no other user can write to.
//!
//! Invariants: planted files are never followed or used: links, FIFOs, files with a second hard link. A
//! file is replaced atomically. A lock ends when its holder dies.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, openat, renameat, unlinkat};

const LOCK: &str = "lock";
/// How long to wait for the lock. Each holder needs well below a millisecond.
const PATIENCE: Duration = Duration::from_secs(5);

/// Such a directory.
#[derive(Debug)]
pub(crate) struct PrivateDirectory {
    directory: OwnedFd,
}

/// Locked until it is dropped.
#[derive(Debug)]
pub(crate) struct PrivateLock {
    _file: File,
}

impl PrivateDirectory {
    /// Opens the directory, and creates it if it is missing.
    ///
    /// # Errors
    /// If that fails, or other users can write to it.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700).create(path)?;
        Self::open(path)
    }

    /// Like [`Self::create`], if the parent directory exists.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub(crate) fn make(path: &Path) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Self::open(path),
        }
    }

    /// Opens it.
    ///
    /// # Errors
    /// If it does not exist, or other users can write to it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        let metadata = File::from(directory.try_clone()?).metadata()?;
        let own = rustix::process::geteuid().as_raw();
        if metadata.uid() != own || metadata.mode() & 0o022 != 0 {
            let what = format!("others may write to {}", path.display());
            return Err(io::Error::other(what));
        }
        Ok(Self { directory })
    }

    /// Waits briefly for the lock.
    ///
    /// # Errors
    /// If the lock is not available in time.
    pub(crate) fn lock(&self) -> io::Result<PrivateLock> {
        let lock = self.open_file(LOCK, OFlags::RDWR | OFlags::CREATE)?;
        wait_for(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(PrivateLock { _file: lock })
    }

    /// Like [`Self::lock`], but shared with other readers.
    ///
    /// # Errors
    /// If the lock is not available in time, or its file does not exist.
    pub(crate) fn lock_shared(&self) -> io::Result<PrivateLock> {
        let lock = self.open_file(LOCK, OFlags::RDONLY)?;
        wait_for(&lock, FlockOperation::NonBlockingLockShared)?;
        Ok(PrivateLock { _file: lock })
    }

    /// Opens a regular file of ours without a second hard link.
    ///
    /// # Errors
    /// If it is not such a file, or a system call fails.
    pub(crate) fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = File::from(openat(&self.directory, name, flags, mode)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.nlink() != 1 {
            return Err(io::Error::other(format!("`{name}` is not a file of cdh")));
        }
        Ok(file)
    }

    /// The content of a file, up to `limit` bytes; `None` if it does not exist.
    #[must_use]
    pub(crate) fn read(&self, name: &str, limit: u64) -> Option<Vec<u8>> {
        let file = self.open_file(name, OFlags::RDONLY).ok()?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Replaces a file atomically: either the old or the new content exists. Call it under the
    /// lock.
    ///
    /// # Errors
    /// If it cannot be written; the old file then remains.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let draft = format!("{name}.new");
        self.remove(&draft)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let written = self
            .open_file(&draft, flags)
            .and_then(|mut file| file.write_all(bytes));
        if let Err(error) = written {
            let _ = self.remove(&draft);
            return Err(error);
        }
        self.rename(&draft, name)
    }

    /// Renames a file and replaces the one with the new name.
    ///
    /// # Errors
    /// If a system call fails.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.directory, from, &self.directory, to)?)
    }

    /// Removes a file, if it exists.
    ///
    /// # Errors
    /// If a system call fails.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn wait_for(lock: &File, wanted: FlockOperation) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = flock(lock, wanted) {
        if error != rustix::io::Errno::WOULDBLOCK || Instant::now() > deadline {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}
