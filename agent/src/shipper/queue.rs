//! The order in which dumps leave the spool.
//!
//! Small dumps (minicores, and records without a core) go first, then dumps with cores; within each
//! group the newest first. Recent crashes matter most, and small evidence should arrive early. A
//! bundle is one object followed by its manifest, so a minicore cannot go before its own core, but
//! goes before all larger cores.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cdh_bundle::{BundleError, DumpId, Manifest, SpoolEntry, SpoolState, list_spool};
use jiff::Timestamp;

/// Maximum size in bytes of a dump that counts as light: a minicore with stacks of a few dozen
/// threads.
const LIGHT: u64 = 1 << 20;

/// Whether a dump is small or large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    Light,
    Heavy,
}

/// A sealed entry with its sort key.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) entry: SpoolEntry,
    pub(super) weight: Weight,
}

/// Caches when each entry was captured.
#[derive(Debug, Default)]
pub(super) struct Queue {
    captured: BTreeMap<DumpId, Timestamp>,
}

impl Queue {
    /// The sealed entries except those in `without`, in upload order.
    pub(super) fn order(
        &mut self,
        spool: &Path,
        without: &BTreeSet<DumpId>,
    ) -> Result<Vec<Waiting>, BundleError> {
        let entries = list_spool(spool)?;
        self.captured
            .retain(|id, _| entries.iter().any(|entry| entry.id == *id));
        let mut waiting: Vec<(Weight, Timestamp, SpoolEntry)> = Vec::new();
        for entry in entries {
            if entry.state == SpoolState::Sealed && !without.contains(&entry.id) {
                let at = self.captured_at(&entry);
                waiting.push((weight(&entry), at, entry));
            }
        }
        waiting.sort_by(|one, other| {
            let newest_first = other.1.cmp(&one.1);
            let weight = one.0.cmp(&other.0);
            weight.then(newest_first).then(one.2.id.cmp(&other.2.id))
        });
        let waiting = waiting.into_iter();
        Ok(waiting
            .map(|(weight, _, entry)| Waiting { entry, weight })
            .collect())
    }

    fn captured_at(&mut self, entry: &SpoolEntry) -> Timestamp {
        *self.captured.entry(entry.id).or_insert_with(|| {
            let json = fs::read(entry.path.join("manifest.json")).unwrap_or_default();
            // An unreadable manifest sorts last; its entry then goes into quarantine.
            Manifest::from_json(&json).map_or(Timestamp::MIN, |manifest| manifest.captured_at)
        })
    }
}

fn weight(entry: &SpoolEntry) -> Weight {
    let files = fs::read_dir(&entry.path).into_iter().flatten().flatten();
    let cores = files.filter(|file| file.file_name().as_encoded_bytes().starts_with(b"core"));
    let bytes: u64 = cores
        .filter_map(|file| file.metadata().ok())
        .map(|metadata| metadata.len())
        .sum();
    match bytes > LIGHT {
        true => Weight::Heavy,
        false => Weight::Light,
    }
}
