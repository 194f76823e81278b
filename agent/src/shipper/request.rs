//! Asks the running agent to ship now, by renaming a file into the spool, which the agent watches.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cdh_bundle::DumpId;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::atomic_file::write_atomically;

/// Maximum size of a request in bytes.
const LIMIT: u64 = 1 << 20;

/// A request to ship.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    /// The dumps to ship; `None` means all that wait.
    pub(super) only: Option<BTreeSet<DumpId>>,
}

fn place(spool: &Path) -> PathBuf {
    spool.join("ship-now.json")
}

impl Request {
    /// Writes the request for the agent.
    pub(super) fn leave(&self, spool: &Path) -> io::Result<()> {
        write_atomically(&place(spool), &serde_json::to_vec(self)?, 0o600)
    }

    /// Reads and deletes a request. An unreadable request is deleted, too.
    pub(super) fn take(spool: &Path) -> Option<Self> {
        let path = place(spool);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::empty()).ok()?;
        let mut bytes = Vec::new();
        let read = fs::File::from(file).take(LIMIT).read_to_end(&mut bytes);
        let _ = fs::remove_file(&path);
        read.ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// Whether the agent has read the request.
pub(super) fn is_taken(spool: &Path) -> bool {
    !place(spool).exists()
}
