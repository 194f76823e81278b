//! What may stand on the command line. Declarations only: nothing in here touches the world.

mod agent;
mod alone;
mod output;
mod selection;

pub use agent::{
    AgentArgs, AgentCommand, AgentOptions, AwaitCleanupArgs, CaptureArgs, CheckConfigArgs,
    DoctorArgs, NodeArgs, PathArgs, SeenArgs, ShippingArgs, StatusArgs, SweepArgs, UninstallArgs,
    UnitArgs, WorkloadArgs,
};

pub use output::{ListFormat, ListOutputArgs, OutputArgs, SortBy, TextFormat};
pub use selection::SelectionArgs;

use std::path::PathBuf;

use agent::parse_size;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

/// Captures, stores, explains and debugs core dumps.
#[derive(Debug, Parser)]
#[command(name = "cdh", version, long_version = LONG_VERSION)]
#[command(about, long_about = LONG_ABOUT, after_help = AFTER_HELP)]
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

const LONG_ABOUT: &str = "Captures, stores, explains and debugs core dumps.

On a node, `cdh agent` captures each core and ships it to a store. On a workstation, `cdh` \
lists the dumps in a store, prints their backtraces and starts a debugger on them.";

const AFTER_HELP: &str = "A <DUMP> is an id or any unique prefix of one, `latest`, or `@N` (the N-th \
before the latest). It can also be the path of a bundle or of a core, or a match: a process id, a program \
(name or path), a unit, a command line, or terms such as `pid:4242`. A match selects its newest dump.

Exit status: 0 done, 1 nothing found, 2 usage or failure, 3 store unreachable (a retry may help), \
4 evidence does not match, 130 interrupted; `cdh debug` passes the debugger's own status on.";

/// The newest dump.
const LATEST: &str = "latest";

