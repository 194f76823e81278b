//! Waits for descriptors with a time limit (`poll(2)`).

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Whether a descriptor can be read now without waiting; of a pidfd: whether the process has exited.
#[must_use]
pub(crate) fn is_readable(descriptor: &OwnedFd) -> Option<bool> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut [PollFd::new(descriptor, PollFlags::IN)], Some(&now))
        .ok()
        .map(|ready| ready > 0)
}

/// Whether a descriptor can be read, or is at its end, within `limit`.
///
/// # Errors
/// What `poll(2)` says.
pub(crate) fn is_ready(file: &impl std::os::fd::AsFd, limit: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}
