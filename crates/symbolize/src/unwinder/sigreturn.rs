//! Signal trampolines known by their code, for C libraries that describe them with no CFI.
//!
//! musl and Go return from a signal handler through two instructions of their own (`mov $15, %rax;
//! syscall`), and so do kernels of some machines. gdb knows them the same way. What the kernel saved lies at the
//! stack pointer.

use cdh_elfcore::{Avma, Machine, Memory, Registers};

use super::cfi::Cache;
use super::code::Ground;
use super::signal_frame::saved_registers;
use super::{Caller, FrameTrust, Step, Stop, Unwinder};

/// `mov $15, %rax; syscall`.
const X86_64: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
/// `mov $15, %eax; syscall`.
const X86_64_SHORT: [u8; 7] = [0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05];
/// `mov x8, #139; svc #0`.
const AARCH64: [u8; 8] = [0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4];
const CACHE_LIMIT: usize = 1 << 16;

/// What a trampoline of another machine leads to, at the stack pointer.
struct Trampoline {
    machine: Machine,
    code: &'static [u8],
    /// Where the program counter was saved.
    pc: u64,
    registers: Saved,
}

/// Where registers were saved.
enum Saved {
    /// One behind the other: where register 0 would be, the first one that is there, and the last one.
    InOrder(u64, u16, u16),
    /// Each of the registers from 0 on, from this place.
    Each(u64, &'static [u64]),
}

/// Places of eax, ecx, edx, ebx, esp, ebp, esi and edi in `struct sigcontext_32`; eip is at 56.
const I386: &[u64] = &[44, 40, 36, 32, 28, 24, 20, 16];

/// From `rt_sigframe` and `sigframe` in `arch/*/kernel/signal.c`. ppc64 has CFI in its vdso.
const TRAMPOLINES: [Trampoline; 9] = [
    // mov $173, %eax; int $0x80, with `siginfo`: signal, two pointers, `siginfo`, then `ucontext`
    Trampoline {
        machine: Machine::I386,
        code: &[0xb8, 173, 0, 0, 0, 0xcd, 0x80],
        pc: 160 + 56,
        registers: Saved::Each(160, I386),
    },
    // pop %eax; mov $119, %eax; int $0x80
    Trampoline {
        machine: Machine::I386,
        code: &[0x58, 0xb8, 119, 0, 0, 0, 0xcd, 0x80],
        pc: 4 + 56,
        registers: Saved::Each(4, I386),
    },
    // li a7, 139; ecall
    Trampoline {
        machine: Machine::Riscv64,
        code: &[0x93, 0x08, 0xb0, 0x08, 0x73, 0, 0, 0],
        pc: 128 + 176,
        registers: Saved::InOrder(128 + 176, 1, 31),
    },
    // svc 173, with `siginfo`
    Trampoline {
        machine: Machine::S390x,
        code: &[0x0a, 173],
        pc: 296 + 40 + 8,
        registers: Saved::InOrder(296 + 40 + 16, 0, 15),
    },
    // svc 119
    Trampoline {
        machine: Machine::S390x,
        code: &[0x0a, 119],
        pc: 176 + 8,
        registers: Saved::InOrder(176 + 16, 0, 15),
    },
    // mov r7, #173; svc 0, with `siginfo`; of A32 and of Thumb
    Trampoline {
        machine: Machine::Arm,
        code: &[173, 0x70, 0xa0, 0xe3, 0, 0, 0, 0xef],
        pc: 160 + 4 * 15,
        registers: Saved::InOrder(160, 0, 14),
    },
    Trampoline {
        machine: Machine::Arm,
        code: &[173, 0x27, 0, 0xdf],
        pc: 160 + 4 * 15,
        registers: Saved::InOrder(160, 0, 14),
    },
    // mov r7, #119; svc 0
    Trampoline {
        machine: Machine::Arm,
        code: &[119, 0x70, 0xa0, 0xe3, 0, 0, 0, 0xef],
        pc: 32 + 4 * 15,
        registers: Saved::InOrder(32, 0, 14),
    },
    Trampoline {
        machine: Machine::Arm,
        code: &[119, 0x27, 0, 0xdf],
        pc: 32 + 4 * 15,
        registers: Saved::InOrder(32, 0, 14),
    },
];

impl Trampoline {
    fn saved_registers(&self, thread: &Registers, sp: Avma, memory: &dyn Memory) -> Registers {
        let mut saved = thread.of_other_frame();
        let words = self.machine.register_encoding();
        let read = |offset: u64| memory.read_word(Avma(sp.0.wrapping_add(offset)), words);
        match self.registers {
            Saved::InOrder(start, first, last) => {
                for number in first..=last {
                    let offset = u64::from(number).saturating_mul(words.word_size() as u64);
                    saved.set(number, read(start.saturating_add(offset)));
                }
            }
            Saved::Each(start, offsets) => {
                for (number, offset) in (0..).zip(offsets) {
                    saved.set(number, read(start.saturating_add(*offset)));
                }
            }
        }
        saved.set(saved.pc_number(), read(self.pc));
        saved
    }
}

pub(super) fn is_trampoline(
    unwinder: &Unwinder<'_>,
    pc: Avma,
    registers: &Registers,
    memory: &dyn Memory,
    cache: &mut Cache,
) -> bool {
    if let Some(&known) = cache.trampolines.get(&pc.0) {
        return known;
    }
    let found = has_code(unwinder, registers.machine(), pc, memory)
        || trampoline(unwinder, registers, memory).is_some();
    if cache.trampolines.len() >= CACHE_LIMIT {
        cache.trampolines.clear();
    }
    cache.trampolines.insert(pc.0, found);
    found
}

/// Whether the trampoline of x86_64 or aarch64 is at an address.
fn has_code(unwinder: &Unwinder<'_>, machine: Machine, at: Avma, memory: &dyn Memory) -> bool {
    match machine {
        Machine::X86_64 => {
            unwinder.code(at, memory) == Some(X86_64)
                || unwinder.code(at, memory) == Some(X86_64_SHORT)
        }
        Machine::Aarch64 => unwinder.code(at, memory) == Some(AARCH64),
        _ => false,
    }
}

/// The stack pointer of the trampoline, if a handler without call frame information returns to it through the
/// return address `address` that was found at `at`; `None` if this is another return address.
pub(super) fn handler_returns_to(
    unwinder: &Unwinder<'_>,
    machine: Machine,
    (at, address): (u64, u64),
    memory: &dyn Memory,
) -> Option<Avma> {
    let is_code = matches!(unwinder.ground(Avma(address)), Ground::Code);
    if !is_code || !has_code(unwinder, machine, Avma(address), memory) {
        return None;
    }
    match machine {
        // The kernel put the address right below what it saved.
        Machine::X86_64 => {
            let sp = Avma(at.checked_add(8)?);
            is_saved_context(sp, memory).then_some(sp)
        }
        Machine::Aarch64 => frame_above(at, memory),
        _ => None,
    }
}

fn trampoline(
    unwinder: &Unwinder<'_>,
    registers: &Registers,
    memory: &dyn Memory,
) -> Option<&'static Trampoline> {
    let (machine, pc) = (registers.machine(), registers.pc()?);
    let mut known = TRAMPOLINES.iter().filter(|known| known.machine == machine);
    let is_at = |code: &[u8]| match code.len() {
        2 => unwinder
            .code::<2>(pc, memory)
            .is_some_and(|found| found == code),
        4 => unwinder
            .code::<4>(pc, memory)
            .is_some_and(|found| found == code),
        7 => unwinder
            .code::<7>(pc, memory)
            .is_some_and(|found| found == code),
        _ => unwinder
            .code::<8>(pc, memory)
            .is_some_and(|found| found == code),
    };
    known.find(|known| is_at(known.code))
}

