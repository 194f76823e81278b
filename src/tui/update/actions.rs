//! Performs actions.

use super::{group, open, prompt, work};
use crate::tui::filter::Filter;
use crate::tui::help;
use crate::tui::keymap::{Action, Context};
use crate::tui::layout::regions;
use crate::tui::model::{
    COLUMNS, Column, GROUP_COLUMNS, Learnt, Model, Overlay, Page, PromptKind, Purpose, Screen,
    TABS, Tab,
};
use crate::tui::msg::Effect;
use crate::tui::signals::Stop;

/// Performs an action.
pub(super) fn act(model: &mut Model, action: Action, effects: &mut Vec<Effect>) {
    if model.overlay.is_some() && overlay(model, action, effects) {
        return;
    }
    model.groups.then = None;
    if *model.screen() == Screen::Groups && waits_for_groups(model, action) {
        model.groups.then = Some(action);
        return;
    }
    match action {
        Action::Help => model.overlay = Some(Overlay::Help(help::page(model))),
        Action::Command => prompt::open(model, PromptKind::Command),
        Action::Filter => prompt::open(model, PromptKind::Filter),
        Action::Find => prompt::open(model, PromptKind::Find),
        Action::Back | Action::No => back(model),
        Action::Quit => match model.transfers.active() {
            0 => model.quit = true,
            _ => model.overlay = Some(Overlay::Quit),
        },
        Action::Transfers => go(model, Screen::Transfers),
        Action::Stores => {
            model.store_cursor = model.place.current().unwrap_or(0);
            go(model, Screen::Stores);
        }
        Action::Refresh => refresh(model, effects),
        Action::Suspend => effects.push(Effect::Suspend(Stop::Group)),
        Action::ToggleMouse => {
            model.mouse = !model.mouse;
            effects.push(Effect::Mouse(model.mouse));
            let whose = if model.mouse {
                "here"
            } else {
                "the terminal's: select text with it"
            };
            model.say(format!("the mouse is {whose}"));
        }
        Action::Down => move_by(model, 1),
        Action::Up => move_by(model, -1),
        Action::PageDown => move_by(model, page_height(model)),
        Action::PageUp => move_by(model, -page_height(model)),
        Action::First => move_by(model, isize::MIN / 2),
        Action::Last => move_by(model, isize::MAX / 2),
        Action::Open => open::open(model, effects),
        Action::Backtrace => open::show_dump(model, Some(Tab::Backtrace), effects),
        Action::Groups => open::groups(model),
        Action::Debug => work::transfer_selected(model, Purpose::Debug, effects),
        Action::Fetch => work::transfer_selected(model, Purpose::Fetch, effects),
        Action::Mark => work::mark(model),
        Action::Diff => work::diff(model, effects),
        Action::Delete => work::delete(model),
        Action::Copy => work::copy(model, effects),
        Action::Pager => work::pager(model, effects),
        Action::SortNext => sort_step(model, true),
        Action::SortPrevious => sort_step(model, false),
        Action::SortReverse => match model.screen() {
            Screen::Groups => {
                let (column, reverse) = model.groups.sort();
                group::sort(model, column, !reverse);
            }
            _ => {
                let (column, reverse) = model.dumps.sort();
                sort(model, column, !reverse);
            }
        },
        Action::NewCrashes => group::newest_crashes(model),
        Action::Versions => group::versions(model),
        Action::Image => group::by_image(model),
        Action::NextTab => open::tab_step(model, 1, effects),
        Action::PreviousTab => open::tab_step(model, TABS.len() - 1, effects),
        Action::Tab1 => open::tab(model, Tab::Backtrace, effects),
        Action::Tab2 => open::tab(model, Tab::Info, effects),
        Action::Tab3 => open::tab(model, Tab::Workload, effects),
        Action::Tab4 => open::tab(model, Tab::Logs, effects),
        Action::Tab5 => open::tab(model, Tab::Modules, effects),
        Action::Tab6 => open::tab(model, Tab::Memory, effects),
        Action::Tab7 => open::tab(model, Tab::Registers, effects),
        Action::Tab8 => open::tab(model, Tab::Manifest, effects),
        Action::Instructions => open::instructions(model),
        Action::NextThread => open::thread(model, 1),
        Action::Variables => open::variables(model),
        Action::PreviousThread => open::thread(model, -1),
        Action::NextDump => open::neighbour(model, 1, effects),
        Action::PreviousDump => open::neighbour(model, -1, effects),
        Action::FindNext => find_next(model),
        Action::ScrollRight => scroll(model, 8),
        Action::ScrollLeft => scroll(model, -8),
        Action::Cancel => work::cancel(model, effects),
        // Only valid while a prompt or a question is open.
        Action::Accept
        | Action::Complete
        | Action::Older
        | Action::Newer
        | Action::Erase
        | Action::EraseWord
        | Action::EraseAll
        | Action::WordLeft
        | Action::WordRight
        | Action::Yes => {}
    }
}

