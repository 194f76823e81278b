//! Answers which dumps a store holds, from its keys.
//!
//! Our dumps are stored under `dumps/<day>/`, so a time range limits the listing to some days, and the newest
//! dumps are found without listing older ones. IBM's agent writes to the root of the bucket, or to folders of its
//! own template. Its names begin with random ids, so these objects must be listed completely, but never those
//! under `dumps/`.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use cdh_bundle::{BundleReader, IdPrefix, Manifest};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::first_seen::FIRST_SEEN;
use crate::modules::MODULES;
use crate::{
    DumpSummary, Listed, ListedObject, Listing, ManifestCache, ManifestFacts, ObjectKey,
    ObjectStat, Query, ResolveError, Store, StoreError,
};

/// No manifest is larger.
const MAX_MANIFEST: u64 = 64 << 20;
/// Maximum candidates named for an ambiguous reference.
const MAX_CANDIDATES: usize = 10;
/// Number of manifests read in parallel.
const PARALLEL: usize = 16;
/// Number of manifests whose listing entries are cached.
const MAX_REMEMBERED: usize = 4096;
/// Where our dumps stand.
pub(crate) const DUMPS: &str = "dumps/";
/// Folders that hold no dumps of other agents.
pub(crate) const OURS: [&str; 4] = [DUMPS, "drops/", FIRST_SEEN, MODULES];

/// Whether the key is in one of our folders that hold no dumps, whatever its name looks like.
pub(crate) fn holds_no_dumps(key: &str) -> bool {
    let mut folders = OURS.iter().filter(|folder| **folder != DUMPS);
    folders.any(|folder| key.starts_with(folder))
}

/// The dumps of a store.
pub struct Catalog<'s> {
    store: &'s dyn Store,
    cache: Option<ManifestCache>,
    /// The manifests of a small selection, as described by the last listing, to save requests for
    /// them.
    listed: Mutex<HashMap<ObjectKey, ObjectStat>>,
}

/// Listed bundles and manifests: a dump of ours exists only if both do.
#[derive(Default)]
pub(crate) struct Found {
    bundles: BTreeMap<ObjectKey, DumpSummary>,
    manifests: BTreeMap<ObjectKey, ObjectStat>,
}

impl Found {
    fn add(&mut self, object: ListedObject) {
        if object.key.as_str().ends_with(".manifest.json") {
            let stat = object.stat();
            self.manifests.insert(object.key, stat);
        } else if let Some(mut summary) = DumpSummary::from_key(&object.key) {
            summary.size = Some(object.size);
            summary.modified = object.modified;
            if summary.captured_at == Timestamp::UNIX_EPOCH
                && let Some(written) = object.modified
            {
                // The name has no time; the object was written soon after the crash.
                summary.captured_at = written;
            }
            if summary.legacy {
                let stat = ListedObject {
                    key: object.key.clone(),
                    ..object
                }
                .stat();
                self.manifests.insert(object.key.clone(), stat);
            }
            self.bundles.insert(object.key, summary);
        }
    }

    /// All listed dumps, committed or not.
    pub(crate) fn bundles(&self) -> impl Iterator<Item = &DumpSummary> {
        self.bundles.values()
    }

    /// Dumps whose names do not determine the contents.
    fn uncertain(&self) -> impl Iterator<Item = &DumpSummary> {
        self.bundles.values().filter(|dump| !dump.is_certain())
    }

    /// Newest first.
    pub(crate) fn sorted(&self, query: &Query) -> Vec<DumpSummary> {
        let mut dumps: Vec<_> = self.matching(query).cloned().collect();
        // Dumps of the same second always have the same order.
        dumps.sort_by(|a, b| (b.captured_at, &b.key).cmp(&(a.captured_at, &a.key)));
        dumps
    }

    fn matching(&self, query: &Query) -> impl Iterator<Item = &DumpSummary> {
        self.bundles.values().filter(|dump| {
            let is_committed = || {
                let manifest = dump.key.manifest();
                manifest.is_some_and(|key| self.manifests.contains_key(&key))
            };
            (dump.legacy || is_committed()) && query.matches(dump)
        })
    }
}

impl<'s> Catalog<'s> {
    /// Of this store.
    #[must_use]
    pub fn new(store: &'s dyn Store) -> Self {
        Self {
            store,
            cache: None,
            listed: Mutex::default(),
        }
    }

