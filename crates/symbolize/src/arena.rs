//! Keeps decompressed sections alive for as long as the frames that are named from them are computed.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Bytes;
use crate::buffer::Buffer;

/// Append-only owner of byte buffers: what it has taken stays where it is until it is dropped.
///
/// It also holds the budget of decompression: hostile files cannot make it grow beyond its limit.
pub struct SectionArena {
    first: OnceLock<Box<Node>>,
    used: AtomicU64,
    limit: u64,
}

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
        }
    }

    /// Bytes that it still takes.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.limit.saturating_sub(self.used.load(Ordering::Relaxed))
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
