//! Writes a small valid ELF core: the notes of a core and the pages that a backtrace needs.
//!
//! ```text
//! ELF header | program headers: PT_NOTE, one PT_LOAD per run of pages | notes | pages
//! ```

use std::collections::BTreeMap;
use std::io::Write;

use goblin::elf::program_header::{PT_LOAD, PT_NOTE};

use crate::elf_header::{HEADER_SIZE, PN_XNUM, PROGRAM_HEADER_SIZE};
use crate::{Avma, CoreHead, Segment};

/// Why no minicore could be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MinicoreError {
    /// A page address that is not a multiple of the page size.
    #[error("page address {address:#x} is not aligned to {page_size} bytes")]
    Unaligned {
        /// Given address.
        address: u64,
        /// Page size, bytes.
        page_size: u64,
    },
    /// Too many or too large pages for one core.
    #[error("the pages do not fit into one core")]
    TooLarge,
    /// The writer failed.
    #[error("cannot write the minicore")]
    Io(#[from] std::io::Error),
}

/// Neighbouring pages with the same permissions.
struct Run {
    start: u64,
    size: u64,
    flags: u32,
}

/// Writes a core with the notes of `head` and the given pages (address → bytes of one page each, all
/// of the same power-of-two size). Segment flags are those of the segment in `head` that holds the page.
/// Returns the number of bytes written.
///
/// # Errors
/// When the pages are not aligned, or `out` fails.
pub fn write_minicore(
    head: &CoreHead,
    pages: &BTreeMap<u64, Vec<u8>>,
    out: &mut impl Write,
) -> Result<u64, MinicoreError> {
    let page_size = pages.values().next().map_or(4096, |page| page.len() as u64);
    let runs = runs(head, pages, page_size)?;
    let count = u16::try_from(runs.len().saturating_add(1))
        .ok()
        .filter(|count| *count < PN_XNUM)
        .ok_or(MinicoreError::TooLarge)?;
    let table = usize::from(count).saturating_mul(PROGRAM_HEADER_SIZE);
    let notes_at = HEADER_SIZE.saturating_add(table) as u64;
    let notes = notes(head);
    let notes_size = notes.len() as u64;
    let align = head.note_bytes().next().map_or(4, |(_, align)| align);
    let notes_end = notes_at
        .checked_add(notes_size)
        .ok_or(MinicoreError::TooLarge)?;
    let memory_at = notes_end
        .checked_next_multiple_of(page_size)
        .ok_or(MinicoreError::TooLarge)?;

    out.write_all(&elf_header(head, count))?;
    let note = [notes_at, 0, 0, notes_size, 0, align];
    out.write_all(&program_header(PT_NOTE, 0, note))?;
    let mut offset = memory_at;
    for run in &runs {
        let load = [offset, run.start, 0, run.size, run.size, page_size];
        out.write_all(&program_header(PT_LOAD, run.flags, load))?;
        offset = offset
            .checked_add(run.size)
            .ok_or(MinicoreError::TooLarge)?;
    }
    out.write_all(&notes)?;
    let padding = usize::try_from(memory_at.saturating_sub(notes_end)).unwrap_or(0);
    out.write_all(&vec![0; padding])?;
    for page in pages.values() {
        out.write_all(page)?;
    }
    Ok(offset)
}

/// All notes in one piece, each segment padded as the next one needs.
pub(crate) fn notes(head: &CoreHead) -> Vec<u8> {
    let mut all = Vec::new();
    for (bytes, _) in head.note_bytes() {
        all.extend_from_slice(bytes);
        all.resize(all.len().next_multiple_of(4), 0);
    }
    all
}

fn runs(
    head: &CoreHead,
    pages: &BTreeMap<u64, Vec<u8>>,
    page_size: u64,
) -> Result<Vec<Run>, MinicoreError> {
    let mut segments: Vec<Segment> = head.segments().to_vec();
    segments.sort_by_key(|segment| segment.start);
    let mut runs: Vec<Run> = Vec::new();
    for (&address, page) in pages {
        let aligned = page_size.is_power_of_two() && address.checked_rem(page_size) == Some(0);
        if !aligned || page.len() as u64 != page_size {
            return Err(MinicoreError::Unaligned { address, page_size });
        }
        let flags = flags_at(&segments, Avma(address));
        match runs.last_mut() {
            Some(run) if run.start.checked_add(run.size) == Some(address) && run.flags == flags => {
                run.size = run
                    .size
                    .checked_add(page_size)
                    .ok_or(MinicoreError::TooLarge)?;
            }
            _ => runs.push(Run {
                start: address,
                size: page_size,
                flags,
            }),
        }
    }
    Ok(runs)
}

/// Readable where no segment knows the page: the kernel lists every mapping, but not its own pages.
fn flags_at(by_address: &[Segment], at: Avma) -> u32 {
    const PF_R: u32 = 4;
    let after = by_address.partition_point(|segment| segment.start <= at);
    let segment = after
        .checked_sub(1)
        .and_then(|before| by_address.get(before));
    segment
        .filter(|segment| segment.contains(at))
        .map_or(PF_R, |segment| segment.flags)
}

/// That of the core, with the table right behind it and no sections.
pub(crate) fn elf_header(head: &CoreHead, count: u16) -> Vec<u8> {
    let raw = head.raw();
    let mut header = Vec::with_capacity(HEADER_SIZE);
    header.extend_from_slice(raw.get(..32).unwrap_or_default());
    header.extend_from_slice(&(HEADER_SIZE as u64).to_le_bytes());
    header.extend_from_slice(&0_u64.to_le_bytes());
    header.extend_from_slice(raw.get(48..52).unwrap_or_default());
    for field in [
        HEADER_SIZE as u16,
        PROGRAM_HEADER_SIZE as u16,
        count,
        0,
        0,
        0,
    ] {
        header.extend_from_slice(&field.to_le_bytes());
    }
    header
}

/// `Elf64_Phdr`: type, flags, then offset, address, physical address, file size, memory size, alignment.
pub(crate) fn program_header(kind: u32, flags: u32, fields: [u64; 6]) -> Vec<u8> {
    let mut header = [kind.to_le_bytes(), flags.to_le_bytes()].concat();
    fields
        .iter()
        .for_each(|field| header.extend_from_slice(&field.to_le_bytes()));
    header
}
