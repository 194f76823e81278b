//! The head of a core: ELF header, program headers and notes, which is all that is known before memory.

use std::io::Read;

use crate::{
    Avma, ByteSource, Completeness, FileOffset, Machine, Mapping, Module, ProcessInfo, SignalInfo,
    Thread,
};

/// Why bytes cannot be read as a core.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoreError {
    /// Nothing there.
    #[error("the file is empty")]
    Empty,
    /// No ELF magic.
    #[error("not an ELF file")]
    NotElf,
    /// ELF, but `e_type` is not ET_CORE.
    #[error("an ELF {kind}, not a core")]
    NotCore {
        /// `executable`, `shared object`, `object file`, `file of type N`.
        kind: String,
    },
    /// 32-bit or big-endian.
    #[error("{found} cores are not supported, only 64-bit little-endian ones")]
    Unsupported {
        /// `32-bit`, `big-endian`.
        found: &'static str,
    },
    /// The head itself is cut off.
    #[error("the core ends after {found} bytes, inside its {part}")]
    HeadTruncated {
        /// `ELF header`, `program headers`, `notes`.
        part: &'static str,
        /// Bytes that are there.
        found: u64,
    },
    /// A count or offset that cannot be true.
    #[error("the {part} of the core are not valid: {problem}")]
    Malformed {
        /// Which part.
        part: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The source failed.
    #[error("cannot read the core")]
    Io(#[from] std::io::Error),
}

/// One `PT_LOAD` program header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Address in the process.
    pub start: Avma,
    /// Size in memory, bytes.
    pub memory_size: u64,
    /// Where its bytes stand in the core.
    pub offset: FileOffset,
    /// How many bytes the kernel meant to write (less than `memory_size` where it filtered pages).
    pub file_size: u64,
    /// `PF_X` 1, `PF_W` 2, `PF_R` 4.
    pub flags: u32,
}

/// Everything that stands before the memory of a core.
#[derive(Clone, Debug)]
pub struct CoreHead {
    // the owner of this crate decides; getters below are the interface
    _private: (),
}

impl CoreHead {
    /// Reads exactly the head from a stream, such as the pipe the kernel writes: not one byte more.
    ///
    /// # Errors
    /// When it is no supported core, or ends inside the head.
    pub fn from_reader(_stream: &mut impl Read) -> Result<Self, CoreError> {
        todo!()
    }

    /// Reads the head of a whole core. More lenient than `from_reader`: notes cut off in the middle
    /// give what they hold.
    ///
    /// # Errors
    /// When it is no supported core.
    pub fn from_source(_source: &dyn ByteSource) -> Result<Self, CoreError> {
        todo!()
    }

    /// The bytes of the head, from offset 0 of the core on, as they were read.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        todo!()
    }

    /// Processor architecture.
    #[must_use]
    pub fn machine(&self) -> Machine {
        todo!()
    }

    /// `PT_LOAD` segments in the order of the program headers.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        todo!()
    }

    /// Threads in note order: the kernel writes the crashing thread first.
    #[must_use]
    pub fn threads(&self) -> &[Thread] {
        todo!()
    }

    /// `NT_PRPSINFO`.
    #[must_use]
    pub fn process(&self) -> Option<&ProcessInfo> {
        todo!()
    }

    /// `NT_SIGINFO`, else the signal of the first NT_PRSTATUS.
    #[must_use]
    pub fn signal(&self) -> Option<SignalInfo> {
        todo!()
    }

    /// `NT_AUXV` as (type, value) pairs up to AT_NULL.
    #[must_use]
    pub fn auxv(&self) -> &[(u64, u64)] {
        todo!()
    }

    /// Value of one auxiliary vector entry (`getauxval(3)`), such as `AT_PHDR` 3, `AT_SYSINFO_EHDR` 33.
    #[must_use]
    pub fn aux(&self, _kind: u64) -> Option<u64> {
        todo!()
    }

    /// `NT_FILE`, in address order.
    #[must_use]
    pub fn mappings(&self) -> &[Mapping] {
        todo!()
    }

    /// Length in bytes of the whole core as the program headers promise: `max(p_offset + p_filesz)`.
    #[must_use]
    pub fn expected_len(&self) -> u64 {
        todo!()
    }

    /// What is there of a core of which `found` bytes exist.
    #[must_use]
    pub fn completeness(&self, _found: u64) -> Completeness {
        todo!()
    }

    /// Modules (mapped ELF files and the vdso), in address order, with build-ids as far as `memory`
    /// holds the pages. Without NT_FILE: from the link map (AT_PHDR, DT_DEBUG).
    #[must_use]
    pub fn modules(&self, _memory: &dyn crate::Memory) -> Vec<Module> {
        todo!()
    }
}
