//! `cdh tui`, or `cdh` alone on a terminal: opens the TUI.
//!
//! Without a terminal, `cdh` alone prints its help, as for a mistake: scripts that lost their
//! arguments must not hang.

use anyhow::Result;
use clap::CommandFactory;

use crate::args::{Cli, GlobalArgs, TuiArgs};
use crate::report::{ExitStatus, Failure};
use crate::settings::{Role, Settings};
use crate::tui::{self, Options};

pub(super) fn run(settings: Settings, args: &TuiArgs) -> Result<ExitStatus> {
    if !settings.terminal.capable {
        return Err(Failure::new(
            ExitStatus::Failure,
            "cannot start the TUI: standard input and output are not a terminal with a movable cursor",
        )
        .hint("use `cdh ls`, `cdh bt <DUMP>` and `cdh debug <DUMP>`, or set TERM")
        .into());
    }
    let options = Options {
        ascii: args.ascii || !settings.terminal.unicode,
        filter: args.filter.clone().unwrap_or_default(),
        mouse: !args.no_mouse,
        debugger: settings.debugger(args.debugger.as_deref()).program,
        refresh_seconds: args.refresh.unwrap_or(settings.refresh_seconds),
    };
    tui::run(settings, options)
}

/// No verb was given.
pub(super) fn run_by_default(global: &GlobalArgs) -> Result<ExitStatus> {
    let settings = Settings::gather(global, Role::Workstation);
    // A broken config file is reported on a terminal, and does not hide the help elsewhere.
    if let Ok(settings) = &settings
        && !settings.terminal.capable
    {
        eprint!("{}", Cli::command().render_help());
        return Ok(ExitStatus::Failure);
    }
    let args = TuiArgs {
        debugger: std::env::var("CDH_DEBUGGER").ok(),
        ..TuiArgs::default()
    };
    run(settings?, &args)
}
