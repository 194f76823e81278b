//! Backtraces for people and for programs.

use std::collections::BTreeMap;

use anyhow::Result;
use cdh_bundle::{Manifest, Verdict};
use cdh_elfcore::{Completeness, Thread};
use cdh_symbolize::{Backtrace, Frame, FrameTrust, ModuleStatus, Reason, Stop, ThreadBacktrace};
use serde_json::{Value, json};

use super::{Style, Tone, bytes, percent, terminal_line};

/// What `cdh bt` shows.
pub struct BacktraceView<'a> {
    /// Whose backtrace it is.
    pub manifest: &'a Manifest,
    /// The stacks.
    pub backtrace: &'a Backtrace,
    /// Threads of the core, for their registers.
    pub threads: &'a [Thread],
    /// What there is of the core.
    pub completeness: Option<&'a Completeness>,
    /// Whether everything came from the minicore.
    pub from_minicore: bool,
    /// Whether to print registers.
    pub registers: bool,
    /// Whether to merge threads with equal stacks.
    pub group: bool,
}

/// For people.
#[must_use]
pub fn backtrace_text(view: &BacktraceView, style: Style) -> String {
    let process = &view.manifest.process;
    let title = format!("{} (pid {})", process.name, process.pid);
    let mut text = format!(
        "{}: {}\n",
        style.paint(Tone::Strong, terminal_line(&title)),
        style.paint(Tone::Bad, terminal_line(&view.manifest.signal.description))
    );
    for remark in remarks(view) {
        text.push_str(&format!(
            "{}\n",
            style.paint(Tone::Bad, terminal_line(&remark))
        ));
    }
    for (threads, shown) in grouped(view) {
        text.push('\n');
        text.push_str(&thread_title(&threads, style));
        text.push_str(&stack(view, shown, style));
    }
    text.push_str(&module_problems(view.backtrace, style));
    text
}

/// What the reader must know before trusting the stacks.
fn remarks(view: &BacktraceView) -> Vec<String> {
    let mut remarks = Vec::new();
    if !matches!(view.manifest.verdict, Verdict::Complete) {
        remarks.push(format!("the core is {}", view.manifest.verdict.describe()));
    }
    if let Some(found) = view.completeness.filter(|found| !found.is_complete()) {
        let part = percent(found.found, found.expected);
        let sizes = format!("{} of {}", bytes(found.found), bytes(found.expected));
        remarks.push(format!("the core's file holds {sizes} ({part})"));
        let cut = found
            .stacks
            .iter()
            .filter(|stack| stack.found < stack.expected)
            .count();
        if cut > 0 {
            remarks.push(format!(
                "the stacks of {cut} of {} threads are cut",
                found.stacks.len()
            ));
        }
    }
    if view.backtrace.threads.is_empty() {
        remarks.push("no threads are known: the notes of the core are missing".to_owned());
    }
    if view.from_minicore {
        remarks
            .push("from the minicore: stacks and registers as they were at the crash".to_owned());
    }
    remarks
}

/// Threads with equal stacks, in the order of the first of each.
fn grouped<'a>(view: &BacktraceView<'a>) -> Vec<(Vec<&'a ThreadBacktrace>, &'a ThreadBacktrace)> {
    if !view.group {
        return view
            .backtrace
            .threads
            .iter()
            .map(|thread| (vec![thread], thread))
            .collect();
    }
    let mut groups: Vec<(Vec<&ThreadBacktrace>, &ThreadBacktrace)> = Vec::new();
    let mut known: BTreeMap<(bool, Vec<u64>), usize> = BTreeMap::new();
    for thread in &view.backtrace.threads {
        let pcs = thread.frames.iter().map(|frame| frame.pc.0).collect();
        let index = *known.entry((thread.crashing, pcs)).or_insert(groups.len());
        match groups.get_mut(index) {
            Some((members, _)) => members.push(thread),
            None => groups.push((vec![thread], thread)),
        }
    }
    groups
}

fn thread_title(threads: &[&ThreadBacktrace], style: Style) -> String {
    let ids: Vec<String> = threads
        .iter()
        .map(|thread| thread.tid.to_string())
        .collect();
    let word = if ids.len() == 1 { "thread" } else { "threads" };
    let crashed = threads.iter().any(|thread| thread.crashing);
    let count = if ids.len() > 1 {
        format!(" ({})", ids.len())
    } else {
        String::new()
    };
    let title = format!("{word} {}{count}", ids.join(" "));
    let mark = if crashed { " (crashed)" } else { "" };
    format!("{}\n", style.paint(Tone::Strong, format!("{title}{mark}")))
}

fn stack(view: &BacktraceView, thread: &ThreadBacktrace, style: Style) -> String {
    let mut text = String::new();
    if view.registers {
        let registers = view.threads.iter().find(|known| known.tid == thread.tid);
        let named = registers
            .map(|thread| thread.registers.named())
            .unwrap_or_default();
        for row in named.chunks(3) {
            let cells: Vec<_> = row
                .iter()
                .map(|(name, value)| format!("{name:>4} {value:#018x}"))
                .collect();
            text.push_str(&format!("    {}\n", cells.join("  ")));
        }
    }
    for (number, frame) in thread.frames.iter().enumerate() {
        text.push_str(&frame_line(view.backtrace, number, frame, style));
    }
    if let Some(reason) = stop_words(&thread.stop) {
        text.push_str(&format!(
            "  {}\n",
            style.paint(Tone::Dim, format!("-- {reason}"))
        ));
    }
    text
}

