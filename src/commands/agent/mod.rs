//! `cdh agent …`: runs the agent's library and prints its results.

mod check_config;
mod cleanup;
mod collecting;
mod config;
mod doctor;
pub(super) mod documents;
mod given;
mod handler_file;
mod install;
mod log;
mod running;
mod started;
mod status;
mod unit;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use cdh_agent::config::unknown_variables;
use cdh_agent::{AgentPaths, ShipperError, SweepError, SweepReport};
use cdh_bundle::IdPrefix;

use crate::args::{AgentArgs, AgentCommand, GlobalArgs, SweepArgs, TextFormat};
use crate::pipeline;
use crate::render::{self, terminal_line};
use crate::report::{ExitStatus, Failure};
use crate::settings::{Settings, environment};
use config::{Flags, gather};
use log::Log;

pub(super) fn run(settings: &Settings, args: AgentArgs) -> Result<ExitStatus> {
    // An uninstallation needs no store, and the handler must not open one.
    if !matches!(
        args.command,
        AgentCommand::Uninstall(_) | AgentCommand::Handle { .. }
    ) {
        pipeline::require_known_store(settings)?;
    }
    match args.command {
        AgentCommand::Install(args) => {
            let flags = Flags::default().paths(&args.paths).node(&args.node);
            let effective = gather(settings, flags.capture(&args.capture))?;
            install::run(settings, &effective, args.handler.as_deref())
        }
        AgentCommand::Uninstall(args) => {
            let config = gather(settings, Flags::default().paths(&args.paths))?.config;
            install::undo(settings, &config, &args)
        }
        AgentCommand::Status(args) => status::run(settings, &args),
        AgentCommand::Sweep(args) => sweep(settings, &args),
        AgentCommand::Doctor(args) => doctor::run(settings, &args),
        AgentCommand::Run(args) => {
            let flags = Flags::of_agent(&args.agent).manage(args.manage_node);
            let effective = gather(settings, flags)?;
            let config = &effective.config;
            let log = Log::of_service(config.log.format, &environment());
            for note in &effective.notes {
                log.line(
                    log::Level::Info,
                    "configuration",
                    note,
                    serde_json::Value::Null,
                );
            }
            for unknown in unknown_variables(&environment()) {
                let text = unknown.to_string();
                log.line(
                    log::Level::Warning,
                    "configuration",
                    &text,
                    serde_json::Value::Null,
                );
            }
            if config.manages_node() {
                install::log_install(config, args.agent.handler.as_deref(), log)?;
            }
            let outcome = running::run(settings, config, log);
            // The handler remains installed, so that no crash is lost until the next agent runs. A
            // receiver that was started in this container does not remain.
            if config.manages_node() && is_in_pod() {
                cdh_agent::supervise::socket::retire(&config::paths(config))?;
            }
            outcome
        }
        AgentCommand::Unit(args) => unit::run(settings, &args),
        AgentCommand::AwaitCleanup(args) => cleanup::run(&args),
        AgentCommand::CheckConfig(_) => Ok(ExitStatus::Done),
        AgentCommand::Handle { arguments } => {
            Ok(ExitStatus::Debugger(cdh_agent::handle(arguments)))
        }
    }
}

/// For commands that must run even with a broken configuration.
pub(super) fn run_without_settings(
    global: &GlobalArgs,
    args: &AgentArgs,
) -> Option<Result<ExitStatus>> {
    match &args.command {
        AgentCommand::CheckConfig(args) => Some(check_config::run(global.clone(), args)),
        _ => None,
    }
}

/// `1 dump`, `2 dumps`.
fn dumps(count: u64) -> String {
    match count {
        1 => "1 dump".to_owned(),
        count => format!("{count} dumps"),
    }
}

/// The store that the running agent uses, which may come from its flags and variables; `None` if no agent runs.
fn running_store(status: &cdh_agent::Status) -> Option<String> {
    let record = status
        .record
        .as_ref()
        .filter(|_| status.shipper_running == Some(true))?;
    (!record.store.is_empty()).then(|| record.store.clone())
}

/// Whether this process runs in a pod, which Kubernetes would restart.
fn is_in_pod() -> bool {
    environment().contains_key("KUBERNETES_SERVICE_HOST")
}

/// How to call this program from a shell: `cdh` if `PATH` finds it, otherwise its path.
fn program_name() -> String {
    let Ok(own) = std::env::current_exe() else {
        return "cdh".to_owned();
    };
    let paths = environment().get("PATH").cloned().unwrap_or_default();
    let on_path = std::env::split_paths(&paths)
        .map(|directory| directory.join("cdh"))
        .find(|path| path.is_file());
    match on_path.and_then(|path| path.canonicalize().ok()) {
        Some(found) if found == own => "cdh".to_owned(),
        _ => own.display().to_string(),
    }
}

