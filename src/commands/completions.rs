//! `cdh completions <shell>`: prints a completion script.
//!
//! ```sh
//! cdh completions bash > /etc/bash_completion.d/cdh
//! ```

use anyhow::Result;
use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};
use crate::report::ExitStatus;

pub(super) fn run(args: &CompletionsArgs) -> Result<ExitStatus> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cdh", &mut script);
    super::print(&String::from_utf8(script)?)?;
    Ok(ExitStatus::Done)
}
