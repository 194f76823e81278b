//! The visible groups. Groups of a long list are computed on another thread, while the keys
//! continue to work.

use std::collections::HashMap;
use std::sync::Arc;

use cdh_bundle::DumpId;
use cdh_store::DumpSummary;
use jiff::Timestamp;

use super::rows::Rows;
use super::{Facts, FirstSeen, GroupColumn, RequestId, Tops, sort_groups};
use crate::render::{DumpFacts, Group};
use crate::tui::keymap::Action;

/// The visible groups.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    /// The groups; empty until the view is opened.
    pub list: Vec<Group>,
    /// Index of the selected group.
    pub cursor: usize,
    /// Index of the first group on the screen.
    pub top: usize,
    /// Whether the dumps have changed since the groups were computed.
    pub stale: bool,
    /// When they were computed, in milliseconds.
    pub made: u64,
    /// The filter under which they were computed.
    pub filter: String,
    /// The request in progress.
    pub asked: Option<RequestId>,
    /// Action to perform when the groups are available.
    pub then: Option<Action>,
    /// Column by which they are sorted.
    pub column: GroupColumn,
    /// Whether that order is reversed.
    pub reverse: bool,
    /// Whether they must be sorted again.
    pub unsorted: bool,
    /// The dump whose group to select when the groups are available.
    pub select: Option<DumpSummary>,
    /// Whether the cursor remains on the first group until the user moves it.
    pub at_first: bool,
}

impl Groups {
    /// Whether a request is in progress.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// The sort column, and whether the order is reversed.
    #[must_use]
    pub fn sort(&self) -> (GroupColumn, bool) {
        (self.column, self.reverse)
    }

    /// The selected group.
    #[must_use]
    pub fn selected(&self) -> Option<&Group> {
        self.list.get(self.cursor)
    }

    /// Replaces the groups with a sorted list. Returns the previous ones.
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

    /// Sorts the groups; the selected group remains selected.
    pub fn resort(&mut self, tops: &Tops) {
        self.unsorted = false;
        let selected = self.selected().map(|group| group.newest.id);
        let sort = self.sort();
        sort_groups(&mut self.list, sort, tops);
        let same = |group: &Group| Some(group.newest.id) == selected;
        self.go_to(self.list.iter().position(same));
    }

    /// Moves the cursor to its group, and scrolls to it unless the top of the list is shown.
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

/// A request to group dumps.
#[derive(Clone, Debug, PartialEq)]
pub struct Grouping {
    /// The rows.
    pub rows: Rows,
    /// Numbers of the rows to group.
    pub visible: Arc<Vec<u32>>,
    /// Facts from manifests.
    pub facts: HashMap<DumpId, Arc<Facts>>,
    /// The filter that selected them.
    pub filter: String,
    /// When crashes first appeared.
    pub first_seen: FirstSeen,
    /// The frames in which they crashed.
    pub tops: Tops,
    /// Column by which the groups are sorted.
    pub sort: (GroupColumn, bool),
    /// Current time.
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
