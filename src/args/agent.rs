//! `cdh agent …`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::OutputArgs;

/// `cdh agent`.
#[derive(Debug, Args)]
pub struct AgentArgs {
    #[command(subcommand)]
    pub command: AgentCommand,
}

impl AgentArgs {
    /// Whether the command writes a log in its own format, or is run by the kernel: nothing else may be on
    /// standard error.
    #[must_use]
    pub fn has_a_log(&self) -> bool {
        matches!(
            self.command,
            AgentCommand::Run(_) | AgentCommand::Handle { .. }
        )
    }
}

/// What the agent does.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Install the handler as the kernel's core handler, and save the previous settings
    Install(InstallArgs),
    /// Ship dumps from the spool to the store until stopped
    Run(RunArgs),
    /// Ship what is in the spool now, salvage what dead handlers left, and exit
    Sweep(SweepArgs),
    /// Show whether cores are captured, whether the store works, and why dumps wait in the spool
    Status(StatusArgs),
    /// Diagnose why cores are not captured or shipped on this node, and how to fix it
    Doctor(DoctorArgs),
    /// Check the configuration: file, environment and what they mean together
    CheckConfig(CheckConfigArgs),
    /// Restore the previous kernel settings and remove the handler
    Uninstall(UninstallArgs),
    /// Print a systemd unit that installs and runs the agent at boot
    Unit(UnitArgs),
    /// Wait until the chart's cleanup is done on every node, and print what each node reports
    #[command(hide = true)]
    AwaitCleanup(AwaitCleanupArgs),
    /// Take one core from standard input; the kernel runs this
    #[command(hide = true)]
    Handle {
        /// As in `core_pattern`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// Where the agent lives on a node.
#[derive(Clone, Debug, Default, Args)]
pub struct PathArgs {
    /// Directory of the spool and of the settings' backup [env: CDH_STATE] [default: /var/lib/cdh]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,
    /// Directory where the handler is installed [env: CDH_LIBEXEC] [default: /usr/local/lib/cdh]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub libexec: Option<PathBuf>,
}

/// `cdh agent install`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    #[command(flatten)]
    pub paths: PathArgs,
    /// Handler to install [default: a static `cdh-handler` beside this program, in `../libexec/cdh`, or
    /// built by `cargo xtask handler`]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub handler: Option<PathBuf>,
    #[command(flatten)]
    pub node: NodeArgs,
    #[command(flatten)]
    pub capture: CaptureArgs,
}

/// The kernel's settings.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Node")]
pub struct NodeArgs {
    /// `kernel.core_pipe_limit`: handlers that the kernel runs at once [default: 1024]
    #[arg(long, value_name = "N")]
    pub core_pipe_limit: Option<u32>,
    /// `fs.suid_dumpable`: 0 no cores of setuid programs, 2 root-only ones [default: 2]
    #[arg(long, value_name = "0|2", value_parser = clap::value_parser!(u32).range(0..=2))]
    pub suid_dumpable: Option<u32>,
    /// How the kernel hands cores over [default: pipe]
    #[arg(long, value_enum)]
    pub mode: Option<ModeArg>,
    /// Pass each core on to the handler that core_pattern named before, if it is safe here
    #[arg(long)]
    pub chain: bool,
}

/// How the kernel hands cores over.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum ModeArg {
    /// It starts the handler for each crash
    #[default]
    Pipe,
    /// It connects to a receiver that is there already (Linux 6.16 and later)
    Socket,
    /// `socket` where a crash on purpose shows that it works, else `pipe`
    Auto,
}

/// How the handler takes cores.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Capture")]
pub struct CaptureArgs {
    /// When the crashed process may go [default: hold]
    #[arg(long, value_enum)]
    pub release: Option<ReleaseArg>,
    /// How cores are put into the spool [default: auto]
    #[arg(long, value_enum)]
    pub strategy: Option<StrategyArg>,
    /// Bytes of a stored core at most, such as `2G`; what matters least is cut off [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub core_limit: Option<u64>,
    /// Seconds that copying a core may take; the rest is cut off, 0 means no limit [default: 3600]
    #[arg(long, value_name = "SECONDS")]
    pub copy_limit: Option<u64>,
    /// Bytes that stay free on the spool's disk (at most a twentieth of it) [default: 256M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub floor: Option<u64>,
    /// Handlers that copy at once; the others wait with the memory held [default: processors + 2]
    #[arg(long, value_name = "N")]
    pub slots: Option<usize>,
}

