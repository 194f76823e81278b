//! Pages of our own that are missing until they are provided: whatever copies to one, waits (`userfaultfd(2)`).
//!
//! Invariant: the pages stay mapped until the value is dropped. Drop it only after the copies have ended.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `UFFD_API` (`include/uapi/linux/userfaultfd.h`).
const UFFD_API: u64 = 0xaa;
/// `_IOWR(0xaa, 0x3f, struct uffdio_api)`, 24 bytes.
const UFFDIO_API: libc::Ioctl = 0xc018_aa3f_u32 as libc::Ioctl;
/// `_IOWR(0xaa, 0x00, struct uffdio_register)`, 32 bytes.
const UFFDIO_REGISTER: libc::Ioctl = 0xc020_aa00_u32 as libc::Ioctl;
/// `_IOR(0xaa, 0x02, struct uffdio_range)`, 16 bytes.
const UFFDIO_WAKE: libc::Ioctl = 0x8010_aa02_u32 as libc::Ioctl;
/// `_IOWR(0xaa, 0x04, struct uffdio_zeropage)`, 32 bytes.
const UFFDIO_ZEROPAGE: libc::Ioctl = 0xc020_aa04_u32 as libc::Ioctl;
/// `UFFDIO_REGISTER_MODE_MISSING`.
const MODE_MISSING: u64 = 1;
/// `UFFD_EVENT_PAGEFAULT`.
const EVENT_PAGEFAULT: u8 = 0x12;
/// Bytes of a `struct uffd_msg`.
const MESSAGE: usize = 32;
/// Messages that are read at once.
const MESSAGES: usize = 64;

/// Pages that are missing until they are provided.
#[derive(Debug)]
pub(crate) struct FaultPages {
    userfault: OwnedFd,
    start: *mut libc::c_void,
    count: usize,
    page: usize,
}

// SAFETY: the pages are a mapping of our own that only the kernel's copies and `Self::read` point into; the
// descriptor can be used from any thread.
unsafe impl Send for FaultPages {}
// SAFETY: as above; no method writes to the pages.
unsafe impl Sync for FaultPages {}

impl FaultPages {
    /// Maps `count` pages.
    ///
    /// # Errors
    /// When the kernel does not offer userfaultfd.
    pub(crate) fn new(count: usize) -> io::Result<Self> {
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
        let page = rustix::param::page_size();
        let size = page.checked_mul(count).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new private mapping wherever the kernel likes.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let pages = Self {
            userfault,
            start,
            count,
            page,
        };
        // A child that is forked meanwhile must not inherit pages that no thread provides there.
        // SAFETY: the mapping is our own and whole.
        unsafe { libc::madvise(start, size, libc::MADV_DONTFORK) };
        // struct uffdio_register: start, len, mode, ioctls
        let mut register = [start as u64, size as u64, MODE_MISSING, 0];
        ioctl(&pages.userfault, UFFDIO_REGISTER, &mut register)?;
        Ok(pages)
    }

    /// Readable when a copy waits for a page.
    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.userfault
    }

    /// Address of a page.
    #[must_use]
    pub(crate) fn address(&self, index: usize) -> usize {
        (self.start as usize).saturating_add(index.saturating_mul(self.page))
    }

    /// Lets the copy to a page go on: the page is zero then.
    pub(crate) fn provide(&self, index: usize) {
        // struct uffdio_zeropage: start, len, mode, result
        let mut zero = [self.address(index) as u64, self.page as u64, 0, 0];
        let _ = ioctl(&self.userfault, UFFDIO_ZEROPAGE, &mut zero);
    }

    /// Fails all copies, those that wait and those to come, with `EFAULT`.
    pub(crate) fn refuse(&self) {
        let size = self.page.saturating_mul(self.count);
        // SAFETY: the mapping is our own and whole, and nothing reads it after its copies have failed.
        unsafe { libc::mprotect(self.start, size, libc::PROT_NONE) };
        let mut range = [self.start as u64, size as u64];
        let _ = ioctl(&self.userfault, UFFDIO_WAKE, &mut range);
    }

    /// Numbers of pages for which copies have begun to wait since the last call.
    ///
    /// # Errors
    /// When the descriptor cannot be read.
    pub(crate) fn waiting(&self) -> io::Result<Vec<usize>> {
        let mut messages = [0; MESSAGE * MESSAGES];
        let count = match rustix::io::read(&self.userfault, &mut messages) {
            Ok(count) => count,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let (messages, _) = messages.as_chunks::<MESSAGE>();
        let messages = messages.iter().take(count / MESSAGE);
        Ok(messages
            .filter_map(|message| self.page_of(message))
            .collect())
    }

    /// The page that a `struct uffd_msg` is about: event, 7 bytes, flags, address.
    fn page_of(&self, message: &[u8; MESSAGE]) -> Option<usize> {
        let (&event, address) = (message.first()?, message.get(16..24)?);
        let address = u64::from_ne_bytes(address.try_into().ok()?);
        let offset = usize::try_from(address)
            .ok()?
            .checked_sub(self.start as usize)?;
        let index = offset / self.page;
        (event == EVENT_PAGEFAULT && index < self.count).then_some(index)
    }

    /// Copies the beginning of a page that was provided.
    pub(crate) fn read(&self, index: usize, into: &mut [u8]) {
        if index >= self.count {
            return;
        }
        let count = into.len().min(self.page);
        // SAFETY: the page is mapped, and `count` bytes are in both. Nothing else writes to it any more.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.address(index) as *const u8,
                into.as_mut_ptr(),
                count,
            );
        };
    }
}

impl Drop for FaultPages {
    fn drop(&mut self) {
        let size = self.page.saturating_mul(self.count);
        // SAFETY: the mapping is our own; the copies to it have ended.
        unsafe { libc::munmap(self.start, size) };
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
