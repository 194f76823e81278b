//! The dying process's memory as its core would hold it: what was never touched is zero and is not
//! read, what is there is read, what cannot be read is reported.
//!
//! A page that is neither present nor swapped out (`pagemap`, bits 63 and 62) of the process's own
//! memory is zero, in the core as well (`get_dump_page` in `mm/gup.c`: no page is made for a core).
//! The file of a shared mapping shows where its holes are. Of a file on a foreign file system only pages
//! that are at hand are read: the others would have to come from a server, which may not answer.
//! Everything else is read through `/proc/<pid>/mem`; where that fails while the memory is still there, the kernel would have had no
//! page either, and the core has zeros (a file cut after it was mapped).
//!
//! Invariant: bytes that this gives are those that the kernel would write, or it is an error. Two things could
//! make them silently wrong. The process is gone and nothing holds its memory: `mem` and `pagemap` then end at
//! once. Or the OOM reaper frees the pages of the dying process, which turns them into zeros
//! (`__oom_reap_task_mm` in `mm/oom_kill.c`). The
//! kernel first marks such memory as unstable, so that a fault in it fails, and takes the mappings in
//! order of address, upwards or (since 6.18) downwards: the first page at each end is read again
//! after every piece.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::SeekFrom as FileSeek;

use super::layout::Layout;
use super::page_pins::LEAST_BLOCK;
use crate::handler::process::maps::{Kind, Maps};

/// Entries of `pagemap` that are read at once: one more than a piece has pages, for a piece need not
/// begin with a page.
const ENTRIES: usize = 257;

/// What `pagemap` says of a page (`Documentation/admin-guide/mm/pagemap.rst`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageState(u64);

impl PageState {
    /// The page is in memory.
    const PRESENT: u64 = 1 << 63;
    /// The page is in swap, or there is a marker in its place.
    const SWAPPED: u64 = 1 << 62;
    /// The page is a file's, or of shared memory.
    const FILE: u64 = 1 << 61;
    /// The page is mapped only here (4.2).
    const EXCLUSIVE: u64 = 1 << 56;
    /// A guard page (`MADV_GUARD_INSTALL`, 6.13), which has no contents.
    const GUARD: u64 = 1 << 58;
    /// Write-protected by a userfaultfd: also what a marker says in the place of a page that never was.
    const PROTECTED: u64 = 1 << 57;

    /// State of the page with this number; `None` where the table ends.
    pub(crate) fn of(pagemap: &File, number: u64) -> Option<Self> {
        let mut entry = [0; 8];
        let offset = number.checked_mul(8)?;
        let count = retry(|| pagemap.read_at(&mut entry, offset)).ok()?;
        (count == entry.len()).then(|| Self(u64::from_ne_bytes(entry)))
    }

    /// Whether the process has such a page, in memory or in swap.
    fn is_there(self) -> bool {
        self.0 & (Self::PRESENT | Self::SWAPPED) != 0 && self.0 & Self::GUARD == 0
    }

    /// Whether reading it cannot ask a file system for it.
    pub(crate) fn is_at_hand(self) -> bool {
        let in_swap = self.0 & Self::SWAPPED != 0 && self.0 & (Self::GUARD | Self::PROTECTED) == 0;
        self.0 & Self::PRESENT != 0 || in_swap
    }

    /// Whether it is in memory, and a reference to it does not make the kernel copy it: since Linux 5.19,
    /// `pin_user_pages` replaces an anonymous page that a fork shares by a new one (`FAULT_FLAG_UNSHARE`), which
    /// is charged to the cgroup that is short of memory.
    fn is_pinnable(self) -> bool {
        self.0 & Self::PRESENT != 0
            && self.0 & Self::GUARD == 0
            && self.0 & (Self::FILE | Self::EXCLUSIVE) != 0
    }

    /// Whether it is in memory, and of the process's own.
    pub(crate) fn is_anonymous(self) -> bool {
        self.0 & Self::PRESENT != 0 && self.0 & Self::FILE == 0
    }
}

/// What a process's memory is read with, opened while the process is there. None of it has been read yet.
pub(crate) struct MemoryParts {
    /// Its `mem`.
    pub memory: File,
    /// `mem` of the handler itself, for the kernel's own page beyond the reach of `pread`: it is the same
    /// in every process. To read it there, the kernel locks the memory against everybody
    /// (`expand_stack`), and waits for the process that holds it, without limit.
    pub high: File,
    /// Its `pagemap`.
    pub pagemap: File,
    /// Its mappings.
    pub maps: Maps,
    /// Files in memory that are mapped, as far as they could be opened.
    pub shared: Vec<SharedFile>,
    /// Readable when it has exited.
    pub exit: Option<OwnedFd>,
}

