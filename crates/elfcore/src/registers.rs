//! Registers of one thread in DWARF numbering.

use std::fmt;

use crate::{Avma, Machine};

/// Registers whose DWARF number is their index.
const PLAIN: u16 = 32;
/// Where user addresses end: aarch64 kernels give addresses of 48 bits unless a program asks for more.
const AARCH64_ADDRESS_BITS: u32 = 48;

/// General registers of one thread, by DWARF register number.
///
/// Numbers and names are those of the machine's table. Machines whose ABI has no number for the program counter have
/// it under [`Registers::pc_number`].
#[derive(Clone, PartialEq, Eq)]
pub struct Registers {
    machine: Machine,
    /// A bit for each register whose value is known; the values of others are 0. A core has thousands of
    /// these, and each frame copies one.
    known: u64,
    /// Bits of a return address that are not part of the address: pointer authentication (aarch64), the
    /// instruction set (arm).
    not_address: u64,
    values: [u64; Self::COUNT],
}

impl fmt::Debug for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.named().into_iter();
        f.debug_map()
            .entries(named.map(|(name, value)| (name, format!("{value:#x}"))))
            .finish()
    }
}

impl Registers {
    /// Most registers that are carried.
    pub const COUNT: usize = 34;

    /// All unknown.
    #[must_use]
    pub fn new(machine: Machine) -> Self {
        Self {
            machine,
            known: 0,
            not_address: match machine {
                Machine::Aarch64 => u64::MAX << AARCH64_ADDRESS_BITS,
                Machine::Arm => 1,
                _ => 0,
            },
            values: [0; Self::COUNT],
        }
    }

    /// All unknown, of another frame of the same thread.
    #[must_use]
    pub fn of_other_frame(&self) -> Self {
        Self {
            not_address: self.not_address,
            ..Self::new(self.machine)
        }
    }

    /// The architecture that gives the numbers their meaning.
    #[must_use]
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// Sets which bits of a return address hold a pointer authentication code (`NT_ARM_PAC_MASK`).
    pub(crate) fn set_authentication_mask(&mut self, mask: u64) {
        // The hardware ignores the top byte, and a code may be there.
        self.not_address = mask | (0xff << 56);
    }

    /// A return address without its pointer authentication code (PAC, Armv8.3) or the bit that selects Thumb.
    #[must_use]
    pub fn plain_address(&self, address: u64) -> u64 {
        address & !self.not_address
    }

    fn index(&self, number: u16) -> Option<usize> {
        if number < PLAIN {
            return Some(number.into());
        }
        let others = self.machine.table().numbers_from_32;
        let at = others.iter().position(|other| *other == number)?;
        at.checked_add(PLAIN.into())
    }

    /// Value of DWARF register `number`, where known.
    #[must_use]
    pub fn get(&self, number: u16) -> Option<u64> {
        self.at(self.index(number)?)
    }

    fn at(&self, index: usize) -> Option<u64> {
        let value = self.values.get(index).copied()?;
        (self.known & (1_u64 << index) != 0).then_some(value)
    }

    /// Sets or forgets DWARF register `number`; numbers that the machine's table does not carry are ignored.
    pub fn set(&mut self, number: u16, value: Option<u64>) {
        if let Some(index) = self.index(number) {
            self.set_at(index, value);
        }
    }

    /// Sets the register with this index in the machine's table.
    pub(crate) fn set_at(&mut self, index: usize, value: Option<u64>) {
        let Some(slot) = self.values.get_mut(index) else {
            return;
        };
        *slot = value.unwrap_or(0);
        let bit = 1_u64 << index;
        self.known = if value.is_some() {
            self.known | bit
        } else {
            self.known & !bit
        };
    }

    /// Number of the program counter (the return address column's meaning in a frame).
    #[must_use]
    pub fn pc_number(&self) -> u16 {
        self.machine.table().pc
    }

    /// DWARF number of the stack pointer.
    #[must_use]
    pub fn sp_number(&self) -> u16 {
        self.machine.table().sp
    }

    /// DWARF number of the frame pointer.
    #[must_use]
    pub fn fp_number(&self) -> u16 {
        self.machine.table().fp
    }

    /// Program counter.
    #[must_use]
    pub fn pc(&self) -> Option<Avma> {
        self.get(self.pc_number()).map(Avma)
    }

    /// Stack pointer.
    #[must_use]
    pub fn sp(&self) -> Option<Avma> {
        self.get(self.sp_number()).map(Avma)
    }

    /// Frame pointer.
    #[must_use]
    pub fn fp(&self) -> Option<Avma> {
        self.get(self.fp_number()).map(Avma)
    }

    /// The register in which a call leaves its return address, without the bits that are not part of the address.
    #[must_use]
    pub fn link(&self) -> Option<u64> {
        let number = self.machine.table().link?;
        self.get(number).map(|address| self.plain_address(address))
    }

    /// Name and value of every known register, in DWARF order.
    #[must_use]
    pub fn named(&self) -> Vec<(String, u64)> {
        let names = self.machine.table().names;
        let known = |index: usize| {
            let name = names
                .get(index)
                .map_or_else(|| format!("r{index}"), |name| (*name).to_owned());
            Some((name, self.at(index)?))
        };
        (0..Self::COUNT).filter_map(known).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_that_a_machine_does_not_carry_are_ignored() {
        let mut registers = Registers::new(Machine::Ppc64Le);
        // 33 is a floating-point register there, 65 the link register.
        for number in [1, 33, 65, 66, registers.pc_number()] {
            registers.set(number, Some(number.into()));
        }
        let named = registers.named();
        let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["r1", "lr", "pc"]);
        assert_eq!((registers.get(33), registers.link()), (None, Some(65)));
    }

    #[test]
    fn return_address_loses_the_bits_of_the_mask_and_no_others() {
        let mut registers = Registers::new(Machine::Aarch64);
        assert_eq!(
            registers.plain_address(0x0042_ffff_8000_1000),
            0xffff_8000_1000
        );
        registers.set_authentication_mask(0x0070_0000_0000_0000);
        assert_eq!(
            registers.plain_address(0x805f_ffff_8000_1000),
            0x000f_ffff_8000_1000
        );
        let other = registers.of_other_frame();
        assert_eq!(
            other.plain_address(0x007f_0000_0000_0000),
            0x000f_0000_0000_0000
        );
        assert_eq!(
            Registers::new(Machine::Arm).plain_address(0x1_0001),
            0x1_0000
        );
    }
}