/// When the crashed process may go.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum ReleaseArg {
    /// When its memory has been copied
    #[default]
    Hold,
    /// Within milliseconds, unless it is known that there is no room for its memory and a new one's
    Early,
    /// Early where it is known that there is room, else hold
    Auto,
}

/// How cores are put into the spool.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum StrategyArg {
    /// `raw` where the process waits and there is ample room, else `zstd`
    #[default]
    Auto,
    /// Compressed at once
    Zstd,
    /// As they are, compressed when the process has gone
    Raw,
}

/// A number of bytes: `1500000`, `512M`, `2G`; the letters stand for powers of 1024.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (number, letter) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let shift = match letter.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KI" | "KIB" => 10,
        "M" | "MI" | "MIB" => 20,
        "G" | "GI" | "GIB" => 30,
        "T" | "TI" | "TIB" => 40,
        _ => return Err("expected a number such as `512M` or `2Gi`".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a number such as `512M` or `2Gi`".to_owned())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "size is too large".to_owned())
}

/// `cdh agent run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Install the handler at the start; only `cdh agent uninstall` removes it
    #[arg(long)]
    pub manage_node: bool,
    #[command(flatten)]
    pub agent: AgentOptions,
}

/// What the agent takes, and the unit that starts it.
#[derive(Debug, Args)]
pub struct AgentOptions {
    #[command(flatten)]
    pub paths: PathArgs,
    /// Handler to install at the start [default: as for `cdh agent install`]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub handler: Option<PathBuf>,
    #[command(flatten)]
    pub node: NodeArgs,
    #[command(flatten)]
    pub capture: CaptureArgs,
    #[command(flatten)]
    pub shipping: ShippingArgs,
    #[command(flatten)]
    pub workloads: WorkloadArgs,
    #[command(flatten)]
    pub seen: SeenArgs,
}

/// When and how dumps go to the store.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Shipping")]
pub struct ShippingArgs {
    /// When dumps go to the store [default: what `--interval` or `--schedule` say, else events]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub ship: Option<ShipArg>,
    /// Ship what waits each time so much time has passed, such as `10m`
    #[arg(long, value_name = "TIME", conflicts_with = "schedule")]
    pub interval: Option<String>,
    /// Ship what waits at the times of a cron expression, in UTC, such as `0 2 * * *`
    #[arg(long, value_name = "CRON")]
    pub schedule: Option<String>,
    /// Bytes a second that all uploads together take, such as `20M` [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub bandwidth: Option<u64>,
    /// Uploads at once [default: 2]
    #[arg(long, value_name = "N")]
    pub parallel: Option<usize>,
    /// Put the ELF files that crashed processes had mapped into the store too, once per build-id:
    /// dumps stay debuggable when the image is gone, and host processes need none [env: CDH_KEEP_MODULES]
    #[arg(long)]
    pub keep_modules: bool,
}

/// When dumps go to the store.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ShipArg {
    /// As soon as they are sealed
    Events,
    /// Each time `--interval` has passed
    Interval,
    /// At the times of `--schedule`
    Schedule,
    /// Not by itself: they stay on the node for `cdh agent sweep`, rsync or `kubectl cp`
    Off,
}

/// How the agent is seen.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Being seen")]
pub struct SeenArgs {
    /// Serve `/metrics`, `/healthz` and `/readyz` at this address, such as `127.0.0.1:9464` [env: CDH_METRICS]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<String>,
    /// Write the metrics into a file for the node exporter's textfile collector
    #[arg(long, value_name = "FILE.prom", value_hint = ValueHint::FilePath)]
    pub metrics_file: Option<PathBuf>,
    /// How the log is written [env: CDH_LOG_FORMAT] [default: text]
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormatArg>,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormatArg {
    /// Lines for people
    Text,
    /// A JSON object on each line
    Json,
}

/// `cdh agent sweep`.
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Ship these only: a dump's id, or the path of its directory in the spool [default: all that wait]
    #[arg(value_name = "DUMP")]
    pub dumps: Vec<PathBuf>,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub paths: PathArgs,
    #[command(flatten)]
    pub shipping: ShippingArgs,
    #[command(flatten)]
    pub workloads: WorkloadArgs,
}

