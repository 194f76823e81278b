//! The columns by which the groups can be sorted.

use std::cmp::{Ordering, Reverse};

use super::Tops;
use crate::render::Group;

/// A column of the groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupColumn {
    /// Most frequent first.
    #[default]
    Count,
    /// Newest last dump first.
    Last,
    /// Newest first dump first: what started to crash recently.
    First,
    /// Program.
    Exe,
    /// Signal.
    Signal,
    /// The frame in which it crashed.
    Top,
    /// Name of the first workload.
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
    /// The name in `:sort`.
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
            // Without a fingerprint it is unknown when the crash first appeared.
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

/// The top frame of a group.
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

/// Sorts groups. Equal groups are sorted by count, then by newest dump.
pub fn sort_groups(groups: &mut [Group], (column, reverse): (GroupColumn, bool), tops: &Tops) {
    groups.sort_by(|a, b| {
        let order = column.compare(reverse, a, b, tops);
        order
            .then_with(|| (b.count, b.last).cmp(&(a.count, a.last)))
            .then_with(|| a.crash().cmp(&b.crash()))
    });
}
