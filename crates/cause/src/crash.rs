//! What is known of a crash before its cause is.

use cdh_elfcore::{Machine, Mapping, Memory, Registers, Segment, SignalInfo, StackOverflow};
use cdh_symbolize::{Frame, LoadedModule, ModuleReport};

use crate::Names;

/// A crashed process, as its core and the files of its modules show it.
pub struct Crash<'a> {
    /// The fatal signal.
    pub signal: SignalInfo,
    /// Id of the process in its own pid namespace.
    pub pid: Option<u32>,
    /// Processor architecture.
    pub machine: Machine,
    /// Registers of the crashing thread; absent if there is no core.
    pub registers: Option<&'a Registers>,
    /// Memory of the process.
    pub memory: &'a dyn Memory,
    /// What was mapped, with permissions; empty if there is no core.
    pub segments: &'a [Segment],
    /// Which files were mapped.
    pub mappings: &'a [Mapping],
    /// Modules with their files.
    pub modules: &'a [LoadedModule<'a>],
    /// Frames of the crashing thread, innermost first; they refer to `reports` and `modules` by index.
    pub frames: &'a [Frame],
    /// Frames of a signal handler before them, which the numbers of a backtrace count too.
    pub handler_frames: usize,
    /// Modules, as the backtrace reports them.
    pub reports: &'a [ModuleReport],
    /// The stack that was full, if that was the cause.
    pub overflow: Option<StackOverflow>,
    /// The text with which glibc ended the process.
    pub abort_message: Option<&'a str>,
    /// Names of variables, where debug information has them.
    pub names: Option<&'a dyn Names>,
    /// What the runtime of another language reports.
    pub runtime_failure: Option<RuntimeFailure<'a>>,
}

/// An error that ended a program in a language with a runtime of its own.
#[derive(Clone, Copy, Debug)]
pub struct RuntimeFailure<'a> {
    /// Such as `Go`.
    pub language: &'a str,
    /// The message, such as `panic: index out of range [5] with length 3`.
    pub message: &'a str,
    /// The signal that the runtime made the message of, in its words.
    pub signal: Option<&'a str>,
}
