//! The processor architecture of an ELF file.

mod table;

use std::fmt;

use crate::bytes::array_at;
use crate::{Class, Encoding};

/// `e_machine` with class and byte order, as far as they matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Machine {
    /// EM_X86_64 (62), 64 bits.
    X86_64,
    /// EM_AARCH64 (183), little-endian.
    Aarch64,
    /// EM_RISCV (243), 64 bits.
    Riscv64,
    /// EM_PPC64 (21), little-endian.
    Ppc64Le,
    /// EM_S390 (22), 64 bits, big-endian.
    S390x,
    /// EM_386 (3).
    I386,
    /// EM_X86_64 (62), addresses of 32 bits.
    X32,
    /// EM_ARM (40), little-endian.
    Arm,
    /// Any other `e_machine` of a 64-bit little-endian file: stored, not analysed.
    Other(u16),
}

impl Machine {
    /// From `e_machine` of the ELF header of a 64-bit little-endian file.
    #[must_use]
    pub fn from_elf(e_machine: u16) -> Self {
        Self::of_elf(Encoding::LITTLE_64, e_machine).unwrap_or(Self::Other(e_machine))
    }

    /// By class, byte order and `e_machine`; `None` for one whose files are not read.
    #[must_use]
    pub fn of_elf(encoding: Encoding, e_machine: u16) -> Option<Self> {
        let mut known = Self::KNOWN.into_iter();
        let is_it = |machine: &Self| {
            let table = machine.table();
            table.number == e_machine && table.encoding == encoding
        };
        let other = (encoding == Encoding::LITTLE_64).then_some(Self::Other(e_machine));
        known.find(is_it).or(other)
    }

    /// By the name that [`fmt::Display`] gives it; `None` for one that is not analysed.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let mut known = Self::KNOWN.into_iter();
        known.find(|machine| machine.table().name == name)
    }

    /// Whether stacks are unwound. Of other machines the head of a core is read, and nothing else.
    #[must_use]
    pub fn is_unwound(self) -> bool {
        !matches!(self, Self::Other(_))
    }

    /// How its numbers are written.
    #[must_use]
    pub fn encoding(self) -> Encoding {
        self.table().encoding
    }

    /// How a register is written on the stack: x32 has registers of eight bytes and addresses of four.
    #[must_use]
    pub fn register_encoding(self) -> Encoding {
        self.table().register_encoding
    }

    /// The bits of an address.
    #[must_use]
    pub fn address_mask(self) -> u64 {
        match self.encoding().class {
            Class::Narrow => u32::MAX.into(),
            Class::Wide => u64::MAX,
        }
    }

    /// DWARF number of the register in which a call leaves its return address; `None` where it is pushed.
    #[must_use]
    pub fn link_register(self) -> Option<u16> {
        self.table().link
    }

    /// Whether the canonical frame address of a frame is the stack pointer of its caller.
    #[must_use]
    pub fn cfa_is_stack_pointer(self) -> bool {
        self.table().cfa_is_sp
    }

    /// The address without what hardware ignores in it. aarch64 ignores the top byte of data addresses, and memory
    /// tags (MTE) are stored there.
    #[must_use]
    pub fn untagged(self, address: u64) -> u64 {
        match self {
            Self::Aarch64 => address & (u64::MAX >> 8),
            _ => address,
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(number) => match name(*number) {
                Some(name) => f.write_str(name),
                None => write!(f, "machine {number}"),
            },
            known => f.write_str(known.table().name),
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

/// Names an ELF file that is not read, by its first 20 bytes: `big-endian ppc64`, `32-bit mips`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_is_known_by_class_order_and_number() {
        for machine in Machine::KNOWN {
            let table = machine.table();
            assert_eq!(Machine::of_elf(table.encoding, table.number), Some(machine));
            assert_eq!(Machine::from_name(&machine.to_string()), Some(machine));
            assert_eq!(table.slots.len(), table.names.len(), "{machine}");
        }
        assert_eq!(Machine::of_elf(Encoding::BIG_64, 21), None);
        assert_eq!(Machine::of_elf(Encoding::LITTLE_32, 8), None);
        assert_eq!(Machine::from_elf(258), Machine::Other(258));
    }

    #[test]
    fn top_byte_of_an_aarch64_address_is_ignored() {
        assert_eq!(
            Machine::Aarch64.untagged(0x0300_ffff_0000_1234),
            0xffff_0000_1234
        );
        assert_eq!(
            Machine::X86_64.untagged(0x0300_ffff_0000_1234),
            0x0300_ffff_0000_1234
        );
    }
}
