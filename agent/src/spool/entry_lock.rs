//! The right to change a sealed entry: for the shipper that uploads it, or a handler that needs its
//! room.
//!
//! An flock on the entry's directory, the same one that the handler holds while the entry is
//! partial. It ends with its holder.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

/// Held until dropped.
#[derive(Debug)]
pub(crate) struct EntryLock {
    _directory: OwnedFd,
}

impl EntryLock {
    /// Takes the lock if it is free.
    ///
    /// # Errors
    /// `WouldBlock` if another process holds it, `NotFound` if the entry is gone.
    pub(crate) fn try_take(entry: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(entry, flags, Mode::empty())?;
        flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
        // The entry may have been removed between open and lock.
        std::fs::metadata(entry)?;
        Ok(Self {
            _directory: directory,
        })
    }

    /// Waits for the lock as long as it may take to give up a core.
    ///
    /// # Errors
    /// Like [`Self::try_take`].
    pub(crate) fn take(entry: &Path) -> io::Result<Self> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match Self::try_take(entry) {
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(2));
                }
                taken => return taken,
            }
        }
    }
}
