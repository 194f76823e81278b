//! Keeps pages of a process from the OOM reaper.
//!
//! The reaper unmaps the memory of its victim two seconds after the kill, also while others hold that memory. A page with
//! another reference keeps its contents. `process_vm_readv` takes references to up to 4 MiB before it copies
//! (`process_vm_rw_single_vec` in `mm/process_vm_access.c`), so a thread for each block starts to read it into a
//! page of ours that is missing, and waits:
//!
//! ```text
//! process_vm_readv     take references ─▶ copy to the missing page ─▶ wait
//! PagePins::block      the page is provided ─▶ the block is copied ─▶ references dropped
//! Drop                 the page is refused  ─▶ EFAULT              ─▶ references dropped
//! ```
//!
//! 3 GiB took 768 threads, 0.1 s and 21 MiB of memory, most of it kernel stacks.
//!
//! Invariants: a block counts as pinned only if its thread waited before the process ended; no thread is ever
//! joined, and what it uses lives as long as it does; a hostile process costs at most one batch of threads.

#![allow(unsafe_code)]

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use memmap2::MmapMut;

use super::fault_pages::FaultPages;
use crate::handler::os::poll::{is_readable, is_ready};

/// Bytes that one call refers to at once: `PVM_MAX_KMALLOC_PAGES` holds 1024 pointers to pages.
const BLOCK: u64 = 4 << 20;
/// Bytes below which a thread costs more than reading after the kill.
pub(crate) const LEAST_BLOCK: u64 = 64 << 10;
/// Maximum number of threads: for 8 GiB.
const MOST_THREADS: usize = 2048;
/// Part of the node's thread ids that one handler uses.
const THREAD_ID_SHARE: usize = 32;
/// Threads that are started at once. A process that shares the memory can hold its lock, and the call waits for that
/// uninterruptibly: no more threads than these are lost then.
const BATCH: usize = 8;
/// Bytes of a thread's stack: it makes one system call.
const STACK: usize = 32 << 10;
/// How long to wait for threads that do not reach their page: a page of the process may be in swap.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long the copy of a block may take.
const COPYING: Duration = Duration::from_secs(10);

/// Blocks of a process's memory that outlive the OOM reaper. Dropping it lets them go.
pub(crate) struct PagePins {
    /// In address order.
    blocks: Vec<Range<u64>>,
    shared: Arc<Shared>,
}

/// What the threads use.
struct Shared {
    gates: FaultPages,
    state: Mutex<Vec<Block>>,
    changed: Condvar,
}

/// State of a block.
enum Block {
    /// Its thread has not reached its page.
    Begun,
    /// Its pages are referred to.
    Pinned,
    /// It was copied; so many of its bytes were read since.
    Copied(Arc<MmapMut>, u64),
    /// It cannot be read, or it was read once.
    Gone,
}

impl PagePins {
    /// Pins the largest of these runs of present pages, of the process that one of `ids` names. `exit` is readable when
    /// the process has ended.
    ///
    /// # Errors
    /// When the kernel does not offer userfaultfd, or the process is gone.
    pub(crate) fn take(ids: &[u32], runs: &[Range<u64>], exit: &OwnedFd) -> io::Result<Self> {
        let most = most_threads();
        let mut blocks: Vec<_> = runs.iter().flat_map(|run| split(run, BLOCK)).collect();
        blocks.retain(|block| block.end - block.start >= LEAST_BLOCK);
        blocks.sort_by_key(|block| std::cmp::Reverse(block.end - block.start));
        blocks.truncate(most);
        blocks.sort_by_key(|block| block.start);
        let first = blocks.first().ok_or(io::ErrorKind::NotFound)?;
        // A leader that has ended has no memory; other threads of the process have.
        let pid = ids
            .iter()
            .filter_map(|id| libc::pid_t::try_from(*id).ok())
            .find(|pid| read_vectors(*pid, first.start, &mut [vector_of(&mut [0; 1])]).is_ok())
            .ok_or(io::ErrorKind::NotFound)?;
        let shared = Arc::new(Shared {
            gates: FaultPages::new(blocks.len())?,
            state: Mutex::new(blocks.iter().map(|_| Block::Begun).collect()),
            changed: Condvar::new(),
        });
        let pins = Self { blocks, shared };
        let all: Vec<usize> = (0..pins.blocks.len()).collect();
        for batch in all.chunks(BATCH) {
            batch
                .iter()
                .for_each(|index| pins.start_thread(pid, *index));
            if !pins.wait_for_threads(batch, exit)? {
                break;
            }
        }
        Ok(pins)
    }

