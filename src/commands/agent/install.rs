//! `cdh agent install` and `uninstall`: print what they did and the next steps.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use cdh_agent::config::{AgentConfig, Effective};
use cdh_agent::diagnose::doctor::missing_at_boot;
use cdh_agent::node::at_boot::at_boot;
use cdh_agent::node::binary::BinaryError;
use cdh_agent::supervise::socket::CoreMode;
use cdh_agent::{AgentPaths, InstallError, InstallOptions, InstallReport, UninstallReport};
use serde_json::json;

use super::config;
use super::given::Given;
use super::handler_file;
use super::log::{Level, Log};
use crate::args::UninstallArgs;
use crate::render::{shell_word, terminal_line};
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;

fn refused(error: InstallError) -> anyhow::Error {
    let failure = Failure::new(ExitStatus::Failure, "the kernel settings are unchanged");
    match &error {
        InstallError::NotRoot => failure.hint(format!(
            "run it as root: `sudo {} agent …`",
            super::program_name()
        )),
        InstallError::Binary(BinaryError::NotExecutable { .. }) => failure.hint(
            "choose a directory that is not mounted noexec with `--libexec <DIR>` (`cdh agent doctor` names one), or use `--mode socket` on Linux 6.16 and later",
        ),
        InstallError::Untrusted(error) | InstallError::Journal(cdh_agent::install::journal::JournalError::Untrusted(error)) => {
            error.hint().into_iter().fold(failure, Failure::hint)
        }
        InstallError::Socket { .. } => {
            failure.hint("use `--mode auto`, which falls back to the pipe, or `--mode pipe`")
        }
        InstallError::Binary(BinaryError::NotAProgram { .. } | BinaryError::Read { .. }) => {
            failure.hint("build the handler with `cargo xtask handler`, which prints its path for `--handler <FILE>`")
        }
        InstallError::Trace { .. } => Failure::new(
            ExitStatus::Failure,
            "the kernel settings are restored, but the trace of SIGKILLs is not removed",
        )
        .hint("run it again, as root and with the right to mount (in a container: privileged)"),
        _ => failure,
    }
    .cause(error)
    .into()
}

fn install(config: &AgentConfig, handler: Option<&Path>) -> Result<InstallReport> {
    let handler = match handler {
        Some(handler) => handler.to_owned(),
        None => handler_file::find(&std::env::current_exe()?)?,
    };
    let mut options = InstallOptions::new(config::paths(config), handler);
    options.core_pipe_limit = config.node.core_pipe_limit;
    options.suid_dumpable = config.node.suid_dumpable;
    options.mode = config.node.mode;
    options.chain = config.node.chain;
    config::apply_to_handler(config, &mut options.handler);
    cdh_agent::install(&options).map_err(refused)
}

fn summary(report: &InstallReport) -> [String; 2] {
    let word = match report.reinstalled {
        true => "updated",
        false => "installed",
    };
    [
        format!("{word}: core_pattern is {}", report.now.core_pattern),
        format!("an uninstall restores: {}", report.backup.core_pattern),
    ]
}

fn warnings(report: &InstallReport) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(why) = &report.no_socket {
        found.push(format!(
            "the coredump socket does not work here, so the kernel starts the handler (mode pipe): {why}"
        ));
    }
    if !report.linkage.is_static() {
        found.push(
            "the handler needs shared libraries, which a broken host may lack: build a static one with \
             `cargo xtask handler` and pass its path as `--handler <FILE>`"
                .to_owned(),
        );
    }
    found
}

/// `cdh agent install`.
pub(super) fn run(
    settings: &Settings,
    effective: &Effective,
    handler: Option<&Path>,
) -> Result<ExitStatus> {
    let mut config = effective.config.clone();
    // A receiver that is started in this container ends with the container.
    if super::is_in_pod() && config.node.mode != CoreMode::Pipe {
        eprintln!(
            "warning: this pod ends, and a receiver with it: the kernel starts the handler (mode pipe)"
        );
        config.node.mode = CoreMode::Pipe;
    }
    let config = &config;
    let report = install(config, handler)?;
    let [now, later] = summary(&report);
    super::super::print(&format!("{now}\n{later}\n"))?;
    for warning in warnings(&report) {
        eprintln!("warning: {}", terminal_line(&warning));
    }
    if super::is_in_pod() {
        return Ok(ExitStatus::Done);
    }
    let program = super::program_name();
    let paths = config::paths(config);
    let node = cdh_agent::status(&paths).ok();
    let managed = node.as_ref().is_some_and(|node| {
        let record = node.record.as_ref();
        node.shipper_running == Some(true) && record.is_some_and(|record| record.manages_node)
    });
    let found = at_boot(Path::new("/"), config.node.manage);
    let given = Given::of(settings, effective, handler);
    let missing = missing_at_boot(&found, &given.program(&program), &given.flags());
    if let Some((what, way)) = missing.filter(|_| !managed) {
        eprintln!("warning: {}", terminal_line(&what));
        eprintln!("hint: {}", terminal_line(&way));
    } else if node.is_some_and(|node| node.shipper_running == Some(false)) {
        eprintln!("next: start `{program} agent run`, which ships dumps to the store");
    }
    Ok(ExitStatus::Done)
}