    pub(crate) fn store(&self) -> &'s dyn Store {
        self.store
    }

    /// Caches the manifests that it reads.
    #[must_use]
    pub fn with_cache(self, cache: ManifestCache) -> Self {
        Self {
            cache: Some(cache),
            ..self
        }
    }

    /// The matching dumps, newest first. A bundle without its manifest beside it is not a dump yet,
    /// unless IBM's agent wrote it.
    ///
    /// # Errors
    /// If the store cannot be listed, or a manifest that the query needs cannot be read.
    pub fn find(&self, query: &Query) -> Result<Vec<DumpSummary>, StoreError> {
        let found = self.collect(query)?;
        self.select(query, &found)
    }

    /// Lists all keys that the query may match.
    pub(crate) fn collect(&self, query: &Query) -> Result<Found, StoreError> {
        let narrowed = query.since.is_some() || query.until.is_some() || query.limit.is_some();
        let mut found = Found::default();
        match narrowed {
            false => {
                self.list(&Listing::default(), &mut found)?;
                self.read_uncertain(&mut found);
            }
            true => {
                self.list_elsewhere(&mut found)?;
                self.read_uncertain(&mut found);
                match query.limit.filter(|_| !query.needs_manifest()) {
                    Some(limit) => self.list_newest(query, limit, &mut found)?,
                    None => self.list_days(query, &mut found)?,
                }
            }
        }
        Ok(found)
    }

    /// Replaces guesses from the names of zips by facts from their contents. If a zip cannot be read, the guess
    /// remains.
    fn read_uncertain(&self, found: &mut Found) {
        let mut dumps: Vec<_> = found.uncertain().cloned().collect();
        if dumps.is_empty() {
            return;
        }
        let stats = dumps.iter().filter_map(|dump| {
            let stat = found.manifests.get(&dump.key)?.clone();
            Some((dump.key.clone(), stat))
        });
        *self.listed() = stats.collect();
        self.refine(&mut dumps);
        for dump in dumps {
            found.bundles.insert(dump.key.clone(), dump);
        }
    }

    /// Like `read_uncertain`, for some dumps.
    pub(crate) fn refine(&self, dumps: &mut [DumpSummary]) {
        let is_uncertain = |dump: &&mut DumpSummary| !dump.is_certain();
        let mut uncertain: Vec<_> = dumps.iter_mut().filter(is_uncertain).collect();
        let copies: Vec<_> = uncertain.iter().map(|dump| (**dump).clone()).collect();
        for (dump, manifest) in uncertain.iter_mut().zip(self.manifests(&copies)) {
            if let Ok(manifest) = manifest {
                dump.refine(&manifest);
            }
        }
    }

    /// Records how the listing described the manifests of these dumps. Only a cache needs this to distinguish
    /// versions.
    fn remember(&self, found: &Found, dumps: &[DumpSummary]) {
        if self.cache.is_none() || dumps.len() > MAX_REMEMBERED {
            return;
        }
        let stats = dumps.iter().filter_map(|dump| {
            let key = match dump.legacy {
                true => dump.key.clone(),
                false => dump.key.manifest()?,
            };
            let stat = found.manifests.get(&key)?.clone();
            stat.etag.is_some().then_some((key, stat))
        });
        *self.listed() = stats.collect();
    }

    fn listed(&self) -> std::sync::MutexGuard<'_, HashMap<ObjectKey, ObjectStat>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The matching dumps of a listing, newest first; reads manifests if the query needs them.
    pub(crate) fn select(
        &self,
        query: &Query,
        found: &Found,
    ) -> Result<Vec<DumpSummary>, StoreError> {
        let limit = query.limit.unwrap_or(usize::MAX);
        let mut dumps = found.sorted(query);
        self.remember(found, &dumps);
        if dumps.iter().all(|dump| query.is_certain_of(dump)) {
            dumps.truncate(limit);
            return Ok(dumps);
        }
        let mut matching = Vec::new();
        for some in dumps.chunks(PARALLEL * 4) {
            let unknown: Vec<DumpSummary> = some
                .iter()
                .filter(|dump| !query.is_certain_of(dump))
                .cloned()
                .collect();
            let mut manifests = self.manifests(&unknown).into_iter();
            for dump in some {
                if query.is_certain_of(dump) {
                    matching.push(dump.clone());
                    continue;
                }
                let Some(manifest) = manifests.next() else {
                    break;
                };
                match manifest {
                    Ok(manifest)
                        if query.matches_facts(dump.cut, &ManifestFacts::of(&manifest)) =>
                    {
                        matching.push(dump.clone());
                    }
                    // Removed since it was listed, or damaged: one dump must not hide the others.
                    Ok(_) | Err(StoreError::NotFound { .. } | StoreError::Bundle { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            if matching.len() >= limit {
                matching.truncate(limit);
                break;
            }
        }
        Ok(matching)
    }

    fn list(&self, listing: &Listing<'_>, found: &mut Found) -> Result<(), StoreError> {
        self.store.list(listing, &mut |listed| {
            if let Listed::Object(object) = listed {
                found.add(object);
            }
            ControlFlow::Continue(())
        })
    }

    /// Lists everything that other agents may have written. Our own folders are skipped: their objects
    /// are either not dumps, or found by their day.
    fn list_elsewhere(&self, found: &mut Found) -> Result<(), StoreError> {
        let mut folders = Vec::new();
        self.store.list(&Listing::level(""), &mut |listed| {
            match listed {
                Listed::Object(object) => found.add(object),
                Listed::Prefix(prefix) if OURS.contains(&prefix.as_str()) => {}
                Listed::Prefix(prefix) => folders.push(prefix),
            }
            ControlFlow::Continue(())
        })?;
        for folder in folders {
            self.list(&Listing::all(&folder), found)?;
        }
        Ok(())
    }

    /// Lists from `since` to `until` in one pass.
    fn list_days(&self, query: &Query, found: &mut Found) -> Result<(), StoreError> {
        // Keys of this second sort after this string, which is not a key.
        let first = query.since.map(second);
        // `[` sorts after the `Z` of the last second.
        let last = query
            .until
            .map(|until| second(until).trim_end_matches('Z').to_owned() + "[");
        let mut listing = Listing::all(DUMPS);
        listing.start_after = first.as_deref();
        self.store.list(&listing, &mut |listed| {
            let Listed::Object(object) = listed else {
                return ControlFlow::Continue(());
            };
            if last
                .as_deref()
                .is_some_and(|last| object.key.as_str() > last)
            {
                return ControlFlow::Break(());
            }
            found.add(object);
            ControlFlow::Continue(())
        })
    }

    /// Lists day by day, newest first, until enough dumps match.
    fn list_newest(
        &self,
        query: &Query,
        limit: usize,
        found: &mut Found,
    ) -> Result<(), StoreError> {
        let mut days = Vec::new();
        self.store.list(&Listing::level(DUMPS), &mut |listed| {
            match listed {
                Listed::Object(object) => found.add(object),
                Listed::Prefix(day) => days.push(day),
            }
            ControlFlow::Continue(())
        })?;
        let date = |time| TimeZone::UTC.to_datetime(time).date().to_string();
        let (since, until) = (query.since.map(date), query.until.map(date));
        days.sort();
        for day in days.iter().rev() {
            let name = day.trim_start_matches(DUMPS).trim_end_matches('/');
            let is_wanted = since.as_deref().is_none_or(|since| name >= since)
                && until.as_deref().is_none_or(|until| name <= until);
            if !is_wanted {
                continue;
            }
            self.list(&Listing::all(day), found)?;
            // Dumps in other folders may be newer or older than this day.
            let newer = found.matching(query).filter(|dump| {
                let captured = date(dump.captured_at);
                captured.as_str() >= name && query.is_certain_of(dump)
            });
            if newer.count() >= limit {
                break;
            }
        }
        Ok(())
    }

    /// The manifests of these dumps, in their order; several are read in parallel.
    pub fn manifests(&self, dumps: &[DumpSummary]) -> Vec<Result<Manifest, StoreError>> {
        let next = AtomicUsize::new(0);
        let found: Vec<_> = dumps.iter().map(|_| Mutex::new(None)).collect();
        std::thread::scope(|scope| {
            let read = || {
                while let Some((dump, place)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    dumps.get(index).zip(found.get(index))
                } {
                    let manifest = self.manifest(dump);
                    if let Ok(mut place) = place.lock() {
                        *place = Some(manifest);
                    }
                }
            };
            for _ in 1..dumps.len().min(PARALLEL) {
                scope.spawn(read);
            }
            read();
        });
        let lost = || {
            Err(StoreError::NotFound {
                path: "a manifest".to_owned(),
            })
        };
        found
            .into_iter()
            .map(|place| place.into_inner().ok().flatten().unwrap_or_else(lost))
            .collect()
    }

    /// The dump that `reference` means: an id, a prefix of one, `latest`, or `@N`, the N-th before the latest.
    /// `~N` means the same, but bash and zsh may expand it.
    ///
    /// # Errors
    /// If there is none, if there are several, or if the store fails.
    pub fn resolve(&self, reference: &str) -> Result<DumpSummary, ResolveError> {
        let not_found = || ResolveError::NotFound {
            reference: reference.to_owned(),
        };
        let nth = match reference {
            "latest" => Some(0),
            other => other
                .strip_prefix(['@', '~'])
                .and_then(|number| number.parse::<usize>().ok()),
        };
        if let Some(nth) = nth {
            return self.nth_newest(nth)?.ok_or_else(not_found);
        }
        let wanted: IdPrefix = reference.parse().map_err(|_| not_found())?;
        let mut matching: Vec<_> = self
            .find(&Query::default())?
            .into_iter()
            .filter(|dump| wanted.matches(&dump.id))
            .collect();
        if wanted.is_complete() {
            // Copies of one dump have the same id and are the same dump.
            matching.truncate(1);
        }
        if matching.len() > 1 {
            let count = matching.len();
            matching.truncate(MAX_CANDIDATES);
            return Err(ResolveError::Ambiguous {
                reference: reference.to_owned(),
                count,
                candidates: matching,
            });
        }
        matching.pop().ok_or_else(not_found)
    }

    /// Whether a dump's bundle still exists.
    pub(crate) fn has_bundle(&self, dump: &DumpSummary) -> Result<bool, StoreError> {
        Ok(self.store.stat(&dump.key)?.is_some())
    }

    /// The manifest beside the bundle of `dump`; `None` if there is none, as with IBM's zips.
    ///
    /// # Errors
    /// If it is damaged, or the store fails.
    pub fn manifest_beside(&self, dump: &DumpSummary) -> Result<Option<Manifest>, StoreError> {
        if dump.legacy || dump.key.manifest().is_none() {
            return Ok(None);
        }
        match self.manifest(dump) {
            Err(StoreError::NotFound { .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    /// The manifest of a dump; made from IBM's files for a legacy zip.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn manifest(&self, dump: &DumpSummary) -> Result<Manifest, StoreError> {
        let Some(key) = dump.key.manifest().filter(|_| !dump.legacy) else {
            return self.manifest_of_zip(dump);
        };
        let not_found = || StoreError::NotFound {
            path: key.to_string(),
        };
        let listed = self.listed().remove(&key);
        if let Some(stat) = listed {
            match self.manifest_as(&key, &stat) {
                // Replaced or removed since it was listed.
                Err(StoreError::Changed { .. } | StoreError::NotFound { .. }) => {}
                other => return other,
            }
        }
        let stat = self.store.stat(&key)?.ok_or_else(not_found)?;
        self.manifest_as(&key, &stat)
    }

    /// The manifest that is made from a zip of IBM's agent. With a cache, each zip is read once.
    fn manifest_of_zip(&self, dump: &DumpSummary) -> Result<Manifest, StoreError> {
        let place = self.store.describe();
        let listed = self.listed().remove(&dump.key);
        let etag = listed.and_then(|stat| stat.etag);
        let cached = self.cache.as_ref().zip(etag.as_deref());
        if let Some(json) = cached.and_then(|(cache, etag)| cache.get(&place, &dump.key, etag))
            && let Ok(manifest) = Manifest::from_json(&json)
        {
            return Ok(manifest);
        }
        let source = self.store.read(&dump.key)?;
        let bundle = BundleReader::open(source).map_err(|source| StoreError::Bundle {
            key: dump.key.to_string(),
            source,
        })?;
        let manifest = bundle.summary_manifest();
        if let Some((cache, etag)) = cached
            && let Ok(json) = manifest.to_json()
        {
            cache.put(&place, &dump.key, etag, &json);
        }
        Ok(manifest)
    }

    /// The manifest's object as described by `stat`.
    fn manifest_as(&self, key: &ObjectKey, stat: &ObjectStat) -> Result<Manifest, StoreError> {
        let place = self.store.describe();
        let cached = self.cache.as_ref().zip(stat.etag.as_deref());
        if let Some(json) = cached.and_then(|(cache, etag)| cache.get(&place, key, etag))
            && let Ok(manifest) = Manifest::from_json(&json)
        {
            return Ok(manifest);
        }
        let source = self.store.read_pinned(key, stat)?;
        let size = usize::try_from(source.len().min(MAX_MANIFEST)).unwrap_or(usize::MAX);
        let mut json = vec![0; size];
        let count = source
            .read_at(0, &mut json)
            .map_err(|error| StoreError::from_io(key.as_str(), error))?;
        json.truncate(count);
        if let Some((cache, etag)) = cached {
            cache.put(&place, key, etag, &json);
        }
        Manifest::from_json(&json).map_err(|source| StoreError::Bundle {
            key: key.to_string(),
            source,
        })
    }
}

/// The prefix of keys of this second: `dumps/2026-01-31/123456Z`.
pub(crate) fn second(time: Timestamp) -> String {
    let at = TimeZone::UTC.to_datetime(time);
    let (date, hour, minute, second) = (at.date(), at.hour(), at.minute(), at.second());
    format!("{DUMPS}{date}/{hour:02}{minute:02}{second:02}Z")
}
