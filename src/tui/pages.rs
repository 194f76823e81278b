//! The texts of a dump's tabs: pure functions from its facts to lines.
//!
//! They use `render`'s output for the terminal, so that the TUI and the commands print the same
//! texts.

use std::collections::BTreeSet;
use std::sync::Arc;

use cdh_bundle::Manifest;
use cdh_elfcore::Mapping;
use cdh_symbolize::{Backtrace, Frame, ModuleStatus};
use ratatui::text::{Line, Span};
use serde_json::Value;

use super::model::{DumpCache, DumpView, Explained, Opened, Stacks, Tab, Texts};
use super::styled::{lines, plain, wrapped};
use super::theme::Theme;
pub use crate::render::top_frame;
use crate::render::{
    self, BacktraceView, InfoView, Locals, Style, Tone, backtrace_text, bytes, info_text,
    terminal_line,
};
use crate::report::RenderedError;

const STYLE: Style = Style::Colored;
/// Width of prose in columns, for an 80-column terminal.
const PROSE: usize = 74;

/// The lines of the current tab. On a narrow screen, frames are shown without addresses.
#[must_use]
pub fn tab(known: &DumpCache, view: &DumpView, theme: Theme, roomy: bool) -> Vec<Line<'static>> {
    let nothing = Explained::default();
    let known = known.get(view.dump.id).unwrap_or(&nothing);
    let opened = match &known.opened {
        None => return lines("reading the dump …\n", theme),
        Some(Err(error)) => return problem(error, theme),
        Some(Ok(opened)) => opened,
    };
    let text = match view.tab {
        Tab::Info => info(
            opened,
            known
                .stacks
                .as_ref()
                .and_then(|stacks| stacks.as_ref().ok()),
        ),
        Tab::Workload => workload(opened, known.texts.as_deref()),
        Tab::Manifest => match serde_json::to_string_pretty(&opened.manifest) {
            Ok(json) => json,
            Err(error) => error.to_string(),
        },
        Tab::Logs => match &known.texts {
            None => "reading …\n".to_owned(),
            Some(texts) => logs(texts),
        },
        Tab::Backtrace | Tab::Modules | Tab::Memory | Tab::Registers => match &known.stacks {
            None => "reading the stacks …\n".to_owned(),
            Some(Err(error)) => return problem(error, theme),
            Some(Ok(stacks)) => match view.tab {
                Tab::Modules => modules(opened, stacks),
                Tab::Memory => memory(stacks, known.texts.as_deref()),
                Tab::Registers => registers(stacks, view.thread),
                _ => backtrace(opened, stacks, view.thread, &view.expanded),
            },
        },
    };
    let mut lines = lines(&text, theme);
    if view.tab == Tab::Backtrace && !roomy {
        lines.iter_mut().for_each(without_address);
    }
    lines
}

/// A frame's line without its address; other lines are unchanged.
fn without_address(line: &mut Line<'static>) {
    /// `0x` and sixteen digits.
    const LENGTH: usize = 18;
    if !is_frame(line) {
        return;
    }
    let at = |span: &Span<'_>| {
        let at = span.content.find("0x")?;
        let address = span.content.get(at..at.checked_add(LENGTH)?)?;
        let is_hex = address.bytes().skip(2).all(|byte| byte.is_ascii_hexdigit());
        is_hex.then_some(at)
    };
    let found = line.spans.iter().enumerate();
    let found = found.filter_map(|(index, span)| Some((index, at(span)?)));
    let Some((index, at)) = found.min() else {
        return;
    };
    let Some(span) = line.spans.get_mut(index) else {
        return;
    };
    let (before, after) = span.content.split_at(at);
    let after = after.get(LENGTH..).unwrap_or_default().trim_start();
    let is_all = after.is_empty();
    span.content = format!("{before}{after}").into();
    if is_all && let Some(next) = line.spans.get_mut(index + 1) {
        next.content = next.content.trim_start().to_owned().into();
    }
}

/// Whether the line is a frame: these start with a number.
fn is_frame(line: &Line<'_>) -> bool {
    plain(line).starts_with("  #")
}

/// An error as a page: what failed, why, and how to fix it.
#[must_use]
pub fn problem(error: &RenderedError, theme: Theme) -> Vec<Line<'static>> {
    let mut text = String::new();
    for (number, line) in error.lines.iter().enumerate() {
        let tone = if number == 0 { Tone::Bad } else { Tone::Dim };
        for line in wrapped(line, PROSE) {
            text.push_str(&format!("{}\n", STYLE.paint(tone, line)));
        }
    }
    for hint in &error.hints {
        text.push_str(&format!("\n{}\n", STYLE.paint(Tone::Strong, "to do")));
        for line in wrapped(hint, PROSE) {
            text.push_str(&format!("  {line}\n"));
        }
    }
    lines(&text, theme)
}

