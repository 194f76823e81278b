//! Lays the memory of a core out in another order, the most useful first: a truncated core then has lost the least
//! useful.
//!
//! ```text
//! ELF header | PT_NOTE, PT_LOAD … by address | notes | padding | memory by importance
//! ```
//!
//! It is a core like any other: nothing says that offsets grow with addresses. Invariant: every byte
//! that the kernel would have written is in it once, at the same address.

use std::collections::BTreeMap;
use std::ops::Range;

use goblin::elf::program_header::{PT_LOAD, PT_NOTE};

use crate::elf_header::{HEADER_SIZE, PN_XNUM, PROGRAM_HEADER_SIZE};
use crate::minicore::{MinicoreError, elf_header, notes, program_header};
use crate::{Avma, CoreHead, FileOffset};

/// Bit of `p_flags`: it can be written to.
const PF_W: u32 = 2;
/// Memory begins at a multiple of this, as in the kernel's cores.
const PAGE: u64 = 4096;

/// Contiguous memory in a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorePart {
    /// Where in the core.
    pub offset: FileOffset,
    /// Where in memory.
    pub start: Avma,
    /// Bytes.
    pub size: u64,
}

/// The head of a core in another order.
#[derive(Clone, Debug)]
pub struct RearrangedHead {
    /// Everything before the memory.
    pub bytes: Vec<u8>,
    /// The memory, in the order of the core.
    pub parts: Vec<CorePart>,
    /// Bytes of the complete core.
    pub len: u64,
}

/// Memory that has no place yet: its end, and its flags.
type Pieces = BTreeMap<u64, (u64, u32)>;

impl CoreHead {
    /// A head with the same notes and the same memory in another order: first the addresses in `first`, in that
    /// order, then writable memory, then the rest, small before large.
    ///
    /// # Errors
    /// When there are too many pieces for one table of program headers.
    pub fn rearranged(&self, first: &[Range<u64>]) -> Result<RearrangedHead, MinicoreError> {
        let mut left: Pieces = BTreeMap::new();
        let mut empty: Pieces = BTreeMap::new();
        for segment in self.segments() {
            let start = segment.start.0;
            let stored = start.saturating_add(segment.file_size.min(segment.memory_size));
            let end = start.saturating_add(segment.memory_size);
            if stored > start {
                left.insert(start, (stored, segment.flags));
            }
            if end > stored {
                empty.insert(stored, (end, segment.flags));
            }
        }
        let mut ordered = Vec::new();
        for range in first {
            let start = range.start & !(PAGE.wrapping_sub(1));
            let end = range
                .end
                .checked_next_multiple_of(PAGE)
                .unwrap_or(range.end);
            take(&mut left, start..end, &mut ordered);
        }
        // Small before large: many data segments fit where one huge heap does not.
        let mut rest: Vec<_> = left
            .iter()
            .map(|(&start, &(end, flags))| (start..end, flags))
            .collect();
        rest.sort_by_key(|(range, flags)| {
            (flags & PF_W == 0, range.end.saturating_sub(range.start))
        });
        ordered.extend(rest);
        self.write_rearranged(&ordered, &empty)
    }

    fn write_rearranged(
        &self,
        ordered: &[(Range<u64>, u32)],
        empty: &Pieces,
    ) -> Result<RearrangedHead, MinicoreError> {
        let too_large = || MinicoreError::TooLarge;
        let count = ordered.len().saturating_add(empty.len()).saturating_add(1);
        let count = u16::try_from(count)
            .ok()
            .filter(|count| *count < PN_XNUM)
            .ok_or_else(too_large)?;
        let notes = notes(self);
        let table = usize::from(count).saturating_mul(PROGRAM_HEADER_SIZE);
        let notes_at = HEADER_SIZE.saturating_add(table) as u64;
        let align = self.note_bytes().next().map_or(4, |(_, align)| align);
        let mut offset = notes_at
            .checked_add(notes.len() as u64)
            .and_then(|end| end.checked_next_multiple_of(PAGE))
            .ok_or_else(too_large)?;
        let memory_at = offset;
        let mut parts = Vec::with_capacity(ordered.len());
        // Start, offset in the core, bytes there, bytes in memory, flags.
        let mut headers = Vec::with_capacity(usize::from(count));
        for (range, flags) in ordered {
            let size = range.end.saturating_sub(range.start);
            parts.push(CorePart {
                offset: FileOffset(offset),
                start: Avma(range.start),
                size,
            });
            headers.push((range.start, offset, size, size, *flags));
            offset = offset.checked_add(size).ok_or_else(too_large)?;
        }
        for (&start, &(end, flags)) in empty {
            headers.push((start, memory_at, 0, end.saturating_sub(start), flags));
        }
        headers.sort_unstable();
        let mut bytes = elf_header(self, count).to_vec();
        let note = [notes_at, 0, 0, notes.len() as u64, 0, align];
        bytes.extend(program_header(PT_NOTE, 0, note));
        for (start, offset, stored, size, flags) in headers {
            let load = [offset, start, 0, stored, size, PAGE];
            bytes.extend(program_header(PT_LOAD, flags, load));
        }
        bytes.extend(notes);
        bytes.resize(usize::try_from(memory_at).map_err(|_| too_large())?, 0);
        Ok(RearrangedHead {
            bytes,
            parts,
            len: offset,
        })
    }
}

