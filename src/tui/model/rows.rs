//! The dumps as they came from the store: immutable rows, identified by their numbers.
//!
//! Rows are stored in shared pages. Another thread that sorts, filters or groups them holds the
//! same pages, and nothing is copied. A page that is shared is never written to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cdh_bundle::DumpId;
use cdh_store::DumpSummary;
use jiff::{SignedDuration, Timestamp};

use crate::tui::filter::Haystack;

/// Small pages are merged up to this number of rows.
const PAGE: usize = 4096;
/// Maximum number of values offered to complete a word.
const OFFERED: usize = 200;
/// A refresh lists this time span again: an agent may have uploaded some dumps late.
const LATE: SignedDuration = SignedDuration::from_hours(24);
/// Maximum known dumps that a refresh lists again, so that one request is enough (1,000 keys, two
/// per dump).
const AGAIN: usize = 400;

/// A dump and the texts that the filter searches.
#[derive(Clone, Debug)]
pub struct Row {
    /// The dump, as described by its key.
    pub dump: DumpSummary,
    /// The texts that words are searched in.
    pub haystack: Haystack,
}

impl Row {
    /// Creates the row of a dump.
    #[must_use]
    pub fn new(dump: DumpSummary) -> Self {
        Self {
            haystack: Haystack::of(&dump),
            dump,
        }
    }
}

/// Rows by their numbers; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    pages: Vec<Arc<Vec<Row>>>,
    /// Number of each page's first row.
    starts: Vec<u32>,
    count: u32,
}

impl Rows {
    /// The number of rows, and the number of the next row.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// The row with this number.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<&Row> {
        let page = self.starts.partition_point(|start| *start <= number);
        let page = page.checked_sub(1)?;
        let place = number.checked_sub(*self.starts.get(page)?)?;
        self.pages.get(page)?.get(place as usize)
    }

    /// The dump of the row with this number.
    #[must_use]
    pub fn dump(&self, number: u32) -> Option<&DumpSummary> {
        self.get(number).map(|row| &row.dump)
    }

    /// Start time for the listing of a refresh: the last day, or the last few hundred dumps. Times
    /// in the future are ignored, so that a wrong clock on one node does not hide the dumps of the
    /// others.
    #[must_use]
    pub fn refresh_since(&self, now: Timestamp) -> Timestamp {
        if self.count == 0 {
            return Timestamp::UNIX_EPOCH;
        }
        let earliest = now.checked_sub(LATE).unwrap_or(now);
        let rows = self.pages.iter().flat_map(|page| page.iter());
        let times = rows.map(|row| row.dump.captured_at);
        let mut recent: Vec<Timestamp> = times
            .filter(|time| (earliest..=now).contains(time))
            .collect();
        if recent.len() < AGAIN {
            return earliest;
        }
        let (_, since, _) = recent.select_nth_unstable_by(AGAIN - 1, |a, b| b.cmp(a));
        *since
    }

    fn add(&mut self, page: Vec<Row>) {
        let start = self.count;
        let added = u32::try_from(page.len()).unwrap_or(u32::MAX);
        self.count = self.count.saturating_add(added);
        match self.pages.last_mut().and_then(Arc::get_mut) {
            Some(last) if last.len() + page.len() <= PAGE => last.extend(page),
            _ => {
                self.pages.push(Arc::new(page));
                self.starts.push(start);
            }
        }
    }
}

impl PartialEq for Rows {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&Arc<Vec<Row>>, &Arc<Vec<Row>>)| Arc::ptr_eq(a, b);
        self.count == other.count && self.pages.iter().zip(&other.pages).all(same)
    }
}

/// The rows of one listing, with indexes.
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    /// The rows.
    pub rows: Rows,
    numbers: HashMap<DumpId, u32>,
    namespaces: HashSet<String>,
    pods: HashSet<String>,
    exes: HashSet<String>,
    signals: HashSet<String>,
    fingerprints: HashSet<String>,
}

impl Shelf {
    /// Appends a page; returns the number of its first row.
    pub fn add(&mut self, page: Vec<Row>) -> u32 {
        fn note(names: &mut HashSet<String>, name: Option<&str>) {
            if let Some(name) = name.filter(|name| !names.contains(*name)) {
                names.insert(name.to_owned());
            }
        }
        let first = self.rows.count();
        for (number, row) in (first..).zip(&page) {
            let dump = &row.dump;
            self.numbers.insert(dump.id, number);
            note(&mut self.namespaces, dump.namespace.as_deref());
            note(&mut self.pods, dump.pod.as_deref());
            note(&mut self.signals, Some(&dump.signal));
            note(&mut self.fingerprints, dump.fingerprint.as_deref());
            match std::str::from_utf8(dump.exe.as_bytes()) {
                Ok(exe) if !exe.contains('\\') => note(&mut self.exes, Some(exe)),
                _ => note(&mut self.exes, Some(&dump.exe.to_string())),
            }
        }
        self.rows.add(page);
        first
    }

