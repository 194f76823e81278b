//! The declaration of the command line. It performs no I/O and reads no files.

mod agent;
mod alone;
mod manual;
mod output;
mod selection;

pub use agent::{
    AgentArgs, AgentCommand, AgentOptions, AwaitCleanupArgs, CaptureArgs, CheckConfigArgs,
    DoctorArgs, NodeArgs, ObservabilityArgs, PathArgs, ShippingArgs, StatusArgs, SweepArgs,
    UninstallArgs, UnitArgs, WorkloadArgs,
};

pub use manual::of as manual_of;
pub use output::{ListFormat, ListOutputArgs, OutputArgs, SortBy, TextFormat};
pub use selection::SelectionArgs;

use std::path::PathBuf;

use agent::parse_size;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

/// Capture, store, explain and debug core dumps
#[derive(Debug, Parser)]
#[command(name = "cdh", version, long_version = LONG_VERSION)]
#[command(about, long_about = LONG_ABOUT, after_help = manual::after_help(""))]
#[command(
    propagate_version = true,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What `--version` prints; `-V` prints the version alone.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("BUILD_OF_PROGRAM"),
    ")"
);

const LONG_ABOUT: &str = "Capture, store, explain and debug core dumps.

On a node, `cdh agent` captures each core and ships it to a store. On a workstation, `cdh` \
lists the dumps in a store, prints their backtraces and starts a debugger on them.";

/// The newest dump.
const LATEST: &str = "latest";

/// Arguments that every command takes.
#[derive(Clone, Debug, Args)]
pub struct GlobalArgs {
    /// Store of the dumps: a directory, `s3://bucket/prefix`, or a name from the config file
    #[arg(
        long,
        global = true,
        env = "CDH_STORE",
        value_name = "STORE",
        help_heading = "Global options"
    )]
    pub store: Option<String>,
    /// Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`, for the agent `/etc/cdh/agent.toml`]
    #[arg(
        long,
        global = true,
        env = "CDH_CONFIG",
        value_name = "FILE",
        help_heading = "Global options"
    )]
    #[arg(value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// When to colour output
    #[arg(long, global = true, value_enum, default_value_t = ColorWhen::Auto, value_name = "WHEN")]
    #[arg(help_heading = "Global options", hide_possible_values = false)]
    pub color: ColorWhen,
}

/// When output is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Browse the dumps of a store; the default on a terminal
    Tui(TuiArgs),
    /// List the dumps in a store, newest first
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show everything known about a dump
    Info(InfoArgs),
    /// Download dumps, verify them and unpack each into a case directory
    Fetch(FetchArgs),
    /// Explain in one sentence why a process crashed, with the evidence
    Why(WhyArgs),
    /// Print the backtrace of a dump
    #[command(visible_alias = "backtrace")]
    Bt(BtArgs),
    /// List crashes: one line for all dumps of the same crash
    Groups(GroupsArgs),
    /// List crashes without a dump, and why
    Drops(DropsArgs),
    /// Show what differs between two dumps
    Diff(DiffArgs),
    /// Start a debugger on a dump
    #[command(visible_alias = "gdb")]
    Debug(DebugArgs),
    /// Write the core of a dump to a file or to standard output
    Dump(DumpArgs),
    /// Download the files that a core needs from its image, and print their directory
    Sysroot(SysrootArgs),
    /// List or delete unpacked dumps and cached files of images
    Cache(CacheArgs),
    /// Import cores or bundles into the store
    Import(ImportArgs),
    /// Delete dumps from the store
    Rm(RmArgs),
    /// Apply retention limits by age, count and size, and remove unreferenced modules
    #[command(
        long_about = "Apply retention limits by age, count and size, and remove unreferenced modules.\n\n\
        With several limits, a dump is deleted if any of them applies. `--dry-run` names the limit for each dump."
    )]
    Gc(GcArgs),
    /// Print a presigned, time-limited download URL of a dump
    Share(ShareArgs),
    /// Capture cores on this node and ship them
    Agent(AgentArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// List what can follow on a command line
    #[command(hide = true)]
    Complete(CompleteArgs),
    /// Write the man pages
    #[command(hide = true)]
    Man(ManArgs),
    /// Write the JSON schemas of everything that `-o json` prints
    #[cfg(feature = "schema")]
    #[command(hide = true)]
    Schemas(ManArgs),
}

