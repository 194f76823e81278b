//! Backtraces for programs.

use std::collections::BTreeMap;

use anyhow::Result;
use cdh_bundle::{DumpId, ProcessFacts, SignalFacts, Verdict};
use cdh_cause::{Cause, Listing};
use cdh_elfcore::{Registers, StackOverflow, Thread};
use cdh_inspect::{Missing, Storage, Value, Variable};
use cdh_runtimes::RuntimeReport;
use cdh_symbolize::{
    Elapsed, Explanation, Fingerprint, Frame, ModuleReport, OriginalSignal, Role, Stop,
    ThreadBacktrace,
};
use serde::Serialize;

use super::backtrace::{BacktraceView, grouped};

/// The stacks of a crashed process. Addresses are numbers; those of user space fit into 53 bits, wild ones may not.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BacktraceDocument<'a> {
    /// Id of the dump.
    dump: DumpId,
    /// The process, as in the manifest.
    process: &'a ProcessFacts,
    /// The fatal signal: the one that ended the process.
    signal: &'a SignalFacts,
    /// The fault beneath a signal handler that then ended the process or crashed itself: the crash. `null` if there
    /// is none.
    original_signal: Option<NamedOriginalSignal>,
    /// Whether the core is complete, and otherwise why not, as in the manifest.
    verdict: &'a Verdict,
    /// How much of the core is stored; `null` if it has no readable headers.
    core: Option<CoreSizes>,
    /// Whether there was no core, only the minicore.
    from_minicore: bool,
    /// The fingerprint that listings show, computed where the process crashed; `backtrace.fingerprint` is the same,
    /// unless there is none.
    listed_fingerprint: Option<&'a str>,
    /// The stack that was full, if the process crashed because of that.
    stack_overflow: Option<StackOverflow>,
    /// The message with which glibc aborted the process: a failed assertion, a corrupted heap.
    abort_message: Option<&'a str>,
    /// Why the process crashed; `null` if the crashed thread is not known.
    cause: Option<&'a Cause>,
    /// What the runtimes of languages know of the crash, such as panics and goroutines. Without `--goroutines` only the
    /// one that crashed is listed; the others are counted.
    #[serde(skip_serializing_if = "<[RuntimeReport]>::is_empty")]
    runtimes: &'a [RuntimeReport],
    /// The stacks.
    backtrace: NamedBacktrace<'a>,
    /// With `--group`: ids of threads with equal stacks, the crashing thread first.
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_groups: Option<Vec<Vec<u32>>>,
    /// With `--disassemble`: instructions around each frame of the crashing thread; `null` if its code is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    disassembly: Option<&'a [Option<Listing>]>,
    /// With `--registers`: of frame 0 of each thread shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    registers: Option<Vec<ThreadRegisters>>,
}

/// How much of a core is stored.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CoreSizes {
    /// Bytes that the core's headers promise.
    expected: u64,
    /// Bytes that are stored.
    found: u64,
    /// Whether nothing is missing.
    complete: bool,
}

/// Threads, modules and the fingerprint.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NamedBacktrace<'a> {
    /// The crashing thread first.
    threads: Vec<NamedThread<'a>>,
    /// Modules; frames refer to them by index.
    modules: &'a [ModuleReport],
    /// Fingerprint of the dump, as `cdh ls` lists it; computed from the crashing thread's stack if the dump has none.
    /// Absent if a file is missing or the stack is cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<&'a Fingerprint>,
    /// The inputs of the fingerprint.
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<&'a Explanation>,
    /// How long it took.
    elapsed: Elapsed,
}

/// The stack of one thread.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NamedThread<'a> {
    /// Thread id in the process's own pid namespace.
    tid: u32,
    /// Name of the thread, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    /// Whether it received the fatal signal.
    crashing: bool,
    /// Innermost first; inlined calls and tail calls have frames of their own.
    frames: Vec<NamedFrame<'a>>,
    /// Why there are no more frames.
    stop: Stop,
    /// Whether the handler unwound it at the crash, because the core or the necessary files are not
    /// available.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stored: bool,
}

/// One frame, and its role in the stack.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NamedFrame<'a> {
    #[serde(flatten)]
    frame: &'a Frame,
    /// Whether it is the program's own, how the process ended, or how the thread began.
    role: Role,
    /// Arguments of the function, if its debug information and the core are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<Vec<NamedVariable<'a>>>,
    /// With `--locals`: variables of the function, those of the innermost block first.
    #[serde(skip_serializing_if = "Option::is_none")]
    locals: Option<Vec<NamedVariable<'a>>>,
}

/// A variable.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NamedVariable<'a> {
    /// Its name.
    name: &'a str,
    /// Its type, as source code writes it.
    r#type: &'a str,
    /// Its location in memory; `null` if it is in registers, computed or nowhere.
    address: Option<u64>,
    /// Its value in gdb's format; without `--locals`, `...` for values that have members or elements.
    value: String,
    /// Whether the value is known.
    state: ValueState,
    /// Of an argument that was optimized out: what the caller passed, if its call site says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_at_entry: Option<String>,
}

/// Whether a value is known.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ValueState {
    /// It is.
    Value,
    /// The debug information does not describe its location.
    OptimizedOut,
    /// Its location is in memory that the core does not hold.
    NotInTheCore,
    /// It was not read; `--locals` reads it.
    Omitted,
}