fn sweep(settings: &Settings, args: &SweepArgs) -> Result<ExitStatus> {
    let flags = Flags::default().paths(&args.paths).shipping(&args.shipping);
    let config = gather(settings, flags.workloads(&args.workloads))?.config;
    let paths = config::paths(&config);
    let mut options = config::shipper_options(&config);
    options.only = chosen(&paths, &args.dumps)?;
    let only = options.only.clone();
    let store = pipeline::open_or_create_store(settings)?;
    let log = Log::of_command(config.log.format);
    options.store = settings.store_name();
    let swept = cdh_agent::sweep(&paths, store.as_ref(), options, &mut |event| {
        if !matches!(event, cdh_agent::ShipperEvent::Sealed { .. }) {
            log.event(event);
        }
    });
    let mut by_running_agent = false;
    let (report, left) = match swept {
        Ok(report) => {
            let lists = [
                &report.shipped,
                &report.kept,
                &report.failed,
                &report.in_progress,
            ];
            if only.is_none() && lists.iter().all(|list| list.is_empty()) {
                eprintln!("nothing to ship: no dumps in {}", paths.spool.display());
            }
            let missing = only
                .iter()
                .flatten()
                .filter(|id| !report.shipped.contains(id))
                .count();
            let left = report.failed.len().max(missing);
            (report, left)
        }
        Err(ShipperError::AlreadyRunning { .. }) => {
            by_running_agent = true;
            (SweepReport::default(), ask_the_agent(&paths, only)?)
        }
        Err(error) => return Err(sweep_failure(error)),
    };
    let kept = report.kept.len() as u64;
    if args.output.format() == TextFormat::Json {
        super::print(&render::json_text(&documents::SweepDocument {
            by_running_agent,
            shipped: report.shipped,
            salvaged: report.salvaged,
            quarantined: report.quarantined,
            kept: report.kept,
            failed: report.failed,
            unwanted: report.unwanted,
            in_progress: report.in_progress,
            left: left as u64,
        })?)?;
    }
    if kept > 0 {
        eprintln!(
            "note: {} of setuid programs kept on this node (policy.setuid); `cdh agent status` lists them",
            dumps(kept)
        );
    }
    if left == 0 {
        return Ok(ExitStatus::Done);
    }
    Err(Failure::new(
        ExitStatus::Failure,
        format!("{} not shipped", dumps(left as u64)),
    )
    .hint("`cdh agent status` says why; nothing is lost, `cdh agent sweep` can be repeated")
    .into())
}

/// The failure of a sweep; if the store failed, with the store's status and hint.
fn sweep_failure(error: ShipperError) -> anyhow::Error {
    match error {
        ShipperError::Sweep(SweepError::Store(error)) => pipeline::store_failure(error, "ship to"),
        error @ (ShipperError::Unusable { .. } | ShipperError::Spool(_)) => Failure::new(
            ExitStatus::Failure,
            "cannot use the spool",
        )
        .hint("the spool belongs to root: run this as root, or name your own with `--state <DIR>`")
        .cause(error)
        .into(),
        error => error.into(),
    }
}

/// How long the agent may take to notice the request: it may be in the middle of a shipment.
const NOTICE: Duration = Duration::from_secs(60);
/// How long to wait without progress in the spool.
const STANDSTILL: Duration = Duration::from_secs(30);

/// The running agent holds the spool and ships the requested dumps. Returns how many remain.
fn ask_the_agent(paths: &AgentPaths, only: Option<BTreeSet<cdh_bundle::DumpId>>) -> Result<usize> {
    let waiting = || -> Result<usize> {
        let entries = cdh_bundle::list_spool(&paths.spool)?;
        let sealed = entries
            .iter()
            .filter(|entry| entry.state == cdh_bundle::SpoolState::Sealed);
        Ok(sealed
            .filter(|entry| only.as_ref().is_none_or(|only| only.contains(&entry.id)))
            .count())
    };
    cdh_agent::ask_to_ship(paths, only.clone(), NOTICE).map_err(|error| {
        Failure::new(ExitStatus::Failure, "the running agent does not answer")
            .cause(error)
            .hint("see its log, or stop it and run `cdh agent sweep` again")
    })?;
    let (mut left, mut since) = (waiting()?, std::time::Instant::now());
    while left > 0 && since.elapsed() < STANDSTILL {
        std::thread::sleep(Duration::from_millis(100));
        let now = waiting()?;
        if now != left {
            (left, since) = (now, std::time::Instant::now());
        }
    }
    Ok(left)
}

/// Ids, or paths of entries, as dumps.
fn chosen(paths: &AgentPaths, dumps: &[PathBuf]) -> Result<Option<BTreeSet<cdh_bundle::DumpId>>> {
    if dumps.is_empty() {
        return Ok(None);
    }
    let mut chosen = BTreeSet::new();
    for dump in dumps {
        let name = dump
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if let Ok(id) = name.parse() {
            chosen.insert(id);
            continue;
        }
        let entries = cdh_bundle::list_spool(&paths.spool).unwrap_or_default();
        let ids = entries.iter().map(|entry| entry.id);
        let prefix = name.parse::<IdPrefix>().ok();
        let mut found = ids.filter(|id| prefix.as_ref().is_some_and(|prefix| prefix.matches(id)));
        match (found.next(), found.next()) {
            (Some(id), None) => chosen.insert(id),
            (first, _) => {
                let shown = terminal_line(&dump.display().to_string());
                let message = match first {
                    Some(_) => {
                        format!("`{shown}` is ambiguous: several ids in the spool start with it")
                    }
                    None => format!("`{shown}` is not a dump in the spool"),
                };
                let hint = format!(
                    "give an id, its start, or a path such as {}/<ID>; `cdh agent status` lists the dumps in the spool",
                    paths.spool.display()
                );
                return Err(Failure::new(ExitStatus::Failure, message).hint(hint).into());
            }
        };
    }
    Ok(Some(chosen))
}
