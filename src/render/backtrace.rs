//! Prints backtraces for people and for programs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::time::Duration;

use cdh_bundle::{Manifest, SignalFacts, Verdict};
use cdh_cause::{Cause, Listing};
use cdh_elfcore::{Completeness, Machine, StackOverflow, Thread};
use cdh_inspect::{FrameVariables, FunctionVariables};
use cdh_runtimes::RuntimeReport;
use cdh_symbolize::{Backtrace, Frame, FrameTrust, ModuleStatus, Stop, ThreadBacktrace};

use super::cause::listing_lines;
use super::fold::{self, FrameGroup};
use super::frame::{frame_line, number_columns, stop_words};
use super::line::Line;
use super::tasks;
use super::units::grouped_digits;
use super::{Style, Tone, bytes, percent, terminal_line};

/// What `cdh bt` shows.
pub struct BacktraceView<'a> {
    /// Whose backtrace it is.
    pub manifest: &'a Manifest,
    /// The stacks.
    pub backtrace: &'a Backtrace,
    /// Threads of the core, with their registers.
    pub threads: &'a [Thread],
    /// The overflowed stack, if that was the cause.
    pub overflow: Option<StackOverflow>,
    /// The message with which glibc aborted the process.
    pub abort_message: Option<&'a str>,
    /// Why the process crashed.
    pub cause: Option<&'a Cause>,
    /// Instructions around each frame of the crashed thread.
    pub listings: Option<&'a [Option<Listing>]>,
    /// What language runtimes show about the crash.
    pub runtimes: &'a [RuntimeReport],
    /// Which parts of the core exist.
    pub completeness: Option<&'a Completeness>,
    /// Whether everything came from the minicore.
    pub from_minicore: bool,
    /// Whether the user named a directory with modules.
    pub searched_sysroot: bool,
    /// Whether to print registers.
    pub registers: bool,
    /// Whether to merge threads with equal stacks.
    pub group: bool,
    /// Whether to fold recursion, abort frames, and the start of the runtime.
    pub fold: bool,
    /// Variables of the printed frames.
    pub variables: &'a FrameVariables,
    /// The frames whose variables are printed completely.
    pub locals: Locals<'a>,
    /// Names of threads, where they are known.
    pub names: &'a BTreeMap<u32, String>,
    /// Lines of source files around frames.
    pub sources: Option<&'a Sources>,
    /// The total duration, if it is to be printed.
    pub elapsed: Option<Duration>,
}

/// The frames whose variables are printed.
#[derive(Clone, Copy, Debug)]
pub enum Locals<'a> {
    /// None.
    No,
    /// All of them.
    All,
    /// These frames, by thread id and number.
    Of(&'a BTreeSet<(u32, usize)>),
}

impl Locals<'_> {
    /// Whether the variables of a frame are printed.
    #[must_use]
    pub fn shows(self, tid: u32, number: usize) -> bool {
        match self {
            Self::No => false,
            Self::All => true,
            Self::Of(frames) => frames.contains(&(tid, number)),
        }
    }
}

/// Source files by the path that the debug information states.
pub type Sources = BTreeMap<String, SourceText>;

/// A source file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceText {
    /// Its lines.
    pub lines: Vec<String>,
    /// Why it may differ from the file that the program was built from.
    pub warnings: Vec<String>,
}

/// The properties that make stacks print the same lines.
type Stack = (Vec<(FrameIdentity, FrameTrust)>, Stop);
/// A native frame's address. Frames of an interpreted language share one address, so their line and function
/// distinguish them.
type FrameIdentity = (u64, Option<(String, u32)>);

/// Lines of source before and after the frame's line.
const SOURCE_AROUND: u32 = 3;
/// Maximum names shown of a folded end of a stack.
const END_NAMES: usize = 4;
/// Letters of each.
const END_NAME_LENGTH: usize = 48;
/// Maximum thread ids listed of a group.
const LISTED: usize = 8;

