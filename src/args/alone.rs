//! A second, smaller declaration of `cdh bt`, because its start-up time is visible in terminals and in the TUI.

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use super::{BtArgs, Cli, Command, GlobalArgs};

impl Cli {
    /// Parses the words of a command line; the first one is the program's name.
    ///
    /// # Errors
    /// clap's errors, which include help and version.
    pub fn from_words(words: &[OsString]) -> Result<Self, clap::Error> {
        // Declaring all commands costs half a millisecond, a third of the shortest backtrace. Help and errors
        // come from the full declaration, because their texts name the other commands.
        if words.get(1).is_some_and(|word| word == "bt")
            && let Ok(cli) = BtCli::try_parse_from(words)
        {
            let BtCommand::Bt(args) = cli.command;
            return Ok(Self {
                global: cli.global,
                command: Some(Command::Bt(args)),
            });
        }
        Self::try_parse_from(words)
    }
}

/// As [`Cli`], with one of its commands.
#[derive(Debug, Parser)]
struct BtCli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: BtCommand,
}

#[derive(Debug, Subcommand)]
enum BtCommand {
    Bt(BtArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn declaration_is_consistent() {
        BtCli::command().debug_assert();
    }

    #[test]
    fn backtrace_declared_alone_takes_what_it_takes_among_all_commands() {
        let lines = [
            "cdh bt latest",
            "cdh bt",
            "cdh bt ./core -a -g --store s3://a/b --color never",
            "cdh bt ~2 -o json --limit 7 --source-map /a=/b --sysroot /r --no-cache",
            "cdh bt latest --store=/d -rfs --source-dir /x --source-dir /y --offline",
        ];
        for line in lines {
            let words: Vec<_> = line.split(' ').map(OsString::from).collect();
            let alone = BtCli::try_parse_from(&words);
            assert!(alone.is_ok(), "{line}: {alone:?}");
            let all = Cli::try_parse_from(&words).map(|cli| format!("{cli:?}"));
            let ours = Cli::from_words(&words).map(|cli| format!("{cli:?}"));
            assert_eq!(ours.unwrap(), all.unwrap(), "{line}");
        }
        for line in ["cdh bt --help", "cdh bt a b", "cdh bt --limit x a"] {
            let words: Vec<_> = line.split(' ').map(OsString::from).collect();
            let all = Cli::try_parse_from(&words).map(|_| ()).unwrap_err();
            let ours = Cli::from_words(&words).map(|_| ()).unwrap_err();
            assert_eq!(ours.to_string(), all.to_string(), "{line}");
        }
    }
}
