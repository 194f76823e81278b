//! Parts of a byte source, and a sequential reader for a source.

use std::io::{self, Read};
use std::sync::Arc;

use cdh_elfcore::ByteSource;

/// A contiguous part of a source.
#[derive(Clone)]
pub struct Window {
    source: Arc<dyn ByteSource>,
    start: u64,
    len: u64,
}

impl Window {
    /// The `len` bytes of `source` from `start`, or fewer if the source ends before.
    #[must_use]
    pub fn new(source: Arc<dyn ByteSource>, start: u64, len: u64) -> Self {
        let len = len.min(source.len().saturating_sub(start));
        Self { source, start, len }
    }

    /// Its range in the source.
    #[must_use]
    pub fn range(&self) -> std::ops::Range<u64> {
        self.start..self.start.saturating_add(self.len)
    }

    /// The complete `source`.
    #[must_use]
    pub fn whole(source: Arc<dyn ByteSource>) -> Self {
        let len = source.len();
        Self {
            source,
            start: 0,
            len,
        }
    }
}

impl ByteSource for Window {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buf.len().min(left);
        match (buf.get_mut(..wanted), self.start.checked_add(offset)) {
            (Some(buf), Some(at)) if wanted > 0 => self.source.read_at(at, buf),
            _ => Ok(0),
        }
    }

    fn as_slice(&self) -> Option<&[u8]> {
        let start = usize::try_from(self.start).ok()?;
        let end = start.checked_add(usize::try_from(self.len).ok()?)?;
        self.source.as_slice()?.get(start..end)
    }
}

/// Reads a source from start to end.
pub struct SourceReader<S> {
    source: S,
    at: u64,
}

impl<S: ByteSource> SourceReader<S> {
    /// Starts at the first byte.
    pub fn new(source: S) -> Self {
        Self { source, at: 0 }
    }

    /// Offset of the next read.
    pub fn position(&self) -> u64 {
        self.at
    }
}

impl<S: ByteSource> Read for SourceReader<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read_at(self.at, buf)?;
        self.at = self.at.saturating_add(count as u64);
        Ok(count)
    }
}

/// Reads `len` bytes, or fewer if the source ends. The caller must limit `len`.
pub(crate) fn read_up_to(source: &dyn ByteSource, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let count = source.read_at(at, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_reads_nothing_outside_its_range() {
        let source: Arc<dyn ByteSource> = Arc::new(b"0123456789".to_vec());
        let window = Window::new(source.clone(), 3, 4);
        let mut buf = [0; 8];
        assert_eq!(window.read_at(1, &mut buf).unwrap(), 3);
        assert_eq!(&buf[..3], b"456");
        assert_eq!(window.read_at(4, &mut buf).unwrap(), 0);
        assert_eq!(window.read_at(u64::MAX, &mut buf).unwrap(), 0);
        assert_eq!(window.as_slice(), Some(&b"3456"[..]));
        assert_eq!(Window::new(source.clone(), 8, u64::MAX).len(), 2);
        assert!(Window::new(source, u64::MAX, 1).is_empty());
    }

    #[test]
    fn source_reader_reads_to_the_end() {
        let mut text = String::new();
        SourceReader::new(b"abc".to_vec())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "abc");
    }
}
