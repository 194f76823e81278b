//! What of a process's memory outlives the OOM reaper.
//!
//! While the process waits, its present pages are pinned ([`PagePins`]). If the OOM killer ends it, the few pages that
//! are not pinned are read into memory of ours within the two seconds that the reaper leaves. From then on, everything
//! is read from these two.
//!
//! ```text
//! Off ──pin──▶ Pinned ──save──▶ Saved      (the OOM killer ended the process)
//!                │
//!                └──────────────▶ Off      (it ended in another way, or the copy is done)
//! ```
//!
//! Invariants: bytes from here are those that the process had; a page that is neither pinned nor saved is read from the
//! memory itself and checked. Nothing is kept if the node itself is short of memory.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use cdh_bundle::SEEKABLE_FRAME;

use super::layout::Layout;
use super::page_pins::{PagePins, split};
use super::process_memory::{ProcessMemory, Target};
use crate::handler::startup::priority;

/// Bytes that are saved at once.
const CHUNK: u64 = SEEKABLE_FRAME as u64;
/// Bytes of a saving thread's stack.
const STACK: usize = 128 << 10;

/// The memory that is laid out in a core, and what is kept of it.
pub(crate) struct SavedMemory<'m> {
    layout: &'m Layout,
    memory: &'m ProcessMemory<'m>,
    phase: Mutex<Phase>,
    changed: Condvar,
    kept: OnceLock<Kept>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is kept.
    Off,
    /// Pages are pinned; whether they are needed is not known yet.
    Pinned,
    /// Everything is read from what is kept.
    Saved,
}

/// What is kept.
struct Kept {
    pins: PagePins,
    rest: Chunks,
}

/// Chunks by address: their length, and their bytes if these are not zero.
type Chunks = BTreeMap<u64, (u64, Option<Box<[u8]>>)>;

/// How memory is kept.
pub(crate) struct Keeper<'k> {
    /// Ids of the process's threads.
    pub ids: &'k [u32],
    /// Readable when it has ended.
    pub exit: &'k OwnedFd,
    /// Bytes of memory that may be used; 0 if the node is short of memory.
    pub room: &'k (dyn Fn() -> u64 + Sync),
    /// Where in the core nothing was read yet.
    pub position: &'k dyn Fn() -> u64,
    /// Threads that read.
    pub threads: usize,
}

