//! Compares two dumps: shows only differences.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use cdh_bundle::Manifest;
use cdh_elfcore::{Registers, Thread};
use cdh_symbolize::{Backtrace, Frame};
use serde::Serialize;

use super::{Style, Tone, terminal_line};

/// One of the two.
pub struct DiffSide<'a> {
    /// Its name: id or path.
    pub label: String,
    /// The manifest of the dump.
    pub manifest: &'a Manifest,
    /// The crashing thread first.
    pub backtrace: &'a Backtrace,
    /// Threads of the core, for their registers.
    pub threads: &'a [Thread],
    /// Names of environment variables, if they were captured.
    pub environment: Option<BTreeSet<String>>,
    /// Resource limits by name: `soft hard unit`.
    pub limits: Option<BTreeMap<String, String>>,
}

/// Both.
pub struct DiffView<'a> {
    /// The first.
    pub a: DiffSide<'a>,
    /// The second.
    pub b: DiffSide<'a>,
}

/// What differs between two dumps.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Difference {
    /// Id or path of the first dump.
    a: String,
    /// Id or path of the second dump.
    b: String,
    /// Whether both have the same fingerprint; `null` if one has none.
    same_fingerprint: Option<bool>,
    /// Facts that differ: signal, program, image and the like.
    facts: Vec<Pair>,
    /// Number of equal frames of the crashing threads, from the innermost on.
    same_frames: usize,
    /// The first frames that differ; `null` if the stacks are equal.
    first_divergent_frame: Option<Pair>,
    /// Registers of the crashing threads that differ.
    registers: Vec<Pair>,
    /// Modules that differ, with their build-ids.
    modules: Vec<Pair>,
    /// Names of variables that only one of the two has.
    environment: Vec<Pair>,
    /// Resource limits that differ.
    limits: Vec<Pair>,
}

/// A value of both dumps.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Pair {
    /// What it is.
    name: String,
    /// In the first dump; `null` if it is absent there.
    a: Option<String>,
    /// In the second dump; likewise.
    b: Option<String>,
}

fn pair(name: &str, a: Option<String>, b: Option<String>) -> Option<Pair> {
    let name = name.to_owned();
    (a != b).then_some(Pair { name, a, b })
}

impl Difference {
    fn of(view: &DiffView) -> Self {
        let (a, b) = (&view.a, &view.b);
        let prints = a
            .backtrace
            .fingerprint
            .as_ref()
            .zip(b.backtrace.fingerprint.as_ref());
        // For dumps of different releases, only facts that are computed here can be compared.
        let made = |side: &DiffSide| {
            let made = side.backtrace.explanation.as_ref();
            made.map(|made| (made.scheme, made.fingerprint.clone()))
        };
        let is_made_alike = made(a).is_some() && made(a) == made(b);
        let frames = |side: &DiffSide| -> Vec<String> {
            let frames = side.backtrace.crash_frames().iter();
            frames.map(|frame| words(side.backtrace, frame)).collect()
        };
        let (ours, theirs) = (frames(a), frames(b));
        let same_frames = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
        let (here, there) = (
            ours.get(same_frames).cloned(),
            theirs.get(same_frames).cloned(),
        );
        Self {
            a: a.label.clone(),
            b: b.label.clone(),
            same_fingerprint: prints.map(|(stated, other)| stated == other || is_made_alike),
            facts: facts(a.manifest, b.manifest),
            same_frames,
            first_divergent_frame: pair(&format!("#{same_frames}"), here, there),
            registers: maps(&registers(a), &registers(b)),
            modules: maps(&modules(a), &modules(b)),
            environment: environment(a, b),
            limits: match (&a.limits, &b.limits) {
                (Some(a), Some(b)) => maps(a, b),
                _ => Vec::new(),
            },
        }
    }
}

/// A frame without parts that differ from run to run.
fn words(backtrace: &Backtrace, frame: &Frame) -> String {
    let place = frame
        .location
        .as_ref()
        .map(|at| format!(" at {}:{}", at.file, at.line));
    match &frame.function {
        Ok(function) => format!("{}{}", function.name, place.unwrap_or_default()),
        Err(_) => {
            let module = frame.module.and_then(|index| backtrace.modules.get(index));
            let name = module.map_or("?", |module| {
                module.path.rsplit('/').next().unwrap_or(&module.path)
            });
            format!("{name}+{:#x}", frame.svma.map_or(frame.pc.0, |svma| svma.0))
        }
    }
}

