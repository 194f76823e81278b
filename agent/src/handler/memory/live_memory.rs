//! The dying process's memory, read through `/proc/<P>/task/<I>/mem`, and a record of what was read.
//!
//! Every page that is read is kept: together they are the minicore's memory, so that gdb
//! later finds what the unwinder found. Invariants: a page that the kernel does not put into the
//! core (`MADV_DONTDUMP`, `coredump_filter`) is never read, unless it belongs to a mapped file; a page
//! that may have to come from a file server is read only if it is at hand; the record never grows
//! beyond its limit.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cdh_elfcore::{Avma, CodeMap, CoreHead, Memory};

use super::process_memory::PageState;
use crate::handler::process::maps::{Kind, Maps};

/// Bytes of a page of the record. Larger pages of the machine only mean more than one read.
pub(crate) const PAGE: u64 = 4096;

/// Memory of the process, with the record of the pages read.
pub(crate) struct LiveMemory<'m> {
    memory: &'m File,
    pagemap: &'m File,
    /// The mappings. Where they are not known, any page may have to come from a server.
    maps: Option<&'m Maps>,
    readable: Vec<Range<u64>>,
    code: CodeMap,
    limit: u64,
    /// Never contended: it is a lock because readers of runtimes want a memory that threads can share.
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    pages: BTreeMap<u64, Option<Vec<u8>>>,
    bytes: u64,
    full: bool,
    gone: bool,
}

impl<'m> LiveMemory<'m> {
    /// Over the open `mem` and `pagemap` of the process whose core begins with `head`. A maximum of
    /// `limit` bytes is recorded; what would go beyond is unknown.
    #[must_use]
    pub(crate) fn new(
        [memory, pagemap]: [&'m File; 2],
        maps: Option<&'m Maps>,
        head: &CoreHead,
        limit: u64,
    ) -> Self {
        let segments = head.segments().iter().map(|segment| {
            segment.start.0
                ..segment
                    .start
                    .0
                    .saturating_add(segment.file_size.min(segment.memory_size))
        });
        let files = head
            .mappings()
            .iter()
            .map(|mapping| mapping.start.0..mapping.end.0);
        let mut readable: Vec<_> = segments
            .chain(files)
            .filter(|range| !range.is_empty())
            .collect();
        readable.sort_unstable_by_key(|range| range.start);
        // Merged, so that one binary search answers.
        let mut merged: Vec<Range<u64>> = Vec::with_capacity(readable.len());
        for range in readable {
            match merged.last_mut().filter(|last| range.start <= last.end) {
                Some(last) => last.end = last.end.max(range.end),
                None => merged.push(range),
            }
        }
        Self {
            memory,
            pagemap,
            maps,
            readable: merged,
            code: CodeMap::of(head.segments()),
            limit,
            record: Mutex::default(),
        }
    }

    /// Records the pages from `from` on, as far as `length` bytes and the mapping go.
    pub(crate) fn keep(&self, from: Avma, length: u64) {
        let Some(range) = self.range_of(from.0) else {
            return;
        };
        let start = page_of(from.0);
        let end = from.0.saturating_add(length).min(range.end);
        self.load(start, end);
    }

    /// Bytes of the record.
    #[must_use]
    pub(crate) fn recorded(&self) -> u64 {
        self.record().bytes
    }

    /// Whether something was left out because the limit was reached.
    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        self.record().full
    }

    /// Whether the process's memory was gone when something of it was to be read.
    #[must_use]
    pub(crate) fn is_gone(&self) -> bool {
        self.record().gone
    }

    /// The record: address of each page that could be read, with its bytes.
    #[must_use]
    pub(crate) fn into_pages(self) -> BTreeMap<u64, Vec<u8>> {
        let pages = self.record.into_inner();
        let pages = pages.unwrap_or_else(PoisonError::into_inner).pages;
        pages
            .into_iter()
            .filter_map(|(at, page)| Some((at, page?)))
            .collect()
    }

    /// Whether a page of what is dumped is a foreign file's and not at hand: only the kernel can get it, or no
    /// process.
    #[must_use]
    pub(crate) fn lacks_foreign_pages(&self, head: &CoreHead) -> bool {
        let Some(maps) = self.maps else {
            return false;
        };
        let page = rustix::param::page_size() as u64;
        let is_lacking = |range: Range<u64>| {
            let mut pages = range.start / page..range.end.div_ceil(page);
            // Where the table ends the memory is gone, and the pipe gives no more.
            pages.any(|number| {
                PageState::of(self.pagemap, number).is_some_and(|state| !state.is_at_hand())
            })
        };
        head.segments().iter().any(|segment| {
            let start = segment.start.0;
            let dumped = start..start.saturating_add(segment.file_size);
            let foreign = maps
                .overlapping(&dumped)
                .filter(|range| range.kind == Kind::Foreign);
            foreign
                .map(|range| {
                    let addresses = &range.addresses;
                    addresses.start.max(dumped.start)..addresses.end.min(dumped.end)
                })
                .any(is_lacking)
        })
    }

