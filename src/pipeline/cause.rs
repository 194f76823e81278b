//! From a named stack to its cause, and to the instructions around it.

use cdh_cause::{Cause, Crash, Listing, RuntimeFailure};
use cdh_elfcore::{Avma, Machine, Memory, SignalInfo};
use cdh_runtimes::RuntimeReport;
use cdh_symbolize::{Backtrace, Frame, LoadedModule};

use super::{Analysis, Dump};

/// Instructions shown before and after the current one.
const AROUND: usize = 6;
/// Frames whose instructions are listed.
const LISTED: usize = 64;

/// Why a process crashed, and what it executed.
pub(super) struct Explained {
    pub(super) cause: Cause,
    /// Of the crashing thread, by frame.
    pub(super) listings: Vec<Option<Listing>>,
}

/// Explains a crash from its core.
pub(super) fn explain(
    analysis: &Analysis,
    modules: &[LoadedModule<'_>],
    backtrace: &Backtrace,
    abort_message: Option<&str>,
    runtimes: &[RuntimeReport],
    disassemble: bool,
) -> Option<Explained> {
    let head = &analysis.head;
    if !head.knows_crashed_thread() {
        return None;
    }
    let thread = head.threads().first()?;
    let failure = last_failure(runtimes);
    let crash = Crash {
        signal: head
            .signal()
            .unwrap_or_else(|| SignalInfo::from_number(thread.signal.into())),
        pid: head.process().map(|process| process.pid),
        machine: head.machine(),
        registers: Some(&thread.registers),
        memory: &analysis.memory,
        segments: head.segments(),
        mappings: head.mappings(),
        modules,
        frames: crashing_frames(backtrace),
        reports: &backtrace.modules,
        overflow: head.stack_overflow(),
        abort_message,
        runtime_failure: failure
            .as_ref()
            .map(|(language, message)| RuntimeFailure { language, message }),
    };
    let frames = if disassemble { LISTED } else { 0 };
    let frames = crash.frames.len().min(frames);
    Some(Explained {
        cause: cdh_cause::explain(&crash),
        listings: (0..frames)
            .map(|index| cdh_cause::listing(&crash, index, AROUND))
            .collect(),
    })
}

/// What ended the program in the words of its language's runtime: the last thing that happened, not the signal by
/// which the runtime ended it. One line.
fn last_failure(runtimes: &[RuntimeReport]) -> Option<(&'static str, String)> {
    runtimes.iter().find_map(|report| {
        let mut messages = report.messages.iter().rev();
        let failure = messages.find(|message| message.kind != "signal")?;
        let line = failure.line();
        let first = line.lines().next().unwrap_or_default();
        Some((report.language.name(), first.to_owned()))
    })
}

/// Explains a crash whose core is missing, from the stacks that the handler stored.
pub(super) fn explain_stored(
    dump: &Dump,
    modules: &[LoadedModule<'_>],
    backtrace: &Backtrace,
    abort_message: Option<&str>,
) -> Option<Explained> {
    let facts = &dump.manifest.signal;
    let machine = match dump.manifest.machine.as_str() {
        "x86_64" => Machine::X86_64,
        "aarch64" => Machine::Aarch64,
        _ => return None,
    };
    let process = &dump.manifest.process;
    let crash = Crash {
        signal: SignalInfo {
            number: facts.number,
            code: facts.code,
            address: facts.address.map(Avma),
            sender: None,
        },
        pid: u32::try_from(process.namespace_pid.unwrap_or(process.pid)).ok(),
        machine,
        registers: None,
        memory: &NoMemory,
        segments: &[],
        mappings: &[],
        modules,
        frames: crashing_frames(backtrace),
        reports: &backtrace.modules,
        overflow: None,
        abort_message,
        runtime_failure: None,
    };
    Some(Explained {
        cause: cdh_cause::explain(&crash),
        listings: Vec::new(),
    })
}

/// The memory of a process without a core.
struct NoMemory;

impl Memory for NoMemory {
    fn read(&self, _: Avma, _: &mut [u8]) -> usize {
        0
    }
}

fn crashing_frames(backtrace: &Backtrace) -> &[Frame] {
    let crashing = backtrace.threads.iter().find(|thread| thread.crashing);
    crashing.map_or(&[], |thread| thread.frames.as_slice())
}
