//! Keeps decompressed sections alive for as long as the frames that are named from them are computed.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::Bytes;
use crate::buffer::Buffer;

/// Append-only owner of byte buffers: what it has taken stays where it is until it is dropped.
///
/// It also holds the budget of decompression: hostile files cannot make it grow beyond its limit, and one file
/// not beyond 64 times its size.
pub struct SectionArena {
    first: OnceLock<Box<Node>>,
    used: AtomicU64,
    limit: u64,
    /// What was decompressed of each file, by the address of its bytes.
    files: Mutex<HashMap<usize, u64>>,
}

/// How many times its size a file may grow. DWARF is stored in a third to a tenth of its size; deflate can store
/// zeros in a thousandth.
const FILE_RATIO: u64 = 64;
/// Only the arena's own limit holds for larger files.
const LARGE_FILE: u64 = 64 << 20;

struct Node {
    bytes: Bytes,
    next: OnceLock<Box<Node>>,
}

impl SectionArena {
    /// Bytes that all sections together may take: the DWARF of the largest known programs, twice.
    pub const DEFAULT_LIMIT: u64 = 8 << 30;

    /// An empty arena with the default limit.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limit(Self::DEFAULT_LIMIT)
    }

    /// An empty arena that takes at most `limit` bytes.
    #[must_use]
    pub fn with_limit(limit: u64) -> Self {
        Self {
            first: OnceLock::new(),
            used: AtomicU64::new(0),
            limit,
            files: Mutex::default(),
        }
    }

    /// Bytes that it still takes.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.limit.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Bytes that it still takes of the sections of `file`.
    pub(crate) fn left_for(&self, file: &[u8]) -> u64 {
        let size = file.len() as u64;
        if size > LARGE_FILE {
            return self.left();
        }
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let used = files.get(&file.as_ptr().addr()).copied().unwrap_or(0);
        let most = size.saturating_mul(FILE_RATIO);
        self.left().min(most.saturating_sub(used))
    }

    /// As `keep_buffer`, and counts it as decompressed from `file`.
    pub(crate) fn keep_of(&self, file: &[u8], bytes: Buffer) -> &[u8] {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let used = files.entry(file.as_ptr().addr()).or_default();
        *used = used.saturating_add(bytes.as_ref().len() as u64);
        drop(files);
        self.keep_buffer(bytes)
    }

    /// Keeps `bytes` as long as the arena lives.
    pub fn keep(&self, bytes: Vec<u8>) -> &[u8] {
        self.keep_buffer(bytes.into())
    }

    pub(crate) fn keep_buffer(&self, bytes: Buffer) -> &[u8] {
        let size = bytes.as_ref().len() as u64;
        self.used.fetch_add(size, Ordering::Relaxed);
        self.keep_owner(Box::new(bytes))
    }

    /// Keeps what owns bytes, a mapped file for example; it does not count against the limit.
    pub fn keep_owner(&self, bytes: Bytes) -> &[u8] {
        let mut new = Some(Box::new(Node {
            bytes,
            next: OnceLock::new(),
        }));
        let mut slot = &self.first;
        loop {
            let node = slot.get_or_init(|| new.take().unwrap_or_default());
            if new.is_none() {
                return (*node.bytes).as_ref();
            }
            slot = &node.next;
        }
    }
}

impl fmt::Debug for SectionArena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SectionArena({} bytes left)", self.left())
    }
}

impl Default for Node {
    fn default() -> Self {
        Self {
            bytes: Box::new([]),
            next: OnceLock::new(),
        }
    }
}

impl Default for SectionArena {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for SectionArena {
    fn drop(&mut self) {
        // The derived drop would recurse once per buffer.
        let mut next = self.first.take();
        while let Some(mut node) = next {
            next = node.next.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_bytes_stay_while_more_are_kept() {
        let arena = SectionArena::with_limit(10);
        let first = arena.keep(vec![1; 4]);
        let kept: Vec<&[u8]> = (0..1000).map(|n| arena.keep(vec![n as u8])).collect();
        assert_eq!(first, [1; 4]);
        assert!(
            kept.iter()
                .enumerate()
                .all(|(n, bytes)| bytes == &[n as u8])
        );
        assert_eq!(arena.left(), 0);
    }

    #[test]
    fn sections_of_a_small_file_take_at_most_64_times_its_size() {
        let arena = SectionArena::with_limit(1 << 30);
        let (small, other) = (vec![0; 1 << 10], vec![0; 1 << 10]);
        assert_eq!(arena.left_for(&small), 64 << 10);
        arena.keep_of(&small, vec![0; 60 << 10].into());
        assert_eq!(arena.left_for(&small), 4 << 10);
        assert_eq!(arena.left_for(&other), 64 << 10);
        arena.keep_of(&small, vec![0; 60 << 10].into());
        assert_eq!(arena.left_for(&small), 0);
        let large = vec![0; (64 << 20) + 1];
        assert_eq!(arena.left_for(&large), arena.left());
    }

    #[test]
    fn threads_can_keep_at_the_same_time() {
        let arena = SectionArena::new();
        std::thread::scope(|scope| {
            for n in 0..4_u8 {
                let arena = &arena;
                scope.spawn(move || {
                    (0..100).for_each(|_| assert_eq!(arena.keep(vec![n; 3]), [n; 3]))
                });
            }
        });
        assert_eq!(SectionArena::DEFAULT_LIMIT - arena.left(), 1200);
    }
}
