//! Why the kernel killed the process, in words.

use crate::Avma;

/// `NT_SIGINFO` (or, where it is missing, what NT_PRSTATUS says): the fatal signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SignalInfo {
    /// `si_signo`.
    pub number: i32,
    /// `si_code`: who raised it and why (`sigaction(2)`).
    pub code: i32,
    /// `si_addr`, only for signals that carry one (SEGV, BUS, ILL, FPE, TRAP) raised by the kernel.
    pub address: Option<Avma>,
    /// `si_pid` and `si_uid` where the signal was sent by a process (`kill`, `tgkill`, `sigqueue`).
    pub sender: Option<(i32, u32)>,
}

impl SignalInfo {
    /// `SIGSEGV`; `signal 77` for one without a name; `SIGRTMIN+3` for real-time signals.
    #[must_use]
    pub fn name(&self) -> String {
        todo!()
    }

    /// `SIGSEGV: address not mapped, at 0x0`, `SIGABRT: sent by tgkill from pid 42 (uid 0)`.
    #[must_use]
    pub fn describe(&self) -> String {
        todo!()
    }
}
