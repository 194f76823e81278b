//! The processor architecture of an ELF file.

use std::fmt;

/// `e_machine`, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Machine {
    /// EM_X86_64 (62).
    X86_64,
    /// EM_AARCH64 (183).
    Aarch64,
    /// Any other `e_machine`: stored, not analysed.
    Other(u16),
}

impl Machine {
    /// From `e_machine` of the ELF header.
    #[must_use]
    pub fn from_elf(e_machine: u16) -> Self {
        match e_machine {
            62 => Self::X86_64,
            183 => Self::Aarch64,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::X86_64 => f.write_str("x86_64"),
            Self::Aarch64 => f.write_str("aarch64"),
            Self::Other(number) => write!(f, "machine {number}"),
        }
    }
}
