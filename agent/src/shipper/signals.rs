//! SIGTERM and SIGINT as a pollable descriptor, so that the shipper stops between two dumps and
//! never in the middle of one.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// While this exists, the two signals do not end the process but make the descriptor readable.
#[derive(Debug)]
pub struct StopSignals {
    descriptor: OwnedFd,
    before: libc::sigset_t,
}

impl StopSignals {
    /// Blocks the signals in the calling thread. Threads created later inherit the mask. Threads
    /// created earlier do not: such a thread would receive the signal, and the process would end.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
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
        // SAFETY: both sets are valid; the call writes the second.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &wanted, before.as_mut_ptr()) } {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        // SAFETY: the call above succeeded and wrote the previous mask.
        let before = unsafe { before.assume_init() };
        // SAFETY: a plain system call on a valid set.
        let new = unsafe { libc::signalfd(-1, &wanted, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if new == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and has no other owner.
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
        // Discard pending signals: they were meant for the shipper and have been handled. They must
        // not end the process now, which may still have notifications to deliver.
        let mut buffer = [0; 4 * size_of::<libc::signalfd_siginfo>()];
        while rustix::io::read(&self.descriptor, &mut buffer).is_ok_and(|count| count > 0) {}
        // SAFETY: this is the mask that the kernel returned.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_make_the_descriptor_readable() {
        let signals = StopSignals::catch().unwrap();
        assert!(!super::super::is_readable(signals.as_fd()));
        // SAFETY: sent only to this thread, which has the signal blocked.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGTERM) };
        assert!(super::super::is_readable(signals.as_fd()));
        drop(signals);
        assert!(!super::super::is_readable(
            StopSignals::catch().unwrap().as_fd()
        ));
    }
}
