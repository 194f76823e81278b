//! Our frames against gdb's: where they differ must be in `tests/fixtures/divergences.toml`, with the
//! cause and who is right.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use crate::corpus::{OracleThread, Variant, fixtures};

/// Frames of a thread that are compared, as `oracle.py` does.
const LIMIT: &str = "3000";

/// A frame in a form that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// `normal`, `inline`, `tail`, `signal`.
    pub kind: String,
    /// Name for people.
    pub name: Option<String>,
    /// Linkage name.
    pub raw: Option<String>,
    /// `file:line`.
    pub place: Option<String>,
}

/// A thread of ours in that form.
#[derive(Clone, Debug)]
pub struct Stack {
    /// Thread id.
    pub tid: u32,
    /// Innermost first.
    pub frames: Vec<Line>,
}

/// A difference that is known.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownDivergence {
    /// `fixture/variant`; `*` matches anything.
    pub case: String,
    /// gdb's first frame that differs (`*` as above), or `-` where its stack ended.
    pub gdb: String,
    /// Ours.
    pub ours: String,
    /// Why.
    pub cause: String,
    /// `cdh`, `gdb` or `both`: a matter of taste.
    pub right: String,
}

/// A difference that was found.
#[derive(Clone, Debug)]
pub struct Difference {
    /// `fixture/variant`.
    pub case: String,
    /// Thread id.
    pub tid: u32,
    /// gdb's first frame that differs.
    pub gdb: String,
    /// Ours.
    pub ours: String,
    /// Both stacks.
    pub stacks: String,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    divergence: Vec<KnownDivergence>,
}

/// The list.
///
/// # Errors
/// When it cannot be read.
pub fn known() -> io::Result<Vec<KnownDivergence>> {
    let text = std::fs::read_to_string(fixtures().join("divergences.toml"))?;
    let list: List = toml::from_str(&text).map_err(io::Error::other)?;
    Ok(list.divergence)
}

impl KnownDivergence {
    /// Whether this is the difference that was found.
    #[must_use]
    pub fn explains(&self, found: &Difference) -> bool {
        matches(&self.case, &found.case)
            && matches(&self.gdb, &found.gdb)
            && matches(&self.ours, &found.ours)
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut open = false;
    for part in parts {
        open = true;
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
        if part.is_empty() {
            rest = "";
        }
    }
    rest.is_empty() || (open && pattern.ends_with('*'))
}

/// Compares all threads of a variant; threads that agree, and the differences.
#[must_use]
pub fn compare(
    variant: &Variant,
    gdb: &[OracleThread],
    ours: &[Stack],
) -> (usize, Vec<Difference>) {
    let mut equal = 0;
    let mut differences = Vec::new();
    if gdb.is_empty() {
        differences.push(Difference {
            case: variant.name.clone(),
            tid: 0,
            gdb: "(nothing)".to_owned(),
            ours: "(frames)".to_owned(),
            stacks: ours
                .first()
                .map(|stack| both(&[], &stack.frames))
                .unwrap_or_default(),
        });
    }
    for thread in gdb {
        let theirs: Vec<Line> = thread
            .frames
            .iter()
            .map(|frame| Line {
                kind: frame.kind.clone(),
                name: frame.name.clone(),
                raw: frame.raw.clone(),
                place: frame.place.clone(),
            })
            .collect();
        let own = ours.iter().find(|stack| stack.tid == thread.tid);
        let own = own.map(|stack| stack.frames.as_slice()).unwrap_or_default();
        let length = theirs.len().max(own.len());
        let differs = |index: &usize| match (theirs.get(*index), own.get(*index)) {
            (Some(theirs), Some(own)) => !same(theirs, own),
            _ => true,
        };
        match (0..length).find(differs) {
            None => equal += 1,
            Some(first) => differences.push(Difference {
                case: variant.name.clone(),
                tid: thread.tid,
                gdb: theirs.get(first).map_or_else(|| "-".to_owned(), shown),
                ours: own.get(first).map_or_else(|| "-".to_owned(), shown),
                stacks: both(&theirs, own),
            }),
        }
    }
    (equal, differences)
}

fn both(gdb: &[Line], ours: &[Line]) -> String {
    let mut text = String::new();
    for (title, lines) in [("gdb", gdb), ("cdh", ours)] {
        for (number, line) in lines.iter().take(40).enumerate() {
            let _ = writeln!(text, "    {title} #{number} {}", shown(line));
        }
    }
    text
}

fn shown(line: &Line) -> String {
    let mut text = line.name.clone().unwrap_or_else(|| "??".to_owned());
    if line.kind == "signal" {
        text = "<signal>".to_owned();
    }
    if let Some(place) = &line.place {
        let _ = write!(text, " {place}");
    }
    if line.kind == "inline" || line.kind == "tail" {
        let _ = write!(text, " [{}]", line.kind);
    }
    text
}

fn same(gdb: &Line, ours: &Line) -> bool {
    if gdb.kind != ours.kind {
        return false;
    }
    if gdb.kind == "signal" {
        return true;
    }
    let names = match (&gdb.raw, &ours.raw) {
        (Some(theirs), Some(own)) if theirs == own => true,
        _ => match (&gdb.name, &ours.name) {
            (Some(theirs), Some(own)) => plain(theirs) == plain(own),
            (None, None) => true,
            _ => false,
        },
    };
    names && gdb.place == ours.place
}

/// Without what is a matter of style where there is no debug information: gdb adds parameters to C++ names,
/// the hash to Rust's, and marks clones.
fn plain(name: &str) -> String {
    let name = name.split(" [clone ").next().unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_whitespace()).collect();
    let name = name
        .strip_suffix("const")
        .filter(|rest| rest.ends_with(')'))
        .unwrap_or(&name);
    let is_hash = |hash: &str| {
        hash.len() == 17
            && hash.starts_with('h')
            && hash.bytes().skip(1).all(|b| b.is_ascii_hexdigit())
    };
    let name = match name.rsplit_once("::") {
        Some((rest, hash)) if is_hash(hash) => rest,
        _ => name,
    };
    let anonymous = "(anonymousnamespace)";
    let from = name.rfind(anonymous).map_or(0, |at| at + anonymous.len());
    match name.get(from..).and_then(|rest| rest.find('(')) {
        Some(at) if at > 0 && name.ends_with(')') => {
            name.get(..from + at).unwrap_or_default().to_owned()
        }
        _ => name.to_owned(),
    }
}

