//! Compares the variables of frames with those that gdb reads from the same cores.
//!
//! `cargo xtask values [--cdh PROGRAM] [--gdb PROGRAM] [--keep DIR] [--build BUILD]… [--directory DIR]… [NAME]…`: the
//! programs are those in `values/`, of `cdh why`'s tests and of the fixtures, built by every compiler that is installed.
//! A DIR holds a core and its program. The comparison is in `values/`. The kernel's core pattern must be `core`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::python;

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
    let program = [OsString::from(gdb)];
    python::compare("values", cdh, &program, place, rest)
}
