//! `cdh man <dir>`: writes the man pages: one per command, from the same declarations as `--help`; `cdh(7)`;
//! and `cdh-agent.toml(5)`, from the table in docs/configuration.md.

mod pages;
mod roff;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::args::{Cli, ManArgs};
use crate::report::ExitStatus;

pub(super) fn run(args: &ManArgs) -> Result<ExitStatus> {
    let directory = &args.directory;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create `{}`", directory.display()))?;
    // The pages are committed, so they must not contain commit and target.
    let mut command = Cli::command().long_version(None);
    command.build();
    write_pages(&command, "cdh", directory)?;
    write(directory, "cdh.7", pages::concepts().as_bytes())?;
    write(
        directory,
        "cdh-agent.toml.5",
        pages::configuration()?.as_bytes(),
    )?;
    Ok(ExitStatus::Done)
}

fn write_pages(command: &clap::Command, name: &str, directory: &Path) -> Result<()> {
    let page = pages::of_command(command, name)?;
    write(directory, &format!("{name}.1"), page.as_bytes())?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        write_pages(sub, &format!("{name}-{}", sub.get_name()), directory)?;
    }
    Ok(())
}

fn write(directory: &Path, name: &str, page: &[u8]) -> Result<()> {
    let path = directory.join(name);
    fs::write(&path, page).with_context(|| format!("cannot write `{}`", path.display()))
}