/// `cdh ls`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("ls"))]
pub struct LsArgs {
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Print one line for all dumps of the same crash
    #[arg(long)]
    pub group: bool,
    #[command(flatten)]
    pub output: ListOutputArgs,
    /// Order of the dumps [default: time], or of the groups [default: count]
    #[arg(long, value_enum, value_name = "FIELD")]
    pub sort: Option<SortBy>,
    /// Maximum number of dumps, or of groups
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Show only the newest dump
    #[arg(short = '1', conflicts_with = "limit")]
    pub newest: bool,
    /// Reverse the order: oldest first
    #[arg(long, short = 'r')]
    pub reverse: bool,
    /// Print the values of one field, each once: `exe`, `path`, `pid`, `unit`, `cmdline`, `COREDUMP_EXE` …
    #[arg(long, short = 'F', value_name = "FIELD", value_parser = crate::query::Field::parse)]
    #[arg(conflicts_with = "group")]
    pub field: Option<crate::query::Field>,
}

/// `cdh info`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("info"))]
pub struct InfoArgs {
    /// Id, unique prefix, `latest`, `@N`, file or match (see `cdh --help`)
    #[arg(value_name = "DUMP", default_value = LATEST, value_hint = ValueHint::AnyPath)]
    pub dump: String,
    #[command(flatten)]
    pub output: OutputArgs,
    /// List every module, entry and thread instead of counting them
    #[arg(long, short = 'a')]
    pub all: bool,
    #[command(flatten)]
    pub files: FileArgs,
}

/// `cdh fetch`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("fetch"))]
pub struct FetchArgs {
    /// Ids, unique prefixes, `latest`, `@N` or matches (see `cdh --help`)
    #[arg(value_name = "DUMP", required = true, value_hint = ValueHint::AnyPath)]
    pub dumps: Vec<String>,
    /// Unpack into this directory instead of the cache (one sub-directory per dump when there are several)
    #[arg(long, short = 'd', value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub directory: Option<PathBuf>,
    /// Maximum unpacked size of a core, such as `100G`; larger ones are refused [default: 4T]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_size: Option<u64>,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Files that the user points to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct FileArgs {
    /// Use modules (program and libraries) from this directory: a copy of the process's root, or any directory that
    /// holds them, such as a `.build-id` tree
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub sysroot: Option<PathBuf>,
    /// Use this file as the program
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub exe: Option<PathBuf>,
    /// Replace the start of module paths: FROM in the core is TO on this machine (repeatable)
    #[arg(long, value_name = "FROM=TO", value_parser = parse_mapping)]
    pub map: Vec<(String, PathBuf)>,
}

impl FileArgs {
    /// Whether the user points to any file.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.sysroot.is_some() || self.exe.is_some() || !self.map.is_empty()
    }
}

/// Where the files of a core's modules are looked for.
#[derive(Debug, Args)]
pub struct ModuleArgs {
    #[command(flatten)]
    pub files: FileArgs,
    /// Use modules from this image instead of the dump's own: `repository@sha256:…`
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Use debug files from this image
    #[arg(long, value_name = "IMAGE")]
    pub debug_image: Option<String>,
    /// Do not use the network for modules: only cached and local files
    #[arg(long, env = "CDH_OFFLINE", value_parser = clap::builder::FalseyValueParser::new())]
    pub offline: bool,
    /// Credentials for registries: a docker or podman config, or an image pull secret as JSON or YAML
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub auth_file: Option<PathBuf>,
    /// Also trust the certificates in this file (PEM) for registries
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub registry_ca: Option<PathBuf>,
}

