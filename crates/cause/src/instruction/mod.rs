//! One machine instruction: what it reads, writes and does, with the values of its registers.
//!
//! Without the feature `disassemble` nothing is decoded, and everything that asks gets `None`.

#[cfg(feature = "disassemble")]
mod aarch64;
#[cfg(feature = "disassemble")]
mod x86_64;

use cdh_elfcore::{Avma, Machine, Registers};

/// Longest instruction, in bytes (x86_64).
pub(crate) const LONGEST: usize = 15;

/// A decoded instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Where it is.
    pub at: Avma,
    /// Its bytes.
    pub length: usize,
    /// In the syntax of Intel or Arm.
    pub text: String,
    /// Memory that it accesses, in the order of its operands.
    pub accesses: Vec<Access>,
    /// What it does.
    pub flow: Flow,
    /// Registers that it reads, with their values.
    pub reads: Vec<RegisterValue>,
    /// Registers that it changes, by DWARF number.
    pub writes: Vec<u16>,
    /// What it does if it only fills a full register.
    pub filling: Option<Filling>,
    /// CPU features that it needs beyond the base of its architecture.
    pub features: Vec<String>,
    /// Whether only the kernel may execute it.
    pub privileged: bool,
    /// The multiple of bytes that its memory operand must be aligned to.
    pub alignment: Option<u64>,
}

/// One access to memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Effective address, if all registers are known.
    pub address: Option<u64>,
    /// Bytes; 0 if unknown.
    pub size: u64,
    /// Read, written or both.
    pub mode: AccessMode,
    /// Base register.
    pub base: Option<RegisterValue>,
    /// Index register and its scale.
    pub index: Option<(RegisterValue, u64)>,
    /// Constant that is added.
    pub displacement: i64,
    /// Whether the processor uses the stack segment: non-canonical addresses raise SIGBUS.
    pub is_stack: bool,
}

/// How memory is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessMode {
    /// Read.
    Read,
    /// Written.
    Write,
    /// Read and written.
    Update,
}

/// A full register that gets a value from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filling {
    /// From memory: the instruction's only access.
    Load {
        /// DWARF number of the register.
        to: u16,
    },
    /// From another register.
    Copy {
        /// DWARF number of the register.
        to: u16,
        /// DWARF number of the other one.
        from: u16,
    },
}

/// A register and its value in the crashing thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterValue {
    /// DWARF number.
    pub number: u16,
    /// Name of the full register: `rax`, `x0`.
    pub name: String,
    /// The value, if it is known.
    pub value: Option<u64>,
}

/// What an instruction does beyond moving data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The next instruction follows.
    Next,
    /// Calls a function.
    Call(Operand),
    /// Jumps.
    Jump(Operand),
    /// Returns.
    Return,
    /// Divides integers; of x86_64.
    Divide {
        /// The divisor.
        divisor: Operand,
        /// Whether it is signed.
        signed: bool,
        /// Bytes of the divisor.
        size: u64,
    },
    /// `ud2`, `udf`, `brk`: raises a signal on purpose. The number is that of `udf` and `brk`.
    Trap(Option<u64>),
    /// `int3`: a breakpoint.
    Breakpoint,
    /// A system call.
    SystemCall,
}

/// Where a value or a target comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A constant.
    Constant(u64),
    /// A register.
    Register(RegisterValue),
    /// The access at this index.
    Memory(usize),
    /// Anything else.
    Other,
}

/// Decodes the instruction at `at` from the `bytes` there. `None` if they are not an instruction, or if this build
/// has no disassembler.
#[must_use]
pub fn decode(
    machine: Machine,
    at: Avma,
    bytes: &[u8],
    registers: Option<&Registers>,
) -> Option<Instruction> {
    #[cfg(feature = "disassemble")]
    match machine {
        Machine::X86_64 => return x86_64::decode(at, bytes, registers),
        Machine::Aarch64 => return aarch64::decode(at, bytes, registers),
        _ => {}
    }
    let _ = (machine, at, bytes, registers);
    None
}

/// Whether this build decodes instructions.
#[must_use]
pub(crate) fn is_built_in() -> bool {
    cfg!(feature = "disassemble")
}

impl Access {
    /// Whether the access touches `at`.
    #[must_use]
    pub fn touches(&self, at: u64) -> bool {
        let size = self.size.max(1);
        self.address
            .is_some_and(|start| at >= start && at.wrapping_sub(start) < size)
    }

    /// The values that the address was made of.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &RegisterValue> {
        self.base
            .iter()
            .chain(self.index.iter().map(|(index, _)| index))
    }
}
