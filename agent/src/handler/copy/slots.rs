//! Lets only so many handlers copy at once, so that a storm of crashes queues rather than swamps.
//!
//! A slot is an empty file that a handler holds locked (`flock`); the kernel gives it back when the
//! handler ends, however it ends. A handler that waits already has the memory pinned and its backtrace on disk.
//! If waiting takes too long, or the memory is about to be freed, it continues without a slot.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::handler::startup::footprint;
use crate::private_file::PrivateDirectory;

/// Directory of the slots in the spool.
const DIRECTORY: &str = ".slots";
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// The right to copy; it ends when it is dropped, or released by a [`SlotRelease`].
#[derive(Debug)]
pub(crate) struct Slot {
    lock: Arc<Mutex<Option<File>>>,
    /// How long it took to get.
    pub(crate) waited: Duration,
}

/// Ends the right to copy of a handler that waits for something else: others go on meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct SlotRelease(Arc<Mutex<Option<File>>>);

impl SlotRelease {
    /// Ends it.
    pub(crate) fn release(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.release_handle().release();
    }
}

impl Slot {
    /// Waits until one of `count` slots is free, but not longer than `patience`, and not once what is to be
    /// copied `is_urgent`. Where slots cannot be had at all (a full or broken disk), everybody may go on.
    pub(crate) fn wait(
        spool: &Path,
        count: usize,
        patience: Duration,
        is_urgent: impl Fn() -> bool,
    ) -> Self {
        let begun = Instant::now();
        let directory = spool.join(DIRECTORY);
        // The first time it has to be made, and the spool may be missing.
        let directory = PrivateDirectory::make(&directory).ok();
        let open = |number: usize| {
            let flags = OFlags::WRONLY | OFlags::CREATE;
            directory
                .as_ref()?
                .open_file(&number.to_string(), flags)
                .ok()
        };
        let files: Vec<File> = (0..count.max(1)).filter_map(open).collect();
        let mut is_small = false;
        let lock = loop {
            let taken =
                |file: &&File| flock(file, FlockOperation::NonBlockingLockExclusive).is_ok();
            match files.iter().find(taken) {
                Some(file) => break file.try_clone().ok(),
                None if files.is_empty() || begun.elapsed() >= patience || is_urgent() => {
                    break None;
                }
                None => {
                    if !is_small {
                        footprint::shrink();
                        is_small = true;
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        };
        Self {
            lock: Arc::new(Mutex::new(lock)),
            waited: begun.elapsed(),
        }
    }

    /// What ends it early.
    #[must_use]
    pub(crate) fn release_handle(&self) -> SlotRelease {
        SlotRelease(Arc::clone(&self.lock))
    }

    #[cfg(test)]
    fn is_held(&self) -> bool {
        self.lock.lock().unwrap().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_there_are_slots_go_on_and_the_next_waits_for_one() {
        let spool = tempfile::tempdir().unwrap();
        let wait =
            |patience| Slot::wait(spool.path(), 2, Duration::from_millis(patience), || false);
        let first = wait(1000);
        let second = wait(1000);
        assert!(first.is_held() && second.is_held());
        let third = wait(20);
        assert!(!third.is_held() && third.waited >= Duration::from_millis(20));
        let urgent = Slot::wait(spool.path(), 2, Duration::from_secs(60), || true);
        assert!(!urgent.is_held() && urgent.waited < Duration::from_secs(10));
        drop(first);
        assert!(wait(1000).is_held());
    }

    #[test]
    fn released_slot_can_be_had_by_another_handler() {
        let spool = tempfile::tempdir().unwrap();
        let wait = || Slot::wait(spool.path(), 1, Duration::from_millis(20), || false);
        let blocked = wait();
        assert!(blocked.is_held() && !wait().is_held());
        blocked.release_handle().release();
        assert!(wait().is_held());
    }

    #[test]
    fn without_a_spool_nobody_waits() {
        let spool = Path::new("/nonexistent/spool");
        let slot = Slot::wait(spool, 1, Duration::from_secs(60), || false);
        assert!(slot.waited < Duration::from_secs(10));
    }
}
