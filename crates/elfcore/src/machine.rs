//! The processor architecture of an ELF file.

use std::fmt;

use crate::bytes::array_at;

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

impl Machine {
    /// As [`Self::from_elf`], of a 32-bit file: x32 has the number of x86_64.
    pub(crate) fn from_narrow_elf(e_machine: u16) -> Self {
        Self::Other(e_machine)
    }

    /// Whether stacks are unwound. Of other machines the head of a core is read, and nothing else.
    #[must_use]
    pub fn is_unwound(self) -> bool {
        !matches!(self, Self::Other(_))
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::X86_64 => f.write_str("x86_64"),
            Self::Aarch64 => f.write_str("aarch64"),
            Self::Other(number) => match name(*number) {
                Some(name) => f.write_str(name),
                None => write!(f, "machine {number}"),
            },
        }
    }
}

/// Names of `e_machine` (elf.h) in little-endian files, as `uname -m` prints them.
fn name(e_machine: u16) -> Option<&'static str> {
    Some(match e_machine {
        3 => "i386",
        8 => "mips64el",
        21 => "ppc64le",
        40 => "arm",
        // A 64-bit file of this number is x86_64.
        62 => "x32",
        243 => "riscv64",
        258 => "loongarch64",
        _ => return None,
    })
}

/// Names an ELF file that is not read, by its first 20 bytes: `big-endian s390x`, `32-bit mips`.
pub(crate) fn describe_unsupported(data: &[u8]) -> String {
    let (class, order) = (data.get(4).copied(), data.get(5).copied());
    let is_big = order == Some(2);
    let field = array_at(data, 18).map(|field: [u8; 2]| match is_big {
        true => u16::from_be_bytes(field),
        false => u16::from_le_bytes(field),
    });
    let name = field.and_then(|number| match (number, class) {
        (2, _) => Some("sparc"),
        (8, Some(1)) => Some("mips"),
        (8, _) => Some("mips64"),
        (15, _) => Some("parisc"),
        (20, _) => Some("ppc"),
        (21, _) => Some("ppc64"),
        (22, Some(1)) => Some("s390"),
        (22, _) => Some("s390x"),
        (43, _) => Some("sparc64"),
        (183, _) => Some("aarch64"),
        (243, Some(1)) => Some("riscv32"),
        (number, _) => name(number),
    });
    let kind = match (class, is_big) {
        (Some(1), true) => "32-bit big-endian",
        (_, true) => "big-endian",
        (Some(1), false) => "32-bit",
        _ => "unknown-class",
    };
    match (name, field) {
        (Some(name), _) => format!("{kind} {name}"),
        (None, Some(number)) => format!("{kind} machine {number}"),
        (None, None) => kind.to_owned(),
    }
}
