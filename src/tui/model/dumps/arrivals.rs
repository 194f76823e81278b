//! Adds the dumps of an automatic refresh to the visible list.
//!
//! Invariant: a refresh moves neither the selected dump nor the rows on the screen. The only
//! exception is the top of the list, where new rows push the others down.

use super::super::arrange::{lacks, passes, place};
use super::{Dumps, Learnt, Listing, Row, Stage};

impl Dumps {
    /// Whether a refresh can be applied: nothing is being listed or arranged.
    #[must_use]
    pub fn takes_arrivals(&self) -> bool {
        self.listing != Listing::Running && self.stage == Stage::Settled && !self.unsorted
    }

    /// Adds the rows that are not listed yet, and marks them. Returns their number.
    pub fn arrive(&mut self, rows: Vec<Row>, clock: u64, learnt: Learnt<'_>) -> usize {
        let is_new = |row: &Row| {
            let id = row.dump.id;
            self.shelf.number(id).is_none() && !self.deleted.contains(&id)
        };
        let rows: Vec<Row> = rows.into_iter().filter(is_new).collect();
        if rows.is_empty() || !self.takes_arrivals() {
            return 0;
        }
        let count = rows.len();
        let selected = self.selected().map(|dump| dump.id);
        let first_shown = self.get(self.top).map(|dump| dump.id);
        for row in &rows {
            self.fresh.mark(row.dump.id, clock);
        }
        let first = self.shelf.add(rows);
        let rows = &self.shelf.rows;
        let sort = (self.column, self.reverse);
        let order = std::sync::Arc::make_mut(&mut self.order);
        let visible = std::sync::Arc::make_mut(&mut self.visible);
        for number in first..rows.count() {
            let Some(row) = rows.get(number) else {
                continue;
            };
            let at = place(order, rows, &row.dump, sort, learnt.tops);
            order.insert(at, number);
            if passes(&self.filter, row, learnt.facts) {
                let at = place(visible, rows, &row.dump, sort, learnt.tops);
                visible.insert(at, number);
            } else if lacks(&self.filter, row, learnt.facts) {
                self.undecided.push(number);
            }
        }
        if selected.is_some() {
            self.held = true;
            self.select(selected);
        }
        let shown = first_shown.and_then(|id| self.shelf.number(id));
        let is_shown = |number: &u32| Some(*number) == shown;
        if self.top > 0
            && let Some(top) = self.visible.iter().position(is_shown)
        {
            self.top = top;
        }
        count
    }

    /// Moves the cursor by this many rows; rows that it passes are no longer marked as new.
    pub fn move_by(&mut self, rows: isize) {
        let last = self.visible.len().saturating_sub(1);
        let before = self.cursor.min(last);
        self.cursor = before.saturating_add_signed(rows).min(last);
        self.held = self.cursor > 0;
        if self.fresh.is_empty() {
            return;
        }
        let (low, high) = (before.min(self.cursor), before.max(self.cursor));
        let passed = self.visible.get(low..=high).unwrap_or_default();
        for number in passed {
            if let Some(dump) = self.shelf.rows.dump(*number) {
                self.fresh.pass(dump.id);
            }
        }
    }
}
