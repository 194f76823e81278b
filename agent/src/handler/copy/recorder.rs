//! Remembers what is read of a stream, so that a head that turns out to be none of ours is not lost.

use std::io::{self, Read};

/// Passes reads on and keeps what they brought.
#[derive(Debug)]
pub(crate) struct Recorder<R> {
    stream: R,
    bytes: Vec<u8>,
}

impl<R: Read> Recorder<R> {
    /// Records what is read of `stream`.
    pub(crate) fn new(stream: R) -> Self {
        Self {
            stream,
            bytes: Vec::new(),
        }
    }

    /// What was read so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The stream at its current position, and everything that was read before.
    pub(crate) fn into_parts(self) -> (R, Vec<u8>) {
        (self.stream, self.bytes)
    }
}

impl<R: Read> Read for Recorder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.bytes
            .extend_from_slice(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_and_remaining_bytes_are_the_whole_stream() {
        let mut recorder = Recorder::new(&b"abcdef"[..]);
        recorder.read_exact(&mut [0; 4]).unwrap();
        let (rest, bytes) = recorder.into_parts();
        assert_eq!((bytes.as_slice(), rest), (&b"abcd"[..], &b"ef"[..]));
    }
}
