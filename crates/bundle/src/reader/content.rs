//! Reads an entry's content and checks its size and CRC.

use std::io::{self, Read};

use crate::BundleError;

/// Reads at most `expected` bytes. A different size or CRC is an error that contains a
/// [`BundleError::Mismatch`]. A truncated entry ends where its bytes end.
pub(super) struct Bounded<R> {
    inner: R,
    name: String,
    expected: u64,
    found: u64,
    crc32: Option<(u32, crc32fast::Hasher)>,
    cut: bool,
    done: bool,
}

impl<R: Read> Bounded<R> {
    pub(super) fn new(
        inner: R,
        name: String,
        expected: u64,
        crc32: Option<u32>,
        cut: bool,
    ) -> Self {
        let crc32 = crc32
            .filter(|_| !cut)
            .map(|crc32| (crc32, crc32fast::Hasher::new()));
        Self {
            inner,
            name,
            expected,
            found: 0,
            crc32,
            cut,
            done: false,
        }
    }

    fn mismatch(&self, expected: String, found: String) -> io::Error {
        let entry = self.name.clone();
        io::Error::other(BundleError::Mismatch {
            entry,
            expected,
            found,
        })
    }

    fn end(&mut self) -> io::Result<usize> {
        self.done = true;
        if self.cut {
            return Ok(0);
        }
        if self.found < self.expected {
            let (expected, found) = (self.expected, self.found);
            return Err(self.mismatch(format!("{expected} bytes"), format!("{found} bytes")));
        }
        // Probe for one byte too many.
        if self.inner.read(&mut [0])? > 0 {
            let expected = self.expected;
            return Err(self.mismatch(format!("{expected} bytes"), "more".to_owned()));
        }
        match self.crc32.take() {
            Some((expected, hasher)) => match hasher.finalize() {
                found if found == expected => Ok(0),
                found => {
                    Err(self.mismatch(format!("CRC-32 {expected:08x}"), format!("{found:08x}")))
                }
            },
            None => Ok(0),
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.done || buf.is_empty() {
            return Ok(0);
        }
        let left = usize::try_from(self.expected.saturating_sub(self.found)).unwrap_or(usize::MAX);
        let wanted = buf.len().min(left);
        let part = buf.get_mut(..wanted).unwrap_or_default();
        if part.is_empty() {
            return self.end();
        }
        let count = match self.inner.read(part) {
            Ok(0) => return self.end(),
            Ok(count) => count,
            // The decoder reports an error at the end of a truncated compressed stream.
            Err(error) if self.cut && is_decoders(&error) => return self.end(),
            Err(error) => return Err(error),
        };
        if let Some((_, hasher)) = &mut self.crc32 {
            hasher.update(part.get(..count).unwrap_or_default());
        }
        self.found = self.found.saturating_add(count as u64);
        Ok(count)
    }
}

/// Whether the error is about the bytes, not about the disk or the network.
fn is_decoders(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
        && matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::InvalidData
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::Other
        )
}
