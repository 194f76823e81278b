//! Records when the store first received each crash, in tiny objects whose names contain
//! everything.
//!
//! ```text
//! first-seen/<fingerprint>_<YYYYMMDD>T<HHMMSS>Z     {"schema":1,"key":"dumps/….zip"}
//! first-seen/since_<YYYYMMDD>T<HHMMSS>Z             every dump shipped after this time is in the index
//! ```
//!
//! Invariant: readers take the minimum, so no conditional put is needed. Concurrent or out-of-order
//! writers only add another object. An entry is written before the manifest that commits its dump: a
//! writer that dies in between has recorded a crash that is shipped again later. Entries are not deleted
//! with their dumps, so a crash whose old dumps were deleted does not look new.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cdh_bundle::Manifest;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::catalog::DUMPS;
use crate::{Listed, Listing, ObjectKey, Store, StoreError};

/// Prefix of the index.
pub(crate) const FIRST_SEEN: &str = "first-seen/";
/// The word in a marker's name, in the place of the fingerprint.
const SINCE: &str = "since";
/// Digits of a fingerprint in keys.
const FINGERPRINT: usize = 8;
/// `20260131T123456Z`.
const TIME: &str = "%Y%m%dT%H%M%SZ";
/// Maximum objects of the index in one listing: 50 requests to a bucket.
const MAX_OBJECTS: usize = 50_000;
/// Maximum objects listed of one fingerprint; the oldest come first.
const MAX_OF_ONE: usize = 1_000;
/// Maximum fingerprints that a writer caches.
const MAX_REMEMBERED: usize = 10_000;
/// A writer reads the index again after this time: the bucket may have been emptied.
const MEMORY: Duration = Duration::from_secs(3600);

/// One object of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// When a crash with this fingerprint was seen.
    Seen(String, Timestamp),
    /// All dumps shipped after this time are in the index.
    Since(Timestamp),
}

impl Entry {
    fn parse(key: &ObjectKey) -> Option<Self> {
        let name = key.as_str().strip_prefix(FIRST_SEEN)?;
        let (what, text) = name.split_once('_')?;
        let time = DateTime::strptime(TIME, text).ok()?;
        let time = TimeZone::UTC.to_timestamp(time).ok()?;
        // `strptime` accepts more forms than we write.
        if time.strftime(TIME).to_string() != text {
            return None;
        }
        match what {
            SINCE => Some(Self::Since(time)),
            _ if is_fingerprint(what) => Some(Self::Seen(what.to_owned(), time)),
            _ => None,
        }
    }

    fn key(what: &str, time: Timestamp) -> Result<ObjectKey, StoreError> {
        ObjectKey::parse(&format!("{FIRST_SEEN}{what}_{}", time.strftime(TIME)))
    }
}

/// Whether a fingerprint in a key has the format of our agents. Others are not indexed.
pub(crate) fn is_fingerprint(text: &str) -> bool {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == FINGERPRINT && text.bytes().all(is_hex)
}

/// The index as a reader sees it. Invalid names and times in the future are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirstSeenIndex {
    times: HashMap<String, Timestamp>,
    since: Option<Timestamp>,
    /// The last listed key, if there are more.
    cut_at: Option<ObjectKey>,
}