    /// Whether the page can be read without waiting for a file server.
    fn is_at_hand(&self, at: u64) -> bool {
        let is_safe = self.maps.is_some_and(|maps| {
            let page = at..at.saturating_add(PAGE);
            let mut found = maps.overlapping(&page);
            found.all(|range| range.kind != Kind::Foreign)
        });
        let number = at / rustix::param::page_size() as u64;
        is_safe || PageState::of(self.pagemap, number).is_none_or(PageState::is_at_hand)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn range_of(&self, at: u64) -> Option<&Range<u64>> {
        let after = self.readable.partition_point(|range| range.start <= at);
        self.readable
            .get(after.checked_sub(1)?)
            .filter(|range| range.contains(&at))
    }

    /// Loads the missing pages of `[start, end)` into the record, in reads of up to 16 pages.
    fn load(&self, start: u64, end: u64) {
        const BATCH: u64 = 16;
        let mut at = start;
        // Most of what is asked for is in the record, and needs no buffer.
        let mut buffer = Vec::new();
        while at < end {
            let mut record = self.record();
            if record.pages.contains_key(&at) {
                at = at.saturating_add(PAGE);
                continue;
            }
            let mut run = 0;
            while run < BATCH {
                let next = at.saturating_add(run * PAGE);
                if next >= end || record.pages.contains_key(&next) || !self.is_at_hand(next) {
                    break;
                }
                run += 1;
            }
            if run == 0 {
                record.pages.insert(at, None);
                at = at.saturating_add(PAGE);
                continue;
            }
            if record.bytes.saturating_add(run * PAGE) > self.limit {
                record.full = true;
                return;
            }
            let wanted = usize::try_from(run * PAGE).unwrap_or_default();
            if buffer.len() < wanted {
                buffer.resize(wanted, 0);
            }
            let (found, gone) = buffer
                .get_mut(..wanted)
                .map_or((0, false), |buffer| read_some(self.memory, at, buffer));
            record.gone |= gone;
            let mut known = 0;
            for page in buffer
                .get(..found)
                .unwrap_or_default()
                .chunks_exact(PAGE as usize)
            {
                record
                    .pages
                    .insert(at.saturating_add(known * PAGE), Some(page.to_vec()));
                record.bytes += PAGE;
                known += 1;
            }
            at = at.saturating_add(known * PAGE);
            if known < run {
                // This page cannot be read (a guard page, a hole in a file); it is not tried again.
                record.pages.insert(at, None);
                at = at.saturating_add(PAGE);
            }
        }
    }
}

/// Reads until the buffer is full or the memory ends. The bytes read, and whether the memory is gone:
/// of a process that has none any more every read gives nothing, where an address that cannot be read
/// gives an error (`mem_rw` in the kernel's `fs/proc/base.c`).
fn read_some(memory: &File, at: u64, buffer: &mut [u8]) -> (usize, bool) {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match memory.read_at(rest, at.saturating_add(done as u64)) {
            Ok(0) => return (done, true),
            Ok(count) => done += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    (done, false)
}

fn page_of(at: u64) -> u64 {
    at & !(PAGE - 1)
}

impl Memory for LiveMemory<'_> {
    fn read(&self, at: Avma, buf: &mut [u8]) -> usize {
        let mut done: usize = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let Some(now) = at.0.checked_add(done as u64) else {
                break;
            };
            let Some(range) = self.range_of(now) else {
                break;
            };
            let end = now.saturating_add(rest.len() as u64).min(range.end);
            let page = page_of(now);
            // Large reads are loaded as a whole, page by page would be a system call each.
            self.load(page, end);
            let record = self.record();
            let Some(Some(bytes)) = record.pages.get(&page) else {
                break;
            };
            let skip = usize::try_from(now - page).unwrap_or_default();
            let available = bytes.get(skip..).unwrap_or_default();
            let within = usize::try_from(end - now).unwrap_or(usize::MAX);
            let count = available.len().min(rest.len()).min(within);
            match (rest.get_mut(..count), available.get(..count)) {
                (Some(to), Some(from)) if count > 0 => to.copy_from_slice(from),
                _ => break,
            }
            done += count;
        }
        done
    }

    fn is_executable(&self, at: Avma) -> Option<bool> {
        self.code.is_executable(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_gone_is_told_from_an_address_that_cannot_be_read() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let memory = File::open(format!("/proc/{}/mem", child.id())).unwrap();
        let read = || read_some(&memory, 0, &mut [0; 8]);
        assert_eq!(read(), (0, false));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(read(), (0, true));
    }
}
