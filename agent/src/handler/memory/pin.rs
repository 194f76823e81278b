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
//! The byte is one of anonymous memory that is present (`pagemap`), such as the stack: a page of a file
//! may be locked by a file server that does not answer, and its reader sleeps uninterruptibly then.
//! A process that shares this memory can still exchange the page at the last moment. Invariants: the
//! thread has a descriptor table of its own, so that it holds nothing that another process waits for; it
//! is never joined, and one that does not return in time is left alone with its page. The reference
//! ends when the pin is dropped, and when the handler dies.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::fault_pages::FaultPages;
use super::process_memory::PageState;
use crate::handler::os::isolated::close_all_but;
use crate::handler::os::proc_status::stack_addresses;
use crate::handler::process::handles::ProcessHandles;
use crate::handler::process::maps::anonymous_starts;

/// How long the reading thread may take to park. It took 30 µs; a page that comes from a slow swap
/// device takes longer.
const PARKING: Duration = Duration::from_millis(250);
/// How long is waited for it at once.
const SOON: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 5_000_000,
};
/// How long the thread may take to end once its page was provided.
const ENDING: Duration = Duration::from_millis(250);
/// Bytes of the thread's stack: it makes few system calls.
const STACK: usize = 64 << 10;
/// Addresses that are tried.
const ATTEMPTS: usize = 8;
/// Pages at the start of a mapping that are looked at for one that is present.
const PAGES: u64 = 64;

