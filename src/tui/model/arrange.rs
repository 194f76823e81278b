//! Sorts and filters the list: a pure function from rows, order and filter to row numbers.
//!
//! Short lists are arranged immediately. Long ones are arranged by the same function on another
//! thread, while the keys continue to work on the visible list. `Dumps` describes what is shown
//! meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use cdh_bundle::DumpId;
use cdh_store::DumpSummary;
use rayon::prelude::*;

use super::rows::{Row, Rows};
use super::{Column, Facts, Tops, order};
use crate::tui::filter::Filter;

/// Maximum rows arranged immediately: takes a millisecond, without flicker.
pub const AT_ONCE: usize = 4096;

/// A request to sort and filter.
#[derive(Clone, Debug)]
pub struct Job {
    /// The rows.
    pub rows: Rows,
    /// Numbers of the rows on the list.
    pub order: Arc<Vec<u32>>,
    /// Whether they are already sorted.
    pub is_ordered: bool,
    pub sort: (Column, bool),
    /// The frames in which dumps crashed, if sorting needs them.
    pub tops: Tops,
    /// The filter.
    pub filter: Filter,
    /// The filter to use if nothing matches.
    pub otherwise: Option<Filter>,
    /// Facts from manifests, if the filter needs them.
    pub facts: HashMap<DumpId, Arc<Facts>>,
}

impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows && self.sort == other.sort && self.filter.text == other.filter.text
    }
}

/// The result.
#[derive(Clone, Debug, Default)]
pub struct Arranged {
    /// Number of rows at the time of the request.
    pub count: u32,
    /// All rows on the list, sorted.
    pub order: Arc<Vec<u32>>,
    /// Rows that match the filter.
    pub visible: Vec<u32>,
    /// Rows that may match, depending on their manifests.
    pub undecided: Vec<u32>,
    /// The filter that was applied.
    pub filter: Filter,
}

/// Sorts and filters.
#[must_use]
pub fn arrange(job: &Job) -> Arranged {
    let order = if job.is_ordered {
        Arc::clone(&job.order)
    } else {
        let mut order = (*job.order).clone();
        order::sort(&mut order, |row| job.rows.dump(row), job.sort, &job.tops);
        Arc::new(order)
    };
    let passing = |filter: &Filter| -> Vec<u32> {
        let pass = |number: &u32| {
            let row = job.rows.get(*number);
            row.is_some_and(|row| passes(filter, row, &job.facts))
        };
        if filter.is_empty() {
            return order.to_vec();
        }
        let rows = order.par_iter().with_min_len(AT_ONCE).copied();
        rows.filter(pass).collect()
    };
    let (mut filter, mut visible) = (&job.filter, passing(&job.filter));
    if let Some(other) = job.otherwise.as_ref().filter(|_| visible.is_empty()) {
        let found = passing(other);
        if !found.is_empty() {
            (filter, visible) = (other, found);
        }
    }
    let lacks = |number: &&u32| {
        let row = job.rows.get(**number);
        row.is_some_and(|row| lacks(filter, row, &job.facts))
    };
    Arranged {
        count: job.rows.count(),
        undecided: match filter.needs_facts() {
            true => order.iter().filter(lacks).copied().collect(),
            false => Vec::new(),
        },
        visible,
        filter: filter.clone(),
        order: Arc::clone(&order),
    }
}

/// Whether a row matches the filter.
pub(super) fn passes(filter: &Filter, row: &Row, facts: &HashMap<DumpId, Arc<Facts>>) -> bool {
    filter.matches(&row.dump, &row.haystack)
        && (!filter.needs_facts()
            || facts
                .get(&row.dump.id)
                .is_some_and(|facts| filter.query.matches_facts(row.dump.cut, &facts.compared)))
}

/// Whether the filter needs a manifest of this row that was not read yet.
pub(super) fn lacks(filter: &Filter, row: &Row, facts: &HashMap<DumpId, Arc<Facts>>) -> bool {
    filter.needs_facts()
        && !facts.contains_key(&row.dump.id)
        && filter.matches(&row.dump, &row.haystack)
}

/// The index at which a row belongs in a sorted list.
pub(super) fn place(
    list: &[u32],
    rows: &Rows,
    dump: &DumpSummary,
    sort: (Column, bool),
    tops: &Tops,
) -> usize {
    list.partition_point(|other| {
        let other = rows.dump(*other);
        other.is_some_and(|other| order::between(other, dump, sort, tops).is_lt())
    })
}
