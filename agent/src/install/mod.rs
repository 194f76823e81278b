//! `install` and `uninstall`: install the handler, change the kernel's settings, and restore them.
//!
//! Invariant: after an interruption at any point, running `uninstall` restores the newest foreign
//! value of each setting (see [`journal`]). The order of an installation: directories, handler
//! (tested on this node), handler settings, journal, kernel settings. The spool is neither shipped
//! nor deleted.

#[cfg(feature = "daemon")]
pub mod cleanup;
pub mod journal;
mod tidy;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::atomic_file::write_atomically;
use crate::node::binary::{self, BinaryError, Linkage, StartedBy};
use crate::node::settings::{NodeSettings, SettingsError};
use crate::node::trust::{TrustError, check_directory};
use crate::paths::SettingsFiles;
use crate::supervise::socket::{self, CoreMode};
use crate::supervise::{ensure_kill_trace, remove_kill_trace};
use cdh_bundle::RawText;
use journal::{Journal, JournalError};

use crate::error_chain::explain;
use crate::handler::startup::settings::HandlerSettings;
use crate::handler::stop_receiving;
use crate::paths::{AgentPaths, PatternError};
use crate::shipper::{self, ShipperRecord, WaitReason, waiting};
use crate::spool::count;

/// Maximum crashes that the kernel pipes at once. Above it, cores are lost, so it is high: at 128,
/// a storm of 200 crashes lost 72.
pub const DEFAULT_CORE_PIPE_LIMIT: u32 = 1024;

/// Setuid programs are dumped too, readable by root only.
pub const DEFAULT_SUID_DUMPABLE: u32 = 2;

