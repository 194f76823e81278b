//! What is left of a memory that the kernel is about to take away, read into memory of our own first.
//!
//! Two seconds after the OOM killer chose a process, the OOM reaper frees its memory, also if it is held
//! (`OOM_REAPER_DELAY` in the kernel's `mm/oom_kill.c`). A disk may need longer for what is left by then. The
//! node has room for it as a rule: it is a container that is short of memory, and not the one we are in.
//!
//! Invariants: pieces are given on in the order of the core, so that no frame waits for one that is kept; no
//! more is kept than node and cgroup have room for, and nothing as long as no process is killed.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use cdh_bundle::SEEKABLE_FRAME;
use memmap2::{Advice, MmapMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::handler::copy::core_source::{CoreSource, FrameSpan, SourceFailure};
use crate::handler::startup::priority;

/// Bytes that may be taken before room is asked for again.
const STEP: u64 = 64 << 20;
/// Bytes that are taken at once, in large pages where there are any.
const BLOCK: usize = 8 * SEEKABLE_FRAME;
/// Time between two looks whether the OOM killer has struck.
const PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 250_000_000,
};

/// A source that can be read ahead of its reader.
pub(crate) struct OomSnapshot<'s> {
    source: &'s dyn CoreSource,
    room: &'s (dyn Fn() -> u64 + Sync),
    state: Mutex<State>,
    read: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether pieces are to be kept.
    on: bool,
    /// Threads that read them.
    reading: usize,
    kept: BTreeMap<u64, (FrameSpan, Option<BlockSlice>)>,
    failure: Option<SourceFailure>,
    /// Bytes that may be taken.
    budget: u64,
    /// Bytes that were kept in all, zeros not counted.
    saved: u64,
}

/// Where the bytes of a frame are in a block.
type BlockSlice = (Arc<MmapMut>, usize);

/// A block that was read: its pieces, those that are not zero with their places.
struct ReadBlock {
    block: MmapMut,
    pieces: Vec<(FrameSpan, Option<usize>)>,
    end: End,
}

/// Why no more was read into a block.
enum End {
    BlockIsFull,
    SourceEnded,
    SourceFailed(SourceFailure),
}

