//! Why the kernel killed the process, in words.
//!
//! Numbers and codes: `signal(7)`, `sigaction(2)`, `include/uapi/asm-generic/siginfo.h`. x86_64 and
//! aarch64 share them.

use crate::{Avma, Class, Encoding};

/// `NT_SIGINFO` (or, where it is missing, what NT_PRSTATUS says): the fatal signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SignalInfo {
    /// `si_signo`.
    pub number: i32,
    /// `si_code`: who raised it and why (`sigaction(2)`); `None` where only the number is known.
    pub code: Option<i32>,
    /// `si_addr`, only for signals that carry one (SEGV, BUS, ILL, FPE, TRAP) raised by the kernel.
    pub address: Option<Avma>,
    /// `si_pid` and `si_uid` where the signal was sent by a process (`kill`, `tgkill`, `sigqueue`).
    pub sender: Option<(i32, u32)>,
}

/// 1 to 31 by number (`signal(7)`, the column of x86 and ARM).
const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

const SIGILL: i32 = 4;
const SIGTRAP: i32 = 5;
const SIGBUS: i32 = 7;
const SIGFPE: i32 = 8;
const SIGSEGV: i32 = 11;
const SIGSYS: i32 = 31;
/// `SIGRTMIN` as glibc and musl give it out (they keep 32 and 33, musl also 34, for themselves).
const SIGRTMIN: i32 = 34;
const SIGRTMAX: i32 = 64;

/// `SEGV_MTEAERR` and `SEGV_MTESERR`: memory tag faults of aarch64.
const SEGV_MTEAERR: i32 = 8;
const SEGV_MTESERR: i32 = 9;

const SI_USER: i32 = 0;
const SI_KERNEL: i32 = 0x80;
const SI_QUEUE: i32 = -1;
const SI_TKILL: i32 = -6;

impl SignalInfo {
    /// From `si_signo`, `si_code`, and what the union behind them holds in the two ways that are read: `si_pid` and
    /// `si_uid`, or `si_addr`.
    #[must_use]
    pub fn new(number: i32, code: i32, sender: (i32, u32), address: Avma) -> Self {
        let by_kernel = code > SI_USER && code != SI_KERNEL;
        let has_address = matches!(number, SIGILL | SIGTRAP | SIGBUS | SIGFPE | SIGSEGV)
            // The kernel learns of it later, and not where it was.
            && (number, code) != (SIGSEGV, SEGV_MTEAERR);
        Self {
            number,
            code: Some(code),
            address: (by_kernel && has_address).then_some(address),
            sender: matches!(code, SI_USER | SI_QUEUE | SI_TKILL).then_some(sender),
        }
    }

    /// From a `siginfo_t` of x86_64 or aarch64. `None` if there are fewer bytes.
    #[must_use]
    pub fn from_bytes(data: &[u8]) -> Option<Self> {
        Self::parse(data, Encoding::LITTLE_64)
    }

    /// From a `siginfo_t` of 64-bit MIPS, which has code and errno the other way round
    /// (`arch/mips/include/uapi/asm/siginfo.h`).
    pub(crate) fn from_mips(data: &[u8]) -> Option<Self> {
        let (number, code) = (data.get(..4)?, data.get(4..8)?);
        let (errno, union) = (data.get(8..12)?, data.get(12..)?);
        Self::from_bytes(&[number, errno, code, union].concat())
    }

    /// From a `siginfo_t`: number, errno, code, and the union that the code selects.
    pub(crate) fn parse(data: &[u8], encoding: Encoding) -> Option<Self> {
        let (number, code) = (encoding.i32_at(data, 0)?, encoding.i32_at(data, 8)?);
        let union = match encoding.class {
            Class::Narrow => 12,
            Class::Wide => 16,
        };
        let sender = (
            encoding.i32_at(data, union)?,
            encoding.u32_at(data, union.checked_add(4)?)?,
        );
        let address = Avma(encoding.word_at(data, union)?);
        Some(Self::new(number, code, sender, address))
    }

    /// Where only the number is known.
    #[must_use]
    pub fn from_number(number: i32) -> Self {
        Self {
            number,
            code: None,
            address: None,
            sender: None,
        }
    }

    /// `SIGSEGV`; `signal 77` for one without a name; `SIGRTMIN+3` for real-time signals.
    #[must_use]
    pub fn name(&self) -> String {
        let index = usize::try_from(self.number)
            .ok()
            .and_then(|number| number.checked_sub(1));
        match index.and_then(|index| NAMES.get(index)) {
            Some(name) => (*name).to_owned(),
            None if self.number == SIGRTMIN => "SIGRTMIN".to_owned(),
            None if (SIGRTMIN..=SIGRTMAX).contains(&self.number) => {
                format!("SIGRTMIN+{}", self.number.saturating_sub(SIGRTMIN))
            }
            None => format!("signal {}", self.number),
        }
    }

    /// `SIGSEGV: address not mapped, at 0x0`, `SIGABRT: sent by tgkill from pid 42 (uid 0)`.
    #[must_use]
    pub fn describe(&self) -> String {
        let name = self.name();
        let Some(code) = self.code else {
            return match self.address {
                Some(at) => format!("{name} at {at}"),
                None => name,
            };
        };
        match (self.sender, self.address) {
            (Some((pid, uid)), _) => {
                let call = match code {
                    SI_QUEUE => "sigqueue",
                    SI_TKILL => "tgkill",
                    _ => "kill",
                };
                format!("{name}: sent by {call} from pid {pid} (uid {uid})")
            }
            (None, Some(at)) => format!("{name}: {}, at {at}", self.cause(code)),
            (None, None) => format!("{name}: {}", self.cause(code)),
        }
    }

