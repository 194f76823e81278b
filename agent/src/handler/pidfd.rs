//! The pidfd that the kernel hands over with a crash (`%F` of the core pattern, Linux 6.16): it refers
//! to the process that crashed, whoever gets its number later.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

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

/// Whether the process has been waited for, so that another one may have its number.
#[must_use]
pub(super) fn is_reaped(pidfd: BorrowedFd<'_>) -> bool {
    let nothing = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: signal 0 is not sent, only whether it could be is found out.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            0,
            nothing,
            0,
        )
    };
    sent == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, IntoRawFd};

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

    #[test]
    fn a_process_that_was_waited_for_has_no_number_any_more() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let flags = rustix::process::PidfdFlags::empty();
        let pidfd = rustix::process::pidfd_open(pid, flags).unwrap();
        assert!(!is_reaped(pidfd.as_fd()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_reaped(pidfd.as_fd()));
    }
}
