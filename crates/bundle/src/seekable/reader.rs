//! Random access to the plain bytes of a seekable stream.

#![deny(clippy::arithmetic_side_effects)]

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cdh_elfcore::ByteSource;

use super::table::{SeekTableEntry, Table};
use super::{SeekableError, has_checksum};

/// Size of the cache in plain bytes: a backtrace jumps between a few stacks and module headers.
const CACHED_BYTES: usize = 32 << 20;

/// Reads the plain bytes of a stream in zstd's seekable format at any offset, from several threads.
pub struct SeekableReader<S: ByteSource> {
    source: S,
    table: Table,
    /// Most recently used last.
    cache: Mutex<VecDeque<(usize, Arc<Vec<u8>>)>>,
    /// Set when a frame without a checksum is used.
    unverified: Arc<AtomicBool>,
}

impl<S: ByteSource> SeekableReader<S> {
    /// Reads the seek table.
    ///
    /// # Errors
    /// Fails if there is no table, or if it does not match the stream.
    pub fn open(source: S) -> Result<Self, SeekableError> {
        let table = Table::read(&source)?;
        Ok(Self::with_table(source, table))
    }

    /// Rebuilds the table from the complete frames of a stream that has none: its writer died, or
    /// its tail is missing. Bytes after the last complete frame are not readable. A stream that
    /// does not begin with one of our frames reads as empty.
    ///
    /// # Errors
    /// Returns errors of the source.
    pub fn recover(source: S) -> Result<Self, SeekableError> {
        let table = Table::scan(&source)?;
        Ok(Self::with_table(source, table))
    }

    fn with_table(source: S, table: Table) -> Self {
        Self {
            source,
            table,
            cache: Mutex::new(VecDeque::new()),
            unverified: Arc::default(),
        }
    }

    /// Sets `flag` when a frame without a checksum is used.
    pub(crate) fn note_unverified(mut self, flag: Arc<AtomicBool>) -> Self {
        self.unverified = flag;
        self
    }

    /// Whether every frame read so far had a checksum, which was verified.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        !self.unverified.load(Ordering::Relaxed)
    }

    /// Number of plain bytes.
    #[must_use]
    pub fn plain_len(&self) -> u64 {
        self.table.plain_len()
    }

    /// Number of bytes that the frames occupy in the stream.
    #[must_use]
    pub fn stored_len(&self) -> u64 {
        self.table.stored_len()
    }

    /// All frames with their offsets.
    pub(crate) fn frames(&self) -> impl Iterator<Item = SeekTableEntry> + '_ {
        self.table.entries()
    }

    fn frame(&self, entry: SeekTableEntry) -> io::Result<Arc<Vec<u8>>> {
        if let Some(frame) = self.cached(entry.index) {
            return Ok(frame);
        }
        // Two threads may decompress the same frame: that is cheaper than waiting for each other.
        let frame = Arc::new(self.decompress(entry)?);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if !cache.iter().any(|(index, _)| *index == entry.index) {
            cache.push_back((entry.index, Arc::clone(&frame)));
        }
        let mut total: usize = cache
            .iter()
            .map(|(_, frame)| frame.len())
            .fold(0, usize::saturating_add);
        while total > CACHED_BYTES && cache.len() > 1 {
            let freed = cache.pop_front().map_or(0, |(_, frame)| frame.len());
            total = total.saturating_sub(freed);
        }
        Ok(frame)
    }

    fn cached(&self, wanted: usize) -> Option<Arc<Vec<u8>>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let at = cache.iter().position(|(index, _)| *index == wanted)?;
        let hit = cache.remove(at)?;
        let frame = Arc::clone(&hit.1);
        cache.push_back(hit);
        Some(frame)
    }

    fn decompress(&self, entry: SeekTableEntry) -> io::Result<Vec<u8>> {
        let stored_len = usize::try_from(entry.stored_len)
            .ok()
            .filter(|_| entry.is_plausible())
            .ok_or_else(|| damaged(entry.index, "it is too long"))?;
        let stored = crate::window::read_up_to(&self.source, entry.stored_at, stored_len)?;
        if stored.len() != stored_len {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the compressed core is cut",
            ));
        }
        let plain = decode_frame(&stored, entry.index, entry.plain_len)?;
        if !has_checksum(&stored) {
            self.unverified.store(true, Ordering::Relaxed);
        }
        Ok(plain)
    }
}

fn damaged(index: usize, what: &str) -> io::Error {
    let text = format!("frame {index} of the compressed core is damaged: {what}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The plain bytes of one frame; checks their number against the table.
pub(crate) fn decode_frame(stored: &[u8], index: usize, plain_len: u64) -> io::Result<Vec<u8>> {
    let capacity = usize::try_from(plain_len).map_err(io::Error::other)?;
    let plain = zstd::bulk::decompress(stored, capacity)
        .map_err(|error| damaged(index, &error.to_string()))?;
    if plain.len() != capacity {
        return Err(damaged(index, "it is shorter than the seek table says"));
    }
    Ok(plain)
}

impl<S: ByteSource> ByteSource for SeekableReader<S> {
    fn len(&self) -> u64 {
        self.plain_len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0_usize;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let Some(at) = offset.checked_add(done as u64) else {
                break;
            };
            let Some(entry) = self.table.find(at) else {
                break;
            };
            let frame = self.frame(entry)?;
            let skip = usize::try_from(at.saturating_sub(entry.plain_at)).unwrap_or(usize::MAX);
            let part = frame.get(skip..).unwrap_or_default();
            let count = part.len().min(rest.len());
            if count == 0 {
                break;
            }
            if let (Some(to), Some(from)) = (rest.get_mut(..count), part.get(..count)) {
                to.copy_from_slice(from);
            }
            done = done.saturating_add(count);
        }
        Ok(done)
    }
}
