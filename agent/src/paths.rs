//! The agent's paths on a node, and the core pattern derived from them.
//!
//! The pattern is `|/usr/local/lib/cdh/cdh-handler P%P I%I p%p i%i s%s t%t d%d u%u g%g F%F h%h e%e`: each
//! argument begins with the letter of its specifier. A specifier that is empty, or that the kernel does not
//! know (it then expands to nothing), is therefore not confused with the next one. Texts that the process
//! chooses come last: before Linux 5.3, the kernel split the line after expanding it. All other settings of the
//! handler are in `cdh-handler.json` beside it, because the pattern is limited to 127 bytes.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cdh_bundle::RawText;

use crate::workload::WorkloadOptions;

/// Name of the program that the kernel starts. It also identifies a pattern of ours.
pub const HANDLER_NAME: &str = "cdh-handler";
/// Name of the socket that the kernel connects to.
const SOCKET_NAME: &str = "cdh-core.sock";

/// Specifiers in the pattern, in their order.
pub(crate) const SPECIFIERS: &str = "PIpistdugFhe";

/// Maximum bytes of `core_pattern`: `CORENAME_MAX_SIZE` (128) less the terminating NUL. The kernel
/// silently truncates longer ones.
pub const CORE_PATTERN_MAX: usize = 127;

/// The files of the settings. Tests use plain files instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsFiles {
    /// `/proc/sys/kernel/core_pattern`.
    pub core_pattern: PathBuf,
    /// `/proc/sys/kernel/core_pipe_limit`.
    pub core_pipe_limit: PathBuf,
    /// `/proc/sys/fs/suid_dumpable`.
    pub suid_dumpable: PathBuf,
}

impl SettingsFiles {
    /// The running kernel's own.
    #[must_use]
    pub fn kernel() -> Self {
        Self {
            core_pattern: "/proc/sys/kernel/core_pattern".into(),
            core_pipe_limit: "/proc/sys/kernel/core_pipe_limit".into(),
            suid_dumpable: "/proc/sys/fs/suid_dumpable".into(),
        }
    }

    /// Files of the same names in a directory.
    #[must_use]
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            core_pattern: directory.join("core_pattern"),
            core_pipe_limit: directory.join("core_pipe_limit"),
            suid_dumpable: directory.join("suid_dumpable"),
        }
    }
}

/// The agent's paths on this node.
#[derive(Clone, Debug)]
pub struct AgentPaths {
    /// The handler that the kernel starts.
    pub handler: PathBuf,
    /// Directory of the backup of the settings, and of locks.
    pub state: PathBuf,
    /// Directory in memory for records of crashes if the state directory is not writable.
    pub fallback: PathBuf,
    /// Dumps between handler and shipper.
    pub spool: PathBuf,
    /// The kernel's settings.
    pub settings: SettingsFiles,
    /// Where the shipper looks up pods and containers.
    pub workloads: WorkloadOptions,
    /// Whether to store the ELF files that crashed processes mapped.
    pub keep_modules: bool,
    /// Whether the agent collects core files instead of setting a pattern of its own.
    pub collects_files: bool,
}

impl Default for AgentPaths {
    fn default() -> Self {
        Self {
            handler: "/usr/local/lib/cdh/cdh-handler".into(),
            state: "/var/lib/cdh".into(),
            fallback: "/run/cdh".into(),
            spool: "/var/lib/cdh/spool".into(),
            settings: SettingsFiles::kernel(),
            workloads: WorkloadOptions::default(),
            keep_modules: false,
            collects_files: false,
        }
    }
}

/// Why this handler cannot be named in a core pattern.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// The kernel starts the handler from `/`, and splits and expands the pattern.
    #[error("{path} cannot be part of a core pattern: {problem}")]
    Unusable {
        /// Path of the handler.
        path: PathBuf,
        /// Why it is unusable.
        problem: &'static str,
    },
    /// Longer than the kernel's limit.
    #[error(
        "the path {path} makes a core pattern of {found} bytes, the kernel's maximum is {limit}"
    )]
    TooLong {
        /// Path of the handler.
        path: PathBuf,
        /// Length of the pattern, bytes.
        found: usize,
        /// The kernel's limit, bytes.
        limit: usize,
    },
}

