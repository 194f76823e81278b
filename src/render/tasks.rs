//! Prints what language runtimes show about a crash: the final message, and the tasks that they schedule on
//! threads.

use std::collections::HashMap;

use cdh_runtimes::{RuntimeReport, Task, Tasks};
use cdh_symbolize::ThreadBacktrace;

use super::backtrace::{BacktraceView, thread_lines};
use super::line::Line;
use super::units::grouped_digits;
use super::{Tone, terminal_line};

/// Maximum ids listed of a group.
const LISTED: usize = 8;
/// Maximum lines of a message.
const MESSAGE_LINES: usize = 16;
/// Maximum states that are counted separately.
const STATES: usize = 6;

/// Why the program ended, in the format of its runtime.
pub(super) fn message_lines(runtimes: &[RuntimeReport]) -> Vec<Line> {
    let mut lines = Vec::new();
    for message in runtimes.iter().flat_map(|report| &report.messages) {
        let text = message.line();
        let mut texts = text.lines();
        for text in texts.by_ref().take(MESSAGE_LINES) {
            lines.push(Line::of(Tone::Bad, terminal_line(text)));
        }
        if texts.next().is_some() {
            lines.push(Line::of(Tone::Dim, "…"));
        }
    }
    lines
}

/// Versions of the runtimes, for the header above the stacks.
pub(super) fn versions(runtimes: &[RuntimeReport]) -> impl Iterator<Item = String> {
    runtimes.iter().map(|report| {
        let name = report.language.name();
        match report.version.as_deref() {
            // `go1.21.13` names its language.
            Some(version) if version.starts_with(&name.to_lowercase()) => version.to_owned(),
            Some(version) => format!("{name} {version}"),
            None => format!("{name} of unknown version"),
        }
    })
}

/// Data that could not be read.
pub(super) fn gaps(runtimes: &[RuntimeReport]) -> impl Iterator<Item = &String> {
    runtimes.iter().flat_map(|report| &report.gaps)
}

/// Facts of the runtimes about a thread, for its title: its task, its name, notes.
pub(super) fn thread_notes(runtimes: &[RuntimeReport], tid: u32) -> Vec<String> {
    let mut notes = Vec::new();
    for report in runtimes {
        for thread in report.threads.iter().filter(|thread| thread.tid == tid) {
            notes.extend(thread.name.clone());
            if let Some((id, tasks)) = thread.task.zip(report.tasks.as_ref()) {
                notes.push(format!("{} {id}", tasks.noun));
            }
            notes.extend(thread.notes.iter().cloned());
        }
    }
    notes
}

/// The tasks below the stacks of the threads: their stacks, or their number.
pub(super) fn task_blocks(view: &BacktraceView) -> Vec<Vec<Line>> {
    let mut blocks = Vec::new();
    for tasks in view
        .runtimes
        .iter()
        .filter_map(|report| report.tasks.as_ref())
    {
        let is_shown = |task: &Task| {
            let mut threads = view.backtrace.threads.iter();
            task.thread.is_some()
                && threads.any(|thread| Some(thread.tid) == task.thread && thread.crashing)
        };
        let mut groups: Vec<Vec<&Task>> = Vec::new();
        let mut known: HashMap<(Option<usize>, &str, bool), usize> = HashMap::new();
        // The crashed task runs on the crashed thread, unless the signal was delivered to another
        // thread.
        for task in tasks.list.iter().filter(|task| !is_shown(task)) {
            let is_crashing = tasks.crashing == Some(task.id);
            let next = groups.len();
            let index = match view.group {
                true => *known
                    .entry((task.stack, &*task.state, is_crashing))
                    .or_insert(next),
                false => next,
            };
            match groups.get_mut(index) {
                Some(group) => group.push(task),
                None => groups.push(vec![task]),
            }
        }
        blocks.extend(groups.iter().map(|group| task_block(view, tasks, group)));
        blocks.extend(count_line(tasks).map(|line| vec![line]));
    }
    blocks
}

