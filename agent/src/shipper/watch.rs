//! Waits until there may be work: an entry in the spool, a signal, or the time is over.

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
    /// Watches for entries that get their name: sealing is a rename.
    pub(super) fn new(spool: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        inotify
            .watches()
            .add(spool, WatchMask::MOVED_TO | WatchMask::ONLYDIR)?;
        Ok(Self { inotify })
    }

    /// Waits, at most for `limit`.
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
        // What happened is seen in the directory itself; an overflow of the queue loses nothing.
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