    fn cause(&self, code: i32) -> String {
        let words = match (self.number, code) {
            (SIGSEGV, SI_KERNEL) => "general protection fault, address unknown",
            (_, SI_KERNEL) => "raised by the kernel",
            (SIGSEGV, 1) => "address not mapped",
            (SIGSEGV, 2) => "no permission for this access",
            (SIGSEGV, 3) => "address bound check failed",
            (SIGSEGV, 4) => "access denied by a memory protection key",
            (SIGSEGV, 5) => "access denied by an application data integrity tag",
            (SIGSEGV, 6) => "application data integrity tag mismatch, found later",
            (SIGSEGV, 7) => "application data integrity tag mismatch",
            (SIGSEGV, SEGV_MTEAERR) => {
                "memory tag mismatch (MTE), found after the access: its address is not known"
            }
            (SIGSEGV, SEGV_MTESERR) => {
                "memory tag mismatch (MTE): the pointer's tag is not that of the memory"
            }
            (SIGSEGV, 10) => "control protection fault (a return or jump to where none may lead)",
            (SIGBUS, 1) => "unaligned address",
            (SIGBUS, 2) => "no memory behind the address (a mapped file cut short?)",
            (SIGBUS, 3) => "hardware error at the address",
            (SIGBUS, 4) => "memory error, action required",
            (SIGBUS, 5) => "memory error, action optional",
            (SIGILL, 1) => "illegal opcode",
            (SIGILL, 2) => "illegal operand",
            (SIGILL, 3) => "illegal addressing mode",
            (SIGILL, 4) => "illegal trap",
            (SIGILL, 5) => "privileged opcode",
            (SIGILL, 6) => "privileged register",
            (SIGILL, 7) => "coprocessor error",
            (SIGILL, 8) => "internal stack error",
            (SIGILL, 9) => "unimplemented instruction address",
            (SIGFPE, 1) => "integer division by zero",
            (SIGFPE, 2) => "integer overflow",
            (SIGFPE, 3) => "floating-point division by zero",
            (SIGFPE, 4) => "floating-point overflow",
            (SIGFPE, 5) => "floating-point underflow",
            (SIGFPE, 6) => "inexact floating-point result",
            (SIGFPE, 7) => "invalid floating-point operation",
            (SIGFPE, 8) => "subscript out of range",
            (SIGFPE, 9) => "decimal overflow",
            (SIGFPE, 10) => "decimal division by zero",
            (SIGFPE, 11) => "decimal underflow",
            (SIGFPE, 12) => "inexact decimal result",
            (SIGFPE, 13) => "invalid decimal operation",
            (SIGFPE, 14) => "floating-point exception of unknown kind",
            (SIGFPE, 15) => "conditional trap",
            (SIGTRAP, 1) => "breakpoint",
            (SIGTRAP, 2) => "trace trap",
            (SIGTRAP, 3) => "taken branch trap",
            (SIGTRAP, 4) => "hardware breakpoint or watchpoint",
            (SIGTRAP, 5) => "undiagnosed trap",
            (SIGTRAP, 6) => "perf event trap",
            (SIGSYS, 1) => "system call refused by seccomp",
            (SIGSYS, 2) => "system call user dispatch",
            (_, -2) => "a timer expired",
            (_, -3) => "message queue notification",
            (_, -4) => "asynchronous input/output completed",
            (_, -5) => "input/output possible",
            _ => return format!("code {code}"),
        };
        words.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_names_cause_and_address() {
        let text = |number, code, at| SignalInfo::new(number, code, (0, 0), Avma(at)).describe();
        assert_eq!(text(11, 1, 0), "SIGSEGV: address not mapped, at 0x0");
        assert_eq!(
            text(11, 2, 0x1000),
            "SIGSEGV: no permission for this access, at 0x1000"
        );
        assert_eq!(
            text(11, 0x80, 0),
            "SIGSEGV: general protection fault, address unknown"
        );
        assert_eq!(
            text(8, 1, 0x40),
            "SIGFPE: integer division by zero, at 0x40"
        );
    }

    #[test]
    fn signal_of_mips_has_its_code_before_its_errno() {
        let mut data = [0; 32];
        data[0] = 11;
        data[4] = 1;
        data[16..20].copy_from_slice(&0x1000_u32.to_le_bytes());
        let signal = SignalInfo::from_mips(&data).unwrap();
        assert_eq!((signal.code, signal.address), (Some(1), Some(Avma(0x1000))));
        assert!(SignalInfo::from_mips(&data[..10]).is_none());
    }

    #[test]
    fn sent_signal_names_its_sender() {
        let text = |number, code| SignalInfo::new(number, code, (42, 1000), Avma(0)).describe();
        assert_eq!(
            text(6, -6),
            "SIGABRT: sent by tgkill from pid 42 (uid 1000)"
        );
        assert_eq!(text(11, 0), "SIGSEGV: sent by kill from pid 42 (uid 1000)");
    }

    #[test]
    fn memory_tag_fault_names_its_address_only_where_it_is_known() {
        let text = |code| SignalInfo::new(11, code, (0, 0), Avma(0x1000)).describe();
        assert_eq!(
            text(9),
            "SIGSEGV: memory tag mismatch (MTE): the pointer's tag is not that of the memory, at 0x1000"
        );
        assert_eq!(
            text(8),
            "SIGSEGV: memory tag mismatch (MTE), found after the access: its address is not known"
        );
    }

    #[test]
    fn names_reach_beyond_the_standard_signals() {
        let name = |number| SignalInfo::from_number(number).name();
        assert_eq!(name(31), "SIGSYS");
        assert_eq!(name(37), "SIGRTMIN+3");
        assert_eq!(name(0), "signal 0");
        assert_eq!(name(-5), "signal -5");
        assert_eq!(name(77), "signal 77");
    }
}
