//! Answers which dumps a store holds, from its keys.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use cdh_bundle::{BundleReader, Manifest};

use crate::{DumpSummary, Listed, Listing, ObjectKey, Query, ResolveError, Store, StoreError};

/// No manifest is larger.
const MAX_MANIFEST: u64 = 64 << 20;
/// How many candidates an ambiguous reference names.
const MAX_CANDIDATES: usize = 10;

/// The dumps of a store.
pub struct Catalog<'s> {
    store: &'s dyn Store,
}

impl<'s> Catalog<'s> {
    /// Of this store.
    #[must_use]
    pub fn new(store: &'s dyn Store) -> Self {
        Self { store }
    }

    /// Dumps that match, newest first. A bundle without its manifest beside it is not a dump yet,
    /// unless IBM's agent wrote it.
    ///
    /// # Errors
    /// When the store cannot be listed, or a manifest that the query needs cannot be read.
    pub fn find(&self, query: &Query) -> Result<Vec<DumpSummary>, StoreError> {
        let mut bundles: BTreeMap<ObjectKey, DumpSummary> = BTreeMap::new();
        let mut manifests = BTreeSet::new();
        self.store.list(&Listing::default(), &mut |listed| {
            let Listed::Object(object) = listed else {
                return ControlFlow::Continue(());
            };
            if object.key.as_str().ends_with(".manifest.json") {
                manifests.insert(object.key);
            } else if let Some(mut summary) = DumpSummary::from_key(&object.key) {
                summary.size = Some(object.size);
                bundles.insert(object.key, summary);
            }
            ControlFlow::Continue(())
        })?;
        let committed = |dump: &DumpSummary| {
            dump.legacy
                || dump
                    .key
                    .manifest()
                    .is_some_and(|key| manifests.contains(&key))
        };
        let mut dumps: Vec<_> = bundles
            .into_values()
            .filter(|dump| committed(dump) && query.matches(dump))
            .collect();
        // Equal seconds keep an order that does not change from run to run.
        dumps.sort_by(|a, b| (b.captured_at, &b.key).cmp(&(a.captured_at, &a.key)));
        let limit = query.limit.unwrap_or(usize::MAX);
        if !query.needs_manifest() {
            dumps.truncate(limit);
            return Ok(dumps);
        }
        let mut found = Vec::new();
        for dump in dumps {
            if found.len() >= limit {
                break;
            }
            match self.manifest(&dump) {
                Ok(manifest) if query.matches_manifest(&manifest) => found.push(dump),
                // Removed since it was listed, or damaged: one dump must not hide the others.
                Ok(_) | Err(StoreError::NotFound { .. } | StoreError::Bundle { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// The dump that `reference` means: an id, a prefix of one (two digits at least), `latest`, or `~N`,
    /// the N-th before the latest.
    ///
    /// # Errors
    /// When there is none, when there are several, or when the store fails.
    pub fn resolve(&self, reference: &str) -> Result<DumpSummary, ResolveError> {
        let not_found = || ResolveError::NotFound {
            reference: reference.to_owned(),
        };
        let dumps = self.find(&Query::default())?;
        let nth = match reference {
            "latest" => Some(0),
            other => other
                .strip_prefix('~')
                .and_then(|number| number.parse::<usize>().ok()),
        };
        if let Some(nth) = nth {
            return dumps.into_iter().nth(nth).ok_or_else(not_found);
        }
        let wanted = reference.to_ascii_lowercase();
        let hex = |c: char| c.is_ascii_hexdigit() || c == '-';
        if wanted.len() < 2 || !wanted.chars().all(hex) {
            return Err(not_found());
        }
        let mut matching: Vec<_> = dumps
            .into_iter()
            .filter(|dump| dump.id.to_string().starts_with(&wanted))
            .collect();
        if matching.len() > 1 {
            matching.truncate(MAX_CANDIDATES);
            return Err(ResolveError::Ambiguous {
                reference: reference.to_owned(),
                candidates: matching,
            });
        }
        matching.pop().ok_or_else(not_found)
    }

    /// The manifest of a dump; made from IBM's files for a legacy zip.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn manifest(&self, dump: &DumpSummary) -> Result<Manifest, StoreError> {
        let broken = |key: &ObjectKey, source| StoreError::Bundle {
            key: key.to_string(),
            source,
        };
        let Some(key) = dump.key.manifest().filter(|_| !dump.legacy) else {
            let source = self.store.read(&dump.key)?;
            let bundle = BundleReader::open(source).map_err(|error| broken(&dump.key, error))?;
            return Ok(bundle.summary_manifest());
        };
        let source = self.store.read(&key)?;
        let size = usize::try_from(source.len().min(MAX_MANIFEST)).unwrap_or(usize::MAX);
        let mut json = vec![0; size];
        let count = source
            .read_at(0, &mut json)
            .map_err(|error| StoreError::from_io(key.as_str(), error))?;
        json.truncate(count);
        Manifest::from_json(&json).map_err(|error| broken(&key, error))
    }
}
