//! The state of the installation on this node, and its problems. Read-only.

use std::path::PathBuf;

use serde::Serialize;

use crate::collect::file_pattern;
use crate::error_chain::explain;
use crate::handler::is_receiving;
use crate::handler::process::cgroups::of_handlers;
use crate::handler::startup::settings::HandlerSettings;
use crate::install::journal::{Journal, JournalError};
use crate::node::binary::{Linkage, linkage};
use crate::node::boot::{BootSetting, boot_settings};
use crate::node::settings::{NodeSettings, SettingsError};
use crate::paths::AgentPaths;
use crate::shipper::{self, ShipperRecord, WaitingDump, waiting};
use crate::spool::{SpoolCount, count, quota_of};

/// The program that gets the cores of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PatternOwner {
    /// The handler of these paths, with the expected arguments; or files that the agent collects.
    Ours,
    /// A handler of ours that is installed elsewhere, or by another version.
    OtherInstallation,
    /// Another program.
    Foreign,
}

/// State of the agent on this node.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// Who gets the cores.
    pub pattern: PatternOwner,
    /// The current kernel settings.
    pub settings: NodeSettings,
    /// The settings that an uninstall will restore.
    pub backup: Option<NodeSettings>,
    /// Path of the handler.
    pub handler: PathBuf,
    /// How the handler is linked; `None` if there is none.
    pub linkage: Option<Linkage>,
    /// Whether a shipper runs; `None` if that is not visible.
    pub shipper_running: Option<bool>,
    /// The shipper's last results.
    pub record: Option<ShipperRecord>,
    /// Path of the spool.
    pub spool: PathBuf,
    /// The contents of the spool; `None` if they are not visible.
    pub count: Option<SpoolCount>,
    /// Maximum bytes of the spool.
    pub quota: Option<u64>,
    /// The dumps in it, oldest first, each with the reason why it is there.
    pub waiting: Vec<WaitingDump>,
    /// The state directory, if this user may not read it; its contents are then unknown.
    pub hidden: Option<PathBuf>,
    /// Files that set the kernel's settings at the next boot.
    pub at_boot: Vec<BootSetting>,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// Why the state cannot be determined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatusError {
    /// The kernel's settings cannot be read.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// Who gets the cores.
///
/// # Errors
/// If the kernel's settings cannot be read.
pub fn pattern_owner(paths: &AgentPaths) -> Result<PatternOwner, StatusError> {
    let settings = NodeSettings::read(&paths.settings)?;
    Ok(owner_of(paths, &settings))
}

fn owner_of(paths: &AgentPaths, settings: &NodeSettings) -> PatternOwner {
    let patterns = [paths.core_pattern(), paths.socket_pattern()];
    match &settings.core_pattern {
        now if patterns.iter().flatten().any(|own| own == now) => PatternOwner::Ours,
        now if paths.is_our_pattern(now) => PatternOwner::OtherInstallation,
        // The files are collected.
        _ if paths.collects_files && file_pattern(paths).is_ok() => PatternOwner::Ours,
        _ => PatternOwner::Foreign,
    }
}

/// The state directory, if it exists and this user may not read it.
fn hidden(paths: &AgentPaths) -> Option<PathBuf> {
    let denied = |path: &std::path::Path| {
        std::fs::read_dir(path)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    };
    (denied(&paths.state) || denied(&paths.spool)).then(|| paths.state.clone())
}

/// Looks at the node.
///
/// # Errors
/// If the kernel's settings cannot be read; other errors are problems in the result.
pub fn status(paths: &AgentPaths) -> Result<Status, StatusError> {
    let settings = NodeSettings::read(&paths.settings)?;
    let mut problems = Vec::new();
    let pattern = owner_of(paths, &settings);
    let is_socket = settings.core_pattern.as_bytes().starts_with(b"@");
    let hidden = hidden(paths);
    let may_look = hidden.is_none();
    let is_served = || is_receiving(&paths.socket());
    if pattern == PatternOwner::Ours && is_socket && may_look && !is_served() {
        let why = "cores are lost until `cdh agent run` or `cdh agent install` starts a receiver";
        problems.push(format!("no process serves the coredump socket: {why}"));
    }
    let backup = match may_look {
        true => Journal::read(&paths.backup()).unwrap_or_else(|error: JournalError| {
            problems.push(explain(&error));
            None
        }),
        false => None,
    };
    let installed = pattern == PatternOwner::Ours;
    let linkage = if paths.handler.exists() {
        linkage(&paths.handler)
            .map_err(|error| problems.push(explain(&error)))
            .ok()
    } else {
        if installed {
            problems.push(format!(
                "the handler {} is missing",
                paths.handler.display()
            ));
        }
        None
    };
    if installed {
        let (handler, problem) = HandlerSettings::read(&paths.handler_settings());
        if let Some(problem) = problem {
            let path = paths.handler_settings();
            problems.push(format!(
                "{}: {problem}; the handler uses its defaults",
                path.display()
            ));
        }
        if std::path::absolute(&paths.spool).is_ok_and(|spool| spool != handler.spool) {
            problems.push(format!(
                "the handler's spool is {}",
                handler.spool.display()
            ));
        }
        if let Some(cgroup) = &handler.limits.cgroup
            && let Err(why) = of_handlers(cgroup)
        {
            problems.push(format!("handlers are not bounded by `{cgroup}`: {why}"));
        }
        if settings.core_pipe_limit == 0 {
            let why = "the kernel does not wait for handlers, so what /proc says may be lost";
            problems.push(format!("core_pipe_limit is 0: {why}"));
        }
        if backup.is_none() && may_look {
            problems.push(
                "there is no backup of the previous kernel settings: an uninstall restores the kernel's defaults"
                    .to_owned(),
            );
        }
    } else if backup.is_some() && pattern == PatternOwner::Foreign {
        let why = "another program has replaced the core pattern since the installation";
        problems.push(why.to_owned());
    }
    let record = ShipperRecord::read(&paths.state);
    let (mut found, mut dumps) = (None, Vec::new());
    if may_look {
        let setuid = paths.workloads.policy.setuid;
        let looked = count(&paths.spool)
            .and_then(|count| Ok((count, waiting(&paths.spool, setuid, record.as_ref())?)));
        match looked {
            Ok((count, waiting)) => (found, dumps) = (Some(count), waiting),
            Err(error) => problems.push(explain(&error)),
        }
    }
    let count = found;
    let (handler, _) = HandlerSettings::read(&paths.handler_settings());
    let quota = quota_of(&paths.spool, &handler.limits).ok().flatten();
    if let Some(count) = count.filter(|count| count.quarantined > 0) {
        problems.push(format!("{} entries are in quarantine", count.quarantined));
    }
    Ok(Status {
        pattern,
        settings,
        backup: backup.map(|journal| journal.backup),
        handler: paths.handler.clone(),
        linkage,
        shipper_running: shipper::running(paths),
        record,
        spool: paths.spool.clone(),
        count,
        quota,
        waiting: dumps,
        hidden,
        at_boot: boot_settings(std::path::Path::new("/")),
        problems,
    })
}
