//! What differs between machines, as data: one row each.
//!
//! Sources: `elf_gregset_t` and `struct elf_prstatus` of each architecture in the kernel (`arch/*/include/asm/elf.h`,
//! `include/linux/compat.h`), and the DWARF register numbers of each ABI.

use super::Machine;
use crate::Encoding;

/// A number that no register has.
const NO_REGISTER: u16 = 0xff00;
/// No place in `pr_reg`.
const NONE: u8 = 0xff;

/// One machine.
#[derive(Debug)]
pub(crate) struct MachineTable {
    /// As `uname -m` prints it.
    pub(crate) name: &'static str,
    /// `e_machine`.
    pub(super) number: u16,
    pub(crate) encoding: Encoding,
    /// How a register is written on a stack and in `pr_reg`.
    pub(crate) register_encoding: Encoding,
    /// Where `pr_reg` begins in `NT_PRSTATUS`, bytes.
    pub(crate) registers_at: usize,
    /// For each register that is carried: its slot in `pr_reg`.
    pub(crate) slots: &'static [u8],
    /// DWARF numbers of the carried registers from index 32 on. Those before have their index as their number.
    pub(crate) numbers_from_32: &'static [u16],
    /// Names of the carried registers.
    pub(crate) names: &'static [&'static str],
    /// DWARF numbers.
    pub(crate) pc: u16,
    pub(crate) sp: u16,
    pub(crate) fp: u16,
    /// Where a call leaves its return address; `None` where that is the stack.
    pub(crate) link: Option<u16>,
    /// Whether the canonical frame address is the caller's stack pointer.
    pub(crate) cfa_is_sp: bool,
}

/// `siginfo`, signals, ids and times come first: 112 bytes where `long` has eight.
const WIDE_REGISTERS_AT: usize = 112;
const NARROW_REGISTERS_AT: usize = 72;

const X86_64_NAMES: &[&str] = &[
    "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15", "rip",
];
/// `struct user_regs_struct` (`asm/user_64.h`), for rax rdx rcx rbx rsi rdi rbp rsp r8..r15 rip.
const X86_64_SLOTS: &[u8] = &[10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0, 16];

const X86_64: MachineTable = MachineTable {
    name: "x86_64",
    number: 62,
    encoding: Encoding::LITTLE_64,
    register_encoding: Encoding::LITTLE_64,
    registers_at: WIDE_REGISTERS_AT,
    slots: X86_64_SLOTS,
    numbers_from_32: &[],
    names: X86_64_NAMES,
    pc: 16,
    sp: 7,
    fp: 6,
    link: None,
    cfa_is_sp: true,
};

/// x32 is x86_64 with addresses of 32 bits: registers and what a call pushes have 64.
const X32: MachineTable = MachineTable {
    name: "x32",
    encoding: Encoding::LITTLE_32,
    registers_at: NARROW_REGISTERS_AT,
    ..X86_64
};

/// `struct user_regs_struct32` (`asm/user32.h`): ebx ecx edx esi edi ebp eax ds es fs gs orig_eax eip cs eflags
/// esp ss.
const I386: MachineTable = MachineTable {
    name: "i386",
    number: 3,
    encoding: Encoding::LITTLE_32,
    register_encoding: Encoding::LITTLE_32,
    registers_at: NARROW_REGISTERS_AT,
    slots: &[6, 1, 2, 0, 15, 5, 3, 4, 12],
    numbers_from_32: &[],
    names: &[
        "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip",
    ],
    pc: 8,
    sp: 4,
    fp: 5,
    link: None,
    cfa_is_sp: true,
};

/// `struct user_pt_regs`: x0..x30, sp, pc, the order of DWARF for the Arm 64-bit Architecture.
const AARCH64: MachineTable = MachineTable {
    name: "aarch64",
    number: 183,
    encoding: Encoding::LITTLE_64,
    register_encoding: Encoding::LITTLE_64,
    registers_at: WIDE_REGISTERS_AT,
    slots: &[
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
        25, 26, 27, 28, 29, 30, 31, 32,
    ],
    numbers_from_32: &[32],
    names: &[
        "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13",
        "x14", "x15", "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26",
        "x27", "x28", "x29", "x30", "sp", "pc",
    ],
    pc: 32,
    sp: 31,
    fp: 29,
    link: Some(30),
    cfa_is_sp: true,
};

