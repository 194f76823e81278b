//! SIGTERM and SIGINT as a descriptor that can be polled, so that the shipper ends between two
//! dumps and never in the middle of one.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// While it lives, the two signals do not end the process but make the descriptor readable.
#[derive(Debug)]
pub struct StopSignals {
    descriptor: OwnedFd,
    before: libc::sigset_t,
}

impl StopSignals {
    /// Blocks the signals in the calling thread; threads made later inherit that, and threads made
    /// earlier do not: one of them would take the signal, and end the process.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn catch() -> io::Result<Self> {
        let mut wanted = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigemptyset` initializes the set before it is used.
        let wanted = unsafe {
            libc::sigemptyset(wanted.as_mut_ptr());
            libc::sigaddset(wanted.as_mut_ptr(), libc::SIGTERM);
            libc::sigaddset(wanted.as_mut_ptr(), libc::SIGINT);
            wanted.assume_init()
        };
        // SAFETY: both sets are valid places; the second is written by the call.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &wanted, before.as_mut_ptr()) } {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        // SAFETY: the call above succeeded and wrote the former mask.
        let before = unsafe { before.assume_init() };
        // SAFETY: a plain system call on a valid set.
        let new = unsafe { libc::signalfd(-1, &wanted, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if new == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and belongs to nobody else.
        let descriptor = unsafe { OwnedFd::from_raw_fd(new) };
        Ok(Self { descriptor, before })
    }
}

impl AsFd for StopSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for StopSignals {
    fn drop(&mut self) {
        // What came was meant for the shipper and is answered: it must not end the process now,
        // which may still have notifications to deliver.
        let mut buffer = [0; 4 * size_of::<libc::signalfd_siginfo>()];
        while rustix::io::read(&self.descriptor, &mut buffer).is_ok_and(|count| count > 0) {}
        // SAFETY: the mask is the one the kernel gave us.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_seen_and_does_not_end_the_process() {
        let signals = StopSignals::catch().unwrap();
        assert!(!super::super::is_readable(signals.as_fd()));
        // SAFETY: to this thread alone, which has the signal blocked.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGTERM) };
        assert!(super::super::is_readable(signals.as_fd()));
        drop(signals);
        assert!(!super::super::is_readable(
            StopSignals::catch().unwrap().as_fd()
        ));
    }
}