/// Why memory could not be pinned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PinError {
    /// The kernel has no userfaultfd, or not for us.
    #[error("userfaultfd cannot be used")]
    Unavailable {
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// No byte of it could be read.
    #[error("no anonymous memory of it can be read")]
    Unreadable {
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// It did not park in time.
    #[error("the read did not reach our page within {} ms", PARKING.as_millis())]
    TooLong,
}

/// A hold whose reading thread has been started and may not be parked yet. Dropping it gives the hold up.
#[derive(Debug)]
pub(crate) struct PendingPin {
    /// What the thread may still use stays as long as we do.
    parts: Option<(MemoryPin, [File; 3])>,
    deadline: Instant,
}

/// A hold on a process's memory.
#[derive(Debug)]
pub(crate) struct MemoryPin {
    /// Unmapped only when the thread has ended.
    fault: ManuallyDrop<FaultPages>,
    ended: Receiver<io::Result<()>>,
}

/// What the reading thread uses. The numbers are of a table of its own as soon as it runs.
#[derive(Clone, Copy)]
struct Numbers {
    memory: RawFd,
    pagemap: RawFd,
    maps: RawFd,
}

impl MemoryPin {
    /// Begins to pin the memory of a process, whose `mem` is open. It waits for nothing.
    ///
    /// # Errors
    /// When the kernel does not offer userfaultfd.
    pub(crate) fn begin(process: &ProcessHandles, memory: &File) -> Result<PendingPin, PinError> {
        let unavailable = |source| PinError::Unavailable { source };
        let unreadable = |source| PinError::Unreadable { source };
        let fault = FaultPages::new(1).map_err(unavailable)?;
        let files = [
            memory.try_clone().map_err(unavailable)?,
            process.open_file("pagemap").map_err(unreadable)?,
            process.open_file("maps").map_err(unreadable)?,
        ];
        let [memory, pagemap, maps] = files.each_ref().map(AsRawFd::as_raw_fd);
        let numbers = Numbers {
            memory,
            pagemap,
            maps,
        };
        let stack = process.read("stat").ok();
        let stack = stack.map(|stat| stack_addresses(&stat)).unwrap_or_default();
        let page = fault.address(0);
        let (sender, ended) = channel();
        let read = move || {
            let _ = sender.send(read_one_byte(numbers, &stack, page));
        };
        std::thread::Builder::new()
            .stack_size(STACK)
            .spawn(read)
            .map_err(unavailable)?;
        let pin = Self {
            fault: ManuallyDrop::new(fault),
            ended,
        };
        Ok(PendingPin {
            parts: Some((pin, files)),
            deadline: Instant::now() + PARKING,
        })
    }

    /// Whether the thread is parked, after a maximum of `SOON`.
    fn is_parked(&self) -> Result<bool, PinError> {
        let mut fds = [PollFd::new(self.fault.descriptor(), PollFlags::IN)];
        if poll(&mut fds, Some(&SOON)).is_ok_and(|ready| ready > 0) {
            return Ok(true);
        }
        let source = match self.ended.try_recv() {
            Err(TryRecvError::Empty) => return Ok(false),
            Ok(Err(error)) => error,
            _ => io::Error::other("the process is gone"),
        };
        Err(PinError::Unreadable { source })
    }
}

impl PendingPin {
    /// Waits for a moment, which is enough unless another process interferes with the memory.
    ///
    /// # Errors
    /// When no byte can be read.
    pub(crate) fn soon(mut self) -> Result<Result<MemoryPin, Self>, PinError> {
        match &self.parts {
            Some((pin, _)) if pin.is_parked()? => {}
            _ => return Ok(Err(self)),
        }
        let (pin, _) = self.parts.take().ok_or(PinError::TooLong)?;
        Ok(Ok(pin))
    }

    /// Waits until the thread is parked.
    ///
    /// # Errors
    /// When no byte can be read, or not in time.
    pub(crate) fn finish(self) -> Result<MemoryPin, PinError> {
        let mut pending = self;
        loop {
            match pending.soon()? {
                Ok(pin) => return Ok(pin),
                Err(later) if Instant::now() < later.deadline => pending = later,
                Err(_) => return Err(PinError::TooLong),
            }
        }
    }
}

impl Drop for PendingPin {
    fn drop(&mut self) {
        if let Some((pin, files)) = self.parts.take() {
            // The thread may still need the numbers, and its page: they stay as long as we do.
            pin.fault.provide(0);
            std::mem::forget((pin, files));
        }
    }
}

impl Drop for MemoryPin {
    fn drop(&mut self) {
        self.fault.provide(0);
        // The last reference on a large memory takes a while to go.
        let ended = self.ended.recv_timeout(ENDING);
        if !matches!(ended, Err(RecvTimeoutError::Timeout)) {
            // SAFETY: the thread has ended, and nothing uses the page afterwards.
            unsafe { ManuallyDrop::drop(&mut self.fault) };
        }
    }
}

/// The thread: reads one byte of the process into the page.
fn read_one_byte(numbers: Numbers, stack: &[u64], page: usize) -> io::Result<()> {
    // SAFETY: only this thread gets another table.
    if unsafe { libc::unshare(libc::CLONE_FILES) } != 0 {
        return Err(io::Error::last_os_error());
    }
    close_all_but(&[numbers.memory, numbers.pagemap, numbers.maps]);
    // SAFETY: the numbers are open in this thread's table, and closed by its end.
    let borrow = |number| ManuallyDrop::new(unsafe { File::from_raw_fd(number) });
    let pagemap = borrow(numbers.pagemap);
    let size = rustix::param::page_size() as u64;
    let present_from = |start: u64| {
        (0..PAGES).find_map(|number| {
            let address = start.checked_add(number.checked_mul(size)?)?;
            let state = PageState::of(&pagemap, address / size)?;
            state.is_anonymous().then_some(address)
        })
    };
    let mut last = io::Error::other("none of it is present");
    let attempt = |address: u64| {
        let offset = i64::try_from(address).map_err(io::Error::other)?;
        // SAFETY: one byte at the start of a page that stays mapped until this thread has ended.
        let count = unsafe { libc::pread64(numbers.memory, page as *mut libc::c_void, 1, offset) };
        match count {
            1 => Ok(()),
            0 => Err(io::Error::other("the process is gone")),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // The stacks are tried first: no list of mappings is needed for them.
    let of_stack = stack.iter().filter_map(|address| {
        let state = PageState::of(&pagemap, address / size)?;
        state.is_anonymous().then_some(*address)
    });
    for address in of_stack {
        match attempt(address) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    let starts = anonymous_starts(&borrow(numbers.maps));
    for address in starts.into_iter().filter_map(present_from).take(ATTEMPTS) {
        match attempt(address) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::process::{Child, Command};

    use super::*;
    use crate::handler::process::handles::tests::living;

    fn pin(process: &ProcessHandles, memory: &File) -> Result<MemoryPin, PinError> {
        MemoryPin::begin(process, memory)?.finish()
    }

    fn sleeping() -> Child {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        // Until its program runs, it has the memory of this one.
        while std::fs::read(format!("/proc/{}/comm", child.id())).unwrap() != b"sleep\n" {
            std::thread::sleep(Duration::from_millis(1));
        }
        child
    }

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
        let mut child = sleeping();
        let process = living(child.id());
        let memory = process.open_file("mem").unwrap();
        let stack = stack_of(child.id());
        let mut before = [0; 64];
        memory.read_exact_at(&mut before, stack).unwrap();
        let pin = pin(&process, &memory).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let mut after = [0; 64];
        memory.read_exact_at(&mut after, stack).unwrap();
        assert_eq!(before, after);
        drop(pin);
        assert_eq!(memory.read_at(&mut after, stack).unwrap(), 0);
    }

    #[test]
    fn memory_that_is_gone_cannot_be_pinned() {
        let mut child = sleeping();
        let process = living(child.id());
        let memory = process.open_file("mem").unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let gone = pin(&process, &memory);
        assert!(matches!(gone, Err(PinError::Unreadable { .. })), "{gone:?}");
    }

    /// The thread may sleep forever; it must not keep the pipe's reading end open.
    #[test]
    fn parked_thread_does_not_hold_the_descriptors_of_the_handler() {
        let mut child = sleeping();
        let process = living(child.id());
        let memory = process.open_file("mem").unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let pin = pin(&process, &memory).unwrap();
        drop(reader);
        let error = io::Write::write(&mut writer, b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        drop(pin);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
