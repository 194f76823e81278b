//! `cdh agent …`: what the agent's library does, with words around it.

use std::path::PathBuf;

use anyhow::Result;
use cdh_agent::handler::settings::{HandlerSettings, Release, Strategy};
use cdh_agent::node::socket::CoreMode;
use cdh_agent::workload::{Selection, WorkloadOptions};
use cdh_agent::{
    AgentPaths, InstallError, InstallOptions, PatternOwner, SetuidDumps, ShipperEvent,
};
use cdh_store::{Store, StoreError, StoreUrl};

use crate::args::{
    AgentArgs, AgentCommand, CaptureArgs, InstallArgs, KeepModulesArgs, ModeArg, PathArgs, PodsArg,
    ReleaseArg, StrategyArg, SweepArgs, UninstallArgs, WorkloadArgs,
};
use crate::pipeline;
use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: AgentArgs) -> Result<ExitStatus> {
    match args.command {
        AgentCommand::Install(args) => install(&args),
        AgentCommand::Uninstall(args) => uninstall(&args),
        AgentCommand::Status(args) => status(&args),
        AgentCommand::Sweep(args) => sweep(settings, &args),
        AgentCommand::Run(args) => {
            if args.manage_node {
                install(&InstallArgs::with_defaults(
                    args.paths.clone(),
                    args.capture.clone(),
                ))?;
            }
            let paths = shipping_paths(&args.paths, &args.workloads, &args.modules);
            let outcome = ship_until_stopped(settings, &paths);
            if args.manage_node {
                uninstall(&UninstallArgs {
                    paths: args.paths,
                    wait: false,
                })?;
            }
            outcome
        }
        AgentCommand::Handle { arguments } => {
            Ok(ExitStatus::Debugger(cdh_agent::handle(arguments)))
        }
    }
}

fn paths(args: &PathArgs) -> AgentPaths {
    AgentPaths {
        handler: args.libexec.join(cdh_agent::HANDLER_NAME),
        state: args.state.clone(),
        spool: args.state.join("spool"),
        ..AgentPaths::default()
    }
}

/// The agent's paths, with what it is told about pods and what else it ships.
fn shipping_paths(
    args: &PathArgs,
    workloads: &WorkloadArgs,
    modules: &KeepModulesArgs,
) -> AgentPaths {
    let selection = match workloads.pods {
        PodsArg::OptOut => Selection::OptOut,
        PodsArg::OptIn => Selection::OptIn {
            label: workloads.opt_in_label.clone(),
        },
    };
    AgentPaths {
        workloads: WorkloadOptions {
            sockets: workloads.sockets.clone(),
            node: workloads.node.clone(),
            log_lines: workloads.log_lines,
            selection,
            ..WorkloadOptions::default()
        },
        keep_modules: modules.keep_modules,
        ..paths(args)
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
        _ => failure,
    }
    .cause(error)
    .into()
}

