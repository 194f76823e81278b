//! Holds a process's memory so that it outlives the process.
//!
//! A thread of ours reads one byte of that memory through `/proc/<pid>/mem` into a page that is
//! registered with userfaultfd and not there yet. The kernel takes a reference on the memory
//! (`mem_rw` in `fs/proc/base.c`: `mmget_not_zero`), reads the byte, faults on our page, and waits
//! for us to provide it. While it waits, whatever happens to the process, its memory stays.
//!
//! ```text
//! pread(mem, page, 1, address)     mmget ─▶ read the byte ─▶ copy to our page ─▶ fault, parked
//! UFFDIO_ZEROPAGE                                                             ─▶ done ─▶ mmput
//! ```
//!
//! Invariant: the reference is given back when the pin is dropped, and by the kernel when the
//! handler dies.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// `UFFD_API` (`include/uapi/linux/userfaultfd.h`).
const UFFD_API: u64 = 0xaa;
/// `_IOWR(0xaa, 0x3f, struct uffdio_api)`, 24 bytes.
const UFFDIO_API: libc::Ioctl = 0xc018_aa3f_u32 as libc::Ioctl;
/// `_IOWR(0xaa, 0x00, struct uffdio_register)`, 32 bytes.
const UFFDIO_REGISTER: libc::Ioctl = 0xc020_aa00_u32 as libc::Ioctl;
/// `_IOWR(0xaa, 0x04, struct uffdio_zeropage)`, 32 bytes.
const UFFDIO_ZEROPAGE: libc::Ioctl = 0xc020_aa04_u32 as libc::Ioctl;
/// `UFFDIO_REGISTER_MODE_MISSING`.
const MODE_MISSING: u64 = 1;

/// How long the reading thread may take to park. It took 30 µs; a page that comes from a slow disk
/// takes longer.
const PARKING: Duration = Duration::from_millis(250);
/// Bytes of the thread's stack: it makes one system call.
const STACK: usize = 32 << 10;

/// Why memory could not be pinned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum PinError {
    /// The kernel has no userfaultfd, or not for us.
    #[error("userfaultfd cannot be used")]
    Unavailable {
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The byte could not be read.
    #[error("the byte at {address:#x} cannot be read")]
    Unreadable {
        /// Where.
        address: u64,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// It did not park in time.
    #[error("the read did not reach our page within {} ms", PARKING.as_millis())]
    TooLong,
}

/// A hold on a process's memory.
#[derive(Debug)]
pub(super) struct MemoryPin {
    fault: FaultPage,
    reader: Option<JoinHandle<io::Result<usize>>>,
}

/// A page that is missing until we say so.
#[derive(Debug)]
struct FaultPage {
    userfault: OwnedFd,
    page: *mut libc::c_void,
    size: usize,
}

// SAFETY: the page is a mapping of our own that nothing points into but the kernel's copy of one
// byte; the descriptor can be used from any thread.
unsafe impl Send for FaultPage {}

impl MemoryPin {
    /// Pins the memory behind `memory` (an open `/proc/<pid>/mem`), of which a byte at `address` can
    /// be read.
    ///
    /// # Errors
    /// When the kernel does not offer userfaultfd, or the byte cannot be read.
    pub(super) fn take(memory: &File, address: u64) -> Result<Self, PinError> {
        let unavailable = |source| PinError::Unavailable { source };
        let fault = FaultPage::new().map_err(unavailable)?;
        let memory = memory.try_clone().map_err(unavailable)?;
        let page = fault.page as usize;
        let offset = i64::try_from(address).map_err(|error| PinError::Unreadable {
            address,
            source: io::Error::other(error),
        })?;
        let read = move || {
            // SAFETY: one byte at the start of a page that stays mapped until this thread has been
            // joined.
            let count =
                unsafe { libc::pread64(memory.as_raw_fd(), page as *mut libc::c_void, 1, offset) };
            usize::try_from(count).map_err(|_| io::Error::last_os_error())
        };
        let reader = std::thread::Builder::new()
            .stack_size(STACK)
            .spawn(read)
            .map_err(unavailable)?;
        let mut pin = Self {
            fault,
            reader: Some(reader),
        };
        pin.wait_until_parked(address)?;
        Ok(pin)
    }

    fn wait_until_parked(&mut self, address: u64) -> Result<(), PinError> {
        let deadline = Instant::now() + PARKING;
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: 5_000_000,
        };
        loop {
            let mut fds = [PollFd::new(&self.fault.userfault, PollFlags::IN)];
            if poll(&mut fds, Some(&wait)).is_ok_and(|ready| ready > 0) {
                return Ok(());
            }
            if self.reader.as_ref().is_none_or(JoinHandle::is_finished) {
                let ended = self.reader.take().map(JoinHandle::join);
                let source = match ended {
                    Some(Ok(Err(error))) => error,
                    _ => io::Error::other("the process is gone"),
                };
                return Err(PinError::Unreadable { address, source });
            }
            if Instant::now() > deadline {
                return Err(PinError::TooLong);
            }
        }
    }
}