/// Our stacks of a core, through the command itself.
///
/// # Errors
/// When the command fails.
pub fn ours(cdh: &Path, variant: &Variant) -> io::Result<Vec<Stack>> {
    let output = Command::new(cdh)
        .current_dir(&variant.directory)
        .env("XDG_CACHE_HOME", &variant.directory)
        .args(["bt", "./core", "-a", "-o", "json", "--limit", LIMIT])
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!(
            "cdh fails on {}: {said}",
            variant.name
        )));
    }
    let document: Value = serde_json::from_slice(&output.stdout).map_err(io::Error::other)?;
    let threads = document["backtrace"]["threads"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    Ok(threads.iter().map(stack).collect())
}

fn stack(thread: &Value) -> Stack {
    let frames = thread["frames"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    Stack {
        tid: thread["tid"]
            .as_u64()
            .and_then(|tid| tid.try_into().ok())
            .unwrap_or(0),
        frames: frames.iter().map(line).collect(),
    }
}

fn line(frame: &Value) -> Line {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let kind = match () {
        () if frame["signal_handler"] == true => "signal",
        () if frame["inline"] == true => "inline",
        () if frame["tail_call"] == true => "tail",
        () => "normal",
    };
    let location = &frame["location"];
    let place = location["file"].as_str().map(|file| {
        let name = file.rsplit('/').next().unwrap_or(file);
        format!("{name}:{}", location["line"])
    });
    Line {
        kind: kind.to_owned(),
        name: text(&frame["function"]["name"]),
        raw: text(&frame["function"]["raw"]),
        place,
    }
}

#[cfg(test)]
mod tests {
    use super::{matches, plain};

    #[test]
    fn matters_of_style_do_not_count() {
        for (gdb, ours) in [
            ("app::finish::h210b9089cdbec148", "app::finish"),
            ("app::Square::area(int) const", "app::Square::area"),
            ("f() [clone .cold]", "f"),
            ("a<b, c >", "a<b, c>"),
            (
                "(anonymous namespace)::hidden",
                "(anonymous namespace)::hidden",
            ),
            ("app::{closure}", "app::{closure}"),
        ] {
            assert_eq!(plain(gdb), plain(ours));
        }
        assert_ne!(plain("app::finish::hello"), plain("app::finish"));
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text) in [
            ("a*c", "abbc"),
            ("*", ""),
            ("a", "a"),
            ("a*", "ab"),
            ("*b*", "abc"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a*c", "abd"), ("a", "ab"), ("", "a")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
