//! From a source to the core's file: several threads each read, compress and store pieces.
//!
//! ```text
//! source ─┬─▶ worker: read, compress ─┬─▶ in the order of the core ─▶ file of frames
//!         └─▶ worker: read, compress ─┘
//! source ─┬─▶ worker: read, write at its place ─▶ sparse file
//!         └─▶ worker: …
//! ```
//!
//! Invariants: memory is bounded by the number of workers, whatever the core's size; a piece becomes
//! one frame; the file of frames holds whole frames only, in the order of the core, so that at any
//! moment its contents are a valid beginning. When the file cannot be written any more, reading
//! stops, so that the process is not held for nothing.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use cdh_bundle::SEEKABLE_FRAME;
use zstd::zstd_safe::CParameter;

use super::core_source::{CoreSource, FrameSpan, SourceFailure};
use super::direct_io::AlignedBuffer;

/// zstd level where nothing else is said.
pub(crate) const LEVEL: i32 = 1;
/// zstd level for a large process that waits. At -8 the search moves in the steps in which the words of a
/// heap lie: a heap takes a seventh less time than at -3.
pub(crate) const HASTY_LEVEL: i32 = -8;
/// zstd level for compression while no process waits.
pub(crate) const LATER_LEVEL: i32 = 3;

/// Takes the frames of a core, in order.
pub(crate) trait FrameSink: Send {
    /// Appends one compressed frame of `plain` bytes: all of it, or nothing.
    ///
    /// # Errors
    /// When it cannot be stored; the frames before it are.
    fn append(&mut self, frame: &[u8], plain: u32) -> io::Result<()>;
}

/// Takes the pieces of a core at their places, from several threads.
pub(crate) trait OffsetSink: Sync {
    /// Stores a piece that is not all zero.
    ///
    /// # Errors
    /// When it cannot be stored.
    fn store(&self, piece: FrameSpan, bytes: &[u8]) -> io::Result<()>;

    /// All pieces before this one are stored.
    fn reached(&self, number: u64, plain: u64);
}

/// How a copy went.
#[derive(Debug, Default)]
pub(crate) struct CopyOutcome {
    /// Plain bytes that are stored without a hole, what stood in the file before not included.
    pub plain: u64,
    /// Why the source ended early.
    pub read_error: Option<io::Error>,
    /// Why the file takes no more.
    pub write_error: Option<io::Error>,
}

/// Pieces that may wait for one before them, for each worker.
const PARKED_EACH: usize = 2;

/// Copies the core from `source` into `sink`, with so many workers.
pub(crate) fn copy_frames(
    source: &dyn CoreSource,
    sink: &mut dyn FrameSink,
    level: i32,
    workers: usize,
) -> CopyOutcome {
    let queue = Queue::new(sink, workers * PARKED_EACH);
    run(workers, &|| {
        if let Err(error) = compress_pieces(source, &queue, level) {
            queue.fail_at(0, error);
        }
    });
    queue.into_outcome()
}

/// Copies the core from `source` to its places in `sink`.
pub(crate) fn copy_at_offsets(
    source: &dyn CoreSource,
    sink: &dyn OffsetSink,
    workers: usize,
) -> CopyOutcome {
    let progress = Progress::default();
    run(workers, &|| {
        let mut buffer = AlignedBuffer::new(SEEKABLE_FRAME);
        let buffer = buffer.bytes();
        while !progress.lock().stopped() {
            let piece = match source.next(buffer) {
                Ok(Some(piece)) => piece,
                Ok(None) => return,
                Err(failure) => return progress.lock().read_failed(failure),
            };
            let bytes = buffer.get(..piece.length).unwrap_or_default();
            let stored = match piece.zero {
                true => Ok(()),
                false => sink.store(piece, bytes),
            };
            match stored {
                Ok(()) => progress.done(piece, sink),
                Err(error) => return progress.lock().write_failed(piece.number, error),
            }
        }
    });
    let state = progress.state.into_inner();
    state.unwrap_or_else(PoisonError::into_inner).outcome
}