impl<'a> NamedVariable<'a> {
    fn of(variable: &'a Variable) -> Self {
        Self {
            name: &variable.name,
            r#type: &variable.type_name,
            address: match variable.storage {
                Storage::Memory(at) => Some(at),
                _ => None,
            },
            value: variable.value.to_string(),
            value_at_entry: variable.value_at_entry.as_ref().map(ToString::to_string),
            state: match variable.value {
                Value::Missing(Missing::OptimizedOut) => ValueState::OptimizedOut,
                Value::Missing(Missing::NotInTheCore(_)) => ValueState::NotInTheCore,
                Value::Omitted => ValueState::Omitted,
                _ => ValueState::Value,
            },
        }
    }
}

/// The fault that a signal handler ran for.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NamedOriginalSignal {
    /// The signal. Code and address are absent if the kernel did not save them.
    signal: SignalFacts,
    /// Index of the frame in the first thread that was interrupted. The frames before it are those of the handler.
    frame: usize,
    /// Registers of that frame by name, in hexadecimal; `null` if only the stored stacks are known.
    registers: Option<BTreeMap<String, String>>,
    /// Faults in the handler that were handled again, the earliest first. `signal` of the document is the last one.
    nested: Vec<NamedNestedSignal>,
}

/// A fault in a signal handler.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NamedNestedSignal {
    /// The signal.
    signal: SignalFacts,
    /// Index of the frame in the first thread that was interrupted.
    frame: usize,
}

impl From<&OriginalSignal> for NamedOriginalSignal {
    fn from(original: &OriginalSignal) -> Self {
        let nested = original.nested.iter();
        Self {
            signal: SignalFacts::from(&original.signal),
            frame: original.frame,
            registers: original.registers.as_ref().map(registers_by_name),
            nested: nested
                .map(|nested| NamedNestedSignal {
                    signal: SignalFacts::from(&nested.signal),
                    frame: nested.frame,
                })
                .collect(),
        }
    }
}

fn registers_by_name(registers: &Registers) -> BTreeMap<String, String> {
    let named = registers.named().into_iter();
    named
        .map(|(name, value)| (name, format!("{value:#x}")))
        .collect()
}

/// Registers of one thread.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ThreadRegisters {
    /// Thread id.
    tid: u32,
    /// Values by name, in hexadecimal.
    registers: BTreeMap<String, String>,
}

/// One JSON document.
///
/// # Errors
/// Never in practice: the parts are plain text and numbers.
pub fn backtrace_json(view: &BacktraceView) -> Result<String> {
    let backtrace = view.backtrace;
    let shown = |thread: &&Thread| {
        backtrace
            .threads
            .iter()
            .any(|known| known.tid == thread.tid)
    };
    let registers = |thread: &Thread| ThreadRegisters {
        tid: thread.tid,
        registers: registers_by_name(&thread.registers),
    };
    let ids = |threads: Vec<&ThreadBacktrace>| threads.iter().map(|thread| thread.tid).collect();
    super::sorted_json(&BacktraceDocument {
        dump: view.manifest.id,
        process: &view.manifest.process,
        signal: &view.manifest.signal,
        original_signal: backtrace.original_signal.as_ref().map(Into::into),
        verdict: &view.manifest.verdict,
        core: view.completeness.map(|found| CoreSizes {
            expected: found.expected,
            found: found.found,
            complete: found.is_complete(),
        }),
        from_minicore: view.from_minicore,
        listed_fingerprint: view.manifest.fingerprint.as_deref(),
        stack_overflow: view.overflow,
        abort_message: view.abort_message,
        cause: view.cause,
        disassembly: view.listings,
        runtimes: view.runtimes,
        backtrace: NamedBacktrace {
            threads: backtrace
                .threads
                .iter()
                .map(|thread| named(view, thread))
                .collect(),
            modules: &backtrace.modules,
            fingerprint: backtrace.fingerprint.as_ref(),
            explanation: backtrace.explanation.as_ref(),
            elapsed: backtrace.elapsed,
        },
        thread_groups: view.group.then(|| {
            let groups = grouped(view).into_iter();
            groups.map(|(threads, _)| ids(threads)).collect()
        }),
        registers: view
            .registers
            .then(|| view.threads.iter().filter(shown).map(registers).collect()),
    })
}

fn named<'a>(view: &BacktraceView<'a>, thread: &'a ThreadBacktrace) -> NamedThread<'a> {
    let list = |variables: &'a [Variable]| variables.iter().map(NamedVariable::of).collect();
    let frame = |(number, frame): (usize, &'a Frame)| {
        let variables = view.variables.get(&(thread.tid, number));
        let locals = variables.filter(|_| view.locals.shows(thread.tid, number));
        NamedFrame {
            frame,
            role: frame.role(&view.backtrace.modules),
            arguments: variables.map(|found| list(&found.arguments)),
            locals: locals.map(|found| list(&found.locals)),
        }
    };
    NamedThread {
        tid: thread.tid,
        name: view.names.get(&thread.tid).map(String::as_str),
        crashing: thread.crashing,
        frames: thread.frames.iter().enumerate().map(frame).collect(),
        stop: thread.stop,
        stored: thread.stored,
    }
}
