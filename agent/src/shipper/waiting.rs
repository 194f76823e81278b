//! Lists the dumps in the spool, and why each of them is still there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cdh_bundle::{BundleError, DumpId, Manifest, SpoolEntry, SpoolState, list_spool};
use jiff::Timestamp;
use serde::Serialize;

use super::ShipperRecord;
use crate::policy::SetuidPolicy;
use crate::spool::{QUARANTINE, size_of};

/// Maximum number of manifests that are read: beyond it, the reason of an entry is less exact.
const MANIFESTS: usize = 1000;

/// Why a dump is in the spool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "reason", rename_all = "snake_case")]
#[non_exhaustive]
pub enum WaitReason {
    /// Its handler is running.
    BeingWritten,
    /// Its handler died; the shipper salvages it.
    HandlerDied,
    /// The dump of a setuid program, which the policy keeps on the node.
    Setuid,
    /// It could not be shipped; the shipper will retry it.
    Failed {
        /// The error.
        why: String,
        /// Time of the next retry.
        #[cfg_attr(
            feature = "schema",
            schemars(with = "Option<cdh_bundle::schema::Time>")
        )]
        next_try: Option<Timestamp>,
    },
    /// It cannot be processed.
    Quarantined {
        /// What is wrong with it.
        why: String,
    },
    /// It is waiting for its turn.
    Unshipped,
}

/// One dump in the spool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct WaitingDump {
    /// Its id.
    pub id: DumpId,
    /// When it was captured, if its manifest can be read.
    #[cfg_attr(
        feature = "schema",
        schemars(with = "Option<cdh_bundle::schema::Time>")
    )]
    pub captured_at: Option<Timestamp>,
    /// The program, or the name of the process.
    pub program: Option<String>,
    /// Its signal.
    pub signal: Option<String>,
    /// Bytes on disk.
    pub bytes: u64,
    /// Why it is in the spool.
    #[serde(flatten)]
    pub why: WaitReason,
}

/// All dumps of a spool, oldest first.
///
/// # Errors
/// Fails if the spool cannot be read; one that does not exist is empty.
pub fn waiting(
    spool: &Path,
    setuid: SetuidPolicy,
    record: Option<&ShipperRecord>,
) -> Result<Vec<WaitingDump>, BundleError> {
    let entries = match list_spool(spool) {
        Err(BundleError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        entries => entries?,
    };
    let nothing = BTreeSet::new();
    let reported = record.map_or(&nothing, |record| &record.kept);
    let mut found = Vec::new();
    for (number, entry) in entries.into_iter().enumerate() {
        let manifest = (number < MANIFESTS && entry.state == SpoolState::Sealed)
            .then(|| manifest_in(&entry.path))
            .flatten();
        let is_setuid = setuid != SetuidPolicy::Ship
            && manifest
                .as_ref()
                .is_some_and(|manifest| manifest.process.dumpable == Some(2));
        let why = match entry.state {
            SpoolState::Live => WaitReason::BeingWritten,
            SpoolState::Abandoned => WaitReason::HandlerDied,
            _ if is_setuid || reported.contains(&entry.id) => WaitReason::Setuid,
            _ => match record.and_then(|record| record.failed.get(&entry.id)) {
                Some(trouble) => WaitReason::Failed {
                    why: trouble.why.clone(),
                    next_try: trouble.next_try,
                },
                None => WaitReason::Unshipped,
            },
        };
        found.push(dump(&entry, manifest, why));
    }
    let quarantine = spool.join(QUARANTINE);
    for entry in fs::read_dir(&quarantine).into_iter().flatten().flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let entry = SpoolEntry {
            id,
            path: entry.path(),
            state: SpoolState::Sealed,
        };
        let reason = fs::read_to_string(entry.path.join("reason.txt")).unwrap_or_default();
        let why = match reason.lines().next() {
            Some(line) => line.chars().take(300).collect(),
            None => "the reason was not recorded".to_owned(),
        };
        let manifest = manifest_in(&entry.path);
        found.push(dump(&entry, manifest, WaitReason::Quarantined { why }));
    }
    found.sort_by_key(|dump| (dump.captured_at, dump.id));
    Ok(found)
}

fn manifest_in(entry: &Path) -> Option<Manifest> {
    Manifest::from_json(&fs::read(entry.join("manifest.json")).ok()?).ok()
}

fn dump(entry: &SpoolEntry, manifest: Option<Manifest>, why: WaitReason) -> WaitingDump {
    let manifest = manifest.as_ref();
    WaitingDump {
        id: entry.id,
        captured_at: manifest.map(|manifest| manifest.captured_at),
        program: manifest.map(|manifest| manifest.process.exe_name().to_string()),
        signal: manifest.map(|manifest| manifest.crash_signal().name.clone()),
        bytes: size_of(&entry.path),
        why,
    }
}
