//! The tables of an ELF file as numbers: program headers, section headers, symbols, notes.
//!
//! Every read is checked; a table ends where its bytes end. It knows nothing of what the entries mean.

use goblin::elf::section_header::SHT_NOBITS;

use super::{ElfError, LoadSegment, Section, Symbol};
use crate::bytes::{u16_at, u32_at, u64_at};
use crate::elf_header::{Class, ElfHeader, PN_XNUM, PROGRAM_HEADER_SIZE, ProgramHeader};
use crate::{FileOffset, Svma};

pub(super) const SECTION_HEADER_SIZE: usize = 64;
pub(super) const SYMBOL_SIZE: usize = 24;

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
    if count == u64::from(PN_XNUM) {
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
    Ok(ProgramHeader::parse_all(bytes).collect())
}

/// Of a 32-bit file.
pub(super) fn narrow_program_headers(
    data: &[u8],
    header: &ElfHeader,
) -> Result<Vec<ProgramHeader>, ElfError> {
    let size = Class::Narrow.program_header_size() as u64;
    let size = size.saturating_mul(header.program_header_count.into());
    match slice(data, header.program_headers, size) {
        Some(table) => Ok(ProgramHeader::parse_table(Class::Narrow, table)),
        None => Err(malformed(
            "program header table",
            "it lies outside the file",
        )),
    }
}

/// Sections of a 32-bit file (`Elf32_Shdr`, 40 bytes), as many as there are bytes for.
pub(super) fn narrow_sections(data: &[u8], at: u64) -> Vec<Section<'_>> {
    let parse = || {
        let (count, names) = (u16_at(data, 48)?, u16_at(data, 50)?);
        let table = data.get(usize::try_from(at).ok().filter(|at| *at != 0)?..)?;
        let (entries, _) = table.as_chunks::<40>();
        let entries = entries.get(..entries.len().min(count.into()))?;
        let word = |entry: &[u8; 40], at| u32_at(entry, at).map(u64::from);
        let bytes = |entry: &[u8; 40]| match u32_at(entry, 4)? {
            SHT_NOBITS => None,
            _ => slice(data, word(entry, 16)?, word(entry, 20)?),
        };
        let strings = entries.get(usize::from(names)).and_then(bytes);
        let section = |entry: &[u8; 40]| {
            let name = usize::try_from(u32_at(entry, 0)?).ok()?;
            let name = strings.and_then(|strings| until_nul(strings.get(name..)?));
            Some(Section {
                name: name.unwrap_or_default(),
                kind: u32_at(entry, 4)?,
                flags: word(entry, 8)?,
                address: Svma(word(entry, 12)?),
                offset: FileOffset(word(entry, 16)?),
                size: word(entry, 20)?,
                data: bytes(entry).unwrap_or_default(),
            })
        };
        Some(entries.iter().filter_map(section).collect())
    };
    parse().unwrap_or_default()
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

/// A symbol whose name was not looked at yet.
#[derive(Clone, Copy)]
pub(super) struct Nameless {
    name: usize,
    pub(super) address: Svma,
    pub(super) size: u64,
    kind: u8,
    binding: u8,
}

impl Nameless {
    pub(super) fn parse(entry: &[u8; SYMBOL_SIZE]) -> Option<Self> {
        let info = *entry.get(4)?;
        let (kind, binding) = (info & 15, info >> 4);
        let defined = u16_at(entry, 6)? != 0;
        if !defined || !matches!(kind, 0 | 1 | 2 | 10) {
            return None;
        }
        Some(Self {
            name: usize::try_from(u32_at(entry, 0)?).ok()?,
            address: Svma(u64_at(entry, 8)?),
            size: u64_at(entry, 16)?,
            kind,
            binding,
        })
    }

    /// [`begin`] of its name.
    pub(super) fn begin(&self, strings: &[u8]) -> [u8; 4] {
        begin(strings.get(self.name..).unwrap_or_default())
    }

    pub(super) fn named(self, strings: &[u8]) -> Option<Symbol<'_>> {
        let name = strings
            .get(self.name..)
            .and_then(until_nul)
            .filter(|name| !name.is_empty())?;
        Some(Symbol {
            name,
            address: self.address,
            size: self.size,
            kind: self.kind,
            binding: self.binding,
        })
    }
}

/// The first bytes of a name that ends with NUL or with the slice, zeros after its end.
pub(super) fn begin(name: &[u8]) -> [u8; 4] {
    let mut begin = [0; 4];
    let name = name.iter().take_while(|byte| **byte != 0);
    for (byte, found) in begin.iter_mut().zip(name) {
        *byte = *found;
    }
    begin
}

pub(super) fn slice(data: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    let from = usize::try_from(offset).ok()?;
    data.get(from..from.checked_add(usize::try_from(size).ok()?)?)
}

pub(super) fn until_nul(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(..bytes.iter().position(|&byte| byte == 0)?)
}