/// Moves what lies in the range from `left` to `ordered`.
fn take(left: &mut Pieces, range: Range<u64>, ordered: &mut Vec<(Range<u64>, u32)>) {
    let before = left
        .range(..range.start)
        .next_back()
        .filter(|(_, (end, _))| *end > range.start)
        .map(|(&start, _)| start);
    let within = left.range(range.start..range.end.max(range.start));
    let touched: Vec<u64> = before
        .into_iter()
        .chain(within.map(|(&start, _)| start))
        .collect();
    for start in touched {
        let Some((end, flags)) = left.remove(&start) else {
            continue;
        };
        let from = start.max(range.start);
        let to = end.min(range.end);
        if start < from {
            left.insert(start, (from, flags));
        }
        if to < end {
            left.insert(to, (end, flags));
        }
        ordered.push((from..to, flags));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head with these segments: address, bytes in the core, bytes in memory, flags.
    fn head(segments: &[(u64, u64, u64, u32)]) -> CoreHead {
        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0\x3e\0\x01\0\0\0".to_vec();
        bytes.resize(64, 0);
        bytes[32] = 64;
        bytes[52] = 64;
        bytes[54] = 56;
        bytes[56] = segments.len() as u8;
        let mut offset = 0x1000_u64;
        for (address, stored, size, flags) in segments {
            bytes.extend(1_u32.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            for value in [offset, *address, 0, *stored, *size, 4096] {
                bytes.extend(value.to_le_bytes());
            }
            offset += stored;
        }
        CoreHead::from_reader(&mut bytes.as_slice()).unwrap()
    }

    #[test]
    fn what_is_wanted_first_stands_first_and_everything_is_there_once() {
        let original = head(&[
            (0x1000, 0x1000, 0x3000, 5),
            (0x10_0000, 0x8000, 0x8000, 6),
            (0x20_0000, 0x4000, 0x4000, 4),
        ]);
        let first = [
            0x10_2010..0x10_2020,
            0x20_1000..0x20_2000,
            0x10_0000..0x10_3000,
        ];
        let found = original.rearranged(&first).unwrap();
        let order: Vec<_> = found
            .parts
            .iter()
            .map(|part| (part.start.0, part.size))
            .collect();
        assert_eq!(
            order,
            [
                (0x10_2000, 0x1000),
                (0x20_1000, 0x1000),
                (0x10_0000, 0x2000),
                (0x10_3000, 0x5000),
                (0x1000, 0x1000),
                (0x20_0000, 0x1000),
                (0x20_2000, 0x2000),
            ]
        );
        let again = CoreHead::from_reader(&mut found.bytes.as_slice()).unwrap();
        assert_eq!(again.expected_len(), found.len);
        assert!(again.segments().is_sorted_by_key(|segment| segment.start));
        let bytes = |head: &CoreHead| head.segments().iter().map(|one| one.file_size).sum::<u64>();
        let memory = |head: &CoreHead| {
            head.segments()
                .iter()
                .map(|one| one.memory_size)
                .sum::<u64>()
        };
        assert_eq!(bytes(&again), bytes(&original));
        assert_eq!(memory(&again), memory(&original));
    }

    #[test]
    fn ranges_beyond_all_memory_change_nothing() {
        let original = head(&[(0x1000, 0x1000, 0x1000, 6)]);
        let beyond = [0..0, u64::MAX - 1..u64::MAX, 0x5000..0x9000, 0..0x800];
        let found = original.rearranged(&beyond).unwrap();
        assert_eq!(found.parts.len(), 1);
    }
}