/// The registers that the signal interrupted.
pub(super) fn interrupted(
    unwinder: &Unwinder<'_>,
    registers: &Registers,
    memory: &dyn Memory,
) -> Step {
    let Some(sp) = registers.sp() else {
        return Err(Stop::NoRule);
    };
    let caller = match trampoline(unwinder, registers, memory) {
        Some(known) => known.saved_registers(registers, sp, memory),
        None => saved_registers(registers, sp, memory),
    };
    if caller.pc().is_none() {
        return Err(Stop::NoMemory(sp));
    }
    Ok(Caller {
        registers: caller,
        trust: FrameTrust::Signal,
        over_signal: true,
    })
}

/// Whether the segment registers of user code are where the kernel saves them (x86_64): `__USER_CS` and
/// `__USER_DS` in `arch/x86/include/asm/segment.h`.
fn is_saved_context(sp: Avma, memory: &dyn Memory) -> bool {
    const SEGMENTS: u64 = 40 + 144;
    let segments = memory.read_u64(Avma(sp.0.wrapping_add(SEGMENTS)));
    segments.is_some_and(|segments| segments & 0xffff == 0x33 && segments >> 48 == 0x2b)
}

/// The frame that the kernel pushed above the frame record at `at` - 8 (aarch64). The record's frame pointer leads
/// to a record behind that frame, with the x29 and x30 of the code that was interrupted (`setup_sigframe`).
fn frame_above(at: u64, memory: &dyn Memory) -> Option<Avma> {
    /// `struct rt_sigframe`. Vectors of more than 1024 bits make it longer: those are not found.
    const SIZE: u64 = 4688;
    let record = memory.read_u64(Avma(at.checked_sub(8)?))?;
    let start = Avma(record.checked_sub(SIZE).filter(|start| *start > at)?);
    let interrupted = (
        memory.read_u64(Avma(record)),
        memory.read_u64(Avma(record.checked_add(8)?)),
    );
    let saved = saved_registers(&Registers::new(Machine::Aarch64), start, memory);
    let is_same = saved.pc().is_some() && (saved.get(29), saved.get(30)) == interrupted;
    is_same.then_some(start)
}
