//! Reads what the runtime of a language knows of a crashed process: its frames, its tasks, its last words.
//!
//! One module per language behind `Runtime`, which answers three questions: is this process yours, which frames
//! replace these native ones, what do you know about the death. Layouts of runtime structures are data files in
//! `layouts/`, so that a new version is a new file.
//!
//! The invariants: memory is hostile, so every list is bounded, every pointer is checked and cycles end; no input
//! makes this crate panic. It does no I/O: memory and modules come from the caller. No other crate knows a language;
//! they only see [`RuntimeReport`] and the frames that [`examine`] puts into a backtrace.

#![deny(clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod attached;
mod capture;
mod go;
mod process;
mod python;
mod replacement;
mod report;

use cdh_symbolize::{Backtrace, Frame, ThreadBacktrace};

pub use attached::AttachedRuntimes;
pub use capture::{
    InterpretedStack, StoredFrame, StoredFrames, UnwoundStack, may_interpret, put_stored,
};
pub use process::Process;
pub use replacement::Replacement;
pub use report::{
    Language, Message, RuntimeReport, Task, TaskCount, TaskStack, Tasks, ThreadFacts, Variable,
};

/// How much to read.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether to unwind the stack of every task, or only to count them.
    pub task_stacks: bool,
    /// Whether to list tasks that belong to the runtime itself.
    pub system_tasks: bool,
    /// Maximum number of frames of one task, inlined calls not counted.
    pub max_frames: usize,
}

/// What one language answers at the crash. A module provides a function that attaches, which is the first question.
pub(crate) trait Runtime {
    /// Which frames replace these native ones? Ranges are in the order of the stack and do not overlap. A thread
    /// whose native frames remain has none. A maximum of `limit` frames of the language is read; further ranges have
    /// none.
    fn frames(&self, thread: &ThreadBacktrace, limit: usize) -> Vec<Replacement> {
        let _ = (thread, limit);
        Vec::new()
    }

    /// Index of the module that runs code of an interpreted language. `None` if all frames are native.
    fn interpreter(&self) -> Option<usize> {
        None
    }

    /// Id of the thread that ended the program, where the runtime lets another one than `received` receive the signal.
    fn crashing_thread(&self, received: u32) -> Option<u32> {
        let _ = received;
        None
    }

    /// Reads what a report and the variables of the crashing thread need, so that a memory that records its pages has
    /// them.
    fn touch(&self, crashing: u32);

    /// What a fingerprint calls the function of a frame that was put in. `None` if it does not count: it is part of the
    /// language, or generated.
    fn counted_name(&self, frame: &Frame) -> Option<String> {
        let _ = frame;
        None
    }
}

/// What one language answers later. It is a trait of its own so that the handler is built without it.
pub(crate) trait Report {
    /// What do you know about the death? `stacks` are the native stacks, the crashing thread first.
    fn report(&self, stacks: &Backtrace, options: &Options) -> RuntimeReport;

    /// Arguments and local variables of a frame that was put in.
    fn variables(&self, frame: &Frame) -> Vec<Variable> {
        let _ = frame;
        Vec::new()
    }
}

/// Asks every language, as [`AttachedRuntimes::examine`].
#[must_use]
pub fn examine(
    process: &Process<'_>,
    backtrace: &mut Backtrace,
    options: &Options,
) -> Vec<RuntimeReport> {
    AttachedRuntimes::of(process).examine(backtrace, options)
}

/// Reads the variables of interpreted frames.
pub struct VariableReader<'p>(AttachedRuntimes<'p>);

impl<'p> VariableReader<'p> {
    /// Asks every language whether the process is its own.
    #[must_use]
    pub fn of(process: &'p Process<'p>) -> Self {
        Self(AttachedRuntimes::of(process))
    }

    /// Arguments, in the order of the declaration, then other local variables of a frame that [`examine`] put in.
    #[must_use]
    pub fn variables(&self, frame: &Frame) -> Vec<Variable> {
        let mut all = self.0.reports().map(|runtime| runtime.variables(frame));
        all.find(|variables| !variables.is_empty())
            .unwrap_or_default()
    }
}
