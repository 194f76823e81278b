//! Signal trampolines known by their code, for C libraries that describe them with no CFI.
//!
//! musl and Go return from a signal handler through two instructions of their own (`mov $15, %rax;
//! syscall`). gdb knows them the same way. What the kernel saved lies at the stack pointer.

use cdh_elfcore::{Avma, Machine, Memory, Registers};

use super::cfi::Cache;
use super::{Caller, FrameTrust, Step, Stop, Unwinder};

/// `mov $15, %rax; syscall`.
const X86_64: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
/// `mov $15, %eax; syscall`.
const X86_64_SHORT: [u8; 7] = [0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05];
/// `mov x8, #139; svc #0`.
const AARCH64: [u8; 8] = [0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4];
const CACHE_LIMIT: usize = 1 << 16;

/// Where the kernel keeps DWARF registers 0..=16 in `gregs` (`ucontext_t` + 40), in words.
const X86_64_ORDER: [u64; 17] = [13, 12, 14, 11, 9, 8, 10, 15, 0, 1, 2, 3, 4, 5, 6, 7, 16];
const X86_64_REGISTERS: u64 = 40;
/// siginfo 128, `ucontext_t` up to its registers 176, fault address 8; then x0..x30, sp, pc.
const AARCH64_REGISTERS: u64 = 128 + 176 + 8;

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
    let found = match registers.machine() {
        Machine::X86_64 => {
            unwinder.code(pc, memory) == Some(X86_64)
                || unwinder.code(pc, memory) == Some(X86_64_SHORT)
        }
        Machine::Aarch64 => unwinder.code(pc, memory) == Some(AARCH64),
        _ => false,
    };
    if cache.trampolines.len() >= CACHE_LIMIT {
        cache.trampolines.clear();
    }
    cache.trampolines.insert(pc.0, found);
    found
}

/// The registers that the signal interrupted.
pub(super) fn interrupted(registers: &Registers, memory: &dyn Memory) -> Step {
    let Some(sp) = registers.sp() else {
        return Err(Stop::NoRule);
    };
    let machine = registers.machine();
    let mut caller = registers.of_other_frame();
    let read = |offset: u64| memory.read_u64(Avma(sp.0.wrapping_add(offset)));
    let pc_at = match machine {
        Machine::Aarch64 => {
            for number in 0..=32_u16 {
                let offset = u64::from(number)
                    .saturating_mul(8)
                    .saturating_add(AARCH64_REGISTERS);
                caller.set(number, read(offset));
            }
            AARCH64_REGISTERS + 32 * 8
        }
        _ => {
            for (number, word) in (0_u16..).zip(X86_64_ORDER) {
                caller.set(
                    number,
                    read(word.saturating_mul(8).saturating_add(X86_64_REGISTERS)),
                );
            }
            X86_64_REGISTERS + 16 * 8
        }
    };
    if caller.pc().is_none() {
        return Err(Stop::NoMemory(Avma(sp.0.wrapping_add(pc_at))));
    }
    Ok(Caller {
        registers: caller,
        trust: FrameTrust::Signal,
        over_signal: true,
    })
}