/// `cdh why`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("why"))]
pub struct WhyArgs {
    /// Id, unique prefix, `latest`, `@N`, file or match (see `cdh --help`)
    #[arg(value_name = "DUMP", default_value = LATEST, value_hint = ValueHint::AnyPath)]
    pub dump: String,
    /// Do not use the cache of symbolized frames
    #[arg(long)]
    pub no_cache: bool,
    #[command(flatten)]
    pub modules: ModuleArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `cdh bt`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("bt"))]
pub struct BtArgs {
    /// Id, unique prefix, `latest`, `@N`, file or match (see `cdh --help`)
    #[arg(value_name = "DUMP", default_value = LATEST, value_hint = ValueHint::AnyPath)]
    pub dump: String,
    /// Print every thread, not only the one that crashed
    #[arg(long, short = 'a')]
    pub all_threads: bool,
    /// Merge threads with equal stacks (implies `--all-threads`); with `--goroutines`, merge goroutines
    #[arg(long, short = 'g')]
    pub group: bool,
    /// Also print goroutines; with `=all`, also those of the runtime
    #[arg(long, value_enum, value_name = "WHICH", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "program")]
    pub goroutines: Option<TaskChoice>,
    /// Print the registers of the top frame of each printed thread
    #[arg(long, short = 'r')]
    pub registers: bool,
    /// Print the variables of each frame
    #[arg(long, short = 'l')]
    pub locals: bool,
    /// Print the data members of containers instead of their elements
    #[arg(long, requires = "locals")]
    pub raw: bool,
    /// Do not print function arguments
    #[arg(long, conflicts_with = "locals")]
    pub no_args: bool,
    /// Print one line each for recursion, for abort and panic frames at the top, and for start-up frames
    /// at the bottom [default: on a terminal]
    #[arg(long, short = 'f', overrides_with = "no_fold")]
    pub fold: bool,
    /// Print every frame, one per line
    #[arg(long, overrides_with = "fold")]
    pub no_fold: bool,
    /// Print the instructions around each frame of the crashed thread, and the operands of the last one
    #[arg(long, short = 'd')]
    pub disassemble: bool,
    /// Print the source lines around each frame
    #[arg(long, short = 's')]
    pub source: bool,
    /// Search only this directory and the current checkout for source files (implies `--source`;
    /// repeatable)
    #[arg(long, visible_alias = "source-root", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub source_dir: Vec<PathBuf>,
    /// Replace the start of source paths (implies `--source`; repeatable)
    #[arg(long, value_name = "FROM=TO", value_parser = parse_mapping)]
    pub source_map: Vec<(String, PathBuf)>,
    /// Do not use the cache of symbolized frames
    #[arg(long)]
    pub no_cache: bool,
    /// Maximum number of frames per thread [default: 256, or 300000 with folding]
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Print the time that the command took
    #[arg(long, short = 'v')]
    pub verbose: bool,
    #[command(flatten)]
    pub modules: ModuleArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Which goroutines to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TaskChoice {
    /// Goroutines that the program started
    Program,
    /// Also goroutines of the runtime
    All,
}

fn parse_mapping(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() => Ok((from.to_owned(), PathBuf::from(to))),
        _ => Err("write it as FROM=TO, for example /build=/home/me/project".to_owned()),
    }
}

/// `cdh groups`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("groups"))]
pub struct GroupsArgs {
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Also show images of more than 1,000 dumps (slower: reads their manifests)
    #[arg(long)]
    pub images: bool,
    /// Omit the column TOP FRAME, which needs backtraces
    #[arg(long)]
    pub no_top: bool,
    /// Order of the groups
    #[arg(long, value_enum, default_value_t = SortBy::Count, value_name = "FIELD")]
    pub sort: SortBy,
    /// Maximum number of groups
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    #[command(flatten)]
    pub output: ListOutputArgs,
}

