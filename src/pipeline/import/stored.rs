//! Finds cores that a store already has, by their digest. A key does not contain the digest, so the manifests
//! of dumps of the same program and signal are read, each once per run.

use std::collections::HashMap;

use anyhow::Result;
use cdh_bundle::{DumpId, Manifest, RawText};
use cdh_store::{DumpSummary, ObjectKey, Query, Store};

use crate::pipeline::stores;
use crate::settings::Settings;

/// The dumps of a store, and their manifests that were read.
#[derive(Default)]
pub(super) struct StoredCores {
    /// `None` until the store was listed.
    listed: Option<Vec<DumpSummary>>,
    manifests: HashMap<DumpId, Manifest>,
}

impl StoredCores {
    /// The dump with the same core; for a crash without a core, the one from the same journal entry.
    pub(super) fn find(
        &mut self,
        settings: &Settings,
        store: &dyn Store,
        wanted: &Manifest,
    ) -> Result<Option<Manifest>> {
        let catalog = stores::catalog(settings, store);
        let listed = match self.listed.take() {
            Some(listed) => listed,
            None => catalog
                .find(&Query::default())
                .map_err(|error| stores::store_failure(error, "list"))?,
        };
        let alike = alike(wanted);
        let candidates: Vec<DumpSummary> = listed
            .iter()
            .filter(|dump| alike.as_ref() == Some(&(dump.exe.clone(), dump.signal.clone())))
            .cloned()
            .collect();
        self.listed = Some(listed);
        let unread: Vec<DumpSummary> = candidates
            .iter()
            .filter(|dump| !self.manifests.contains_key(&dump.id))
            .cloned()
            .collect();
        // If a manifest cannot be read, storing the core again is better than losing it.
        for manifest in catalog.manifests(&unread).into_iter().flatten() {
            self.manifests.insert(manifest.id, manifest);
        }
        let mut known = candidates
            .iter()
            .filter_map(|dump| self.manifests.get(&dump.id));
        Ok(known.find(|found| is_same(found, wanted)).cloned())
    }

    /// Remembers a dump that was stored now.
    pub(super) fn add(&mut self, manifest: &Manifest) {
        if let Some(listed) = &mut self.listed {
            let (key, _) = ObjectKey::for_manifest(manifest);
            listed.extend(DumpSummary::from_key(&key));
            self.manifests.insert(manifest.id, manifest.clone());
        }
    }
}

/// Program and signal as a key has them.
fn alike(manifest: &Manifest) -> Option<(RawText, String)> {
    let (key, _) = ObjectKey::for_manifest(manifest);
    DumpSummary::from_key(&key).map(|dump| (dump.exe, dump.signal))
}

fn is_same(found: &Manifest, wanted: &Manifest) -> bool {
    let digest = |manifest: &Manifest| manifest.core.as_ref().and_then(|core| core.sha256);
    if let Some(digest_wanted) = digest(wanted) {
        return digest(found) == Some(digest_wanted);
    }
    let cursor = |manifest: &Manifest| {
        let imported = manifest.imported.as_ref();
        imported.and_then(|imported| imported.fields.get("__CURSOR").cloned())
    };
    cursor(wanted).is_some() && cursor(found) == cursor(wanted)
}
