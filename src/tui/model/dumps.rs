//! The list of dumps: rows as they arrive, an order, and those of them that the filter lets through.
//!
//! The invariant: `order` holds the number of every row on the list once; `visible` holds those of them
//! that pass, in the same order. A row itself never moves.
//!
//! A long list is arranged elsewhere (`Job`, `Arranged`). What is shown meanwhile is true as far as it
//! goes: while it is ordered, the order before; while it is filtered, the first of those that pass, or, where
//! the user has chosen a row that passes, the rows before, so that it stays under the cursor.

mod arrivals;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use cdh_bundle::DumpId;
use cdh_store::DumpSummary;

use super::arrange::{AT_ONCE, Arranged, Job, arrange, lacks, passes, place};
use super::rows::{Row, Rows, Shelf};
use super::{Column, Facts, Fresh, RequestId, Tops};
use crate::report::Told;
use crate::tui::filter::Filter;

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

/// How far what was asked for is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// All of it.
    #[default]
    Settled,
    /// It is to be arranged elsewhere.
    Due,
    /// It is being arranged elsewhere, since so many milliseconds of the clock.
    Asked(RequestId, u64),
}

/// What the order and the filter look at beside the rows.
#[derive(Clone, Copy)]
pub struct Learnt<'a> {
    /// What manifests told.
    pub facts: &'a HashMap<DumpId, Arc<Facts>>,
    /// Where crashes happened.
    pub tops: &'a Tops,
}

/// The list.
#[derive(Clone, Debug)]
pub struct Dumps {
    shelf: Shelf,
    order: Arc<Vec<u32>>,
    visible: Arc<Vec<u32>>,
    /// Rows that pass if their manifests say so, as long as those are not read.
    undecided: Vec<u32>,
    /// Those whose manifests were read while the list was being arranged.
    decided: Vec<DumpId>,
    unsorted: bool,
    /// A listing that replaces the rows when it is done.
    incoming: Option<Shelf>,
    /// One that is done and replaces them when it is arranged.
    next: Option<Shelf>,
    /// Rows of which nothing is shown any more: there are too many to drop them between two keys.
    replaced: Vec<Rows>,
    /// Deleted while rows were on their way that may still hold them.
    deleted: Vec<DumpId>,
    stage: Stage,
    filter: Filter,
    otherwise: Option<Filter>,
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
    /// Dumps that a refresh brought lately.
    pub fresh: Fresh,
    /// How far the listing has come.
    pub listing: Listing,
}

impl Default for Dumps {
    fn default() -> Self {
        Self {
            shelf: Shelf::default(),
            order: Arc::default(),
            visible: Arc::default(),
            undecided: Vec::new(),
            decided: Vec::new(),
            unsorted: false,
            incoming: None,
            next: None,
            replaced: Vec::new(),
            deleted: Vec::new(),
            stage: Stage::Settled,
            filter: Filter::default(),
            otherwise: None,
            column: Column::Time,
            reverse: false,
            cursor: 0,
            top: 0,
            held: false,
            marks: BTreeSet::new(),
            fresh: Fresh::default(),
            listing: Listing::Idle,
        }
    }
}

impl Dumps {
    /// How many the filter lets through, as far as it is known.
    #[must_use]
    pub fn visible_len(&self) -> usize {
        self.visible.len()
    }

