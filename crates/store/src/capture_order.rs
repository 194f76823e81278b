//! The order of dumps that were captured in the same second.
//!
//! Keys have whole seconds; manifests have nanoseconds. Only manifests of dumps that share a second with
//! another dump are read, up to a limit: in a storm of thousands of dumps per second, the order of keys is
//! used.

use std::cmp::Reverse;

use jiff::Timestamp;

use crate::{Catalog, DumpSummary, Query, StoreError};

/// Maximum manifests read to order dumps of the same second.
const MAX_OF_A_SECOND: usize = 512;

impl Catalog<'_> {
    /// The dump that was captured `nth` before the latest.
    ///
    /// # Errors
    /// If the store cannot be listed.
    pub(crate) fn nth_newest(&self, nth: usize) -> Result<Option<DumpSummary>, StoreError> {
        let query = Query {
            limit: nth.checked_add(1),
            ..Query::default()
        };
        // All dumps of the listed days, because the limit may lie within a second.
        let mut dumps = self.collect(&query)?.sorted(&query);
        let Some(second) = dumps.get(nth).map(|dump| dump.captured_at) else {
            return Ok(None);
        };
        let start = dumps.partition_point(|dump| dump.captured_at > second);
        let end = dumps.partition_point(|dump| dump.captured_at >= second);
        if let Some(equal) = dumps.get_mut(start..end) {
            self.sort_second(equal);
        }
        Ok(dumps.into_iter().nth(nth))
    }

    /// Like [`find`](Self::find), with dumps of the same second in capture order, if that takes no more
    /// than `most` manifests.
    ///
    /// # Errors
    /// As there.
    pub fn find_in_order(
        &self,
        query: &Query,
        most: usize,
    ) -> Result<Vec<DumpSummary>, StoreError> {
        let found = self.collect(query)?;
        let mut dumps = found.sorted(query);
        if !dumps.iter().all(|dump| query.is_certain_of(dump)) {
            let mut dumps = self.select(query, &found)?;
            self.sort_equal_seconds(&mut dumps, most);
            return Ok(dumps);
        }
        let limit = query.limit.unwrap_or(usize::MAX);
        // The limit may lie within a second, so all dumps of that second are sorted first.
        let last = limit.checked_sub(1).and_then(|last| dumps.get(last));
        if let Some(second) = last.map(|dump| dump.captured_at) {
            let end = dumps.partition_point(|dump| dump.captured_at >= second);
            dumps.truncate(end);
        }
        self.sort_equal_seconds(&mut dumps, most);
        dumps.truncate(limit);
        Ok(dumps)
    }

    /// Sorts dumps of the same second by their nanoseconds, newest first, if that takes no more than
    /// `most` manifests. Returns whether all are in order now.
    pub fn sort_equal_seconds(&self, dumps: &mut [DumpSummary], most: usize) -> bool {
        let same = |a: &DumpSummary, b: &DumpSummary| a.captured_at == b.captured_at;
        let shared = dumps.chunk_by(same).filter(|equal| equal.len() > 1);
        if shared.map(<[_]>::len).sum::<usize>() > most {
            return false;
        }
        for equal in dumps.chunk_by_mut(same) {
            self.sort_second(equal);
        }
        true
    }

    /// A dump whose manifest cannot be read counts as captured at the start of its second.
    fn sort_second(&self, equal: &mut [DumpSummary]) {
        if !(2..=MAX_OF_A_SECOND).contains(&equal.len()) {
            return;
        }
        let manifests = self.manifests(equal);
        let times = equal.iter().zip(manifests).map(|(dump, manifest)| {
            let exact = manifest.map(|manifest| manifest.listed_at()).ok();
            // A manifest that names another second does not belong to this key.
            let is_same = |time: &Timestamp| time.as_second() == dump.captured_at.as_second();
            exact.filter(is_same).unwrap_or(dump.captured_at)
        });
        let mut order: Vec<_> = times.zip(equal.iter().cloned()).collect();
        order.sort_by(|(a, one), (b, other)| {
            (Reverse(a), Reverse(&one.key)).cmp(&(Reverse(b), Reverse(&other.key)))
        });
        for (place, (_, dump)) in equal.iter_mut().zip(order) {
            *place = dump;
        }
    }
}
