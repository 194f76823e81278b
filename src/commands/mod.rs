//! One file per command: it passes settings to the pipeline and the result to render. Commands do
//! not use one another.

mod agent;
mod bt;
mod cache;
mod complete;
mod completions;
mod debug;
mod diff;
mod drops;
mod dump;
mod fetch;
mod gc;
mod groups;
mod import;
mod info;
mod ls;
mod man;
mod rm;
#[cfg(feature = "schema")]
mod schemas;
mod share;
mod sysroot;
mod tui;
mod why;

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use anyhow::Result;
use cdh_agent::config::unknown_variables;
use cdh_store::Store;
use cdh_sysroot::ImageReference;

use crate::args::{Cli, Command, FileArgs, ListFormat, SortBy};
use crate::pipeline::{self, Dump, Origin};
use crate::render::{self, Group, GroupsView, terminal_line};
use crate::report::{ExitStatus, Failure};
use crate::settings::{Role, Settings, environment};

/// Runs the command of `cli`.
///
/// # Errors
/// Any error that ends the command early; `report` determines its exit status.
pub fn run(cli: Cli) -> Result<ExitStatus> {
    let Some(command) = cli.command else {
        warn_of_unknown_variables();
        return tui::run_by_default(&cli.global);
    };
    // These commands must work with a broken config file, so they use no settings. The kernel
    // starts the handler with an empty environment.
    match command {
        Command::Complete(args) => return complete::run(&args),
        Command::Completions(args) => return completions::run(&args),
        Command::Man(args) => return man::run(&args),
        #[cfg(feature = "schema")]
        Command::Schemas(args) => return schemas::run(&args),
        Command::Agent(args) => {
            if !args.has_a_log() {
                warn_of_unknown_variables();
            }
            if let Some(outcome) = agent::run_without_settings(&cli.global, &args) {
                return outcome;
            }
            return agent::run(&Settings::gather(&cli.global, Role::Agent)?, args);
        }
        _ => {}
    }
    warn_of_unknown_variables();
    let mut settings = Settings::gather(&cli.global, Role::Workstation)?;
    let modules = match &command {
        Command::Bt(args) => Some(&args.modules),
        Command::Why(args) => Some(&args.modules),
        Command::Debug(args) => Some(&args.modules),
        Command::Diff(args) => Some(&args.modules),
        Command::Sysroot(args) => Some(&args.modules),
        _ => None,
    };
    let files = match &command {
        Command::Info(args) => Some(&args.files),
        Command::Fetch(args) => Some(&args.files),
        _ => modules.map(|modules| &modules.files),
    };
    if let Some(files) = files {
        require_files(files)?;
        settings.images.files = files.clone();
    }
    if let Some(modules) = modules {
        require_reference("--image", modules.image.as_deref())?;
        require_reference("--debug-image", modules.debug_image.as_deref())?;
        settings.images = settings.images.with(modules);
    }
    match command {
        Command::Tui(args) => tui::run(settings, &args),
        Command::Ls(args) => ls::run(&settings, &args),
        Command::Info(args) => info::run(&settings, &args),
        Command::Fetch(args) => fetch::run(&settings, &args),
        Command::Why(args) => why::run(&settings, &args),
        Command::Bt(args) => bt::run(&settings, &args),
        Command::Groups(args) => groups::run(&settings, &args),
        Command::Drops(args) => drops::run(&settings, &args),
        Command::Diff(args) => diff::run(&settings, &args),
        Command::Debug(args) => debug::run(&settings, args),
        Command::Dump(args) => dump::run(&settings, &args),
        Command::Sysroot(args) => sysroot::run(&settings, &args),
        Command::Cache(args) => cache::run(&settings, &args),
        Command::Import(args) => import::run(&settings, &args),
        Command::Rm(args) => rm::run(&settings, &args),
        Command::Gc(args) => gc::run(&settings, &args),
        Command::Share(args) => share::run(&settings, &args),
        Command::Agent(_) | Command::Complete(_) | Command::Completions(_) | Command::Man(_) => {
            Ok(ExitStatus::Done)
        }
        #[cfg(feature = "schema")]
        Command::Schemas(_) => Ok(ExitStatus::Done),
    }
}

/// Otherwise, a misspelt variable would silently have no effect.
fn warn_of_unknown_variables() {
    let unknown = unknown_variables(&environment());
    let unknown: Vec<String> = unknown.iter().map(ToString::to_string).collect();
    if !unknown.is_empty() {
        eprintln!("warning: {}", terminal_line(&unknown.join(", ")));
    }
}

