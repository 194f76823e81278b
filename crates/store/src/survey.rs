//! Finds matching dumps, and when the whole store first received their crashes, whatever the query hides.
//!
//! Three sources, cheapest first: the query's own listing, the index below `first-seen/`, and, for
//! dumps from before the index, a limited listing of older days, newest first.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

use crate::catalog::DUMPS;
use crate::first_seen::{self, FirstSeenIndex, is_fingerprint};
use crate::{Catalog, DumpSummary, Listed, Listing, Query, StoreError};

/// How far back to search for dumps from before the index.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Maximum objects listed for this: about 200 requests to a bucket.
const MAX_OBJECTS: usize = 200_000;
/// Number of days listed in parallel.
const PARALLEL: usize = 8;
/// Maximum fingerprints that are looked up individually if the index is too large for one listing.
const MAX_LOOKUPS: usize = 512;

/// Dumps that match a query, and when the store first received their crashes.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Newest first.
    pub dumps: Vec<DumpSummary>,
    /// The first times for the fingerprints of these dumps.
    pub first_seen: FirstSeen,
}

/// How far back first times were searched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// The whole store.
    #[default]
    Whole,
    /// Dumps from before this time were not examined: crashes may be older than they seem.
    Since(Timestamp),
}

/// When the store first received each crash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirstSeen {
    times: HashMap<String, Timestamp>,
    reach: Reach,
}

impl FirstSeen {
    /// Adds one time; the oldest of a fingerprint counts.
    pub fn insert(&mut self, fingerprint: &str, time: Timestamp) {
        match self.times.get_mut(fingerprint) {
            Some(known) => *known = time.min(*known),
            None => {
                self.times.insert(fingerprint.to_owned(), time);
            }
        }
    }

    /// When a crash with this fingerprint was first seen.
    #[must_use]
    pub fn first(&self, fingerprint: &str) -> Option<Timestamp> {
        self.times.get(fingerprint).copied()
    }

    /// How far back the search went.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.reach
    }
}

/// The parameters of a survey.
#[derive(Clone, Copy, Debug)]
pub struct SurveyOptions {
    /// It is enough to know that a crash is older than this.
    pub enough: Option<Timestamp>,
    /// Times after this are ignored as wrong.
    pub now: Timestamp,
}