    /// The number of a dump's row.
    #[must_use]
    pub fn number(&self, id: DumpId) -> Option<u32> {
        self.numbers.get(&id).copied()
    }

    /// The ids of all dumps, in no particular order.
    pub fn ids(&self) -> impl Iterator<Item = DumpId> + '_ {
        self.numbers.keys().copied()
    }

    /// The first values of a filter term that start with `start`.
    #[must_use]
    pub fn values(&self, term: &str, start: &str) -> Vec<String> {
        let all = match term {
            "namespace" | "ns" => &self.namespaces,
            "pod" => &self.pods,
            "exe" => &self.exes,
            "signal" | "sig" => &self.signals,
            "fingerprint" | "fp" => &self.fingerprints,
            _ => return Vec::new(),
        };
        let mut found: Vec<&String> = all.iter().filter(|name| name.starts_with(start)).collect();
        if found.len() > OFFERED {
            found.select_nth_unstable(OFFERED);
            found.truncate(OFFERED);
        }
        found.sort_unstable();
        found.into_iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::tests::dump;

    #[test]
    fn rows_keep_their_numbers_and_clones_are_immutable() {
        let page = |range: std::ops::Range<usize>| range.map(dump).map(Row::new).collect();
        let mut shelf = Shelf::default();
        assert_eq!(shelf.add(page(0..3)), 0);
        assert_eq!(shelf.add(page(3..5)), 3);
        assert_eq!(shelf.rows.pages.len(), 1, "small pages are put together");
        let copy = shelf.rows.clone();
        assert_eq!(shelf.add(page(5..9)), 5);
        for number in 0..9 {
            let id = dump(number as usize).id;
            assert_eq!(shelf.rows.dump(number).map(|dump| dump.id), Some(id));
            assert_eq!(shelf.number(id), Some(number));
        }
        assert_eq!((copy.count(), copy.get(5).is_none()), (5, true));
        assert!(shelf.rows.get(9).is_none() && Rows::default().get(0).is_none());
    }

    #[test]
    fn refresh_asks_for_a_day_or_a_few_hundred_dumps() {
        let rows = |count: usize| {
            let mut shelf = Shelf::default();
            shelf.add((0..count).map(dump).map(Row::new).collect());
            shelf.rows
        };
        let now = crate::tui::tests::now();
        let day = now.checked_sub(LATE).unwrap();
        assert_eq!(Rows::default().refresh_since(now), Timestamp::UNIX_EPOCH);
        assert_eq!(rows(10).refresh_since(now), day);
        assert_eq!(rows(1000).refresh_since(now), day, "206 of the last day");
        let later = now.checked_add(SignedDuration::from_hours(1)).unwrap();
        let mut shelf = Shelf::default();
        shelf.add(
            (0..2000)
                .map(|n| {
                    let mut dump = dump(0);
                    // Some dumps are from the future.
                    let minutes = i64::from(n) / 10;
                    dump.captured_at = later
                        .checked_sub(SignedDuration::from_mins(minutes))
                        .unwrap();
                    Row::new(dump)
                })
                .collect(),
        );
        let since = shelf.rows.refresh_since(now);
        let asked = now.duration_since(since).as_mins();
        assert_eq!(asked, 39, "ten a minute");
    }

    #[test]
    fn rows_offer_the_first_values_in_order() {
        let mut shelf = Shelf::default();
        let rows = (0..1000).map(|n| {
            let mut dump = dump(n);
            dump.pod = Some(format!("pod-{:04}", n * 7 % 1000));
            Row::new(dump)
        });
        shelf.add(rows.collect());
        let pods = shelf.values("pod", "pod-0");
        assert_eq!(pods.len(), OFFERED);
        assert_eq!(
            (pods[0].as_str(), pods[199].as_str()),
            ("pod-0000", "pod-0199")
        );
        assert_eq!(shelf.values("pod", "pod-0999"), ["pod-0999"]);
        assert_eq!(shelf.values("ns", "pay"), ["payments"]);
        assert!(shelf.values("colour", "").is_empty());
    }
}
