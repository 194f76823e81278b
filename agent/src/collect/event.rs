//! Inputs, events and errors of a collector.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;

use cdh_bundle::{DumpId, RawText};

use super::pattern::FilePattern;
use crate::paths::AgentPaths;

/// Inputs of a collector.
#[derive(Clone, Debug)]
pub struct CollectOptions {
    /// The agent's own directories.
    pub paths: AgentPaths,
    /// `/proc`, in which the node's processes are visible.
    pub proc: PathBuf,
    /// Program and first arguments that run the handler.
    pub handler: Vec<OsString>,
    /// File with the handler's settings.
    pub settings: PathBuf,
}

/// An event about a core file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CollectEvent {
    /// Its dump is in the spool; `None` if the policy stores none.
    Collected {
        /// Name of the file.
        name: RawText,
        /// The container's id; `None` for the host and for shared directories.
        container: Option<String>,
        /// The dump.
        dump: Option<DumpId>,
    },
    /// Its dump was uploaded and the file deleted.
    Deleted {
        /// Name of the file.
        name: RawText,
        /// The dump.
        dump: DumpId,
    },
    /// Its dump has left the spool, but the store did not confirm the complete core. The file remains.
    Kept {
        /// Name of the file.
        name: RawText,
        /// The dump.
        dump: DumpId,
    },
    /// It could not be collected or deleted.
    Failed {
        /// Name of the file.
        name: RawText,
        /// Why.
        why: String,
    },
    /// A directory contains more names than the limit. Reported once per directory.
    Overfull {
        /// The container's id; `None` for the host and for shared directories.
        container: Option<String>,
        /// Number of examined names.
        limit: usize,
    },
}

/// Why cores cannot be collected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// The kernel does not write cores to an absolute path.
    #[error("core_pattern is `{pattern}`, not an absolute path whose directory has no `%`")]
    Pattern {
        /// The pattern.
        pattern: String,
    },
    /// A file or directory cannot be used.
    #[error("cannot use {path}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// The pattern that the kernel uses now.
///
/// # Errors
/// If it is not an absolute path.
pub fn file_pattern(paths: &AgentPaths) -> Result<FilePattern, CollectError> {
    let path = &paths.settings.core_pattern;
    let text = fs::read(path).map_err(|source| CollectError::Io {
        path: path.clone(),
        source,
    })?;
    let uses_pid = fs::read(path.with_file_name("core_uses_pid"));
    let uses_pid = uses_pid.is_ok_and(|text| text.trim_ascii() == b"1");
    FilePattern::parse(&text, uses_pid).ok_or_else(|| CollectError::Pattern {
        pattern: RawText::from(text.trim_ascii_end()).to_string(),
    })
}
