//! Reads what an ELF image in memory says of itself: program headers, load bias, build-id, dynamic section.

use goblin::elf::program_header::{PT_DYNAMIC, PT_LOAD, PT_NOTE};

use crate::elf_header::{ElfHeader, HEADER_SIZE, PN_XNUM, ProgramHeader};
use crate::note::find_build_id;
use crate::{Avma, BuildId, Encoding, FileOffset, Memory, ModuleRange};

/// Limits for what hostile memory may claim.
const MAX_PROGRAM_HEADERS: u16 = 1024;
const MAX_NOTE: u64 = 64 << 10;
/// Note headers that are read. Real files have two or three.
const MAX_NOTE_HEADERS: usize = 8;
const MAX_DYNAMIC: usize = 1024;
const MAX_PATH: usize = 4096;
const DT_NULL: u64 = 0;

/// The program headers of the ELF image at `start`, as far as the page was dumped.
pub(crate) fn headers_in_memory(
    memory: &dyn Memory,
    encoding: Encoding,
    start: Avma,
) -> Option<Vec<ProgramHeader>> {
    let mut bytes = [0; HEADER_SIZE];
    if memory.read(start, &mut bytes) != bytes.len() {
        return None;
    }
    let header = ElfHeader::parse_any(&bytes).ok()?;
    if header.encoding != encoding
        || header.program_header_count == PN_XNUM
        || usize::from(header.program_header_size) != encoding.class.program_header_size()
    {
        return None;
    }
    read_headers(
        memory,
        encoding,
        start.checked_add(header.program_headers)?,
        header.program_header_count,
    )
}

/// The program headers of a module, and the range whose bytes hold them. The first page of a file can be mapped
/// more than once, and the core may hold only the later copy.
pub(crate) fn headers_of<'r>(
    memory: &dyn Memory,
    encoding: Encoding,
    ranges: impl IntoIterator<Item = &'r ModuleRange>,
) -> Option<(Vec<ProgramHeader>, Avma)> {
    /// More copies of a first page than this have no use.
    const MAX_COPIES: usize = 4;
    let copies = ranges.into_iter().filter(|range| range.offset.0 == 0);
    copies.take(MAX_COPIES).find_map(|range| {
        let headers = headers_in_memory(memory, encoding, range.start)?;
        Some((headers, range.start))
    })
}

pub(super) fn read_headers(
    memory: &dyn Memory,
    encoding: Encoding,
    at: Avma,
    count: u16,
) -> Option<Vec<ProgramHeader>> {
    let count = usize::from(count.min(MAX_PROGRAM_HEADERS));
    let size = count.checked_mul(encoding.class.program_header_size())?;
    let table = read_bytes(memory, at, size)?;
    Some(ProgramHeader::parse_table(encoding, &table))
}

/// All `len` bytes at `at`, or nothing.
pub(crate) fn read_bytes(memory: &dyn Memory, at: Avma, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    (memory.read(at, &mut bytes) == len).then_some(bytes)
}

/// `avma - svma`, given that file offset 0 is mapped at `start`.
pub(super) fn bias_of(start: Avma, headers: &[ProgramHeader]) -> Option<u64> {
    let first = headers.iter().find(|header| header.kind == PT_LOAD)?;
    Some(
        start
            .0
            .wrapping_sub(first.address.wrapping_sub(first.offset)),
    )
}

/// The build-id, where the notes were loaded; else from `copy`, where the first bytes of the file are mapped.
pub(super) fn build_id_in_memory(
    memory: &dyn Memory,
    encoding: Encoding,
    headers: &[ProgramHeader],
    bias: u64,
    copy: Option<Avma>,
) -> Option<BuildId> {
    let notes = || {
        let notes = headers.iter().filter(|header| header.kind == PT_NOTE);
        notes.take(MAX_NOTE_HEADERS)
    };
    let read = |at: Option<Avma>, note: &ProgramHeader| {
        let size = usize::try_from(note.file_size.min(MAX_NOTE)).ok()?;
        find_build_id(encoding, &read_bytes(memory, at?, size)?, note.align)
    };
    let loaded = notes().find_map(|note| read(Some(Avma(note.address.wrapping_add(bias))), note));
    loaded.or_else(|| notes().find_map(|note| read(copy?.checked_add(note.offset), note)))
}

/// Address of the dynamic section.
pub(super) fn dynamic_of(headers: &[ProgramHeader], bias: u64) -> Option<Avma> {
    let dynamic = headers.iter().find(|header| header.kind == PT_DYNAMIC)?;
    Some(Avma(dynamic.address.wrapping_add(bias)))
}

/// The value of the first entry of this kind in the dynamic section at `start`.
pub(super) fn dynamic_value(
    memory: &dyn Memory,
    encoding: Encoding,
    start: Avma,
    wanted: u64,
) -> Option<u64> {
    let mut at = start;
    let size = encoding.word_size().checked_mul(2)?;
    for _ in 0..MAX_DYNAMIC {
        let entry = read_bytes(memory, at, size)?;
        match encoding.nth_word(&entry, 0)? {
            DT_NULL => return None,
            tag if tag == wanted => return encoding.nth_word(&entry, 1),
            _ => at = at.checked_add(size as u64)?,
        }
    }
    None
}

/// A NUL-terminated text; `None` where it does not end within what is known.
pub(super) fn read_path(memory: &dyn Memory, at: Avma) -> Option<Vec<u8>> {
    let mut bytes = vec![0; MAX_PATH];
    let count = memory.read(at, &mut bytes);
    bytes.truncate(count);
    let end = bytes.iter().position(|byte| *byte == 0)?;
    bytes.truncate(end);
    Some(bytes)
}

/// Where the loader mapped the `PT_LOAD`s of these headers, in address order.
pub(super) fn ranges_of(headers: &[ProgramHeader], bias: u64) -> Vec<ModuleRange> {
    let loads = headers.iter().filter(|header| header.kind == PT_LOAD);
    let mut ranges: Vec<_> = loads.filter_map(|header| range_of(header, bias)).collect();
    ranges.sort_by_key(|range| range.start);
    ranges
}

/// Where the loader mapped this `PT_LOAD`; `None` for an empty one.
pub(super) fn range_of(header: &ProgramHeader, bias: u64) -> Option<ModuleRange> {
    let start = Avma(header.address.wrapping_add(bias));
    let end = start.checked_add(header.memory_size)?;
    let offset = FileOffset(header.offset);
    (start < end).then_some(ModuleRange { start, end, offset })
}
