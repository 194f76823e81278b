//! The fields that the ELF header and the program headers of cores and objects have in common.

use crate::bytes::array_at;
use crate::machine::describe_unsupported;
use crate::{Class, Encoding, Machine};

/// Size of `Elf64_Ehdr`, bytes.
pub(crate) const HEADER_SIZE: usize = 64;
/// Size of `Elf64_Phdr`, bytes.
pub(crate) const PROGRAM_HEADER_SIZE: usize = 56;
/// `e_phnum` of a file whose real count is in `sh_info` of section header 0 (elf(5)).
pub(crate) const PN_XNUM: u16 = 0xffff;
/// `Elf64_Ehdr` or `Elf32_Ehdr` without the fields that are not needed here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ElfHeader {
    pub(crate) encoding: Encoding,
    pub(crate) kind: u16,
    pub(crate) machine: Machine,
    pub(crate) entry: u64,
    pub(crate) program_headers: u64,
    pub(crate) section_headers: u64,
    pub(crate) program_header_size: u16,
    pub(crate) program_header_count: u16,
    pub(crate) section_header_count: u16,
    /// `e_shstrndx`.
    pub(crate) section_names: u16,
}

/// What the first bytes say that they are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotOurs {
    Short,
    NotElf,
    Unsupported(String),
}

impl ElfHeader {
    /// Of a 64-bit little-endian file: what a kernel writes for the machines that the agent runs on.
    pub(crate) fn parse(data: &[u8]) -> Result<Self, NotOurs> {
        let header = Self::parse_any(data)?;
        match header.encoding == Encoding::LITTLE_64 {
            true => Ok(header),
            false => Err(NotOurs::Unsupported(describe_unsupported(data))),
        }
    }

    /// Of a file of any machine that is known.
    pub(crate) fn parse_any(data: &[u8]) -> Result<Self, NotOurs> {
        match array_at(data, 0) {
            Some([0x7f, b'E', b'L', b'F', _, _]) => {}
            None if b"\x7fELF".starts_with(data.get(..4).unwrap_or(data)) => {
                return Err(NotOurs::Short);
            }
            _ => return Err(NotOurs::NotElf),
        }
        let unsupported = || NotOurs::Unsupported(describe_unsupported(data));
        let encoding = Encoding::of_elf(data).ok_or_else(unsupported)?;
        let Some(number) = encoding.u16_at(data, 18) else {
            return match encoding == Encoding::LITTLE_64 {
                true => Err(NotOurs::Short),
                false => Err(unsupported()),
            };
        };
        let machine = Machine::of_elf(encoding, number).ok_or_else(unsupported)?;
        Self::fields(data, encoding, machine).ok_or(NotOurs::Short)
    }

    fn fields(data: &[u8], encoding: Encoding, machine: Machine) -> Option<Self> {
        let data = data.get(..encoding.class.header_size())?;
        // Entry, program headers and section headers are words; what follows them has the same layout.
        let (word, after) = (
            |index: usize| encoding.nth_word(data.get(24..)?, index),
            data.get(encoding.word_size().checked_mul(3)?.checked_add(24)?..)?,
        );
        Some(Self {
            encoding,
            kind: encoding.u16_at(data, 16)?,
            machine,
            entry: word(0)?,
            program_headers: word(1)?,
            section_headers: word(2)?,
            program_header_size: encoding.u16_at(after, 6)?,
            program_header_count: encoding.u16_at(after, 8)?,
            section_header_count: encoding.u16_at(after, 12)?,
            section_names: encoding.u16_at(after, 14)?,
        })
    }
}

/// `Elf64_Phdr` or `Elf32_Phdr`.
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
    /// From the first bytes of `data`.
    pub(crate) fn parse(encoding: Encoding, data: &[u8]) -> Option<Self> {
        let u32_at = |at| encoding.u32_at(data, at);
        let word = |at| encoding.word_at(data, at);
        Some(match encoding.class {
            Class::Narrow => Self {
                kind: u32_at(0)?,
                flags: u32_at(24)?,
                offset: word(4)?,
                address: word(8)?,
                file_size: word(16)?,
                memory_size: word(20)?,
                align: word(28)?,
            },
            Class::Wide => Self {
                kind: u32_at(0)?,
                flags: u32_at(4)?,
                offset: word(8)?,
                address: word(16)?,
                file_size: word(32)?,
                memory_size: word(40)?,
                align: word(48)?,
            },
        })
    }

    /// Every whole program header in a table.
    pub(crate) fn parse_table(encoding: Encoding, table: &[u8]) -> Vec<Self> {
        table
            .chunks_exact(encoding.class.program_header_size())
            .filter_map(|entry| Self::parse(encoding, entry))
            .collect()
    }
}
