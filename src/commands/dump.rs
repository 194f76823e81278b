//! `cdh dump <dump> -o FILE`: writes the plain core, like `coredumpctl dump`.

use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::args::DumpArgs;
use crate::pipeline::{self, Dump};
use crate::progress::Bar;
use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &DumpArgs) -> Result<ExitStatus> {
    let file = args.output.as_deref();
    let file = file.filter(|path| *path != Path::new("-"));
    if args.output.is_none() && io::stdout().is_terminal() {
        let hint = "write it to a file with `-o FILE`, or to a pipe";
        let message = "refusing to write a core to the terminal";
        return Err(Failure::new(ExitStatus::Failure, message).hint(hint).into());
    }
    let dump = super::open(settings, &args.dump)?;
    let bar = Bar::new(settings.interactive);
    match file {
        Some(path) => to_file(&dump, path, &bar)?,
        None => pipeline::write_core(&dump, &mut io::stdout().lock(), &bar)?,
    }
    Ok(super::conclude(&dump))
}

/// Writes a temporary file and renames it, so that a file of this name is always complete. A pipe or a device
/// is written directly.
fn to_file(dump: &Dump, path: &Path, bar: &Bar) -> Result<()> {
    let shown = terminal_line(&path.display().to_string());
    let failed = || format!("cannot write `{shown}`");
    let is_special = path.metadata().is_ok_and(|found| !found.is_file());
    if is_special {
        let mut out = File::options()
            .write(true)
            .open(path)
            .with_context(failed)?;
        return pipeline::write_core(dump, &mut out, bar);
    }
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(part);
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600);
    let mut out = options.open(&part).with_context(failed)?;
    let outcome = pipeline::write_core(dump, &mut out, bar)
        .and_then(|()| fs::rename(&part, path).with_context(failed));
    if outcome.is_err() {
        let _ = fs::remove_file(&part);
    }
    outcome
}