/// For people.
#[must_use]
pub fn backtrace_text(view: &BacktraceView, style: Style) -> String {
    let mut text = String::new();
    let put = |lines: &[Line], text: &mut String| {
        for line in lines {
            line.paint_into(style, text);
            text.push('\n');
        }
    };
    put(&head_lines(view), &mut text);
    // In a process with a thousand threads, most wait in the same few places.
    let mut known: HashMap<Stack, Range<usize>> = HashMap::new();
    for (threads, shown) in grouped(view) {
        put(&[Line::default(), thread_title(view, &threads)], &mut text);
        let frames = shown.frames.iter();
        let frames = frames.map(|frame| (identity(frame), frame.trust)).collect();
        let stack = (frames, shown.stop);
        let has_own = view.registers || !view.variables.is_empty();
        if let Some(place) = known.get(&stack).filter(|_| !has_own).cloned() {
            text.extend_from_within(place);
            continue;
        }
        let start = text.len();
        put(&thread_lines(view, shown), &mut text);
        known.insert(stack, start..text.len());
    }
    for block in tasks::task_blocks(view) {
        text.push('\n');
        put(&block, &mut text);
    }
    put(&module_problems(view), &mut text);
    text
}

fn identity(frame: &Frame) -> FrameIdentity {
    let place = || {
        let name = frame.function.as_ref().ok()?.name.clone();
        Some((name, frame.location.as_ref()?.line))
    };
    (frame.pc.0, frame.interpreted.then(place).flatten())
}

/// The lines above the stacks.
fn head_lines(view: &BacktraceView) -> Vec<Line> {
    let mut lines = header(view);
    for remark in remarks(view) {
        lines.push(Line::of(Tone::Bad, terminal_line(&remark)));
    }
    lines
}

fn header(view: &BacktraceView) -> Vec<Line> {
    let manifest = view.manifest;
    let process = &manifest.process;
    let mut title = Line::default();
    title.toned(
        Tone::Strong,
        terminal_line(&format!("{} (pid {})", process.exe_name(), process.pid)),
    );
    title.push(": ");
    let original = view.backtrace.original_signal.as_ref();
    let signal = match original {
        Some(original) => original.signal.describe(),
        None => manifest.crash_signal().description.clone(),
    };
    title.toned(Tone::Bad, terminal_line(&signal));
    // The sentence of `cdh why`, if it says more than the signal.
    let cause = view.cause.filter(|cause| cause.is_known());
    let mut lines: Vec<Line> = cause
        .map(|cause| Line::of(Tone::Bad, terminal_line(&cause.sentence)))
        .into_iter()
        .collect();
    lines.push(title);
    lines.extend(tasks::message_lines(view.runtimes));
    let mut facts = Vec::new();
    if let Some(workload) = &manifest.workload {
        let parts = [&workload.namespace, &workload.pod, &workload.container];
        let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
        if !parts.is_empty() {
            facts.push(("workload", parts.join("/")));
        }
    }
    if let Some(image) = &manifest.image {
        facts.push(("image", image.reference.clone()));
    }
    // An imported core does not record where it was written.
    let node = manifest.node_name();
    if manifest.workload.is_some() && !node.is_empty() {
        facts.push(("node", node));
    }
    if let Some(original) = original {
        let nested = original.nested.iter();
        let nested = nested.map(|nested| format!("crashed: {}", nested.signal.describe()));
        let end = handler_end(&manifest.signal);
        facts.extend(nested.chain([end]).map(|text| ("signal handler", text)));
    }
    facts.extend(view.abort_message.map(|text| ("message", text.to_owned())));
    facts.extend(tasks::versions(view.runtimes).map(|text| ("runtime", text)));
    facts.extend(fingerprints(view).map(|text| ("fingerprint", text)));
    for (name, value) in facts {
        lines.push(Line::of(
            Tone::Dim,
            terminal_line(&format!("{name} {value}")),
        ));
    }
    if let Some(elapsed) = view.elapsed {
        let threads = view.backtrace.threads.len();
        let all = view.threads.len();
        let micros = elapsed.as_micros();
        let took = format!(
            "{threads} of {all} threads in {}.{} ms",
            micros / 1000,
            micros % 1000 / 100
        );
        lines.push(Line::of(Tone::Dim, took));
    }
    lines
}

/// How the handler of the original signal ended the process.
pub(super) fn handler_end(signal: &SignalFacts) -> String {
    // Codes above 0 are those of the kernel (`include/uapi/asm-generic/siginfo.h`).
    match signal.code {
        Some(1..) => format!("crashed: {}", signal.description),
        _ => format!("ended by {}", signal.description),
    }
}

/// The fingerprint of the dump, and that of the stack below if it differs.
fn fingerprints(view: &BacktraceView) -> impl Iterator<Item = String> {
    let dump = view.backtrace.fingerprint.as_ref();
    let made = view.backtrace.explanation.as_ref();
    let made = made
        .map(|made| &made.fingerprint)
        .filter(|made| Some(*made) != dump);
    let other = made.map(|made| format!("{made} (of the stack below, by this version of cdh)"));
    dump.map(ToString::to_string).into_iter().chain(other)
}

