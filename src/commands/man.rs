//! `cdh man <dir>`: writes one man page per command, from the same declarations as `--help`.

use std::fs;

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::args::{Cli, ManArgs};
use crate::report::ExitStatus;

pub(super) fn run(args: &ManArgs) -> Result<ExitStatus> {
    fs::create_dir_all(&args.directory)
        .with_context(|| format!("cannot create `{}`", args.directory.display()))?;
    // The pages are committed: they cannot name commit and target.
    let mut command = Cli::command().long_version(None);
    command.build();
    write_pages(&command, "cdh", &args.directory)?;
    Ok(ExitStatus::Done)
}

fn write_pages(command: &clap::Command, name: &str, directory: &std::path::Path) -> Result<()> {
    let mut page = Vec::new();
    // clap wants names that live as long as the program; there are some twenty of them.
    let title: &'static str = name.to_owned().leak();
    clap_mangen::Man::new(command.clone().name(title).bin_name(name.replace('-', " ")))
        .render(&mut page)?;
    let path = directory.join(format!("{name}.1"));
    fs::write(&path, page).with_context(|| format!("cannot write `{}`", path.display()))?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        write_pages(sub, &format!("{name}-{}", sub.get_name()), directory)?;
    }
    Ok(())
}
