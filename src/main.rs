//! `cdh`, the core dump handler: the agent on a node, and the tool that lists, explains and debugs dumps on a workstation.
//!
//! This file parses the arguments, gathers the settings, runs one command and reports its failure.
//! All decisions are elsewhere.

// A program has no public API: `pub` in its modules means visible to other modules.
#![allow(unreachable_pub)]
// The demo's build reads no images.
#![cfg_attr(not(feature = "images"), allow(dead_code))]

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

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    // If this program is installed as the handler itself, the kernel passes only its arguments.
    let mut words: Vec<OsString> = std::env::args_os().collect();
    if cdh_agent::invoked_as_handler(words.first()) {
        return ExitCode::from(cdh_agent::handle(words.split_off(1)));
    }
    progress::end_on_interrupt();
    let cli = match args::Cli::from_words(&words) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are not errors, and a closed pipe needs no message.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let status = commands::run(cli).unwrap_or_else(|error| report::report(&error));
    ExitCode::from(status.code())
}
