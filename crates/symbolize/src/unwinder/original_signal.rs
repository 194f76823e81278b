//! The fault beneath a signal handler that ended the process, or that crashed itself.
//!
//! Programs catch SIGSEGV, print something, and abort. Their stacks show the handler at the top. The signal that
//! the handler was called for is the crash, if it is one that a fault or `abort` raises. A handler of another
//! signal (a timer, SIGUSR1) that crashes is the crash itself.
//!
//! The kernel saved what it told the handler ([`SignalFrame`]). It writes a `siginfo_t` only if the handler
//! asked for one. Otherwise the evidence is what the kernel saved of the last trap, the arguments of the system
//! call that raised the signal, and which signals are blocked while the handler runs.

use cdh_elfcore::{Avma, Machine, Memory, Registers, SignalInfo, Thread};

use super::signal_frame::{SignalFrame, Trap};
use super::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP, Unwinder, UnwoundFrame};
use crate::Fingerprint;

/// Frames of a stack among which handlers are searched: of a crashing thread all callers unwind as many.
const REACH: usize = Unwinder::CRASHING_FRAMES - Fingerprint::FRAMES;
const SI_KERNEL: i32 = 0x80;

/// The fault for which a signal handler was called that then ended the process or crashed itself: the crash.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OriginalSignal {
    /// The signal. Its code and address are unknown where the kernel did not save them.
    pub signal: SignalInfo,
    /// Index of the frame that was interrupted: frames before it are the handler's and its trampoline.
    pub frame: usize,
    /// Registers of that frame; unknown where the stack was unwound earlier and stored.
    #[serde(skip)]
    pub registers: Option<Registers>,
    /// Faults of the handler itself that were handled again, the earliest first. The signal that ended the
    /// process is not among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nested: Vec<NestedSignal>,
}

/// A fault in a signal handler, which another handler was called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NestedSignal {
    /// The signal.
    pub signal: SignalInfo,
    /// Index of the frame that was interrupted.
    pub frame: usize,
}

impl OriginalSignal {
    /// The frames of the crash, without those of the handler.
    #[must_use]
    pub fn frames<'f, F>(original: Option<&Self>, frames: &'f [F]) -> &'f [F] {
        let start = original.map_or(0, |original| original.frame);
        frames.get(start..).unwrap_or_default()
    }
}

