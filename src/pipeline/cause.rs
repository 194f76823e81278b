//! Derives the cause of a crash from a symbolized stack, and lists the instructions around it.

use cdh_cause::{Cause, Crash, Listing, Names, RuntimeFailure};
use cdh_elfcore::{Avma, Machine, Memory, SignalInfo};
use cdh_inspect::Inspector;
use cdh_runtimes::RuntimeReport;
use cdh_symbolize::{Backtrace, LoadedModule, SectionArena, Surroundings, with_vdso};

use super::pointer_names::PointerNames;
use super::{Analysis, Dump};

/// Instructions shown before and after the current one.
const AROUND: usize = 6;
/// Maximum frames whose instructions are listed.
const LISTED: usize = 64;

/// Why a process crashed, and the instructions that it executed.
pub(super) struct Explained {
    pub(super) cause: Cause,
    /// Of the crashing thread, by frame.
    pub(super) listings: Vec<Option<Listing>>,
}

/// The files of a process, and where more debug information is.
pub(super) struct Evidence<'a> {
    pub(super) modules: &'a [LoadedModule<'a>],
    pub(super) arena: &'a SectionArena,
    pub(super) surroundings: &'a dyn Surroundings,
    /// The text with which glibc ended the process.
    pub(super) abort_message: Option<&'a str>,
    pub(super) runtimes: &'a [RuntimeReport],
}

/// Explains a crash from its core.
pub(super) fn explain(
    analysis: &Analysis,
    evidence: &Evidence<'_>,
    backtrace: &Backtrace,
    disassemble: bool,
) -> Option<Explained> {
    let Evidence {
        modules,
        arena,
        surroundings,
        abort_message,
        runtimes,
    } = *evidence;
    let head = &analysis.head;
    if !head.knows_crashed_thread() {
        return None;
    }
    let tid = backtrace.threads.first()?.tid;
    let thread = head.threads().iter().find(|thread| thread.tid == tid)?;
    // The crash is the fault that the signal handler was running for.
    let original = backtrace.original_signal.as_ref();
    let registers = original.map_or(Some(&thread.registers), |original| {
        original.registers.as_ref()
    });
    let stated = head
        .signal()
        .unwrap_or_else(|| SignalInfo::from_number(thread.signal.into()));
    let signal = original.map_or(stated, |original| original.signal);
    let modules = &with_vdso(modules, &analysis.memory, arena)[..];
    let inspector = Inspector::new(&analysis.memory, modules, arena, surroundings);
    let names = registers.map(|registers| PointerNames::new(&inspector, registers));
    let failure = last_failure(runtimes);
    let failure = failure.as_ref();
    let crash = Crash {
        signal,
        pid: head.process().map(|process| process.pid),
        machine: head.machine(),
        registers,
        memory: &analysis.memory,
        segments: head.segments(),
        mappings: head.mappings(),
        modules,
        frames: backtrace.crash_frames(),
        handler_frames: original.map_or(0, |original| original.frame),
        reports: &backtrace.modules,
        overflow: registers.and_then(|registers| head.stack_overflow_at(tid, &signal, registers)),
        abort_message,
        names: names.as_ref().map(|names| names as &dyn Names),
        runtime_failure: failure.map(|(language, message, signal)| RuntimeFailure {
            language,
            message,
            signal: *signal,
        }),
    };
    let frames = if disassemble { LISTED } else { 0 };
    let frames = crash.frames.len().min(frames);
    // Frames of a signal handler get no listing.
    let handler = original.map_or(0, |original| original.frame);
    let listings = (0..frames).map(|index| cdh_cause::listing(&crash, index, AROUND));
    let listings = std::iter::repeat_n(None, if disassemble { handler } else { 0 }).chain(listings);
    Some(Explained {
        cause: cdh_cause::explain(&crash),
        listings: listings.collect(),
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
    let original = backtrace.original_signal.as_ref();
    let stated = SignalInfo {
        number: facts.number,
        code: facts.code,
        address: facts.address.map(Avma),
        sender: None,
    };
    let machine = match dump.manifest.machine.as_str() {
        "x86_64" => Machine::X86_64,
        "aarch64" => Machine::Aarch64,
        _ => return None,
    };
    let process = &dump.manifest.process;
    let crash = Crash {
        signal: original.map_or(stated, |original| original.signal),
        pid: u32::try_from(process.namespace_pid.unwrap_or(process.pid)).ok(),
        machine,
        registers: None,
        memory: &NoMemory,
        segments: &[],
        mappings: &[],
        modules,
        frames: backtrace.crash_frames(),
        handler_frames: original.map_or(0, |original| original.frame),
        reports: &backtrace.modules,
        overflow: None,
        abort_message,
        names: None,
        runtime_failure: None,
    };
    Some(Explained {
        cause: cdh_cause::explain(&crash),
        listings: Vec::new(),
    })
}

/// The reason in the words of the language runtime that ended the program, on one line: the last event, and the
/// signal that the runtime turned into a panic.
fn last_failure(runtimes: &[RuntimeReport]) -> Option<(&'static str, String, Option<&str>)> {
    let mut reports = runtimes.iter();
    let report = reports.find(|report| report.ended_program)?;
    let mut messages = report.messages.iter().rev();
    let last = messages.find(|message| message.kind != "signal")?;
    let line = last.line();
    let first = line.lines().next().unwrap_or_default();
    let signal = report
        .messages
        .last()
        .filter(|message| message.kind == "signal");
    let signal = signal.and_then(|signal| signal.text.lines().next());
    Some((report.language.name(), first.to_owned(), signal))
}

/// The memory of a process without a core.
struct NoMemory;

impl Memory for NoMemory {
    fn read(&self, _: Avma, _: &mut [u8]) -> usize {
        0
    }
}
