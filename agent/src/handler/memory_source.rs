//! The core as the memory itself gives it, from several threads at once.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use cdh_bundle::SEEKABLE_FRAME;

use super::core_source::{CoreSource, Piece, SourceFailure};
use super::layout::Layout;
use super::process_memory::{ProcessMemory, Target};

/// Deals out the pieces of a core that is read from memory.
pub(super) struct MemorySource<'m> {
    layout: &'m Layout,
    memory: &'m ProcessMemory<'m>,
    next: AtomicU64,
}

impl<'m> MemorySource<'m> {
    /// Of the core that is laid out so.
    #[must_use]
    pub(super) fn new(layout: &'m Layout, memory: &'m ProcessMemory<'m>) -> Self {
        Self {
            layout,
            memory,
            next: AtomicU64::new(0),
        }
    }

    fn read(&self, part: &Range<u64>, buffer: &mut [u8]) -> io::Result<bool> {
        let mut target = Target::new(buffer);
        for extent in self.layout.extents_in(part) {
            let from = extent.offset.max(part.start);
            let to = extent.end().min(part.end);
            let before = from.saturating_sub(part.start);
            target.skip(before.saturating_sub(target.done() as u64));
            let address = extent.address + (from - extent.offset);
            self.memory.read(address, to - from, &mut target)?;
        }
        let tail = self.layout.end - self.layout.tail.len() as u64;
        if !self.layout.tail.is_empty() && part.end > tail {
            let at = tail.max(part.start);
            let skipped = (at - part.start).saturating_sub(target.done() as u64);
            target.skip(skipped);
            let from = usize::try_from(at - tail).unwrap_or(usize::MAX);
            target.put(self.layout.tail.get(from..).unwrap_or_default());
        }
        target.skip((part.end - part.start).saturating_sub(target.done() as u64));
        self.memory.check_if_ended()?;
        Ok(target.finish())
    }
}

impl CoreSource for MemorySource<'_> {
    fn next(&self, buffer: &mut [u8]) -> Result<Option<Piece>, SourceFailure> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(part) = piece_of(self.layout.start, self.layout.end, number) else {
            return Ok(None);
        };
        let length = usize::try_from(part.end - part.start).unwrap_or(SEEKABLE_FRAME);
        let buffer = buffer.get_mut(..length).unwrap_or_default();
        let zero = self
            .read(&part, buffer)
            .map_err(|error| SourceFailure { number, error })?;
        Ok(Some(Piece {
            number,
            offset: part.start,
            length,
            zero,
        }))
    }
}

/// The part of a core that is piece `number` behind a head that ends at `start`.
fn piece_of(start: u64, end: u64, number: u64) -> Option<Range<u64>> {
    let frame = SEEKABLE_FRAME as u64;
    let index = (start / frame).checked_add(number)?;
    let from = index.checked_mul(frame)?.max(start);
    let to = index.checked_add(1)?.checked_mul(frame)?.min(end);
    (from < to).then_some(from..to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_core_once_and_end_at_boundaries() {
        const MIB: u64 = 1 << 20;
        for (start, end) in [(100, 100), (100, 200), (0, 3 * MIB), (MIB + 5, 4 * MIB + 1)] {
            let pieces: Vec<_> = (0..).map_while(|n| piece_of(start, end, n)).collect();
            let mut position = start;
            for piece in &pieces {
                assert_eq!(piece.start, position);
                assert!(piece.end % MIB == 0 || piece.end == end);
                position = piece.end;
            }
            assert_eq!(position, end);
        }
    }
}