/// Whether stacks of the dump's machine type can be unwound.
#[must_use]
pub fn is_unwound(manifest: &Manifest) -> bool {
    manifest.machine.is_empty() || Machine::from_name(&manifest.machine).is_some()
}

/// What the reader must know before trusting the stacks.
fn remarks(view: &BacktraceView) -> Vec<String> {
    let mut remarks = Vec::new();
    remarks.extend(view.overflow.map(|overflow| overflow.to_string()));
    if !matches!(view.manifest.verdict, Verdict::Complete) {
        // This comes first, because it may explain everything below.
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
    if !is_unwound(view.manifest) {
        remarks.push(format!(
            "stacks of {} are not unwound: open the core with `cdh debug`",
            view.manifest.machine
        ));
    }
    if view.backtrace.threads.is_empty() {
        remarks.push("no threads are known: the notes of the core are missing".to_owned());
    }
    let threads = &view.backtrace.threads;
    match threads.iter().filter(|thread| thread.stored).count() {
        0 => {}
        stored if stored == threads.len() && view.threads.is_empty() => remarks.push(
            "from the backtrace that the handler stored at the crash: no registers, no memory".to_owned(),
        ),
        stored => remarks.push(format!(
            "{stored} of {} stacks as the handler stored them at the crash: files or memory are missing here",
            threads.len()
        )),
    }
    remarks.extend(tasks::gaps(view.runtimes).cloned());
    if view.from_minicore {
        remarks
            .push("from the minicore: stacks and registers as they were at the crash".to_owned());
    }
    remarks
}

/// Threads with equal stacks, in the order of the first of each.
pub(super) fn grouped<'a>(
    view: &BacktraceView<'a>,
) -> Vec<(Vec<&'a ThreadBacktrace>, &'a ThreadBacktrace)> {
    if !view.group {
        return view
            .backtrace
            .threads
            .iter()
            .map(|thread| (vec![thread], thread))
            .collect();
    }
    let mut groups: Vec<(Vec<&ThreadBacktrace>, &ThreadBacktrace)> = Vec::new();
    let mut known: BTreeMap<(bool, Vec<FrameIdentity>), usize> = BTreeMap::new();
    for thread in &view.backtrace.threads {
        let pcs = thread.frames.iter().map(identity).collect();
        let index = *known.entry((thread.crashing, pcs)).or_insert(groups.len());
        match groups.get_mut(index) {
            Some((members, _)) => members.push(thread),
            None => groups.push((vec![thread], thread)),
        }
    }
    groups
}

fn thread_title(view: &BacktraceView, threads: &[&ThreadBacktrace]) -> Line {
    let mut ids: Vec<String> = threads
        .iter()
        .take(LISTED)
        .map(|thread| match view.names.get(&thread.tid) {
            Some(name) => format!("{} \"{}\"", thread.tid, terminal_line(name)),
            None => thread.tid.to_string(),
        })
        .collect();
    if threads.len() > LISTED {
        ids.push("…".to_owned());
    }
    let crashed = threads.iter().any(|thread| thread.crashing);
    let title = if threads.len() > 1 {
        format!("{} threads: {}", threads.len(), ids.join(" "))
    } else {
        let tid = threads.first().map_or(0, |thread| thread.tid);
        let notes = tasks::thread_notes(view.runtimes, tid);
        let notes: String = notes.iter().map(|note| format!(", {note}")).collect();
        format!("thread {}{}", ids.join(" "), terminal_line(&notes))
    };
    let mark = if crashed { " (crashed)" } else { "" };
    Line::of(Tone::Strong, format!("{title}{mark}"))
}

/// The numbers of the frames that are printed of a thread.
#[must_use]
pub fn shown_frames(backtrace: &Backtrace, thread: &ThreadBacktrace, fold: bool) -> Vec<usize> {
    let pieces = match fold {
        true => fold::folded(backtrace, thread),
        false => fold::unfolded(thread),
    };
    let frames = pieces.into_iter().filter_map(|piece| match piece {
        FrameGroup::Frames(range) => Some(range),
        _ => None,
    });
    frames.flatten().collect()
}

