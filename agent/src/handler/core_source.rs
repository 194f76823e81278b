//! Where the bytes of a core come from, in the order of the core.
//!
//! Today that is the pipe from the kernel. A source that reads the process's memory itself fits
//! the same trait.

use std::fs::File;
use std::io::{self, Read};

/// Yields a core piece by piece.
pub(super) trait CoreSource {
    /// Fills the buffer with the next piece and says how long it is: shorter than the buffer at the
    /// end only, 0 after it.
    ///
    /// # Errors
    /// When the source fails; the pieces before remain valid.
    fn next(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
}

/// A core from a stream: the pipe the kernel writes.
///
/// The pipe is never enlarged: its pages are charged to the memory cgroup of the process that is
/// dumped, and in a container at its limit a larger pipe got the dump OOM-killed.
#[derive(Debug)]
pub(super) struct PipeSource {
    stream: File,
}

impl PipeSource {
    /// Takes over the stream, from where it stands.
    #[must_use]
    pub(super) fn new(stream: File) -> Self {
        Self { stream }
    }
}

impl CoreSource for PipeSource {
    fn next(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.stream.read(rest) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What was read before the failure counts; the failure comes again.
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }
}