/// `cdh drops`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("drops"))]
pub struct DropsArgs {
    /// Only crashes since then: 2h, 7d, 2026-01-31, 2026-01-31T12:00:00Z
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `cdh diff`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("diff"))]
pub struct DiffArgs {
    /// The first dump
    #[arg(value_name = "A", value_hint = ValueHint::AnyPath)]
    pub a: String,
    /// The second dump
    #[arg(value_name = "B", value_hint = ValueHint::AnyPath)]
    pub b: String,
    #[command(flatten)]
    pub modules: ModuleArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `cdh debug`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("debug"))]
pub struct DebugArgs {
    /// Id, unique prefix, `latest`, `@N`, file or match (see `cdh --help`)
    #[arg(value_name = "DUMP", default_value = LATEST, value_hint = ValueHint::AnyPath)]
    pub dump: String,
    #[command(flatten)]
    pub modules: ModuleArgs,
    /// Debugger to start: gdb or LLDB [default: `debugger` of the config file, else gdb]
    #[arg(long, value_name = "PROGRAM", env = "CDH_DEBUGGER", value_hint = ValueHint::CommandName)]
    pub debugger: Option<String>,
    /// Print the debugger's command line instead of running it
    #[arg(long)]
    pub print: bool,
    /// Arguments passed on to the debugger
    #[arg(last = true, value_name = "ARGS")]
    pub debugger_args: Vec<std::ffi::OsString>,
}

/// `cdh dump`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("dump"))]
pub struct DumpArgs {
    /// Id, unique prefix, `latest`, `@N`, file or match (see `cdh --help`)
    #[arg(value_name = "DUMP", default_value = LATEST, value_hint = ValueHint::AnyPath)]
    pub dump: String,
    /// File to write; `-` is standard output [default: `-`, unless it is a terminal]
    #[arg(long, short = 'o', value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
}

/// `cdh sysroot`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("sysroot"))]
pub struct SysrootArgs {
    /// Id, unique prefix, `latest`, `@N` or match (see `cdh --help`)
    #[arg(value_name = "DUMP", value_hint = ValueHint::AnyPath)]
    pub dump: String,
    #[command(flatten)]
    pub modules: ModuleArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `cdh cache`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("cache"))]
pub struct CacheArgs {
    #[command(subcommand)]
    pub command: CacheCommand,
}

/// What to do with the cache.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// List the cache: unpacked dumps, files of images and debuginfod servers, listings of stores
    Ls(CacheLsArgs),
    /// Delete unpacked dumps, cached files and listings, except those in use
    Clear(CacheClearArgs),
}

/// `cdh cache clear`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("cache clear"))]
pub struct CacheClearArgs {
    /// Delete only the unpacked dumps
    #[arg(long)]
    pub cases: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `cdh cache ls`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("cache ls"))]
pub struct CacheLsArgs {
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `cdh import`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("import"))]
pub struct ImportArgs {
    /// Cores (plain, .zst, .xz, .lz4, .gz, .bz2 or in a .zip), journal exports (`journalctl -o export`), bundles, zips
    /// of IBM's core-dump-handler, or directories of them, such as /var/lib/systemd/coredump
    #[arg(value_name = "PATH", required = true, value_hint = ValueHint::AnyPath)]
    pub cores: Vec<PathBuf>,
    #[command(flatten)]
    pub workload: OriginArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Where a process ran, for cores without this information.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Workload")]
pub struct OriginArgs {
    /// Kubernetes namespace of the process
    #[arg(long, short = 'n', value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Pod of the process
    #[arg(long, value_name = "POD")]
    pub pod: Option<String>,
    /// Container of the process
    #[arg(long, value_name = "CONTAINER")]
    pub container: Option<String>,
    /// Image of the container: `repository@sha256:…` or `repository:tag@sha256:…`. Without a digest, cdh
    /// cannot verify that files come from this image
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Label of the pod, as `kubectl get pod --show-labels` prints it; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    pub labels: Vec<(String, String)>,
    /// Label of the image, such as `org.opencontainers.image.revision=…`; repeatable
    #[arg(long = "image-label", value_name = "KEY=VALUE", value_parser = key_value)]
    pub image_labels: Vec<(String, String)>,
    /// Node where the process ran
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// Time of the crash: 2h, yesterday, 2026-01-31, 2026-01-31T12:00:00Z [default: the recorded time, if any]
    #[arg(long, value_name = "WHEN")]
    pub time: Option<String>,
}

/// `KEY=VALUE`; the value may be empty.
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected `KEY=VALUE`".to_owned()),
    }
}

