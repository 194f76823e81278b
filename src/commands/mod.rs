//! One file per verb: settings to pipeline to render. No verb knows another.

mod agent;
mod bt;
mod completions;
mod debug;
mod diff;
mod fetch;
mod gc;
mod groups;
mod import;
mod info;
mod ls;
mod man;
mod rm;
mod share;

use std::io::{self, Write};

use anyhow::Result;

use crate::args::{Cli, Command};
use crate::report::ExitStatus;
use crate::settings::Settings;

/// Runs the command of `cli`.
///
/// # Errors
/// Whatever ends the command early; `report` knows the status that goes with it.
pub fn run(cli: Cli) -> Result<ExitStatus> {
    // These two need no settings: a broken config file must not stop them. The kernel starts the
    // handler with an empty environment.
    match cli.command {
        Command::Completions(args) => return completions::run(&args),
        Command::Man(args) => return man::run(&args),
        _ => {}
    }
    let settings = Settings::gather(&cli.global)?;
    match cli.command {
        Command::Ls(args) => ls::run(&settings, &args),
        Command::Info(args) => info::run(&settings, &args),
        Command::Fetch(args) => fetch::run(&settings, &args),
        Command::Bt(args) => bt::run(&settings, &args),
        Command::Groups(args) => groups::run(&settings, &args),
        Command::Diff(args) => diff::run(&settings, &args),
        Command::Debug(args) => debug::run(&settings, args),
        Command::Import(args) => import::run(&settings, &args),
        Command::Rm(args) => rm::run(&settings, &args),
        Command::Gc(args) => gc::run(&settings, &args),
        Command::Share(args) => share::run(&settings, &args),
        Command::Agent(args) => agent::run(&settings, args),
        Command::Completions(_) | Command::Man(_) => Ok(ExitStatus::Done),
    }
}

/// Writes to standard output in one piece, so that a reader never sees half a line.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}