impl MemoryParts {
    /// The descriptors that reading takes.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let files = [&self.memory, &self.high, &self.pagemap];
        let files = files.into_iter().map(AsFd::as_fd);
        let shared = self.shared.iter().map(|shared| shared.file.as_fd());
        let exit = self.exit.iter().map(AsFd::as_fd);
        files.chain(shared).chain(exit).collect()
    }
}

/// A process's memory, ready to be read also after the process has ended, if something holds it. All of
/// this may block, and belongs into a child process.
pub(crate) struct ProcessMemory<'p> {
    parts: &'p MemoryParts,
    high: Mutex<&'p File>,
    page: u64,
    /// Addresses at both ends that could be read at the start.
    ends: Vec<u64>,
    lost: Lost,
    unreached: Lost,
}

/// A file in memory that is mapped.
pub(crate) struct SharedFile {
    /// Where it is mapped.
    pub addresses: Range<u64>,
    /// Which byte of it the mapping begins with.
    pub offset: u64,
    /// The file.
    pub file: File,
}

/// Pages that are missing: how many, and the address of one.
#[derive(Default)]
struct Lost {
    pages: AtomicU64,
    first: Mutex<Option<u64>>,
}

impl Lost {
    fn add(&self, pages: u64, at: u64) {
        self.pages.fetch_add(pages, Ordering::Relaxed);
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(at);
    }

    fn found(&self) -> Option<(u64, u64)> {
        let first = *self.first.lock().unwrap_or_else(PoisonError::into_inner);
        Some((self.pages.load(Ordering::Relaxed), first?))
    }
}

impl<'p> ProcessMemory<'p> {
    /// Looks whether it can be read.
    ///
    /// # Errors
    /// In words, why the memory cannot be read instead of the stream.
    pub(crate) fn of(parts: &'p MemoryParts) -> Result<Self, String> {
        let page = rustix::param::page_size() as u64;
        // A page that is present is read directly.
        let can_be_read = |address: &u64| {
            PageState::of(&parts.pagemap, address / page).is_some_and(PageState::is_at_hand)
                && retry(|| parts.memory.read_at(&mut [0], *address)).is_ok_and(|count| count > 0)
        };
        let first = |starts: &[u64]| starts.iter().copied().find(can_be_read);
        let (lowest, highest) = (
            first(&parts.maps.lowest_private),
            first(&parts.maps.highest_own),
        );
        let ends: Vec<u64> = lowest.into_iter().chain(highest).collect();
        if ends.is_empty() {
            return Err("nothing of its memory can be read".to_owned());
        }
        Ok(Self {
            parts,
            high: Mutex::new(&parts.high),
            page,
            ends,
            lost: Lost::default(),
            unreached: Lost::default(),
        })
    }

    /// Pages that the kernel has, but that could not be read, and the address of one.
    #[must_use]
    pub(crate) fn lost_pages(&self) -> Option<(u64, u64)> {
        self.lost.found()
    }

    /// Pages of foreign files that were not in memory and were not asked for, and the address of one.
    #[must_use]
    pub(crate) fn unreached_pages(&self) -> Option<(u64, u64)> {
        self.unreached.found()
    }

    /// Addresses of the layout's pages that are in memory, as far as one second is enough to find them. Foreign files are
    /// left out: their pages may go at any moment, and then only their server has them.
    ///
    /// # Errors
    /// When the memory is gone.
    pub(crate) fn present_runs(&self, layout: &Layout) -> io::Result<Vec<Range<u64>>> {
        /// How long to look for them: very large mappings may be almost empty.
        const LOOKING: Duration = Duration::from_secs(1);
        let begun = Instant::now();
        let mut runs: Vec<Range<u64>> = Vec::new();
        let mut table = [0; ENTRIES * 8];
        for extent in &layout.extents {
            let wanted = extent.address..extent.address.saturating_add(extent.length);
            let ranges = self.parts.maps.overlapping(&wanted);
            for range in ranges.filter(|range| range.kind != Kind::Foreign) {
                let mut at = range.addresses.start.max(wanted.start);
                let to = range.addresses.end.min(wanted.end);
                while at < to && begun.elapsed() < LOOKING {
                    let first = at / self.page;
                    let pages = (to.div_ceil(self.page) - first).min(ENTRIES as u64);
                    let table = table.get_mut(..pages as usize * 8).unwrap_or_default();
                    let count = retry(|| self.parts.pagemap.read_at(table, first * 8))?;
                    if count < table.len() {
                        // `pagemap` ends before the kernel's own page on x86, and also if the memory is gone.
                        break;
                    }
                    let (entries, _) = table.as_chunks::<8>();
                    for entry in entries {
                        let end = ((at / self.page + 1) * self.page).min(to);
                        match runs.last_mut() {
                            _ if !PageState(u64::from_ne_bytes(*entry)).is_pinnable() => {}
                            Some(run) if run.end == at => run.end = end,
                            _ => {
                                runs.pop_if(|run| run.end - run.start < LEAST_BLOCK);
                                runs.push(at..end);
                            }
                        }
                        at = end;
                    }
                }
            }
        }
        runs.sort_by_key(|run| run.start);
        Ok(runs)
    }

