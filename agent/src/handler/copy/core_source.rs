//! Where the bytes of a core come from: pieces of it, numbered in the order of the core.
//!
//! Several threads ask at once. A source that must be read in order (the pipe) makes them wait for
//! one another; one that can be read anywhere (the memory) only deals out the numbers.

use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cdh_bundle::SEEKABLE_FRAME;

use super::core_stream::CoreStream;

/// One piece of a core: what lies between two multiples of [`SEEKABLE_FRAME`] in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameSpan {
    /// Its number, from 0.
    pub number: u64,
    /// Where it begins in the core.
    pub offset: u64,
    /// Its bytes in the buffer.
    pub length: usize,
    /// Whether all of them are zero. The buffer is not filled then.
    pub zero: bool,
}

/// Why a source could not give a piece.
#[derive(Debug)]
pub(crate) struct SourceFailure {
    /// Number of the piece; those before it are valid.
    pub number: u64,
    /// Cause.
    pub error: io::Error,
}

/// Yields a core piece by piece.
pub(crate) trait CoreSource: Sync {
    /// Fills the buffer with the next piece; `None` after the last.
    ///
    /// # Errors
    /// When the source fails; the pieces before the failed one remain valid.
    fn next(&self, buffer: &mut [u8]) -> Result<Option<FrameSpan>, SourceFailure>;
}

/// A source that gives nothing more after its time.
pub(crate) struct Until<'s> {
    source: &'s dyn CoreSource,
    end: Option<Instant>,
}

impl<'s> Until<'s> {
    /// From `source`, for so long from now on; without end where that is zero.
    #[must_use]
    pub(crate) fn new(source: &'s dyn CoreSource, time: Duration) -> Self {
        let end = Instant::now().checked_add(time);
        Self {
            source,
            end: end.filter(|_| !time.is_zero()),
        }
    }
}

impl CoreSource for Until<'_> {
    fn next(&self, buffer: &mut [u8]) -> Result<Option<FrameSpan>, SourceFailure> {
        match self.source.next(buffer)? {
            Some(piece) if self.end.is_some_and(|end| Instant::now() > end) => Err(SourceFailure {
                number: piece.number,
                error: io::Error::new(io::ErrorKind::TimedOut, "the time for the copy is over"),
            }),
            next => Ok(next),
        }
    }
}

/// A core from a stream: the pipe the kernel writes.
///
/// The pipe is never enlarged: its pages are charged to the memory cgroup of the process that is
/// dumped, and in a container at its limit a larger pipe got the dump OOM-killed.
#[derive(Debug)]
pub(crate) struct PipeSource {
    stream: Mutex<Stream>,
}

#[derive(Debug)]
struct Stream {
    file: CoreStream,
    position: u64,
    pieces: u64,
    ended: bool,
}

impl PipeSource {
    /// Takes over the stream after `position` bytes of it have been read.
    #[must_use]
    pub(crate) fn new(file: CoreStream, position: u64) -> Self {
        let stream = Mutex::new(Stream {
            file,
            position,
            pieces: 0,
            ended: false,
        });
        Self { stream }
    }

    /// The stream, at its current position.
    #[must_use]
    pub(crate) fn into_stream(self) -> CoreStream {
        let stream = self.stream.into_inner();
        stream.unwrap_or_else(PoisonError::into_inner).file
    }
}

impl CoreSource for PipeSource {
    fn next(&self, buffer: &mut [u8]) -> Result<Option<FrameSpan>, SourceFailure> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        if stream.ended {
            return Ok(None);
        }
        let (number, offset) = (stream.pieces, stream.position);
        let wanted = to_next_boundary(offset);
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        let filled = fill(&mut stream.file, buffer);
        let (length, error) = match filled {
            Ok(length) => (length, None),
            Err((length, error)) => (length, Some(error)),
        };
        stream.ended = length < buffer.len();
        stream.pieces += 1;
        stream.position += length as u64;
        match error {
            // What was read before the failure counts; the failure comes again.
            Some(error) if length == 0 => Err(SourceFailure { number, error }),
            Some(_) => {
                stream.ended = false;
                Ok(Some(piece(number, offset, buffer, length)))
            }
            None if length == 0 => Ok(None),
            None => Ok(Some(piece(number, offset, buffer, length))),
        }
    }
}

fn piece(number: u64, offset: u64, buffer: &[u8], length: usize) -> FrameSpan {
    FrameSpan {
        number,
        offset,
        length,
        zero: is_zero(buffer.get(..length).unwrap_or_default()),
    }
}

/// Bytes from this place in a core to the next boundary of pieces.
#[must_use]
pub(crate) fn to_next_boundary(offset: u64) -> usize {
    SEEKABLE_FRAME - (offset % SEEKABLE_FRAME as u64) as usize
}

/// Reads until the buffer is full or the stream ends; with an error comes what was read before it.
pub(crate) fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> Result<usize, (usize, io::Error)> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((done, error)),
        }
    }
    Ok(done)
}

/// Whether all bytes are zero; stops at the first that is not.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<64>();
    blocks.iter().all(|block| *block == [0; 64]) && rest.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn after_its_time_a_source_fails_at_the_piece_that_was_next() {
        let (reader, mut writer) = io::pipe().unwrap();
        let writing = std::thread::spawn(move || writer.write_all(&vec![7; 2 * SEEKABLE_FRAME]));
        let source = PipeSource::new(
            CoreStream::new(
                std::os::fd::OwnedFd::from(reader).into(),
                Duration::from_secs(60),
            ),
            0,
        );
        let mut buffer = vec![0; SEEKABLE_FRAME];
        let endless = Until::new(&source, Duration::ZERO);
        assert_eq!(endless.next(&mut buffer).unwrap().unwrap().number, 0);
        let over = Until::new(&source, Duration::from_nanos(1));
        let failure = over.next(&mut buffer).unwrap_err();
        assert_eq!(
            (failure.number, failure.error.kind()),
            (1, io::ErrorKind::TimedOut)
        );
        writing.join().unwrap().unwrap();
    }

    #[test]
    fn a_stream_comes_in_whole_pieces_however_it_was_written() {
        let (reader, mut writer) = io::pipe().unwrap();
        let writing = std::thread::spawn(move || {
            for _ in 0..5 {
                writer.write_all(&[7; 500_000]).unwrap();
            }
        });
        let reader = std::os::fd::OwnedFd::from(reader);
        let source = PipeSource::new(
            CoreStream::new(reader.into(), Duration::from_secs(60)),
            48_576,
        );
        let mut buffer = vec![0; SEEKABLE_FRAME];
        let mut pieces = Vec::new();
        while let Some(piece) = source.next(&mut buffer).unwrap() {
            pieces.push((piece.number, piece.offset, piece.length));
        }
        writing.join().unwrap();
        let expected = [
            (0, 48_576, 1_000_000),
            (1, 1 << 20, 1 << 20),
            (2, 2 << 20, 451_424),
        ];
        assert_eq!(pieces, expected);
        assert_eq!(source.next(&mut buffer).unwrap(), None);
    }
}
