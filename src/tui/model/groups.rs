//! The groups that are shown. Those of a long list are made on another thread, while the keys go on working.

use std::collections::HashMap;
use std::sync::Arc;

use cdh_bundle::DumpId;
use cdh_store::DumpSummary;
use jiff::Timestamp;

use super::rows::Rows;
use super::{Facts, FirstSeen, GroupColumn, RequestId, Tops, sort_groups};
use crate::render::{DumpFacts, Group};
use crate::tui::keymap::Action;

/// The groups that are shown.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    /// The groups; empty until the view is opened.
    pub list: Vec<Group>,
    /// Which one the keys act on.
    pub cursor: usize,
    /// First on the screen.
    pub top: usize,
    /// Whether the dumps have changed since they were grouped.
    pub stale: bool,
    /// When they were grouped, in milliseconds.
    pub made: u64,
    /// Under which filter they were grouped.
    pub filter: String,
    /// They are being made.
    pub asked: Option<RequestId>,
    /// What is done as soon as there is a group to do it with.
    pub then: Option<Action>,
    /// What they are sorted by.
    pub column: GroupColumn,
    /// Whether that order is reversed.
    pub reverse: bool,
    /// Whether they have to be sorted again.
    pub unsorted: bool,
    /// The dump whose crash to select when the groups are there.
    pub select: Option<DumpSummary>,
    /// The cursor remains on the first group, whichever that is, until it is moved.
    pub at_first: bool,
}

impl Groups {
    /// Whether they are being made.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Column and whether the order is reversed.
    #[must_use]
    pub fn sort(&self) -> (GroupColumn, bool) {
        (self.column, self.reverse)
    }

    /// The group that the keys act on.
    #[must_use]
    pub fn selected(&self) -> Option<&Group> {
        self.list.get(self.cursor)
    }

    /// Shows other groups, which are sorted. Returns those that were shown.
    pub fn show(&mut self, list: Vec<Group>, filter: String, clock: u64) -> Vec<Group> {
        let before = std::mem::replace(&mut self.list, list);
        let wanted = self.select.take();
        let selected = before.get(self.cursor);
        let place = match (&wanted, selected) {
            (Some(dump), _) => self.list.iter().position(|group| group.holds(dump)),
            (None, Some(selected)) => {
                let same = |group: &Group| group.crash() == selected.crash();
                self.list.iter().position(same)
            }
            (None, None) => None,
        };
        self.go_to(place);
        (self.made, self.filter) = (clock, filter);
        before
    }

    /// Sorts what is shown; the group that was selected remains selected.
    pub fn resort(&mut self, tops: &Tops) {
        self.unsorted = false;
        let selected = self.selected().map(|group| group.newest.id);
        let sort = self.sort();
        sort_groups(&mut self.list, sort, tops);
        let same = |group: &Group| Some(group.newest.id) == selected;
        self.go_to(self.list.iter().position(same));
    }

    /// The cursor follows its group, and the screen the cursor, unless the top of the list is shown.
    fn go_to(&mut self, place: Option<usize>) {
        match place {
            _ if self.at_first => (self.cursor, self.top) = (0, 0),
            Some(place) => {
                if self.top > 0 {
                    self.top = (self.top + place).saturating_sub(self.cursor);
                }
                self.cursor = place;
            }
            None => self.cursor = self.cursor.min(self.list.len().saturating_sub(1)),
        }
    }
}

/// What is to be grouped.
#[derive(Clone, Debug, PartialEq)]
pub struct Grouping {
    /// The rows.
    pub rows: Rows,
    /// The numbers of those that are grouped.
    pub visible: Arc<Vec<u32>>,
    /// What manifests told.
    pub facts: HashMap<DumpId, Arc<Facts>>,
    /// The filter that let them through.
    pub filter: String,
    /// When crashes first appeared.
    pub first_seen: FirstSeen,
    /// Where they happened.
    pub tops: Tops,
    /// What the groups are sorted by.
    pub sort: (GroupColumn, bool),
    /// The time.
    pub now: Timestamp,
}

impl Grouping {
    /// Groups and sorts them.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        let dumps = self.visible.iter();
        let dumps = dumps.filter_map(|number| self.rows.dump(*number));
        let mut groups = Group::of(dumps, |dump: &DumpSummary| {
            let facts = self.facts.get(&dump.id);
            DumpFacts {
                image: facts.and_then(|facts| facts.compared.image.as_ref()),
                owner: facts.and_then(|facts| facts.owner.as_ref()),
                top: None,
            }
        });
        self.first_seen.apply(&mut groups, self.now);
        sort_groups(&mut groups, self.sort, &self.tops);
        groups
    }
}