fn run(workers: usize, work: &(dyn Fn() + Sync)) {
    thread::scope(|scope| {
        for _ in 1..workers.max(1) {
            // A thread that cannot be started only makes it slower.
            let _ = thread::Builder::new()
                .stack_size(WORKER_STACK)
                .spawn_scoped(scope, work);
        }
        work();
    });
}

/// Bytes of a worker's stack.
const WORKER_STACK: usize = 256 << 10;

fn compress_pieces(source: &dyn CoreSource, queue: &Queue<'_>, level: i32) -> io::Result<()> {
    let mut compressor = compressor(level)?;
    let mut buffer = AlignedBuffer::new(SEEKABLE_FRAME);
    let buffer = buffer.bytes();
    // The frame of a whole zero piece is always the same: made once, copied from then on.
    let mut zero_frame: Vec<u8> = Vec::new();
    while let Some(mut frame) = queue.buffer() {
        let piece = match source.next(buffer) {
            Ok(Some(piece)) => piece,
            Ok(None) => return Ok(()),
            Err(failure) => {
                queue.read_failed(failure);
                return Ok(());
            }
        };
        frame.clear();
        let whole_zero = piece.zero && piece.length == SEEKABLE_FRAME;
        if whole_zero && !zero_frame.is_empty() {
            frame.extend_from_slice(&zero_frame);
        } else {
            let bytes = buffer.get_mut(..piece.length).unwrap_or_default();
            if piece.zero {
                bytes.fill(0);
            }
            frame.reserve(zstd::zstd_safe::compress_bound(SEEKABLE_FRAME));
            if let Err(error) = compressor.compress_to_buffer(&*bytes, &mut frame) {
                queue.fail_at(piece.number, error);
                return Ok(());
            }
        }
        if whole_zero && zero_frame.is_empty() {
            zero_frame.clone_from(&frame);
        }
        queue.put(piece, frame);
    }
    Ok(())
}

/// zstd at this level. At those below zero with the table and the shortest match of level 1, which makes up to a
/// sixth less of a heap in the same time.
fn compressor(level: i32) -> io::Result<zstd::bulk::Compressor<'static>> {
    let mut compressor = cdh_bundle::frame_compressor(level)?;
    if level < 0 {
        compressor.set_parameter(CParameter::HashLog(14))?;
        compressor.set_parameter(CParameter::MinMatch(7))?;
    }
    Ok(compressor)
}

/// Brings the workers' frames into the order of the core.
struct Queue<'s> {
    state: Mutex<QueueState<'s>>,
    turn: Condvar,
    most_parked: usize,
}

struct QueueState<'s> {
    sink: &'s mut dyn FrameSink,
    next: u64,
    parked: BTreeMap<u64, (Vec<u8>, usize)>,
    spare: Vec<Vec<u8>>,
    /// Number of the first piece that will never come.
    end: u64,
    outcome: CopyOutcome,
}

