//! What the handler must know and the core pattern has no room for: `cdh-handler.json` beside it.
//!
//! A missing or broken file never stops a capture: the defaults hold, and the dump says so.

use std::io;
use std::path::{Path, PathBuf};

use cdh_bundle::RawText;
use serde::{Deserialize, Serialize};

use crate::policy::{LimitsConfig, PolicyConfig};

/// When the process that crashed may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// When its memory has been copied.
    #[default]
    Hold,
    /// As soon as its memory is pinned and its backtrace captured. Not if memory is known to be too short for
    /// it and its restarted process.
    Early,
    /// As `Early` where it is known that there is room, else as `Hold`.
    Auto,
}

/// Where the core's bytes come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// From the process's memory, from the pipe where that cannot be read.
    #[default]
    Direct,
    /// From the pipe.
    Pipe,
}

/// How the core is put into the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// `Raw` where the process waits, the core is large and there is ample room, else `Zstd`.
    #[default]
    Auto,
    /// Compressed at once.
    Zstd,
    /// As it is, and compressed when the process has gone.
    Raw,
}

/// The handler's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HandlerSettings {
    /// Directory of the spool entries.
    pub spool: PathBuf,
    /// zstd level of the core. Without one it is 1, or -8 for a large process that waits where the
    /// disk has ample room: `zstd -b` on heaps is a third quicker, and makes 1.2 to 2.4 times the bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<i32>,
    /// When the process may go.
    pub release: Release,
    /// Whether the process's memory is held against a SIGKILL.
    pub pin: bool,
    /// Where the core's bytes come from.
    pub source: Source,
    /// How the core is put into the spool.
    pub strategy: Strategy,
    /// Threads that copy and compress; 0 means one per processor, at most 4.
    pub workers: usize,
    /// Handlers that copy at once; 0 means two more than there are processors.
    pub slots: usize,
    /// Seconds to wait for a slot before going on without one.
    pub slot_seconds: u64,
    /// Seconds that the copy of a core may take; what was not copied by then is cut off. 0 means no
    /// limit.
    pub copy_seconds: u64,
    /// Seconds for which the kernel may write nothing of a core before it is given up. It does so while
    /// it waits for a page of the process, which may be for ever.
    pub silence_seconds: u64,
    /// Bytes of a stored core at most; 0 means no limit.
    pub core_limit: u64,
    /// Bytes of the spool's file system that a core leaves free (a twentieth of it at most).
    pub floor: u64,
    /// Name of the tracefs instance with the SIGKILLs, where the node has one. Not a path: agent and
    /// handler run in different mount namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kill_trace: Option<String>,
    /// The core pattern from before, by which the core is handed on when its dump is sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<RawText>,
    /// Whether to read the core a second time, from the pipe, and to compare. For tests.
    pub self_check: bool,
    /// Bytes kept above each thread's stack pointer in the minicore.
    pub stack_window: u64,
    /// Bytes of memory in a minicore at most. The pages are gathered in the handler's own memory.
    pub minicore_limit: u64,
    /// Seconds that minicore and backtrace may take before the core is read without them.
    pub minicore_seconds: u64,
    /// Bytes kept free for finishing an entry when the spool runs full.
    pub reserve: u64,
    /// Directory of the ledger, beside which the drops are journalled.
    pub state: PathBuf,
    /// Directory for the ledger where that cannot be written.
    pub fallback: PathBuf,
    /// Where podman and docker keep what they know of their containers.
    pub engines: PathBuf,
    /// Name of this node in Kubernetes; without it dumps have the kernel's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Which crashes become dumps.
    pub policy: PolicyConfig,
    /// What all dumps may take of the node. Without limits in the file there are none.
    pub limits: LimitsConfig,
}

impl Default for HandlerSettings {
    fn default() -> Self {
        Self {
            spool: "/var/lib/cdh/spool".into(),
            level: None,
            release: Release::default(),
            pin: true,
            source: Source::default(),
            strategy: Strategy::default(),
            workers: 0,
            slots: 0,
            slot_seconds: 600,
            copy_seconds: 3600,
            silence_seconds: 30,
            core_limit: 0,
            floor: 256 << 20,
            kill_trace: None,
            chain: None,
            self_check: false,
            stack_window: 64 << 10,
            minicore_limit: 16 << 20,
            minicore_seconds: 10,
            reserve: 1 << 20,
            state: "/var/lib/cdh".into(),
            fallback: "/run/cdh".into(),
            engines: "/var/lib".into(),
            node: None,
            policy: PolicyConfig::default(),
            limits: LimitsConfig::unlimited(),
        }
    }
}

impl HandlerSettings {
    /// Takes over the node's limits.
    pub fn set_limits(&mut self, limits: &LimitsConfig) {
        self.core_limit = limits.core_limit.0;
        self.slots = limits.handlers;
        self.slot_seconds = limits.handler_wait.0;
        self.copy_seconds = limits.copy_time.0;
        self.minicore_limit = limits.minicore_limit.0;
        self.limits = limits.clone();
    }

    /// Reads the settings; with them comes what was wrong, when something was.
    #[must_use]
    pub fn read(path: &Path) -> (Self, Option<String>) {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) => return (Self::default(), Some(error.to_string())),
        };
        match Self::parse(&text) {
            Ok(settings) => (settings, None),
            Err(error) => {
                // Written for a newer handler, perhaps: what an older one does not understand must
                // not cost it the way to the spool.
                let rest = Self::parse_without_policy(&text).unwrap_or_default();
                (rest, Some(error.to_string()))
            }
        }
    }

    fn parse(text: &[u8]) -> io::Result<Self> {
        Ok(serde_json::from_slice(text)?)
    }

    fn parse_without_policy(text: &[u8]) -> io::Result<Self> {
        let mut value: serde_json::Value = serde_json::from_slice(text)?;
        if let Some(fields) = value.as_object_mut() {
            fields.remove("policy");
            fields.remove("limits");
        }
        Ok(serde_json::from_value(value)?)
    }

    /// Number of threads that copy and compress.
    #[must_use]
    pub fn worker_threads(&self) -> usize {
        match self.workers {
            0 => processors().clamp(1, 4),
            // Each takes about 4 MiB.
            given => given.clamp(1, 6),
        }
    }

    /// Number of handlers that copy at once.
    #[must_use]
    pub fn slot_count(&self) -> usize {
        match self.slots {
            0 => processors().saturating_add(2),
            given => given.min(1024),
        }
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_of_a_newer_agent_does_not_cost_the_way_to_the_spool() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cdh-handler.json");
        let text = r#"{"spool": "/srv/spool", "limits": {"of_tomorrow": 1}, "level": 3}"#;
        std::fs::write(&path, text).unwrap();
        let (settings, problem) = HandlerSettings::read(&path);
        assert_eq!(
            (settings.spool.as_path(), settings.level),
            (Path::new("/srv/spool"), Some(3))
        );
        assert!(problem.unwrap().contains("of_tomorrow"));
        std::fs::write(&path, "{").unwrap();
        assert_eq!(HandlerSettings::read(&path).0, HandlerSettings::default());
    }
}
