//! What the kernel saved on the stack when it called a signal handler.
//!
//! x86_64: `struct rt_sigframe` in `arch/x86/include/asm/sigframe.h` is the handler's return address, a `struct
//! ucontext` and a `siginfo_t`; the registers are a `struct sigcontext_64` of
//! `arch/x86/include/uapi/asm/sigcontext.h`. aarch64: `struct rt_sigframe` in `arch/arm64/kernel/signal.c` is a
//! `siginfo_t` and a `struct ucontext`; its registers are a `struct sigcontext` of
//! `arch/arm64/include/uapi/asm/sigcontext.h`. When the handler returns, the stack pointer is at the first byte
//! behind the return address (x86_64), or at the first byte (aarch64).
//!
//! The kernel writes the `siginfo_t` only for handlers with `SA_SIGINFO` (`x64_setup_rt_frame`,
//! `setup_rt_frame`). For others its bytes are left from earlier calls.

use cdh_elfcore::{Avma, Machine, Memory, Registers, SignalInfo};

/// `siginfo_t` (`SI_MAX_SIZE` in `include/uapi/asm-generic/siginfo.h`).
const INFO_SIZE: usize = 128;
/// What the kernel fills of it; it clears the rest (`copy_siginfo_to_user` in `kernel/signal.c`).
const INFO_FILLED: usize = 48;
/// Highest signal number.
const HIGHEST: i32 = 64;
/// `si_code` of what the kernel raises without an address.
const SI_KERNEL: i32 = 0x80;
/// Highest `si_code` of a fault (`SEGV_CPERR`, `NSIGSEGV`).
const HIGHEST_FAULT: i32 = 15;

/// Where the kernel keeps DWARF registers 0..=16 in `struct sigcontext_64`, in words.
const X86_64_ORDER: [u64; 17] = [13, 12, 14, 11, 9, 8, 10, 15, 0, 1, 2, 3, 4, 5, 6, 7, 16];
/// Flags, link and stack are before the registers.
const X86_64_REGISTERS: u64 = 40;
const X86_64_ERROR: u64 = X86_64_REGISTERS + 152;
const X86_64_TRAP: u64 = X86_64_REGISTERS + 160;
const X86_64_CR2: u64 = X86_64_REGISTERS + 176;
const X86_64_MASK: u64 = X86_64_REGISTERS + 256;
const X86_64_INFO: u64 = X86_64_MASK + 8;

/// `ucontext` follows the `siginfo_t`; its mask follows flags, link and stack.
const AARCH64_MASK: u64 = 128 + 40;
/// The mask has 128 bytes in all, and `struct sigcontext` is aligned to 16.
const AARCH64_FAULT_ADDRESS: u64 = 128 + 176;
/// x0..x30, sp, pc, then the processor state.
const AARCH64_REGISTERS: u64 = AARCH64_FAULT_ADDRESS + 8;
/// Records of `__reserved[4096]`.
const AARCH64_RECORDS: u64 = AARCH64_FAULT_ADDRESS + 288;
const AARCH64_RECORDS_SIZE: u64 = 4096;
/// `ESR_MAGIC`.
const ESR_MAGIC: u64 = 0x4553_5201;

/// Why the processor stopped last, as the kernel remembers it: not always for this signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trap {
    /// Number of the exception, its error code, and the address of the last page fault.
    X86_64 { number: u64, error: u64, cr2: u64 },
    /// Exception syndrome, and the faulting address.
    Aarch64 { syndrome: u64, address: u64 },
}

/// What the kernel saved before it called a handler.
pub(super) struct SignalFrame {
    /// What the bytes of the `siginfo_t` state, if the kernel can have written them.
    pub(super) info: Option<SignalInfo>,
    /// Registers of the code that was interrupted.
    pub(super) registers: Registers,
    /// Signals that were blocked before, signal 1 in the lowest bit.
    pub(super) blocked: u64,
    pub(super) trap: Option<Trap>,
}

