//! The tables of an ELF file as numbers: program headers, section headers, symbols, notes.
//!
//! Every read is checked; a table ends where its bytes end. It knows nothing of what the entries mean.

use goblin::elf::section_header::SHT_NOBITS;

use super::{ElfError, LoadSegment, Section, Symbol};
use crate::elf_header::{ElfHeader, PN_XNUM, ProgramHeader};
use crate::{Class, Encoding, FileOffset, Machine, Svma};

const STT_FUNC: u8 = 2;

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

/// All program headers, as many as the header counts.
pub(super) fn program_headers(
    data: &[u8],
    header: &ElfHeader,
) -> Result<Vec<ProgramHeader>, ElfError> {
    let encoding = header.encoding;
    let mut count = u64::from(header.program_header_count);
    // PN_XNUM: 65,535 or more are counted in `sh_info` of the first section header.
    if count == u64::from(PN_XNUM) {
        let first = usize::try_from(header.section_headers).ok();
        let first = first.and_then(|at| SectionHeader::parse(encoding, data.get(at..)?));
        count = first.map_or(count, |first| first.info.into());
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    let bytes = count
        .checked_mul(encoding.class.program_header_size() as u64)
        .and_then(|size| slice(data, header.program_headers, size))
        .ok_or_else(|| malformed("program header table", "it lies outside the file"))?;
    Ok(ProgramHeader::parse_table(encoding, bytes))
}

/// Size of `Elf64_Shdr` or `Elf32_Shdr`, bytes.
fn section_header_size(class: Class) -> usize {
    match class {
        Class::Narrow => 40,
        Class::Wide => 64,
    }
}

/// Size of `Elf64_Sym` or `Elf32_Sym`, bytes.
pub(super) fn symbol_size(class: Class) -> usize {
    match class {
        Class::Narrow => 16,
        Class::Wide => 24,
    }
}

/// `Elf64_Shdr` or `Elf32_Shdr`: name and type have four bytes each, then flags, address, offset and size are words,
/// `sh_link` and `sh_info` have four bytes again.
#[derive(Clone, Copy)]
struct SectionHeader {
    name: u32,
    kind: u32,
    flags: u64,
    address: u64,
    offset: u64,
    size: u64,
    link: u32,
    info: u32,
}

impl SectionHeader {
    fn parse(encoding: Encoding, entry: &[u8]) -> Option<Self> {
        let words = entry.get(8..)?;
        let after = words.get(encoding.word_size().checked_mul(4)?..)?;
        Some(Self {
            name: encoding.u32_at(entry, 0)?,
            kind: encoding.u32_at(entry, 4)?,
            flags: encoding.nth_word(words, 0)?,
            address: encoding.nth_word(words, 1)?,
            offset: encoding.nth_word(words, 2)?,
            size: encoding.nth_word(words, 3)?,
            link: encoding.u32_at(after, 0)?,
            info: encoding.u32_at(after, 4)?,
        })
    }

    fn bytes<'data>(&self, data: &'data [u8]) -> Option<&'data [u8]> {
        (self.kind != SHT_NOBITS)
            .then(|| slice(data, self.offset, self.size))
            .flatten()
    }
}

/// Sections and their `sh_link`s, as many as there are bytes for.
pub(super) fn sections<'data>(
    data: &'data [u8],
    header: &ElfHeader,
) -> (Vec<Section<'data>>, Vec<u32>) {
    let encoding = header.encoding;
    let table = usize::try_from(header.section_headers)
        .ok()
        .filter(|&at| at != 0)
        .and_then(|at| data.get(at..));
    let first = table.and_then(|table| SectionHeader::parse(encoding, table));
    let Some((table, first)) = table.zip(first) else {
        return (Vec::new(), Vec::new());
    };
    // Counts of 0xff00 and more are in the first header: `sh_size` and `sh_link`.
    let count = match header.section_header_count {
        0 => first.size,
        count => u64::from(count),
    };
    let names = match header.section_names {
        0xffff => first.link,
        names => u32::from(names),
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let entries = table.chunks_exact(section_header_size(encoding.class));
    let headers: Vec<SectionHeader> = entries
        .take(count)
        .filter_map(|entry| SectionHeader::parse(encoding, entry))
        .collect();
    let strings = usize::try_from(names).ok().and_then(|at| headers.get(at));
    let strings = strings.and_then(|header| header.bytes(data));
    let strings = strings.unwrap_or_default();
    let section = |header: &SectionHeader| {
        let name = usize::try_from(header.name).ok();
        let name = name.and_then(|name| strings.get(name..).and_then(until_nul));
        Section {
            name: name.unwrap_or_default(),
            kind: header.kind,
            flags: header.flags,
            address: Svma(header.address),
            offset: FileOffset(header.offset),
            size: header.size,
            data: header.bytes(data).unwrap_or_default(),
        }
    };
    let links = headers.iter().map(|header| header.link).collect();
    (headers.iter().map(section).collect(), links)
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
    /// `Elf64_Sym` or `Elf32_Sym`.
    pub(super) fn parse(machine: Machine, entry: &[u8]) -> Option<Self> {
        let encoding = machine.encoding();
        // Offsets of value, size, info and section.
        let (value, size, info, section) = match encoding.class {
            Class::Narrow => (4, 8, 12, 14),
            Class::Wide => (8, 16, 4, 6),
        };
        let info = *entry.get(info)?;
        let (kind, binding) = (info & 15, info >> 4);
        let defined = encoding.u16_at(entry, section)? != 0;
        if !defined || !matches!(kind, 0 | 1 | 2 | 10) {
            return None;
        }
        let address = encoding.word_at(entry, value)?;
        // The lowest bit of a function's address selects Thumb.
        let is_marked = machine == Machine::Arm && kind == STT_FUNC;
        Some(Self {
            name: usize::try_from(encoding.u32_at(entry, 0)?).ok()?,
            address: Svma(address & !u64::from(is_marked)),
            size: encoding.word_at(entry, size)?,
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