/// Arguments that every command takes.
#[derive(Clone, Debug, Args)]
pub struct GlobalArgs {
    /// Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file
    #[arg(
        long,
        global = true,
        env = "CDH_STORE",
        value_name = "STORE",
        help_heading = "Global options"
    )]
    pub store: Option<String>,
    /// Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]
    #[arg(
        long,
        global = true,
        env = "CDH_CONFIG",
        value_name = "FILE",
        help_heading = "Global options"
    )]
    #[arg(value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// When to colour output; `NO_COLOR` turns it off too
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
    /// Say in one sentence why a process crashed, with the evidence
    Why(WhyArgs),
    /// Print the backtrace of a dump
    #[command(visible_alias = "backtrace")]
    Bt(BtArgs),
    /// List crashes: the dumps of the same crash as one line
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
    /// Pull what a core needs from its image and print the directory
    Sysroot(SysrootArgs),
    /// List or delete unpacked dumps and cached files of images
    Cache(CacheArgs),
    /// Put cores or bundles into the store
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
pub struct LsArgs {
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Print the same crashes as one line
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
pub struct InfoArgs {
    /// Which dump
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
pub struct FetchArgs {
    /// Which dumps
    #[arg(value_name = "DUMP", required = true, value_hint = ValueHint::AnyPath)]
    pub dumps: Vec<String>,
    /// Unpack into this directory instead of the cache (one sub-directory per dump when there are several)
    #[arg(long, short = 'd', value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub directory: Option<PathBuf>,
    /// Refuse cores that unpack to more, such as `100G` [default: 4T]
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
    /// Take modules from this directory: laid out as the root of the crashed process, or any directory that holds
    /// them, such as a `.build-id` tree
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
    /// Take modules from this image instead of the one that the dump names: `repository@sha256:…`
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Take debug files from this image
    #[arg(long, value_name = "IMAGE")]
    pub debug_image: Option<String>,
    /// Use no network for modules: only what is cached or on this machine
    #[arg(long, env = "CDH_OFFLINE", value_parser = clap::builder::FalseyValueParser::new())]
    pub offline: bool,
    /// Credentials for registries: a docker or podman config, or an image pull secret as JSON or YAML
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub auth_file: Option<PathBuf>,
    /// Trust the certificates in this file (PEM) for registries, besides the system's
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub registry_ca: Option<PathBuf>,
}

/// `cdh why`.
#[derive(Debug, Args)]
#[command(after_help = WHY_HELP)]
pub struct WhyArgs {
    /// Which dump
    #[arg(value_name = "DUMP", default_value = LATEST, value_hint = ValueHint::AnyPath)]
    pub dump: String,
    /// Name everything anew and remember nothing
    #[arg(long)]
    pub no_cache: bool,
    #[command(flatten)]
    pub modules: ModuleArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

const WHY_HELP: &str = "The sentence says only what the core proves. Up to five facts follow it, each with an \
address, a register, an instruction or a line of source where it can be checked. If the core does not show the \
cause, the sentence says what the signal says.";

/// `cdh bt`.
#[derive(Debug, Args)]
pub struct BtArgs {
    /// Which dump
    #[arg(value_name = "DUMP", default_value = LATEST, value_hint = ValueHint::AnyPath)]
    pub dump: String,
    /// Print every thread, not only the one that crashed
    #[arg(long, short = 'a')]
    pub all_threads: bool,
    /// Merge threads with equal stacks (prints every thread), or goroutines
    #[arg(long, short = 'g')]
    pub group: bool,
    /// Print goroutines too; with `=all`, also those of the runtime itself
    #[arg(long, value_enum, value_name = "WHICH", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "program")]
    pub goroutines: Option<TaskChoice>,
    /// Print the registers of each frame 0
    #[arg(long, short = 'r')]
    pub registers: bool,
    /// Print the variables of each frame
    #[arg(long, short = 'l')]
    pub locals: bool,
    /// Print containers member by member instead of what they hold
    #[arg(long, requires = "locals")]
    pub raw: bool,
    /// Print no arguments of functions
    #[arg(long, conflicts_with = "locals")]
    pub no_args: bool,
    /// Fold recursions, how the process ended and the start of the runtime [default: on a terminal]
    #[arg(long, short = 'f', overrides_with = "no_fold")]
    pub fold: bool,
    /// Print every frame
    #[arg(long, overrides_with = "fold")]
    pub no_fold: bool,
    /// Print the instructions around each frame of the crashing thread, with the values that the last one used
    #[arg(long, short = 'd')]
    pub disassemble: bool,
    /// Print the lines of source around each frame
    #[arg(long, short = 's')]
    pub source: bool,
    /// Search this directory and the current checkout for source files; nothing else is read
    /// (implies `--source`; repeatable)
    #[arg(long, visible_alias = "source-root", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub source_dir: Vec<PathBuf>,
    /// Replace the start of source paths (implies `--source`; repeatable)
    #[arg(long, value_name = "FROM=TO", value_parser = parse_mapping)]
    pub source_map: Vec<(String, PathBuf)>,
    /// Name everything anew and remember nothing
    #[arg(long)]
    pub no_cache: bool,
    /// Maximum number of frames per thread [default: 256, or 300000 with folding]
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Print how long it took
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
    /// Those that the program started
    Program,
    /// Those of the runtime too
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
#[command(after_help = GROUPS_HELP)]
pub struct GroupsArgs {
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Show images of more than 1,000 dumps too (reads their manifests)
    #[arg(long)]
    pub images: bool,
    /// Do not read backtraces for the column TOP FRAME
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

const GROUPS_HELP: &str = "FIRST is when the store first received the crash, whatever the terms select. \
NEW marks crashes that it first received within the last 24 hours, or since `--new-since`. A crash without \
a fingerprint is never new. With the fingerprint of one crash, its images and workloads are listed with \
their first and last dump: since which version does it crash?";

/// `cdh drops`.
#[derive(Debug, Args)]
pub struct DropsArgs {
    /// Only what was dropped since then: 2h, 7d, 2026-01-31, 2026-01-31T12:00:00Z
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `cdh diff`.
#[derive(Debug, Args)]
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
pub struct DebugArgs {
    /// Which dump
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
pub struct DumpArgs {
    /// Which dump
    #[arg(value_name = "DUMP", default_value = LATEST, value_hint = ValueHint::AnyPath)]
    pub dump: String,
    /// Write the core to this file; `-` is standard output [default: `-`, unless it is a terminal]
    #[arg(long, short = 'o', value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
}

/// `cdh sysroot`.
#[derive(Debug, Args)]
pub struct SysrootArgs {
    /// Which dump
    #[arg(value_name = "DUMP", value_hint = ValueHint::AnyPath)]
    pub dump: String,
    #[command(flatten)]
    pub modules: ModuleArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `cdh cache`.
#[derive(Debug, Args)]
pub struct CacheArgs {
    #[command(subcommand)]
    pub command: CacheCommand,
}

/// What to do with the cache.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// List what is cached: unpacked dumps, files of images and debuginfod servers, listings of stores
    Ls(CacheLsArgs),
    /// Delete unpacked dumps, cached files and listings; what another run uses stays
    Clear(CacheClearArgs),
}

/// `cdh cache clear`.
#[derive(Debug, Args)]
pub struct CacheClearArgs {
    /// Delete only the unpacked dumps
    #[arg(long)]
    pub cases: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `cdh cache ls`.
#[derive(Debug, Args)]
pub struct CacheLsArgs {
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `cdh import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Cores (plain, .zst, .xz, .lz4, .gz, .bz2 or in a .zip), journal exports (`journalctl -o export`), bundles, zips
    /// of IBM's core-dump-handler, or directories of them, such as /var/lib/systemd/coredump
    #[arg(value_name = "PATH", required = true, value_hint = ValueHint::AnyPath)]
    pub cores: Vec<PathBuf>,
    #[command(flatten)]
    pub workload: PlaceArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Where a process ran, for cores that do not say.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Workload")]
pub struct PlaceArgs {
    /// Kubernetes namespace that the process ran in
    #[arg(long, short = 'n', value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Pod that it ran in
    #[arg(long, value_name = "POD")]
    pub pod: Option<String>,
    /// Container in the pod
    #[arg(long, value_name = "CONTAINER")]
    pub container: Option<String>,
    /// Image that it ran from: `repository@sha256:…`, or `repository:tag@sha256:…`. Without a digest, files
    /// from it cannot be verified
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Label of the pod, as `kubectl get pod --show-labels` prints it; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    pub labels: Vec<(String, String)>,
    /// Label of the image, such as `org.opencontainers.image.revision=…`; may be repeated
    #[arg(long = "image-label", value_name = "KEY=VALUE", value_parser = key_value)]
    pub image_labels: Vec<(String, String)>,
    /// Node that it ran on
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// When it crashed: 2h, yesterday, 2026-01-31, 2026-01-31T12:00:00Z [default: as recorded, else unknown]
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
pub struct TuiArgs {
    /// Draw with ASCII only [default: as the locale says]
    #[arg(long)]
    pub ascii: bool,
    /// Show only dumps that match, as typed after `/`: `namespace:payments signal:SEGV since:2d`
    #[arg(long, value_name = "FILTER")]
    pub filter: Option<String>,
    /// Leave the mouse to the terminal
    #[arg(long)]
    pub no_mouse: bool,
    /// Refresh the list every so many seconds while idle; 0 turns it off [default: 5]
    #[arg(long, value_name = "SECONDS")]
    pub refresh: Option<u64>,
    /// Debugger that `d` starts [default: `debugger` of the config file, else gdb]
    #[arg(long, value_name = "PROGRAM", env = "CDH_DEBUGGER", value_hint = ValueHint::CommandName)]
    pub debugger: Option<String>,
}

/// `cdh rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Which dumps
    #[arg(value_name = "DUMP", required = true)]
    pub dumps: Vec<String>,
    /// Show what would be deleted, and delete nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `cdh gc`.
#[derive(Debug, Args)]
pub struct GcArgs {
    /// Delete dumps that are older: 30d, 12w, or a date
    #[arg(long, value_name = "WHEN")]
    pub older_than: Option<String>,
    /// Keep the newest N dumps of each fingerprint and delete the others
    #[arg(long, value_name = "N")]
    pub keep_per_fingerprint: Option<usize>,
    /// Delete the oldest dumps until all together take no more: 500G, 2T
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_total: Option<u64>,
    /// Delete stored modules that no remaining dump needs and that are older (minimum 1d). Alone, it deletes no
    /// dumps [default: 7d]
    #[arg(long, value_name = "WHEN")]
    pub modules_older_than: Option<String>,
    /// Show what would be deleted, and delete nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `cdh share`.
#[derive(Debug, Args)]
pub struct ShareArgs {
    /// Which dump
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
pub struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `cdh complete`.
#[derive(Debug, Args)]
pub struct CompleteArgs {
    /// For which shell
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