/// The stack of one thread, with warnings about its reliability.
#[must_use]
pub fn backtrace(
    opened: &Opened,
    stacks: &Stacks,
    thread: usize,
    expanded: &BTreeSet<(u32, usize)>,
) -> String {
    let one = Backtrace {
        threads: stacks
            .backtrace
            .threads
            .get(thread)
            .cloned()
            .into_iter()
            .collect(),
        ..light(&stacks.backtrace)
    };
    // Facts with a tab of their own are omitted.
    let manifest = Manifest {
        workload: None,
        image: None,
        ..opened.manifest.clone()
    };
    backtrace_text(
        &BacktraceView {
            manifest: &manifest,
            backtrace: &one,
            threads: &stacks.threads,
            overflow: stacks.overflow,
            abort_message: stacks.abort_message.as_deref(),
            cause: stacks.cause.as_ref(),
            listings: None,
            runtimes: &stacks.runtimes,
            completeness: stacks.completeness.as_ref(),
            from_minicore: stacks.from_minicore,
            searched_sysroot: false,
            registers: false,
            group: false,
            fold: true,
            variables: &stacks.variables,
            locals: Locals::Of(expanded),
            names: &stacks.names,
            sources: None,
            elapsed: None,
        },
        STYLE,
    )
}

/// A copy without the threads.
fn light(backtrace: &Backtrace) -> Backtrace {
    Backtrace {
        threads: Vec::new(),
        original_signal: backtrace.original_signal.clone(),
        modules: backtrace.modules.clone(),
        fingerprint: backtrace.fingerprint.clone(),
        explanation: backtrace.explanation.clone(),
        elapsed: backtrace.elapsed,
    }
}

/// The frame to which a line of the backtrace page belongs.
#[must_use]
pub fn frame_at<'s>(view: &DumpView, stacks: &'s Stacks) -> Option<&'s Frame> {
    let thread = stacks.backtrace.threads.get(view.thread)?;
    view.page.lines.get(view.page.cursor)?;
    thread.frames.get(number_at(view))
}

/// The number of that frame.
#[must_use]
pub fn number_at(view: &DumpView) -> usize {
    let shown = view.page.lines.get(..=view.page.cursor).unwrap_or_default();
    // Folded frames have no line of their own, so the number in the line identifies the frame.
    shown.iter().rev().find_map(frame_number).unwrap_or(0)
}

/// The instructions around the selected frame, or why there are none.
#[must_use]
pub fn instructions(view: &DumpView, stacks: &Stacks, theme: Theme) -> Vec<Line<'static>> {
    let thread = stacks.backtrace.threads.get(view.thread);
    let listing = stacks
        .listings
        .get(number_at(view))
        .and_then(Option::as_ref);
    match (listing, thread.is_some_and(|thread| thread.crashing)) {
        (Some(listing), true) => lines(&render::listing_text(listing, STYLE), theme),
        (_, false) => lines(
            "instructions are shown for the thread that crashed\n",
            theme,
        ),
        (None, true) => lines("the code of this frame is not known\n", theme),
    }
}

/// The number at the start of a frame's line.
fn frame_number(line: &Line<'_>) -> Option<usize> {
    let text = plain(line);
    let rest = text.strip_prefix("  #")?;
    let end = rest.find(|c: char| !c.is_ascii_digit());
    rest.get(..end.unwrap_or(rest.len()))?.parse().ok()
}

fn info(opened: &Opened, stacks: Option<&Arc<Stacks>>) -> String {
    info_text(
        &InfoView {
            manifest: &opened.manifest,
            origin: opened.origin.clone(),
            overflow: stacks.and_then(|stacks| stacks.overflow),
            abort_message: stacks.and_then(|stacks| stacks.abort_message.as_deref()),
            cause: stacks.and_then(|stacks| stacks.cause.as_ref()),
            completeness: stacks.and_then(|stacks| stacks.completeness.as_ref()),
            salvaged: opened.salvaged.as_deref(),
            explanation: stacks.and_then(|stacks| stacks.backtrace.explanation.as_ref()),
            all: true,
        },
        STYLE,
    )
}

fn field(text: &mut String, name: &str, value: &str) {
    let name = STYLE.paint(Tone::Strong, format!("{:<16}", terminal_line(name)));
    text.push_str(&format!("{name} {}\n", terminal_line(value)));
}

