//! The list of dumps: rows as they arrive, an order, and those of them that the filter lets through.
//!
//! The invariant: `order` holds every row once; `visible` holds the rows of `order` that pass, in that
//! order. A hundred thousand rows are filtered and sorted by numbers; a row itself never moves.

use std::collections::{BTreeSet, HashMap, HashSet};

use cdh_bundle::DumpId;
use cdh_store::DumpSummary;
use rayon::prelude::*;

use super::{Facts, Tops, order};
use crate::report::Told;
use crate::tui::filter::{Filter, Haystack};

/// A dump and what the filter looks at.
#[derive(Clone, Debug)]
pub struct Row {
    /// As its key describes it.
    pub dump: DumpSummary,
    haystack: Haystack,
}

impl Row {
    /// Of a dump.
    #[must_use]
    pub fn new(dump: DumpSummary) -> Self {
        Self {
            haystack: Haystack::of(&dump),
            dump,
        }
    }
}

/// What the list is ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Newest first.
    Time,
    /// Namespace and pod.
    Workload,
    /// Program.
    Exe,
    /// Signal.
    Signal,
    /// What is not complete first.
    Verdict,
    /// Largest first.
    Size,
    /// Where it crashed.
    Top,
}

/// All columns, as they stand from left to right.
pub const COLUMNS: [Column; 7] = [
    Column::Time,
    Column::Workload,
    Column::Exe,
    Column::Signal,
    Column::Verdict,
    Column::Size,
    Column::Top,
];

impl Column {
    /// Its title.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Time => "AGE",
            Self::Workload => "WORKLOAD",
            Self::Exe => "EXE",
            Self::Signal => "SIGNAL",
            Self::Verdict => "VERDICT",
            Self::Size => "SIZE",
            Self::Top => "TOP FRAME",
        }
    }

    /// What `:sort` calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Workload => "workload",
            Self::Exe => "exe",
            Self::Signal => "signal",
            Self::Verdict => "verdict",
            Self::Size => "size",
            Self::Top => "top",
        }
    }
}

/// How far the listing has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// Not begun.
    Idle,
    /// Pages come in.
    Running,
    /// All dumps are here.
    Done,
    /// It ended early.
    Failed(Told),
}

/// The list.
#[derive(Clone, Debug)]
pub struct Dumps {
    rows: Vec<Row>,
    passes: Vec<bool>,
    order: Vec<u32>,
    visible: Vec<u32>,
    unsorted: bool,
    /// A listing that replaces the rows when it is done.
    incoming: Option<Vec<Row>>,
    filter: Filter,
    column: Column,
    reverse: bool,
    /// Which of the visible rows the keys act on.
    pub cursor: usize,
    /// The first visible row on the screen.
    pub top: usize,
    /// The user has chosen a row: it stays chosen when rows come in above.
    pub held: bool,
    /// Marked dumps.
    pub marks: BTreeSet<DumpId>,
    /// How far the listing has come.
    pub listing: Listing,
}

impl Default for Dumps {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            passes: Vec::new(),
            order: Vec::new(),
            visible: Vec::new(),
            unsorted: false,
            incoming: None,
            filter: Filter::default(),
            column: Column::Time,
            reverse: false,
            cursor: 0,
            top: 0,
            held: false,
            marks: BTreeSet::new(),
            listing: Listing::Idle,
        }
    }
}

impl Dumps {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// How many the filter lets through.
    #[must_use]
    pub fn visible_len(&self) -> usize {
        self.visible.len()
    }

