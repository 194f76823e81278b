//! Opens the selection: a dump and its tabs, the dumps of a group, another store.

use std::collections::BTreeSet;

use cdh_store::DumpSummary;

use super::actions::{back, go, set_filter};
use super::{new_page, refresh_page};
use crate::tui::model::{AT_ONCE, Depth, DumpView, Model, Page, Pane, Screen, TABS, Tab};
use crate::tui::msg::Effect;
use crate::tui::pages;

pub(super) fn open(model: &mut Model, effects: &mut Vec<Effect>) {
    match model.screen() {
        Screen::Dumps { .. } | Screen::Transfers => show_dump(model, None, effects),
        Screen::Groups | Screen::Group => open_group(model),
        Screen::Stores => {
            if let Some((name, _)) = model.place.stores.get(model.store_cursor) {
                effects.push(Effect::Switch(name.clone()));
            }
        }
        Screen::Dump | Screen::Diff => {}
    }
}

/// Shows the dumps of the group, by a filter that could have been typed.
pub(super) fn open_group(model: &mut Model) {
    let Some(group) = model.groups.list.get(model.groups.cursor) else {
        return;
    };
    let word = |text: &str| text.replace(char::is_whitespace, "?");
    let mut narrowed = format!("exe:{} signal:{}", word(&group.exe), word(&group.signal));
    if let Some(fingerprint) = &group.fingerprint {
        narrowed = format!("fingerprint:{fingerprint} {narrowed}");
    }
    let before = model.dumps.filter().text.clone();
    let text = format!("{before} {narrowed}").trim_start().to_owned();
    model.screens.push(Screen::Dumps {
        restore: Some(before),
    });
    model.dumps.held = false;
    set_filter(model, &text, false);
    model.dumps.cursor = 0;
}

pub(super) fn groups(model: &mut Model) {
    if *model.screen() == Screen::Groups {
        return back(model);
    }
    // Return from the dumps of a group to the groups.
    if model.screens.contains(&Screen::Groups) {
        while *model.screen() != Screen::Groups {
            back(model);
        }
        return;
    }
    show_groups(model);
}

/// Shows the groups. Groups of another filter are hidden while the new ones are computed.
pub(super) fn show_groups(model: &mut Model) {
    model.groups.stale = true;
    let takes_long = model.dumps.is_arranging() || model.dumps.visible_len() > AT_ONCE;
    if takes_long && model.groups.filter != model.dumps.filter().text {
        model.groups.list = Vec::new();
    }
    go(model, Screen::Groups);
}

/// Shows the selected dump and requests what is not known yet.
pub(super) fn show_dump(model: &mut Model, tab: Option<Tab>, effects: &mut Vec<Effect>) {
    match model.selected().cloned() {
        Some(dump) => show(model, dump, tab, effects),
        None => model.say("no dump is selected"),
    }
}

/// Shows this dump.
pub(super) fn show(
    model: &mut Model,
    dump: DumpSummary,
    tab: Option<Tab>,
    effects: &mut Vec<Effect>,
) {
    let same = model
        .dump
        .as_ref()
        .is_some_and(|view| view.dump.id == dump.id);
    if !same {
        model.dump = Some(DumpView {
            dump: dump.clone(),
            tab: Tab::Backtrace,
            thread: 0,
            thread_top: 0,
            expanded: BTreeSet::new(),
            page: Page::default(),
            source: None,
            source_wanted: None,
            pane: Pane::Source,
        });
    }
    if let (Some(view), Some(tab)) = (&mut model.dump, tab) {
        view.tab = tab;
    }
    if *model.screen() != Screen::Dump {
        go(model, Screen::Dump);
    }
    explain(model, &dump, Depth::Full, effects);
    new_page(model);
}

/// Requests what is not known yet.
pub(super) fn explain(
    model: &mut Model,
    dump: &DumpSummary,
    depth: Depth,
    effects: &mut Vec<Effect>,
) {
    if model.known.lacks(dump.id, depth) {
        let request = model.request();
        model.known.note(dump.id).pending = Some((request, depth));
        effects.push(Effect::Explain(request, Box::new(dump.clone()), depth));
    }
}

/// Shows a tab.
pub(super) fn tab(model: &mut Model, tab: Tab, effects: &mut Vec<Effect>) {
    show_dump(model, Some(tab), effects);
}

pub(super) fn tab_step(model: &mut Model, step: usize, effects: &mut Vec<Effect>) {
    let shown = model.dump.as_ref().map(|view| view.tab);
    let place = TABS
        .iter()
        .position(|known| Some(*known) == shown)
        .unwrap_or(0);
    if let Some(next) = TABS.get((place + step) % TABS.len()) {
        tab(model, *next, effects);
    }
}

/// Shows instructions below the backtrace, or the source again.
pub(super) fn instructions(model: &mut Model) {
    let Some(view) = model
        .dump
        .as_mut()
        .filter(|view| view.tab == Tab::Backtrace)
    else {
        return;
    };
    view.pane = match view.pane {
        Pane::Source => Pane::Instructions,
        Pane::Instructions => Pane::Source,
    };
}

/// Shows or hides the variables of the selected frame.
pub(super) fn variables(model: &mut Model) {
    let Some(view) = &mut model.dump else { return };
    if view.tab != Tab::Backtrace {
        return;
    }
    let Some(stacks) = model.known.stacks(view.dump.id) else {
        return;
    };
    let Some(thread) = stacks.backtrace.threads.get(view.thread) else {
        return;
    };
    let frame = (thread.tid, pages::number_at(view));
    if !stacks.variables.contains_key(&frame) {
        return model.say("nothing is known of the variables of this frame");
    }
    if !view.expanded.remove(&frame) {
        view.expanded.insert(frame);
    }
    refresh_page(model);
}

pub(super) fn thread(model: &mut Model, step: isize) {
    let Some(view) = &mut model.dump else { return };
    let count = model
        .known
        .stacks(view.dump.id)
        .map_or(0, |stacks| stacks.backtrace.threads.len());
    let next = view.thread.saturating_add_signed(step);
    if count < 2 {
        return model.say("there is one thread");
    }
    if next < count && next != view.thread {
        view.thread = next;
        new_page(model);
    }
}

pub(super) fn neighbour(model: &mut Model, step: isize, effects: &mut Vec<Effect>) {
    let tab = model.dump.as_ref().map(|view| view.tab);
    // The list may have changed: use the current position of the dump.
    if let Some(id) = model.dump.as_ref().map(|view| view.dump.id) {
        model.dumps.held = true;
        model.dumps.select(Some(id));
    }
    let next = model.dumps.cursor.saturating_add_signed(step);
    let Some(dump) = model
        .dumps
        .get(next)
        .cloned()
        .filter(|_| next != model.dumps.cursor)
    else {
        return model.say("there is no further dump in the list");
    };
    model.dumps.cursor = next;
    if let Some(view) = &mut model.dump {
        view.dump = dump;
        (view.thread, view.source, view.source_wanted) = (0, None, None);
    }
    show_dump(model, tab, effects);
}
