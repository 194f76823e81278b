//! What each action does.

use cdh_store::DumpSummary;

use super::{new_page, prompt};
use crate::tui::filter::Filter;
use crate::tui::help;
use crate::tui::keymap::Action;
use crate::tui::layout::regions;
use crate::tui::model::{
    COLUMNS, Column, Depth, DiffView, DumpView, Model, Overlay, Page, PromptKind, Purpose, Screen,
    State, TABS, Tab, Transfer,
};
use crate::tui::msg::Effect;

/// Terminals drop what is longer (xterm and tmux take about 100 kB of base64).
const CLIPBOARD: usize = 70_000;

/// Does it.
pub(super) fn act(model: &mut Model, action: Action, effects: &mut Vec<Effect>) {
    if model.overlay.is_some() && overlay(model, action, effects) {
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
            model.store_cursor = 0;
            go(model, Screen::Stores);
        }
        Action::Refresh => refresh(model, effects),
        Action::Suspend => effects.push(Effect::Suspend),
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
        Action::Open => open(model, effects),
        Action::Backtrace => show_dump(model, Some(Tab::Backtrace), effects),
        Action::Groups => groups(model),
        Action::Debug => transfer_selected(model, Purpose::Debug, effects),
        Action::Fetch => transfer_selected(model, Purpose::Fetch, effects),
        Action::Mark => mark(model),
        Action::Diff => diff(model, effects),
        Action::Delete => delete(model),
        Action::Copy => copy(model, effects),
        Action::Pager => pager(model, effects),
        Action::SortNext => sort_step(model, 1),
        Action::SortPrevious => sort_step(model, COLUMNS.len() - 1),
        Action::SortReverse => {
            let (column, reverse) = model.dumps.sort();
            sort(model, column, !reverse);
        }
        Action::NextTab => tab_step(model, 1, effects),
        Action::PreviousTab => tab_step(model, TABS.len() - 1, effects),
        Action::Tab1 => tab(model, Tab::Backtrace, effects),
        Action::Tab2 => tab(model, Tab::Info, effects),
        Action::Tab3 => tab(model, Tab::Workload, effects),
        Action::Tab4 => tab(model, Tab::Logs, effects),
        Action::Tab5 => tab(model, Tab::Modules, effects),
        Action::Tab6 => tab(model, Tab::Memory, effects),
        Action::Tab7 => tab(model, Tab::Registers, effects),
        Action::Tab8 => tab(model, Tab::Manifest, effects),
        Action::NextThread => thread(model, 1),
        Action::PreviousThread => thread(model, -1),
        Action::NextDump => neighbour(model, 1, effects),
        Action::PreviousDump => neighbour(model, -1, effects),
        Action::FindNext => find_next(model),
        Action::ScrollRight => scroll(model, 8),
        Action::ScrollLeft => scroll(model, -8),
        Action::Cancel => cancel(model, effects),
        // Only while something is typed or asked.
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

/// What an action does to what lies over the view; tells whether that was all.
fn overlay(model: &mut Model, action: Action, effects: &mut Vec<Effect>) -> bool {
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
        // A notice goes away by any key, and the key does what it does.
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

/// Shows another view; one that was there before is come back to.
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

fn back(model: &mut Model) {
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
        let key = model
            .keymap
            .key_for(crate::tui::keymap::Context::Everywhere, Action::Quit);
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

fn refresh(model: &mut Model, effects: &mut Vec<Effect>) {
    model.lost = None;
    model.known.forget(true);
    model.rest.done = false;
    list(model, effects);
    if *model.screen() == Screen::Dump {
        let tab = model.dump.as_ref().map(|view| view.tab);
        show_dump(model, tab, effects);
    }
}

fn page_height(model: &Model) -> isize {
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
        Screen::Dumps { .. } => {
            let count = model.dumps.visible_len();
            step(&mut model.dumps.cursor, count);
            model.dumps.held = model.dumps.cursor > 0;
        }
        Screen::Groups => step(&mut model.groups.cursor, model.groups.list.len()),
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

pub(super) fn open(model: &mut Model, effects: &mut Vec<Effect>) {
    match model.screen() {
        Screen::Dumps { .. } | Screen::Transfers => show_dump(model, None, effects),
        Screen::Groups => open_group(model),
        Screen::Stores => {
            if let Some((name, _)) = model.place.stores.get(model.store_cursor) {
                effects.push(Effect::Switch(name.clone()));
            }
        }
        Screen::Dump | Screen::Diff => {}
    }
}

/// The dumps of the group, by a filter that could have been typed.
fn open_group(model: &mut Model) {
    let Some(group) = model.groups.list.get(model.groups.cursor) else {
        return;
    };
    let key = &group.key;
    let word = |text: &str| text.replace(char::is_whitespace, "?");
    let narrowed = match key.fingerprint.as_str() {
        "" => format!("exe:{} signal:{}", word(&key.exe), word(&key.signal)),
        fingerprint => format!(
            "fingerprint:{fingerprint} exe:{} signal:{}",
            word(&key.exe),
            word(&key.signal)
        ),
    };
    let before = model.dumps.filter().text.clone();
    let text = format!("{before} {narrowed}").trim_start().to_owned();
    model.screens.push(Screen::Dumps {
        restore: Some(before),
    });
    model.dumps.held = false;
    set_filter(model, &text, false);
    model.dumps.cursor = 0;
}

fn groups(model: &mut Model) {
    if *model.screen() == Screen::Groups {
        return back(model);
    }
    // From the dumps of a group back to the groups.
    if model.screens.contains(&Screen::Groups) {
        while *model.screen() != Screen::Groups {
            back(model);
        }
        return;
    }
    model.groups.stale = true;
    go(model, Screen::Groups);
}

/// Shows a dump; asks for what is not known of it yet.
pub(super) fn show_dump(model: &mut Model, tab: Option<Tab>, effects: &mut Vec<Effect>) {
    let Some(dump) = model.selected().cloned() else {
        return model.say("no dump is selected");
    };
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
            page: Page::default(),
            source: None,
            source_wanted: None,
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

/// Asks for what is not known yet.
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

/// The dumps that an action is about: the marked ones, else the selected one.
fn chosen(model: &Model) -> Vec<DumpSummary> {
    let listed = matches!(model.screen(), Screen::Dumps { .. });
    if listed && !model.dumps.marks.is_empty() {
        let marks = &model.dumps.marks;
        return model
            .dumps
            .all()
            .filter(|dump| marks.contains(&dump.id))
            .cloned()
            .collect();
    }
    model.selected().cloned().into_iter().collect()
}

fn transfer_selected(model: &mut Model, purpose: Purpose, effects: &mut Vec<Effect>) {
    let dumps = match purpose {
        Purpose::Debug => model.selected().cloned().into_iter().collect(),
        Purpose::Fetch => chosen(model),
    };
    if dumps.is_empty() {
        return model.say("no dump is selected");
    }
    let count = dumps.len();
    for dump in dumps {
        let running = |known: &&Transfer| {
            known.is_active() && known.dump.id == dump.id && known.purpose == purpose
        };
        if let Some(known) = model.transfers.list.iter().find(running) {
            if purpose == Purpose::Debug {
                model.overlay = Some(Overlay::Waiting(known.id));
            }
            continue;
        }
        let id = model.transfers.add(dump.clone(), purpose);
        if purpose == Purpose::Debug {
            model.overlay = Some(Overlay::Waiting(id));
        }
        effects.push(Effect::Transfer(id, Box::new(dump), purpose));
    }
    if purpose == Purpose::Fetch {
        let what = if count == 1 {
            "1 dump".to_owned()
        } else {
            format!("{count} dumps")
        };
        let key = model
            .keymap
            .key_for(crate::tui::keymap::Context::Everywhere, Action::Transfers);
        model.say(format!("fetching {what}; `{key}` shows how far it is"));
    }
}

fn mark(model: &mut Model) {
    let listed = matches!(model.screen(), Screen::Dumps { .. });
    let Some(id) = model.selected().map(|dump| dump.id).filter(|_| listed) else {
        return model.say("dumps are marked in their list");
    };
    if !model.dumps.marks.remove(&id) {
        model.dumps.marks.insert(id);
    }
    move_by(model, 1);
}

fn diff(model: &mut Model, effects: &mut Vec<Effect>) {
    let marked: Vec<DumpSummary> = {
        let marks = &model.dumps.marks;
        model
            .dumps
            .all()
            .filter(|dump| marks.contains(&dump.id))
            .cloned()
            .collect()
    };
    let Ok([first, second]) = <[DumpSummary; 2]>::try_from(marked) else {
        let key = model
            .keymap
            .key_for(crate::tui::keymap::Context::Dumps, Action::Mark);
        let count = model.dumps.marks.len();
        return model.say(format!(
            "mark two dumps with `{key}` to compare them; {count} are marked"
        ));
    };
    explain(model, &first, Depth::Full, effects);
    explain(model, &second, Depth::Full, effects);
    // The older one first: what changed since.
    let dumps = if first.captured_at <= second.captured_at {
        [first, second]
    } else {
        [second, first]
    };
    model.diff = Some(DiffView {
        dumps: Box::new(dumps),
        page: Page::default(),
    });
    super::answers::refresh_diff(model);
    go(model, Screen::Diff);
}

fn delete(model: &mut Model) {
    let dumps = chosen(model);
    if dumps.is_empty() {
        return model.say("no dump is selected");
    }
    model.overlay = Some(Overlay::Delete(dumps));
}

fn page_text(model: &Model) -> Option<String> {
    match model.screen() {
        Screen::Dump => Some(model.dump.as_ref()?.page.text()),
        Screen::Diff => Some(model.diff.as_ref()?.page.text()),
        _ => None,
    }
}

fn copy(model: &mut Model, effects: &mut Vec<Effect>) {
    let (text, what) = match page_text(model) {
        Some(text) => (text, "the text".to_owned()),
        None => match model.selected() {
            Some(dump) => (dump.id.to_string(), format!("id {}", dump.id.short())),
            None => return model.say("nothing is selected"),
        },
    };
    if text.len() > CLIPBOARD {
        let key = model
            .keymap
            .key_for(crate::tui::keymap::Context::Dump, Action::Pager);
        return model.complain(format!(
            "this is too long for a terminal's clipboard; `{key}` opens it"
        ));
    }
    model.say(format!(
        "{what} is in the clipboard, where the terminal allows it (OSC 52)"
    ));
    effects.push(Effect::Copy(text));
}

fn pager(model: &mut Model, effects: &mut Vec<Effect>) {
    if let Some(text) = page_text(model) {
        return effects.push(Effect::Pager(text));
    }
    let Some(dump) = model.selected().cloned() else {
        return model.say("no dump is selected");
    };
    match (model.known.opened(dump.id), model.known.stacks(dump.id)) {
        (Some(opened), Some(stacks)) => {
            let text = crate::tui::pages::backtrace(opened, stacks, 0);
            let lines = crate::tui::styled::lines(&text, model.theme);
            effects.push(Effect::Pager(Page::new(lines).text()));
        }
        _ => {
            explain(model, &dump, Depth::Quick, effects);
            model.say("its backtrace is being read; try again in a moment");
        }
    }
}

fn sort_step(model: &mut Model, step: usize) {
    let (column, _) = model.dumps.sort();
    let place = COLUMNS
        .iter()
        .position(|known| *known == column)
        .unwrap_or(0);
    if let Some(next) = COLUMNS.get((place + step) % COLUMNS.len()) {
        sort(model, *next, false);
    }
}

/// Orders the list.
pub(super) fn sort(model: &mut Model, column: Column, reverse: bool) {
    model.dumps.set_sort(column, reverse, &model.tops);
    model.say(format!(
        "sorted by {}{}",
        column.name(),
        if reverse { ", the other way round" } else { "" }
    ));
}

/// Shows a tab.
pub(super) fn tab(model: &mut Model, tab: Tab, effects: &mut Vec<Effect>) {
    show_dump(model, Some(tab), effects);
}

fn tab_step(model: &mut Model, step: usize, effects: &mut Vec<Effect>) {
    let shown = model.dump.as_ref().map(|view| view.tab);
    let place = TABS
        .iter()
        .position(|known| Some(*known) == shown)
        .unwrap_or(0);
    if let Some(next) = TABS.get((place + step) % TABS.len()) {
        tab(model, *next, effects);
    }
}

fn thread(model: &mut Model, step: isize) {
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

fn neighbour(model: &mut Model, step: isize, effects: &mut Vec<Effect>) {
    let tab = model.dump.as_ref().map(|view| view.tab);
    // The list may have moved on: from where the dump stands now.
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

pub(super) fn shown_page(model: &mut Model) -> Option<&mut Page> {
    match model.screens.last() {
        Some(Screen::Dump) => model.dump.as_mut().map(|view| &mut view.page),
        Some(Screen::Diff) => model.diff.as_mut().map(|view| &mut view.page),
        _ => None,
    }
}

fn find_next(model: &mut Model) {
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

fn scroll(model: &mut Model, columns: isize) {
    if let Some(page) = shown_page(model) {
        page.scroll_by(columns);
    }
}

fn cancel(model: &mut Model, effects: &mut Vec<Effect>) {
    let cursor = model.transfers.cursor;
    let Some(transfer) = model.transfers.list.get_mut(cursor) else {
        return;
    };
    if transfer.is_active() {
        effects.push(Effect::Cancel(transfer.id));
        transfer.state = State::Cancelled;
        transfer.what = "cancelled".to_owned();
    } else {
        model.transfers.list.remove(cursor);
    }
}

/// Filters the list.
pub(super) fn set_filter(model: &mut Model, text: &str, being_typed: bool) {
    let filter = Filter::parse(text, model.now, being_typed);
    model.dumps.set_filter(filter, &model.facts);
    model.groups.stale = true;
    model.rest.moved = model.clock;
    model.rest.done = false;
}