fn heading(text: &mut String, title: &str) {
    let title = STYLE.paint(Tone::Strong, terminal_line(title));
    text.push_str(&format!("\n{title}\n"));
}

fn workload(opened: &Opened, texts: Option<&Texts>) -> String {
    let manifest = &opened.manifest;
    let mut text = String::new();
    field(&mut text, "node", &manifest.node_name());
    if let Some(image) = &manifest.image {
        field(&mut text, "image", &image.reference);
        let release = image.release().map(str::to_owned);
        let named = [
            ("image name", &image.name),
            ("release", &release),
            ("version", &image.version),
            ("revision", &image.revision),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                field(&mut text, name, value);
            }
        }
    }
    if let Some(workload) = &manifest.workload {
        let named = [
            ("namespace", &workload.namespace),
            ("pod", &workload.pod),
            ("owner", &workload.owner.as_ref().map(ToString::to_string)),
            ("container", &workload.container),
            ("container id", &workload.container_id),
            ("kubernetes node", &workload.node),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                field(&mut text, name, value);
            }
        }
        for (name, value) in &workload.labels {
            field(&mut text, &format!("labels.{name}"), value);
        }
        for (name, value) in &workload.extra {
            flatten(&mut text, name, value, 0);
        }
    }
    for (name, value) in texts
        .map(|texts| texts.runtime.as_slice())
        .unwrap_or_default()
    {
        heading(&mut text, name);
        flatten(&mut text, "", value, 0);
    }
    if manifest.workload.is_none() {
        heading(&mut text, "No workload is known");
        text.push_str(
            "The process ran outside of a container, or the agent did not reach the container runtime.\n\
             `cdh import --namespace NAME --pod NAME …` names it for a core that is imported.\n",
        );
    }
    text
}

/// Formats JSON as lines of `name value`, with dotted names for nested values.
fn flatten(text: &mut String, name: &str, value: &Value, depth: usize) {
    let join = |inner: &str| {
        if name.is_empty() {
            inner.to_owned()
        } else {
            format!("{name}.{inner}")
        }
    };
    match value {
        Value::Object(map) if depth < 16 => {
            for (inner, value) in map {
                flatten(text, &join(inner), value, depth + 1);
            }
        }
        Value::Array(list) if depth < 16 => {
            for (number, value) in list.iter().enumerate() {
                flatten(text, &join(&number.to_string()), value, depth + 1);
            }
        }
        Value::String(string) => field(text, name, string),
        Value::Null => {}
        other => field(text, name, &other.to_string()),
    }
}

fn logs(texts: &Texts) -> String {
    if texts.logs.is_empty() {
        return "No log of the container was captured.\n\n\
                The agent stores its last lines if the container runtime answers.\n"
            .to_owned();
    }
    let mut text = String::new();
    for (name, log) in &texts.logs {
        // A single log is from the container that crashed. Its title may say which restart.
        if texts.logs.len() > 1 || name.contains(' ') {
            heading(&mut text, name);
        }
        for line in log.lines() {
            text.push_str(&format!("{}\n", terminal_line(line)));
        }
    }
    text
}

fn modules(opened: &Opened, stacks: &Stacks) -> String {
    let mut text = String::new();
    let count = stacks.backtrace.modules.len();
    let found =
        |status: &ModuleStatus| matches!(status, ModuleStatus::Verified | ModuleStatus::Unverified);
    let here = stacks
        .backtrace
        .modules
        .iter()
        .filter(|module| found(&module.status))
        .count();
    text.push_str(&format!("{here} of {count} modules are here\n\n"));
    // Paths come first, in a column as wide as most of them: people read paths and look up
    // build-ids.
    let widths = stacks
        .backtrace
        .modules
        .iter()
        .map(|module| module.path.chars().count());
    let wide = widths.max().unwrap_or_default().min(60);
    for module in &stacks.backtrace.modules {
        let (tone, status) = match &module.status {
            ModuleStatus::Verified => (Tone::Good, "found".to_owned()),
            ModuleStatus::Unverified => (Tone::Bad, "unproven".to_owned()),
            ModuleStatus::Missing => (Tone::Bad, "not found".to_owned()),
            ModuleStatus::Mismatch { .. } | ModuleStatus::Differs(_) => {
                (Tone::Bad, "mismatch".to_owned())
            }
            ModuleStatus::Unreadable(_) => (Tone::Bad, "unreadable".to_owned()),
        };
        let symbols = match (module.has_debug_info, module.has_symbols) {
            (true, _) => "debug info",
            (false, true) => "symbols",
            (false, false) => "no names",
        };
        let id = module
            .build_id
            .as_ref()
            .map_or_else(|| "-".to_owned(), ToString::to_string);
        let status = STYLE.paint(tone, format!("{status:<10}"));
        let id = STYLE.paint(Tone::Dim, id);
        let path = terminal_line(&module.path);
        text.push_str(&format!("{status} {symbols:<10} {path:<wide$} {id}\n"));
        match &module.status {
            ModuleStatus::Mismatch {
                found: Some(id), ..
            } => {
                text.push_str(&format!("{:>21} its file here has {id}: not used\n", ""));
            }
            ModuleStatus::Differs(why) | ModuleStatus::Unreadable(why) => {
                text.push_str(&format!("{:>21} {}\n", "", terminal_line(why)));
            }
            _ => {}
        }
    }
    if here < count && opened.manifest.image.is_some() {
        text.push_str(
            "\nThe files come from the image: `cdh sysroot <DUMP>` pulls what is missing.\n",
        );
    }
    text
}

