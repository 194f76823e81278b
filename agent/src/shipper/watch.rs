//! Waits until there may be work: a new spool entry, a signal, or a timeout.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use inotify::{Inotify, WatchMask};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Watches the spool.
pub(super) struct SpoolWatch {
    inotify: Inotify,
}

impl SpoolWatch {
    /// Watches for renames in the spool: sealing an entry is a rename.
    pub(super) fn new(spool: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        inotify
            .watches()
            .add(spool, WatchMask::MOVED_TO | WatchMask::ONLYDIR)?;
        Ok(Self { inotify })
    }

    /// Waits, maximum `limit`.
    pub(super) fn wait(&mut self, stop: BorrowedFd<'_>, limit: Duration) -> io::Result<()> {
        let timeout = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        let mut descriptors = [
            PollFd::from_borrowed_fd(self.inotify.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stop, PollFlags::IN),
        ];
        match poll(&mut descriptors, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // The caller scans the directory itself, so a queue overflow loses nothing.
        let mut buffer = [0; 16 << 10];
        loop {
            match self.inotify.read_events(&mut buffer) {
                Ok(mut events) => match events.next() {
                    Some(_) => {}
                    None => return Ok(()),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}