fn facts(a: &Manifest, b: &Manifest) -> Vec<Pair> {
    let facts = |manifest: &Manifest| {
        let image = manifest.image.as_ref().map(|image| image.reference.clone());
        let workload = manifest.workload.as_ref().map(|workload| {
            let parts = [&workload.namespace, &workload.pod, &workload.container];
            parts
                .into_iter()
                .flatten()
                .cloned()
                .collect::<Vec<_>>()
                .join("/")
        });
        let process = &manifest.process;
        let arguments = process.arguments.as_ref().map(|words| {
            words
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        });
        [
            ("signal", Some(manifest.crash_signal().description.clone())),
            ("verdict", Some(manifest.verdict.describe())),
            ("program", process.exe.as_ref().map(ToString::to_string)),
            ("arguments", arguments),
            ("image", image),
            ("workload", workload),
            ("node", Some(manifest.node_name())),
            ("machine", Some(manifest.machine.clone())),
            (
                "threads",
                manifest.thread_count.map(|count| count.to_string()),
            ),
        ]
    };
    let both = facts(a).into_iter().zip(facts(b));
    both.filter_map(|((name, a), (_, b))| pair(name, a, b))
        .collect()
}

/// Of the crashing thread.
fn registers(side: &DiffSide) -> BTreeMap<String, String> {
    let registers = side.backtrace.crash_registers(side.threads);
    let named = registers.map(Registers::named).unwrap_or_default();
    named
        .into_iter()
        .map(|(name, value)| (name, format!("{value:#018x}")))
        .collect()
}

/// Build-id by file name; if two files have the same name, the second by its path.
fn modules(side: &DiffSide) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for module in &side.backtrace.modules {
        let id = module
            .build_id
            .as_ref()
            .map_or_else(|| "no build-id".to_owned(), ToString::to_string);
        let name = module
            .path
            .rsplit('/')
            .next()
            .unwrap_or(&module.path)
            .to_owned();
        let name = if found.contains_key(&name) {
            module.path.clone()
        } else {
            name
        };
        found.insert(name, id);
    }
    found
}

fn maps(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<Pair> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let pairs = names
        .into_iter()
        .map(|name| pair(name, a.get(name).cloned(), b.get(name).cloned()));
    pairs.flatten().collect()
}

fn environment(a: &DiffSide, b: &DiffSide) -> Vec<Pair> {
    let (Some(a), Some(b)) = (&a.environment, &b.environment) else {
        return Vec::new();
    };
    let there =
        |names: &BTreeSet<String>, name: &String| names.contains(name).then(|| "set".to_owned());
    a.union(b)
        .filter_map(|name| pair(name, there(a, name), there(b, name)))
        .collect()
}

/// For people.
#[must_use]
pub fn diff_text(view: &DiffView, style: Style) -> String {
    let found = Difference::of(view);
    let mut text = String::new();
    let mut line = |tone: Tone, words: &str| {
        text.push_str(&style.paint(tone, terminal_line(words)));
        text.push('\n');
    };
    line(Tone::Strong, &format!("a {}", found.a));
    line(Tone::Strong, &format!("b {}", found.b));
    match found.same_fingerprint {
        Some(true) => line(Tone::Good, "the same crash: equal fingerprints"),
        Some(false) => line(Tone::Bad, "different crashes: different fingerprints"),
        None => line(Tone::Dim, "at least one has no fingerprint"),
    }
    match &found.first_divergent_frame {
        None => line(
            Tone::Good,
            &format!("stacks are equal: {} frames", found.same_frames),
        ),
        Some(first) => {
            line(
                Tone::Strong,
                &format!(
                    "\u{2013} first divergent frame, after {} equal ones",
                    found.same_frames
                ),
            );
            line(
                Tone::Bad,
                &format!(
                    "  a {} {}",
                    first.name,
                    first.a.as_deref().unwrap_or("(the stack ends)")
                ),
            );
            line(
                Tone::Bad,
                &format!(
                    "  b {} {}",
                    first.name,
                    first.b.as_deref().unwrap_or("(the stack ends)")
                ),
            );
        }
    }
    let sections = [
        ("facts", &found.facts),
        ("registers", &found.registers),
        ("modules", &found.modules),
        ("environment names", &found.environment),
        ("limits", &found.limits),
    ];
    for (title, pairs) in sections {
        if pairs.is_empty() {
            continue;
        }
        line(Tone::Strong, &format!("\u{2013} {title}"));
        let width = pairs
            .iter()
            .map(|pair| pair.name.chars().count())
            .max()
            .unwrap_or(0)
            .min(40);
        for pair in pairs {
            let (a, b) = (
                pair.a.as_deref().unwrap_or("-"),
                pair.b.as_deref().unwrap_or("-"),
            );
            line(
                Tone::Dim,
                &format!("  {:<width$}  {a}  \u{2192}  {b}", pair.name),
            );
        }
    }
    text
}

/// One JSON document.
///
/// # Errors
/// Never in practice: the parts are plain text and numbers.
pub fn diff_json(view: &DiffView) -> Result<String> {
    super::sorted_json(&Difference::of(view))
}