impl<'s> Queue<'s> {
    fn new(sink: &'s mut dyn FrameSink, most_parked: usize) -> Self {
        let state = QueueState {
            sink,
            next: 0,
            parked: BTreeMap::new(),
            spare: Vec::new(),
            end: u64::MAX,
            outcome: CopyOutcome::default(),
        };
        Self {
            state: Mutex::new(state),
            turn: Condvar::new(),
            most_parked,
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState<'s>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer for the next frame; `None` when no more are wanted.
    fn buffer(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        (state.end == u64::MAX).then(|| state.spare.pop().unwrap_or_default())
    }

    /// Stores the frame when its turn has come, and those that waited for it. The worker that holds
    /// the next frame never waits, so one worker always continues.
    fn put(&self, piece: FrameSpan, frame: Vec<u8>) {
        let mut state = self.lock();
        while piece.number != state.next
            && piece.number < state.end
            && state.parked.len() >= self.most_parked
        {
            state = self
                .turn
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.parked.insert(piece.number, (frame, piece.length));
        state.store_what_is_next();
        drop(state);
        self.turn.notify_all();
    }

    fn read_failed(&self, failure: SourceFailure) {
        let mut state = self.lock();
        if failure.number < state.end {
            state.end = failure.number;
            state.outcome.read_error = Some(failure.error);
        }
        drop(state);
        self.turn.notify_all();
    }

    fn fail_at(&self, number: u64, error: io::Error) {
        let mut state = self.lock();
        state.write_failed(number, error);
        drop(state);
        self.turn.notify_all();
    }

    fn into_outcome(self) -> CopyOutcome {
        let state = self.state.into_inner();
        state.unwrap_or_else(PoisonError::into_inner).outcome
    }
}

impl QueueState<'_> {
    fn store_what_is_next(&mut self) {
        while self.next < self.end
            && let Some((frame, length)) = self.parked.remove(&self.next)
        {
            let plain = u32::try_from(length).map_err(io::Error::other);
            match plain.and_then(|plain| self.sink.append(&frame, plain)) {
                Ok(()) => {
                    self.outcome.plain += length as u64;
                    self.next += 1;
                    self.spare.push(frame);
                }
                Err(error) => self.write_failed(self.next, error),
            }
        }
    }

    fn write_failed(&mut self, number: u64, error: io::Error) {
        if number < self.end {
            self.end = number;
            self.outcome.write_error = Some(error);
        }
    }
}

/// What is stored of a file whose pieces come in any order.
#[derive(Default)]
struct Progress {
    state: Mutex<ProgressState>,
}

#[derive(Default)]
struct ProgressState {
    next: u64,
    ahead: BTreeMap<u64, usize>,
    end: Option<u64>,
    outcome: CopyOutcome,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, ProgressState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self, piece: FrameSpan, sink: &dyn OffsetSink) {
        let mut state = self.lock();
        state.ahead.insert(piece.number, piece.length);
        let before = state.next;
        while state.end.is_none_or(|end| state.next < end)
            && let Some(length) = {
                let next = state.next;
                state.ahead.remove(&next)
            }
        {
            state.outcome.plain += length as u64;
            state.next += 1;
        }
        if state.next != before {
            sink.reached(state.next, state.outcome.plain);
        }
    }
}

impl ProgressState {
    fn stopped(&self) -> bool {
        self.end.is_some()
    }

    fn ends_at(&mut self, number: u64) -> bool {
        let earlier = self.end.is_none_or(|end| number < end);
        if earlier {
            self.end = Some(number);
        }
        earlier
    }

    fn read_failed(&mut self, failure: SourceFailure) {
        if self.ends_at(failure.number) {
            self.outcome.read_error = Some(failure.error);
        }
    }

