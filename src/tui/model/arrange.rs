//! What stands where on the list: a pure function from rows, order and filter to numbers of rows.
//!
//! Short lists are arranged at once. Long ones are arranged on another thread, by the same function, while
//! the keys go on working with what is shown; see `Dumps` for what is shown meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use cdh_bundle::DumpId;
use cdh_store::DumpSummary;
use rayon::prelude::*;

use super::rows::{Row, Rows};
use super::{Column, Facts, Tops, order};
use crate::tui::filter::Filter;

/// Rows that are arranged at once: a millisecond, and no flicker.
pub const AT_ONCE: usize = 4096;

/// What is to be arranged.
#[derive(Clone, Debug)]
pub struct Job {
    /// The rows.
    pub rows: Rows,
    /// The numbers of those that are on the list.
    pub order: Arc<Vec<u32>>,
    /// Whether they stand in order already.
    pub is_ordered: bool,
    pub sort: (Column, bool),
    /// Where crashes happened, where that is what they are ordered by.
    pub tops: Tops,
    /// Which are let through.
    pub filter: Filter,
    /// Which are let through if nothing else is.
    pub otherwise: Option<Filter>,
    /// What manifests told, where the filter asks for it.
    pub facts: HashMap<DumpId, Arc<Facts>>,
}

impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows && self.sort == other.sort && self.filter.text == other.filter.text
    }
}

/// What stands where.
#[derive(Clone, Debug, Default)]
pub struct Arranged {
    /// Rows that there were.
    pub count: u32,
    /// All rows that are on the list, in order.
    pub order: Arc<Vec<u32>>,
    /// Those of them that are let through.
    pub visible: Vec<u32>,
    /// Those of them that would be let through if their manifests say so.
    pub undecided: Vec<u32>,
    /// The filter that they were let through by.
    pub filter: Filter,
}

/// Arranges.
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

/// Whether a filter lets a row through.
pub(super) fn passes(filter: &Filter, row: &Row, facts: &HashMap<DumpId, Arc<Facts>>) -> bool {
    filter.matches(&row.dump, &row.haystack)
        && (!filter.needs_facts()
            || facts
                .get(&row.dump.id)
                .is_some_and(|facts| filter.query.matches_facts(row.dump.cut, &facts.compared)))
}

/// Whether only its manifest can tell.
pub(super) fn lacks(filter: &Filter, row: &Row, facts: &HashMap<DumpId, Arc<Facts>>) -> bool {
    filter.needs_facts()
        && !facts.contains_key(&row.dump.id)
        && filter.matches(&row.dump, &row.haystack)
}

/// Where a row belongs in a list that is in order.
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