/// `cdh agent check-config`.
#[derive(Debug, Args)]
pub struct CheckConfigArgs {
    /// File to check [default: the one that the agent would read]
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Print the effective configuration as TOML, with the origin of each value; secrets are hidden
    #[arg(long)]
    pub print: bool,
    /// Print secrets too, so that the output is a complete configuration file (implies `--print`)
    #[arg(long)]
    pub show_secrets: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `cdh agent status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub paths: PathArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    /// Do not contact the store
    #[arg(long)]
    pub no_store: bool,
}

/// `cdh agent unit`.
#[derive(Debug, Args)]
#[command(after_help = UNIT_HELP)]
pub struct UnitArgs {
    #[command(flatten)]
    pub agent: AgentOptions,
}

const UNIT_HELP: &str = "The unit starts the agent with the options given here, with the CDH_* variables that are set, \
and with what the present installation was given. Secrets are left out: put them into /etc/cdh/agent.env.";

/// `cdh agent doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub paths: PathArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    /// Do not contact the store; otherwise a test object is written, read and deleted
    #[arg(long)]
    pub no_store: bool,
}

/// `cdh agent uninstall`.
#[derive(Debug, Args)]
pub struct UninstallArgs {
    #[command(flatten)]
    pub paths: PathArgs,
    /// Wait this long for a running agent to stop, then remove its files too
    #[arg(long, value_name = "SECONDS")]
    pub wait_for_agent: Option<u64>,
    /// Wait for SIGTERM afterwards, as the pod of a DaemonSet must
    #[arg(long)]
    pub wait: bool,
}

/// `cdh agent await-cleanup`.
#[derive(Debug, Args)]
pub struct AwaitCleanupArgs {
    /// Namespace of the DaemonSet
    #[arg(long, value_name = "NAME")]
    pub namespace: String,
    /// DaemonSet whose pods uninstall
    #[arg(long, value_name = "NAME")]
    pub daemonset: String,
    /// How long to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub timeout: u64,
}

/// How the agent learns whose dumps are whose.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Pods")]
pub struct WorkloadArgs {
    /// Socket of a container runtime, may be given more than once [env: CDH_CRI_SOCKET] [default: those
    /// that are found]
    #[arg(long = "cri-socket", value_name = "PATH", value_delimiter = ',')]
    #[arg(value_hint = ValueHint::FilePath)]
    pub sockets: Vec<PathBuf>,
    /// Name of this node in Kubernetes [env: CDH_NODE_NAME]
    #[arg(long = "node-name", value_name = "NAME")]
    pub node: Option<String>,
    /// Last log lines that a dump holds of each container of its pod [env: CDH_LOG_LINES] [default: 500]
    #[arg(long, value_name = "N")]
    pub log_lines: Option<usize>,
    /// Which pods are dumped; a pod says so with `cdh.io/dump: "true"` or `"false"` [env: CDH_PODS]
    /// [default: opt-out]
    #[arg(long, value_enum, value_name = "WHICH")]
    pub pods: Option<PodsArg>,
    /// With `--pods opt-in`: pods with this label are dumped too [env: CDH_OPT_IN_LABEL]
    #[arg(long, value_name = "LABEL")]
    pub opt_in_label: Option<String>,
}

/// Which pods are dumped.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum PodsArg {
    /// All that do not opt out
    #[default]
    OptOut,
    /// Those that opt in
    OptIn,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_letters_of_powers_of_1024() {
        assert_eq!(parse_size("1500"), Ok(1500));
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("2gib"), Ok(2 << 30));
        for bad in ["", "M", "1.5G", "-1", "99999999T", "5 apples"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
