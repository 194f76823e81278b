//! `cdh completions <shell>`: prints a completion script.
//!
//! ```sh
//! cdh completions bash > /etc/bash_completion.d/cdh
//! ```
//!
//! The scripts for bash, zsh and fish are in `completions/` and call `cdh complete`, which knows dumps,
//! namespaces and stores. The others are generated from the declarations and know only these.

use anyhow::Result;
use clap::{Command, CommandFactory};
use clap_complete::Shell;

use crate::args::{Cli, CompletionsArgs};
use crate::report::ExitStatus;

pub(super) fn run(args: &CompletionsArgs) -> Result<ExitStatus> {
    let script = match args.shell {
        Shell::Bash => include_str!("../../completions/cdh.bash").to_owned(),
        Shell::Zsh => include_str!("../../completions/_cdh").to_owned(),
        Shell::Fish => include_str!("../../completions/cdh.fish").to_owned(),
        other => {
            let mut script = Vec::new();
            clap_complete::generate(other, &mut shown(&Cli::command()), "cdh", &mut script);
            String::from_utf8(script)?
        }
    };
    super::print(&script)?;
    Ok(ExitStatus::Done)
}

/// The command without hidden parts, which clap_complete would offer.
fn shown(command: &Command) -> Command {
    // clap requires static names; leaking them is harmless because the process is about to end.
    let name = |name: &str| -> &'static str { name.to_owned().leak() };
    let mut copy = Command::new(name(command.get_name()));
    if let Some(about) = command.get_about() {
        copy = copy.about(about.clone());
    }
    let arguments = command.get_arguments();
    let subcommands = command.get_subcommands();
    copy.visible_aliases(command.get_visible_aliases().map(name))
        .args(arguments.filter(|argument| !argument.is_hide_set()))
        .subcommands(
            subcommands
                .filter(|command| !command.is_hide_set())
                .map(shown),
        )
}