    /// Reads the bytes at `[address, address + target.left())` into the target.
    ///
    /// # Errors
    /// When the memory is gone.
    pub(crate) fn read(
        &self,
        address: u64,
        length: u64,
        target: &mut Target<'_>,
    ) -> io::Result<()> {
        let end = address.saturating_add(length);
        let mut at = address;
        for range in self.parts.maps.overlapping(&(address..end)) {
            let from = range.addresses.start.clamp(at, end);
            let to = range.addresses.end.clamp(from, end);
            self.read_kind(Kind::Other, at, from, target)?;
            self.read_kind(range.kind, from, to, target)?;
            at = to;
        }
        self.read_kind(Kind::Other, at, end, target)
    }

    /// Fails when what was read may have been taken away before.
    ///
    /// # Errors
    /// When the memory is gone or going.
    pub(crate) fn check(&self) -> io::Result<()> {
        for &address in &self.ends {
            match retry(|| self.parts.memory.read_at(&mut [0], address)) {
                Ok(0) => return Err(gone()),
                Ok(_) => {}
                Err(error) => {
                    let what = format!("the kernel took the memory away ({error})");
                    return Err(io::Error::new(io::ErrorKind::OutOfMemory, what));
                }
            }
        }
        Ok(())
    }

    /// As [`Self::check`], where there is a reason to doubt.
    ///
    /// # Errors
    /// When the memory is gone or going.
    pub(crate) fn check_if_ended(&self) -> io::Result<()> {
        match self
            .parts
            .exit
            .as_ref()
            .map(crate::handler::os::poll::is_readable)
        {
            Some(Some(false)) => Ok(()),
            _ => self.check(),
        }
    }

    fn read_kind(&self, kind: Kind, from: u64, to: u64, target: &mut Target<'_>) -> io::Result<()> {
        if from >= to {
            return Ok(());
        }
        if kind == Kind::Other {
            return self.read_run(from, to, target);
        }
        let mut at = from;
        let mut table = [0; ENTRIES * 8];
        while at < to {
            let first = at / self.page;
            let pages = (to.div_ceil(self.page) - first).min(ENTRIES as u64);
            let table = table.get_mut(..pages as usize * 8).unwrap_or_default();
            retry(|| self.parts.pagemap.read_at(table, first * 8)).and_then(|count| {
                // Where the memory is gone the table ends: that must not look like untouched pages.
                if count == table.len() {
                    Ok(())
                } else {
                    Err(gone())
                }
            })?;
            let is_there = |entry: &[u8; 8]| {
                let state = PageState(u64::from_ne_bytes(*entry));
                match kind {
                    Kind::Foreign => state.is_at_hand(),
                    _ => state.is_there(),
                }
            };
            let (entries, _) = table.as_chunks::<8>();
            for run in entries.chunk_by(|a, b| is_there(a) == is_there(b)) {
                let end = (at / self.page + run.len() as u64) * self.page;
                let end = end.min(to);
                match run.first().is_some_and(is_there) {
                    true => self.read_run(at, end, target)?,
                    false if kind == Kind::Foreign => {
                        self.unreached.add((end - at).div_ceil(self.page), at);
                        target.skip(end - at);
                    }
                    false => self.read_untouched(kind, at, end, target)?,
                }
                at = end;
            }
        }
        Ok(())
    }

    /// Pages that the process itself has never touched.
    fn read_untouched(
        &self,
        kind: Kind,
        from: u64,
        to: u64,
        target: &mut Target<'_>,
    ) -> io::Result<()> {
        let file = self.parts.shared.iter().find(|shared| {
            kind == Kind::Shared && shared.addresses.start <= from && to <= shared.addresses.end
        });
        let Some(shared) = file else {
            if kind == Kind::Shared {
                return self.read_run(from, to, target);
            }
            target.skip(to - from);
            return Ok(());
        };
        let mut at = from;
        while at < to {
            let in_file = at - shared.addresses.start + shared.offset;
            let next = match rustix::fs::seek(&shared.file, FileSeek::Data(in_file)) {
                Ok(data) => at.saturating_add(data.saturating_sub(in_file)).min(to),
                Err(rustix::io::Errno::NXIO) => to,
                Err(_) => at,
            };
            target.skip(next - at);
            at = next;
            if at < to {
                let in_file = at - shared.addresses.start + shared.offset;
                let hole = rustix::fs::seek(&shared.file, FileSeek::Hole(in_file));
                let length = hole.map_or(u64::MAX, |hole| hole.saturating_sub(in_file));
                let end = at.saturating_add(length.max(1)).min(to);
                self.read_run(at, end, target)?;
                at = end;
            }
        }
        Ok(())
    }