/// The variables of a frame, in gdb's format.
fn variable_lines(variables: &FunctionVariables) -> Vec<Line> {
    let line = |variable: &cdh_inspect::Variable| {
        let mut line = Line::default();
        line.push("        ");
        line.toned(Tone::Name, terminal_line(&variable.name));
        line.push(terminal_line(&format!(" = {}", variable.value)));
        line
    };
    if variables.locals.is_empty() {
        return vec![Line::of(Tone::Dim, "        No locals.")];
    }
    variables.locals.iter().map(line).collect()
}

/// The lines of one thread, without its title.
#[must_use]
pub fn thread_lines(view: &BacktraceView, thread: &ThreadBacktrace) -> Vec<Line> {
    let mut lines = Vec::new();
    let original = view.backtrace.original_signal.as_ref();
    let original = original.filter(|_| thread.crashing);
    if view.registers {
        let known = view.threads.iter().find(|known| known.tid == thread.tid);
        let named = known
            .map(|known| view.backtrace.registers_of(known).named())
            .unwrap_or_default();
        if let Some(original) = original.filter(|original| original.registers.is_some()) {
            let (frame, signal) = (original.frame, original.signal.name());
            let title = format!("    registers of frame #{frame}, at {signal}");
            lines.push(Line::of(Tone::Dim, title));
        }
        for row in named.chunks(3) {
            let cells: Vec<_> = row
                .iter()
                .map(|(name, value)| format!("{name:>4} {value:#018x}"))
                .collect();
            let mut line = Line::default();
            line.push(format!("    {}", cells.join("  ")));
            lines.push(line);
        }
    }
    let pieces = if view.fold {
        fold::folded(view.backtrace, thread)
    } else {
        fold::unfolded(thread)
    };
    let columns = number_columns(thread.frames.len());
    let mut warned = BTreeSet::new();
    for piece in pieces {
        match piece {
            FrameGroup::Frames(range) => {
                for number in range {
                    let Some(frame) = thread.frames.get(number) else {
                        break;
                    };
                    let variables = view.variables.get(&(thread.tid, number));
                    lines.push(frame_line(
                        view.backtrace,
                        number,
                        columns,
                        frame,
                        variables,
                    ));
                    if let Some(variables) =
                        variables.filter(|_| view.locals.shows(thread.tid, number))
                    {
                        lines.extend(variable_lines(variables));
                    }
                    lines.extend(source_lines(view, frame, &mut warned));
                    let listings = view.listings.filter(|_| thread.crashing);
                    let listing = listings.and_then(|all| all.get(number)?.as_ref());
                    // An inlined call belongs to the code of its caller.
                    let listing = listing.filter(|_| !frame.inline);
                    lines.extend(listing.into_iter().flat_map(listing_lines));
                }
            }
            FrameGroup::Handler(range) => lines.push(end_line(thread, range, End::SignalHandler)),
            FrameGroup::Ended(range) => lines.push(end_line(thread, range, End::HowItEnded)),
            FrameGroup::Start(range) => lines.push(end_line(thread, range, End::RuntimeStart)),
            FrameGroup::Repeated { frames, cycle } => {
                lines.push(repeated_line(thread, &frames, cycle))
            }
        }
    }
    if let Some(reason) = stop_words(&thread.stop).filter(|_| is_unwound(view.manifest)) {
        lines.push(Line::of(Tone::Dim, format!("  -- {reason}")));
    }
    lines
}

/// A folded end of a stack.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    SignalHandler,
    HowItEnded,
    RuntimeStart,
}

impl End {
    fn words(self) -> &'static str {
        match self {
            Self::SignalHandler => "signal handler",
            Self::HowItEnded => "how it ended",
            Self::RuntimeStart => "runtime start",
        }
    }
}