/// The installation by `cdh agent run --manage-node`, as its log reports it.
pub(super) fn log_install(config: &AgentConfig, handler: Option<&Path>, log: Log) -> Result<()> {
    let report = install(config, handler)?;
    let fields = json!({
        "core_pattern": report.now.core_pattern.to_string(),
        "restores": report.backup.core_pattern.to_string(), "again": report.reinstalled,
    });
    let text = summary(&report).join("; ");
    log.line(Level::Info, "installed", &text, fields);
    for warning in warnings(&report) {
        log.line(
            Level::Warning,
            "installed",
            &warning,
            serde_json::Value::Null,
        );
    }
    Ok(())
}

/// Starts the line with the number of remaining dumps.
pub(super) const NOT_SHIPPED: &str = "not shipped: ";

/// What happened to `core_pattern`, and what to do with remaining dumps, one line each.
fn outcome(
    settings: &Settings,
    config: &AgentConfig,
    paths: &AgentPaths,
    report: &UninstallReport,
) -> Vec<String> {
    let pattern = &report.now.core_pattern;
    let shown = pattern.to_string();
    let mut lines = vec![match report.foreign_pattern {
        true if shown.starts_with(['|', '@']) => {
            format!("core_pattern belongs to another program and is unchanged: {shown}")
        }
        true => format!("not installed: core_pattern is unchanged: {shown}"),
        false => format!("restored: core_pattern is {shown}"),
    }];
    if report.left == 0 {
        return lines;
    }
    let others = [
        (report.kept, "kept here because of setuid"),
        (report.quarantined, "in quarantine"),
    ];
    let others: Vec<String> = others
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let others = match others.is_empty() {
        true => String::new(),
        false => format!(" ({})", others.join(", ")),
    };
    let spool = paths.spool.display();
    lines.push(format!(
        "{NOT_SHIPPED}{}{others} in {spool}",
        super::dumps(report.left)
    ));
    let program = super::program_name();
    let state = match config.node.state == Path::new("/var/lib/cdh") {
        true => String::new(),
        false => format!(
            " --state {}",
            shell_word(config.node.state.display().to_string())
        ),
    };
    let store = match settings.store_is_default {
        true => " --store s3://BUCKET/PREFIX".to_owned(),
        false => format!(" --store {}", shell_word(settings.store.to_string())),
    };
    if report.left > report.kept + report.quarantined {
        lines.push(format!("ship them: {program} agent sweep{state}{store}"));
    }
    if report.kept > 0 {
        lines.push(format!(
            "ship those of setuid programs too: CDH_POLICY_SETUID=ship {program} agent sweep{state}{store}"
        ));
    }
    if report.quarantined > 0 {
        lines.push(format!(
            "see why some are in quarantine: {spool}/quarantine/*/reason.txt"
        ));
    }
    lines.push(format!(
        "delete them: rm -r {}",
        shell_word(spool.to_string())
    ));
    lines
}

/// `cdh agent uninstall`.
pub(super) fn undo(
    settings: &Settings,
    config: &AgentConfig,
    args: &UninstallArgs,
) -> Result<ExitStatus> {
    let paths = config::paths(config);
    let patience = args.wait_for_agent.map(Duration::from_secs);
    let report = match patience {
        Some(patience) => cdh_agent::uninstall_and_wait(&paths, patience),
        None => cdh_agent::uninstall(&paths),
    }
    .map_err(refused)?;
    let lines = outcome(settings, config, &paths, &report);
    for line in &lines {
        super::super::print(&format!("{}\n", terminal_line(line)))?;
    }
    if super::is_in_pod() {
        super::cleanup::leave_message(lines.get(..2).unwrap_or(&lines));
    }
    if report.in_use {
        let what = format!(
            "the agent or a handler still works: files in {} remain",
            paths.state.display()
        );
        if patience.is_some() {
            return Err(Failure::new(ExitStatus::Failure, what)
                .hint("stop the agent and run this again")
                .into());
        }
        eprintln!("warning: {}", terminal_line(&what));
        eprintln!("hint: stop the agent and run this again");
    }
    if args.wait {
        cdh_agent::wait_for_stop()?;
    }
    Ok(ExitStatus::Done)
}
