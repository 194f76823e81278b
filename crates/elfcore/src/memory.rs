//! The crashed process's memory, from any source: a core, a minicore, or the dying process itself.

use crate::{Avma, Encoding, Segment};

/// `PF_X` of a program header.
const PF_X: u32 = 1;

/// Reads memory of a process by its own addresses.
pub trait Memory {
    /// Fills `buf` with the bytes at `at`; returns how many of them are known, from the first on.
    ///
    /// A page that was not dumped ends the read: what follows it is unknown, not zero.
    fn read(&self, at: Avma, buf: &mut [u8]) -> usize;

    /// The eight bytes at `at` as a little-endian number.
    fn read_u64(&self, at: Avma) -> Option<u64> {
        let mut word = [0; 8];
        (self.read(at, &mut word) == word.len()).then(|| u64::from_le_bytes(word))
    }

    /// The word at `at`, in the width and byte order of its machine.
    fn read_word(&self, at: Avma, encoding: Encoding) -> Option<u64> {
        let mut word = [0; 8];
        let bytes = word.get_mut(..encoding.word_size())?;
        (self.read(at, bytes) == bytes.len())
            .then(|| encoding.word_at(&word, 0))
            .flatten()
    }

    /// Whether the mapping at `at` can be executed; `None` where no mapping is known there.
    fn is_executable(&self, _at: Avma) -> Option<bool> {
        None
    }
}

/// Which addresses are mapped, and which of them can be executed, as the segments of a core state it.
#[derive(Clone, Debug, Default)]
pub struct CodeMap {
    /// Start, end and whether it is code, by address.
    ranges: Vec<(u64, u64, bool)>,
}

impl CodeMap {
    /// From `PT_LOAD` segments, dumped or not.
    #[must_use]
    pub fn of(segments: &[Segment]) -> Self {
        let range = |segment: &Segment| {
            let end = segment.start.0.saturating_add(segment.memory_size);
            (segment.start.0, end, segment.flags & PF_X != 0)
        };
        let mut ranges: Vec<_> = segments.iter().map(range).collect();
        ranges.sort_unstable();
        Self { ranges }
    }

    /// As [`Memory::is_executable`].
    #[must_use]
    pub fn is_executable(&self, at: Avma) -> Option<bool> {
        let next = self.ranges.partition_point(|range| range.0 <= at.0);
        let (_, end, is_code) = self.ranges.get(next.checked_sub(1)?)?;
        (at.0 < *end).then_some(*is_code)
    }
}

impl<M: Memory + ?Sized> Memory for &M {
    fn read(&self, at: Avma, buf: &mut [u8]) -> usize {
        (**self).read(at, buf)
    }

    fn is_executable(&self, at: Avma) -> Option<bool> {
        (**self).is_executable(at)
    }
}
