//! `cdh agent …`: what the agent's library does, with words around it.

mod check_config;
mod config;
mod doctor;
mod log;
mod running;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use cdh_agent::config::AgentConfig;
use cdh_agent::node::binary::BinaryError;
use cdh_agent::{AgentPaths, InstallError, InstallOptions, PatternOwner, ShipperError};

use crate::args::{AgentArgs, AgentCommand, GlobalArgs, SweepArgs};
use crate::pipeline;
use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;
use config::{Flags, gather};
use log::Log;

pub(super) fn run(settings: &Settings, args: AgentArgs) -> Result<ExitStatus> {
    match args.command {
        AgentCommand::Install(args) => {
            let flags = Flags::default().paths(&args.paths).node(&args.node);
            let config = gather(settings, flags.capture(&args.capture))?.config;
            install(&config, args.handler.as_deref())
        }
        AgentCommand::Uninstall(args) => {
            let config = gather(settings, Flags::default().paths(&args.paths))?.config;
            uninstall(&config, args.wait)
        }
        AgentCommand::Status(args) => {
            let config = gather(settings, Flags::default().paths(&args))?.config;
            status(&config)
        }
        AgentCommand::Sweep(args) => sweep(settings, &args),
        AgentCommand::Doctor(args) => doctor::run(settings, &args),
        AgentCommand::Run(args) => {
            let flags = Flags::default()
                .paths(&args.paths)
                .manage(args.manage_node)
                .node(&args.node)
                .capture(&args.capture)
                .shipping(&args.shipping)
                .workloads(&args.workloads)
                .seen(&args.seen);
            let effective = gather(settings, flags)?;
            let config = &effective.config;
            let log = Log::new(config.log.format);
            for note in &effective.notes {
                log.line(
                    log::Level::Info,
                    "configuration",
                    note,
                    serde_json::Value::Null,
                );
            }
            if config.node.manage {
                install(config, None)?;
            }
            let outcome = running::run(settings, config, log);
            if config.node.manage {
                uninstall(config, false)?;
            }
            outcome
        }
        AgentCommand::CheckConfig(_) => Ok(ExitStatus::Done),
        AgentCommand::Handle { arguments } => {
            Ok(ExitStatus::Debugger(cdh_agent::handle(arguments)))
        }
    }
}

/// Those of the commands that a broken configuration must not stop.
pub(super) fn run_without_settings(
    global: &GlobalArgs,
    args: &AgentArgs,
) -> Option<Result<ExitStatus>> {
    match &args.command {
        AgentCommand::CheckConfig(args) => Some(check_config::run(global.clone(), args)),
        _ => None,
    }
}

/// `cdh-handler` beside this program, else this program.
fn default_handler() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = own.with_file_name(cdh_agent::HANDLER_NAME);
    Ok(if beside.is_file() { beside } else { own })
}

fn refused(error: InstallError) -> anyhow::Error {
    let failure = Failure::new(ExitStatus::Failure, "the node's settings are as they were");
    match error {
        InstallError::NotRoot => failure.hint("run it as root: `sudo cdh agent install`"),
        InstallError::Binary(BinaryError::NotExecutable { .. }) => failure.hint(
            "choose a directory that is not mounted noexec with `--libexec <DIR>` (`cdh agent doctor` names one), or take `--mode socket` on Linux 6.16 and later",
        ),
        _ => failure,
    }
    .cause(error)
    .into()
}

fn install(config: &AgentConfig, handler: Option<&Path>) -> Result<ExitStatus> {
    let handler = match handler {
        Some(handler) => handler.to_owned(),
        None => default_handler()?,
    };
    let mut options = InstallOptions::new(config::paths(config), handler);
    options.core_pipe_limit = config.node.core_pipe_limit;
    options.suid_dumpable = config.node.suid_dumpable;
    options.mode = config.node.mode;
    options.chain = config.node.chain;
    config::apply_to_handler(config, &mut options.handler);
    let report = cdh_agent::install(&options).map_err(refused)?;
    let word = if report.reinstalled {
        "updated"
    } else {
        "installed"
    };
    super::print(&format!(
        "{word}: core_pattern is {}\nan uninstall restores: {}\n",
        report.now.core_pattern, report.backup.core_pattern
    ))?;
    if let Some(why) = &report.no_socket {
        eprintln!("note: no coredump socket: {}", terminal_line(why));
    }
    if !report.linkage.is_static() {
        eprintln!("warning: the handler needs shared libraries, which a broken host may lack");
        eprintln!(
            "hint: build the static one with `cargo xtask handler` and pass `--handler <FILE>`"
        );
    }
    Ok(ExitStatus::Done)
}