impl<'m> SavedMemory<'m> {
    /// Of the memory of this layout. Nothing is kept yet.
    #[must_use]
    pub(crate) fn new(layout: &'m Layout, memory: &'m ProcessMemory<'m>) -> Self {
        Self {
            layout,
            memory,
            phase: Mutex::new(Phase::Off),
            changed: Condvar::new(),
            kept: OnceLock::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, phase: Phase) {
        *self.lock() = phase;
        self.changed.notify_all();
    }

    /// Pins the memory until `wait` returns. If that says that the OOM killer ended the process, what is not pinned is
    /// read at once.
    ///
    /// Returns what `wait` returned, and the bytes that were pinned and are kept.
    pub(crate) fn keep_while(&self, keeper: &Keeper<'_>, wait: &dyn Fn() -> bool) -> (bool, u64) {
        // Until they are pinned, a kill costs pages.
        priority::raise();
        let pins = self.memory.present_runs(self.layout);
        let pins = pins.and_then(|runs| PagePins::take(keeper.ids, &runs, keeper.exit));
        priority::restore();
        // Without pins, it is a race against the reaper.
        let Ok(pins) = pins else {
            return (wait(), 0);
        };
        self.set(Phase::Pinned);
        let is_out_of_memory = wait();
        let mut safe = 0;
        if is_out_of_memory && (keeper.room)() > 0 {
            priority::raise();
            let pinned = pins.pinned();
            let rest = self.save(&pinned, keeper);
            safe = pinned.iter().map(|block| block.end - block.start).sum();
            let _ = self.kept.set(Kept { pins, rest });
            self.set(Phase::Saved);
        } else {
            self.set(Phase::Off);
        }
        (is_out_of_memory, safe)
    }

    /// Reads what is not pinned and was not read before.
    fn save(&self, pinned: &[Range<u64>], keeper: &Keeper<'_>) -> Chunks {
        let chunks = self.chunks_beside(pinned, (keeper.position)());
        let (next, budget) = (AtomicUsize::new(0), AtomicU64::new((keeper.room)()));
        let rest = Mutex::new(BTreeMap::new());
        let work = || {
            let mut buffer = vec![0; SEEKABLE_FRAME];
            while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let length = chunk.end - chunk.start;
                let mut target = Target::new(buffer.get_mut(..length as usize).unwrap_or_default());
                let read = self.memory.read(chunk.start, length, &mut target);
                if read.and_then(|()| self.memory.check()).is_err() {
                    return;
                }
                let is_zero = target.finish();
                let spend = |left: u64| left.checked_sub(length);
                if !is_zero
                    && budget
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
                        .is_err()
                {
                    return;
                }
                let bytes = buffer.get(..length as usize).filter(|_| !is_zero);
                let bytes = bytes.map(Box::from);
                let mut rest = rest.lock().unwrap_or_else(PoisonError::into_inner);
                rest.insert(chunk.start, (length, bytes));
            }
        };
        thread::scope(|scope| {
            for _ in 1..keeper.threads.max(1) {
                let _ = thread::Builder::new()
                    .stack_size(STACK)
                    .spawn_scoped(scope, work);
            }
            work();
        });
        rest.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Addresses of the layout that are not pinned, in parts of [`CHUNK`] bytes.
    fn chunks_beside(&self, pinned: &[Range<u64>], position: u64) -> Vec<Range<u64>> {
        /// For 1 TiB: a process may map any amount that it never touches.
        const MOST_CHUNKS: usize = 1 << 20;
        let mut chunks = Vec::new();
        for extent in self
            .layout
            .extents
            .iter()
            .filter(|extent| extent.end() > position)
        {
            let end = extent.address.saturating_add(extent.length);
            let mut at = extent.address;
            let first = pinned.partition_point(|block| block.end <= at);
            let blocks = pinned.iter().skip(first);
            let blocks = blocks
                .map(|block| block.start..block.end)
                .chain(std::iter::once(end..end));
            for block in blocks {
                let stop = block.start.clamp(at, end);
                let room = MOST_CHUNKS.saturating_sub(chunks.len());
                chunks.extend(split(&(at..stop), CHUNK).take(room));
                at = at.max(stop).max(block.end.min(end));
                if at >= end {
                    break;
                }
            }
        }
        chunks
    }

    /// Whether everything is read from what is kept.
    pub(crate) fn is_saved(&self) -> bool {
        *self.lock() == Phase::Saved
    }

    /// As [`Self::is_saved`], for a reader that found the memory gone: waits until it is known.
    pub(crate) fn will_be_saved(&self) -> bool {
        let mut phase = self.lock();
        while *phase == Phase::Pinned {
            phase = self
                .changed
                .wait(phase)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *phase == Phase::Saved
    }

    /// Reads what is kept of the memory at `address`.
    ///
    /// # Errors
    /// When a part is neither pinned nor saved, and the memory is gone.
    pub(crate) fn read(
        &self,
        address: u64,
        length: u64,
        target: &mut Target<'_>,
    ) -> io::Result<()> {
        let kept = self.kept.get().ok_or(io::ErrorKind::NotFound)?;
        let end = address.saturating_add(length);
        let mut at = address;
        while at < end {
            let room = target.room(end - at);
            if let Some(count) = kept.pins.read(at, room) {
                let count = count?;
                target.fill(count);
                at = at.saturating_add(count.max(1) as u64);
                continue;
            }
            let saved = kept.rest.range(..=at).next_back();
            let saved = saved.filter(|(start, (length, _))| at < **start + length);
            let Some((start, (length, bytes))) = saved else {
                let page = rustix::param::page_size() as u64;
                let to = end.min((at / page + 1) * page);
                self.memory.read(at, to - at, target)?;
                self.memory.check()?;
                at = to;
                continue;
            };
            let to = end.min(start + length);
            match bytes {
                None => target.skip(to - at),
                Some(bytes) => {
                    let part = (at - start) as usize..(to - start) as usize;
                    target.put(bytes.get(part).unwrap_or_default());
                }
            }
            at = to;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::File;
    use std::io::{BufRead, BufReader};
    use std::os::unix::fs::FileExt;
    use std::process::{Child, ChildStdout, Command, Stdio};

    use super::super::layout::Extent;
    use super::super::memory_source::MemorySource;
    use super::super::process_memory::MemoryParts;
    use super::*;
    use crate::handler::copy::core_source::CoreSource;
    use crate::handler::process::handles::tests::living;
    use crate::handler::process::maps::parse_maps;

    /// Memory of the process: two pinned blocks, and a rest that is too small for a third one.
    const SIZE: usize = (8 << 20) + (20 << 10);

    /// A process with numbers in its memory, which it drops at the end of its input as the OOM reaper would.
    pub(crate) struct Filled {
        child: Child,
        address: u64,
        output: BufReader<ChildStdout>,
    }

    impl Filled {
        pub(crate) fn new() -> Self {
            let program = "\
import ctypes, mmap, sys
memory = mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
numbers = b''.join(b'%d,' % number for number in range(1, 2000000))
memory.write(numbers[:len(memory)])
print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
sys.stdin.read()
memory.madvise(mmap.MADV_DONTNEED)
print('dropped', flush=True)
import time
time.sleep(600)";
            let mut child = Command::new("python3")
                .args(["-c", program, &SIZE.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut output = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            let address = line.trim().parse().unwrap();
            Self {
                child,
                address,
                output,
            }
        }

        pub(crate) fn pid(&self) -> u32 {
            self.child.id()
        }

        pub(crate) fn exit(&self) -> OwnedFd {
            let pid = rustix::process::Pid::from_child(&self.child);
            let flags = rustix::process::PidfdFlags::empty();
            rustix::process::pidfd_open(pid, flags).unwrap()
        }

        /// Takes the memory away.
        pub(crate) fn drop_memory(&mut self) {
            drop(self.child.stdin.take());
            let mut line = String::new();
            self.output.read_line(&mut line).unwrap();
            assert_eq!(line, "dropped\n");
        }

        pub(crate) fn end(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }

        fn parts(&self) -> MemoryParts {
            let process = living(self.pid());
            let maps = process.open_file("maps").unwrap();
            MemoryParts {
                memory: process.open_file("mem").unwrap(),
                high: File::open("/proc/self/mem").unwrap(),
                pagemap: process.open_file("pagemap").unwrap(),
                maps: parse_maps(&mut BufReader::new(maps), &mut |_| true).unwrap(),
                shared: Vec::new(),
                exit: Some(self.exit()),
            }
        }

        fn layout(&self) -> Layout {
            let extent = Extent {
                offset: 4096,
                length: SIZE as u64,
                address: self.address,
            };
            Layout {
                start: 4096,
                end: extent.end(),
                extents: vec![extent],
                tail: Vec::new(),
            }
        }

        /// Bytes at these addresses.
        pub(crate) fn bytes(&self, addresses: &Range<u64>) -> Vec<u8> {
            let mut bytes = vec![0; (addresses.end - addresses.start) as usize];
            let memory = self.parts().memory;
            memory.read_exact_at(&mut bytes, addresses.start).unwrap();
            bytes
        }

        pub(crate) fn runs(&self) -> Vec<Range<u64>> {
            let parts = self.parts();
            let memory = ProcessMemory::of(&parts).unwrap();
            memory.present_runs(&self.layout()).unwrap()
        }
    }

    impl Drop for Filled {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// What the memory held before it was taken away, and what is read afterwards.
    fn before_and_after(is_out_of_memory: bool, room: u64) -> [Vec<u8>; 2] {
        let mut filled = Filled::new();
        let before = filled.bytes(&(filled.address..filled.address + SIZE as u64));
        assert!(before.starts_with(b"1,2,3,") && !before.ends_with(&[0]));
        let (parts, layout) = (filled.parts(), filled.layout());
        let memory = ProcessMemory::of(&parts).unwrap();
        let saved = SavedMemory::new(&layout, &memory);
        let source = MemorySource::new(&layout, &memory, &saved);
        let keeper = Keeper {
            ids: &[filled.pid()],
            exit: parts.exit.as_ref().unwrap(),
            room: &|| room,
            position: &|| 0,
            threads: 2,
        };
        let (_, pinned) = saved.keep_while(&keeper, &|| is_out_of_memory);
        let is_kept = is_out_of_memory && room > 0;
        assert_eq!(pinned, if is_kept { 8 << 20 } else { 0 });
        filled.drop_memory();
        let mut after = Vec::new();
        let mut buffer = vec![0; SEEKABLE_FRAME];
        while let Some(piece) = source.next(&mut buffer).unwrap() {
            if piece.zero {
                buffer.fill(0);
            }
            after.extend_from_slice(&buffer[..piece.length]);
        }
        [before, after]
    }

    #[test]
    fn saved_memory_is_complete_after_the_memory_was_taken_away() {
        let [before, after] = before_and_after(true, u64::MAX);
        assert!(before == after);
    }

    #[test]
    fn saved_memory_keeps_nothing_without_an_oom_kill_or_if_the_node_has_no_room() {
        for (is_out_of_memory, room) in [(true, 0), (false, u64::MAX)] {
            let [_, after] = before_and_after(is_out_of_memory, room);
            assert!(after == vec![0; SIZE]);
        }
    }

    /// The kernel's own page on x86 is in the core, but not in `pagemap`. It once kept everything from being pinned.
    #[test]
    fn present_runs_of_a_complete_process_hold_its_memory() {
        let filled = Filled::new();
        let (parts, mut layout) = (filled.parts(), filled.layout());
        layout.extents.clear();
        for range in &parts.maps.ranges {
            layout.extents.push(Extent {
                offset: layout.end,
                length: range.addresses.end - range.addresses.start,
                address: range.addresses.start,
            });
        }
        let memory = ProcessMemory::of(&parts).unwrap();
        let runs = memory.present_runs(&layout).unwrap();
        let holds = |run: &Range<u64>| {
            run.start <= filled.address && filled.address + SIZE as u64 <= run.end
        };
        assert!(runs.iter().any(holds), "{runs:x?}");
    }

    #[test]
    fn saved_memory_reads_from_the_process_what_had_no_room() {
        let [before, after] = before_and_after(true, 1);
        assert!(before[..8 << 20] == after[..8 << 20]);
        assert!(after[8 << 20..] == [0; 20 << 10]);
    }
}
