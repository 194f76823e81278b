//! Notes of a stored core: the few that are understood, out of megabytes where there are many threads.

use super::read_range;
use crate::elf_header::ProgramHeader;
use crate::head::CoreError;
use crate::note::NoteHeader;
use crate::{ByteSource, Machine};

/// Notes above this size are read piece by piece: of a thousand threads they have megabytes, most of them
/// floating-point registers.
const NOTES_AT_ONCE: u64 = 256 << 10;
/// Bytes of notes that are read at once then.
const NOTES_PIECE: u64 = 64 << 10;

/// The notes of a segment, at most `budget` bytes; of many only the kinds that are understood.
pub(super) fn read_notes(
    source: &dyn ByteSource,
    machine: Machine,
    segment: &ProgramHeader,
    budget: u64,
) -> Result<Vec<u8>, CoreError> {
    let there = source.len().saturating_sub(segment.offset);
    let size = segment.file_size.min(budget).min(there);
    if size <= NOTES_AT_ONCE {
        return read_range(source, segment.offset, size);
    }
    let end = segment.offset.saturating_add(size);
    let (mut at, mut piece_at) = (segment.offset, segment.offset);
    let (mut piece, mut kept) = (Vec::new(), Vec::new());
    while at < end {
        let inside = |piece: &[u8]| {
            let from = usize::try_from(at.checked_sub(piece_at)?).ok()?;
            NoteHeader::parse(machine.encoding(), piece.get(from..)?, segment.align)
                .map(|header| (from, header))
        };
        let (from, header) = match inside(&piece) {
            Some(found) => found,
            None => {
                let missing = end.saturating_sub(at).min(NOTES_PIECE);
                piece.resize(usize::try_from(missing).unwrap_or(0), 0);
                let count = source.read_at(at, &mut piece)?;
                piece.truncate(count);
                piece_at = at;
                match NoteHeader::parse(machine.encoding(), &piece, segment.align) {
                    Some(header) => (0, header),
                    None => break,
                }
            }
        };
        if header.is_understood(machine) {
            let whole = usize::try_from(header.size).ok();
            let whole = whole.and_then(|size| piece.get(from..from.checked_add(size)?));
            match whole {
                Some(note) => kept.extend_from_slice(note),
                None => {
                    let left = end.saturating_sub(at);
                    kept.extend(read_range(source, at, header.size.min(left))?);
                }
            }
        }
        at = at.saturating_add(header.size);
    }
    Ok(kept)
}