/// r0..r15, cpsr, orig_r0 (DWARF for the Arm Architecture). r11 is the frame pointer of A32 code, r7 of Thumb.
const ARM: MachineTable = MachineTable {
    name: "arm",
    number: 40,
    encoding: Encoding::LITTLE_32,
    register_encoding: Encoding::LITTLE_32,
    registers_at: NARROW_REGISTERS_AT,
    slots: &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    numbers_from_32: &[],
    names: &[
        "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "sp",
        "lr", "pc",
    ],
    pc: 15,
    sp: 13,
    fp: 11,
    link: Some(14),
    cfa_is_sp: true,
};

/// `struct user_regs_struct` (`asm/ptrace.h`): pc, then x1..x31 (RISC-V ABIs, DWARF). The ABI calls 64 the alternate
/// return column: where a signal interrupted.
const RISCV64: MachineTable = MachineTable {
    name: "riscv64",
    number: 243,
    encoding: Encoding::LITTLE_64,
    register_encoding: Encoding::LITTLE_64,
    registers_at: WIDE_REGISTERS_AT,
    slots: &[
        NONE, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23,
        24, 25, 26, 27, 28, 29, 30, 31, 0,
    ],
    numbers_from_32: &[64],
    names: &[
        "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4",
        "a5", "a6", "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4",
        "t5", "t6", "pc",
    ],
    pc: 64,
    sp: 2,
    fp: 8,
    link: Some(1),
    cfa_is_sp: true,
};

/// `struct pt_regs`: gpr 0..31, nip, msr, orig_gpr3, ctr, link, … (64-bit ELF V2 ABI: 65 is the link register;
/// the kernel's vdso calls the program counter 67).
const PPC64LE: MachineTable = MachineTable {
    name: "ppc64le",
    number: 21,
    encoding: Encoding::LITTLE_64,
    register_encoding: Encoding::LITTLE_64,
    registers_at: WIDE_REGISTERS_AT,
    slots: &[
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
        25, 26, 27, 28, 29, 30, 31, 36, 32,
    ],
    numbers_from_32: &[65, 67],
    names: &[
        "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "r13",
        "r14", "r15", "r16", "r17", "r18", "r19", "r20", "r21", "r22", "r23", "r24", "r25", "r26",
        "r27", "r28", "r29", "r30", "r31", "lr", "pc",
    ],
    pc: 67,
    sp: 1,
    fp: 31,
    link: Some(65),
    cfa_is_sp: true,
};

/// `s390_regs`: PSW mask and address, r0..r15, … (s390x ELF ABI: 16..31 are floating-point registers, in which leaf
/// functions keep others; 65 is the PSW address). The canonical frame address is 160 bytes above the caller's r15.
const S390X: MachineTable = MachineTable {
    name: "s390x",
    number: 22,
    encoding: Encoding::BIG_64,
    register_encoding: Encoding::BIG_64,
    registers_at: WIDE_REGISTERS_AT,
    slots: &[
        2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, NONE, NONE, NONE, NONE, NONE, NONE,
        NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, 1,
    ],
    numbers_from_32: &[65],
    names: &[
        "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "r13",
        "r14", "r15", "f0", "f2", "f4", "f6", "f1", "f3", "f5", "f7", "f8", "f10", "f12", "f14",
        "f9", "f11", "f13", "f15", "pc",
    ],
    pc: 65,
    sp: 15,
    fp: 11,
    link: Some(14),
    cfa_is_sp: false,
};

/// Of machines that are not analysed only facts that need no registers are read.
const OTHER: MachineTable = MachineTable {
    name: "",
    number: 0,
    encoding: Encoding::LITTLE_64,
    register_encoding: Encoding::LITTLE_64,
    registers_at: WIDE_REGISTERS_AT,
    slots: &[],
    numbers_from_32: &[],
    names: &[],
    pc: NO_REGISTER,
    sp: NO_REGISTER,
    fp: NO_REGISTER,
    link: None,
    cfa_is_sp: true,
};

impl Machine {
    /// The machines that have a table.
    pub(super) const KNOWN: [Self; 8] = [
        Self::X86_64,
        Self::Aarch64,
        Self::Riscv64,
        Self::Ppc64Le,
        Self::S390x,
        Self::I386,
        Self::X32,
        Self::Arm,
    ];

    /// What is particular to it.
    pub(crate) fn table(self) -> &'static MachineTable {
        match self {
            Self::X86_64 => &X86_64,
            Self::Aarch64 => &AARCH64,
            Self::Riscv64 => &RISCV64,
            Self::Ppc64Le => &PPC64LE,
            Self::S390x => &S390X,
            Self::I386 => &I386,
            Self::X32 => &X32,
            Self::Arm => &ARM,
            Self::Other(_) => &OTHER,
        }
    }
}
