//! Signal trampolines known by their code, for C libraries that describe them with no CFI.
//!
//! musl and Go return from a signal handler through two instructions of their own (`mov $15, %rax;
//! syscall`). gdb knows them the same way. What the kernel saved lies at the stack pointer.

use cdh_elfcore::{Avma, Machine, Memory, Registers};

use super::cfi::Cache;
use super::signal_frame::saved_registers;
use super::{Caller, FrameTrust, Step, Stop, Unwinder};

/// `mov $15, %rax; syscall`.
const X86_64: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
/// `mov $15, %eax; syscall`.
const X86_64_SHORT: [u8; 7] = [0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05];
/// `mov x8, #139; svc #0`.
const AARCH64: [u8; 8] = [0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4];
const CACHE_LIMIT: usize = 1 << 16;

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
        Machine::Other(_) => false,
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
    let caller = saved_registers(registers.machine(), sp, memory);
    if caller.pc().is_none() {
        return Err(Stop::NoMemory(sp));
    }
    Ok(Caller {
        registers: caller,
        trust: FrameTrust::Signal,
        over_signal: true,
    })
}
