//! An ELF executable, shared object or debug file over a byte slice. Zero copy: names and sections borrow.

use crate::{BuildId, FileOffset, Machine, Module, Svma};

/// Why bytes cannot be read as an ELF object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ElfError {
    /// No ELF magic.
    #[error("not an ELF file")]
    NotElf,
    /// 32-bit or big-endian.
    #[error("{found} ELF files are not supported, only 64-bit little-endian ones")]
    Unsupported {
        /// `32-bit`, `big-endian`.
        found: &'static str,
    },
    /// Headers that point outside the file.
    #[error("the {part} is not valid: {problem}")]
    Malformed {
        /// Which part.
        part: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// A `PT_LOAD` of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadSegment {
    /// `p_vaddr`.
    pub start: Svma,
    /// `p_memsz`.
    pub memory_size: u64,
    /// `p_offset`.
    pub offset: FileOffset,
    /// `p_filesz`.
    pub file_size: u64,
    /// `PF_X` 1, `PF_W` 2, `PF_R` 4.
    pub flags: u32,
}

/// One section; `data` is as stored (maybe compressed: `SHF_COMPRESSED`, or a `.zdebug_` name).
#[derive(Clone, Copy, Debug)]
pub struct Section<'data> {
    /// Name from `.shstrtab`.
    pub name: &'data [u8],
    /// `sh_type` (8 is NOBITS: no data).
    pub kind: u32,
    /// `sh_flags`; 0x800 is SHF_COMPRESSED.
    pub flags: u64,
    /// `sh_addr`.
    pub address: Svma,
    /// `sh_offset`.
    pub offset: FileOffset,
    /// `sh_size`.
    pub size: u64,
    /// Bytes in the file; empty for NOBITS, or where they point outside.
    pub data: &'data [u8],
}

/// A function or object symbol.
#[derive(Clone, Copy, Debug)]
pub struct Symbol<'data> {
    /// Mangled name.
    pub name: &'data [u8],
    /// `st_value`.
    pub address: Svma,
    /// `st_size`.
    pub size: u64,
    /// `STT_FUNC` 2, `STT_OBJECT` 1, `STT_NOTYPE` 0, `STT_GNU_IFUNC` 10.
    pub kind: u8,
    /// `STB_LOCAL` 0, `STB_GLOBAL` 1, `STB_WEAK` 2.
    pub binding: u8,
}

/// An ELF object.
pub struct ElfObject<'data> {
    data: &'data [u8],
}

impl<'data> ElfObject<'data> {
    /// Reads headers only.
    ///
    /// # Errors
    /// When it is no supported ELF file. Missing or broken section headers are not an error.
    pub fn parse(_data: &'data [u8]) -> Result<Self, ElfError> {
        todo!()
    }

    /// All bytes.
    #[must_use]
    pub fn data(&self) -> &'data [u8] {
        self.data
    }

    /// Processor architecture.
    #[must_use]
    pub fn machine(&self) -> Machine {
        todo!()
    }

    /// `e_entry`.
    #[must_use]
    pub fn entry(&self) -> Svma {
        todo!()
    }

    /// Build-id from PT_NOTE, else from a `.note.gnu.build-id` section.
    #[must_use]
    pub fn build_id(&self) -> Option<BuildId> {
        todo!()
    }

    /// `PT_LOAD`s.
    #[must_use]
    pub fn load_segments(&self) -> &[LoadSegment] {
        todo!()
    }

    /// Path of the interpreter (`PT_INTERP`), absent for static programs.
    #[must_use]
    pub fn interpreter(&self) -> Option<&'data [u8]> {
        todo!()
    }

    /// `PT_GNU_EH_FRAME`: address and bytes of `.eh_frame_hdr`, also without section headers.
    #[must_use]
    pub fn eh_frame_header(&self) -> Option<(Svma, &'data [u8])> {
        todo!()
    }

    /// File bytes from `at` to the end of the file-backed part of the segment that holds it.
    #[must_use]
    pub fn bytes_at(&self, _at: Svma) -> Option<&'data [u8]> {
        todo!()
    }

    /// All sections.
    #[must_use]
    pub fn sections(&self) -> &[Section<'data>] {
        todo!()
    }

    /// The section called `name`.
    #[must_use]
    pub fn section(&self, _name: &str) -> Option<&Section<'data>> {
        todo!()
    }

    /// Symbols of `.symtab`, else of `.dynsym`; bounded by the table's bytes.
    #[must_use]
    pub fn symbols(&self) -> Vec<Symbol<'data>> {
        todo!()
    }

    /// File name and CRC-32 of `.gnu_debuglink`.
    #[must_use]
    pub fn debug_link(&self) -> Option<(&'data [u8], u32)> {
        todo!()
    }

    /// File name and build-id of `.gnu_debugaltlink` (dwz).
    #[must_use]
    pub fn debug_alt_link(&self) -> Option<(&'data [u8], BuildId)> {
        todo!()
    }

    /// `avma - svma` (wrapping) of this file mapped as `module`, from the mapping that holds the file
    /// offset of one of the loads; falls back to `module.bias`.
    #[must_use]
    pub fn bias_in(&self, _module: &Module) -> Option<u64> {
        todo!()
    }
}
