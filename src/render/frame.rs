//! Formats one frame of a backtrace.

use cdh_inspect::FunctionVariables;
use cdh_symbolize::{Backtrace, Frame, FrameTrust, Reason, Role, Stop};

use super::line::Line;
use super::{Tone, terminal_line};

/// Columns of `#99`.
const NUMBER_COLUMNS: usize = 3;

/// Width of the frame numbers, including their `#`, for this many frames.
pub(super) fn number_columns(frames: usize) -> usize {
    let digits = frames.saturating_sub(1).to_string().len();
    NUMBER_COLUMNS.max(digits + 1)
}

/// The line of a frame whose number is padded to this width. Runtime frames and those below `main` are
/// dimmed.
pub(super) fn frame_line(
    backtrace: &Backtrace,
    number: usize,
    columns: usize,
    frame: &Frame,
    variables: Option<&FunctionVariables>,
) -> Line {
    let mut line = Line::default();
    line.push(format!("  {:<columns$} ", format!("#{number}")));
    line.toned(Tone::Dim, format!("{:#018x}", frame.pc.0));
    line.push(" ");
    match &frame.function {
        Ok(function) => {
            line.toned(Tone::Name, terminal_line(&function.name));
            if frame.location.is_none()
                && let Some(offset) = function.offset
            {
                line.push(format!("+{offset:#x}"));
            }
        }
        Err(reason) => line.toned(Tone::Dim, format!("?? ({})", reason_words(reason))),
    }
    if let Some(variables) = variables {
        line.push(arguments(variables));
    }
    if let Some(place) = &frame.location {
        let column = place
            .column
            .map(|column| format!(":{column}"))
            .unwrap_or_default();
        line.push(" at ");
        line.toned(
            Tone::Place,
            format!("{}:{}{column}", terminal_line(&place.file), place.line),
        );
    } else if let Some(module) = frame.module.and_then(|index| backtrace.modules.get(index)) {
        let name = module.path.rsplit('/').next().unwrap_or(&module.path);
        let offset = frame
            .svma
            .map(|svma| format!("+{:#x}", svma.0))
            .unwrap_or_default();
        line.push(format!(" in {}{offset}", terminal_line(name)));
    }
    for mark in marks(frame) {
        line.toned(Tone::Dim, terminal_line(&format!(" [{mark}]")));
    }
    match frame.role(&backtrace.modules) {
        Role::Program => line,
        _ => line.all(Tone::Dim),
    }
}

/// ` (order=0x0, count=2)`.
fn arguments(variables: &FunctionVariables) -> String {
    let one = |variable: &cdh_inspect::Variable| {
        let value = match &variable.value {
            // Aggregates do not fit into a line.
            value if value.is_aggregate() => "...".to_owned(),
            value => value.to_string(),
        };
        let passed = match &variable.value_at_entry {
            Some(passed) => format!(", {}@entry={passed}", variable.name),
            None => String::new(),
        };
        terminal_line(&format!("{}={value}{passed}", variable.name))
    };
    let all: Vec<String> = variables.arguments.iter().map(one).collect();
    format!(" ({})", all.join(", "))
}

/// How the frame was found, if that is unusual.
fn marks(frame: &Frame) -> Vec<&str> {
    let mut marks = Vec::new();
    if let Some(language) = &frame.language {
        marks.push(language.as_ref());
        return marks;
    }
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
        Reason::Unreadable(why) => format!("its file cannot be read: {}", terminal_line(why)),
        Reason::LoadAddressUnknown => "its load address is not known".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Why the stack ends; empty for a normal end.
pub(super) fn stop_words(stop: &Stop) -> Option<String> {
    match stop {
        Stop::End => None,
        Stop::NoMemory(at) => Some(format!("the stack at {at} is not in the core")),
        Stop::NoRule => Some("no way to find the caller".to_owned()),
        Stop::Loop => Some("the stack loops".to_owned()),
        Stop::Limit => Some("more frames follow: raise `--limit`".to_owned()),
    }
}
