//! The fields that the ELF header and the program headers of cores and objects have in common.

use crate::bytes::{array_at, u16_at, u32_at, u64_at};
use crate::machine::describe_unsupported;

/// Size of `Elf64_Ehdr`, bytes.
pub(crate) const HEADER_SIZE: usize = 64;
/// Size of `Elf64_Phdr`, bytes.
pub(crate) const PROGRAM_HEADER_SIZE: usize = 56;
/// `e_phnum` of a file whose real count is in `sh_info` of section header 0 (elf(5)).
pub(crate) const PN_XNUM: u16 = 0xffff;
/// `Elf64_Ehdr` without the fields that are not needed here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ElfHeader {
    pub(crate) class: Class,
    pub(crate) kind: u16,
    pub(crate) machine: u16,
    pub(crate) program_headers: u64,
    pub(crate) section_headers: u64,
    pub(crate) program_header_size: u16,
    pub(crate) program_header_count: u16,
}

/// How wide the addresses and offsets of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// ELFCLASS32.
    Narrow,
    /// ELFCLASS64.
    Wide,
}

impl Class {
    /// Size of `Elf32_Ehdr` or `Elf64_Ehdr`, bytes.
    pub(crate) fn header_size(self) -> usize {
        match self {
            Self::Narrow => 52,
            Self::Wide => HEADER_SIZE,
        }
    }

    /// Size of `Elf32_Phdr` or `Elf64_Phdr`, bytes.
    pub(crate) fn program_header_size(self) -> usize {
        match self {
            Self::Narrow => 32,
            Self::Wide => PROGRAM_HEADER_SIZE,
        }
    }
}

/// Machines whose 32-bit processes a supported 64-bit Linux runs: i386, arm, x32.
pub(crate) const NARROW_MACHINES: [u16; 3] = [3, 40, 62];

/// What the first bytes say that they are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotOurs {
    Short,
    NotElf,
    Unsupported(String),
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
            [0x7f, b'E', b'L', b'F', _, _] => {
                return Err(NotOurs::Unsupported(describe_unsupported(data)));
            }
            _ => return Err(NotOurs::NotElf),
        }
        Self::fields(data).ok_or(NotOurs::Short)
    }

    /// As [`Self::parse`], and of the 32-bit machines that are known.
    pub(crate) fn parse_any(data: &[u8]) -> Result<Self, NotOurs> {
        let is_narrow = data.starts_with(b"\x7fELF\x01\x01");
        let machine = u16_at(data, 18).filter(|_| is_narrow);
        match machine.filter(|machine| NARROW_MACHINES.contains(machine)) {
            Some(machine) => Self::narrow_fields(data, machine).ok_or(NotOurs::Short),
            None => Self::parse(data),
        }
    }

    fn narrow_fields(data: &[u8], machine: u16) -> Option<Self> {
        let data = data.get(..Class::Narrow.header_size())?;
        Some(Self {
            class: Class::Narrow,
            kind: u16_at(data, 16)?,
            machine,
            program_headers: u32_at(data, 28)?.into(),
            section_headers: u32_at(data, 32)?.into(),
            program_header_size: u16_at(data, 42)?,
            program_header_count: u16_at(data, 44)?,
        })
    }

    fn fields(data: &[u8]) -> Option<Self> {
        let data = data.get(..HEADER_SIZE)?;
        Some(Self {
            class: Class::Wide,
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

    /// From the first bytes of `data`, in a file of this class.
    pub(crate) fn parse_of(class: Class, data: &[u8]) -> Option<Self> {
        match class {
            Class::Narrow => Self::parse_narrow(data),
            Class::Wide => Self::parse(data),
        }
    }

    fn parse_narrow(data: &[u8]) -> Option<Self> {
        let at = |offset| u32_at(data, offset).map(u64::from);
        Some(Self {
            kind: u32_at(data, 0)?,
            flags: u32_at(data, 24)?,
            offset: at(4)?,
            address: at(8)?,
            file_size: at(16)?,
            memory_size: at(20)?,
            align: at(28)?,
        })
    }

    /// Every whole program header in a table of a file of this class.
    pub(crate) fn parse_table(class: Class, table: &[u8]) -> Vec<Self> {
        table
            .chunks_exact(class.program_header_size())
            .filter_map(|entry| Self::parse_of(class, entry))
            .collect()
    }
}
