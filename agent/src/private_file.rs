//! Small files that several processes of ours share, in a directory that no other user may write to.
//!
//! Invariants: nothing that another user planted is followed: no link, no FIFO, no file that has a second
//! name; a file is replaced as a whole; who holds the lock and dies lets it go.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, openat, renameat, unlinkat};

const LOCK: &str = "lock";
/// How long to wait for others who hold the lock. Each takes well below a millisecond.
const PATIENCE: Duration = Duration::from_secs(5);

/// Such a directory.
#[derive(Debug)]
pub(crate) struct PrivateDirectory {
    directory: OwnedFd,
}

/// Held until it is dropped.
#[derive(Debug)]
pub(crate) struct PrivateLock {
    _file: File,
}

impl PrivateDirectory {
    /// Makes it where it is missing, and opens it.
    ///
    /// # Errors
    /// When that cannot be done, or others may write to it.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700).create(path)?;
        Self::open(path)
    }

    /// As [`Self::create`], where the directory above is there.
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
    /// When it is not there, or others may write to it.
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

    /// Waits for the lock, but not long.
    ///
    /// # Errors
    /// When it cannot be had.
    pub(crate) fn lock(&self) -> io::Result<PrivateLock> {
        let lock = self.open_file(LOCK, OFlags::RDWR | OFlags::CREATE)?;
        wait_for(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(PrivateLock { _file: lock })
    }

    /// As [`Self::lock`], beside others who only read.
    ///
    /// # Errors
    /// When it cannot be had, or is not there.
    pub(crate) fn lock_shared(&self) -> io::Result<PrivateLock> {
        let lock = self.open_file(LOCK, OFlags::RDONLY)?;
        wait_for(&lock, FlockOperation::NonBlockingLockShared)?;
        Ok(PrivateLock { _file: lock })
    }

    /// Opens a regular file of ours that has no other name.
    ///
    /// # Errors
    /// When it is none, or the system says no.
    pub(crate) fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = File::from(openat(&self.directory, name, flags, mode)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.nlink() != 1 {
            return Err(io::Error::other(format!("`{name}` is no file of ours")));
        }
        Ok(file)
    }

    /// The content of a file, up to `limit` bytes of it; `None` where there is none.
    #[must_use]
    pub(crate) fn read(&self, name: &str, limit: u64) -> Option<Vec<u8>> {
        let file = self.open_file(name, OFlags::RDONLY).ok()?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Writes a file anew: the old one or the new one is there, never half of one. Under the lock.
    ///
    /// # Errors
    /// When it cannot be written; the old one stays.
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

    /// Gives a file another name; what had that name is gone.
    ///
    /// # Errors
    /// When the system says no.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.directory, from, &self.directory, to)?)
    }

    /// Removes a file, where it is there.
    ///
    /// # Errors
    /// When the system says no.
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
