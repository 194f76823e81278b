//! Compares the Python frames of every thread with what `faulthandler` prints when a Python program crashes.
//!
//! `cargo xtask faulthandler [--cdh PROGRAM] [--keep DIR] [--pystack PROGRAM] [PYTHON[@ROOT]]…`: without any `PYTHON`,
//! the installed one is used. The programs and the comparison are in `faulthandler/`. The kernel's core pattern must be
//! `core`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build;

pub(crate) fn run(words: &[String]) -> Result<()> {
    let mut cdh: Option<PathBuf> = None;
    let mut place: Option<PathBuf> = None;
    let mut pystack: Option<&String> = None;
    let mut pythons: Vec<&str> = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .with_context(|| format!("`{word}` wants a value"))
        };
        match word.as_str() {
            "--cdh" => cdh = Some(value()?.into()),
            "--keep" => place = Some(value()?.into()),
            "--pystack" => pystack = Some(value()?),
            python => pythons.push(python),
        }
    }
    if pythons.is_empty() {
        pythons.push("/usr/bin/python3");
    }
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    let pattern = pattern.trim();
    ensure!(
        pattern == "core",
        "the kernel's core pattern is `{pattern}`, not `core`"
    );
    let scratch = tempfile::tempdir()?;
    let cdh = match cdh {
        Some(cdh) => std::path::absolute(cdh)?,
        None => build::cdh()?,
    };
    let sources = build::root().join("xtask/src/faulthandler");
    let mut compare = Command::new("python3");
    compare.arg("-B").arg(sources.join("compare.py"));
    compare.arg(cdh).arg(sources);
    compare.arg(place.as_deref().unwrap_or(scratch.path()));
    if let Some(pystack) = pystack {
        compare.arg("--pystack").arg(pystack);
    }
    build::succeed(compare.args(pythons))
}
