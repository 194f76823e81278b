//! Compares two dumps: a pure function from their facts to text.

use std::collections::BTreeMap;

use cdh_elfcore::Registers;
use cdh_symbolize::Frame;

use super::model::{Opened, Stacks};
use crate::render::{Style, Tone, terminal_line};

const STYLE: Style = Style::Colored;
/// Frames shown after the first one that differs.
const AFTER: usize = 8;

/// One of the two dumps.
pub struct Side<'a> {
    /// Its manifest and origin.
    pub opened: &'a Opened,
    /// Its stacks.
    pub stacks: &'a Stacks,
}

/// The differences, most useful first: stacks, facts, modules, registers.
#[must_use]
pub fn diff_text(a: &Side<'_>, b: &Side<'_>) -> String {
    let mut text = String::new();
    facts(&mut text, a, b);
    frames(&mut text, a, b);
    modules(&mut text, a, b);
    registers(&mut text, a, b);
    text
}

fn heading(text: &mut String, title: &str) {
    text.push_str(&format!("\n{}\n", STYLE.paint(Tone::Strong, title)));
}

fn facts(text: &mut String, a: &Side<'_>, b: &Side<'_>) {
    let facts = |side: &Side<'_>| {
        let manifest = &side.opened.manifest;
        let workload = manifest.workload.clone().unwrap_or_default();
        let absent = || "-".to_owned();
        [
            ("dump", manifest.id.short()),
            (
                "captured",
                manifest
                    .captured()
                    .map_or_else(absent, |time| time.to_string()),
            ),
            ("exe", manifest.process.exe_name().to_string()),
            ("signal", manifest.crash_signal().description.clone()),
            ("verdict", manifest.verdict.describe()),
            ("namespace", workload.namespace.unwrap_or_else(absent)),
            ("pod", workload.pod.unwrap_or_else(absent)),
            ("node", manifest.node_name()),
            (
                "image",
                manifest
                    .image
                    .as_ref()
                    .map_or_else(absent, |image| image.reference.clone()),
            ),
            (
                "fingerprint",
                manifest.fingerprint.clone().unwrap_or_else(absent),
            ),
            (
                "threads",
                manifest
                    .thread_count
                    .map_or_else(absent, |count| count.to_string()),
            ),
        ]
    };
    let mut same = Vec::new();
    for ((name, left), (_, right)) in facts(a).into_iter().zip(facts(b)) {
        if left == right {
            same.push(name);
            continue;
        }
        let name = STYLE.paint(Tone::Strong, format!("{name:<12}"));
        text.push_str(&format!(
            "{name} {}\n",
            STYLE.paint(Tone::Bad, terminal_line(&left))
        ));
        text.push_str(&format!(
            "{:<12} {}\n",
            "",
            STYLE.paint(Tone::Good, terminal_line(&right))
        ));
    }
    if !same.is_empty() {
        text.push_str(&STYLE.paint(Tone::Dim, format!("same: {}\n", same.join(", "))));
    }
}

fn crashing<'a>(side: &Side<'a>) -> &'a [Frame] {
    side.stacks.backtrace.crash_frames()
}

/// A frame's text without parts that differ from run to run.
fn name(side: &Side<'_>, frame: &Frame) -> String {
    match (&frame.function, &frame.location) {
        (Ok(function), Some(place)) => {
            let file = place.file.rsplit('/').next().unwrap_or(&place.file);
            format!("{} at {file}:{}", function.name, place.line)
        }
        (Ok(function), None) => function.name.clone(),
        (Err(_), _) => {
            let modules = &side.stacks.backtrace.modules;
            let path = frame.module.and_then(|index| modules.get(index));
            let path = path.map_or("??", |module| module.path.as_str());
            let at = frame.svma.map_or(frame.pc.0, |svma| svma.0);
            format!("{}+{at:#x}", path.rsplit('/').next().unwrap_or(path))
        }
    }
}

fn frames(text: &mut String, a: &Side<'_>, b: &Side<'_>) {
    heading(text, "crashing thread");
    let names = |side: &Side<'_>| -> Vec<String> {
        crashing(side)
            .iter()
            .map(|frame| terminal_line(&name(side, frame)))
            .collect()
    };
    let (left, right) = (names(a), names(b));
    // Stacks start at their ends, so the common frames are at the end.
    let common = left
        .iter()
        .rev()
        .zip(right.iter().rev())
        .take_while(|(left, right)| left == right)
        .count();
    if common == left.len() && common == right.len() {
        text.push_str(&format!("the same {common} frames\n"));
    }
    for (names, tone, mark) in [(&left, Tone::Bad, '-'), (&right, Tone::Good, '+')] {
        let own = names.len() - common;
        for (number, name) in names.iter().take(own).enumerate() {
            let line = format!("{mark} #{number:<3} {name}");
            text.push_str(&format!("{}\n", STYLE.paint(tone, line)));
        }
    }
    for (number, name) in left
        .iter()
        .enumerate()
        .skip(left.len() - common)
        .take(AFTER)
    {
        text.push_str(&format!("  #{number:<3} {name}\n"));
    }
    if common > AFTER {
        text.push_str(&format!(
            "  … and {} more that are the same\n",
            common - AFTER
        ));
    }
}

fn modules(text: &mut String, a: &Side<'_>, b: &Side<'_>) {
    heading(text, "modules");
    let ids = |side: &Side<'_>| -> BTreeMap<String, String> {
        let modules = side.stacks.backtrace.modules.iter();
        let id = |module: &cdh_symbolize::ModuleReport| {
            module
                .build_id
                .as_ref()
                .map_or_else(|| "no build-id".to_owned(), ToString::to_string)
        };
        modules
            .map(|module| (module.path.clone(), id(module)))
            .collect()
    };
    let (left, right) = (ids(a), ids(b));
    let mut same = 0;
    let paths: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    for path in paths {
        let (one, other) = (left.get(path), right.get(path));
        if one == other {
            same += 1;
            continue;
        }
        for (id, tone, mark) in [(one, Tone::Bad, '-'), (other, Tone::Good, '+')] {
            if let Some(id) = id {
                let line = format!("{mark} {} {id}", terminal_line(path));
                text.push_str(&format!("{}\n", STYLE.paint(tone, line)));
            }
        }
    }
    text.push_str(&STYLE.paint(Tone::Dim, format!("{same} are the same\n")));
}

fn registers(text: &mut String, a: &Side<'_>, b: &Side<'_>) {
    let named = |side: &Side<'_>| {
        let stacks = side.stacks;
        let registers = stacks.backtrace.crash_registers(&stacks.threads);
        registers.map(Registers::named).unwrap_or_default()
    };
    heading(text, "registers of the crashing thread");
    let right: BTreeMap<String, u64> = named(b).into_iter().collect();
    let mut same = 0;
    for (name, value) in named(a) {
        let other = right.get(&name).copied();
        if other == Some(value) {
            same += 1;
            continue;
        }
        let one = STYLE.paint(Tone::Bad, format!("{value:#018x}"));
        let other = other.map_or_else(|| "-".to_owned(), |value| format!("{value:#018x}"));
        text.push_str(&format!(
            "{name:<5} {one}  {}\n",
            STYLE.paint(Tone::Good, other)
        ));
    }
    text.push_str(&STYLE.paint(Tone::Dim, format!("{same} are the same\n")));
}
