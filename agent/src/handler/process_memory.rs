//! The dying process's memory as its core would hold it: what was never touched is zero and is not
//! read, what is there is read, what cannot be read is told.
//!
//! A page that is neither present nor swapped out (`pagemap`, bits 63 and 62) of the process's own
//! memory is zero, in the core as well (`get_dump_page` in `mm/gup.c`: no page is made for a core).
//! Of a shared mapping the file tells where its holes are. Everything else is read through
//! `/proc/<pid>/mem`; where that fails while the memory is still there, the kernel would have had no
//! page either, and the core has zeros (a file cut after it was mapped).
//!
//! Invariant: bytes that this gives are those that the kernel would write, or it is an error. What
//! could make them silently wrong: the process is gone and nothing holds its memory (`mem` and
//! `pagemap` then end at once), or it was killed for want of memory and the kernel takes the pages of
//! the dying process away, which turns them into zeros (`__oom_reap_task_mm` in `mm/oom_kill.c`). The
//! kernel first marks such memory as unstable, so that a fault in it fails, and takes the mappings in
//! order of address, upwards or (since 6.18) downwards: the first page at each end is read again
//! after every piece.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::SeekFrom as FileSeek;

use super::maps::{Kind, Maps, read_maps};
use super::process::ProcessHandles;

/// Bit of `pagemap`: the page is in memory.
const PRESENT: u64 = 1 << 63;
/// Bit of `pagemap`: the page is in swap, or there is a marker in its place.
const SWAPPED: u64 = 1 << 62;
/// Bit of `pagemap`: a guard page (`MADV_GUARD_INSTALL`, 6.13), which has no contents.
const GUARD: u64 = 1 << 58;
/// Entries of `pagemap` that are read at once: one more than a piece has pages, for a piece need not
/// begin with a page.
const ENTRIES: usize = 257;
/// Shared mappings whose holes are looked for; of the others every page is asked for.
const SHARED_FILES: usize = 256;
/// Descriptors that are looked at for a userfaultfd.
const DESCRIPTORS: usize = 65_536;

/// A process's memory, ready to be read also after the process has ended, if something holds it.
pub(super) struct ProcessMemory {
    memory: File,
    /// Of its own, for places beyond the reach of `pread`.
    high: Mutex<File>,
    pagemap: File,
    page: u64,
    maps: Maps,
    /// Addresses at both ends that could be read at the start.
    ends: Vec<u64>,
    shared: Vec<SharedFile>,
    exit: Option<OwnedFd>,
    lost: Lost,
}

/// A file in memory that is mapped.
struct SharedFile {
    addresses: Range<u64>,
    offset: u64,
    file: File,
}

/// Pages that the kernel has and that could not be read.
#[derive(Default)]
struct Lost {
    pages: AtomicU64,
    first: Mutex<Option<u64>>,
}

impl ProcessMemory {
    /// Opens everything that is needed.
    ///
    /// # Errors
    /// In words, why the memory cannot be read instead of the stream.
    pub(super) fn open(process: &ProcessHandles, memory: &File) -> Result<Self, String> {
        let open = |name: &str| {
            process
                .open_file(name)
                .map_err(|error| format!("cannot open `{name}`: {error}"))
        };
        let maps =
            read_maps(open("maps")?).map_err(|error| format!("cannot read `maps`: {error}"))?;
        if maps.ranges.is_empty() {
            return Err("`maps` is empty".to_owned());
        }
        // Reading a page that a stranger's userfaultfd has to provide would wait for the stranger.
        if maps.ranges.iter().any(|range| range.kind == Kind::Shared)
            && process.has_descriptor("anon_inode:[userfaultfd]", DESCRIPTORS)
        {
            return Err("the process uses userfaultfd".to_owned());
        }
        let shared = maps
            .ranges
            .iter()
            .filter(|range| range.kind == Kind::Shared)
            .take(SHARED_FILES)
            .filter_map(|range| {
                let Range { start, end } = range.addresses.clone();
                Some(SharedFile {
                    addresses: start..end,
                    offset: range.offset,
                    file: process.open_mapped_file(start, end)?,
                })
            })
            .collect();
        let clone = |file: &File| {
            file.try_clone()
                .map_err(|error| format!("no more descriptors: {error}"))
        };
        let can_be_read = |address: &u64| {
            retry(|| memory.read_at(&mut [0], *address)).is_ok_and(|count| count > 0)
        };
        let lowest = maps.lowest_private.iter().copied().find(can_be_read);
        let highest = maps.highest_own.filter(can_be_read);
        let ends: Vec<u64> = lowest.into_iter().chain(highest).collect();
        if ends.is_empty() {
            return Err("nothing of its memory can be read".to_owned());
        }
        Ok(Self {
            memory: clone(memory)?,
            high: Mutex::new(open("mem")?),
            pagemap: open("pagemap")?,
            page: rustix::param::page_size() as u64,
            maps,
            ends,
            shared,
            exit: process.exit_watch(),
            lost: Lost::default(),
        })
    }