impl AgentPaths {
    /// The same layout below another directory: `handler`, `state`, `state/spool`.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self {
            handler: root.join("lib").join(HANDLER_NAME),
            state: root.join("state"),
            fallback: root.join("run"),
            spool: root.join("state/spool"),
            settings: SettingsFiles::kernel(),
            workloads: WorkloadOptions {
                sockets: vec![root.join("cri.sock")],
                pod_logs: root.join("pods"),
                container_logs: root.join("containers"),
                engines: root.join("engines"),
                ..WorkloadOptions::default()
            },
            keep_modules: false,
            collects_files: false,
        }
    }

    /// The settings that the handler reads when it starts.
    #[must_use]
    pub fn handler_settings(&self) -> PathBuf {
        self.handler.with_file_name("cdh-handler.json")
    }

    /// The journal of foreign settings.
    #[must_use]
    pub fn backup(&self) -> PathBuf {
        self.state.join("backup.json")
    }

    /// The shipper's own state: progress of uploads, its lock, its record of failures, reported crashes.
    /// Beside spool, ledger and drops, it writes nothing else on a node.
    #[must_use]
    pub fn uploads(&self) -> PathBuf {
        self.state.join("uploads")
    }

    /// Locked while settings are changed.
    #[must_use]
    pub fn install_lock(&self) -> PathBuf {
        self.state.join("install.lock")
    }

    /// Locked by the one shipper of a spool.
    #[must_use]
    pub fn shipper_lock(&self) -> PathBuf {
        self.uploads().join("shipper.lock")
    }

    /// The pattern that makes the kernel start the handler.
    ///
    /// # Errors
    /// If the handler's path cannot be part of a pattern.
    pub fn core_pattern(&self) -> Result<RawText, PatternError> {
        let unusable = |problem| PatternError::Unusable {
            path: self.handler.clone(),
            problem,
        };
        let path = self.handler.as_os_str().as_bytes();
        if path.first() != Some(&b'/') {
            return Err(unusable("it is not absolute"));
        }
        if path
            .iter()
            .any(|&byte| byte.is_ascii_whitespace() || byte == 0x0b || byte == b'%')
        {
            return Err(unusable("it holds a space or a per cent sign"));
        }
        if self
            .handler
            .file_name()
            .is_none_or(|name| name != HANDLER_NAME)
        {
            return Err(unusable("the handler must be named `cdh-handler`"));
        }
        let mut pattern = b"|".to_vec();
        pattern.extend_from_slice(path);
        for letter in SPECIFIERS.bytes() {
            pattern.extend_from_slice(&[b' ', letter, b'%', letter]);
        }
        if pattern.len() > CORE_PATTERN_MAX {
            return Err(PatternError::TooLong {
                path: self.handler.clone(),
                found: pattern.len(),
                limit: CORE_PATTERN_MAX,
            });
        }
        Ok(RawText::new(pattern))
    }

    /// The socket to which the kernel connects.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.state.join(SOCKET_NAME)
    }

    /// The pattern that makes the kernel connect to the receiver (Linux 6.16).
    ///
    /// # Errors
    /// If the socket's path cannot be part of a pattern.
    pub fn socket_pattern(&self) -> Result<RawText, PatternError> {
        /// Maximum bytes of a path in `sockaddr_un`, including its NUL.
        const UNIX_PATH_MAX: usize = 108;
        let socket = self.socket();
        let path = socket.as_os_str().as_bytes();
        let usable = path.first() == Some(&b'/')
            && !path
                .iter()
                .any(|&byte| byte.is_ascii_whitespace() || byte == b'%')
            && !socket.components().any(|part| part.as_os_str() == "..");
        if !usable {
            return Err(PatternError::Unusable {
                path: socket,
                problem: "the path of a coredump socket is absolute and has no `..`, space or `%`",
            });
        }
        if path.len() >= UNIX_PATH_MAX {
            return Err(PatternError::TooLong {
                found: path.len(),
                path: socket,
                limit: UNIX_PATH_MAX - 1,
            });
        }
        Ok(RawText::new([b"@", path].concat()))
    }

    /// Whether a pattern starts the handler of this installation.
    #[must_use]
    pub fn is_this_installation(&self, pattern: &RawText) -> bool {
        let socket = self.socket();
        program_of(pattern) == Some(self.handler.as_os_str().as_bytes())
            || pattern.as_bytes().strip_prefix(b"@") == Some(socket.as_os_str().as_bytes())
    }

    /// Whether a pattern starts a handler of ours: of this installation or of another one. An uninstall
    /// never restores such a pattern.
    #[must_use]
    pub fn is_our_pattern(&self, pattern: &RawText) -> bool {
        let last = |path: &[u8]| path.rsplit(|&b| b == b'/').next().map(<[u8]>::to_vec);
        let socket = pattern.as_bytes().strip_prefix(b"@").and_then(last);
        self.is_this_installation(pattern)
            || program_of(pattern).and_then(last).as_deref() == Some(HANDLER_NAME.as_bytes())
            || socket.as_deref() == Some(SOCKET_NAME.as_bytes())
    }
}

/// The program that the kernel starts for this pattern.
fn program_of(pattern: &RawText) -> Option<&[u8]> {
    let command = pattern.as_bytes().strip_prefix(b"|")?;
    command
        .split(u8::is_ascii_whitespace)
        .find(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_pattern_has_every_specifier_within_the_kernels_limit() {
        let pattern = AgentPaths::default().core_pattern().unwrap();
        assert_eq!(
            pattern.as_bytes(),
            b"|/usr/local/lib/cdh/cdh-handler P%P I%I p%p i%i s%s t%t d%d u%u g%g F%F h%h e%e"
        );
        assert!(AgentPaths::default().is_our_pattern(&pattern));
    }

    #[test]
    fn only_patterns_that_start_a_handler_of_ours_are_ours() {
        let paths = AgentPaths::default();
        let ours = |pattern: &str| paths.is_our_pattern(&RawText::from(pattern));
        assert!(ours("|/opt/other/cdh-handler P%P"));
        assert!(ours("|/usr/local/lib/cdh/cdh-handler"));
        for foreign in [
            "",
            "|",
            "core",
            "/cdh-handler",
            "|/bin/tee /cdh-handler",
            "|/x/cdh-handler-old P%P",
        ] {
            assert!(!ours(foreign), "{foreign}");
        }
    }

    #[test]
    fn handler_paths_that_the_kernel_would_misread_are_refused() {
        let pattern = |path: &str| {
            AgentPaths {
                handler: path.into(),
                ..AgentPaths::default()
            }
            .core_pattern()
        };
        for path in [
            "cdh-handler",
            "/a b/cdh-handler",
            "/a%p/cdh-handler",
            "/a/other",
            "/",
        ] {
            assert!(
                matches!(pattern(path), Err(PatternError::Unusable { .. })),
                "{path}"
            );
        }
        let long = format!("/{}/cdh-handler", "x".repeat(120));
        assert!(matches!(pattern(&long), Err(PatternError::TooLong { .. })));
    }
}
