//! The tables of an ELF file as numbers: program headers, section headers, symbols, notes.
//!
//! Every read is checked; a table ends where its bytes end. It knows nothing of what the entries mean.

use super::{ElfError, LoadSegment, Section, Symbol};
use crate::{BuildId, FileOffset, Svma};

pub(super) const SHT_SYMTAB: u32 = 2;
pub(super) const SHT_NOTE: u32 = 7;
pub(super) const SHT_NOBITS: u32 = 8;
pub(super) const SHT_DYNSYM: u32 = 11;
pub(super) const PT_LOAD: u32 = 1;
pub(super) const PT_DYNAMIC: u32 = 2;
pub(super) const PT_INTERP: u32 = 3;
pub(super) const PT_NOTE: u32 = 4;
pub(super) const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
pub(super) const DT_STRTAB: u64 = 5;
pub(super) const DT_SONAME: u64 = 14;
pub(super) const NT_GNU_BUILD_ID: u32 = 3;
pub(super) const PROGRAM_HEADER_SIZE: usize = 56;
pub(super) const SECTION_HEADER_SIZE: usize = 64;
pub(super) const SYMBOL_SIZE: usize = 24;

#[derive(Clone, Copy, Debug)]
pub(super) struct ProgramHeader {
    pub(super) kind: u32,
    pub(super) flags: u32,
    pub(super) offset: u64,
    pub(super) address: u64,
    pub(super) file_size: u64,
    pub(super) memory_size: u64,
    pub(super) alignment: u64,
}

pub(super) fn malformed(part: &'static str, problem: impl Into<String>) -> ElfError {
    ElfError::Malformed {
        part,
        problem: problem.into(),
    }
}

pub(super) fn load_segment(header: &ProgramHeader) -> LoadSegment {
    LoadSegment {
        start: Svma(header.address),
        memory_size: header.memory_size,
        offset: FileOffset(header.offset),
        file_size: header.file_size,
        flags: header.flags,
    }
}

pub(super) fn program_headers(
    data: &[u8],
    sections_at: u64,
) -> Result<Vec<ProgramHeader>, ElfError> {
    let short = || malformed("ELF header", "the file ends inside it");
    let at = u64_at(data, 32).ok_or_else(short)?;
    let mut count = u64::from(u16_at(data, 56).ok_or_else(short)?);
    // PN_XNUM: 65,535 or more are counted in `sh_info` of the first section header.
    if count == 0xffff {
        let field = usize::try_from(sections_at)
            .ok()
            .and_then(|at| at.checked_add(44));
        count = field
            .and_then(|field| u32_at(data, field))
            .map_or(count, u64::from);
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    let bytes = count
        .checked_mul(PROGRAM_HEADER_SIZE as u64)
        .and_then(|size| slice(data, at, size))
        .ok_or_else(|| malformed("program header table", "it lies outside the file"))?;
    let (entries, _) = bytes.as_chunks::<PROGRAM_HEADER_SIZE>();
    Ok(entries
        .iter()
        .filter_map(|entry| program_header(entry))
        .collect())
}

pub(super) fn program_header(entry: &[u8]) -> Option<ProgramHeader> {
    Some(ProgramHeader {
        kind: u32_at(entry, 0)?,
        flags: u32_at(entry, 4)?,
        offset: u64_at(entry, 8)?,
        address: u64_at(entry, 16)?,
        file_size: u64_at(entry, 32)?,
        memory_size: u64_at(entry, 40)?,
        alignment: u64_at(entry, 48)?,
    })
}

/// Sections and their `sh_link`s, as many as there are bytes for.
pub(super) fn sections(
    data: &[u8],
    at: u64,
    count: u16,
    names: u16,
) -> (Vec<Section<'_>>, Vec<u32>) {
    let table = usize::try_from(at)
        .ok()
        .filter(|&at| at != 0)
        .and_then(|at| data.get(at..));
    let Some(table) = table else {
        return (Vec::new(), Vec::new());
    };
    // Counts of 0xff00 and more stand in the first header: `sh_size` and `sh_link`.
    let count = match count {
        0 => u64_at(table, 32).unwrap_or(0),
        count => u64::from(count),
    };
    let names = match names {
        0xffff => u32_at(table, 40).unwrap_or(0),
        names => u32::from(names),
    };
    let (entries, _) = table.as_chunks::<SECTION_HEADER_SIZE>();
    let entries =
        entries.get(..usize::try_from(count).map_or(entries.len(), |c| c.min(entries.len())));
    let entries = entries.unwrap_or_default();
    let strings = usize::try_from(names)
        .ok()
        .and_then(|names| entries.get(names));
    let strings = strings
        .and_then(|entry| section(data, entry, &[]))
        .map_or(&[][..], |s| s.data);
    let links = entries
        .iter()
        .map(|entry| u32_at(entry, 40).unwrap_or(0))
        .collect();
    (
        entries
            .iter()
            .filter_map(|entry| section(data, entry, strings))
            .collect(),
        links,
    )
}

pub(super) fn section<'data>(
    data: &'data [u8],
    entry: &[u8],
    strings: &'data [u8],
) -> Option<Section<'data>> {
    let name = usize::try_from(u32_at(entry, 0)?).ok()?;
    let (kind, offset, size) = (u32_at(entry, 4)?, u64_at(entry, 24)?, u64_at(entry, 32)?);
    let bytes = if kind == SHT_NOBITS {
        None
    } else {
        slice(data, offset, size)
    };
    Some(Section {
        name: strings.get(name..).and_then(until_nul).unwrap_or_default(),
        kind,
        flags: u64_at(entry, 8)?,
        address: Svma(u64_at(entry, 16)?),
        offset: FileOffset(offset),
        size,
        data: bytes.unwrap_or_default(),
    })
}