/// Why an installation was refused or undone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// Changing kernel settings requires root.
    #[error("only root can change the kernel's core settings")]
    NotRoot,
    /// The handler's path cannot be part of a pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The handler could not be installed.
    #[error(transparent)]
    Binary(#[from] BinaryError),
    /// A directory or file of the agent cannot be created.
    #[error("cannot create {path}")]
    Create {
        /// Which.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Another user could change a file that root would execute or obey.
    #[error(transparent)]
    Untrusted(#[from] TrustError),
    /// The backup cannot be stored, so nothing was changed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The kernel's coredump socket does not work here; the settings are unchanged.
    #[error("the coredump socket cannot be used: {why}")]
    Socket {
        /// What went wrong.
        why: String,
    },
    /// The trace of SIGKILLs cannot be removed.
    #[error("cannot remove the trace of {path}")]
    Trace {
        /// State directory of the installation.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A setting was refused; the others are unchanged.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// The options of an installation.
#[derive(Clone, Debug)]
pub struct InstallOptions {
    /// Where things go.
    pub paths: AgentPaths,
    /// The handler's binary to copy.
    pub handler_source: PathBuf,
    /// `kernel.core_pipe_limit`.
    pub core_pipe_limit: u32,
    /// `fs.suid_dumpable`.
    pub suid_dumpable: u32,
    /// How the kernel passes cores to cdh.
    pub mode: CoreMode,
    /// Whether cores are also passed to the previous owner of the core pattern.
    pub chain: bool,
    /// The handler's settings; its spool comes from `paths`.
    pub handler: HandlerSettings,
}

impl InstallOptions {
    /// The defaults for a handler binary.
    #[must_use]
    pub fn new(paths: AgentPaths, handler_source: PathBuf) -> Self {
        let handler = HandlerSettings {
            spool: paths.spool.clone(),
            state: paths.state.clone(),
            fallback: paths.fallback.clone(),
            engines: paths.workloads.engines.clone(),
            ..HandlerSettings::default()
        };
        Self {
            paths,
            handler_source,
            core_pipe_limit: DEFAULT_CORE_PIPE_LIMIT,
            suid_dumpable: DEFAULT_SUID_DUMPABLE,
            mode: CoreMode::default(),
            chain: false,
            handler,
        }
    }
}

/// What an installation did.
#[derive(Clone, Debug)]
pub struct InstallReport {
    /// The settings before the installation.
    pub before: NodeSettings,
    /// Settings that hold now.
    pub now: NodeSettings,
    /// The settings that an uninstall will restore.
    pub backup: NodeSettings,
    /// Whether an installation of ours existed already.
    pub reinstalled: bool,
    /// How the handler is linked: a dynamic one depends on the host's libraries.
    pub linkage: Linkage,
    /// Why the kernel starts handlers although socket mode was requested if possible.
    pub no_socket: Option<String>,
}

/// What an uninstall did.
#[derive(Clone, Debug)]
pub struct UninstallReport {
    /// The settings before the uninstallation.
    pub before: NodeSettings,
    /// Settings that hold now.
    pub now: NodeSettings,
    /// Whether the pattern was foreign and was therefore not changed.
    pub foreign_pattern: bool,
    /// Whether there was a backup. Without one, our own pattern is replaced by the kernel's
    /// default.
    pub had_backup: bool,
    /// Files that were removed.
    pub removed: Vec<PathBuf>,
    /// Dumps in the spool that were not shipped.
    pub left: u64,
    /// Of these, those of setuid programs that the policy keeps on the node.
    pub kept: u64,
    /// Of these, those in quarantine.
    pub quarantined: u64,
    /// Whether an agent or a handler still runs here, so that its files remain.
    pub in_use: bool,
}

/// Installs the handler and makes the kernel start it.
///
/// # Errors
/// If any step is refused; the kernel's settings are then unchanged.
pub fn install(options: &InstallOptions) -> Result<InstallReport, InstallError> {
    let paths = &options.paths;
    let pattern = paths.core_pattern()?;
    require_root(&paths.settings)?;
    create_private(&paths.state)?;
    let _lock = lock(&paths.install_lock())?;
    for directory in [
        &paths.spool,
        &paths.uploads(),
        &paths.state.join("ledger"),
        &paths.state.join("drops"),
    ] {
        create_private(directory)?;
    }
    if let Some(libexec) = paths.handler.parent() {
        let mut directories = DirBuilder::new();
        let created = directories.recursive(true).mode(0o755).create(libexec);
        created.map_err(|source| InstallError::Create {
            path: libexec.to_owned(),
            source,
        })?;
        check_directory(libexec)?;
    }
    // Failing to tidy up must not prevent the installation.
    let _ = binary::remove_leftovers(&paths.handler);
    let by = match options.mode {
        CoreMode::Pipe => StartedBy::Kernel,
        CoreMode::Socket | CoreMode::Auto => StartedBy::Agent,
    };
    let linkage = binary::place(&options.handler_source, &paths.handler, by)?;
    // The kernel starts it in `/`.
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|source| InstallError::Create {
            path: path.to_owned(),
            source,
        })
    };
    let spool = absolute(&paths.spool)?;
    // Without the trace, dumps lack the killer's name. With another root than the node's own, there
    // is none.
    let kill_trace = match paths.settings == SettingsFiles::kernel() {
        true => ensure_kill_trace(&paths.state).ok(),
        false => None,
    };
    let before = NodeSettings::read(&paths.settings)?;
    let handler = HandlerSettings {
        spool,
        chain: match options.chain {
            true => previous_pattern(paths, &before)?,
            false => None,
        },
        state: absolute(&paths.state)?,
        fallback: absolute(&paths.fallback)?,
        engines: absolute(&paths.workloads.engines)?,
        node: paths.workloads.node.clone(),
        kill_trace,
        ..options.handler.clone()
    };
    handler
        .write(&paths.handler_settings())
        .map_err(|source| InstallError::Create {
            path: paths.handler_settings(),
            source,
        })?;

    let reinstalled = paths.is_our_pattern(&before.core_pattern);
    let mut no_socket = None;
    if options.mode != CoreMode::Pipe {
        match install_socket(options, &before) {
            Ok((now, backup)) => {
                return Ok(InstallReport {
                    before,
                    now,
                    backup,
                    reinstalled,
                    linkage,
                    no_socket,
                });
            }
            Err(why) if options.mode == CoreMode::Socket => {
                before.apply(&paths.settings)?;
                return Err(InstallError::Socket { why });
            }
            Err(why) => {
                // The socket does not work, so the kernel must start the handler.
                binary::self_test(&paths.handler, StartedBy::Kernel)?;
                no_socket = Some(why);
            }
        }
    }
    let (now, backup) = switch(options, pattern, &before)?;
    stop_receiving(&paths.socket()).map_err(|source| InstallError::Create {
        path: paths.socket(),
        source,
    })?;
    Ok(InstallReport {
        before,
        now,
        backup,
        reinstalled,
        linkage,
        no_socket,
    })
}

/// The newest foreign pattern, which an uninstall would restore.
fn previous_pattern(
    paths: &AgentPaths,
    before: &NodeSettings,
) -> Result<Option<RawText>, InstallError> {
    if !paths.is_our_pattern(&before.core_pattern) {
        return Ok(Some(before.core_pattern.clone()));
    }
    let journal = Journal::read(&paths.backup())?;
    Ok(journal.map(|journal| journal.backup.core_pattern))
}

/// The journal, then the kernel's settings: those in effect, and those that an uninstall will
/// restore.
fn switch(
    options: &InstallOptions,
    pattern: RawText,
    before: &NodeSettings,
) -> Result<(NodeSettings, NodeSettings), InstallError> {
    let paths = &options.paths;
    let wanted = NodeSettings {
        core_pattern: pattern,
        core_pipe_limit: options.core_pipe_limit,
        suid_dumpable: options.suid_dumpable,
    };
    let old = Journal::read(&paths.backup())?;
    let boot = boot_id();
    let journal = Journal::before_install(old.as_ref(), before, &wanted, &boot, |pattern| {
        paths.is_our_pattern(pattern)
    });
    journal.write(&paths.backup())?;
    wanted.apply(&paths.settings)?;
    let journal = journal.settled();
    journal.write(&paths.backup())?;
    Ok((wanted, journal.backup))
}

/// Starts a receiver, makes the kernel connect to it, and tests it with a deliberate crash.
fn install_socket(
    options: &InstallOptions,
    before: &NodeSettings,
) -> Result<(NodeSettings, NodeSettings), String> {
    let paths = &options.paths;
    if !socket::kernel_has_sockets() {
        return Err("this kernel has no coredump sockets (Linux 6.16 has)".to_owned());
    }
    let pattern = paths.socket_pattern().map_err(|error| explain(&error))?;
    socket::restart(paths).map_err(|error| format!("the receiver does not start: {error}"))?;
    let switched = switch(options, pattern, before).map_err(|error| explain(&error))?;
    match socket::self_test(paths) {
        Ok(()) => Ok(switched),
        Err(why) => {
            // The kernel must stop using a socket that does not work, before anything slow happens.
            let _ = before.apply(&paths.settings);
            let _ = stop_receiving(&paths.socket());
            Err(why)
        }
    }
}

/// Restores the kernel's settings and removes the handler. The spool remains.
///
/// If another installation of ours has taken over meanwhile, the settings belong to it. They
/// remain, and so does the backup, which may be the only record of the original values.
///
/// # Errors
/// If a setting cannot be restored; the backup then still exists.
pub fn uninstall(paths: &AgentPaths) -> Result<UninstallReport, InstallError> {
    require_root(&paths.settings)?;
    let _lock = match paths.state.is_dir() {
        true => Some(lock(&paths.install_lock())?),
        false => None,
    };
    let before = NodeSettings::read(&paths.settings)?;
    let journal = Journal::read(&paths.backup())?;
    let had_backup = journal.is_some();
    // An earlier installation from the same state may have used another directory for the handler.
    let is_ours = |pattern: &_| {
        let known = journal.iter().flat_map(|journal| &journal.ours);
        paths.is_this_installation(pattern)
            || known
                .into_iter()
                .any(|settings| settings.core_pattern == *pattern)
    };
    let is_mine = is_ours(&before.core_pattern);
    let taken_over = !is_mine && paths.is_our_pattern(&before.core_pattern);
    let now = match &journal {
        _ if taken_over => before.clone(),
        Some(journal) => journal.after_uninstall(&before, &boot_id(), is_ours),
        None if is_mine => NodeSettings::kernel_defaults(),
        None => before.clone(),
    };
    now.apply(&paths.settings)?;
    if !taken_over {
        stop_receiving(&paths.socket()).map_err(|source| InstallError::Create {
            path: paths.socket(),
            source,
        })?;
    }
    let mut removed = Vec::new();
    for path in [paths.handler_settings(), paths.handler.clone()] {
        match fs::remove_file(&path) {
            Ok(()) => removed.push(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(BinaryError::Write { path, source }.into()),
        }
    }
    let leftovers = binary::remove_leftovers(&paths.handler);
    leftovers.map_err(|source| BinaryError::Write {
        path: paths.handler.clone(),
        source,
    })?;
    remove_kill_trace(&paths.state).map_err(|source| InstallError::Trace {
        path: paths.state.clone(),
        source,
    })?;
    if !taken_over {
        Journal::remove(&paths.backup())?;
    }
    let of_kind = kinds_of_dumps(paths);
    let left = match taken_over {
        true => tidy::dumps_in(&paths.spool),
        false => tidy::tidy(paths),
    };
    Ok(UninstallReport {
        before,
        now,
        foreign_pattern: !is_mine,
        had_backup,
        removed,
        left,
        kept: of_kind.0,
        quarantined: of_kind.1,
        in_use: is_in_use(paths),
    })
}

/// Like [`uninstall`]; then waits for the agent and running handlers, and removes their files. An
/// agent that was starting may have installed meanwhile, so this is undone again.
///
/// # Errors
/// As [`uninstall`].
pub fn uninstall_and_wait(
    paths: &AgentPaths,
    patience: Duration,
) -> Result<UninstallReport, InstallError> {
    /// Between two looks.
    const PAUSE: Duration = Duration::from_millis(100);
    let first = uninstall(paths)?;
    if !first.in_use {
        return Ok(first);
    }
    let deadline = Instant::now() + patience;
    while is_in_use(paths) && Instant::now() < deadline {
        std::thread::sleep(PAUSE);
    }
    let last = uninstall(paths)?;
    Ok(UninstallReport {
        before: first.before,
        foreign_pattern: first.foreign_pattern && last.foreign_pattern,
        had_backup: first.had_backup || last.had_backup,
        removed: first.removed.into_iter().chain(last.removed).collect(),
        ..last
    })
}

/// Whether an agent or a handler runs on this node.
fn is_in_use(paths: &AgentPaths) -> bool {
    let found = count(&paths.spool).unwrap_or_default();
    shipper::is_running(paths) || found.partial > found.abandoned
}

/// How many dumps in the spool the policy keeps on the node, and how many are in quarantine.
fn kinds_of_dumps(paths: &AgentPaths) -> (u64, u64) {
    let record = ShipperRecord::read(&paths.state);
    let setuid = paths.workloads.policy.setuid;
    let dumps = waiting(&paths.spool, setuid, record.as_ref()).unwrap_or_default();
    let count = |is: fn(&WaitReason) -> bool| {
        let found = dumps.iter().filter(|dump| is(&dump.why)).count();
        u64::try_from(found).unwrap_or(u64::MAX)
    };
    (
        count(|why| *why == WaitReason::Setuid),
        count(|why| matches!(why, WaitReason::Quarantined { .. })),
    )
}

fn require_root(files: &SettingsFiles) -> Result<(), InstallError> {
    match *files == SettingsFiles::kernel() && !rustix::process::geteuid().is_root() {
        true => Err(InstallError::NotRoot),
        false => Ok(()),
    }
}

/// Identity of the running kernel's boot; empty if `/proc` does not show it.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Creates a directory that only its owner may enter. An existing one is not changed, but refused if
/// another user could write to it.
fn create_private(path: &Path) -> Result<(), InstallError> {
    let create = |source| InstallError::Create {
        path: path.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(create)?;
    Ok(check_directory(path)?)
}

/// Waits for the lock; dropping the file releases it.
fn lock(path: &Path) -> Result<File, InstallError> {
    let open = || -> io::Result<File> {
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
        Ok(file)
    };
    open().map_err(|source| InstallError::Create {
        path: path.to_owned(),
        source,
    })
}

impl HandlerSettings {
    /// Writes the handler's settings file atomically.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        write_atomically(path, &serde_json::to_vec_pretty(self)?, 0o644)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;
    use crate::diagnose::status::{PatternOwner, status};

    fn node(pattern: &str) -> (tempfile::TempDir, InstallOptions) {
        let root = tempfile::tempdir().unwrap();
        let mut paths = AgentPaths::below(root.path());
        paths.settings = SettingsFiles::in_directory(root.path());
        fs::write(&paths.settings.core_pattern, format!("{pattern}\n")).unwrap();
        fs::write(&paths.settings.core_pipe_limit, "0\n").unwrap();
        fs::write(&paths.settings.suid_dumpable, "0\n").unwrap();
        // Any program that exits with status 0 passes the self-test.
        (root, InstallOptions::new(paths, "/bin/true".into()))
    }

    #[test]
    fn install_and_uninstall_leave_the_node_as_it_was() {
        let (_root, options) = node("|/usr/share/apport %p \\ \"x\"");
        let paths = &options.paths;
        let before = NodeSettings::read(&paths.settings).unwrap();
        let report = install(&options).unwrap();
        assert_eq!(NodeSettings::read(&paths.settings).unwrap(), report.now);
        assert_eq!(
            (report.now.core_pipe_limit, report.now.suid_dumpable),
            (1024, 2)
        );
        let report = install(&options).unwrap();
        assert!(report.reinstalled && report.backup == before);
        assert_eq!(status(paths).unwrap().pattern, PatternOwner::Ours);
        let report = uninstall(paths).unwrap();
        assert!(!report.foreign_pattern && report.had_backup);
        assert_eq!(NodeSettings::read(&paths.settings).unwrap(), before);
        assert!(!paths.handler.exists() && !paths.state.exists() && report.left == 0);
        let report = uninstall(paths).unwrap();
        assert!(report.foreign_pattern && !report.had_backup && report.now == before);
    }

    #[test]
    fn another_installation_keeps_the_cores_when_this_one_goes() {
        let (root, mine) = node("|/apport");
        install(&mine).unwrap();
        let mut other = mine.clone();
        other.paths = AgentPaths::below(&root.path().join("other"));
        other.paths.settings = mine.paths.settings.clone();
        let installed = install(&other).unwrap();
        let report = uninstall(&mine.paths).unwrap();
        assert!(report.foreign_pattern && report.now == installed.now);
        assert!(mine.paths.backup().exists() && !mine.paths.handler.exists());
        assert!(!uninstall(&other.paths).unwrap().foreign_pattern);
    }

    #[test]
    fn install_recognizes_the_pattern_of_a_moved_handler_as_ours() {
        let (root, first) = node("|/apport");
        install(&first).unwrap();
        let mut moved = first.clone();
        moved.paths.handler = root.path().join("elsewhere/cdh-handler");
        install(&moved).unwrap();
        assert!(!uninstall(&first.paths).unwrap().foreign_pattern);
        let now = NodeSettings::read(&first.paths.settings).unwrap();
        assert_eq!(now.core_pattern, "|/apport".into());
    }

    #[test]
    fn install_of_a_handler_that_cannot_run_changes_nothing() {
        let (_root, mut options) = node("core");
        options.handler_source = "/bin/false".into();
        let error = install(&options).unwrap_err();
        assert!(
            matches!(error, InstallError::Binary(BinaryError::SelfTest { .. })),
            "{error}"
        );
        options.handler_source = "/etc/passwd".into();
        let error = install(&options).unwrap_err();
        assert!(
            matches!(error, InstallError::Binary(BinaryError::NotAProgram { .. })),
            "{error}"
        );
        let now = NodeSettings::read(&options.paths.settings).unwrap();
        assert_eq!(now, NodeSettings::kernel_defaults());
        assert!(!options.paths.handler.exists() && !options.paths.backup().exists());
    }

    #[test]
    fn install_refuses_a_state_directory_writable_by_others() {
        let (_root, options) = node("core");
        fs::create_dir_all(&options.paths.state).unwrap();
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(&options.paths.state, open).unwrap();
        assert!(matches!(
            install(&options),
            Err(InstallError::Untrusted(TrustError::Writable { .. }))
        ));
    }

    #[test]
    fn install_refuses_state_and_libexec_of_another_user_and_uninstall_that_users_backup() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (root, options) = node("core");
        let paths = &options.paths;
        for directory in [&paths.state, &paths.handler.parent().unwrap().to_owned()] {
            fs::create_dir_all(directory).unwrap();
            chown(directory, Some(65534), None).unwrap();
            let error = install(&options).unwrap_err();
            assert!(matches!(error, InstallError::Untrusted(_)), "{error}");
            let now = NodeSettings::read(&paths.settings).unwrap();
            assert_eq!(now, NodeSettings::kernel_defaults());
            chown(directory, Some(0), None).unwrap();
        }
        // The parent directory belongs to another user, who can replace its contents at any time.
        chown(root.path(), Some(65534), None).unwrap();
        assert!(matches!(install(&options), Err(InstallError::Untrusted(_))));
        chown(root.path(), Some(0), None).unwrap();
        install(&options).unwrap();
        let text = fs::read_to_string(paths.backup()).unwrap();
        let forged = text.replacen("\"core\"", "\"|/tmp/evil %P\"", 1);
        assert_ne!(forged, text);
        fs::write(paths.backup(), forged).unwrap();
        chown(paths.backup(), Some(65534), None).unwrap();
        let error = uninstall(paths).unwrap_err();
        assert!(matches!(error, InstallError::Journal(_)), "{error}");
        chown(paths.backup(), Some(0), None).unwrap();
        uninstall(paths).unwrap();
    }

    #[test]
    fn status_says_what_is_wrong() {
        let (_root, options) = node("core");
        let paths = &options.paths;
        assert_eq!(status(paths).unwrap().pattern, PatternOwner::Foreign);
        install(&options).unwrap();
        fs::remove_file(&paths.handler).unwrap();
        fs::remove_file(paths.backup()).unwrap();
        let found = status(paths).unwrap();
        let problems = found.problems.join("\n");
        assert!(
            problems.contains("is missing") && problems.contains("no backup"),
            "{problems}"
        );
        assert_eq!(found.shipper_running, Some(false));
    }
}