fn install(args: &InstallArgs) -> Result<ExitStatus> {
    let handler = match &args.handler {
        Some(handler) => handler.clone(),
        None => default_handler()?,
    };
    let mut options = InstallOptions::new(paths(&args.paths), handler);
    options.core_pipe_limit = args.core_pipe_limit;
    options.suid_dumpable = args.suid_dumpable;
    options.mode = match args.mode {
        ModeArg::Pipe => CoreMode::Pipe,
        ModeArg::Socket => CoreMode::Socket,
        ModeArg::Auto => CoreMode::Auto,
    };
    set_capture(&mut options.handler, &args.capture);
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

fn set_capture(handler: &mut HandlerSettings, args: &CaptureArgs) {
    handler.release = match args.release {
        ReleaseArg::Hold => Release::Hold,
        ReleaseArg::Early => Release::Early,
        ReleaseArg::Auto => Release::Auto,
    };
    handler.strategy = match args.strategy {
        StrategyArg::Auto => Strategy::Auto,
        StrategyArg::Zstd => Strategy::Zstd,
        StrategyArg::Raw => Strategy::Raw,
    };
    handler.core_limit = args.core_limit.unwrap_or(handler.core_limit);
    handler.copy_seconds = args.copy_limit.unwrap_or(handler.copy_seconds);
    handler.floor = args.floor.unwrap_or(handler.floor);
    handler.slots = args.slots.unwrap_or(handler.slots);
}

fn uninstall(args: &UninstallArgs) -> Result<ExitStatus> {
    let paths = paths(&args.paths);
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
    if args.wait {
        cdh_agent::wait_for_stop()?;
    }
    Ok(ExitStatus::Done)
}

fn status(args: &PathArgs) -> Result<ExitStatus> {
    let status = cdh_agent::status(&paths(args))?;
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

/// Settings for the shipper: the node's own store where none was named.
fn open_store(url: &StoreUrl) -> Result<Box<dyn Store>, StoreError> {
    match url {
        StoreUrl::Directory(path) => Ok(Box::new(cdh_store::DirectoryStore::create(path.clone())?)),
        other => cdh_store::open_store(other),
    }
}

fn sweep(settings: &Settings, args: &SweepArgs) -> Result<ExitStatus> {
    let store = pipeline::open_or_create_store(settings)?;
    let report = cdh_agent::sweep(
        &shipping_paths(&args.paths, &args.workloads, &args.modules),
        store.as_ref(),
        SetuidDumps::default(),
        &mut tell,
    )?;
    if report.failed.is_empty() {
        return Ok(ExitStatus::Done);
    }
    Err(Failure::new(
        ExitStatus::Failure,
        format!("{} dumps stay in the spool", report.failed.len()),
    )
    .hint("mend what is named above and run `cdh agent sweep` again: nothing is lost")
    .into())
}

fn ship_until_stopped(settings: &Settings, paths: &AgentPaths) -> Result<ExitStatus> {
    let open = || open_store(&settings.store);
    cdh_agent::run(paths, &open, SetuidDumps::default(), &mut tell)?;
    Ok(ExitStatus::Done)
}

/// One line on standard error per event, for a log.
fn tell(event: &ShipperEvent) {
    let line = match event {
        ShipperEvent::Shipped {
            id,
            name,
            signal,
            verdict,
            key,
        } => {
            format!("shipped {id} {name} {signal} {} {key}", verdict.word())
        }
        ShipperEvent::Salvaged { id, verdict } => format!("salvaged {id}: {}", verdict.describe()),
        ShipperEvent::Kept { id } => {
            format!("kept {id} on this node: it is of a setuid program, for root only")
        }
        ShipperEvent::Unwanted { id, why } => format!("not kept {id}: {why}"),
        ShipperEvent::NotEnriched { id, why } => format!("{id} says nothing of its pod: {why}"),
        ShipperEvent::ModulesNotKept { id, why } => format!("modules of {id} not kept: {why}"),
        ShipperEvent::Quarantined { id, why } => format!("quarantined {id}: {why}"),
        ShipperEvent::Failed { id, why } => format!("failed {id}: {why}"),
        ShipperEvent::StoreFailed { why, retry_in } => {
            format!(
                "the store fails: {why}; next try in {} s",
                retry_in.as_secs()
            )
        }
        ShipperEvent::StoreBack => "the store answers again".to_owned(),
        ShipperEvent::UploadsAborted { count } => {
            format!("gave up {count} uploads that nobody finished")
        }
        ShipperEvent::UploadsKept { why } => format!("unfinished uploads stay: {why}"),
        other => format!("{other:?}"),
    };
    eprintln!("{}", terminal_line(&line));
}

impl InstallArgs {
    fn with_defaults(paths: PathArgs, capture: CaptureArgs) -> Self {
        Self {
            paths,
            handler: None,
            core_pipe_limit: 1024,
            suid_dumpable: 2,
            mode: ModeArg::default(),
            capture,
        }
    }
}
