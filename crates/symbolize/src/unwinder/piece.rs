//! The piece of a stack that is being unwound, read once: each frame asks for a few words of it.

use std::cell::RefCell;

use cdh_elfcore::{Avma, Memory};

/// Bytes that are read at once at first: all frames of most waiting threads. A stack that goes on is
/// read in pieces twice as large each time.
const FIRST: usize = 2 << 10;
/// No more at once.
const MOST: usize = 16 << 10;
/// Pieces begin at a multiple of this: a frame may ask for something just below what it asked for before.
const ALIGNMENT: u64 = 64;

/// Another memory, with a cache of the last piece. For one thread at a time.
pub(super) struct PieceMemory<'m> {
    memory: &'m dyn Memory,
    piece: RefCell<Piece>,
}

struct Piece {
    start: u64,
    /// How much was asked for.
    size: usize,
    /// What there was of it.
    bytes: Vec<u8>,
}

impl<'m> PieceMemory<'m> {
    pub(super) fn over(memory: &'m dyn Memory) -> Self {
        let piece = RefCell::new(Piece {
            start: u64::MAX,
            size: 0,
            bytes: Vec::new(),
        });
        Self { memory, piece }
    }
}

impl Piece {
    /// Whether `length` bytes at `at` are what this piece was read for.
    fn covers(&self, at: u64, length: usize) -> bool {
        let inside = at.checked_sub(self.start);
        let end = inside.and_then(|inside| inside.checked_add(length as u64));
        end.is_some_and(|end| end <= self.size as u64)
    }

    fn read(&mut self, memory: &dyn Memory, at: u64) {
        let goes_on = at
            .checked_sub(self.start)
            .is_some_and(|distance| distance < (self.size as u64).saturating_mul(2));
        self.size = if goes_on {
            self.size.saturating_mul(2).min(MOST)
        } else {
            FIRST
        };
        self.start = at & !(ALIGNMENT - 1);
        self.bytes.resize(self.size, 0);
        let known = memory.read(Avma(self.start), &mut self.bytes);
        self.bytes.truncate(known);
    }
}

impl Memory for PieceMemory<'_> {
    fn read(&self, at: Avma, buf: &mut [u8]) -> usize {
        let mut piece = self.piece.borrow_mut();
        if !piece.covers(at.0, buf.len()) {
            piece.read(self.memory, at.0);
        }
        let from = at.0.checked_sub(piece.start);
        let from = from.and_then(|from| usize::try_from(from).ok());
        match from.and_then(|from| piece.bytes.get(from..)?.get(..buf.len())) {
            Some(kept) => {
                buf.copy_from_slice(kept);
                buf.len()
            }
            // More than a piece, or a piece with an unknown beginning.
            None => self.memory.read(at, buf),
        }
    }

    fn is_executable(&self, at: Avma) -> Option<bool> {
        self.memory.is_executable(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Knows the bytes from 5000 to 9000, each its address.
    struct Some4000;

    impl Memory for Some4000 {
        fn read(&self, at: Avma, buf: &mut [u8]) -> usize {
            let known = 9000_u64.saturating_sub(at.0) as usize;
            let count = if at.0 < 5000 { 0 } else { known.min(buf.len()) };
            let bytes = buf.iter_mut().take(count).zip(at.0..);
            bytes.for_each(|(byte, address)| *byte = address as u8);
            count
        }
    }

    #[test]
    fn kept_piece_says_what_the_memory_says() {
        let kept = PieceMemory::over(&Some4000);
        for at in [
            0,
            4095,
            4999,
            5000,
            5001,
            8000,
            8190,
            8192,
            8995,
            9000,
            5000,
            7040,
            7048,
            5100,
            u64::MAX,
        ] {
            for length in [0, 1, 8, 16, 2048, 5000] {
                let (mut ours, mut theirs) = ([0; 5000], [0; 5000]);
                let found = kept.read(Avma(at), &mut ours[..length]);
                assert_eq!(
                    found,
                    Some4000.read(Avma(at), &mut theirs[..length]),
                    "{at} {length}"
                );
                assert_eq!(ours[..found], theirs[..found], "{at} {length}");
            }
        }
    }
}
