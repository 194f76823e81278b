//! What is left of a memory that the kernel is about to take away, read into memory of our own first.
//!
//! Two seconds after the OOM killer chose a process, the OOM reaper takes its memory apart, whoever holds it
//! (`OOM_REAPER_DELAY` in the kernel's `mm/oom_kill.c`). A disk may need longer for what is left by then. The
//! node has room for it as a rule: it is a container that is short of memory, and not the one we are in.
//!
//! Invariants: pieces are given on in the order of the core, so that no frame waits for one that is kept; no
//! more is kept than node and cgroup have room for, and nothing as long as nobody is killed.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use cdh_bundle::SEEKABLE_FRAME;
use rustix::event::{PollFd, PollFlags, poll};

use super::core_source::{CoreSource, Piece, SourceFailure};
use super::room;

/// Bytes that may be taken before room is asked for again.
const STEP: u64 = 32 << 20;

/// A source that can be read ahead of its reader.
pub(super) struct Rescue<'s> {
    source: &'s dyn CoreSource,
    room: &'s (dyn Fn() -> u64 + Sync),
    state: Mutex<State>,
    read: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether pieces are to be kept.
    on: bool,
    /// Threads that read one.
    reading: usize,
    kept: BTreeMap<u64, (Piece, Vec<u8>)>,
    failure: Option<SourceFailure>,
    /// Bytes that may be taken.
    budget: u64,
    /// Bytes that were kept in all.
    saved: u64,
}

impl<'s> Rescue<'s> {
    /// Of what `source` gives. `room` tells how many bytes more may be taken.
    #[must_use]
    pub(super) fn new(source: &'s dyn CoreSource, room: &'s (dyn Fn() -> u64 + Sync)) -> Self {
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
    pub(super) fn watch(
        &self,
        pidfd: &OwnedFd,
        over: &OwnedFd,
        is_out_of_memory: impl Fn() -> bool,
        threads: usize,
    ) {
        let mut fds = [pidfd, over].map(|fd| PollFd::new(fd, PollFlags::IN));
        while poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
        let [_, over] = fds;
        if over.revents().is_empty() && is_out_of_memory() {
            self.read_ahead(threads);
        }
    }

    /// Keeps everything that can still be read and that there is room for.
    fn read_ahead(&self, threads: usize) {
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
        while self.begin_piece() {
            let mut bytes = Vec::new();
            let failed = bytes.try_reserve_exact(SEEKABLE_FRAME).is_err();
            let mut state = if failed {
                self.lock()
            } else {
                bytes.resize(SEEKABLE_FRAME, 0);
                let given = self.source.next(&mut bytes);
                let mut state = self.lock();
                match given {
                    Ok(Some(piece)) => {
                        bytes.truncate(if piece.zero { 0 } else { piece.length });
                        bytes.shrink_to_fit();
                        state.saved += piece.length as u64;
                        state.kept.insert(piece.number, (piece, bytes));
                    }
                    Ok(None) => state.on = false,
                    Err(failure) => {
                        state.on = false;
                        state.failed(failure);
                    }
                }
                state
            };
            state.on &= !failed;
            state.reading -= 1;
            drop(state);
            self.read.notify_all();
        }
    }

    /// Whether one more piece is to be kept; then somebody is reading.
    fn begin_piece(&self) -> bool {
        let frame = SEEKABLE_FRAME as u64;
        let mut state = self.lock();
        if state.on && state.budget < frame {
            state.budget = (self.room)().min(STEP);
            state.on = state.budget >= frame;
        }
        if state.on {
            state.budget -= frame;
            state.reading += 1;
        }
        state.on
    }

    /// Bytes of the core that were kept.
    #[must_use]
    pub(super) fn saved(&self) -> u64 {
        self.lock().saved
    }
}

/// Bytes of a thread's stack.
const STACK: usize = 128 << 10;

impl State {
    /// The first piece that is missing ends the core.
    fn failed(&mut self, failure: SourceFailure) {
        let earlier = |known: &SourceFailure| failure.number < known.number;
        if self.failure.as_ref().is_none_or(earlier) {
            self.failure = Some(failure);
        }
    }
}

impl CoreSource for Rescue<'_> {
    fn next(&self, buffer: &mut [u8]) -> Result<Option<Piece>, SourceFailure> {
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
        if let Some((_, (piece, bytes))) = state.kept.pop_first() {
            drop(state);
            if let Some(buffer) = buffer.get_mut(..bytes.len()) {
                buffer.copy_from_slice(&bytes);
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

/// Room on the node and in our own cgroup, bytes.
#[must_use]
pub(super) fn own_room() -> u64 {
    let cgroup = std::fs::read("/proc/self/cgroup").unwrap_or_default();
    room::spare(&cgroup)
}

/// Does `work`, which reads from `rescue`, while somebody watches the process.
pub(super) fn watched<T>(
    rescue: &Rescue<'_>,
    pidfd: Option<OwnedFd>,
    is_out_of_memory: &(dyn Fn() -> bool + Sync),
    threads: usize,
    work: impl FnOnce() -> T,
) -> T {
    let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (Some(pidfd), Ok((over, begin))) = (pidfd, pipe) else {
        return work();
    };
    thread::scope(|scope| {
        // Without a watcher the copy is only as quick as its file.
        let _ = thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, || {
                rescue.watch(&pidfd, &over, is_out_of_memory, threads);
            });
        let done = work();
        drop(begin);
        done
    })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::handler::core_copy::{FrameSink, copy_frames};

    /// Pieces whose bytes are their numbers, each third zero; after the last one an end or a failure.
    struct Numbers {
        count: u64,
        fails: bool,
        next: AtomicU64,
    }

    impl CoreSource for Numbers {
        fn next(&self, buffer: &mut [u8]) -> Result<Option<Piece>, SourceFailure> {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.count {
                let error = io::ErrorKind::OutOfMemory.into();
                return match self.fails {
                    true => Err(SourceFailure { number, error }),
                    false => Ok(None),
                };
            }
            let byte = byte_of(number);
            buffer.fill(if byte == 0 { 7 } else { byte });
            thread::sleep(std::time::Duration::from_micros(100 * (number % 4)));
            Ok(Some(Piece {
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
        rescue: &'r Rescue<'r>,
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

    fn copied(count: u64, fails: bool, room: u64) -> (Vec<u8>, u64, bool) {
        let source = Numbers {
            count,
            fails,
            next: AtomicU64::new(0),
        };
        let left = Mutex::new(room);
        let room = || {
            let mut left = left.lock().unwrap();
            let given = (*left).min(STEP);
            *left -= given;
            given
        };
        let rescue = Rescue::new(&source, &room);
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
        for fails in [false, true] {
            let (found, saved, failed) = copied(100, fails, u64::MAX);
            assert_eq!(found, expected);
            assert!(saved > 80 << 20, "{saved}");
            assert_eq!(failed, fails);
        }
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for_and_the_rest_is_read_as_ever() {
        let expected: Vec<u8> = (0..100).map(byte_of).collect();
        for room in [0, 1, 10 << 20, 40 << 20] {
            let (found, saved, failed) = copied(100, false, room);
            assert_eq!(found, expected);
            assert!(saved <= room, "{saved} of {room}");
            assert!(!failed);
        }
    }
}