impl<'s> OomSnapshot<'s> {
    /// Of what `source` gives. `room` returns how many more bytes may be allocated.
    #[must_use]
    pub(crate) fn new(source: &'s dyn CoreSource, room: &'s (dyn Fn() -> u64 + Sync)) -> Self {
        Self {
            source,
            room,
            state: Mutex::default(),
            read: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end of the process and, where the OOM killer ended it, reads what is left of it, with so
    /// many threads. Ends at once when the other end of `over` is closed.
    fn watch(&self, over: &OwnedFd, watch: &Watch<'_>) {
        let wait = || {
            let mut fds = [watch.pidfd, over].map(|fd| PollFd::new(fd, PollFlags::IN));
            loop {
                match poll(&mut fds, Some(&PAUSE)) {
                    Err(rustix::io::Errno::INTR) => {}
                    // On a busy node, a killed process may take longer to end than the reaper to begin.
                    Ok(0) if (watch.is_out_of_memory)() => return true,
                    Ok(0) => {}
                    _ => break,
                }
            }
            let [_, over] = fds;
            over.revents().is_empty() && (watch.is_out_of_memory)()
        };
        if (watch.keep_while)(&wait) {
            self.read_ahead(watch.threads);
        }
    }

    /// Keeps everything that can still be read and that there is room for. This thread and those that it starts run
    /// before all other processes: on a busy node, a fair share of two seconds is not enough for a large memory.
    fn read_ahead(&self, threads: usize) {
        priority::raise();
        self.lock().on = true;
        thread::scope(|scope| {
            for _ in 1..threads.max(1) {
                let _ = thread::Builder::new()
                    .stack_size(STACK)
                    .spawn_scoped(scope, || self.keep_pieces());
            }
            self.keep_pieces();
        });
    }

    fn keep_pieces(&self) {
        let mut state = self.lock();
        state.reading += 1;
        while state.may_take(self.room) {
            drop(state);
            let taken = self.take_block();
            state = self.lock();
            match taken {
                Ok(taken) => state.keep(taken),
                // No memory after all.
                Err(_) => state.on = false,
            }
        }
        state.reading -= 1;
        drop(state);
        self.read.notify_all();
    }

    /// Reads as many pieces as go into one block.
    fn take_block(&self) -> io::Result<ReadBlock> {
        let mut block = MmapMut::map_anon(BLOCK)?;
        // Small pages cost as much as the reading. Without, it only takes longer.
        let _ = block.advise(Advice::HugePage);
        let mut pieces = Vec::new();
        let mut end = End::BlockIsFull;
        let mut parts = block.chunks_exact_mut(SEEKABLE_FRAME).enumerate();
        let mut part = parts.next();
        while let Some((index, bytes)) = &mut part {
            match self.source.next(bytes) {
                Ok(Some(piece)) if piece.zero => pieces.push((piece, None)),
                Ok(Some(piece)) => {
                    pieces.push((piece, Some(*index)));
                    part = parts.next();
                }
                Ok(None) => {
                    end = End::SourceEnded;
                    break;
                }
                Err(failure) => {
                    end = End::SourceFailed(failure);
                    break;
                }
            }
        }
        Ok(ReadBlock { block, pieces, end })
    }

    /// Bytes of the core that were kept.
    #[must_use]
    pub(crate) fn saved(&self) -> u64 {
        self.lock().saved
    }
}

/// Bytes of a thread's stack.
const STACK: usize = 128 << 10;

impl State {
    /// Whether a block may be taken.
    fn may_take(&mut self, room: &dyn Fn() -> u64) -> bool {
        if self.on && self.budget < BLOCK as u64 {
            self.budget = room().min(STEP);
            self.on = self.budget >= BLOCK as u64;
        }
        if self.on {
            self.budget -= BLOCK as u64;
        }
        self.on
    }

    fn keep(&mut self, taken: ReadBlock) {
        let block = Arc::new(taken.block);
        for (piece, index) in taken.pieces {
            let part = index.map(|index| (Arc::clone(&block), index));
            self.saved += part.as_ref().map_or(0, |_| piece.length as u64);
            self.kept.insert(piece.number, (piece, part));
        }
        match taken.end {
            End::BlockIsFull => {}
            End::SourceEnded => self.on = false,
            End::SourceFailed(failure) => {
                self.on = false;
                self.failed(failure);
            }
        }
    }

    /// The first piece that is missing ends the core.
    fn failed(&mut self, failure: SourceFailure) {
        let earlier = |known: &SourceFailure| failure.number < known.number;
        if self.failure.as_ref().is_none_or(earlier) {
            self.failure = Some(failure);
        }
    }
}

impl CoreSource for OomSnapshot<'_> {
    fn next(&self, buffer: &mut [u8]) -> Result<Option<FrameSpan>, SourceFailure> {
        let mut state = self.lock();
        if state.on {
            drop(state);
            self.keep_pieces();
            state = self.lock();
        }
        // One that is still being read may stand before those that are kept.
        while state.on || state.reading > 0 {
            state = self
                .read
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        // Nothing counts behind a missing piece, and its frames would not be read.
        let first = state
            .kept
            .first_key_value()
            .map_or(u64::MAX, |(&number, _)| number);
        if state
            .failure
            .as_ref()
            .is_some_and(|failure| failure.number < first)
        {
            state.kept.clear();
        }
        if let Some((_, (piece, part))) = state.kept.pop_first() {
            drop(state);
            let bytes = part.as_ref().and_then(|(block, index)| {
                let start = index * SEEKABLE_FRAME;
                block.get(start..start + piece.length)
            });
            if let (Some(bytes), Some(buffer)) = (bytes, buffer.get_mut(..piece.length)) {
                buffer.copy_from_slice(bytes);
            }
            return Ok(Some(piece));
        }
        if let Some(failure) = state.failure.take() {
            return Err(failure);
        }
        drop(state);
        self.source.next(buffer)
    }
}

/// How the end of a process is watched.
pub(crate) struct Watch<'w> {
    /// Readable when it has ended.
    pub pidfd: &'w OwnedFd,
    /// Whether the OOM killer ended it.
    pub is_out_of_memory: &'w (dyn Fn() -> bool + Sync),
    /// Keeps what can be kept of its memory while the function that it gets waits; returns the result of that.
    pub keep_while: &'w (dyn Fn(&dyn Fn() -> bool) -> bool + Sync),
    /// Threads that read ahead.
    pub threads: usize,
}

/// Does `work`, which reads from `rescue`, while the process is watched.
pub(crate) fn watched<T>(
    rescue: &OomSnapshot<'_>,
    watch: Option<&Watch<'_>>,
    work: impl FnOnce() -> T,
) -> T {
    let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (Some(watch), Ok((over, begin))) = (watch, pipe) else {
        return work();
    };
    thread::scope(|scope| {
        // Without a watcher the copy is only as quick as its file.
        let _ = thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, || rescue.watch(&over, watch));
        let done = work();
        drop(begin);
        done
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::handler::copy::core_copy::{FrameSink, copy_frames};

    /// Pieces whose bytes are their numbers, each third zero.
    struct Numbers {
        count: u64,
        /// The piece that cannot be read.
        fails_at: u64,
        next: AtomicU64,
    }

    impl CoreSource for Numbers {
        fn next(&self, buffer: &mut [u8]) -> Result<Option<FrameSpan>, SourceFailure> {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number == self.fails_at {
                let error = io::ErrorKind::OutOfMemory.into();
                return Err(SourceFailure { number, error });
            }
            if number >= self.count {
                return Ok(None);
            }
            let byte = byte_of(number);
            buffer.fill(if byte == 0 { 7 } else { byte });
            thread::sleep(std::time::Duration::from_micros(100 * (number % 4)));
            Ok(Some(FrameSpan {
                number,
                offset: number * SEEKABLE_FRAME as u64,
                length: SEEKABLE_FRAME,
                zero: byte == 0,
            }))
        }
    }

    fn byte_of(number: u64) -> u8 {
        match number % 3 {
            0 => 0,
            _ => u8::try_from(number).unwrap(),
        }
    }

    /// The first byte of each frame. Begins the rescue at the second one.
    struct Firsts<'r> {
        found: Vec<u8>,
        rescue: &'r OomSnapshot<'r>,
    }

    impl FrameSink for Firsts<'_> {
        fn append(&mut self, frame: &[u8], plain: u32) -> io::Result<()> {
            if self.found.len() == 1 {
                self.rescue.read_ahead(2);
            }
            let bytes = zstd::bulk::decompress(frame, plain as usize)?;
            self.found.push(bytes[0]);
            Ok(())
        }
    }