impl Drop for MemoryPin {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.fault.provide();
            let _ = reader.join();
        }
    }
}

impl FaultPage {
    fn new() -> io::Result<Self> {
        // SAFETY: a system call without pointers.
        let userfault =
            unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
        if userfault < 0 {
            return Err(io::Error::last_os_error());
        }
        let number = i32::try_from(userfault).map_err(io::Error::other)?;
        // SAFETY: the kernel has just opened it for us.
        let userfault = unsafe { OwnedFd::from_raw_fd(number) };
        let mut api = [UFFD_API, 0, 0];
        ioctl(&userfault, UFFDIO_API, &mut api)?;
        let size = rustix::param::page_size();
        // SAFETY: a new private mapping wherever the kernel likes.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let fault = Self {
            userfault,
            page,
            size,
        };
        // A child that is forked meanwhile must not inherit a page that nobody provides there.
        // SAFETY: the mapping is our own and whole.
        unsafe { libc::madvise(page, size, libc::MADV_DONTFORK) };
        // struct uffdio_register: start, len, mode, ioctls
        let mut register = [page as u64, size as u64, MODE_MISSING, 0];
        ioctl(&fault.userfault, UFFDIO_REGISTER, &mut register)?;
        Ok(fault)
    }

    /// Lets whoever waits for the page go on.
    fn provide(&self) {
        // struct uffdio_zeropage: start, len, mode, result
        let mut zero = [self.page as u64, self.size as u64, 0, 0];
        let _ = ioctl(&self.userfault, UFFDIO_ZEROPAGE, &mut zero);
    }
}

impl Drop for FaultPage {
    fn drop(&mut self) {
        // SAFETY: the mapping is our own; the thread that reads into it has been joined.
        unsafe { libc::munmap(self.page, self.size) };
    }
}

fn ioctl<const N: usize>(
    descriptor: &OwnedFd,
    request: libc::Ioctl,
    argument: &mut [u64; N],
) -> io::Result<()> {
    // SAFETY: each request is made with a structure of the size that its number states.
    match unsafe { libc::ioctl(descriptor.as_raw_fd(), request, argument.as_mut_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::process::Command;

    use super::*;

    /// A readable address of a process.
    fn stack_of(pid: u32) -> u64 {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let line = maps.lines().find(|line| line.ends_with("[stack]")).unwrap();
        let (range, _) = line.split_once(' ').unwrap();
        let end = u64::from_str_radix(range.split_once('-').unwrap().1, 16).unwrap();
        end - 64
    }

    #[test]
    fn pinned_memory_can_be_read_after_its_process_was_killed_and_only_until_the_pin_goes() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let memory = File::open(format!("/proc/{}/mem", child.id())).unwrap();
        let stack = stack_of(child.id());
        let mut before = [0; 64];
        memory.read_exact_at(&mut before, stack).unwrap();
        let pin = MemoryPin::take(&memory, stack).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let mut after = [0; 64];
        memory.read_exact_at(&mut after, stack).unwrap();
        assert_eq!(before, after);
        drop(pin);
        assert_eq!(memory.read_at(&mut after, stack).unwrap(), 0);
    }

    #[test]
    fn memory_that_is_gone_or_not_there_cannot_be_pinned() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let memory = File::open(format!("/proc/{}/mem", child.id())).unwrap();
        let unmapped = MemoryPin::take(&memory, 0x1000);
        let stack = stack_of(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(unmapped, Err(PinError::Unreadable { .. })));
        let gone = MemoryPin::take(&memory, stack);
        assert!(matches!(gone, Err(PinError::Unreadable { .. })), "{gone:?}");
    }
}
