//! Signal trampolines known by their code, for C libraries that describe them with no CFI.
//!
//! musl and Go return from a signal handler through two instructions of their own (`mov $15, %rax;
//! syscall`). gdb knows them the same way. What the kernel saved lies at the stack pointer.

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
    let found = has_code(unwinder, registers.machine(), pc, memory);
    if cache.trampolines.len() >= CACHE_LIMIT {
        cache.trampolines.clear();
    }
    cache.trampolines.insert(pc.0, found);
    found
}

fn has_code(unwinder: &Unwinder<'_>, machine: Machine, at: Avma, memory: &dyn Memory) -> bool {
    match machine {
        Machine::X86_64 => {
            unwinder.code(at, memory) == Some(X86_64)
                || unwinder.code(at, memory) == Some(X86_64_SHORT)
        }
        Machine::Aarch64 => unwinder.code(at, memory) == Some(AARCH64),
        Machine::Other(_) => false,
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
        Machine::Other(_) => None,
    }
}
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
    /// `struct rt_sigframe` without what the processor's extensions add, and with it.
    const SIZES: std::ops::Range<u64> = 4688..64 << 10;
    let record = memory.read_u64(Avma(at.checked_sub(8)?))?;
    let interrupted = (
        memory.read_u64(Avma(record))?,
        memory.read_u64(Avma(record.checked_add(8)?))?,
    );
    let starts = SIZES.step_by(16).map_while(|size| record.checked_sub(size));
    let mut starts = starts.take_while(|start| *start > at).map(Avma);
    starts.find(|start| {
        let saved = saved_registers(Machine::Aarch64, *start, memory);
        (saved.get(29), saved.get(30)) == (Some(interrupted.0), Some(interrupted.1))
    })
}