    fn start_thread(&self, pid: libc::pid_t, index: usize) {
        let Some(block) = self.blocks.get(index).cloned() else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        let started = thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || shared.wait_in_read(pid, index, &block));
        if started.is_err() {
            // The others are enough.
            self.shared.set(index, Block::Gone);
        }
    }

    /// Waits until these threads wait; whether they did. Those that do so after the end of the process may read another
    /// one's memory.
    fn wait_for_threads(&self, batch: &[usize], exit: &OwnedFd) -> io::Result<bool> {
        let mut last = Instant::now();
        let is_begun = |state: &[Block]| {
            batch
                .iter()
                .any(|index| state.get(*index).is_some_and(Block::is_begun))
        };
        while is_begun(&self.shared.lock()) {
            is_ready(self.shared.gates.descriptor(), Duration::from_millis(20))?;
            let waiting = self.shared.gates.waiting()?;
            if is_readable(exit) != Some(false) || last.elapsed() > PATIENCE {
                return Ok(false);
            }
            if !waiting.is_empty() {
                last = Instant::now();
            }
            let mut state = self.shared.lock();
            for index in waiting {
                if let Some(block) = state.get_mut(index).filter(|block| block.is_begun()) {
                    *block = Block::Pinned;
                }
            }
        }
        Ok(true)
    }

    /// Addresses that are pinned, in order.
    pub(crate) fn pinned(&self) -> Vec<Range<u64>> {
        let state = self.shared.lock();
        let all = self.blocks.iter().zip(state.iter());
        all.filter(|(_, block)| matches!(block, Block::Pinned | Block::Copied(..)))
            .map(|(addresses, _)| addresses.clone())
            .collect()
    }

    /// Reads from the pinned block that holds `address` up to its end; the number of bytes. Each byte can be read once:
    /// the block is freed when all of it was read. `None` if no block holds the address.
    ///
    /// # Errors
    /// When the block could not be copied.
    pub(crate) fn read(&self, address: u64, into: &mut [u8]) -> Option<io::Result<usize>> {
        let index = self.blocks.partition_point(|block| block.end <= address);
        let block = self
            .blocks
            .get(index)
            .filter(|block| block.contains(&address))?;
        if !self.shared.lock().get(index)?.is_pinned() {
            return None;
        }
        let offset = usize::try_from(address - block.start).unwrap_or(usize::MAX);
        Some(self.shared.copied(index).map(|bytes| {
            let bytes = bytes.get(offset..).unwrap_or_default();
            let count = bytes.len().min(into.len());
            if let (Some(into), Some(bytes)) = (into.get_mut(..count), bytes.get(..count)) {
                into.copy_from_slice(bytes);
            }
            self.shared.was_read(index, count as u64);
            count
        }))
    }
}

impl Drop for PagePins {
    fn drop(&mut self) {
        self.shared.gates.refuse();
    }
}

impl Block {
    fn is_begun(&self) -> bool {
        matches!(self, Self::Begun)
    }

    fn is_pinned(&self) -> bool {
        matches!(self, Self::Pinned | Self::Copied(..))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Block>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, index: usize, to: Block) {
        if let Some(block) = self.lock().get_mut(index) {
            *block = to;
        }
        self.changed.notify_all();
    }

    /// The thread of a block: waits in the middle of reading it.
    fn wait_in_read(&self, pid: libc::pid_t, index: usize, addresses: &Range<u64>) {
        let read = || -> io::Result<MmapMut> {
            let length = usize::try_from(addresses.end - addresses.start).unwrap_or(0);
            let mut buffer = MmapMut::map_anon(length)?;
            let page = rustix::param::page_size().min(length);
            let (first, rest) = buffer.split_at_mut(page);
            let gate = libc::iovec {
                iov_base: self.gates.address(index) as *mut libc::c_void,
                iov_len: page,
            };
            let count = read_vectors(pid, addresses.start, &mut [gate, vector_of(rest)])?;
            if count != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.gates.read(index, first);
            Ok(buffer)
        };
        let became = read().map_or(Block::Gone, |buffer| Block::Copied(Arc::new(buffer), 0));
        self.set(index, became);
    }

