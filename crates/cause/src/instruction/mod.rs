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

#[cfg(test)]
#[cfg(feature = "disassemble")]
mod tests {
    use super::*;

    fn x86(bytes: &[u8], set: &[(u16, u64)]) -> Instruction {
        let mut registers = Registers::new(Machine::X86_64);
        for (number, value) in set {
            registers.set(*number, Some(*value));
        }
        decode(Machine::X86_64, Avma(0x1000), bytes, Some(&registers)).unwrap()
    }

    fn arm(word: u32, set: &[(u16, u64)]) -> Instruction {
        let mut registers = Registers::new(Machine::Aarch64);
        for (number, value) in set {
            registers.set(*number, Some(*value));
        }
        let bytes = word.to_le_bytes();
        decode(Machine::Aarch64, Avma(0x1000), &bytes, Some(&registers)).unwrap()
    }

    #[test]
    fn x86_64_addresses_follow_from_registers() {
        // rax 0, rcx 2, rbx 3.
        let found = x86(&[0x8b, 0x44, 0x8b, 0x18], &[(3, 0x5000), (2, 2)]);
        assert_eq!(found.text, "mov eax, [rbx+rcx*4+0x18]");
        let access = &found.accesses[0];
        assert_eq!((access.address, access.size), (Some(0x5020), 4));
        assert_eq!(access.mode, AccessMode::Read);
        assert!(access.touches(0x5023) && !access.touches(0x5024));
        let relative = x86(&[0x48, 0x8b, 0x05, 0x10, 0, 0, 0], &[]);
        assert_eq!(relative.accesses[0].address, Some(0x1017));
        assert_eq!(relative.filling, Some(Filling::Load { to: 0 }));
        let thread_local = x86(&[0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0], &[]);
        assert_eq!(thread_local.accesses[0].address, None);
    }

    #[test]
    fn x86_64_instructions_are_classified() {
        assert_eq!(x86(&[0x0f, 0x0b], &[]).flow, Flow::Trap(None));
        assert_eq!(x86(&[0xcc], &[]).flow, Flow::Breakpoint);
        assert_eq!(x86(&[0xc3], &[]).flow, Flow::Return);
        assert!(x86(&[0xf4], &[]).privileged);
        assert!(matches!(
            x86(&[0xff, 0x50, 0x10], &[]).flow,
            Flow::Call(Operand::Memory(0))
        ));
        let divide = x86(&[0xf7, 0xf9], &[(2, 0)]);
        assert!(matches!(
            divide.flow,
            Flow::Divide {
                signed: true,
                size: 4,
                ..
            }
        ));
        assert_eq!(x86(&[0x66, 0x0f, 0x6f, 0x00], &[]).alignment, Some(16));
        let wide = x86(&[0x62, 0xf1, 0x7c, 0x48, 0x28, 0xc1], &[]);
        assert_eq!(wide.features, ["AVX512F"]);
        assert!(x86(&[0x48, 0x89, 0xd8], &[]).features.is_empty());
        assert!(decode(Machine::X86_64, Avma(0), &[0x06], None).is_none());
    }

    #[test]
    fn aarch64_addresses_follow_from_registers() {
        // ldr w0, [x1, #24]
        let found = arm(0xb940_1820, &[(1, 0x5000)]);
        assert_eq!(found.accesses[0].address, Some(0x5018));
        assert_eq!(found.accesses[0].size, 4);
        assert_eq!(found.accesses[0].mode, AccessMode::Read);
        // stp x29, x30, [sp, #-32]!
        let pair = arm(0xa9be_7bfd, &[(31, 0x8000)]);
        assert_eq!(pair.accesses[0].address, Some(0x7fe0));
        assert_eq!(
            (pair.accesses[0].size, pair.accesses[0].mode),
            (16, AccessMode::Write)
        );
        assert_eq!(pair.writes, [31]);
        // ldr x0, [x1, x2, lsl #3]
        let indexed = arm(0xf862_7820, &[(1, 0x5000), (2, 2)]);
        assert_eq!(indexed.accesses[0].address, Some(0x5010));
        // strb w0, [x1]
        let byte = arm(0x3900_0020, &[(1, 0x10)]);
        assert_eq!(
            (byte.accesses[0].size, byte.accesses[0].mode),
            (1, AccessMode::Write)
        );
    }

    #[test]
    fn aarch64_instructions_are_classified() {
        // blr x3; ret; brk #1000; udf #0; bl .+8; svc #0.
        assert!(
            matches!(arm(0xd63f_0060, &[]).flow, Flow::Call(Operand::Register(ref to)) if to.number == 3)
        );
        assert_eq!(arm(0xd65f_03c0, &[]).flow, Flow::Return);
        assert_eq!(arm(0xd420_7d00, &[]).flow, Flow::Trap(Some(1000)));
        assert_eq!(arm(0x0000_0000, &[]).flow, Flow::Trap(Some(0)));
        assert_eq!(
            arm(0x9400_0002, &[]).flow,
            Flow::Call(Operand::Constant(0x1008))
        );
        assert_eq!(arm(0xd400_0001, &[]).flow, Flow::SystemCall);
        assert_eq!(
            arm(0xaa13_03e0, &[]).filling,
            Some(Filling::Copy { to: 0, from: 19 })
        );
    }
}