    fn read_run(&self, from: u64, to: u64, target: &mut Target<'_>) -> io::Result<()> {
        let mut at = from;
        while at < to {
            match self.read_some(at, target.room(to - at)) {
                Ok(0) => return Err(gone()),
                Ok(count) => {
                    target.fill(count);
                    at += count as u64;
                }
                // The memory is there, the page is not.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EIO | libc::EFAULT)) => {
                    let next = (at / self.page + 1).saturating_mul(self.page).min(to);
                    self.note_lost(at)?;
                    target.skip(next - at);
                    at = next;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_some(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if i64::try_from(at).is_ok() {
            return retry(|| self.parts.memory.read_at(buffer, at));
        }
        // The vsyscall page of x86 is beyond what `pread` takes for an offset.
        let mut high = self.high.lock().unwrap_or_else(PoisonError::into_inner);
        high.seek(SeekFrom::Start(at))?;
        retry(|| high.read(buffer))
    }

    /// A page that cannot be read is no loss where the kernel has none.
    fn note_lost(&self, at: u64) -> io::Result<()> {
        self.check()?;
        let state = PageState::of(&self.parts.pagemap, at / self.page);
        if state.is_some_and(PageState::is_there) {
            self.lost.add(1, at);
        }
        Ok(())
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the memory is gone")
}

fn retry(mut attempt: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// A buffer that is filled from its start. What is skipped is zero; as long as everything was
/// skipped, nothing is written.
pub(crate) struct Target<'b> {
    buffer: &'b mut [u8],
    /// Bytes that are decided.
    done: usize,
    /// Bytes that stand in the buffer as decided.
    written: usize,
}

impl<'b> Target<'b> {
    /// Over the whole buffer.
    pub(crate) fn new(buffer: &'b mut [u8]) -> Self {
        Self {
            buffer,
            done: 0,
            written: 0,
        }
    }

    /// Bytes that are decided.
    #[must_use]
    pub(crate) fn done(&self) -> usize {
        self.done
    }

    /// The next `length` bytes are zero.
    pub(crate) fn skip(&mut self, length: u64) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.done = self.done.saturating_add(length).min(self.buffer.len());
    }

    /// These bytes are next.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let room = self.room(bytes.len() as u64);
        let count = room.len().min(bytes.len());
        if let (Some(room), Some(bytes)) = (room.get_mut(..count), bytes.get(..count)) {
            room.copy_from_slice(bytes);
        }
        self.fill(count);
    }

    /// Ends the filling: whether everything is zero, in which case the buffer holds anything.
    pub(crate) fn finish(mut self) -> bool {
        if self.written == 0 {
            return true;
        }
        self.clear_skipped();
        crate::handler::copy::core_source::is_zero(self.buffer)
    }

    /// Room for at most `length` bytes, to be followed by [`Self::fill`].
    pub(crate) fn room(&mut self, length: u64) -> &mut [u8] {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let end = self.done.saturating_add(length).min(self.buffer.len());
        self.buffer.get_mut(self.done..end).unwrap_or_default()
    }

    /// So many bytes of [`Self::room`] are filled.
    pub(crate) fn fill(&mut self, count: usize) {
        self.clear_skipped();
        self.done = self.done.saturating_add(count).min(self.buffer.len());
        self.written = self.done;
    }

    fn clear_skipped(&mut self) {
        if let Some(skipped) = self.buffer.get_mut(self.written..self.done) {
            skipped.fill(0);
        }
        self.written = self.done;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_skipped_is_zero_and_what_is_filled_stays() {
        let mut buffer = [9; 16];
        let mut target = Target::new(&mut buffer);
        target.skip(3);
        target.put(b"abc");
        target.skip(2);
        target.put(b"d");
        target.skip(7);
        assert_eq!(target.done(), 16);
        assert!(!target.finish());
        assert_eq!(&buffer, b"\0\0\0abc\0\0d\0\0\0\0\0\0\0");
    }

    #[test]
    fn a_buffer_of_nothing_but_holes_is_not_touched() {
        let mut buffer = [9; 16];
        let mut target = Target::new(&mut buffer);
        target.skip(100);
        assert!(target.finish());
        assert_eq!(buffer, [9; 16]);
    }
}
