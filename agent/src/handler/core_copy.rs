//! From a source to the core's file: read, hash, compress, write, each on its own thread.
//!
//! ```text
//! source ─▶ chunk ─┬─▶ SHA-256 of the plain core
//!                  └─▶ compressor 0…n ─▶ writer (frames in order) ─▶ file
//! ```
//!
//! Invariants: memory is bounded by the number of chunks that exist, whatever the core's size; a
//! chunk becomes one frame; the file holds whole frames only, in the order of the core, so that at
//! any moment its contents are a valid beginning. When the file cannot be written any more, reading
//! stops, so that the process is not held for nothing.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use cdh_bundle::{DigestWriter, SEEKABLE_FRAME, Sha256};

use super::core_source::CoreSource;

/// Takes the frames of a core, in order.
pub(super) trait FrameSink: Send {
    /// Appends one compressed frame that stands for `plain` bytes: all of it, or nothing.
    ///
    /// # Errors
    /// When it cannot be stored; the frames before it are.
    fn append(&mut self, frame: &[u8], plain: u32) -> io::Result<()>;
}

/// How a copy went.
#[derive(Debug)]
pub(super) struct CopyOutcome {
    /// Plain bytes that are stored, those of the head included.
    pub plain: u64,
    /// SHA-256 of the plain core; absent when not all that was read could be stored.
    pub sha256: Option<Sha256>,
    /// Why the source ended early.
    pub read_error: Option<io::Error>,
    /// Why the sink takes no more.
    pub write_error: Option<io::Error>,
}

impl CopyOutcome {
    /// Nothing could be stored at all.
    #[must_use]
    pub(super) fn nothing(error: io::Error) -> Self {
        Self {
            plain: 0,
            sha256: None,
            read_error: None,
            write_error: Some(error),
        }
    }
}

/// A chunk of the plain core. When its last user is done, the buffer goes back to the pool.
struct Chunk {
    buffer: Vec<u8>,
    length: usize,
    zero: bool,
    pool: Sender<Vec<u8>>,
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let _ = self.pool.send(std::mem::take(&mut self.buffer));
    }
}

/// A compressed chunk on its way to the writer, and the way back for its buffer.
struct Frame {
    bytes: io::Result<Vec<u8>>,
    plain: usize,
}

/// Copies the core from `source` into `sink`. `head` is what was read of it before and is stored
/// already.
pub(super) fn copy_core(
    head: Vec<u8>,
    source: &mut dyn CoreSource,
    sink: &mut dyn FrameSink,
    level: i32,
    compressors: usize,
) -> CopyOutcome {
    let stop = AtomicBool::new(false);
    let (pool, free) = channel();
    for _ in 0..2 * compressors + 3 {
        let _ = pool.send(vec![0; SEEKABLE_FRAME]);
    }
    thread::scope(|scope| {
        let (to_hasher, hashes) = sync_channel::<Arc<Chunk>>(1);
        let stored = head.len() as u64;
        let hasher = scope.spawn(move || hash(head, &hashes));
        let mut inputs = Vec::new();
        let mut outputs = Vec::new();
        let mut returns = Vec::new();
        for _ in 0..compressors {
            let (input, chunks) = sync_channel::<Arc<Chunk>>(1);
            let (output, frames) = sync_channel(1);
            let (give_back, spare) = channel();
            scope.spawn(move || compress(level, &chunks, &output, &spare));
            inputs.push(input);
            outputs.push(frames);
            returns.push(give_back);
        }
        let stop = &stop;
        let writer = scope.spawn(move || write(sink, outputs, &returns, stop));
        let read_error = read(source, &free, &pool, &to_hasher, &inputs, stop).err();
        drop((to_hasher, inputs));
        let sha256 = hasher.join().unwrap_or(None);
        let lost = || (0, Some(io::Error::other("the writing thread failed")));
        let (plain, write_error) = writer.join().unwrap_or_else(|_| lost());
        let sha256 = sha256.filter(|_| write_error.is_none());
        CopyOutcome {
            plain: stored + plain,
            sha256,
            read_error,
            write_error,
        }
    })
}

fn read(
    source: &mut dyn CoreSource,
    free: &Receiver<Vec<u8>>,
    pool: &Sender<Vec<u8>>,
    to_hasher: &SyncSender<Arc<Chunk>>,
    inputs: &[SyncSender<Arc<Chunk>>],
    stop: &AtomicBool,
) -> io::Result<()> {
    let gone = || io::Error::other("a working thread failed");
    for input in inputs.iter().cycle() {
        let mut buffer = free.recv().map_err(|_| gone())?;
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        buffer.resize(SEEKABLE_FRAME, 0);
        let length = match source.next(&mut buffer)? {
            0 => return Ok(()),
            length => length,
        };
        let zero = is_zero(buffer.get(..length).unwrap_or_default());
        let chunk = Arc::new(Chunk {
            buffer,
            length,
            zero,
            pool: pool.clone(),
        });
        to_hasher.send(Arc::clone(&chunk)).map_err(|_| gone())?;
        input.send(chunk).map_err(|_| gone())?;
    }
    Ok(())
}

