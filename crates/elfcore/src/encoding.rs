//! How the numbers of a file or a process are written: the width of addresses and the order of bytes.
//!
//! All reads of numbers whose order depends on the machine go through [`Encoding`].

use crate::bytes::array_at;

/// Order of the bytes of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// ELFDATA2LSB.
    Little,
    /// ELFDATA2MSB.
    Big,
}

/// How wide the addresses and offsets of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
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
            Self::Wide => 64,
        }
    }

    /// Size of `Elf32_Phdr` or `Elf64_Phdr`, bytes.
    pub(crate) fn program_header_size(self) -> usize {
        match self {
            Self::Narrow => 32,
            Self::Wide => 56,
        }
    }
}

/// Width and byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Encoding {
    /// Width of addresses.
    pub class: Class,
    /// Order of bytes.
    pub order: ByteOrder,
}

impl Encoding {
    /// 64 bits, little-endian: x86_64, aarch64 and most others.
    pub const LITTLE_64: Self = Self {
        class: Class::Wide,
        order: ByteOrder::Little,
    };
    /// 32 bits, little-endian.
    pub const LITTLE_32: Self = Self {
        class: Class::Narrow,
        order: ByteOrder::Little,
    };
    /// 64 bits, big-endian.
    pub const BIG_64: Self = Self {
        class: Class::Wide,
        order: ByteOrder::Big,
    };

    /// By `EI_CLASS` and `EI_DATA` of an ELF file.
    pub(crate) fn of_elf(data: &[u8]) -> Option<Self> {
        let class = match data.get(4)? {
            1 => Class::Narrow,
            2 => Class::Wide,
            _ => return None,
        };
        let order = match data.get(5)? {
            1 => ByteOrder::Little,
            2 => ByteOrder::Big,
            _ => return None,
        };
        Some(Self { class, order })
    }

    /// Bytes of an address.
    #[must_use]
    pub fn word_size(self) -> usize {
        match self.class {
            Class::Narrow => 4,
            Class::Wide => 8,
        }
    }

    /// Two bytes at `at`.
    #[must_use]
    pub fn u16_at(self, data: &[u8], at: usize) -> Option<u16> {
        let bytes = array_at(data, at)?;
        Some(match self.order {
            ByteOrder::Little => u16::from_le_bytes(bytes),
            ByteOrder::Big => u16::from_be_bytes(bytes),
        })
    }

    /// Four bytes at `at`.
    #[must_use]
    pub fn u32_at(self, data: &[u8], at: usize) -> Option<u32> {
        let bytes = array_at(data, at)?;
        Some(match self.order {
            ByteOrder::Little => u32::from_le_bytes(bytes),
            ByteOrder::Big => u32::from_be_bytes(bytes),
        })
    }

    /// Four bytes at `at`, signed.
    pub(crate) fn i32_at(self, data: &[u8], at: usize) -> Option<i32> {
        self.u32_at(data, at).map(u32::cast_signed)
    }

    /// Eight bytes at `at`.
    #[must_use]
    pub fn u64_at(self, data: &[u8], at: usize) -> Option<u64> {
        let bytes = array_at(data, at)?;
        Some(match self.order {
            ByteOrder::Little => u64::from_le_bytes(bytes),
            ByteOrder::Big => u64::from_be_bytes(bytes),
        })
    }

    /// A word at `at`: four bytes or eight.
    #[must_use]
    pub fn word_at(self, data: &[u8], at: usize) -> Option<u64> {
        match self.class {
            Class::Narrow => self.u32_at(data, at).map(u64::from),
            Class::Wide => self.u64_at(data, at),
        }
    }

    /// The word with this index in a list of words.
    pub(crate) fn nth_word(self, data: &[u8], index: usize) -> Option<u64> {
        self.word_at(data, index.checked_mul(self.word_size())?)
    }

    /// Four bytes as a number.
    #[must_use]
    pub fn u32_of(self, bytes: [u8; 4]) -> u32 {
        match self.order {
            ByteOrder::Little => u32::from_le_bytes(bytes),
            ByteOrder::Big => u32::from_be_bytes(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_in_the_order_and_width_of_the_machine() {
        let data = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        assert_eq!(
            Encoding::LITTLE_64.word_at(&data, 0),
            Some(0x0807_0605_0403_0201)
        );
        assert_eq!(
            Encoding::BIG_64.word_at(&data, 1),
            Some(0x0203_0405_0607_0809)
        );
        assert_eq!(Encoding::LITTLE_32.nth_word(&data, 1), Some(0x0807_0605));
        assert_eq!(Encoding::BIG_64.u16_at(&data, 7), Some(0x0809));
        assert_eq!(Encoding::BIG_64.u64_at(&data, 2), None);
        assert_eq!(Encoding::LITTLE_32.nth_word(&data, usize::MAX), None);
    }
}