/// Whether an action needs a group and there is none yet. It is then performed when groups are
/// available.
fn waits_for_groups(model: &Model, action: Action) -> bool {
    let coming = model.groups.is_asked() || model.dumps.is_arranging();
    let about = [
        Action::Open,
        Action::Versions,
        Action::Image,
        Action::Backtrace,
        Action::Debug,
        Action::Fetch,
        Action::Pager,
        Action::Copy,
    ];
    model.groups.list.is_empty() && coming && about.contains(&action)
}

/// Applies an action to the overlay. Returns whether the action was consumed.
pub(super) fn overlay(model: &mut Model, action: Action, effects: &mut Vec<Effect>) -> bool {
    let height = page_height(model);
    match (&mut model.overlay, action) {
        (Some(Overlay::Delete(dumps)), Action::Yes) => {
            let dumps = std::mem::take(dumps);
            model.overlay = None;
            let count = dumps.len();
            model.say(format!(
                "deleting {count} {}",
                if count == 1 { "dump" } else { "dumps" }
            ));
            effects.extend(dumps.into_iter().map(|dump| Effect::Delete(Box::new(dump))));
        }
        (Some(Overlay::Quit), Action::Yes) => model.quit = true,
        (Some(Overlay::Help(page)), Action::Down) => page.top += 1,
        (Some(Overlay::Help(page)), Action::Up) => page.top = page.top.saturating_sub(1),
        (Some(Overlay::Help(page)), Action::PageDown) => {
            page.top = page.top.saturating_add_signed(height);
        }
        (Some(Overlay::Help(page)), Action::PageUp) => {
            page.top = page.top.saturating_add_signed(-height);
        }
        (Some(Overlay::Help(page)), Action::First) => page.top = 0,
        (Some(Overlay::Help(page)), Action::Last) => page.top = page.lines.len(),
        (Some(Overlay::Waiting(id)), Action::Back | Action::No | Action::Cancel) => {
            effects.push(Effect::Cancel(*id));
            model.overlay = None;
            model.say("the debugger is not started");
        }
        (Some(Overlay::Waiting(_)), Action::Quit) => model.quit = true,
        (Some(Overlay::Waiting(_)), _) => {}
        (_, Action::Suspend | Action::ToggleMouse) => return false,
        (Some(Overlay::Help(_)), Action::Quit | Action::Help | Action::Back) => {
            model.overlay = None;
        }
        (Some(Overlay::Delete(_)), Action::No) => {
            model.overlay = None;
            model.say("nothing was deleted");
        }
        (Some(Overlay::Quit), Action::No) => model.overlay = None,
        (Some(Overlay::Delete(_) | Overlay::Quit), _) => {}
        // Any key dismisses a notice, and then performs its own action.
        (Some(Overlay::Notice { .. }), Action::Back | Action::Open | Action::Quit) => {
            model.overlay = None;
        }
        (Some(Overlay::Help(_) | Overlay::Notice { .. }), _) => {
            model.overlay = None;
            return false;
        }
        (None, _) => return false,
    }
    true
}

/// Shows another view, or returns to one that is already in the history.
pub(super) fn go(model: &mut Model, screen: Screen) {
    let same = |known: &Screen| std::mem::discriminant(known) == std::mem::discriminant(&screen);
    if let Some(place) = model.screens.iter().position(same) {
        model.screens.truncate(place + 1);
    } else {
        model.screens.push(screen);
    }
    model.rest.moved = model.clock;
    model.rest.done = false;
}

pub(super) fn back(model: &mut Model) {
    if model.screens.len() > 1 {
        let left = model.screens.pop();
        if let Some(Screen::Dumps {
            restore: Some(filter),
        }) = left
        {
            set_filter(model, &filter, false);
        }
    } else if !model.dumps.filter().is_empty() {
        set_filter(model, "", false);
    } else if !model.dumps.marks.is_empty() {
        model.dumps.marks.clear();
    } else {
        let key = model.keymap.key_for(Context::Everywhere, Action::Quit);
        model.say(format!("this is the first view; `{key}` quits"));
    }
    model.rest.moved = model.clock;
    model.rest.done = false;
}

/// Lists the store.
pub(super) fn list(model: &mut Model, effects: &mut Vec<Effect>) {
    let request = model.request();
    model.listing = request;
    model.dumps.begin();
    effects.push(Effect::List(request));
}