/// One line for the end of the stack. If there are many names, those next to the program's own frames
/// are shown.
fn end_line(thread: &ThreadBacktrace, range: Range<usize>, end: End) -> Line {
    let (first, last) = (range.start, range.end.saturating_sub(1));
    let frames = thread.frames.get(range.clone()).unwrap_or_default();
    let mut names: Vec<&str> = Vec::new();
    for frame in frames {
        if let Ok(function) = &frame.function
            && !frame.signal_handler
            && names.last() != Some(&function.name.as_str())
        {
            names.push(&function.name);
        }
    }
    let short = |name: &&str| {
        let mut letters = name.chars();
        let start: String = letters.by_ref().take(END_NAME_LENGTH).collect();
        match letters.next() {
            Some(_) => start + "…",
            None => start,
        }
    };
    let names: Vec<String> = names.iter().map(short).collect();
    let mut shown: Vec<String> = Vec::new();
    let left_out = names.len().saturating_sub(END_NAMES);
    if left_out == 0 {
        shown.extend(names);
    } else if end != End::RuntimeStart {
        shown.push("…".to_owned());
        shown.extend(names.into_iter().skip(left_out));
    } else {
        shown.extend(names.into_iter().take(END_NAMES));
        shown.push("…".to_owned());
    }
    let what = end.words();
    let mut text = format!("  #{first}-#{last} {what}: {} frames", range.len());
    if !shown.is_empty() {
        text.push_str(&format!(" ({})", terminal_line(&shown.join(", "))));
    }
    Line::of(Tone::Dim, text)
}

/// The middle of a recursion, between its first and its last repetition.
fn repeated_line(thread: &ThreadBacktrace, range: &Range<usize>, cycle: usize) -> Line {
    let times = grouped_digits(range.len().checked_div(cycle).unwrap_or(0));
    let what = if cycle == 1 {
        format!("the one above repeats {times} times")
    } else {
        format!("the {cycle} above repeat {times} times")
    };
    let frames = thread.frames.get(range.clone()).unwrap_or_default();
    let line = |frame: &Frame| frame.location.as_ref().map(|place| place.line);
    let differ = frames
        .iter()
        .zip(frames.iter().skip(cycle))
        .any(|(frame, next)| line(frame) != line(next));
    let where_from = if differ { ", at other lines" } else { "" };
    let count = grouped_digits(range.len());
    Line::of(
        Tone::Dim,
        format!("    … {count} frames: {what}{where_from} …"),
    )
}

/// The lines around a frame. Each warning is printed once per thread.
fn source_lines<'v>(
    view: &BacktraceView<'v>,
    frame: &Frame,
    warned: &mut BTreeSet<&'v str>,
) -> Vec<Line> {
    let found = frame.location.as_ref().zip(view.sources);
    let Some((place, source)) =
        found.and_then(|(place, sources)| Some((place, sources.get(&place.file)?)))
    else {
        return Vec::new();
    };
    let first = place.line.saturating_sub(SOURCE_AROUND).max(1);
    let last = place.line.saturating_add(SOURCE_AROUND);
    let line = |number: u32| {
        let text = source
            .lines
            .get(usize::try_from(number).ok()?.checked_sub(1)?)?;
        let mark = if number == place.line { ">" } else { " " };
        let shown = terminal_line(&text.replace('\t', "    "));
        let tone = if number == place.line {
            Tone::Place
        } else {
            Tone::Dim
        };
        Some(Line::of(
            tone,
            format!("      {mark}{number:>6} {shown}").trim_end(),
        ))
    };
    let new = source.warnings.iter().filter(|text| warned.insert(text));
    let warning =
        |text: &String| Line::of(Tone::Bad, terminal_line(&format!("      warning: {text}")));
    new.map(warning)
        .chain((first..=last).filter_map(line))
        .collect()
}

/// Modules that contain frames and that could not be used.
fn module_problems(view: &BacktraceView) -> Vec<Line> {
    let backtrace = view.backtrace;
    let used: std::collections::BTreeSet<usize> = backtrace
        .threads
        .iter()
        .flat_map(|thread| thread.frames.iter().filter_map(|frame| frame.module))
        .collect();
    let mut lines = Vec::new();
    for module in used
        .iter()
        .filter_map(|index| backtrace.modules.get(*index))
    {
        let Some(problem) = status_words(&module.status, view.searched_sysroot) else {
            continue;
        };
        if lines.is_empty() {
            lines.push(Line::default());
        }
        let line = format!("{}: {problem}", module.path);
        lines.push(Line::of(Tone::Bad, terminal_line(&line)));
    }
    lines
}

fn status_words(status: &ModuleStatus, searched_sysroot: bool) -> Option<String> {
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
        ModuleStatus::Missing if searched_sysroot => {
            Some("not found, nor by its build-id or name below `--sysroot`".to_owned())
        }
        ModuleStatus::Missing => {
            Some("not found: pass the root of the crashed process as `--sysroot <DIR>`".to_owned())
        }
        ModuleStatus::Differs(why) => Some(format!("not used: {why}")),
        ModuleStatus::Unreadable(why) => Some(format!("cannot be read: {why}")),
    }
}