pub(super) fn symbol<'data>(
    entry: &[u8; SYMBOL_SIZE],
    strings: &'data [u8],
) -> Option<Symbol<'data>> {
    let info = *entry.get(4)?;
    let (kind, binding) = (info & 15, info >> 4);
    let defined = u16_at(entry, 6)? != 0;
    if !defined || !matches!(kind, 0 | 1 | 2 | 10) {
        return None;
    }
    let name = usize::try_from(u32_at(entry, 0)?).ok()?;
    let name = strings
        .get(name..)
        .and_then(until_nul)
        .filter(|name| !name.is_empty())?;
    Some(Symbol {
        name,
        address: Svma(u64_at(entry, 8)?),
        size: u64_at(entry, 16)?,
        kind,
        binding,
    })
}

/// Walks ELF notes (`namesz | descsz | type | name | desc`, each padded) to the GNU build-id.
pub(super) fn build_id_in(notes: &[u8], alignment: u64) -> Option<BuildId> {
    let alignment: usize = if alignment == 8 { 8 } else { 4 };
    let mut rest = notes;
    loop {
        let name_size = usize::try_from(u32_at(rest, 0)?).ok()?;
        let size = usize::try_from(u32_at(rest, 4)?).ok()?;
        let kind = u32_at(rest, 8)?;
        let name_end = 12_usize.checked_add(name_size)?;
        let at = name_end.checked_next_multiple_of(alignment)?;
        let end = at.checked_add(size)?;
        if kind == NT_GNU_BUILD_ID && rest.get(12..name_end) == Some(b"GNU\0") {
            return BuildId::from_bytes(rest.get(at..end)?);
        }
        rest = rest.get(end.checked_next_multiple_of(alignment)?..)?;
    }
}

pub(super) fn slice(data: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    let from = usize::try_from(offset).ok()?;
    data.get(from..from.checked_add(usize::try_from(size).ok()?)?)
}

pub(super) fn until_nul(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(..bytes.iter().position(|&byte| byte == 0)?)
}

pub(super) fn array_at<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub(super) fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    array_at(data, at).map(u16::from_le_bytes)
}

pub(super) fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    array_at(data, at).map(u32::from_le_bytes)
}

pub(super) fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    array_at(data, at).map(u64::from_le_bytes)
}