impl Unwinder<'_> {
    /// Frames that are unwound of a crashing thread, at least.
    pub const CRASHING_FRAMES: usize = 4096;

    /// The fault beneath the outermost handler on the stack of `thread`; `None` if no handler runs, and if the
    /// signal of each is no fault or is not known.
    #[must_use]
    pub fn original_signal(
        &self,
        thread: &Thread,
        frames: &[UnwoundFrame],
        memory: &dyn Memory,
    ) -> Option<OriginalSignal> {
        let frames = frames.get(..REACH).unwrap_or(frames);
        let machine = thread.registers.machine();
        let mut handler = Handler {
            tid: thread.tid,
            ended_by: i32::from(thread.signal),
            blocked: thread.blocked,
        };
        let mut faults = Vec::new();
        for (frame, pair) in (1_usize..).zip(frames.windows(2)) {
            let [trampoline, interrupted] = pair else {
                continue;
            };
            let saved = trampoline
                .sp
                .filter(|_| trampoline.signal_frame)
                .and_then(|sp| SignalFrame::read(machine, sp, memory))
                .filter(|saved| saved.registers.pc() == Some(interrupted.pc));
            let Some(saved) = saved else { continue };
            let signal = self.signal_of(&handler, &saved, memory);
            handler.blocked = saved.blocked;
            if let Some(signal) = signal {
                handler.ended_by = signal.number;
                if is_fault(signal.number) {
                    faults.push((NestedSignal { signal, frame }, saved.registers));
                }
            }
        }
        let (first, registers) = faults.pop()?;
        Some(OriginalSignal {
            signal: first.signal,
            frame: first.frame,
            registers: Some(registers),
            nested: faults.into_iter().rev().map(|(nested, _)| nested).collect(),
        })
    }

    /// The signal that a handler was called for.
    fn signal_of(
        &self,
        handler: &Handler,
        saved: &SignalFrame,
        memory: &dyn Memory,
    ) -> Option<SignalInfo> {
        let info = saved.info;
        let raised = self.raised(handler.tid, saved, memory);
        let raised = raised.map(SignalInfo::from_number);
        let trapped = self.trapped(handler, saved, memory);
        // The kernel blocks the signal while its handler runs.
        let mut known = [info, raised, trapped].into_iter().flatten();
        if let Some(signal) = known.find(|signal| handler.has_blocked(signal.number, saved)) {
            return Some(signal);
        }
        // The handler unblocked it, or has SA_NODEFER, or its fault did (`force_sig_info_to_task`).
        let is_repeated = |trapped: &SignalInfo| {
            trapped.number == handler.ended_by || handler.ended_by == SIGABRT
        };
        info.or_else(|| handler.only_blocked(saved).map(SignalInfo::from_number))
            .or(raised)
            .or(trapped.filter(is_repeated))
    }

    /// The signal that the interrupted code sent to itself by a system call (`kill`, `tkill`, `tgkill`).
    fn raised(&self, tid: u32, saved: &SignalFrame, memory: &dyn Memory) -> Option<i32> {
        /// Numbers in `include/uapi/asm-generic/unistd.h`.
        const KILL: u64 = 129;
        const TKILL: u64 = 130;
        const TGKILL: u64 = 131;
        let register = |number: u16| saved.registers.get(number);
        let number = match saved.registers.machine() {
            Machine::X86_64 if self.follows_system_call(saved, memory) => {
                // The call's number is overwritten by its result. Arguments are in rdi, rsi and rdx.
                let (first, second) = (register(5)?, register(4)?);
                match u64::from(tid) {
                    tid if second == tid => register(1)?,
                    tid if first == tid && register(0) == Some(0) => second,
                    _ => return None,
                }
            }
            Machine::Aarch64 if self.follows_system_call(saved, memory) => match register(8)? {
                TGKILL => register(2)?,
                KILL | TKILL => register(1)?,
                _ => return None,
            },
            _ => return None,
        };
        i32::try_from(number)
            .ok()
            .filter(|number| (1..=64).contains(number))
    }

    fn follows_system_call(&self, saved: &SignalFrame, memory: &dyn Memory) -> bool {
        let Some(pc) = saved.registers.pc() else {
            return false;
        };
        let before = |bytes: u64| Avma(pc.0.wrapping_sub(bytes));
        match saved.registers.machine() {
            // syscall
            Machine::X86_64 => self.code(before(2), memory) == Some([0x0f, 0x05]),
            // svc #0
            Machine::Aarch64 => self.code(before(4), memory) == Some([1, 0, 0, 0xd4]),
            _ => false,
        }
    }

    /// The signal that the last trap of the thread raised, if the interrupted code can have trapped there.
    fn trapped(
        &self,
        handler: &Handler,
        saved: &SignalFrame,
        memory: &dyn Memory,
    ) -> Option<SignalInfo> {
        let pc = saved.registers.pc()?;
        let signal = |number, code, address| {
            Some(SignalInfo {
                number,
                code,
                address,
                sender: None,
            })
        };
        // A page fault is one of two signals; which one the kernel decided by the mapping.
        let page_fault = |at: u64, is_key: bool| {
            let is_bus = |number| number == SIGBUS;
            let number = match (SIGSEGV, SIGBUS) {
                (_, bus) if is_bus(handler.ended_by) && !handler.has_blocked(SIGSEGV, saved) => bus,
                (segv, bus) => match handler.only_blocked(saved) {
                    Some(number) if is_bus(number) => bus,
                    _ => segv,
                },
            };
            let code = match (number, memory.is_executable(Avma(at))) {
                (SIGBUS, _) => 2,
                _ if is_key => 4,
                // `SEGV_ACCERR` where something is mapped, else `SEGV_MAPERR`.
                (_, Some(_)) => 2,
                (_, None) => 1,
            };
            signal(number, Some(code), Some(Avma(at)))
        };
        let is_after_call = self.follows_system_call(saved, memory);
        match saved.trap? {
            // `arch/x86/include/asm/trapnr.h`; error codes in `asm/trap_pf.h`: 4 is a fetch, 5 a key.
            Trap::X86_64 { number, error, cr2 } => match number {
                0 if self.is_division(pc, memory) => signal(SIGFPE, Some(1), Some(pc)),
                14 if error & 16 != 0 => (cr2 == pc.0).then(|| page_fault(cr2, false)).flatten(),
                _ if is_after_call => None,
                1 => signal(SIGTRAP, None, None),
                3 => signal(SIGTRAP, Some(SI_KERNEL), None),
                6 => signal(SIGILL, Some(2), Some(pc)),
                11 | 12 => signal(SIGBUS, Some(SI_KERNEL), None),
                13 => signal(SIGSEGV, Some(SI_KERNEL), None),
                14 => page_fault(cr2, error & 32 != 0),
                16 | 19 => signal(SIGFPE, None, Some(pc)),
                17 => signal(SIGBUS, Some(1), None),
                _ => None,
            },
            // `arch/arm64/include/asm/esr.h`: exception classes.
            Trap::Aarch64 { syndrome, address } => match syndrome >> 26 & 0x3f {
                0x20 => (address == pc.0)
                    .then(|| page_fault(address, false))
                    .flatten(),
                _ if is_after_call => None,
                // Alignment is fault status 0x21.
                0x24 if syndrome & 0x3f == 0x21 => signal(SIGBUS, Some(1), Some(Avma(address))),
                0x24 => page_fault(address, false),
                0x22 | 0x26 => signal(SIGBUS, Some(1), Some(Avma(address))),
                0x2c => signal(SIGFPE, None, Some(pc)),
                0x3c => signal(SIGTRAP, Some(1), Some(pc)),
                0x00 | 0x0e => signal(SIGILL, None, Some(pc)),
                _ => None,
            },
        }
    }

    /// Whether a division is at `pc` (x86_64). A thread that never trapped looks as if it had divided by zero.
    fn is_division(&self, pc: Avma, memory: &dyn Memory) -> bool {
        let Some(code) = self.code::<6>(pc, memory) else {
            return false;
        };
        let is_prefix =
            |byte: &&u8| matches!(**byte, 0x66 | 0x67 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65);
        let mut rest = code.iter().skip_while(is_prefix).copied();
        let mut opcode = rest.next();
        if opcode.is_some_and(|byte| byte & 0xf0 == 0x40) {
            opcode = rest.next();
        }
        // `div` is /6, `idiv` is /7.
        let divides = rest.next().is_some_and(|operands| operands >> 3 & 7 >= 6);
        matches!(opcode, Some(0xf6 | 0xf7)) && divides
    }
}

