//! The layout of the screen: one pure function for `view`, which draws, and for `update`, which
//! must know what the mouse points at and how many rows are visible.

use ratatui::layout::Rect;

use super::model::{Model, Pane, Screen, Tab};
use crate::render::TIMES;

/// Minimum size at which anything is shown.
pub const SMALLEST: (u16, u16) = (20, 6);
/// Minimum height for a preview below a list.
const PREVIEW_FROM: u16 = 30;
/// Minimum number of lines for the details below the groups.
const DETAILS_FROM: u16 = 14;
/// Minimum width for additional columns in lists.
const ROOMY: u16 = 120;
/// Minimum width for all columns of groups.
const GROUPS_FROM: u16 = 64;

/// The parts of the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regions {
    /// Title line with the current location.
    pub header: Rect,
    /// Persistent problem; no lines if there is none.
    pub banner: Rect,
    /// Column titles, or tabs.
    pub titles: Rect,
    /// Rows, or a page.
    pub body: Rect,
    /// Threads of a dump, left of its page.
    pub threads: Rect,
    /// Images and workloads of the selected group.
    pub details: Rect,
    /// Backtrace of the selection, or source of the frame.
    pub preview: Rect,
    /// Messages, or the prompt.
    pub status: Rect,
    /// Keys.
    pub footer: Rect,
}

/// Computes the layout for this model.
#[must_use]
pub fn regions(model: &Model) -> Regions {
    let (width, height) = model.size;
    if width < SMALLEST.0 || height < SMALLEST.1 {
        return Regions::default();
    }
    let line = |y: u16, height: u16| Rect::new(0, y, width, height);
    let banner = u16::from(model.lost.is_some());
    let titles = match model.screen() {
        Screen::Dump => 2,
        _ => 1,
    };
    let top = 1 + banner + titles;
    let middle = height.saturating_sub(top + 2);
    let mut regions = Regions {
        header: line(0, 1),
        banner: line(1, banner),
        titles: line(1 + banner, titles),
        body: line(top, middle),
        status: line(height - 2, 1),
        footer: line(height - 1, 1),
        ..Regions::default()
    };
    let preview = preview_height(model, middle);
    let details = details_height(model, middle);
    regions.body.height -= preview + details;
    regions.details = line(top + regions.body.height, details);
    regions.preview = line(regions.details.bottom(), preview);
    if has_threads(model) && width >= 60 {
        let columns = (width / 4).clamp(18, 34);
        regions.threads = Rect {
            width: columns,
            ..regions.body
        };
        regions.body.x += columns + 1;
        regions.body.width -= columns + 1;
    }
    regions
}

fn preview_height(model: &Model, middle: u16) -> u16 {
    match model.screen() {
        Screen::Dumps { .. } if model.size.1 >= PREVIEW_FROM => middle * 2 / 5,
        Screen::Groups if model.size.1 >= PREVIEW_FROM => middle * 3 / 10,
        Screen::Dump => {
            let view = model.dump.as_ref();
            let source = view.filter(|view| view.tab == Tab::Backtrace);
            if source.is_some_and(|view| view.pane == Pane::Instructions) && middle >= 15 {
                return (middle / 2).min(14);
            }
            match source.and_then(|view| view.source.as_ref()) {
                Some(source) if middle >= 15 => match &source.lines {
                    Ok(_) => (middle * 2 / 5).min(13),
                    Err(reason) if reason.is_empty() => 0,
                    Err(_) => 2,
                },
                _ => 0,
            }
        }
        _ => 0,
    }
}

/// A rule, titles, and as many lines as leave most of the screen to the groups.
fn details_height(model: &Model, middle: u16) -> u16 {
    match model.screen() {
        Screen::Groups if middle >= DETAILS_FROM => 2 + (middle / 4).min(8),
        _ => 0,
    }
}

/// Whether the tab shows one of several threads.
fn has_threads(model: &Model) -> bool {
    let Some(view) = model
        .dump
        .as_ref()
        .filter(|_| *model.screen() == Screen::Dump)
    else {
        return false;
    };
    let stacks = model.known.stacks(view.dump.id);
    matches!(view.tab, Tab::Backtrace | Tab::Registers)
        && stacks.is_some_and(|stacks| stacks.backtrace.threads.len() > 1)
}

