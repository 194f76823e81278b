//! What the handler must know and the core pattern has no room for: `cdh-handler.json` beside it.
//!
//! A missing or broken file never stops a capture: the defaults hold, and the dump says so.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The handler's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HandlerSettings {
    /// Directory of the spool entries.
    pub spool: PathBuf,
    /// zstd level of the core.
    pub level: i32,
    /// Threads that compress; 0 means one less than the processors, at most 3.
    pub compressors: usize,
    /// Bytes kept above each thread's stack pointer in the minicore.
    pub stack_window: u64,
    /// Bytes of memory in a minicore at most. The pages are gathered in the handler's own memory.
    pub minicore_limit: u64,
    /// Seconds that minicore and backtrace may take before the core is read without them.
    pub minicore_seconds: u64,
    /// Bytes kept free for finishing an entry when the spool runs full.
    pub reserve: u64,
}

impl Default for HandlerSettings {
    fn default() -> Self {
        Self {
            spool: "/var/lib/cdh/spool".into(),
            level: 1,
            compressors: 0,
            stack_window: 64 << 10,
            minicore_limit: 16 << 20,
            minicore_seconds: 10,
            reserve: 1 << 20,
        }
    }
}

impl HandlerSettings {
    /// Reads the settings; with them comes what was wrong, when something was.
    #[must_use]
    pub fn read(path: &Path) -> (Self, Option<String>) {
        let read = || -> io::Result<Self> { Ok(serde_json::from_slice(&std::fs::read(path)?)?) };
        match read() {
            Ok(settings) => (settings, None),
            Err(error) => (Self::default(), Some(error.to_string())),
        }
    }

    /// Number of threads that compress.
    #[must_use]
    pub fn compressor_threads(&self) -> usize {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        match self.compressors {
            0 => processors.saturating_sub(1).clamp(1, 3),
            // Each takes about 3 MiB; with 8 the handler had 31.5 MiB.
            given => given.clamp(1, 6),
        }
    }
}