    /// An address at which a byte can be read.
    #[must_use]
    pub(super) fn readable_address(&self) -> Option<u64> {
        self.ends.first().copied()
    }

    /// Pages that the kernel has, but that could not be read, and the address of one.
    #[must_use]
    pub(super) fn lost_pages(&self) -> Option<(u64, u64)> {
        let first = *self
            .lost
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Some((self.lost.pages.load(Ordering::Relaxed), first?))
    }

    /// Reads what stands at `[address, address + target.left())` into the target.
    ///
    /// # Errors
    /// When the memory is gone.
    pub(super) fn read(
        &self,
        address: u64,
        length: u64,
        target: &mut Target<'_>,
    ) -> io::Result<()> {
        let end = address.saturating_add(length);
        let mut at = address;
        for range in self.maps.overlapping(&(address..end)) {
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
    pub(super) fn check(&self) -> io::Result<()> {
        for &address in &self.ends {
            match retry(|| self.memory.read_at(&mut [0], address)) {
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
    pub(super) fn check_if_ended(&self) -> io::Result<()> {
        match self.exit.as_ref().map(super::process::is_readable) {
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
            retry(|| self.pagemap.read_at(table, first * 8)).and_then(|count| {
                // Where the memory is gone the table ends: that must not look like untouched pages.
                if count == table.len() {
                    Ok(())
                } else {
                    Err(gone())
                }
            })?;
            let is_there = |entry: &[u8; 8]| {
                let entry = u64::from_ne_bytes(*entry);
                entry & (PRESENT | SWAPPED) != 0 && entry & GUARD == 0
            };
            let (entries, _) = table.as_chunks::<8>();
            for run in entries.chunk_by(|a, b| is_there(a) == is_there(b)) {
                let end = (at / self.page + run.len() as u64) * self.page;
                let end = end.min(to);
                match run.first().is_some_and(is_there) {
                    true => self.read_run(at, end, target)?,
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
        let file = self.shared.iter().find(|shared| {
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
            return retry(|| self.memory.read_at(buffer, at));
        }
        // The vsyscall page of x86 lies beyond what `pread` takes for an offset.
        let mut high = self.high.lock().unwrap_or_else(PoisonError::into_inner);
        high.seek(SeekFrom::Start(at))?;
        retry(|| high.read(buffer))
    }

    /// A page that cannot be read is no loss where the kernel has none.
    fn note_lost(&self, at: u64) -> io::Result<()> {
        self.check()?;
        let mut entry = [0; 8];
        let known = retry(|| self.pagemap.read_at(&mut entry, at / self.page * 8));
        let entry = u64::from_ne_bytes(entry);
        if known.is_ok_and(|count| count == 8)
            && entry & (PRESENT | SWAPPED) != 0
            && entry & GUARD == 0
        {
            self.lost.pages.fetch_add(1, Ordering::Relaxed);
            let mut first = self
                .lost
                .first
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(at);
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
pub(super) struct Target<'b> {
    buffer: &'b mut [u8],
    /// Bytes that are decided.
    done: usize,
    /// Bytes that stand in the buffer as decided.
    written: usize,
}

impl<'b> Target<'b> {
    /// Over the whole buffer.
    pub(super) fn new(buffer: &'b mut [u8]) -> Self {
        Self {
            buffer,
            done: 0,
            written: 0,
        }
    }

    /// Bytes that are decided.
    #[must_use]
    pub(super) fn done(&self) -> usize {
        self.done
    }

    /// The next `length` bytes are zero.
    pub(super) fn skip(&mut self, length: u64) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.done = self.done.saturating_add(length).min(self.buffer.len());
    }

    /// These bytes are next.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        let room = self.room(bytes.len() as u64);
        let count = room.len().min(bytes.len());
        if let (Some(room), Some(bytes)) = (room.get_mut(..count), bytes.get(..count)) {
            room.copy_from_slice(bytes);
        }
        self.fill(count);
    }

    /// Ends the filling: whether everything is zero, in which case the buffer holds anything.
    pub(super) fn finish(mut self) -> bool {
        if self.written == 0 {
            return true;
        }
        self.clear_skipped();
        super::core_source::is_zero(self.buffer)
    }

    /// Room for at most `length` bytes, to be followed by [`Self::fill`].
    fn room(&mut self, length: u64) -> &mut [u8] {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let end = self.done.saturating_add(length).min(self.buffer.len());
        self.buffer.get_mut(self.done..end).unwrap_or_default()
    }

    fn fill(&mut self, count: usize) {
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
