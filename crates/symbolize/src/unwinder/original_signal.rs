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
/// Threads that are unwound to find one whose handler ended the process.
const HANDLERS: usize = 256;
const SI_KERNEL: i32 = 0x80;

/// The fault for which a signal handler was called that then ended the process or crashed itself: the crash.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OriginalSignal {
    /// The signal. Its code and address are unknown where the kernel did not save them.
    pub signal: SignalInfo,
    /// Index of the frame that was interrupted: frames before it are the handler's and its trampoline. 0 if the
    /// handler had returned.
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

    /// The fault beneath the outermost handler on the stack of `thread`, which `ended_by` ended; `None` if no
    /// handler runs, and if the signal of each is no fault or is not known.
    #[must_use]
    pub fn original_signal(
        &self,
        thread: &Thread,
        ended_by: Option<SignalInfo>,
        frames: &[UnwoundFrame],
        memory: &dyn Memory,
    ) -> Option<OriginalSignal> {
        let frames = frames.get(..REACH).unwrap_or(frames);
        let mut handler = Handler {
            tid: thread.tid,
            ended_by: i32::from(thread.signal),
            sent: self.raised(thread.tid, &thread.registers, memory),
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
                .and_then(|sp| SignalFrame::read(&thread.registers, sp, memory))
                .filter(|saved| saved.registers.pc() == Some(interrupted.pc));
            let Some(saved) = saved else { continue };
            let signal = self.signal_of(&handler, &saved, memory);
            handler.blocked = saved.blocked;
            handler.sent = None;
            if let Some(signal) = signal {
                handler.ended_by = signal.number;
                if is_fault(signal.number) {
                    faults.push((NestedSignal { signal, frame }, saved.registers));
                }
            }
        }
        let Some((first, registers)) = faults.pop() else {
            return self.returned(thread, ended_by?, memory);
        };
        Some(OriginalSignal {
            signal: first.signal,
            frame: first.frame,
            registers: Some(registers),
            nested: faults.into_iter().rev().map(|(nested, _)| nested).collect(),
        })
    }

    /// Index of the thread whose handler sent the process the signal that ended it (`kill`, as glog does). The
    /// kernel gives such a signal to any thread that does not block it, and the handler's thread does. 0, the
    /// thread that received the signal, if there is no such handler or more than one.
    #[must_use]
    pub fn crashing_thread(
        &self,
        threads: &[Thread],
        ended_by: Option<SignalInfo>,
        memory: &dyn Memory,
    ) -> usize {
        const SI_USER: i32 = 0;
        let is_sent = |signal: &SignalInfo| signal.code == Some(SI_USER) && is_fault(signal.number);
        let Some(ended_by) = ended_by.filter(is_sent) else {
            return 0;
        };
        let is_handler = |thread: &Thread| {
            let (frames, _) = self.unwind(&thread.registers, memory, Self::CRASHING_FRAMES);
            let original = self.original_signal(thread, None, &frames, memory);
            original.is_some_and(|original| original.signal.number == ended_by.number)
        };
        let others = threads.iter().enumerate().skip(1);
        let blocks = |thread: &Thread| thread.blocked & bit_of(ended_by.number) != 0;
        let blocked = others.filter(|(_, thread)| blocks(thread));
        let mut handlers = blocked
            .take(HANDLERS)
            .filter(|(_, thread)| is_handler(thread));
        match (handlers.next(), handlers.next()) {
            (Some((index, _)), None) => index,
            _ => 0,
        }
    }

    /// The fault of a handler that raised its signal again and returned: the signal was blocked until then, and
    /// ended the process before the fault repeated itself.
    fn returned(
        &self,
        thread: &Thread,
        ended_by: SignalInfo,
        memory: &dyn Memory,
    ) -> Option<OriginalSignal> {
        let registers = &thread.registers;
        let is_sent = ended_by.code.is_some_and(|code| code <= 0);
        let is_raised_here = self.follows_system_call(registers, memory);
        if !is_sent || !is_fault(ended_by.number) || is_raised_here {
            return None;
        }
        let saved = SignalFrame::of_returned(registers, memory)?;
        let handler = Handler {
            tid: thread.tid,
            ended_by: ended_by.number,
            sent: None,
            blocked: 0,
        };
        let is_fault = |signal: &SignalInfo| {
            signal.number == ended_by.number && signal.code.is_none_or(|code| code > 0)
        };
        let signal = saved.info.filter(is_fault);
        let signal = signal.or_else(|| self.trapped(&handler, &saved, memory).filter(is_fault))?;
        Some(OriginalSignal {
            signal,
            frame: 0,
            registers: Some(saved.registers),
            nested: Vec::new(),
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
        let raised = self.raised(handler.tid, &saved.registers, memory);
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
            .or_else(|| handler.sent_again().map(SignalInfo::from_number))
    }

    /// The signal that the interrupted code sent to itself by a system call (`kill`, `tkill`, `tgkill`).
    fn raised(&self, tid: u32, registers: &Registers, memory: &dyn Memory) -> Option<i32> {
        /// Numbers in `include/uapi/asm-generic/unistd.h`.
        const KILL: u64 = 129;
        const TKILL: u64 = 130;
        const TGKILL: u64 = 131;
        let register = |number: u16| registers.get(number);
        let number = match registers.machine() {
            Machine::X86_64 if self.follows_system_call(registers, memory) => {
                // The call's number is overwritten by its result. Arguments are in rdi, rsi and rdx.
                let (first, second) = (register(5)?, register(4)?);
                match u64::from(tid) {
                    tid if second == tid => register(1)?,
                    tid if first == tid && register(0) == Some(0) => second,
                    _ => return None,
                }
            }
            Machine::Aarch64 if self.follows_system_call(registers, memory) => match register(8)? {
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

    fn follows_system_call(&self, registers: &Registers, memory: &dyn Memory) -> bool {
        let Some(pc) = registers.pc() else {
            return false;
        };
        let before = |bytes: u64| Avma(pc.0.wrapping_sub(bytes));
        match registers.machine() {
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
        let is_after_call = self.follows_system_call(&saved.registers, memory);
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
    /// The signal that it sent to itself at last.
    sent: Option<i32>,
    /// Signals that are blocked in it, signal 1 in the lowest bit.
    blocked: u64,
}

impl Handler {
    /// Signals that are blocked only in the handler.
    fn blocked_only_here(&self, saved: &SignalFrame) -> u64 {
        self.blocked & !saved.blocked
    }

    fn has_blocked(&self, number: i32, saved: &SignalFrame) -> bool {
        self.blocked_only_here(saved) & bit_of(number) != 0
    }

    /// The signal that the handler raised again for the default action. `abort` raises SIGABRT whatever the
    /// handler was called for.
    fn sent_again(&self) -> Option<i32> {
        self.sent
            .filter(|sent| *sent == self.ended_by && *sent != SIGABRT)
    }

    /// The signal that is blocked in the handler, if it is only one.
    fn only_blocked(&self, saved: &SignalFrame) -> Option<i32> {
        let blocked = self.blocked_only_here(saved);
        let number = i32::try_from(blocked.trailing_zeros()).ok()?.checked_add(1);
        number.filter(|_| blocked.is_power_of_two())
    }
}

/// The bit of a signal in a set; 0 if there is no such signal.
fn bit_of(number: i32) -> u64 {
    let place = u32::try_from(number)
        .ok()
        .and_then(|one| one.checked_sub(1));
    place
        .and_then(|place| 1_u64.checked_shl(place))
        .unwrap_or(0)
}

/// Signals that end a process because of what its own code did.
fn is_fault(number: i32) -> bool {
    matches!(
        number,
        SIGILL | SIGTRAP | SIGABRT | SIGBUS | SIGFPE | SIGSEGV | SIGSYS
    )
}
