//! The shipper's last results, stored for `cdh agent status`, which runs in another process.
//!
//! ```text
//! <state>/uploads/shipper.json   store and its last failure, why each entry waits, which dumps are kept here
//! ```
//!
//! Invariant: the file is replaced atomically, and only when something changed. Losing it costs
//! explanations, never a dump. It contains no credentials.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cdh_bundle::DumpId;
use cdh_store::StoreError;
use jiff::{SignedDuration, Timestamp};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::error_chain::explain;

const NAME: &str = "uploads/shipper.json";
/// Maximum size of the record in bytes.
const LIMIT: u64 = 16 << 20;
/// Minimum time between two records of success.
const NEWS: SignedDuration = SignedDuration::from_secs(60);

/// Why the store rejects uploads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoreTrouble {
    /// The error with its causes.
    pub why: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether the store was unreachable.
    #[serde(default)]
    pub unreachable: bool,
    /// When it started to fail.
    pub since: Timestamp,
    /// Time of the next retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<Timestamp>,
}

/// Why one entry waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EntryTrouble {
    /// The error with its causes.
    pub why: String,
    /// Time of the next retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<Timestamp>,
}

/// Why a container runtime does not identify pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RuntimeTrouble {
    /// The error with its causes.
    pub why: String,
    /// When it stopped answering.
    pub since: Timestamp,
}

/// Last results of the shipper of a spool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ShipperRecord {
    /// Version of the agent that wrote it.
    pub version: String,
    /// Location of the store.
    pub store: String,
    /// Whether that agent installs the handler at start.
    pub manages_node: bool,
    /// Shipping plan: `events`, `interval`, `schedule`, `off`.
    pub plan: String,
    /// Time of the next shipment, if the plan is not `events`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_shipment: Option<Timestamp>,
    /// When the store last worked, with a resolution of one minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_worked_at: Option<Timestamp>,
    /// Why the store fails, while it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_trouble: Option<StoreTrouble>,
    /// Container runtimes that do not answer, by socket; the path is empty if no socket was found.
    pub runtimes: BTreeMap<PathBuf, RuntimeTrouble>,
    /// Entries whose last upload failed.
    pub failed: BTreeMap<DumpId, EntryTrouble>,
    /// Dumps that stay on the node and were already reported.
    pub kept: BTreeSet<DumpId>,
}

impl ShipperRecord {
    /// Reads the record in the state directory; `None` if it is missing or unreadable.
    #[must_use]
    pub fn read(state: &Path) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(state.join(NAME), flags, Mode::empty()).ok()?;
        let mut bytes = Vec::new();
        File::from(file).take(LIMIT).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Deletes the record: it is meaningless without a spool.
    pub(crate) fn remove(state: &Path) -> io::Result<()> {
        fs::remove_file(state.join(NAME))
    }
}

/// Stores the record on disk.
#[derive(Debug)]
pub(super) struct RecordKeeper {
    path: PathBuf,
    pub(super) record: ShipperRecord,
    written: Option<ShipperRecord>,
}

impl RecordKeeper {
    /// Continues with the record of an earlier process.
    pub(super) fn open(state: &Path) -> Self {
        let written = ShipperRecord::read(state);
        Self {
            path: state.join(NAME),
            record: written.clone().unwrap_or_default(),
            written,
        }
    }

    /// Records that the store works.
    pub(super) fn store_works(&mut self) {
        let now = Timestamp::now();
        self.record.store_trouble = None;
        let last = self.record.store_worked_at;
        if last.is_none_or(|at| now.duration_since(at).abs() >= NEWS) {
            self.record.store_worked_at = Some(now);
        }
    }

    /// Records that the store fails.
    pub(super) fn store_fails(&mut self, error: &StoreError, next_try: Option<Timestamp>) {
        let before = self.record.store_trouble.take();
        self.record.store_trouble = Some(StoreTrouble {
            why: explain(error),
            hint: error.hint().map(Into::into),
            unreachable: matches!(error, StoreError::Unreachable { .. }),
            since: before.map_or_else(Timestamp::now, |before| before.since),
            next_try,
        });
    }

    /// Records whether a runtime answers.
    pub(super) fn runtime(&mut self, socket: &Path, trouble: Option<&str>) {
        let before = self.record.runtimes.remove(socket);
        if let Some(why) = trouble {
            let since = before.map_or_else(Timestamp::now, |before| before.since);
            let why = why.to_owned();
            let trouble = RuntimeTrouble { why, since };
            self.record.runtimes.insert(socket.to_owned(), trouble);
        }
    }

    /// Records that an entry could not be shipped.
    pub(super) fn entry_fails(&mut self, id: DumpId, why: String, next_try: Option<Timestamp>) {
        self.record
            .failed
            .insert(id, EntryTrouble { why, next_try });
    }

    /// Removes entries that are no longer in the spool.
    pub(super) fn retain(&mut self, is_there: impl Fn(&DumpId) -> bool) {
        self.record.failed.retain(|id, _| is_there(id));
        self.record.kept.retain(|id| is_there(id));
    }

    /// Writes the record if it changed. On a full disk only explanations are lost.
    pub(super) fn save(&mut self) {
        if self.written.as_ref() == Some(&self.record) {
            return;
        }
        let json = serde_json::to_vec(&self.record).unwrap_or_default();
        if self.replace(&json).is_ok() {
            self.written = Some(self.record.clone());
        }
    }

    /// Replaces the file atomically, without a sync: a power failure may lose explanations, and a
    /// store that fails all day must not keep the disk busy.
    fn replace(&self, json: &[u8]) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            let mut private = fs::DirBuilder::new();
            private.recursive(true).mode(0o700).create(directory)?;
        }
        let draft = self.path.with_extension("json.new");
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(json)?;
        fs::rename(&draft, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipper_record_survives_a_restart_with_the_start_of_the_trouble() {
        let state = tempfile::tempdir().unwrap();
        let id = DumpId::random();
        let gone = DumpId::random();
        let error = StoreError::NoBucket {
            place: "s3://x".to_owned(),
        };
        let mut keeper = RecordKeeper::open(state.path());
        keeper.store_fails(&error, None);
        let since = keeper.record.store_trouble.as_ref().unwrap().since;
        for id in [id, gone] {
            keeper.entry_fails(id, "it is broken".to_owned(), None);
        }
        keeper.save();
        let mut keeper = RecordKeeper::open(state.path());
        keeper.store_fails(&error, Some(Timestamp::now()));
        keeper.retain(|known| *known == id);
        keeper.save();
        let record = ShipperRecord::read(state.path()).unwrap();
        let trouble = record.store_trouble.as_ref().unwrap();
        assert_eq!(trouble.since, since);
        assert!(trouble.why.contains("does not exist: s3://x") && trouble.hint.is_some());
        assert_eq!(record.failed.keys().collect::<Vec<_>>(), [&id]);
        keeper.store_works();
        keeper.save();
        let record = ShipperRecord::read(state.path()).unwrap();
        assert!(record.store_trouble.is_none() && record.store_worked_at.is_some());
        ShipperRecord::remove(state.path()).unwrap();
        assert!(ShipperRecord::read(state.path()).is_none());
    }
}