fn memory(stacks: &Stacks, texts: Option<&Texts>) -> String {
    if let Some(maps) = texts.and_then(|texts| texts.maps.as_deref()) {
        let mut text = STYLE.paint(Tone::Strong, "as /proc/<pid>/maps had it") + "\n\n";
        for line in maps.lines() {
            text.push_str(&format!("{}\n", terminal_line(line)));
        }
        return text;
    }
    let mut text = STYLE.paint(Tone::Strong, "as the core's headers have it") + "\n\n";
    text.push_str(&format!(
        "{:<18} {:<18} {:>10} {:>10}  FILE\n",
        "START", "END", "SIZE", "IN CORE"
    ));
    for segment in &stacks.segments {
        let end = segment.start.0.saturating_add(segment.memory_size);
        let covers =
            |mapping: &&Mapping| mapping.start <= segment.start && segment.start < mapping.end;
        let file = stacks.mappings.iter().find(covers);
        let path = file.map(|mapping| String::from_utf8_lossy(&mapping.path).into_owned());
        text.push_str(&format!(
            "{:#018x} {end:#018x} {:>10} {:>10}  {}\n",
            segment.start.0,
            bytes(segment.memory_size),
            bytes(segment.file_size),
            terminal_line(path.as_deref().unwrap_or_default()),
        ));
    }
    text
}

fn registers(stacks: &Stacks, thread: usize) -> String {
    let shown = stacks
        .backtrace
        .threads
        .get(thread)
        .map(|thread| thread.tid);
    let found = stacks.threads.iter().find(|known| Some(known.tid) == shown);
    let Some(found) = found else {
        return "no registers are known\n".to_owned();
    };
    let registers = stacks.backtrace.registers_of(found);
    let mut title = format!("thread {}", found.tid);
    if let Some(original) = &stacks.backtrace.original_signal
        && original.registers.as_ref() == Some(registers)
    {
        let (frame, signal) = (original.frame, original.signal.name());
        title.push_str(&format!(", frame #{frame}, at {signal}"));
    }
    let mut text = STYLE.paint(Tone::Strong, title) + "\n\n";
    for (name, value) in registers.named() {
        let name = STYLE.paint(Tone::Strong, format!("{name:<5}"));
        let place = stacks
            .mappings
            .iter()
            .find(|m| m.start.0 <= value && value < m.end.0);
        let place = place.map(|mapping| {
            let path = String::from_utf8_lossy(&mapping.path).into_owned();
            let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
            STYLE.paint(Tone::Dim, format!("  in {}", terminal_line(&name)))
        });
        text.push_str(&format!(
            "{name} {value:#018x} {value:>21}{}\n",
            place.unwrap_or_default()
        ));
    }
    text
}

/// The first lines of a dump's backtrace, for the pane below the list.
#[must_use]
pub fn preview(known: Option<&Explained>, theme: Theme) -> Vec<Line<'static>> {
    let Some(known) = known else {
        return Vec::new();
    };
    match (&known.opened, &known.stacks) {
        (Some(Err(error)), _) | (_, Some(Err(error))) => problem(error, theme),
        (Some(Ok(opened)), Some(Ok(stacks))) => {
            lines(&backtrace(opened, stacks, 0, &BTreeSet::new()), theme)
        }
        (Some(Ok(opened)), None) => lines(
            &render::terminal_line(&opened.manifest.crash_signal().description),
            theme,
        ),
        (None, _) => Vec::new(),
    }
}