fn uninstall(config: &AgentConfig, wait: bool) -> Result<ExitStatus> {
    let paths = config::paths(config);
    let report = cdh_agent::uninstall(&paths).map_err(refused)?;
    if report.foreign_pattern {
        super::print(&format!(
            "left alone: core_pattern is somebody else's: {}\n",
            report.now.core_pattern
        ))?;
    } else {
        super::print(&format!(
            "restored: core_pattern is {}\n",
            report.now.core_pattern
        ))?;
    }
    if report.left > 0 {
        super::print(&format!(
            "not shipped, and left in {}: {}\n",
            paths.spool.display(),
            report.left
        ))?;
    }
    if wait {
        cdh_agent::wait_for_stop()?;
    }
    Ok(ExitStatus::Done)
}

fn status(config: &AgentConfig) -> Result<ExitStatus> {
    let status = cdh_agent::status(&config::paths(config))?;
    let owner = match status.pattern {
        PatternOwner::Ours => "installed",
        PatternOwner::OtherInstallation => "another installation of cdh gets the cores",
        PatternOwner::Foreign => "not installed",
    };
    let mut text = format!(
        "{owner}\ncore_pattern     {}\n",
        status.settings.core_pattern
    );
    text.push_str(&format!(
        "core_pipe_limit  {}\n",
        status.settings.core_pipe_limit
    ));
    text.push_str(&format!(
        "suid_dumpable    {}\n",
        status.settings.suid_dumpable
    ));
    text.push_str(&format!("spool            {}\n", status.spool.display()));
    if let Some(count) = &status.count {
        text.push_str(&format!(
            "waiting          {} sealed, {} partial, {} in quarantine\n",
            count.sealed, count.partial, count.quarantined
        ));
    }
    let shipper = if status.shipper_running {
        "running"
    } else {
        "not running"
    };
    text.push_str(&format!("shipper          {shipper}\n"));
    for setting in &status.at_boot {
        let file = setting.file.display();
        let line = format!("{file} sets {} to {}", setting.name, setting.value);
        text.push_str(&format!("at boot          {}\n", terminal_line(&line)));
    }
    for problem in &status.problems {
        text.push_str(&format!("problem          {}\n", terminal_line(problem)));
    }
    super::print(&text)?;
    Ok(if status.pattern == PatternOwner::Ours {
        ExitStatus::Done
    } else {
        ExitStatus::Nothing
    })
}

fn sweep(settings: &Settings, args: &SweepArgs) -> Result<ExitStatus> {
    let flags = Flags::default().paths(&args.paths).shipping(&args.shipping);
    let config = gather(settings, flags.workloads(&args.workloads))?.config;
    let paths = config::paths(&config);
    let mut options = config::shipper_options(&config);
    options.only = chosen(&args.dumps)?;
    let only = options.only.clone();
    let store = pipeline::open_or_create_store(settings)?;
    let log = Log::new(config.log.format);
    let swept = cdh_agent::sweep(&paths, store.as_ref(), options, &mut |event| {
        if !matches!(event, cdh_agent::ShipperEvent::Sealed { .. }) {
            log.event(event);
        }
    });
    let left = match swept {
        Ok(report) => {
            let missing = only
                .iter()
                .flatten()
                .filter(|id| !report.shipped.contains(id))
                .count();
            report.failed.len().max(missing)
        }
        Err(ShipperError::AlreadyRunning { .. }) => ask_the_agent(&paths, only)?,
        Err(error) => return Err(error.into()),
    };
    if left == 0 {
        return Ok(ExitStatus::Done);
    }
    Err(Failure::new(ExitStatus::Failure, format!("{left} dumps stay in the spool"))
        .hint("mend what is named above, or in the log of `cdh agent run`, and run `cdh agent sweep` again: nothing is lost")
        .into())
}

/// How long the agent gets to notice that it was asked: it may be in the middle of a shipment.
const NOTICE: Duration = Duration::from_secs(60);
/// How long nothing may leave the spool before it is no longer waited for.
const STANDSTILL: Duration = Duration::from_secs(30);

/// The agent that runs has the spool and ships what it is asked to; how many dumps stay.
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
        Failure::new(ExitStatus::Failure, "the agent that runs does not answer")
            .cause(error)
            .hint("look at its log, or stop it and run `cdh agent sweep` again")
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
fn chosen(dumps: &[PathBuf]) -> Result<Option<BTreeSet<cdh_bundle::DumpId>>> {
    if dumps.is_empty() {
        return Ok(None);
    }
    let mut chosen = BTreeSet::new();
    for dump in dumps {
        let name = dump
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let id = name.parse().map_err(|_| {
            let shown = terminal_line(&dump.display().to_string());
            Failure::new(ExitStatus::Failure, format!("`{shown}` is no dump in the spool"))
                .hint("give ids, or paths such as /var/lib/cdh/spool/<ID>; `cdh agent status` tells where the spool is")
        })?;
        chosen.insert(id);
    }
    Ok(Some(chosen))
}
