//! The crashed process's memory, whoever holds it: a core, a minicore, or the dying process itself.

use crate::Avma;

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
}

impl<M: Memory + ?Sized> Memory for &M {
    fn read(&self, at: Avma, buf: &mut [u8]) -> usize {
        (**self).read(at, buf)
    }
}