/// The registers that the kernel saved in the frame that a trampoline with this stack pointer returns through.
/// Those that cannot be read are unknown; of the machines that are not unwound, all are.
pub(super) fn saved_registers(thread: &Registers, sp: Avma, memory: &dyn Memory) -> Registers {
    let mut saved = thread.of_other_frame();
    let read = |offset: u64| memory.read_u64(Avma(sp.0.wrapping_add(offset)));
    match thread.machine() {
        Machine::X86_64 => {
            for (number, word) in (0_u16..).zip(X86_64_ORDER) {
                let offset = word.saturating_mul(8).saturating_add(X86_64_REGISTERS);
                saved.set(number, read(offset));
            }
        }
        Machine::Aarch64 => {
            for number in 0..=32_u16 {
                let offset = u64::from(number).saturating_mul(8);
                saved.set(number, read(offset.saturating_add(AARCH64_REGISTERS)));
            }
        }
        _ => {}
    }
    saved
}

impl SignalFrame {
    /// Reads the frame that a trampoline with this stack pointer returns through.
    pub(super) fn read(thread: &Registers, sp: Avma, memory: &dyn Memory) -> Option<Self> {
        let machine = thread.machine();
        let read = |offset: u64| memory.read_u64(Avma(sp.0.wrapping_add(offset)));
        let (mask, info, trap) = match machine {
            Machine::X86_64 => {
                let trap = Trap::X86_64 {
                    number: read(X86_64_TRAP)?,
                    error: read(X86_64_ERROR)?,
                    cr2: read(X86_64_CR2)?,
                };
                (X86_64_MASK, X86_64_INFO, Some(trap))
            }
            Machine::Aarch64 => {
                let syndrome = syndrome(read);
                let address = read(AARCH64_FAULT_ADDRESS);
                let trap = syndrome
                    .zip(address)
                    .map(|(syndrome, address)| Trap::Aarch64 { syndrome, address });
                (AARCH64_MASK, 0, trap)
            }
            _ => return None,
        };
        let mut frame = Self {
            info: None,
            registers: saved_registers(thread, sp, memory),
            blocked: read(mask)?,
            trap,
        };
        let mut bytes = [0; INFO_SIZE];
        if memory.read(Avma(sp.0.wrapping_add(info)), &mut bytes) == INFO_SIZE {
            frame.info = written_info(&bytes).filter(|info| frame.agrees_with(info));
        }
        Some(frame)
    }

    /// The frame of a handler that has returned, below the stack pointer: nothing else ran since, so that it holds
    /// the same registers.
    pub(super) fn of_returned(registers: &Registers, memory: &dyn Memory) -> Option<Self> {
        /// The kernel leaves 128 bytes alone, saves the state of the FPU (11 KiB with AMX), and then the rest.
        const SEARCHED: u64 = 16 << 10;
        const PIECE: usize = 4096;
        let machine = registers.machine();
        let (sp, pc) = (registers.sp()?.0, registers.pc()?.0);
        // In the frame, the stack pointer is right before the pc, at a multiple of 16.
        let place = match machine {
            Machine::X86_64 => X86_64_REGISTERS + 15 * 8,
            Machine::Aarch64 => AARCH64_REGISTERS + 31 * 8,
            _ => return None,
        };
        let first = sp.checked_sub(SEARCHED)? & !15;
        for from in (first..sp).step_by(PIECE) {
            let mut piece = [0; PIECE];
            let known = memory.read(Avma(from), &mut piece);
            let (pairs, _) = piece.get(..known)?.as_chunks::<16>();
            for (at, pair) in (from..sp).step_by(16).zip(pairs) {
                let words = u128::from_le_bytes(*pair);
                if words != u128::from(sp) | u128::from(pc) << 64 {
                    continue;
                }
                let frame = Self::read(registers, Avma(at.checked_sub(place)?), memory);
                let is_same = |frame: &Self| frame.registers == *registers;
                if let Some(frame) = frame.filter(is_same) {
                    return Some(frame);
                }
            }
        }
        None
    }

