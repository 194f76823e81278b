//! `cdh`, the core dump handler: on a node the agent, on a desk the tool that lists, explains and debugs dumps.
//!
//! This file parses the arguments, gathers the settings, runs one command and reports its failure.
//! It decides nothing else.

// A program has no outside: `pub` in its modules says what the other modules may use.
#![allow(unreachable_pub)]

mod args;
mod commands;
mod debugger;
mod pipeline;
mod progress;
mod prompt;
mod query;
mod render;
mod report;
mod settings;
mod tui;
mod when;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // Installed as the handler itself, the kernel passes its arguments and nothing else.
    let mut words = std::env::args_os();
    if cdh_agent::invoked_as_handler(words.next().as_ref()) {
        return ExitCode::from(cdh_agent::handle(words.collect()));
    }
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; a closed pipe is no reason to complain.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let status = commands::run(cli).unwrap_or_else(|error| report::report(&error));
    ExitCode::from(status.code())
}