    fn write_failed(&mut self, number: u64, error: io::Error) {
        if self.ends_at(number) {
            self.outcome.write_error = Some(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Frames as they came.
    #[derive(Default)]
    struct Frames {
        frames: Vec<(Vec<u8>, u32)>,
        room: Option<usize>,
    }

    impl FrameSink for Frames {
        fn append(&mut self, frame: &[u8], plain: u32) -> io::Result<()> {
            if self.room == Some(self.frames.len()) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.frames.push((frame.to_vec(), plain));
            Ok(())
        }
    }

    impl Frames {
        fn plain(&self) -> Vec<u8> {
            let unpack = |(frame, plain): &(Vec<u8>, u32)| {
                zstd::bulk::decompress(frame, *plain as usize).unwrap()
            };
            self.frames.iter().flat_map(unpack).collect()
        }
    }

    /// Pieces in memory; the one after them may fail.
    struct Pieces {
        pieces: Vec<Vec<u8>>,
        fails: bool,
        next: AtomicU64,
    }

    impl Pieces {
        fn new(pieces: Vec<Vec<u8>>) -> Self {
            Self {
                pieces,
                fails: false,
                next: AtomicU64::new(0),
            }
        }
    }

    impl CoreSource for Pieces {
        fn next(&self, buffer: &mut [u8]) -> Result<Option<FrameSpan>, SourceFailure> {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = self.pieces.get(number as usize) else {
                let error = io::ErrorKind::BrokenPipe.into();
                return match self.fails {
                    true => Err(SourceFailure { number, error }),
                    false => Ok(None),
                };
            };
            let zero = piece.iter().all(|&byte| byte == 0);
            // The buffer of a zero piece holds anything.
            let bytes = if zero { &vec![9; piece.len()] } else { piece };
            buffer[..piece.len()].copy_from_slice(bytes);
            if number.is_multiple_of(3) {
                thread::yield_now();
            }
            Ok(Some(FrameSpan {
                number,
                offset: number * SEEKABLE_FRAME as u64,
                length: piece.len(),
                zero,
            }))
        }
    }

    fn pieces(count: u8) -> Vec<Vec<u8>> {
        (1..=count).map(|byte| vec![byte; SEEKABLE_FRAME]).collect()
    }

    #[test]
    fn frames_keep_the_order_of_the_core_whatever_the_number_of_workers() {
        let mut all = pieces(19);
        all.insert(4, vec![0; SEEKABLE_FRAME]);
        all.insert(5, vec![0; SEEKABLE_FRAME]);
        all.push(vec![0; 1000]);
        let expected = all.concat();
        for workers in 1..5 {
            let mut sink = Frames::default();
            let outcome = copy_frames(&Pieces::new(all.clone()), &mut sink, 1, workers);
            assert!(sink.plain() == expected);
            assert_eq!(outcome.plain, expected.len() as u64);
            assert!(outcome.read_error.is_none() && outcome.write_error.is_none());
        }
    }

    #[test]
    fn a_full_disk_stops_the_reading_and_what_is_stored_is_counted() {
        for workers in 1..4 {
            let mut sink = Frames {
                room: Some(3),
                ..Frames::default()
            };
            let source = Pieces::new(pieces(200));
            let outcome = copy_frames(&source, &mut sink, 1, workers);
            assert_eq!(outcome.plain, 3 * SEEKABLE_FRAME as u64);
            let error = outcome.write_error.unwrap();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            let asked = source.next.load(Ordering::Relaxed);
            assert!(asked < 20, "{asked} pieces were asked for");
        }
    }

    #[test]
    fn what_was_read_before_a_failing_source_is_stored() {
        for workers in 1..4 {
            let mut sink = Frames::default();
            let source = Pieces {
                fails: true,
                ..Pieces::new(pieces(7))
            };
            let outcome = copy_frames(&source, &mut sink, 1, workers);
            assert_eq!(outcome.plain, 7 * SEEKABLE_FRAME as u64);
            assert!(outcome.read_error.is_some());
        }
    }

    /// A file in memory.
    struct Places {
        bytes: Mutex<Vec<u8>>,
        fails_at: Option<u64>,
        reached: AtomicU64,
    }

    impl OffsetSink for Places {
        fn store(&self, piece: FrameSpan, bytes: &[u8]) -> io::Result<()> {
            if self.fails_at == Some(piece.number) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let start = piece.offset as usize;
            self.bytes.lock().unwrap()[start..start + bytes.len()].copy_from_slice(bytes);
            Ok(())
        }

        fn reached(&self, _number: u64, plain: u64) {
            self.reached.store(plain, Ordering::Relaxed);
        }
    }

    #[test]
    fn pieces_stand_at_their_places_and_only_what_has_no_hole_counts() {
        let mut all = pieces(9);
        all.insert(4, vec![0; SEEKABLE_FRAME]);
        let expected = all.concat();
        for (workers, fails_at) in [(1, None), (3, None), (1, Some(6)), (3, Some(6))] {
            let sink = Places {
                bytes: Mutex::new(vec![0; expected.len()]),
                fails_at,
                reached: AtomicU64::new(0),
            };
            let outcome = copy_at_offsets(&Pieces::new(all.clone()), &sink, workers);
            let whole = fails_at.unwrap_or(10) * SEEKABLE_FRAME as u64;
            assert_eq!(outcome.plain, whole);
            assert!(sink.reached.load(Ordering::Relaxed) <= whole);
            assert_eq!(outcome.write_error.is_some(), fails_at.is_some());
            let bytes = sink.bytes.into_inner().unwrap();
            assert!(bytes[..whole as usize] == expected[..whole as usize]);
        }
    }
}
