//! `cdh agent …`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::{OutputArgs, manual};

/// `cdh agent`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("agent"))]
pub struct AgentArgs {
    #[command(subcommand)]
    pub command: AgentCommand,
}

impl AgentArgs {
    /// Whether standard error is reserved: the command writes a log in its own format there, or the kernel
    /// runs it.
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
    /// Ship the dumps in the spool, salvage those of dead handlers, and exit
    Sweep(SweepArgs),
    /// Show whether cores are captured, whether the store works, and why dumps wait in the spool
    Status(StatusArgs),
    /// Diagnose why cores are not captured or shipped on this node, and how to fix it
    Doctor(DoctorArgs),
    /// Check the configuration: file, variables, and their combination
    CheckConfig(CheckConfigArgs),
    /// Restore the previous kernel settings and remove the handler
    Uninstall(UninstallArgs),
    /// Print a systemd unit that installs and runs the agent at boot
    Unit(UnitArgs),
    /// Wait until the chart's cleanup is done on every node, and print what each node reports
    #[command(hide = true)]
    AwaitCleanup(AwaitCleanupArgs),
    /// Capture one core from standard input; the kernel runs this
    #[command(hide = true)]
    Handle {
        /// As in `core_pattern`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// The agent's directories on a node.
#[derive(Clone, Debug, Default, Args)]
pub struct PathArgs {
    /// Directory of the spool and of the backup of the kernel's settings [env: CDH_STATE] [default:
    /// /var/lib/cdh]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,
    /// Directory where the handler is installed [env: CDH_LIBEXEC] [default: /usr/local/lib/cdh]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub libexec: Option<PathBuf>,
}

/// `cdh agent install`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("agent install"))]
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
    /// `kernel.core_pipe_limit`: maximum number of handlers at once [default: 1024]
    #[arg(long, value_name = "N")]
    pub core_pipe_limit: Option<u32>,
    /// `fs.suid_dumpable`: 0 for no cores of setuid programs, 2 for cores that only root can read
    /// [default: 2]
    #[arg(long, value_name = "0|2", value_parser = clap::value_parser!(u32).range(0..=2))]
    pub suid_dumpable: Option<u32>,
    /// How the kernel passes cores to cdh [default: pipe]
    #[arg(long, value_enum)]
    pub mode: Option<ModeArg>,
    /// Also pass each core to the previous owner of core_pattern, if that is safe on this node
    #[arg(long)]
    pub chain: bool,
}

/// How the kernel passes cores to cdh.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum ModeArg {
    /// The kernel starts the handler for each crash
    #[default]
    Pipe,
    /// The kernel connects to a running receiver (Linux 6.16 and later)
    Socket,
    /// `socket` if a self-test crash succeeds, otherwise `pipe`
    Auto,
}

/// How the handler captures cores.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Capture")]
pub struct CaptureArgs {
    /// When the crashed process is released [default: hold]
    #[arg(long, value_enum)]
    pub release: Option<ReleaseArg>,
    /// How cores are written to the spool [default: auto]
    #[arg(long, value_enum)]
    pub strategy: Option<StrategyArg>,
    /// Maximum stored core size, such as `2G`; the least useful memory is dropped first [default: no
    /// limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub core_limit: Option<u64>,
    /// Maximum seconds for copying a core; the rest is cut off, 0 means no limit [default: 3600]
    #[arg(long, value_name = "SECONDS")]
    pub copy_limit: Option<u64>,
    /// Free space to leave on the spool's disk, limited to a twentieth of it [default: 256M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub floor: Option<u64>,
    /// Maximum number of handlers that copy at once; others wait with the memory pinned [default:
    /// processors + 2]
    #[arg(long, value_name = "N")]
    pub slots: Option<usize>,
}

/// When the crashed process is released.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum ReleaseArg {
    /// After its memory has been copied
    #[default]
    Hold,
    /// Within milliseconds, unless the node has too little memory for it and its successor
    Early,
    /// `early` if the node is known to have enough memory for both, otherwise `hold`
    Auto,
}

/// How cores are written to the spool.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum StrategyArg {
    /// `raw` if the process waits and the disk has ample space, otherwise `zstd`
    #[default]
    Auto,
    /// Compress while copying
    Zstd,
    /// Copy uncompressed; compress after the process is released
    Raw,
}

/// A number of bytes: `1500000`, `512M`, `2G`; the letters are powers of 1024.
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
#[command(after_help = manual::after_help("agent run"))]
pub struct RunArgs {
    /// Install the handler at the start; only `cdh agent uninstall` removes it
    #[arg(long)]
    pub manage_node: bool,
    #[command(flatten)]
    pub agent: AgentOptions,
}