fn frame_line(backtrace: &Backtrace, number: usize, frame: &Frame, style: Style) -> String {
    let address = style.paint(Tone::Dim, format!("{:#018x}", frame.pc.0));
    let mut line = format!("  {:<4}{address} ", format!("#{number}"));
    match &frame.function {
        Ok(function) => {
            line.push_str(&style.paint(Tone::Name, terminal_line(&function.name)));
            if frame.location.is_none()
                && let Some(offset) = function.offset
            {
                line.push_str(&format!("+{offset:#x}"));
            }
        }
        Err(reason) => {
            let why = format!("?? ({})", reason_words(reason));
            line.push_str(&style.paint(Tone::Dim, why));
        }
    }
    if let Some(place) = &frame.location {
        let column = place
            .column
            .map(|column| format!(":{column}"))
            .unwrap_or_default();
        let place = format!("{}:{}{column}", terminal_line(&place.file), place.line);
        line.push_str(&format!(" at {}", style.paint(Tone::Place, place)));
    } else if let Some(module) = frame.module.and_then(|index| backtrace.modules.get(index)) {
        let name = module.path.rsplit('/').next().unwrap_or(&module.path);
        let offset = frame
            .svma
            .map(|svma| format!("+{:#x}", svma.0))
            .unwrap_or_default();
        line.push_str(&format!(" in {}{offset}", terminal_line(name)));
    }
    for mark in marks(frame) {
        line.push_str(&style.paint(Tone::Dim, format!(" [{mark}]")));
    }
    line + "\n"
}

/// How the frame was found, where that is not the usual way.
fn marks(frame: &Frame) -> Vec<&'static str> {
    let mut marks = Vec::new();
    if frame.signal_handler {
        marks.push("signal handler called");
    }
    if frame.inline {
        marks.push("inlined");
    }
    if frame.tail_call {
        marks.push("tail call");
    }
    marks.extend(match frame.trust {
        FrameTrust::FramePointer => Some("by frame pointer"),
        FrameTrust::Scan => Some("guessed from the stack"),
        FrameTrust::BadCall => Some("called a wild address"),
        FrameTrust::Signal => Some("interrupted by a signal"),
        FrameTrust::Registers | FrameTrust::Cfi => None,
    });
    marks
}

fn reason_words(reason: &Reason) -> String {
    match reason {
        Reason::NoModule => "no file is mapped here".to_owned(),
        Reason::ModuleMissing => "its file was not found".to_owned(),
        Reason::ModuleMismatch => "its file is not the one that was mapped".to_owned(),
        Reason::NoSymbols => "its file has no symbols".to_owned(),
        Reason::NotInAnyFunction => "in no known function".to_owned(),
        Reason::Unreadable(why) => format!("its file cannot be read: {why}"),
        Reason::LoadAddressUnknown => "its load address is not known".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Why the stack ends where it does; nothing where it simply ends.
fn stop_words(stop: &Stop) -> Option<String> {
    match stop {
        Stop::End => None,
        Stop::NoMemory(at) => Some(format!("the stack at {at} is not in the core")),
        Stop::NoRule => Some("no way to find the caller".to_owned()),
        Stop::Loop => Some("the stack loops".to_owned()),
        Stop::Limit => Some("more frames follow: raise `--limit`".to_owned()),
    }
}

/// Modules that frames stand in and that could not be used.
fn module_problems(backtrace: &Backtrace, style: Style) -> String {
    let used: std::collections::BTreeSet<usize> = backtrace
        .threads
        .iter()
        .flat_map(|thread| thread.frames.iter().filter_map(|frame| frame.module))
        .collect();
    let mut text = String::new();
    for module in used
        .iter()
        .filter_map(|index| backtrace.modules.get(*index))
    {
        let Some(problem) = status_words(&module.status) else {
            continue;
        };
        if text.is_empty() {
            text.push('\n');
        }
        let line = format!("{}: {problem}", module.path);
        text.push_str(&format!(
            "{}\n",
            style.paint(Tone::Bad, terminal_line(&line))
        ));
    }
    text
}

fn status_words(status: &ModuleStatus) -> Option<String> {
    match status {
        ModuleStatus::Verified => None,
        ModuleStatus::Unverified => {
            Some("used unproven: the core holds no build-id of it".to_owned())
        }
        ModuleStatus::Mismatch { expected, found } => {
            let found = found
                .as_ref()
                .map_or_else(|| "none".to_owned(), ToString::to_string);
            Some(format!(
                "not used: build-id {found}, the process had {expected}"
            ))
        }
        ModuleStatus::Missing => {
            Some("not found: pass the root of the crashed process as `--sysroot <DIR>`".to_owned())
        }
        ModuleStatus::Unreadable(why) => Some(format!("cannot be read: {why}")),
    }
}

/// One JSON document.
///
/// # Errors
/// Never in practice: the parts are plain text and numbers.
pub fn backtrace_json(view: &BacktraceView) -> Result<String> {
    let registers = |thread: &Thread| {
        let named: serde_json::Map<String, Value> = thread
            .registers
            .named()
            .into_iter()
            .map(|(name, value)| (name, Value::String(format!("{value:#x}"))))
            .collect();
        json!({"tid": thread.tid, "registers": named})
    };
    let shown = |thread: &&Thread| {
        view.backtrace
            .threads
            .iter()
            .any(|known| known.tid == thread.tid)
    };
    let found = view.completeness.map(|found| {
        json!({"expected": found.expected, "found": found.found, "complete": found.is_complete()})
    });
    let mut document = json!({
        "dump": view.manifest.id,
        "process": view.manifest.process,
        "signal": view.manifest.signal,
        "verdict": view.manifest.verdict,
        "core": found,
        "from_minicore": view.from_minicore,
        "backtrace": view.backtrace,
    });
    if view.registers {
        let all: Vec<Value> = view.threads.iter().filter(shown).map(registers).collect();
        if let Some(object) = document.as_object_mut() {
            object.insert("registers".to_owned(), Value::Array(all));
        }
    }
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}