/// Widths of the dumps' columns, left to right; a column of width 0 is not shown.
#[must_use]
pub fn columns(width: u16) -> [u16; 7] {
    // The mark, and blanks between columns.
    let rest = width.saturating_sub(2 + 6);
    let roomy = width >= ROOMY;
    let (age, signal, verdict, size) = if roomy { (8, 9, 10, 11) } else { (5, 7, 8, 7) };
    let flexible = rest.saturating_sub(age + signal + verdict + size);
    let top = (flexible * 2 / 5).min(90);
    let exe = (flexible / 4).clamp(6, 24).min(flexible);
    let workload = flexible.saturating_sub(top + exe);
    [age, workload, exe, signal, verdict, size, top]
}

/// Number of intervals in the trend.
#[must_use]
pub fn trend_width(width: u16) -> usize {
    if width >= ROOMY { TIMES } else { TIMES / 4 }
}

/// Widths of the groups' columns, left to right: count, last, first, trend, program, signal, top
/// frame, workloads, images. A column of width 0 is not shown.
#[must_use]
pub fn group_columns(width: u16) -> [u16; 9] {
    let trend = match width {
        ..GROUPS_FROM => 0,
        _ => u16::try_from(trend_width(width)).unwrap_or(0),
    };
    let (first, exe, images) = match width {
        ROOMY.. => (8, 16, width / 6),
        _ => (8, 11, 0),
    };
    let fixed = [6, 5, first, trend, exe, 7, images];
    // The mark, and a blank before each column except the first.
    let columns = fixed.iter().filter(|room| **room > 0).count() + 2;
    let taken = fixed.iter().sum::<u16>() + u16::try_from(columns).unwrap_or(0);
    let rest = width.saturating_sub(taken);
    let top = rest * 3 / 5;
    [6, 5, first, trend, exe, 7, top, rest - top, images]
}

/// Index of the column at `x`.
fn at(rooms: impl IntoIterator<Item = u16>, mut start: u16, x: u16) -> Option<usize> {
    for (number, room) in rooms.into_iter().enumerate() {
        if room == 0 {
            continue;
        }
        if (start..start + room + 1).contains(&x) {
            return Some(number);
        }
        start += room + 1;
    }
    None
}

/// Index of the dumps' column at `x`.
#[must_use]
pub fn column_at(width: u16, x: u16) -> Option<usize> {
    at(columns(width), 2, x)
}

/// Index of the groups' column at `x`.
#[must_use]
pub fn group_column_at(width: u16, x: u16) -> Option<usize> {
    at(group_columns(width), 1, x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_columns_fill_the_width() {
        for width in [20, 40, 80, 100, 119, 120, 160, 300] {
            let used: u16 = columns(width).iter().sum::<u16>() + 8;
            assert!(used <= width.max(35 + 8), "{width}: {used}");
        }
        let [age, workload, exe, signal, verdict, size, top] = columns(80);
        assert_eq!(age + workload + exe + signal + verdict + size + top + 8, 80);
        assert!(workload >= 16 && exe >= 10 && top >= 16);
        assert_eq!(column_at(80, 3), Some(0));
        assert_eq!(column_at(80, 79), Some(6));
    }

    #[test]
    fn layout_group_columns_fill_the_width_and_keep_first_seen() {
        for width in [64, 80, 100, 119, 120, 160, 300] {
            let rooms = group_columns(width);
            let shown = rooms.iter().filter(|room| **room > 0).count();
            let used = rooms.iter().sum::<u16>() + u16::try_from(shown).unwrap();
            assert_eq!(used, width);
            assert!(rooms[2] >= 8, "{width}: `119m NEW` is cut");
        }
        assert_eq!(group_column_at(80, 1), Some(0));
        assert_eq!(group_column_at(80, 14), Some(2));
        assert_eq!(group_column_at(80, 79), Some(7));
    }
}
