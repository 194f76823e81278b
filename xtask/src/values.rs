//! Compares the variables of frames with those that gdb reads from the same cores.
//!
//! `cargo xtask values [--cdh PROGRAM] [--gdb PROGRAM] [--keep DIR] [--build BUILD]… [--directory DIR]… [NAME]…`: the
//! programs are those in `values/`, of `cdh why`'s tests and of the fixtures, built by every compiler that is installed.
//! A DIR holds a core and its program. The comparison is in `values/`. The kernel's core pattern must be `core`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build;

pub(crate) fn run(words: &[String]) -> Result<()> {
    let mut cdh: Option<PathBuf> = None;
    let mut gdb = PathBuf::from("gdb");
    let mut place: Option<PathBuf> = None;
    let mut rest: Vec<&String> = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .with_context(|| format!("`{word}` wants a value"))
        };
        match word.as_str() {
            "--cdh" => cdh = Some(value()?.into()),
            "--gdb" => gdb = value()?.into(),
            "--keep" => place = Some(value()?.into()),
            _ => rest.push(word),
        }
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
    let sources = build::root().join("xtask/src/values");
    let mut compare = Command::new("python3");
    compare.arg("-B").arg(sources.join("compare.py"));
    compare.arg(cdh).arg(gdb).arg(sources);
    compare.arg(place.as_deref().unwrap_or(scratch.path()));
    build::succeed(compare.args(rest))
}
