//! Builds the corpus and compares our backtraces with gdb's.
//!
//! `cargo xtask fixtures [--keep DIR] [--cdh PROGRAM] [NAME]…`

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use cdh_testkit::corpus::{self, Variant};
use cdh_testkit::divergence::{self, Difference, Known, Line, Stack};
use serde_json::Value;

use crate::build;

/// Frames of a thread that are compared.
const LIMIT: &str = "3000";

pub(crate) fn run(words: &[String]) -> Result<()> {
    let mut names = Vec::new();
    let mut place: Option<PathBuf> = None;
    let mut cdh: Option<PathBuf> = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--keep" => place = Some(words.next().context("`--keep` wants a directory")?.into()),
            "--cdh" => cdh = Some(words.next().context("`--cdh` wants a program")?.into()),
            name => names.push(name.to_owned()),
        }
    }
    if names.is_empty() {
        names = corpus::names()?;
    }
    let scratch = tempfile::tempdir()?;
    let place = place.as_deref().unwrap_or(scratch.path());
    let cdh = match cdh {
        Some(cdh) => cdh,
        None => build::cdh()?,
    };
    let known = divergence::known()?;
    let mut total = Total::default();
    for name in &names {
        for variant in corpus::build(name, place)? {
            total.add(&cdh, &variant, &known)?;
        }
    }
    println!(
        "{} cores, {} threads: {} equal to gdb's, {} differ as the list says, {} differ otherwise",
        total.cores,
        total.equal + total.listed + total.open,
        total.equal,
        total.listed,
        total.open
    );
    ensure!(
        total.open == 0,
        "some differences are not in tests/fixtures/divergences.toml"
    );
    Ok(())
}

#[derive(Default)]
struct Total {
    cores: usize,
    equal: usize,
    listed: usize,
    open: usize,
}

impl Total {
    fn add(&mut self, cdh: &Path, variant: &Variant, known: &[Known]) -> Result<()> {
        let Some(gdb) = variant.oracle()? else {
            return Ok(());
        };
        let ours = ours(cdh, variant)?;
        let (equal, differences) = divergence::compare(variant, &gdb, &ours);
        self.cores += 1;
        self.equal += equal;
        let is_known = |found: &&Difference| known.iter().any(|known| known.explains(found));
        let (listed, open): (Vec<_>, Vec<_>) = differences.iter().partition(is_known);
        self.listed += listed.len();
        self.open += open.len();
        println!(
            "{}: {equal} equal, {} listed, {} not",
            variant.name,
            listed.len(),
            open.len()
        );
        for found in open.iter().take(2) {
            println!(
                "  thread {}: gdb `{}`, cdh `{}`",
                found.tid, found.gdb, found.ours
            );
            print!("{}", found.stacks);
        }
        Ok(())
    }
}

/// Our stacks of a core, through the command itself.
fn ours(cdh: &Path, variant: &Variant) -> Result<Vec<Stack>> {
    let output = Command::new(cdh)
        .current_dir(&variant.directory)
        .env("XDG_CACHE_HOME", &variant.directory)
        .args(["bt", "./core", "-a", "-o", "json", "--limit", LIMIT])
        .output()?;
    if !output.status.success() {
        bail!(
            "cdh fails on {}: {}",
            variant.name,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let document: Value = serde_json::from_slice(&output.stdout)?;
    let threads = document["backtrace"]["threads"]
        .as_array()
        .context("no threads")?;
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