    /// Whether the registers are those of a fault that `info` describes.
    fn agrees_with(&self, info: &SignalInfo) -> bool {
        const ADDRESS: u64 = (1 << 56) - 1;
        let is_fault = info.code.is_some_and(|code| (1..SI_KERNEL).contains(&code));
        let Some(address) = info.address.filter(|_| is_fault) else {
            return true;
        };
        match (info.number, self.trap) {
            (super::SIGFPE | super::SIGILL, _) => Some(address) == self.registers.pc(),
            (
                super::SIGSEGV,
                Some(Trap::X86_64 {
                    number: 14, cr2, ..
                }),
            ) => address.0 == cr2,
            (super::SIGSEGV, Some(Trap::Aarch64 { address: at, .. })) => {
                (address.0 ^ at) & ADDRESS == 0
            }
            _ => true,
        }
    }
}

/// A `siginfo_t` that the kernel can have written.
fn written_info(bytes: &[u8; INFO_SIZE]) -> Option<SignalInfo> {
    let is_clear = |range: std::ops::Range<usize>| {
        let part = bytes.get(range).unwrap_or_default();
        part.iter().all(|byte| *byte == 0)
    };
    let info = SignalInfo::from_bytes(bytes)?;
    let code = info.code?;
    let is_code = (i32::from(i8::MIN)..=HIGHEST_FAULT).contains(&code) || code == SI_KERNEL;
    let is_written = (1..=HIGHEST).contains(&info.number)
        && is_code
        && is_clear(12..16)
        && is_clear(INFO_FILLED..INFO_SIZE);
    is_written.then_some(info)
}

/// `struct esr_context` among the records behind the registers.
fn syndrome(read: impl Fn(u64) -> Option<u64>) -> Option<u64> {
    let mut at = 0_u64;
    while at < AARCH64_RECORDS_SIZE {
        let head = read(AARCH64_RECORDS.saturating_add(at))?;
        // Magic number and size.
        let (magic, size) = (head & 0xffff_ffff, head >> 32);
        if magic == ESR_MAGIC {
            return read(AARCH64_RECORDS.saturating_add(at).saturating_add(8));
        }
        if magic == 0 || size == 0 || !size.is_multiple_of(16) {
            return None;
        }
        at = at.saturating_add(size);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `siginfo_t` as the kernel writes it.
    pub(super) fn info(number: i32, code: i32, union: u64) -> [u8; INFO_SIZE] {
        let mut bytes = [0; INFO_SIZE];
        bytes[0..4].copy_from_slice(&number.to_le_bytes());
        bytes[8..12].copy_from_slice(&code.to_le_bytes());
        bytes[16..24].copy_from_slice(&union.to_le_bytes());
        bytes
    }

    #[test]
    fn bytes_that_no_kernel_writes_are_no_siginfo() {
        assert_eq!(
            written_info(&info(11, 1, 8)),
            Some(SignalInfo::new(11, 1, (8, 0), Avma(8)))
        );
        assert!(written_info(&info(6, -6, 42)).is_some());
        for (number, code) in [(0, 0), (65, 1), (-1, 0), (11, 0x1000), (11, -1000)] {
            assert_eq!(
                written_info(&info(number, code, 8)),
                None,
                "{number} {code}"
            );
        }
        for at in [12, 15, 48, 127] {
            let mut bytes = info(11, 1, 8);
            bytes[at] = 1;
            assert_eq!(written_info(&bytes), None, "byte {at}");
        }
    }

    #[test]
    fn syndrome_is_found_behind_other_records() {
        let records = |records: &[(u64, u64)]| {
            let words: Vec<u64> = records
                .iter()
                .flat_map(|(magic, size)| {
                    let mut words = vec![magic | size << 32];
                    words.resize((*size as usize / 8).max(1), 7);
                    words
                })
                .collect();
            move |offset: u64| {
                let at = offset.checked_sub(AARCH64_RECORDS)? / 8;
                words.get(at as usize).copied()
            }
        };
        let fpsimd = (0x4650_8001, 528);
        assert_eq!(syndrome(records(&[fpsimd, (ESR_MAGIC, 16)])), Some(7));
        assert_eq!(syndrome(records(&[fpsimd, (0, 0)])), None);
        assert_eq!(syndrome(records(&[(5, 8), (ESR_MAGIC, 16)])), None);
        assert_eq!(syndrome(records(&[])), None);
    }
}
