//! The list of dumps: the rows in arrival order, a sort order, and the rows that match the filter.
//!
//! Invariant: `order` contains the number of every listed row once; `visible` contains those that
//! match, in the same order. A row never moves.
//!
//! Long lists are arranged on another thread (`Job`, `Arranged`). Meanwhile, the visible list is
//! correct but may be incomplete. While sorting, it has the previous order. While filtering, it
//! shows the first matches; if the user has selected a matching row, it shows the previous rows, so
//! that this row stays under the cursor.

mod arrivals;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use cdh_bundle::DumpId;
use cdh_store::DumpSummary;

use super::arrange::{AT_ONCE, Arranged, Job, arrange, lacks, passes, place};
use super::rows::{Row, Rows, Shelf};
use super::{Column, Facts, Fresh, RequestId, Tops};
use crate::report::RenderedError;
use crate::tui::filter::Filter;

/// Progress of the listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// Not started.
    Idle,
    /// Pages are arriving.
    Running,
    /// The listing is complete.
    Done,
    /// The listing failed.
    Failed(RenderedError),
}

/// Whether the visible list is up to date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// It is up to date.
    #[default]
    Settled,
    /// It must be arranged on another thread.
    Due,
    /// It is being arranged on another thread, since this clock time in milliseconds.
    Asked(RequestId, u64),
}

/// Facts beside the rows that sorting and filtering use.
#[derive(Clone, Copy)]
pub struct Learnt<'a> {
    /// Facts from manifests.
    pub facts: &'a HashMap<DumpId, Arc<Facts>>,
    /// The frames in which dumps crashed.
    pub tops: &'a Tops,
}

/// The list.
#[derive(Clone, Debug)]
pub struct Dumps {
    shelf: Shelf,
    order: Arc<Vec<u32>>,
    visible: Arc<Vec<u32>>,
    /// Rows that may match, depending on manifests that were not read yet.
    undecided: Vec<u32>,
    /// Dumps whose manifests were read while the list was being arranged.
    decided: Vec<DumpId>,
    unsorted: bool,
    /// A listing in progress that will replace the rows.
    incoming: Option<Shelf>,
    /// A complete listing that replaces the rows when it is arranged.
    next: Option<Shelf>,
    /// Replaced rows, to be dropped on another thread: there may be too many to drop them here.
    replaced: Vec<Rows>,
    /// Dumps deleted while rows that may still contain them were arriving.
    deleted: Vec<DumpId>,
    stage: Stage,
    filter: Filter,
    otherwise: Option<Filter>,
    column: Column,
    reverse: bool,
    /// Index of the selected visible row.
    pub cursor: usize,
    /// Index of the first visible row on the screen.
    pub top: usize,
    /// The user selected a row: it remains selected when rows arrive above it.
    pub held: bool,
    /// Marked dumps.
    pub marks: BTreeSet<DumpId>,
    /// Dumps that a refresh added recently.
    pub fresh: Fresh,
    /// Progress of the listing.
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
    /// Number of matching dumps known so far.
    #[must_use]
    pub fn visible_len(&self) -> usize {
        self.visible.len()
    }

