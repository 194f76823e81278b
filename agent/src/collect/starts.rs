//! Detects when a container starts: its root is mounted on the node, some 100 ms before its first
//! process runs.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long after a mount the scans for new processes are frequent.
const STARTING: Duration = Duration::from_secs(2);

/// The node's table of mounts, whose changes the kernel reports.
#[derive(Debug)]
pub(super) struct ContainerStarts {
    mounts: Option<File>,
    last: Option<Instant>,
}

impl ContainerStarts {
    /// Opens the table of the node's first process. Without it, starts are not noticed.
    pub(super) fn open(proc: &Path) -> Self {
        Self {
            mounts: File::open(proc.join("1/mountinfo")).ok(),
            last: None,
        }
    }

    /// Whether a container may be starting now.
    pub(super) fn may_start(&self) -> bool {
        self.last.is_some_and(|last| last.elapsed() < STARTING)
    }

    /// Waits for a start, or until the time is over.
    pub(super) fn wait(&mut self, time: Duration) {
        let Some(mounts) = &self.mounts else {
            std::thread::sleep(time);
            return;
        };
        let mut watched = [PollFd::new(mounts, PollFlags::PRI)];
        let timeout = Timespec::try_from(time).ok();
        match poll(&mut watched, timeout.as_ref()) {
            Ok(0) => {}
            Ok(_) => self.last = Some(Instant::now()),
            Err(_) => std::thread::sleep(time),
        }
    }
}
