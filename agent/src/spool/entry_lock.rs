//! Who may change a sealed entry: the shipper that sends it, or whoever needs its room.
//!
//! An flock on the entry's directory, as the handler holds it while the entry is partial; it ends with
//! its holder.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

/// Held until it is dropped.
#[derive(Debug)]
pub(crate) struct EntryLock {
    _directory: OwnedFd,
}

impl EntryLock {
    /// Takes it where nobody has it.
    ///
    /// # Errors
    /// `WouldBlock` when somebody has it, `NotFound` when the entry is gone.
    pub(crate) fn try_take(entry: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(entry, flags, Mode::empty())?;
        flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
        // Between opening and locking it may have been removed.
        std::fs::metadata(entry)?;
        Ok(Self {
            _directory: directory,
        })
    }

    /// Waits for it as long as giving up a core may take.
    ///
    /// # Errors
    /// As [`Self::try_take`].
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
