//! The core as the memory itself gives it, from several threads at once.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cdh_bundle::SEEKABLE_FRAME;

use super::layout::Layout;
use super::process_memory::{ProcessMemory, Target};
use super::saved_memory::SavedMemory;
use crate::handler::copy::core_source::{CoreSource, FrameSpan, SourceFailure};

/// Deals out the pieces of a core that is read from memory.
pub(crate) struct MemorySource<'m> {
    layout: &'m Layout,
    memory: &'m ProcessMemory<'m>,
    saved: &'m SavedMemory<'m>,
    dealt: Mutex<Dealt>,
}

/// Which pieces were dealt out.
#[derive(Debug, Default)]
struct Dealt {
    next: u64,
    /// Those that are being read.
    in_flight: BTreeSet<u64>,
}

/// Reads so many bytes of memory from this address.
type Read<'r> = &'r dyn Fn(u64, u64, &mut Target<'_>) -> io::Result<()>;

impl<'m> MemorySource<'m> {
    /// Of the core that is laid out so. `saved` has what the OOM reaper takes away.
    #[must_use]
    pub(crate) fn new(
        layout: &'m Layout,
        memory: &'m ProcessMemory<'m>,
        saved: &'m SavedMemory<'m>,
    ) -> Self {
        Self {
            layout,
            memory,
            saved,
            dealt: Mutex::default(),
        }
    }

    fn dealt(&self) -> MutexGuard<'_, Dealt> {
        self.dealt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in the core before which everything has been read, however long one reader takes.
    #[must_use]
    pub(crate) fn position(&self) -> u64 {
        let dealt = self.dealt();
        let read = dealt.in_flight.first().copied().unwrap_or(dealt.next);
        drop(dealt);
        piece_of(self.layout.start, self.layout.end, read).map_or(0, |piece| piece.start)
    }

    fn read(&self, part: &Range<u64>, buffer: &mut [u8]) -> io::Result<bool> {
        let direct: Read<'_> = &|address, length, target| self.memory.read(address, length, target);
        let saved: Read<'_> = &|address, length, target| self.saved.read(address, length, target);
        if self.saved.is_saved() {
            return self.read_with(part, buffer, saved);
        }
        let is_zero = self.read_with(part, buffer, direct);
        let is_zero = is_zero.and_then(|is_zero| self.memory.check_if_ended().map(|()| is_zero));
        match is_zero {
            Err(error) if is_gone(&error) && self.saved.will_be_saved() => {
                self.read_with(part, buffer, saved)
            }
            other => other,
        }
    }

    fn read_with(&self, part: &Range<u64>, buffer: &mut [u8], read: Read<'_>) -> io::Result<bool> {
        let mut target = Target::new(buffer);
        for extent in self.layout.extents_in(part) {
            let from = extent.offset.max(part.start);
            let to = extent.end().min(part.end);
            let before = from.saturating_sub(part.start);
            target.skip(before.saturating_sub(target.done() as u64));
            let address = extent.address + (from - extent.offset);
            read(address, to - from, &mut target)?;
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
        Ok(target.finish())
    }
}

impl CoreSource for MemorySource<'_> {
    fn next(&self, buffer: &mut [u8]) -> Result<Option<FrameSpan>, SourceFailure> {
        let number = {
            let mut dealt = self.dealt();
            let number = dealt.next;
            dealt.next = number.saturating_add(1);
            dealt.in_flight.insert(number);
            number
        };
        let Some(part) = piece_of(self.layout.start, self.layout.end, number) else {
            return Ok(None);
        };
        let length = usize::try_from(part.end - part.start).unwrap_or(SEEKABLE_FRAME);
        let buffer = buffer.get_mut(..length).unwrap_or_default();
        let zero = self
            .read(&part, buffer)
            .map_err(|error| SourceFailure { number, error })?;
        self.dealt().in_flight.remove(&number);
        Ok(Some(FrameSpan {
            number,
            offset: part.start,
            length,
            zero,
        }))
    }
}

/// Whether an error says that the memory was taken away ([`ProcessMemory::check`]).
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::OutOfMemory
    )
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
