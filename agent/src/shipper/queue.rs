//! In which order dumps leave the spool.
//!
//! First those that are small, minicores and records without any core, then those with cores; of each
//! kind the newest first: what crashes now is asked about now, and the evidence that costs least is
//! there first. A bundle is one object whose manifest follows it, so a minicore does not travel before
//! its own core, but before all cores that are larger.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cdh_bundle::{BundleError, DumpId, Manifest, SpoolEntry, SpoolState, list_spool};
use jiff::Timestamp;

/// Bytes of a dump that is no heavier than a minicore: stacks of a few dozen threads.
const LIGHT: u64 = 1 << 20;

/// How much there is to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    Light,
    Heavy,
}

/// A sealed entry in its place.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) entry: SpoolEntry,
    pub(super) weight: Weight,
}

/// Remembers when each entry was captured.
#[derive(Debug, Default)]
pub(super) struct Queue {
    captured: BTreeMap<DumpId, Timestamp>,
}

impl Queue {
    /// The sealed entries but those in `without`, the first one first.
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
            // What cannot be read goes last, and into quarantine.
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
