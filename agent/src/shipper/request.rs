//! Asks the agent that runs to ship now: a file that is renamed into the spool, which it watches.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cdh_bundle::DumpId;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::node::journal::write_atomically;

/// Bytes of a request at most.
const LIMIT: u64 = 1 << 20;

/// What shall be shipped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    /// These; all that wait where none are named.
    pub(super) only: Option<BTreeSet<DumpId>>,
}

fn place(spool: &Path) -> PathBuf {
    spool.join("ship-now.json")
}

impl Request {
    /// Leaves it for the agent.
    pub(super) fn leave(&self, spool: &Path) -> io::Result<()> {
        write_atomically(&place(spool), &serde_json::to_vec(self)?, 0o600)
    }

    /// Takes one that was left. One that cannot be read is gone afterwards too.
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

/// Whether the agent has taken what was left for it.
pub(super) fn is_taken(spool: &Path) -> bool {
    !place(spool).exists()
}