    /// The dump at a place of the visible list.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&DumpSummary> {
        self.shelf.rows.dump(*self.visible.get(place)?)
    }

    /// The dump that the keys act on.
    #[must_use]
    pub fn selected(&self) -> Option<&DumpSummary> {
        self.get(self.cursor)
    }

    /// The dumps that the filter lets through, in their order.
    pub fn visible(&self) -> impl Iterator<Item = &DumpSummary> + '_ {
        let dump = |number: &u32| self.shelf.rows.dump(*number);
        self.visible.iter().filter_map(dump)
    }

    /// The same for whoever looks at them elsewhere.
    #[must_use]
    pub fn shared(&self) -> (Rows, Arc<Vec<u32>>) {
        (self.shelf.rows.clone(), Arc::clone(&self.visible))
    }

    /// The next of the dumps whose manifests must be read to tell whether they pass.
    pub fn take_undecided(
        &mut self,
        count: usize,
        facts: &HashMap<DumpId, Arc<Facts>>,
    ) -> Vec<DumpSummary> {
        let mut found = Vec::new();
        let mut looked = 0;
        for number in &self.undecided {
            if found.len() == count {
                break;
            }
            looked += 1;
            let dump = self.shelf.rows.dump(*number);
            found.extend(dump.filter(|dump| !facts.contains_key(&dump.id)).cloned());
        }
        self.undecided.drain(..looked);
        found
    }

    /// The dumps that are marked, as they were listed.
    #[must_use]
    pub fn marked(&self) -> Vec<DumpSummary> {
        let marks = self.marks.iter();
        let mut numbers: Vec<u32> = marks.filter_map(|id| self.shelf.number(*id)).collect();
        numbers.sort_unstable();
        let dump = |number: u32| self.shelf.rows.dump(number);
        numbers.into_iter().filter_map(dump).cloned().collect()
    }

    /// The dump with this id.
    #[must_use]
    pub fn find(&self, id: DumpId) -> Option<&DumpSummary> {
        self.shelf.rows.dump(self.shelf.number(id)?)
    }

    /// The ids of all dumps, and what a word of the filter can be completed to.
    #[must_use]
    pub fn shelf(&self) -> &Shelf {
        &self.shelf
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

    /// How many are on the list: those that were deleted are not.
    #[must_use]
    pub fn total(&self) -> usize {
        self.order.len()
    }

    /// Whether what is shown is not yet all that was asked for.
    #[must_use]
    pub fn is_arranging(&self) -> bool {
        self.stage != Stage::Settled
    }

    /// What has been going on for longer than one takes for nothing.
    #[must_use]
    pub fn takes_long(&self, clock: u64) -> Option<&'static str> {
        const NOTHING: u64 = 100;
        let Stage::Asked(_, since) = self.stage else {
            return None;
        };
        let what = if self.unsorted {
            "sorting"
        } else {
            "filtering"
        };
        (clock.saturating_sub(since) >= NOTHING).then_some(what)
    }

    /// A new listing begins. What is there stays until the new one is whole.
    pub fn begin(&mut self) {
        self.listing = Listing::Running;
        if let Some(cut) = self.incoming.take() {
            self.replaced.push(cut.rows);
        }
        if !self.is_arranging() {
            self.deleted.clear();
        }
        self.incoming = (self.shelf.rows.len() > 0).then(Shelf::default);
    }

    /// Forgets everything: another store.
    pub fn clear(&mut self) {
        let old = std::mem::take(self);
        let shelves = [Some(old.shelf), old.incoming, old.next];
        self.replaced = old.replaced;
        self.replaced
            .extend(shelves.into_iter().flatten().map(|shelf| shelf.rows));
        (self.filter, self.column, self.reverse) = (old.filter, old.column, old.reverse);
    }

    /// A page of a listing.
    pub fn add(&mut self, page: Vec<Row>, learnt: Learnt<'_>) {
        if let Some(incoming) = &mut self.incoming {
            incoming.add(page);
            return;
        }
        let first = self.shelf.add(page);
        self.append(first, learnt);
    }

    /// Puts rows from this number on behind the others.
    fn append(&mut self, first: u32, learnt: Learnt<'_>) {
        let rows = &self.shelf.rows;
        let order = Arc::make_mut(&mut self.order);
        let visible = Arc::make_mut(&mut self.visible);
        for number in first..rows.count() {
            let Some(row) = rows.get(number) else {
                continue;
            };
            let time = |number: &u32| rows.dump(*number).map(|dump| dump.captured_at);
            self.unsorted |= self.column != Column::Time
                || self.reverse
                || (order.last().and_then(time) < Some(row.dump.captured_at) && !order.is_empty());
            order.push(number);
            if passes(&self.filter, row, learnt.facts) {
                visible.push(number);
            } else if lacks(&self.filter, row, learnt.facts) {
                self.undecided.push(number);
            }
        }
    }

    /// The listing ended. Of one that failed, what had come is kept beside what was there.
    pub fn end(&mut self, listing: Listing, learnt: Learnt<'_>) {
        match self.incoming.take() {
            Some(incoming) if listing == Listing::Done => {
                let earlier = self.next.replace(incoming);
                self.replaced.extend(earlier.map(|shelf| shelf.rows));
                self.unsorted = true;
                self.rearrange(learnt);
            }
            Some(incoming) => self.replaced.push(incoming.rows),
            None => {}
        }
        self.listing = listing;
        self.settle(learnt);
    }

    /// Puts rows that have come in where they belong.
    pub fn settle(&mut self, learnt: Learnt<'_>) {
        // What came while something is being arranged has its turn when that is here.
        if self.unsorted && self.stage == Stage::Settled {
            self.rearrange(learnt);
        }
    }

    /// Lets through what `filter` asks for; what `otherwise` asks for, where that is nothing.
    pub fn set_filter(&mut self, filter: Filter, otherwise: Option<Filter>, learnt: Learnt<'_>) {
        (self.filter, self.otherwise) = (filter, otherwise);
        let selected = self.visible.get(self.cursor).copied();
        let row = selected.and_then(|number| self.shelf.rows.get(number));
        // If the filter hides the selected dump, the cursor returns to the first.
        if !row.is_some_and(|row| passes(&self.filter, row, learnt.facts)) {
            self.held = false;
        }
        self.rearrange(learnt);
        if self.stage == Stage::Due {
            self.show_first(learnt);
        }
    }

    /// Shows the first that pass while the others are looked for.
    fn show_first(&mut self, learnt: Learnt<'_>) {
        let rows = &self.shelf.rows;
        let pass = |number: &u32| {
            let row = rows.get(*number);
            row.is_some_and(|row| passes(&self.filter, row, learnt.facts))
        };
        let chosen = self.visible.get(self.cursor).filter(|_| self.held);
        if !chosen.is_some_and(pass) {
            let first = self.order.iter().take(AT_ONCE).copied();
            self.visible = Arc::new(first.filter(|number| pass(number)).collect());
            let last = self.visible.len().saturating_sub(1);
            self.cursor = if self.held { self.cursor.min(last) } else { 0 };
        }
        self.undecided.clear();
    }

    /// Manifests of these dumps have been read: those that pass come into the list.
    pub fn decide(&mut self, ids: &[DumpId], learnt: Learnt<'_>) {
        if self.is_arranging() {
            self.decided.extend(ids);
            return;
        }
        let selected = self.selected().map(|dump| dump.id).filter(|_| self.held);
        let rows = &self.shelf.rows;
        let visible = Arc::make_mut(&mut self.visible);
        let mut found = Vec::new();
        for number in ids.iter().filter_map(|id| self.shelf.number(*id)) {
            let Some(row) = rows.get(number) else {
                continue;
            };
            if passes(&self.filter, row, learnt.facts) && !self.deleted.contains(&row.dump.id) {
                found.push((number, &row.dump));
            }
        }
        for (number, dump) in found {
            let place = place(
                visible,
                rows,
                dump,
                (self.column, self.reverse),
                learnt.tops,
            );
            if visible.get(place) != Some(&number) {
                visible.insert(place, number);
            }
        }
        self.select(selected);
    }

    /// Orders by another column.
    pub fn set_sort(&mut self, column: Column, reverse: bool, learnt: Learnt<'_>) {
        (self.column, self.reverse) = (column, reverse);
        self.unsorted = true;
        self.rearrange(learnt);
    }

    /// Takes dumps off the list that are no longer there.
    pub fn remove(&mut self, id: DumpId) {
        let selected = self.selected().map(|dump| dump.id);
        self.deleted.push(id);
        self.marks.remove(&id);
        // The row keeps its number until the next listing: only its place in the lists goes.
        if let Some(gone) = self.shelf.number(id) {
            Arc::make_mut(&mut self.order).retain(|row| *row != gone);
            Arc::make_mut(&mut self.visible).retain(|row| *row != gone);
        }
        self.cursor = self.cursor.min(self.visible.len().saturating_sub(1));
        if self.held && selected != Some(id) {
            self.select(selected);
        }
    }

    /// Arranges at once what is short; what is long becomes due.
    fn rearrange(&mut self, learnt: Learnt<'_>) {
        let rows = &self.next.as_ref().unwrap_or(&self.shelf).rows;
        if rows.len() > AT_ONCE {
            self.stage = Stage::Due;
            return;
        }
        let arranged = arrange(&self.job(learnt));
        self.take(arranged, learnt);
    }

    fn job(&self, learnt: Learnt<'_>) -> Job {
        let filters = [Some(&self.filter), self.otherwise.as_ref()];
        let needs_facts = filters.into_iter().flatten().any(Filter::needs_facts);
        Job {
            rows: self.next.as_ref().unwrap_or(&self.shelf).rows.clone(),
            order: match &self.next {
                Some(next) => Arc::new((0..next.rows.count()).collect()),
                None => Arc::clone(&self.order),
            },
            is_ordered: !self.unsorted,
            sort: (self.column, self.reverse),
            tops: match self.column {
                Column::Top => learnt.tops.clone(),
                _ => Tops::default(),
            },
            facts: match needs_facts {
                true => learnt.facts.clone(),
                false => HashMap::new(),
            },
            filter: self.filter.clone(),
            otherwise: self.otherwise.clone(),
        }
    }

    /// Whether something is to be arranged elsewhere.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.stage == Stage::Due
    }

    /// What that is; its answer is known by `request`.
    pub fn due(&mut self, request: RequestId, clock: u64, learnt: Learnt<'_>) -> Job {
        self.stage = Stage::Asked(request, clock);
        self.job(learnt)
    }

    /// Whether the answer to this question is awaited.
    #[must_use]
    pub fn awaits(&self, request: RequestId) -> bool {
        matches!(self.stage, Stage::Asked(asked, _) if asked == request)
    }

    /// Nobody arranges it: what is shown stays.
    pub fn give_up(&mut self) {
        self.stage = Stage::Settled;
        self.unsorted = false;
    }

    /// Shows what was arranged, and what has come since.
    pub fn take(&mut self, arranged: Arranged, learnt: Learnt<'_>) {
        let selected = self.selected().map(|dump| dump.id).filter(|_| self.held);
        if let Some(next) = self.next.take() {
            let old = std::mem::replace(&mut self.shelf, next);
            self.replaced.push(old.rows);
            let shelf = &self.shelf;
            self.marks.retain(|id| shelf.number(*id).is_some());
        }
        self.order = arranged.order;
        self.visible = Arc::new(arranged.visible);
        self.undecided = arranged.undecided;
        (self.filter, self.otherwise) = (arranged.filter, None);
        (self.stage, self.unsorted) = (Stage::Settled, false);
        let deleted = self.deleted.iter();
        let gone: HashSet<u32> = deleted.filter_map(|id| self.shelf.number(*id)).collect();
        if !gone.is_empty() {
            Arc::make_mut(&mut self.order).retain(|row| !gone.contains(row));
            Arc::make_mut(&mut self.visible).retain(|row| !gone.contains(row));
        }
        self.append(arranged.count, learnt);
        self.select(selected);
        let decided = std::mem::take(&mut self.decided);
        self.decide(&decided, learnt);
    }

    /// Rows that nobody sees any more, to be dropped where that holds up nothing.
    pub fn take_replaced(&mut self) -> Vec<Rows> {
        std::mem::take(&mut self.replaced)
    }

    /// Moves the cursor to a dump, where it is still visible. Tells whether it is.
    pub fn select(&mut self, id: Option<DumpId>) -> bool {
        let number = id.and_then(|id| self.shelf.number(id));
        let is_it = |row: &u32| Some(*row) == number;
        let found = number.and_then(|_| self.visible.iter().position(is_it));
        let last = self.visible.len().saturating_sub(1);
        self.cursor = match found {
            Some(found) => found,
            None if self.held => self.cursor.min(last),
            None => 0,
        };
        found.is_some()
    }
}
