//! What the groups can be sorted by.

use std::cmp::{Ordering, Reverse};

use super::Tops;
use crate::render::Group;

/// What the groups are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupColumn {
    /// The most frequent first.
    #[default]
    Count,
    /// The last dump, the newest first.
    Last,
    /// The first dump, the newest first: what started crashing lately.
    First,
    /// Program.
    Exe,
    /// Signal.
    Signal,
    /// Where it crashed.
    Top,
    /// The first workload's name.
    Workload,
}

/// All columns, from left to right.
pub const GROUP_COLUMNS: [GroupColumn; 7] = [
    GroupColumn::Count,
    GroupColumn::Last,
    GroupColumn::First,
    GroupColumn::Exe,
    GroupColumn::Signal,
    GroupColumn::Top,
    GroupColumn::Workload,
];

impl GroupColumn {
    /// What `:sort` calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Last => "last",
            Self::First => "first",
            Self::Exe => "exe",
            Self::Signal => "signal",
            Self::Top => "top",
            Self::Workload => "workload",
        }
    }

    /// Compares two groups. Unknown values come last, in both directions.
    fn compare(self, reverse: bool, a: &Group, b: &Group, tops: &Tops) -> Ordering {
        let turned = |order: Ordering| if reverse { order.reverse() } else { order };
        match self {
            Self::Count => turned(b.count.cmp(&a.count)),
            Self::Last => turned(b.last.cmp(&a.last)),
            // Without a fingerprint it is not known whether the crash is new.
            Self::First => known(
                reverse,
                a.fingerprint.as_ref().map(|_| Reverse(a.first)),
                b.fingerprint.as_ref().map(|_| Reverse(b.first)),
            ),
            Self::Exe => turned(a.exe.cmp(&b.exe)),
            Self::Signal => turned(a.signal.cmp(&b.signal)),
            Self::Top => known(reverse, top(a, tops), top(b, tops)),
            Self::Workload => known(reverse, a.workloads.first(), b.workloads.first()),
        }
    }
}

/// The frame that a group is known by.
pub fn top<'g>(group: &'g Group, tops: &'g Tops) -> Option<&'g str> {
    tops.of(&group.newest).or(group.top.as_deref())
}

fn known<T: Ord>(reverse: bool, a: Option<T>, b: Option<T>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if reverse => b.cmp(&a),
        (Some(a), Some(b)) => a.cmp(&b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

/// Sorts groups; among equals, the most frequent and then the newest comes first.
pub fn sort_groups(groups: &mut [Group], (column, reverse): (GroupColumn, bool), tops: &Tops) {
    groups.sort_by(|a, b| {
        let order = column.compare(reverse, a, b, tops);
        order
            .then_with(|| (b.count, b.last).cmp(&(a.count, a.last)))
            .then_with(|| a.crash().cmp(&b.crash()))
    });
}