/// `cdh tui`.
#[derive(Debug, Default, Args)]
#[command(after_help = manual::after_help("tui"))]
pub struct TuiArgs {
    /// Draw with ASCII characters only [default: unless the locale is UTF-8]
    #[arg(long)]
    pub ascii: bool,
    /// Show only dumps that match, as typed after `/`: `namespace:payments signal:SEGV since:2d`
    #[arg(long, value_name = "FILTER")]
    pub filter: Option<String>,
    /// Do not capture the mouse
    #[arg(long)]
    pub no_mouse: bool,
    /// Seconds between refreshes of the list while idle; 0 turns them off [default: 5]
    #[arg(long, value_name = "SECONDS")]
    pub refresh: Option<u64>,
    /// Debugger that `d` starts [default: `debugger` of the config file, else gdb]
    #[arg(long, value_name = "PROGRAM", env = "CDH_DEBUGGER", value_hint = ValueHint::CommandName)]
    pub debugger: Option<String>,
}

/// `cdh rm`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("rm"))]
pub struct RmArgs {
    /// Ids, unique prefixes, `latest`, `@N` or matches (see `cdh --help`)
    #[arg(value_name = "DUMP", required = true)]
    pub dumps: Vec<String>,
    /// Show what would be deleted, and delete nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Delete without asking
    #[arg(long, short = 'y')]
    pub yes: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `cdh gc`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("gc"))]
pub struct GcArgs {
    /// Delete dumps that are older: 30d, 12w, or a date
    #[arg(long, value_name = "WHEN")]
    pub older_than: Option<String>,
    /// Keep the newest N dumps of each fingerprint and delete the others
    #[arg(long, value_name = "N")]
    pub keep_per_fingerprint: Option<usize>,
    /// Delete the oldest dumps until the others take no more than this: 500G, 2T
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_total: Option<u64>,
    /// Delete stored modules that are older and that no remaining dump needs (minimum 1d). Without other
    /// limits, no dump is deleted [default: 7d]
    #[arg(long, value_name = "WHEN")]
    pub modules_older_than: Option<String>,
    /// Show what would be deleted, and delete nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Delete without asking
    #[arg(long, short = 'y')]
    pub yes: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `cdh share`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("share"))]
pub struct ShareArgs {
    /// Id, unique prefix, `latest`, `@N` or match (see `cdh --help`)
    #[arg(value_name = "DUMP")]
    pub dump: String,
    /// How long the URL works; the maximum is 7d, the limit of presigned S3 URLs
    #[arg(long, value_name = "SPAN", default_value = "24h", value_parser = crate::when::parse_span)]
    pub expires: u64,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `cdh completions`.
#[derive(Debug, Args)]
#[command(after_help = manual::after_help("completions"))]
pub struct CompletionsArgs {
    /// Shell that the script is for
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `cdh complete`.
#[derive(Debug, Args)]
pub struct CompleteArgs {
    /// Shell that the script is for
    #[arg(value_enum)]
    pub shell: CompleteShell,
    /// Of bash: `COMP_LINE`, `COMP_POINT`, `COMP_TYPE` and `COMP_WORDBREAKS`. Of others: the words after the
    /// command, up to the current one
    #[arg(
        value_name = "WORD",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub words: Vec<String>,
}

/// Shells with a script that calls `cdh complete`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompleteShell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// `cdh man` and `cdh schemas`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Directory to write to
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub directory: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn declarations_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
