//! Notes of a core: threads, process, signal, auxiliary vector, mapped files.

use crate::Registers;

/// One thread: `NT_PRSTATUS` and what belongs to it.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Thread id as the kernel wrote it (in the process's own pid namespace).
    pub tid: u32,
    /// `pr_cursig`: the signal that was being handled, 0 for threads that were only stopped.
    pub signal: u16,
    /// General registers.
    pub registers: Registers,
}

/// `NT_PRPSINFO`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Process id (in its own pid namespace).
    pub pid: u32,
    /// Parent's process id.
    pub ppid: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// `pr_fname`: the `comm`, at most 15 bytes, any but NUL.
    pub name: Vec<u8>,
    /// `pr_psargs`: the first 79 bytes of the command line, NULs turned into spaces by the kernel.
    pub arguments: Vec<u8>,
}