fn hash(head: Vec<u8>, chunks: &Receiver<Arc<Chunk>>) -> Option<Sha256> {
    let mut digests = DigestWriter::new(io::sink());
    digests.write_all(&head).ok()?;
    drop(head);
    for chunk in chunks {
        digests.write_all(chunk.bytes()).ok()?;
    }
    Some(digests.finish().1.sha256)
}

fn compress(
    level: i32,
    chunks: &Receiver<Arc<Chunk>>,
    frames: &SyncSender<Frame>,
    spare: &Receiver<Vec<u8>>,
) {
    let mut compressor = zstd::bulk::Compressor::new(level);
    // The frame of a whole zero chunk is always the same: made once, copied from then on.
    let mut zero_frame: Vec<u8> = Vec::new();
    for chunk in chunks {
        let plain = chunk.length;
        let whole_zero = chunk.zero && plain == SEEKABLE_FRAME;
        let mut buffer = spare.try_recv().unwrap_or_default();
        buffer.clear();
        let bytes = if whole_zero && !zero_frame.is_empty() {
            buffer.extend_from_slice(&zero_frame);
            Ok(buffer)
        } else {
            buffer.reserve(zstd::zstd_safe::compress_bound(SEEKABLE_FRAME));
            match &mut compressor {
                Ok(compressor) => compressor
                    .compress_to_buffer(chunk.bytes(), &mut buffer)
                    .map(|_| buffer),
                Err(error) => Err(io::Error::other(error.to_string())),
            }
        };
        if let (true, Ok(bytes)) = (whole_zero && zero_frame.is_empty(), &bytes) {
            zero_frame.clone_from(bytes);
        }
        drop(chunk);
        if frames.send(Frame { bytes, plain }).is_err() {
            return;
        }
    }
}

fn write(
    sink: &mut dyn FrameSink,
    outputs: Vec<Receiver<Frame>>,
    returns: &[Sender<Vec<u8>>],
    stop: &AtomicBool,
) -> (u64, Option<io::Error>) {
    let mut plain: u64 = 0;
    let mut failed = None;
    // Chunks are dealt out in turn, so taking the frames in turn restores their order; the first
    // compressor without a frame has had no chunk, nor has any after it.
    for (frames, give_back) in outputs.iter().zip(returns).cycle() {
        let Ok(frame) = frames.recv() else { break };
        if failed.is_some() {
            continue;
        }
        let length = u32::try_from(frame.plain).map_err(io::Error::other);
        match frame
            .bytes
            .and_then(|bytes| sink.append(&bytes, length?).map(|()| bytes))
        {
            Ok(bytes) => {
                plain += frame.plain as u64;
                let _ = give_back.send(bytes);
            }
            Err(error) => {
                failed = Some(error);
                stop.store(true, Ordering::Relaxed);
            }
        }
    }
    (plain, failed)
}

/// Whether all bytes are zero; stops at the first that is not.
fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<64>();
    blocks.iter().all(|block| *block == [0; 64]) && rest.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
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

    struct Pieces(Vec<Vec<u8>>, Option<io::Error>);

    impl CoreSource for Pieces {
        fn next(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return self.1.take().map_or(Ok(0), Err);
            }
            let piece = self.0.remove(0);
            buffer[..piece.len()].copy_from_slice(&piece);
            Ok(piece.len())
        }
    }

    fn pieces(count: u8) -> Vec<Vec<u8>> {
        (1..=count).map(|byte| vec![byte; SEEKABLE_FRAME]).collect()
    }

    #[test]
    fn frames_keep_the_order_of_the_core_whatever_the_number_of_compressors() {
        let mut all = pieces(9);
        all.insert(4, vec![0; SEEKABLE_FRAME]);
        all.push(vec![7; 1000]);
        let expected = all.concat();
        for compressors in 1..4 {
            let mut sink = Frames::default();
            let mut source = Pieces(all.clone(), None);
            let outcome = copy_core(b"head".to_vec(), &mut source, &mut sink, 1, compressors);
            assert!(sink.plain() == expected);
            assert_eq!(outcome.plain, 4 + expected.len() as u64);
            assert_eq!(
                outcome.sha256,
                Some(Sha256::of(&[b"head", expected.as_slice()].concat()))
            );
        }
    }

    #[test]
    fn a_full_disk_stops_the_reading_and_what_is_stored_is_counted() {
        let mut sink = Frames {
            room: Some(3),
            ..Frames::default()
        };
        let mut source = Pieces(pieces(200), None);
        let outcome = copy_core(Vec::new(), &mut source, &mut sink, 1, 1);
        assert_eq!(outcome.plain, 3 * SEEKABLE_FRAME as u64);
        assert_eq!(
            outcome.write_error.unwrap().kind(),
            io::ErrorKind::StorageFull
        );
        assert_eq!(outcome.sha256, None);
        assert!(source.0.len() > 180, "{} pieces are left", source.0.len());
    }

    #[test]
    fn what_was_read_before_a_failing_source_is_stored() {
        let mut sink = Frames::default();
        let mut source = Pieces(pieces(2), Some(io::ErrorKind::BrokenPipe.into()));
        let outcome = copy_core(Vec::new(), &mut source, &mut sink, 1, 2);
        assert_eq!(outcome.plain, 2 * SEEKABLE_FRAME as u64);
        assert!(outcome.read_error.is_some() && outcome.sha256.is_some());
    }
}