pub(super) fn refresh(model: &mut Model, effects: &mut Vec<Effect>) {
    model.lost = None;
    model.known.forget(true);
    model.rest.done = false;
    list(model, effects);
    if *model.screen() == Screen::Dump {
        let tab = model.dump.as_ref().map(|view| view.tab);
        open::show_dump(model, tab, effects);
    }
}

pub(super) fn page_height(model: &Model) -> isize {
    let rows = match &model.overlay {
        Some(Overlay::Help(_)) => model.size.1.saturating_sub(6),
        _ => regions(model).body.height,
    };
    isize::try_from(rows.saturating_sub(1).max(1)).unwrap_or(1)
}

pub(super) fn move_by(model: &mut Model, rows: isize) {
    let step = |cursor: &mut usize, count: usize| {
        *cursor = cursor
            .saturating_add_signed(rows)
            .min(count.saturating_sub(1));
    };
    match model.screen() {
        Screen::Dumps { .. } => model.dumps.move_by(rows),
        Screen::Groups => {
            model.groups.at_first = false;
            step(&mut model.groups.cursor, model.groups.list.len());
        }
        Screen::Group => model.group_page.move_by(rows),
        Screen::Dump => {
            if let Some(view) = &mut model.dump {
                view.page.move_by(rows);
            }
        }
        Screen::Diff => {
            if let Some(view) = &mut model.diff {
                view.page.move_by(rows);
            }
        }
        Screen::Transfers => step(&mut model.transfers.cursor, model.transfers.list.len()),
        Screen::Stores => step(&mut model.store_cursor, model.place.stores.len()),
    }
    model.rest.moved = model.clock;
    model.rest.done = false;
}

/// Sorts the visible dumps or groups by the adjacent column.
fn sort_step(model: &mut Model, to_the_right: bool) {
    if *model.screen() == Screen::Groups {
        let step = if to_the_right {
            1
        } else {
            GROUP_COLUMNS.len() - 1
        };
        return group::sort_step(model, step);
    }
    let step = if to_the_right { 1 } else { COLUMNS.len() - 1 };
    let (column, _) = model.dumps.sort();
    let place = COLUMNS.iter().position(|known| *known == column);
    if let Some(next) = COLUMNS.get((place.unwrap_or(0) + step) % COLUMNS.len()) {
        sort(model, *next, false);
    }
}

/// Sorts the list.
pub(super) fn sort(model: &mut Model, column: Column, reverse: bool) {
    let (facts, tops) = (&model.facts, &model.tops);
    model
        .dumps
        .set_sort(column, reverse, Learnt { facts, tops });
    model.say(sorting(model));
}

/// A text about the sort order.
pub(super) fn sorting(model: &Model) -> String {
    let (column, reverse) = model.dumps.sort();
    let round = if reverse { ", the other way round" } else { "" };
    let (verb, more) = match model.dumps.is_arranging() {
        true => ("sorting", " …"),
        false => ("sorted", ""),
    };
    format!("{verb} by {}{round}{more}", column.name())
}

pub(super) fn shown_page(model: &mut Model) -> Option<&mut Page> {
    match model.screens.last() {
        Some(Screen::Group) => Some(&mut model.group_page),
        Some(Screen::Dump) => model.dump.as_mut().map(|view| &mut view.page),
        Some(Screen::Diff) => model.diff.as_mut().map(|view| &mut view.page),
        _ => None,
    }
}

pub(super) fn find_next(model: &mut Model) {
    let Some(page) = shown_page(model) else {
        return;
    };
    let sought = page.sought.clone();
    if sought.is_empty() {
        return prompt::open(model, PromptKind::Find);
    }
    if !page.find(&sought, false) {
        model.complain(format!("`{sought}` is not here"));
    }
}

pub(super) fn scroll(model: &mut Model, columns: isize) {
    if let Some(page) = shown_page(model) {
        page.scroll_by(columns);
    }
}

/// Filters the list.
pub(super) fn set_filter(model: &mut Model, text: &str, being_typed: bool) {
    let filter = Filter::parse(text, model.now, being_typed);
    filter_by(model, filter, None);
}

/// Filters the list by `filter`, or by `otherwise` if nothing matches.
pub(super) fn filter_by(model: &mut Model, filter: Filter, otherwise: Option<Filter>) {
    let (facts, tops) = (&model.facts, &model.tops);
    let learnt = Learnt { facts, tops };
    model.dumps.set_filter(filter, otherwise, learnt);
    model.groups.stale = true;
    model.rest.moved = model.clock;
    model.rest.done = false;
}
