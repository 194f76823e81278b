//! The mouse: a click selects, a double click opens, a click on a title sorts, on a tab shows it;
//! the wheel scrolls.

use ratatui::crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Position;

use super::{actions, group, new_page, open};
use crate::tui::layout::{column_at, group_column_at, regions};
use crate::tui::model::{COLUMNS, Model, Overlay, Screen, TABS};
use crate::tui::msg::Effect;
use crate::tui::view::{group_column, tab_places};

/// Rows per step of the wheel.
const WHEEL: isize = 3;
/// Maximum milliseconds between the clicks of a double click.
const DOUBLE: u64 = 400;

pub(super) fn mouse(model: &mut Model, event: MouseEvent, effects: &mut Vec<Effect>) {
    match event.kind {
        MouseEventKind::ScrollDown => wheel(model, WHEEL),
        MouseEventKind::ScrollUp => wheel(model, -WHEEL),
        MouseEventKind::Down(MouseButton::Left) if model.prompt.is_none() => {
            press(model, event.column, event.row, effects);
        }
        _ => {}
    }
}

fn wheel(model: &mut Model, rows: isize) {
    match &mut model.overlay {
        Some(Overlay::Help(page)) => page.top = page.top.saturating_add_signed(rows),
        Some(_) => {}
        None => actions::move_by(model, rows),
    }
}

fn press(model: &mut Model, x: u16, y: u16, effects: &mut Vec<Effect>) {
    match &model.overlay {
        None => {}
        // Questions are only answered by keys, so that a stray click deletes nothing.
        Some(Overlay::Delete(_) | Overlay::Quit | Overlay::Waiting(_)) => return,
        Some(_) => {
            model.overlay = None;
            return;
        }
    }
    let regions = regions(model);
    let at = Position::new(x, y);
    if regions.titles.contains(at) {
        return title(model, x, effects);
    }
    if regions.threads.contains(at) {
        if let Some(view) = &mut model.dump {
            view.thread = view.thread_top + usize::from(y - regions.threads.y);
            new_page(model);
        }
        return;
    }
    if !regions.body.contains(at) {
        return;
    }
    let row = usize::from(y - regions.body.y);
    let place = match model.screen() {
        Screen::Dumps { .. } => model.dumps.top + row,
        Screen::Groups => model.groups.top + row,
        Screen::Transfers => model.transfers.top + row / 2,
        Screen::Stores => row,
        Screen::Group => model.group_page.top + row,
        Screen::Dump => model.dump.as_ref().map_or(0, |view| view.page.top + row),
        Screen::Diff => model.diff.as_ref().map_or(0, |view| view.page.top + row),
    };
    let (cursor, count) = match model.screen() {
        Screen::Dumps { .. } => (model.dumps.cursor, model.dumps.visible_len()),
        Screen::Groups => (model.groups.cursor, model.groups.list.len()),
        Screen::Group => (model.group_page.cursor, model.group_page.lines.len()),
        Screen::Transfers => (model.transfers.cursor, model.transfers.list.len()),
        Screen::Stores => (model.store_cursor, model.place.stores.len()),
        Screen::Dump => model
            .dump
            .as_ref()
            .map_or((0, 0), |view| (view.page.cursor, view.page.lines.len())),
        Screen::Diff => model
            .diff
            .as_ref()
            .map_or((0, 0), |view| (view.page.cursor, view.page.lines.len())),
    };
    if place >= count {
        return;
    }
    let rows = isize::try_from(place).unwrap_or(0) - isize::try_from(cursor).unwrap_or(0);
    actions::move_by(model, rows);
    let again = model
        .pressed
        .is_some_and(|(before, when)| before == y && model.clock.saturating_sub(when) < DOUBLE);
    model.pressed = (!again).then_some((y, model.clock));
    if again {
        open::open(model, effects);
    }
}

fn title(model: &mut Model, x: u16, effects: &mut Vec<Effect>) {
    match model.screen() {
        Screen::Dumps { .. } => {
            let column = column_at(model.size.0, x).and_then(|place| COLUMNS.get(place));
            if let Some(column) = column {
                let (before, reverse) = model.dumps.sort();
                actions::sort(model, *column, *column == before && !reverse);
            }
        }
        Screen::Groups => {
            let column = group_column_at(model.size.0, x).and_then(group_column);
            if let Some(column) = column {
                let (before, reverse) = model.groups.sort();
                group::sort(model, column, column == before && !reverse);
            }
        }
        Screen::Dump => {
            let place = tab_places(model.size.0)
                .into_iter()
                .position(|(start, end)| (start..end).contains(&x));
            if let Some(tab) = place.and_then(|place| TABS.get(place)) {
                open::tab(model, *tab, effects);
            }
        }
        _ => {}
    }
}
