//! Keeps the spool's file system from running full, and a core from growing beyond its limit.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::handler::startup::settings::HandlerSettings;
use crate::spool::floor_of;

/// Bytes between two looks at the file system at most; the less is left, the more often it is asked.
const STRIDE: u64 = 32 << 20;

/// Says whether more may be written.
#[derive(Debug)]
pub(crate) struct DiskGuard {
    directory: OwnedFd,
    /// Bytes that must remain free.
    floor: u64,
    /// Bytes that may be written at all.
    limit: u64,
    /// Bytes that the spool's quota leaves.
    quota: AtomicU64,
    written: AtomicU64,
    /// Bytes written at which to look again.
    next_look: AtomicU64,
}

impl DiskGuard {
    /// Over the file system of this directory, with the floor and the limit of the settings.
    #[must_use]
    pub(crate) fn new(directory: OwnedFd, settings: &HandlerSettings) -> Self {
        let size = rustix::fs::fstatvfs(&directory).map_or(u64::MAX, |found| {
            found.f_blocks.saturating_mul(found.f_frsize)
        });
        Self {
            directory,
            floor: floor_of(&settings.limits, settings.floor, size),
            limit: match settings.core_limit {
                // None.
                0 => u64::MAX,
                limit => limit,
            },
            quota: AtomicU64::new(u64::MAX),
            written: AtomicU64::new(0),
            next_look: AtomicU64::new(0),
        }
    }

    /// The directory whose file system is asked.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Lets no more than this be written in all.
    pub(crate) fn set_quota(&self, bytes: u64) {
        self.quota.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that may still be written now; `u64::MAX` if the file system does not report it.
    #[must_use]
    pub(crate) fn room(&self) -> u64 {
        let quota = self.quota.load(Ordering::Relaxed);
        let left = self
            .limit
            .min(quota)
            .saturating_sub(self.written.load(Ordering::Relaxed));
        left.min(self.free().saturating_sub(self.floor))
    }

    /// Asks for leave to write so many bytes.
    ///
    /// # Errors
    /// `FileTooLarge` at the limit, `QuotaExceeded` at the quota, `StorageFull` at the floor.
    pub(crate) fn admit(&self, bytes: u64) -> io::Result<()> {
        let before = self.written.fetch_add(bytes, Ordering::Relaxed);
        let after = before.saturating_add(bytes);
        if after > self.limit {
            let limit = self.limit;
            let what = format!("the limit of {limit} bytes for a core is reached");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        }
        let quota = self.quota.load(Ordering::Relaxed);
        if after > quota {
            let what = format!("the spool's quota leaves {quota} bytes");
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, what));
        }
        if after >= self.next_look.load(Ordering::Relaxed) {
            let free = self.free();
            let Some(left) = free.checked_sub(self.floor.saturating_add(bytes)) else {
                let floor = self.floor;
                let what = format!("{free} bytes are free, {floor} have to stay free");
                return Err(io::Error::new(io::ErrorKind::StorageFull, what));
            };
            let next = after.saturating_add(STRIDE.min(left / 2));
            self.next_look.store(next, Ordering::Relaxed);
        }
        Ok(())
    }

    fn free(&self) -> u64 {
        let Ok(found) = rustix::fs::fstatvfs(&self.directory) else {
            return u64::MAX;
        };
        found.f_bavail.saturating_mul(found.f_frsize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(floor: u64, limit: u64) -> DiskGuard {
        let directory = std::fs::File::open(std::env::temp_dir()).unwrap();
        let settings = HandlerSettings {
            floor,
            core_limit: limit,
            ..HandlerSettings::default()
        };
        DiskGuard::new(directory.into(), &settings)
    }

    #[test]
    fn a_limit_is_kept_to_the_byte() {
        let guard = guard(0, 100);
        guard.admit(60).unwrap();
        assert_eq!(guard.room(), 40);
        guard.admit(40).unwrap();
        let error = guard.admit(1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn what_the_quota_leaves_is_not_exceeded() {
        let guard = guard(0, 100);
        guard.set_quota(50);
        assert_eq!(guard.room(), 50);
        guard.admit(50).unwrap();
        let error = guard.admit(1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
        assert!(error.raw_os_error().is_none());
    }

    #[test]
    fn what_has_to_stay_free_is_not_written_to() {
        let full = DiskGuard {
            floor: u64::MAX,
            ..guard(0, 0)
        };
        assert_eq!(full.room(), 0);
        let error = full.admit(1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let roomy = guard(0, 0);
        roomy.admit(1).unwrap();
        assert!(roomy.room() > 0);
    }
}