    fn copied(count: u64, fails_at: u64, room: u64) -> (Vec<u8>, u64, bool) {
        let source = Numbers {
            count,
            fails_at,
            next: AtomicU64::new(0),
        };
        let left = Mutex::new(room);
        let room = || {
            let mut left = left.lock().unwrap();
            let given = (*left).min(STEP);
            *left -= given;
            given
        };
        let rescue = OomSnapshot::new(&source, &room);
        let mut sink = Firsts {
            found: Vec::new(),
            rescue: &rescue,
        };
        let outcome = copy_frames(&rescue, &mut sink, 1, 3);
        assert_eq!(
            outcome.plain,
            sink.found.len() as u64 * SEEKABLE_FRAME as u64
        );
        (sink.found, rescue.saved(), outcome.read_error.is_some())
    }

    #[test]
    fn what_is_kept_comes_in_its_order_and_all_of_it() {
        let expected: Vec<u8> = (0..100).map(byte_of).collect();
        let (found, saved, failed) = copied(100, u64::MAX, u64::MAX);
        assert_eq!((found, failed), (expected, false));
        assert!(saved > 50 << 20, "{saved}");
    }

    /// What is read behind a piece that is gone was once given on, and waited for it without end.
    #[test]
    fn what_is_kept_ends_at_the_first_piece_that_is_gone() {
        for gone in [5, 20, 50, 99, 100] {
            let expected: Vec<u8> = (0..gone).map(byte_of).collect();
            let (found, _, failed) = copied(100, gone, u64::MAX);
            assert_eq!((found, failed), (expected, true));
        }
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for_and_the_rest_is_read_as_ever() {
        let expected: Vec<u8> = (0..100).map(byte_of).collect();
        for room in [0, 1, 10 << 20, 24 << 20] {
            let (found, saved, failed) = copied(100, u64::MAX, room);
            assert_eq!(found, expected);
            assert!(saved <= room, "{saved} of {room}");
            assert!(!failed);
        }
    }

    /// A source that notes how eager its readers are.
    struct Niceness(Mutex<Vec<i32>>);

    impl CoreSource for Niceness {
        fn next(&self, _: &mut [u8]) -> Result<Option<FrameSpan>, SourceFailure> {
            self.0.lock().unwrap().push(niceness());
            Ok(None)
        }
    }

    fn niceness() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }

    #[test]
    fn rescue_reads_before_other_processes() {
        let before = niceness();
        priority::raise();
        let highest = niceness();
        priority::restore();
        if highest >= before {
            return cdh_testkit::skip("this process may not raise its priority");
        }
        let source = Niceness(Mutex::default());
        OomSnapshot::new(&source, &|| u64::MAX).read_ahead(1);
        let seen = source.0.into_inner().unwrap();
        priority::restore();
        assert_eq!(seen, [highest]);
    }
}
