//! Compares the Python frames of every thread with what `faulthandler` prints when a Python program crashes.
//!
//! `cargo xtask faulthandler [--cdh PROGRAM] [--keep DIR] [--pystack PROGRAM] [PYTHON[@ROOT]]…`: without any `PYTHON`,
//! the installed one is used. The programs and the comparison are in `faulthandler/`. The kernel's core pattern must be
//! `core`.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::python;

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
    let pystack = pystack.map(|pystack| ["--pystack", pystack.as_str()]);
    let rest = pystack.into_iter().flatten().chain(pythons);
    python::compare("faulthandler", cdh, &[], place, rest)
}
