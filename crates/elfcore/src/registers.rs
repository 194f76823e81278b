//! Registers of one thread in DWARF numbering.

use std::fmt;

use crate::{Avma, Machine};

/// General registers of one thread, by DWARF register number.
///
/// x86_64 (System V psABI, figure 3.36): 0..=15 `rax rdx rcx rbx rsi rdi rbp rsp r8..r15`, 16 `rip`.
/// aarch64 (DWARF for the Arm 64-bit Architecture): 0..=30 `x0..x30`, 31 `sp`, 32 `pc`.
#[derive(Clone, PartialEq, Eq)]
pub struct Registers {
    machine: Machine,
    /// A bit for each register whose value is known; the values of others are 0. A core has thousands of
    /// these, and each frame copies one.
    known: u64,
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
    /// Highest register number + 1 that is carried.
    pub const COUNT: usize = 33;

    /// All unknown.
    #[must_use]
    pub fn new(machine: Machine) -> Self {
        Self {
            machine,
            known: 0,
            values: [0; Self::COUNT],
        }
    }

    /// The architecture that gives the numbers their meaning.
    #[must_use]
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// Value of DWARF register `number`, where known.
    #[must_use]
    pub fn get(&self, number: u16) -> Option<u64> {
        let value = self.values.get(usize::from(number)).copied()?;
        (self.known & (1_u64 << number) != 0).then_some(value)
    }

    /// Sets or forgets DWARF register `number`; other numbers are ignored.
    pub fn set(&mut self, number: u16, value: Option<u64>) {
        let Some(slot) = self.values.get_mut(usize::from(number)) else {
            return;
        };
        *slot = value.unwrap_or(0);
        let bit = 1_u64 << number;
        self.known = if value.is_some() {
            self.known | bit
        } else {
            self.known & !bit
        };
    }

    /// DWARF number of the program counter (the return address column's meaning in a frame).
    #[must_use]
    pub fn pc_number(&self) -> u16 {
        if self.machine == Machine::Aarch64 {
            32
        } else {
            16
        }
    }

    /// DWARF number of the stack pointer.
    #[must_use]
    pub fn sp_number(&self) -> u16 {
        if self.machine == Machine::Aarch64 {
            31
        } else {
            7
        }
    }

    /// DWARF number of the frame pointer.
    #[must_use]
    pub fn fp_number(&self) -> u16 {
        if self.machine == Machine::Aarch64 {
            29
        } else {
            6
        }
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

    /// Name and value of every known register, in DWARF order.
    #[must_use]
    pub fn named(&self) -> Vec<(String, u64)> {
        const X86_64: [&str; 17] = [
            "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11",
            "r12", "r13", "r14", "r15", "rip",
        ];
        let name = |number: usize| match (self.machine, number) {
            (Machine::Aarch64, 31) => "sp".to_owned(),
            (Machine::Aarch64, 32) => "pc".to_owned(),
            (Machine::Aarch64, _) => format!("x{number}"),
            _ => X86_64
                .get(number)
                .map_or_else(|| format!("r{number}"), |name| (*name).to_owned()),
        };
        let known = |number: u16| Some((name(usize::from(number)), self.get(number)?));
        (0..Self::COUNT as u16).filter_map(known).collect()
    }
}