impl Catalog<'_> {
    /// Like [`find`](Self::find), with the time at which the whole store first received each crash.
    ///
    /// # Errors
    /// As there.
    pub fn survey(&self, query: &Query, options: SurveyOptions) -> Result<Survey, StoreError> {
        let now = options.now;
        let found = self.collect(query)?;
        let dumps = self.select(query, &found)?;
        let wanted: HashSet<&str> = dumps.iter().filter_map(indexed).collect();
        let mut first_seen = FirstSeen::default();
        for dump in found.bundles() {
            let fingerprint = dump.fingerprint.as_deref();
            if let Some(fingerprint) = fingerprint.filter(|text| wanted.contains(text))
                && dump.captured_at <= now
            {
                first_seen.insert(fingerprint, dump.captured_at);
            }
        }
        let lists_the_oldest = query.since.is_none() && query.limit.is_none();
        let mut index = FirstSeenIndex::read(self.store(), now)?;
        let is_all_known = self.look_up(&wanted, &mut index, now)?;
        for fingerprint in &wanted {
            if let Some(time) = index.first(fingerprint) {
                first_seen.insert(fingerprint, time);
            }
        }
        let is_settled = lists_the_oldest || index.is_whole() && is_all_known;
        if !is_settled && !wanted.is_empty() {
            let listed = query.since.unwrap_or(now);
            let indexed = index.since().filter(|_| is_all_known);
            let end = indexed.map_or(listed, |since| since.min(listed));
            first_seen.reach = self.look_back(end, wanted, &mut first_seen, options)?;
        }
        Ok(Survey { dumps, first_seen })
    }

    /// Completes the index with all of `dumps`, which must be those of the whole store. Returns how many
    /// crashes were missing in the index or had a later time. This runs before old dumps are deleted, so
    /// that their crashes do not look new.
    ///
    /// # Errors
    /// If the store cannot be listed or written to.
    pub fn complete_first_seen(
        &self,
        dumps: &[DumpSummary],
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let mut times = HashMap::new();
        for dump in dumps.iter().filter(|dump| dump.captured_at <= now) {
            let Some(fingerprint) = indexed(dump) else {
                continue;
            };
            let known = times
                .entry(fingerprint)
                .or_insert((dump.captured_at, &dump.key));
            if dump.captured_at < known.0 {
                *known = (dump.captured_at, &dump.key);
            }
        }
        first_seen::complete(self.store(), &times, now)
    }

    /// Looks up the wanted fingerprints in an index that is too large for one listing; returns whether
    /// all were found.
    fn look_up(
        &self,
        wanted: &HashSet<&str>,
        index: &mut FirstSeenIndex,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let beyond = wanted.iter().filter(|text| index.is_beyond(text));
        let beyond: Vec<&str> = beyond.copied().collect();
        let asked = beyond.get(..MAX_LOOKUPS).unwrap_or(&beyond);
        for some in asked.chunks(PARALLEL) {
            let found = in_parallel(some, |fingerprint| {
                first_seen::first_of(self.store(), fingerprint, now)
            })?;
            for (fingerprint, time) in some.iter().zip(found) {
                if let Some(time) = time {
                    index.insert(fingerprint, time);
                }
            }
        }
        Ok(asked.len() == beyond.len())
    }

    /// Lists the days up to `end`, newest first, for dumps that no index contains.
    fn look_back(
        &self,
        end: Timestamp,
        mut wanted: HashSet<&str>,
        first_seen: &mut FirstSeen,
        options: SurveyOptions,
    ) -> Result<Reach, StoreError> {
        let is_old = |first: Option<Timestamp>| {
            options
                .enough
                .is_some_and(|enough| first.is_some_and(|first| first < enough))
        };
        wanted.retain(|text| !is_old(first_seen.first(text)));
        let date = |time| TimeZone::UTC.to_datetime(time).date();
        let (newest, oldest) = (
            date(end),
            date(end.saturating_sub(LOOK_BACK).unwrap_or(end)),
        );
        let mut days = self.days()?;
        days.retain(|day| *day <= newest);
        days.sort_unstable_by(|a, b| b.cmp(a));
        let start_of = |day: Date| TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).ok();
        let left = AtomicUsize::new(MAX_OBJECTS);
        for some in days.chunks(PARALLEL) {
            if wanted.is_empty() {
                return Ok(Reach::Whole);
            }
            let is_near = |day: &&Date| **day >= oldest;
            let near: Vec<Date> = some.iter().take_while(is_near).copied().collect();
            let found = in_parallel(&near, |day| self.day(*day, &wanted, &left))?;
            let mut complete = near.len();
            for (number, day) in found.into_iter().enumerate() {
                for (fingerprint, time) in day.times {
                    first_seen.insert(&fingerprint, time);
                }
                if day.is_cut {
                    complete = complete.min(number);
                }
            }
            wanted.retain(|text| !is_old(first_seen.first(text)));
            if complete < some.len() && !wanted.is_empty() {
                // The day after the newest one whose listing is incomplete.
                let next = some
                    .get(complete)
                    .and_then(|day| day.checked_add(1.day()).ok());
                return Ok(Reach::Since(next.and_then(start_of).unwrap_or(end)));
            }
        }
        Ok(Reach::Whole)
    }

    fn days(&self) -> Result<Vec<Date>, StoreError> {
        let mut days = Vec::new();
        self.store().list(&Listing::level(DUMPS), &mut |listed| {
            if let Listed::Prefix(day) = listed {
                let name = day.trim_start_matches(DUMPS).trim_end_matches('/');
                days.extend(name.parse::<Date>());
            }
            ControlFlow::Continue(())
        })?;
        Ok(days)
    }

    fn day(
        &self,
        day: Date,
        wanted: &HashSet<&str>,
        left: &AtomicUsize,
    ) -> Result<Day, StoreError> {
        let mut found = Day::default();
        let under = format!("{DUMPS}{day}/");
        self.store().list(&Listing::all(&under), &mut |listed| {
            let none_left = |left: usize| left.checked_sub(1);
            if left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, none_left)
                .is_err()
            {
                found.is_cut = true;
                return ControlFlow::Break(());
            }
            if let Listed::Object(object) = listed
                && let Some(dump) = DumpSummary::from_key(&object.key)
                && let Some(fingerprint) = indexed(&dump).filter(|text| wanted.contains(text))
                && !found.times.contains_key(fingerprint)
            {
                // In the order of keys, the first dump of a day is the oldest.
                found.times.insert(fingerprint.to_owned(), dump.captured_at);
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }
}

/// The results of one day's listing.
#[derive(Default)]
struct Day {
    times: HashMap<String, Timestamp>,
    is_cut: bool,
}

/// The fingerprint, if the index can contain it.
fn indexed(dump: &DumpSummary) -> Option<&str> {
    dump.fingerprint
        .as_deref()
        .filter(|text| is_fingerprint(text))
}

/// One thread per question, because there are few.
fn in_parallel<T: Sync, A: Send>(
    all: &[T],
    ask: impl Fn(&T) -> Result<A, StoreError> + Sync,
) -> Result<Vec<A>, StoreError> {
    std::thread::scope(|scope| {
        let ask = &ask;
        let threads: Vec<_> = all
            .iter()
            .map(|one| scope.spawn(move || ask(one)))
            .collect();
        let answers = threads.into_iter().map(|thread| {
            let lost = |_| {
                Err(StoreError::Refused {
                    place: "a listing".to_owned(),
                    said: "its thread panicked".to_owned(),
                })
            };
            thread.join().unwrap_or_else(lost)
        });
        answers.collect()
    })
}
