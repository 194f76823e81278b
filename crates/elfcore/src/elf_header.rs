//! The fields that the ELF header and the program headers of cores and objects have in common.

use crate::bytes::{array_at, u16_at, u32_at, u64_at};

/// Size of `Elf64_Ehdr`, bytes.
pub(crate) const HEADER_SIZE: usize = 64;
/// Size of `Elf64_Phdr`, bytes.
pub(crate) const PROGRAM_HEADER_SIZE: usize = 56;
/// `e_phnum` of a file whose real count stands in `sh_info` of section header 0 (elf(5)).
pub(crate) const PN_XNUM: u16 = 0xffff;
/// `Elf64_Ehdr` without what nobody here needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ElfHeader {
    pub(crate) kind: u16,
    pub(crate) machine: u16,
    pub(crate) program_headers: u64,
    pub(crate) section_headers: u64,
    pub(crate) program_header_size: u16,
    pub(crate) program_header_count: u16,
}

/// What the first bytes say that they are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotOurs {
    Short,
    NotElf,
    Unsupported(&'static str),
}

impl ElfHeader {
    pub(crate) fn parse(data: &[u8]) -> Result<Self, NotOurs> {
        let ident: [u8; 6] = match array_at(data, 0) {
            Some(ident) => ident,
            None if b"\x7fELF".starts_with(data.get(..4).unwrap_or(data)) => {
                return Err(NotOurs::Short);
            }
            None => return Err(NotOurs::NotElf),
        };
        match ident {
            [0x7f, b'E', b'L', b'F', 2, 1] => {}
            [0x7f, b'E', b'L', b'F', 1, _] => return Err(NotOurs::Unsupported("32-bit")),
            [0x7f, b'E', b'L', b'F', _, 2] => return Err(NotOurs::Unsupported("big-endian")),
            [0x7f, b'E', b'L', b'F', _, _] => return Err(NotOurs::Unsupported("unknown-class")),
            _ => return Err(NotOurs::NotElf),
        }
        Self::fields(data).ok_or(NotOurs::Short)
    }

    fn fields(data: &[u8]) -> Option<Self> {
        let data = data.get(..HEADER_SIZE)?;
        Some(Self {
            kind: u16_at(data, 16)?,
            machine: u16_at(data, 18)?,
            program_headers: u64_at(data, 32)?,
            section_headers: u64_at(data, 40)?,
            program_header_size: u16_at(data, 54)?,
            program_header_count: u16_at(data, 56)?,
        })
    }
}

/// `Elf64_Phdr`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgramHeader {
    pub(crate) kind: u32,
    pub(crate) flags: u32,
    pub(crate) offset: u64,
    pub(crate) address: u64,
    pub(crate) file_size: u64,
    pub(crate) memory_size: u64,
    pub(crate) align: u64,
}

impl ProgramHeader {
    /// From the first 56 bytes of `data`.
    pub(crate) fn parse(data: &[u8]) -> Option<Self> {
        Some(Self {
            kind: u32_at(data, 0)?,
            flags: u32_at(data, 4)?,
            offset: u64_at(data, 8)?,
            address: u64_at(data, 16)?,
            file_size: u64_at(data, 32)?,
            memory_size: u64_at(data, 40)?,
            align: u64_at(data, 48)?,
        })
    }

    /// Every whole program header in a table.
    pub(crate) fn parse_all(table: &[u8]) -> impl Iterator<Item = Self> {
        table
            .chunks_exact(PROGRAM_HEADER_SIZE)
            .filter_map(Self::parse)
    }
}