/// Otherwise, a misspelt path would look like a directory without files.
fn require_files(files: &FileArgs) -> Result<()> {
    let refuse = |path: &Path, problem: &str, hint: &str| {
        let shown = terminal_line(&path.display().to_string());
        let failure = Failure::new(ExitStatus::Failure, format!("`{shown}` {problem}"));
        Err(failure.hint(hint.to_owned()).into())
    };
    if let Some(path) = files.sysroot.as_deref().filter(|path| !path.is_dir()) {
        let hint = "pass a directory that holds the process's files: `--sysroot <DIR>`";
        return refuse(path, "is not a directory", hint);
    }
    if let Some(path) = files.exe.as_deref().filter(|path| !path.is_file()) {
        return refuse(
            path,
            "is not a file",
            "pass the program's file: `--exe <FILE>`",
        );
    }
    let mut targets = files.map.iter().map(|(_, to)| to);
    match targets.find(|to| !to.exists()) {
        Some(path) => refuse(
            path,
            "does not exist",
            "check the path after `=` in `--map <FROM=TO>`",
        ),
        None => Ok(()),
    }
}

/// Checks an image's name before a dump is opened for it.
fn require_reference(option: &str, image: Option<&str>) -> Result<()> {
    let Some(text) = image else { return Ok(()) };
    ImageReference::parse(text).map(drop).map_err(|error| {
        let message = format!("invalid value of `{option}`");
        let hint =
            "pass a reference such as `quay.io/shop/api@sha256:…` or `quay.io/shop/api:1.4.2`";
        let failure = Failure::new(ExitStatus::Failure, message).cause(error);
        failure.hint(hint).into()
    })
}

/// Groups in any format; nothing for people if there are none.
fn groups_as(
    format: ListFormat,
    groups: &[Group],
    filter: &str,
    view: &GroupsView,
) -> Result<String> {
    match format {
        ListFormat::Table | ListFormat::Wide if groups.is_empty() => Ok(String::new()),
        ListFormat::Table | ListFormat::Wide => Ok(render::groups_text(groups, view)),
        ListFormat::Json => render::groups_json(groups, filter),
        ListFormat::Jsonl => render::groups_jsonl(groups, filter),
        ListFormat::Csv => render::groups_csv(groups, filter),
        ListFormat::Id => {
            let newest: Vec<_> = groups.iter().map(|group| group.newest.clone()).collect();
            Ok(render::list_ids(&newest))
        }
    }
}

/// Sorts groups, which are in the order of their counts. A group is sorted by its first workload.
fn sort_groups(groups: &mut [Group], by: SortBy) {
    match by {
        SortBy::Count => {}
        SortBy::Time => groups.sort_by_key(|group| std::cmp::Reverse(group.last)),
        SortBy::Size => groups.sort_by_key(|group| std::cmp::Reverse(group.bytes)),
        SortBy::Exe => groups.sort_by(|a, b| a.exe.cmp(&b.exe)),
        SortBy::Signal => groups.sort_by(|a, b| a.signal.cmp(&b.signal)),
        SortBy::Pod => groups.sort_by(|a, b| a.workloads.first().cmp(&b.workloads.first())),
    }
}

fn count_without_groups() -> anyhow::Error {
    Failure::new(
        ExitStatus::Failure,
        "`--sort count` sorts groups, not dumps",
    )
    .hint("add `--group`, or use `cdh groups`")
    .into()
}

/// Reports on standard error that a store has no dumps, or none that match, and where to look
/// instead.
fn report_nothing(settings: &Settings, store: &dyn Store, is_filtered: bool) {
    let place = terminal_line(&store.describe());
    let what = if is_filtered {
        "no dumps match"
    } else {
        "no dumps"
    };
    eprintln!("{what} in {place}");
    for hint in pipeline::hints_for_nothing(settings, store, is_filtered) {
        eprintln!("hint: {}", terminal_line(&hint));
    }
}

/// Opens a dump. If the reference matches several dumps, reports which one was chosen.
fn open(settings: &Settings, reference: &str) -> Result<Dump> {
    let dump = pipeline::open_dump(settings, reference)?;
    if let (Origin::Store(summary), true) = (&dump.origin, dump.is_match) {
        let (shown, id, exe) = (terminal_line(reference), summary.id.short(), &summary.exe);
        eprintln!(
            "note: the newest dump that matches `{shown}` is {id} ({exe}, {})",
            summary.signal
        );
    }
    Ok(dump)
}

/// Reports after the result which parts of a dump cannot be trusted; returns the resulting status.
fn conclude(dump: &Dump) -> ExitStatus {
    crate::report::remark(&dump.integrity_remarks());
    dump.integrity_status()
}

/// Writes everything to standard output at once, so that a reader never sees half a line.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Columns of the terminal that the output is for.
fn terminal_width() -> Option<usize> {
    let out = std::io::stdout();
    let size = out
        .is_terminal()
        .then(|| rustix::termios::tcgetwinsize(&out));
    let columns = size.and_then(Result::ok).map(|size| size.ws_col);
    columns.filter(|columns| *columns > 0).map(usize::from)
}