impl FirstSeenIndex {
    /// Reads the index: one request to a bucket per 1,000 objects, 50 requests maximum.
    ///
    /// # Errors
    /// If the store cannot be listed.
    pub fn read(store: &dyn Store, now: Timestamp) -> Result<Self, StoreError> {
        let mut index = Self::default();
        let mut left = MAX_OBJECTS;
        store.list(&Listing::all(FIRST_SEEN), &mut |listed| {
            let Listed::Object(object) = listed else {
                return ControlFlow::Continue(());
            };
            index.add(&object.key, now);
            left = left.saturating_sub(1);
            if left == 0 {
                index.cut_at = Some(object.key);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        if index.cut_at.is_some() && index.since.is_none() {
            index.since = since(store, now)?;
        }
        Ok(index)
    }

    /// Adds the contents of an object's name.
    pub(crate) fn add(&mut self, key: &ObjectKey, now: Timestamp) {
        match Entry::parse(key) {
            Some(Entry::Seen(fingerprint, time)) if time <= now => {
                let known = self.times.entry(fingerprint).or_insert(time);
                *known = time.min(*known);
            }
            Some(Entry::Since(time)) if time <= now => {
                self.since = Some(self.since.map_or(time, |known| known.min(time)));
            }
            _ => {}
        }
    }

    /// When a crash with this fingerprint (eight digits) was first seen, as far as the index knows.
    #[must_use]
    pub fn first(&self, fingerprint: &str) -> Option<Timestamp> {
        self.times.get(fingerprint).copied()
    }

    /// All known fingerprints (eight digits) with their first times.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.times.iter().map(|(text, time)| (text.as_str(), *time))
    }

    /// All dumps shipped after this time are in the index; `None` if that is unknown.
    #[must_use]
    pub fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// Whether every dump that the store ever received is in the index.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.since == Some(Timestamp::UNIX_EPOCH)
    }

    /// Whether the listing ended before the entries of this fingerprint.
    pub(crate) fn is_beyond(&self, fingerprint: &str) -> bool {
        let own = format!("{FIRST_SEEN}{fingerprint}`");
        let cut = self.cut_at.as_ref();
        cut.is_some_and(|cut| own.as_str() > cut.as_str())
    }

    pub(crate) fn insert(&mut self, fingerprint: &str, time: Timestamp) {
        let known = self.times.entry(fingerprint.to_owned()).or_insert(time);
        *known = time.min(*known);
    }
}

/// The oldest valid entry of one fingerprint: keys sort by time.
pub(crate) fn first_of(
    store: &dyn Store,
    fingerprint: &str,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let mut first = None;
    visit_of(store, fingerprint, &mut |entry| {
        if let Entry::Seen(_, time) = entry {
            first = Some(time).filter(|time| *time <= now);
        }
        first.is_some()
    })?;
    Ok(first)
}

fn since(store: &dyn Store, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let mut first = None;
    visit_of(store, SINCE, &mut |entry| {
        if let Entry::Since(time) = entry {
            first = Some(time).filter(|time| *time <= now);
        }
        first.is_some()
    })?;
    Ok(first)
}

/// Visits entries with this word, oldest first, until `is_enough`.
fn visit_of(
    store: &dyn Store,
    what: &str,
    is_enough: &mut dyn FnMut(Entry) -> bool,
) -> Result<(), StoreError> {
    let under = format!("{FIRST_SEEN}{what}_");
    let mut left = MAX_OF_ONE;
    store.list(&Listing::all(&under), &mut |listed| {
        left = left.saturating_sub(1);
        if let Listed::Object(object) = listed
            && let Some(entry) = Entry::parse(&object.key)
            && is_enough(entry)
        {
            return ControlFlow::Break(());
        }
        match left {
            0 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    })
}

/// Writes the index, and caches its contents: one listing per new fingerprint.
#[derive(Clone, Debug, Default)]
pub struct FirstSeenWriter {
    memory: Arc<Mutex<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    /// Oldest time in the index by fingerprint, and the time of the lookup.
    known: HashMap<String, (Timestamp, Instant)>,
    /// Entries that could not be written.
    pending: BTreeMap<String, (Timestamp, ObjectKey)>,
    /// When the marker was last seen or written.
    marked: Option<Instant>,
}

impl FirstSeenWriter {
    /// Records the dump with this manifest, whose bundle has this key, before it is committed.
    /// Retries entries that an earlier call could not write.
    ///
    /// # Errors
    /// If the store cannot be listed or written to. The dump itself is not affected.
    pub fn record(
        &self,
        store: &dyn Store,
        manifest: &Manifest,
        key: &ObjectKey,
    ) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let marked = self.mark(store, key, now);
        let fingerprint = manifest.fingerprint.as_deref().unwrap_or_default();
        let short: String = fingerprint.chars().take(FINGERPRINT).collect();
        let time = manifest.listed_at();
        if is_fingerprint(&short) && time <= now {
            let mut memory = self.memory();
            let old = memory.pending.get(&short);
            if old.is_none_or(|(pending, _)| time < *pending) {
                memory.pending.insert(short, (time, key.clone()));
            }
        }
        let pending = std::mem::take(&mut self.memory().pending);
        let mut written = marked;
        for (fingerprint, (time, key)) in pending {
            // After one failure, the others would only wait longer.
            let outcome = written.and_then(|()| self.write(store, &fingerprint, time, &key, now));
            if outcome.is_err() {
                let mut memory = self.memory();
                if memory.pending.len() < MAX_REMEMBERED {
                    memory.pending.insert(fingerprint, (time, key));
                }
            }
            written = outcome;
        }
        written
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(
        &self,
        store: &dyn Store,
        fingerprint: &str,
        time: Timestamp,
        key: &ObjectKey,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let second = Timestamp::from_second(time.as_second()).unwrap_or(time);
        let known = self.memory().known.get(fingerprint).copied();
        let known = known.filter(|(_, looked)| looked.elapsed() < MEMORY);
        let known = match known {
            Some((first, _)) => Some(first),
            None => match first_of(store, fingerprint, now) {
                Ok(first) => first,
                // Credentials that can write but not list: one object per fingerprint and process
                // is acceptable.
                Err(StoreError::Denied { .. }) => None,
                Err(error) => return Err(error),
            },
        };
        let first = known.map_or(second, |known| known.min(second));
        if known != Some(first) {
            put(store, &Entry::key(fingerprint, second)?, Some(key))?;
        }
        let mut memory = self.memory();
        if memory.known.len() >= MAX_REMEMBERED {
            memory.known.clear();
        }
        let now = Instant::now();
        memory.known.insert(fingerprint.to_owned(), (first, now));
        Ok(())
    }

    /// Ensures that the store has a marker since when it is indexed: from the beginning if it has no dump
    /// yet.
    fn mark(&self, store: &dyn Store, own: &ObjectKey, now: Timestamp) -> Result<(), StoreError> {
        let fresh = |marked: Instant| marked.elapsed() < MEMORY;
        if self.memory().marked.is_some_and(fresh) {
            return Ok(());
        }
        let outcome = (|| {
            if since(store, now)?.is_some() {
                return Ok(());
            }
            let from = match has_other_dump(store, own)? {
                true => now,
                false => Timestamp::UNIX_EPOCH,
            };
            put(store, &Entry::key(SINCE, from)?, None)
        })();
        match outcome {
            // Without a marker, readers list further back.
            Ok(()) | Err(StoreError::Denied { .. }) => {
                self.memory().marked = Some(Instant::now());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

fn has_other_dump(store: &dyn Store, own: &ObjectKey) -> Result<bool, StoreError> {
    let own = own.manifest();
    let mut found = false;
    store.list(&Listing::all(DUMPS), &mut |listed| {
        if let Listed::Object(object) = listed
            && object.key.as_str().ends_with(".manifest.json")
            && Some(&object.key) != own.as_ref()
        {
            found = true;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

fn put(store: &dyn Store, key: &ObjectKey, dump: Option<&ObjectKey>) -> Result<(), StoreError> {
    let body = serde_json::json!({"schema": 1, "key": dump.map(ObjectKey::as_str)}).to_string();
    match store.put(key, &mut body.as_bytes(), body.len() as u64) {
        // Not every server that acknowledges an object has stored it.
        Ok(_) => match store.stat(key)? {
            Some(_) => Ok(()),
            None => Err(StoreError::NotFound {
                path: key.to_string(),
            }),
        },
        // Another dump of the same second: only the name matters.
        Err(StoreError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Adds missing entries of `times` to the index, several in parallel, and marks the store as indexed from
/// the beginning. For a caller that has listed every dump.
///
/// # Errors
/// If the store cannot be listed or written to; the next call continues.
pub(crate) fn complete(
    store: &dyn Store,
    times: &HashMap<&str, (Timestamp, &ObjectKey)>,
    now: Timestamp,
) -> Result<usize, StoreError> {
    /// Number of objects written in parallel.
    const PARALLEL: usize = 16;
    let index = FirstSeenIndex::read(store, now)?;
    let mut missing = Vec::new();
    for (fingerprint, (time, key)) in times {
        let known = match index.is_beyond(fingerprint) {
            true => first_of(store, fingerprint, now)?,
            false => index.first(fingerprint),
        };
        if known.is_none_or(|known| known.as_second() > time.as_second()) {
            missing.push((*fingerprint, *time, *key));
        }
    }
    let share = missing.len().div_ceil(PARALLEL).max(1);
    let write = |some: &[(&str, Timestamp, &ObjectKey)]| {
        some.iter().try_for_each(|(fingerprint, time, key)| {
            put(store, &Entry::key(fingerprint, *time)?, Some(key))
        })
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = missing
            .chunks(share)
            .map(|some| scope.spawn(move || write(some)))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            let lost = |_| {
                Err(StoreError::Refused {
                    place: store.describe(),
                    said: "a thread panicked".to_owned(),
                })
            };
            thread.join().unwrap_or_else(lost)
        })
    })?;
    if !index.is_whole() {
        put(store, &Entry::key(SINCE, Timestamp::UNIX_EPOCH)?, None)?;
    }
    Ok(missing.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Option<Entry> {
        Entry::parse(&ObjectKey::parse(&format!("{FIRST_SEEN}{name}")).unwrap())
    }

    #[test]
    fn first_seen_names_are_read_back_and_others_mean_nothing() {
        let time: Timestamp = "2026-01-31T12:34:56Z".parse().unwrap();
        let key = Entry::key("0123abcd", time).unwrap();
        assert_eq!(key.as_str(), "first-seen/0123abcd_20260131T123456Z");
        assert_eq!(
            entry("0123abcd_20260131T123456Z"),
            Some(Entry::Seen("0123abcd".to_owned(), time))
        );
        assert_eq!(
            entry("since_19700101T000000Z"),
            Some(Entry::Since(Timestamp::UNIX_EPOCH))
        );
        for name in [
            "0123abcd",
            "0123abcd_",
            "0123abcd_20260131T123456",
            "0123abcd_20260231T123456Z",
            "0123abcd_+2026131T123456Z",
            "0123abcd_20260131T123456Z.zip",
            "0123ABCD_20260131T123456Z",
            "0123abc_20260131T123456Z",
            "-_20260131T123456Z",
            "sometimes_20260131T123456Z",
            "0123abcd_20260131T123456Z/x",
        ] {
            assert_eq!(entry(name), None, "{name}");
        }
    }

    #[test]
    fn index_takes_the_oldest_and_ignores_the_future() {
        let now: Timestamp = "2026-02-01T00:00:00Z".parse().unwrap();
        let mut index = FirstSeenIndex::default();
        for name in [
            "0123abcd_20260131T123456Z",
            "0123abcd_20260130T000000Z",
            "0123abcd_20260203T000000Z",
            "ffffffff_20990101T000000Z",
            "since_20990101T000000Z",
        ] {
            let key = ObjectKey::parse(&format!("{FIRST_SEEN}{name}")).unwrap();
            index.add(&key, now);
        }
        let first = "2026-01-30T00:00:00Z".parse().ok();
        assert_eq!(index.first("0123abcd"), first);
        assert_eq!((index.first("ffffffff"), index.since()), (None, None));
    }
}
