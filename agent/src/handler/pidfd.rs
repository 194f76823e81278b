//! The pidfd that the kernel hands over with a crash (`%F` of the core pattern, Linux 6.16): it refers
//! to the process that crashed, whoever gets its number later.

#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd};

use rustix::io::{FdFlags, fcntl_setfd};

/// Takes over descriptor `number`, if it is a pidfd of process `pid`. Nobody else of this process may
/// own it.
#[must_use]
pub(super) fn adopt(number: i32, pid: u32) -> Option<OwnedFd> {
    let info = std::fs::read(format!("/proc/self/fdinfo/{number}")).ok()?;
    let found = super::process::status_field(&info, "Pid")?;
    if std::str::from_utf8(found).ok()?.parse() != Ok(pid) {
        return None;
    }
    // SAFETY: it is open, and the kernel opened it for us: nothing else here knows its number.
    let pidfd = unsafe { OwnedFd::from_raw_fd(number) };
    let _ = fcntl_setfd(&pidfd, FdFlags::CLOEXEC);
    Some(pidfd)
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;

    use super::*;

    #[test]
    fn only_a_pidfd_of_the_process_is_taken_over() {
        let own = std::process::id();
        let pid = rustix::process::getpid();
        let flags = rustix::process::PidfdFlags::empty();
        let number = rustix::process::pidfd_open(pid, flags)
            .unwrap()
            .into_raw_fd();
        assert!(adopt(number, own + 1).is_none());
        assert!(adopt(number, own).is_some());
        let file = std::fs::File::open("/dev/null").unwrap().into_raw_fd();
        assert!(adopt(file, own).is_none());
        // SAFETY: opened above and not taken over.
        drop(unsafe { OwnedFd::from_raw_fd(file) });
        assert!(adopt(1_000_000, own).is_none());
    }
}
