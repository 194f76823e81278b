//! Compares goroutines with what Go programs print themselves when they crash.
//!
//! `cargo xtask goroutines [--cdh PROGRAM] [--keep DIR] [VERSION=GO]… [--case NAME…]`: each `GO` is the command `go` of
//! one version; without any, the installed one is used. The programs and the comparison are in `goroutines/`. The
//! kernel's core pattern must be `core`.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::python;

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
    python::compare("goroutines", cdh, &[], place, rest)
}