/// Options of `cdh agent run`, and of the unit that starts it.
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
    pub observability: ObservabilityArgs,
}

/// When and how dumps go to the store.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Shipping")]
pub struct ShippingArgs {
    /// When to ship dumps [default: as `--interval` or `--schedule` imply, otherwise `events`]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub ship: Option<ShipArg>,
    /// Ship waiting dumps at this interval, such as `10m`
    #[arg(long, value_name = "TIME", conflicts_with = "schedule")]
    pub interval: Option<String>,
    /// Ship waiting dumps at the times of this cron expression in UTC, such as `0 2 * * *`
    #[arg(long, value_name = "CRON")]
    pub schedule: Option<String>,
    /// Maximum bytes per second of all uploads together, such as `20M` [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub bandwidth: Option<u64>,
    /// Maximum number of uploads at once [default: 2]
    #[arg(long, value_name = "N")]
    pub parallel: Option<usize>,
    /// Also store the ELF files that crashed processes mapped, once per build-id. Dumps can then be
    /// debugged without their image, and so can those of host processes [env: CDH_KEEP_MODULES]
    #[arg(long)]
    pub keep_modules: bool,
}

/// When to ship dumps.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ShipArg {
    /// As soon as a capture is finished
    Events,
    /// Every `--interval`
    Interval,
    /// At the times of `--schedule`
    Schedule,
    /// Never: dumps remain on the node for `cdh agent sweep`, rsync or `kubectl cp`
    Off,
}

/// Metrics and logs.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Observability")]
pub struct ObservabilityArgs {
    /// Serve `/metrics`, `/healthz` and `/readyz` at this address, such as `127.0.0.1:9464` [env: CDH_METRICS]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<String>,
    /// Write metrics to this file for the node exporter's textfile collector
    #[arg(long, value_name = "FILE.prom", value_hint = ValueHint::FilePath)]
    pub metrics_file: Option<PathBuf>,
    /// Format of the log [env: CDH_LOG_FORMAT] [default: text]
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormatArg>,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormatArg {
    /// Lines for people
    Text,
    /// One JSON object per line
    Json,
}

/// `cdh agent sweep`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("agent sweep"))]
pub struct SweepArgs {
    /// Ship only these: ids, or paths of directories in the spool [default: all waiting dumps]
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
#[command(after_help = manual::after_help("agent check-config"))]
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
#[command(after_help = manual::after_help("agent status"))]
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
#[command(after_help = manual::after_help("agent unit"))]
pub struct UnitArgs {
    #[command(flatten)]
    pub agent: AgentOptions,
}

/// `cdh agent doctor`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("agent doctor"))]
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
#[command(after_help = manual::after_help("agent uninstall"))]
pub struct UninstallArgs {
    #[command(flatten)]
    pub paths: PathArgs,
    /// Wait this long for a running agent to stop, then remove its files too
    #[arg(long, value_name = "SECONDS")]
    pub wait_for_agent: Option<u64>,
    /// Wait for SIGTERM afterwards; otherwise a DaemonSet restarts the pod
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

/// How the agent attributes dumps to pods.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Pods")]
pub struct WorkloadArgs {
    /// Socket of a container runtime; repeatable [env: CDH_CRI_SOCKET] [default: sockets that are
    /// found]
    #[arg(long = "cri-socket", value_name = "PATH", value_delimiter = ',')]
    #[arg(value_hint = ValueHint::FilePath)]
    pub sockets: Vec<PathBuf>,
    /// Name of this node in Kubernetes [env: CDH_NODE_NAME]
    #[arg(long = "node-name", value_name = "NAME")]
    pub node: Option<String>,
    /// Number of last log lines to store of each container of the pod [env: CDH_LOG_LINES] [default:
    /// 500]
    #[arg(long, value_name = "N")]
    pub log_lines: Option<usize>,
    /// Which pods to dump; a pod chooses with the label or annotation `cdh.io/dump: "true"` or
    /// `"false"` [env: CDH_PODS] [default: opt-out]
    #[arg(long, value_enum, value_name = "WHICH")]
    pub pods: Option<PodsArg>,
    /// With `--pods opt-in`, also dump pods with this label [env: CDH_OPT_IN_LABEL]
    #[arg(long, value_name = "LABEL")]
    pub opt_in_label: Option<String>,
}

/// Which pods to dump.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum PodsArg {
    /// All pods that do not opt out
    #[default]
    OptOut,
    /// Only pods that opt in
    OptIn,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_suffixes_are_powers_of_1024() {
        assert_eq!(parse_size("1500"), Ok(1500));
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("2gib"), Ok(2 << 30));
        for bad in ["", "M", "1.5G", "-1", "99999999T", "5 apples"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