/// What is known of a handler before its signal is.
struct Handler {
    tid: u32,
    /// The signal that interrupted it, or that ended the process while it ran.
    ended_by: i32,
    /// Signals that are blocked in it, signal 1 in the lowest bit.
    blocked: u64,
}

impl Handler {
    /// Signals that are blocked only in the handler.
    fn blocked_only_here(&self, saved: &SignalFrame) -> u64 {
        self.blocked & !saved.blocked
    }

    fn has_blocked(&self, number: i32, saved: &SignalFrame) -> bool {
        let bit = u32::try_from(number)
            .ok()
            .and_then(|bit| bit.checked_sub(1));
        let bit = bit.and_then(|bit| 1_u64.checked_shl(bit));
        bit.is_some_and(|bit| self.blocked_only_here(saved) & bit != 0)
    }

    /// The signal that is blocked in the handler, if it is only one.
    fn only_blocked(&self, saved: &SignalFrame) -> Option<i32> {
        let blocked = self.blocked_only_here(saved);
        let number = i32::try_from(blocked.trailing_zeros()).ok()?.checked_add(1);
        number.filter(|_| blocked.is_power_of_two())
    }
}

/// Signals that end a process because of what its own code did.
fn is_fault(number: i32) -> bool {
    matches!(
        number,
        SIGILL | SIGTRAP | SIGABRT | SIGBUS | SIGFPE | SIGSEGV | SIGSYS
    )
}