    /// The dump at this index of the visible list.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&DumpSummary> {
        self.shelf.rows.dump(*self.visible.get(place)?)
    }

    /// The selected dump.
    #[must_use]
    pub fn selected(&self) -> Option<&DumpSummary> {
        self.get(self.cursor)
    }

    /// The matching dumps, in order.
    pub fn visible(&self) -> impl Iterator<Item = &DumpSummary> + '_ {
        let dump = |number: &u32| self.shelf.rows.dump(*number);
        self.visible.iter().filter_map(dump)
    }

    /// The same data, shared for use on another thread.
    #[must_use]
    pub fn shared(&self) -> (Rows, Arc<Vec<u32>>) {
        (self.shelf.rows.clone(), Arc::clone(&self.visible))
    }

    /// The next dumps whose manifests must be read to decide whether they match.
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

    /// The marked dumps, in listing order.
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

    /// The ids of all dumps, and the completions for words of the filter.
    #[must_use]
    pub fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// The filter.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The sort column, and whether the order is reversed.
    #[must_use]
    pub fn sort(&self) -> (Column, bool) {
        (self.column, self.reverse)
    }

    /// Number of listed dumps, without deleted ones.
    #[must_use]
    pub fn total(&self) -> usize {
        self.order.len()
    }

    /// Whether the visible list is not up to date yet.
    #[must_use]
    pub fn is_arranging(&self) -> bool {
        self.stage != Stage::Settled
    }

    /// The operation that takes noticeably long, if any.
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

    /// Starts a new listing. The current rows remain until it is complete.
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

    /// Clears everything when the store changes.
    pub fn clear(&mut self) {
        let old = std::mem::take(self);
        let shelves = [Some(old.shelf), old.incoming, old.next];
        self.replaced = old.replaced;
        self.replaced
            .extend(shelves.into_iter().flatten().map(|shelf| shelf.rows));
        (self.filter, self.column, self.reverse) = (old.filter, old.column, old.reverse);
    }

    /// Adds a page of a listing.
    pub fn add(&mut self, page: Vec<Row>, learnt: Learnt<'_>) {
        if let Some(incoming) = &mut self.incoming {
            incoming.add(page);
            return;
        }
        let first = self.shelf.add(page);
        self.append(first, learnt);
    }

    /// Appends the rows from this number on.
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

    /// Ends the listing. If it failed, its rows are added to the existing ones.
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

    /// Sorts newly arrived rows into the list.
    pub fn settle(&mut self, learnt: Learnt<'_>) {
        // Rows that arrive during an arrangement are processed when it ends.
        if self.unsorted && self.stage == Stage::Settled {
            self.rearrange(learnt);
        }
    }

    /// Shows the dumps that match `filter`, or those that match `otherwise` if none does.
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

    /// Shows the first matches while the others are being searched.
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

    /// Adds the dumps whose manifests were read and that match.
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

    /// Sorts by another column.
    pub fn set_sort(&mut self, column: Column, reverse: bool, learnt: Learnt<'_>) {
        (self.column, self.reverse) = (column, reverse);
        self.unsorted = true;
        self.rearrange(learnt);
    }

    /// Removes a dump that no longer exists.
    pub fn remove(&mut self, id: DumpId) {
        let selected = self.selected().map(|dump| dump.id);
        self.deleted.push(id);
        self.marks.remove(&id);
        // The row keeps its number until the next listing; only its place in the lists is removed.
        if let Some(gone) = self.shelf.number(id) {
            Arc::make_mut(&mut self.order).retain(|row| *row != gone);
            Arc::make_mut(&mut self.visible).retain(|row| *row != gone);
        }
        self.cursor = self.cursor.min(self.visible.len().saturating_sub(1));
        if self.held && selected != Some(id) {
            self.select(selected);
        }
    }

    /// Arranges a short list immediately, and requests the arrangement of a long one.
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

    /// Whether an arrangement must be requested.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.stage == Stage::Due
    }

    /// The arrangement to request; its answer has the id `request`.
    pub fn due(&mut self, request: RequestId, clock: u64, learnt: Learnt<'_>) -> Job {
        self.stage = Stage::Asked(request, clock);
        self.job(learnt)
    }

    /// Whether the answer to this request is expected.
    #[must_use]
    pub fn awaits(&self, request: RequestId) -> bool {
        matches!(self.stage, Stage::Asked(asked, _) if asked == request)
    }

    /// The arrangement failed: the visible list remains.
    pub fn give_up(&mut self) {
        self.stage = Stage::Settled;
        self.unsorted = false;
    }

    /// Shows the arranged rows, and those that arrived since.
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

    /// Returns rows that are no longer visible, to be dropped on another thread.
    pub fn take_replaced(&mut self) -> Vec<Rows> {
        std::mem::take(&mut self.replaced)
    }

    /// Moves the cursor to a dump if it is visible. Returns whether it is.
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