    /// The dump at a place of the visible list.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&DumpSummary> {
        let row = *self.visible.get(place)? as usize;
        self.rows.get(row).map(|row| &row.dump)
    }

    /// The dump that the keys act on.
    #[must_use]
    pub fn selected(&self) -> Option<&DumpSummary> {
        self.get(self.cursor)
    }

    /// The dumps that the filter lets through, in their order.
    pub fn visible(&self) -> impl Iterator<Item = &DumpSummary> + '_ {
        let row = |row: &u32| self.rows.get(*row as usize);
        self.visible.iter().filter_map(row).map(|row| &row.dump)
    }

    /// The dumps that a filter could let through once their manifests are read.
    pub fn candidates(&self) -> impl Iterator<Item = &DumpSummary> + '_ {
        let row = |row: &u32| self.rows.get(*row as usize);
        let rows = self.order.iter().filter_map(row);
        rows.filter(|row| self.filter.matches(&row.dump, &row.haystack))
            .map(|row| &row.dump)
    }

    /// All dumps.
    pub fn all(&self) -> impl Iterator<Item = &DumpSummary> + '_ {
        self.rows.iter().map(|row| &row.dump)
    }

    /// The dump with this id.
    #[must_use]
    pub fn find(&self, id: DumpId) -> Option<&DumpSummary> {
        self.all().find(|dump| dump.id == id)
    }

    /// The filter.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Column and whether the order is turned round.
    #[must_use]
    pub fn sort(&self) -> (Column, bool) {
        (self.column, self.reverse)
    }

    /// A new listing begins. What is there stays until the new one is whole.
    pub fn begin(&mut self) {
        self.listing = Listing::Running;
        self.incoming = (!self.rows.is_empty()).then(Vec::new);
    }

    /// Forgets everything: another store.
    pub fn clear(&mut self) {
        let filter = std::mem::take(&mut self.filter);
        *self = Self {
            filter,
            column: self.column,
            reverse: self.reverse,
            ..Self::default()
        };
    }

    /// A page of a listing.
    pub fn add(&mut self, page: Vec<Row>, facts: &HashMap<DumpId, Facts>) {
        if let Some(incoming) = &mut self.incoming {
            incoming.extend(page);
            return;
        }
        for row in page {
            self.unsorted |= self.column != Column::Time
                || self.reverse
                || self
                    .rows
                    .last()
                    .is_some_and(|last| last.dump.captured_at < row.dump.captured_at);
            let number = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
            let passes = passes(&self.filter, &row, facts);
            self.order.push(number);
            self.passes.push(passes);
            if passes {
                self.visible.push(number);
            }
            self.rows.push(row);
        }
    }

    /// The listing ended. Of one that failed, what had come is kept beside what was there.
    pub fn end(&mut self, listing: Listing, facts: &HashMap<DumpId, Facts>, tops: &Tops) {
        let selected = self.selected().map(|dump| dump.id);
        if let Some(incoming) = self.incoming.take()
            && listing == Listing::Done
        {
            self.rows = incoming;
            if !self.marks.is_empty() {
                let known: HashSet<DumpId> = self.all().map(|dump| dump.id).collect();
                self.marks.retain(|id| known.contains(id));
            }
            self.passes = self
                .rows
                .iter()
                .map(|row| passes(&self.filter, row, facts))
                .collect();
            self.order = (0..u32::try_from(self.rows.len()).unwrap_or(u32::MAX)).collect();
            self.unsorted = true;
        }
        self.listing = listing;
        self.settle(tops);
        self.select(selected.filter(|_| self.held));
    }

    /// Puts rows that have come in where they belong.
    pub fn settle(&mut self, tops: &Tops) {
        if self.unsorted {
            let selected = self.selected().map(|dump| dump.id);
            self.sort_rows(tops);
            self.select(selected.filter(|_| self.held));
        }
    }

    /// Lets through what `filter` asks for.
    pub fn set_filter(&mut self, filter: Filter, facts: &HashMap<DumpId, Facts>) {
        let selected = self.selected().map(|dump| dump.id).filter(|_| self.held);
        let narrows = filter.narrows(&self.filter);
        self.filter = filter;
        let judge = |(passed, row): (&mut bool, &Row)| {
            *passed = (*passed || !narrows) && passes(&self.filter, row, facts);
        };
        self.passes
            .par_iter_mut()
            .zip(self.rows.par_iter())
            .with_min_len(4096)
            .for_each(judge);
        self.collect();
        self.select(selected);
    }

    /// Judges again those whose manifests have been read.
    pub fn judge_again(&mut self, facts: &HashMap<DumpId, Facts>) {
        let filter = std::mem::take(&mut self.filter);
        self.set_filter(filter, facts);
    }

    /// Orders by another column.
    pub fn set_sort(&mut self, column: Column, reverse: bool, tops: &Tops) {
        let selected = self.selected().map(|dump| dump.id).filter(|_| self.held);
        (self.column, self.reverse) = (column, reverse);
        self.sort_rows(tops);
        self.select(selected);
    }

    /// Takes dumps off the list that are no longer there.
    pub fn remove(&mut self, id: DumpId) {
        let Some(gone) = self.rows.iter().position(|row| row.dump.id == id) else {
            return;
        };
        self.marks.remove(&id);
        if let Some(passes) = self.passes.get_mut(gone) {
            *passes = false;
        }
        // The row keeps its number until the next listing: only its place in the lists goes.
        let gone = u32::try_from(gone).unwrap_or(u32::MAX);
        self.order.retain(|row| *row != gone);
        self.visible.retain(|row| *row != gone);
        self.cursor = self.cursor.min(self.visible.len().saturating_sub(1));
    }

    /// How many are on the list: those that were deleted are not.
    #[must_use]
    pub fn total(&self) -> usize {
        self.order.len()
    }

    fn collect(&mut self) {
        let passes = &self.passes;
        let passing = |row: &&u32| passes.get(**row as usize).copied().unwrap_or(false);
        self.visible.clear();
        self.visible.extend(self.order.iter().filter(passing));
    }

    fn sort_rows(&mut self, tops: &Tops) {
        let (rows, column, reverse) = (&self.rows, self.column, self.reverse);
        let row = |number: u32| rows.get(number as usize).map(|row| &row.dump);
        order::sort(&mut self.order, row, (column, reverse), tops);
        self.unsorted = false;
        self.collect();
    }

    /// Moves the cursor to a dump, where it is still visible.
    pub fn select(&mut self, id: Option<DumpId>) {
        let is_it = |row: &u32| {
            let row = self.rows.get(*row as usize);
            row.is_some_and(|row| Some(row.dump.id) == id)
        };
        let found = id.and_then(|_| self.visible.iter().position(is_it));
        let last = self.visible.len().saturating_sub(1);
        self.cursor = match found {
            Some(found) => found,
            None if self.held => self.cursor.min(last),
            None => 0,
        };
    }
}

fn passes(filter: &Filter, row: &Row, facts: &HashMap<DumpId, Facts>) -> bool {
    filter.matches(&row.dump, &row.haystack)
        && (!filter.needs_facts()
            || facts.get(&row.dump.id).is_some_and(|facts| {
                let nodes = [facts.node.as_deref(), facts.kube_node.as_deref()];
                filter.query.matches_place(facts.image.as_deref(), nodes)
            }))
}
