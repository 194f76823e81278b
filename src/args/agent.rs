//! `cdh agent …`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

/// `cdh agent`.
#[derive(Debug, Args)]
pub struct AgentArgs {
    #[command(subcommand)]
    pub command: AgentCommand,
}

/// What the agent does.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Make the kernel hand cores to the handler, and remember the settings that were there
    Install(InstallArgs),
    /// Ship dumps from the spool to the store until stopped
    Run(RunArgs),
    /// Ship what is in the spool now, salvage what dead handlers left, and end
    Sweep(SweepArgs),
    /// Tell whether the handler is installed and what waits in the spool
    Status(PathArgs),
    /// Give back the kernel settings that were there before
    Uninstall(PathArgs),
    /// Take one core from standard input; the kernel runs this
    #[command(hide = true)]
    Handle {
        /// As in `core_pattern`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// Where the agent lives on a node.
#[derive(Clone, Debug, Args)]
pub struct PathArgs {
    /// Directory of the spool and of the settings' backup
    #[arg(
        long,
        env = "CDH_STATE",
        default_value = "/var/lib/cdh",
        value_name = "DIR"
    )]
    #[arg(value_hint = ValueHint::DirPath)]
    pub state: PathBuf,
    /// Directory where the handler is installed
    #[arg(
        long,
        env = "CDH_LIBEXEC",
        default_value = "/usr/local/lib/cdh",
        value_name = "DIR"
    )]
    #[arg(value_hint = ValueHint::DirPath)]
    pub libexec: PathBuf,
}

/// `cdh agent install`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    #[command(flatten)]
    pub paths: PathArgs,
    /// Handler to install [default: `cdh-handler` beside this program, else this program itself]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub handler: Option<PathBuf>,
    /// `kernel.core_pipe_limit`: handlers that the kernel runs at once
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub core_pipe_limit: u32,
    /// `fs.suid_dumpable`: 0 no cores of setuid programs, 2 root-only ones
    #[arg(long, value_name = "0|2", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=2))]
    pub suid_dumpable: u32,
}

/// `cdh agent run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub paths: PathArgs,
    /// Install at the start and uninstall at the end
    #[arg(long)]
    pub manage_node: bool,
}

/// `cdh agent sweep`.
#[derive(Debug, Args)]
pub struct SweepArgs {
    #[command(flatten)]
    pub paths: PathArgs,
}