fn task_block(view: &BacktraceView, tasks: &Tasks, group: &[&Task]) -> Vec<Line> {
    let Some(first) = group.first() else {
        return Vec::new();
    };
    let mut state = first.state.to_string();
    let minutes = |task: &&Task| task.waited_seconds.unwrap_or(0) / 60;
    let longest = group.iter().map(minutes).max().unwrap_or(0);
    if longest > 0 {
        state.push_str(&format!(", {longest} min"));
    }
    let title = if group.len() > 1 {
        let ids = group.iter().take(LISTED);
        let mut ids: Vec<String> = ids.map(|task| task.id.to_string()).collect();
        if group.len() > LISTED {
            ids.push("…".to_owned());
        }
        let count = grouped_digits(group.len());
        format!("{count} {}s: {state} ({})", tasks.noun, ids.join(" "))
    } else {
        let mut title = format!("{} {}: {state}", tasks.noun, first.id);
        match first.thread {
            Some(tid) if first.locked => title.push_str(&format!(", locked to thread {tid}")),
            Some(tid) => title.push_str(&format!(", on thread {tid}")),
            None if first.locked => title.push_str(", locked to its thread"),
            None => {}
        }
        for (key, value) in &first.labels {
            title.push_str(&format!(", {key}={value}"));
        }
        title
    };
    let mark = match tasks.crashing == Some(first.id) {
        true => " (crashed)",
        false => "",
    };
    let mut lines = vec![Line::of(
        Tone::Strong,
        format!("{}{mark}", terminal_line(&title)),
    )];
    match first.stack.and_then(|index| tasks.stacks.get(index)) {
        Some(stack) => {
            let thread = ThreadBacktrace {
                tid: 0,
                crashing: tasks.crashing == Some(first.id),
                frames: stack.frames.clone(),
                stop: stack.stop,
                stored: false,
            };
            lines.extend(thread_lines(view, &thread));
        }
        None => lines.push(Line::of(Tone::Dim, "  -- its stack is not in the core")),
    }
    lines.extend(creation_line(first));
    lines
}

fn creation_line(task: &Task) -> Option<Line> {
    let frame = task.created_by.as_ref()?;
    let name = frame.function.as_ref().ok()?;
    let mut text = format!("  created by {}", name.name);
    if let Some(parent) = task.parent {
        text.push_str(&format!(" in {parent}"));
    }
    if let Some(place) = &frame.location {
        text.push_str(&format!(" at {}:{}", place.file, place.line));
    }
    Some(Line::of(Tone::Dim, terminal_line(&text)))
}

/// How many tasks are not listed, and what they do.
fn count_line(tasks: &Tasks) -> Option<Line> {
    let own = tasks.total.saturating_sub(tasks.system);
    let listed = tasks.list.iter().filter(|task| !task.system).count();
    let others = own.saturating_sub(listed);
    if others == 0 {
        return None;
    }
    let listed_in = |state: &str| {
        let in_state = |task: &&Task| !task.system && task.state == state;
        tasks.list.iter().filter(in_state).count()
    };
    let mut parts = Vec::new();
    let mut rest = others;
    for state in tasks.states.iter().take(STATES) {
        let count = state.count.saturating_sub(listed_in(&state.state));
        if count > 0 {
            parts.push(format!("{} {}", grouped_digits(count), state.state));
            rest = rest.saturating_sub(count);
        }
    }
    if rest > 0 {
        parts.push(format!("{} in other states", grouped_digits(rest)));
    }
    let plural = if others == 1 { "" } else { "s" };
    let text = format!(
        "{} other {}{plural}: {} (`--{}s` prints them)",
        grouped_digits(others),
        tasks.noun,
        parts.join(", "),
        tasks.noun
    );
    Some(Line::of(Tone::Dim, terminal_line(&text)))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use cdh_runtimes::{Language, Message, TaskCount};

    use super::*;

    fn task(id: u64, state: &'static str) -> Task {
        Task {
            id,
            state: Cow::Borrowed(state),
            waited_seconds: None,
            thread: None,
            locked: false,
            system: false,
            labels: std::collections::BTreeMap::new(),
            parent: None,
            created_by: None,
            stack: None,
        }
    }

    fn tasks(list: Vec<Task>) -> Tasks {
        let count = |state: &'static str, count| TaskCount {
            state: Cow::Borrowed(state),
            count,
        };
        Tasks {
            noun: Cow::Borrowed("goroutine"),
            total: 1204,
            system: 4,
            states: vec![count("chan receive", 1198), count("running", 2)],
            crashing: Some(1),
            list,
            stacks: Vec::new(),
        }
    }

    fn plain(line: &Line) -> String {
        let mut text = String::new();
        line.paint_into(crate::render::Style::Plain, &mut text);
        text
    }

    #[test]
    fn tasks_that_are_not_listed_are_counted_by_state() {
        let line = count_line(&tasks(vec![task(1, "running")])).unwrap();
        assert_eq!(
            plain(&line),
            "1,199 other goroutines: 1,198 chan receive, 1 running (`--goroutines` prints them)"
        );
        let all: Vec<Task> = (0..1200).map(|id| task(id, "chan receive")).collect();
        assert!(count_line(&tasks(all)).is_none());
    }

    #[test]
    fn message_of_many_lines_is_cut_and_escaped() {
        let report = RuntimeReport {
            language: Language::Go,
            version: None,
            ended_program: true,
            messages: vec![Message {
                kind: Cow::Borrowed("panic"),
                text: "a\x1b[2J\n".repeat(100),
                note: Some(Cow::Borrowed("recovered")),
                ..Message::default()
            }],
            threads: Vec::new(),
            tasks: None,
            gaps: Vec::new(),
        };
        let lines: Vec<String> = message_lines(&[report]).iter().map(plain).collect();
        assert_eq!(lines.len(), MESSAGE_LINES + 1);
        assert!(
            lines[0].starts_with("panic: a") && !lines[0].contains('\x1b'),
            "{lines:?}"
        );
    }
}