    /// Lets the thread of a block copy it, and waits for that.
    fn copied(&self, index: usize) -> io::Result<Arc<MmapMut>> {
        self.gates.provide(index);
        let deadline = Instant::now() + COPYING;
        let mut state = self.lock();
        loop {
            match state.get(index) {
                Some(Block::Copied(buffer, _)) => return Ok(Arc::clone(buffer)),
                Some(Block::Pinned) if Instant::now() < deadline => {}
                _ => return Err(io::Error::other("pinned memory cannot be copied")),
            }
            state = self
                .changed
                .wait_timeout(state, Duration::from_secs(1))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn was_read(&self, index: usize, bytes: u64) {
        let mut state = self.lock();
        let Some(block) = state.get_mut(index) else {
            return;
        };
        if let Block::Copied(buffer, read) = block {
            *read = read.saturating_add(bytes);
            if *read >= buffer.len() as u64 {
                *block = Block::Gone;
            }
        }
    }
}

/// Threads that this handler may start.
fn most_threads() -> usize {
    let number = |path: &str| {
        let text = std::fs::read_to_string(path).ok()?;
        text.trim().parse::<usize>().ok()
    };
    let limits = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
    let limits = limits.iter().filter_map(|path| number(path));
    limits
        .map(|limit| limit / THREAD_ID_SHARE)
        .fold(MOST_THREADS, usize::min)
}

/// Parts of a range of `size` bytes, the last one shorter.
pub(crate) fn split(range: &Range<u64>, size: u64) -> impl Iterator<Item = Range<u64>> + use<> {
    let (mut at, end) = (range.start, range.end);
    std::iter::from_fn(move || {
        let start = at;
        at = end.min(start.saturating_add(size));
        (start < at).then_some(start..at)
    })
}

fn vector_of(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

/// `process_vm_readv(2)` of as many bytes as `into` has room for.
fn read_vectors(pid: libc::pid_t, from: u64, into: &mut [libc::iovec]) -> io::Result<usize> {
    let length = into.iter().map(|vector| vector.iov_len).sum();
    let remote = libc::iovec {
        iov_base: from as *mut libc::c_void,
        iov_len: length,
    };
    // SAFETY: each local vector is memory of ours that nothing else uses during the call: a buffer that is borrowed
    // mutably, or a page of `FaultPages`.
    let count = unsafe {
        libc::process_vm_readv(
            pid,
            into.as_ptr(),
            into.len() as libc::c_ulong,
            &raw const remote,
            1,
            0,
        )
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::super::saved_memory::tests::Filled;
    use super::*;

    #[test]
    fn pinned_pages_can_be_read_once_after_the_memory_was_taken_away() {
        let mut filled = Filled::new();
        let ids = [u32::MAX >> 1, filled.pid()];
        let pins = PagePins::take(&ids, &filled.runs(), &filled.exit()).unwrap();
        let blocks = pins.pinned();
        assert_eq!(blocks.len(), 2);
        let before: Vec<_> = blocks.iter().map(|block| filled.bytes(block)).collect();
        filled.drop_memory();
        for (block, before) in blocks.iter().zip(before) {
            let mut bytes = vec![0; before.len()];
            // In two parts: the block is there until all of it was read.
            let (first, second) = bytes.split_at_mut(5000);
            assert_eq!(pins.read(block.start, first).unwrap().unwrap(), 5000);
            let rest = pins.read(block.start + 5000, second).unwrap();
            assert_eq!(rest.unwrap(), second.len());
            assert!(bytes == before);
            assert!(pins.read(block.start, &mut [0]).is_none());
        }
    }

    #[test]
    fn of_a_process_that_has_ended_nothing_is_pinned() {
        let mut filled = Filled::new();
        let (runs, exit) = (filled.runs(), filled.exit());
        filled.end();
        assert!(PagePins::take(&[filled.pid()], &runs, &exit).is_err());
    }

    #[test]
    fn dropped_pins_end_their_threads_without_a_copy() {
        let filled = Filled::new();
        let pins = PagePins::take(&[filled.pid()], &filled.runs(), &filled.exit()).unwrap();
        assert!(!pins.pinned().is_empty());
        let shared = Arc::downgrade(&pins.shared);
        let state = Arc::clone(&pins.shared);
        drop(pins);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !state
            .lock()
            .iter()
            .all(|block| matches!(block, Block::Gone))
        {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(1));
        }
        drop(state);
        while shared.upgrade().is_some() {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn ranges_are_split_into_blocks_that_cover_them() {
        let parts: Vec<_> = split(&(100..350), 100).collect();
        assert_eq!(parts, [100..200, 200..300, 300..350]);
        assert_eq!(split(&(7..7), 100).count(), 0);
    }
}
