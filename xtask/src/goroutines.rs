//! Compares goroutines with what Go programs print themselves when they crash.
//!
//! `cargo xtask goroutines [--cdh PROGRAM] [--keep DIR] [VERSION=GO]… [--case NAME…]`: each `GO` is the command `go` of
//! one version; without any, the installed one is used. The programs and the comparison are in `goroutines/`. The
//! kernel's core pattern must be `core`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build;

pub(crate) fn run(words: &[String]) -> Result<()> {
    let mut cdh: Option<PathBuf> = None;
    let mut place: Option<PathBuf> = None;
    let mut rest: Vec<String> = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--cdh" => cdh = Some(words.next().context("`--cdh` wants a program")?.into()),
            "--keep" => place = Some(words.next().context("`--keep` wants a directory")?.into()),
            other => rest.push(other.to_owned()),
        }
    }
    if rest.first().is_none_or(|word| word == "--case") {
        rest.insert(0, "installed=go".to_owned());
    }
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    ensure!(
        pattern.trim() == "core",
        "the kernel's core pattern is `{}`, not `core`",
        pattern.trim()
    );
    let scratch = tempfile::tempdir()?;
    let cdh = match cdh {
        Some(cdh) => std::path::absolute(cdh)?,
        None => build::cdh()?,
    };
    let sources = build::root().join("xtask/src/goroutines");
    let mut compare = Command::new("python3");
    compare.arg("-B").arg(sources.join("compare.py"));
    compare.arg(cdh).arg(sources);
    compare.arg(place.as_deref().unwrap_or(scratch.path()));
    build::succeed(compare.args(rest))
}
