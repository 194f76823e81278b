//! The groups that are shown. Those of a long list are made on another thread, while the keys go on working.

use std::collections::HashMap;
use std::sync::Arc;

use cdh_bundle::DumpId;
use cdh_store::DumpSummary;

use super::rows::Rows;
use super::{Facts, RequestId};
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
}

impl Groups {
    /// Whether they are being made.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Shows others; the group that was selected stays selected. Gives back those that were shown.
    pub fn show(&mut self, list: Vec<Group>, filter: String, clock: u64) -> Vec<Group> {
        let before = std::mem::replace(&mut self.list, list);
        let crash = before.get(self.cursor).map(Group::crash);
        let same = |group: &Group| Some(group.crash()) == crash;
        let place = crash.and_then(|_| self.list.iter().position(same));
        self.cursor = place.unwrap_or(self.cursor);
        (self.made, self.filter) = (clock, filter);
        before
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
}

impl Grouping {
    /// Groups them.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        let dumps = self.visible.iter();
        let dumps = dumps.filter_map(|number| self.rows.dump(*number));
        Group::of(dumps, |dump: &DumpSummary| {
            let facts = self.facts.get(&dump.id);
            DumpFacts {
                image: facts.and_then(|facts| facts.image.as_ref()),
                owner: facts.and_then(|facts| facts.owner.as_ref()),
                top: None,
            }
        })
    }
}
