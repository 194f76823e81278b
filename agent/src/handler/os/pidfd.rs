//! Descriptors that refer to the process that crashed, and are asked with system calls of their own: the
//! pidfd that the kernel hands over with a crash (`%F` of the core pattern, Linux 6.16), and the user
//! namespace.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{FdFlags, fcntl_setfd};

/// Takes over descriptor `number`, if it is a pidfd of process `pid`. Nothing else in this process may own it.
#[must_use]
pub(crate) fn adopt(number: i32, pid: u32) -> Option<OwnedFd> {
    let info = std::fs::read(format!("/proc/self/fdinfo/{number}")).ok()?;
    let found = super::proc_status::status_field(&info, "Pid")?;
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
pub(crate) fn is_reaped(pidfd: BorrowedFd<'_>) -> bool {
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

/// The user who made the outermost user namespace that a process is in, below our own. `None` in our own.
///
/// A user maps 65536 subordinate ids into namespaces at will; the owner of the namespace does not change.
#[must_use]
pub(crate) fn outermost_user(namespace: OwnedFd) -> Option<u32> {
    /// `NS_GET_PARENT` and `NS_GET_OWNER_UID` (`linux/nsfs.h`).
    const PARENT: libc::Ioctl = 0xb702;
    const OWNER: libc::Ioctl = 0xb704;
    /// Levels of user namespaces (`create_user_ns` in `kernel/user_namespace.c`).
    const LEVELS: usize = 33;
    let mut namespace = namespace;
    let mut found = None;
    for _ in 0..LEVELS {
        // SAFETY: the request has no argument; it returns a descriptor or an error.
        let parent = unsafe { libc::ioctl(namespace.as_raw_fd(), PARENT) };
        if parent < 0 {
            break;
        }
        let mut owner: libc::uid_t = 0;
        // SAFETY: the request writes one uid_t.
        if unsafe { libc::ioctl(namespace.as_raw_fd(), OWNER, &raw mut owner) } == 0 {
            found = Some(owner);
        }
        // SAFETY: the kernel has just opened it for us.
        namespace = unsafe { OwnedFd::from_raw_fd(parent) };
    }
    found
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

    #[test]
    fn user_of_a_namespace_is_the_one_who_made_the_outermost() {
        let open =
            |pid: u32| OwnedFd::from(std::fs::File::open(format!("/proc/{pid}/ns/user")).unwrap());
        assert_eq!(outermost_user(open(std::process::id())), None);
        // A namespace in a namespace, in which the process is root.
        let Ok(mut child) = std::process::Command::new("unshare")
            .args(["-Ur", "unshare", "-Ur", "sleep", "60"])
            .spawn()
        else {
            return;
        };
        let own = std::fs::read_link("/proc/self/ns/user").unwrap();
        let of_child = format!("/proc/{}/ns/user", child.id());
        let name = format!("/proc/{}/comm", child.id());
        for _ in 0..500 {
            let is_ready = std::fs::read_to_string(&name).is_ok_and(|name| name.trim() == "sleep");
            if is_ready || child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let is_inside = std::fs::read_link(of_child).is_ok_and(|found| found != own);
        let found = is_inside.then(|| outermost_user(open(child.id())));
        child.kill().ok();
        child.wait().unwrap();
        let expected = is_inside.then(|| Some(rustix::process::geteuid().as_raw()));
        assert_eq!(found, expected);
    }
}
