//! Prompts: for the filter, a `:` command, or text to find.

use cdh_bundle::DumpId;
use ratatui::crossterm::event::{KeyCode, KeyModifiers};

use super::actions::{self, filter_by, set_filter, shown_page};
use super::{group, open};
use crate::render::{short_image, terminal_line};
use crate::tui::commands::{self, COMMANDS, Verb};
use crate::tui::filter::{Filter, completions};
use crate::tui::help;
use crate::tui::keymap::{Action, Key};
use crate::tui::model::{
    COLUMNS, Column, GROUP_COLUMNS, GroupColumn, Model, Overlay, Prompt, PromptKind, Screen, TABS,
};
use crate::tui::msg::Effect;

/// Maximum length of a line, in case a file is pasted by mistake.
const LONGEST: usize = 1024;

/// Opens a prompt.
pub(super) fn open(model: &mut Model, kind: PromptKind) {
    let text = match kind {
        PromptKind::Filter => model.dumps.filter().text.clone(),
        PromptKind::Command => String::new(),
        PromptKind::Find => shown_page(model)
            .map(|page| page.sought.clone())
            .unwrap_or_default(),
    };
    model.message = None;
    model.prompt = Some(Prompt {
        kind,
        at: text.len(),
        before: text.clone(),
        text,
        history: 0,
        completions: None,
    });
}

/// Opens a filter prompt with the first of these texts; completion switches to the next one.
pub(super) fn offer(model: &mut Model, filters: Vec<String>) {
    open(model, PromptKind::Filter);
    let (Some(prompt), Some(first)) = (&mut model.prompt, filters.first().cloned()) else {
        return;
    };
    (prompt.at, prompt.text) = (first.len(), first);
    prompt.completions = Some((filters, 0));
    typed(model);
}

/// Handles a key.
pub(super) fn key(model: &mut Model, action: Option<Action>, key: Key, effects: &mut Vec<Effect>) {
    let Some(prompt) = &mut model.prompt else {
        return;
    };
    if action != Some(Action::Complete) {
        prompt.completions = None;
    }
    match action {
        Some(Action::Accept) => return accept(model, effects),
        Some(Action::Cancel) => return leave(model),
        Some(Action::Complete) => complete(model),
        Some(Action::Older) => history(model, 1),
        Some(Action::Newer) => history(model, -1),
        Some(Action::WordLeft) => {
            let before = prompt
                .text
                .get(..prompt.at)
                .and_then(|text| text.chars().next_back());
            prompt.at -= before.map_or(0, char::len_utf8);
        }
        Some(Action::WordRight) => {
            let after = prompt
                .text
                .get(prompt.at..)
                .and_then(|text| text.chars().next());
            prompt.at += after.map_or(0, char::len_utf8);
        }
        Some(Action::Erase) => {
            let before = prompt
                .text
                .get(..prompt.at)
                .and_then(|text| text.chars().next_back());
            match before {
                Some(letter) => {
                    prompt.at -= letter.len_utf8();
                    prompt.text.remove(prompt.at);
                }
                // Backspace in an empty prompt closes it, as in vi and less.
                None if prompt.text.is_empty() => return leave(model),
                None => {}
            }
        }
        Some(Action::EraseWord) => {
            let head = prompt.text.get(..prompt.at).unwrap_or_default();
            let trimmed = head.trim_end();
            let start = trimmed.rfind(char::is_whitespace).map_or(0, |at| at + 1);
            prompt.text.replace_range(start..prompt.at, "");
            prompt.at = start;
        }
        Some(Action::EraseAll) => {
            prompt.text.clear();
            prompt.at = 0;
        }
        _ => {
            let event = key.event();
            if let (KeyCode::Char(letter), KeyModifiers::NONE) = (event.code, event.modifiers) {
                insert(prompt, letter);
            }
        }
    }
    typed(model);
}

fn insert(prompt: &mut Prompt, letter: char) {
    if !letter.is_control() && prompt.text.len() < LONGEST {
        prompt.text.insert(prompt.at, letter);
        prompt.at += letter.len_utf8();
    }
}

/// Inserts pasted text: line breaks become blanks, other control characters are removed.
pub(super) fn paste(model: &mut Model, text: &str) {
    let Some(prompt) = &mut model.prompt else {
        return;
    };
    for letter in text.trim().chars() {
        insert(prompt, if letter.is_whitespace() { ' ' } else { letter });
    }
    typed(model);
}

/// Applies the text while it is typed.
fn typed(model: &mut Model) {
    let Some(prompt) = &model.prompt else { return };
    let text = prompt.text.clone();
    match prompt.kind {
        PromptKind::Filter => set_filter(model, &text, true),
        PromptKind::Find => {
            if let Some(page) = shown_page(model) {
                page.find(&text, true);
            }
        }
        PromptKind::Command => {}
    }
}

fn leave(model: &mut Model) {
    let Some(prompt) = model.prompt.take() else {
        return;
    };
    if prompt.kind == PromptKind::Filter {
        set_filter(model, &prompt.before, false);
    }
}

fn accept(model: &mut Model, effects: &mut Vec<Effect>) {
    let Some(prompt) = model.prompt.take() else {
        return;
    };
    let text = prompt.text.trim().to_owned();
    if !text.is_empty() {
        let history = model.history.entry(prompt.kind).or_default();
        history.retain(|known| *known != text);
        history.push(text.clone());
    }
    match prompt.kind {
        PromptKind::Filter => keep_filter(model, &text),
        PromptKind::Find => {
            let found = shown_page(model).is_none_or(|page| page.find(&text, true));
            if !found {
                model.complain(format!("`{}` is not here", terminal_line(&text)));
            }
        }
        PromptKind::Command => command(model, &text, effects),
    }
}

/// While typing, the last term was a prefix. If the filter only matches that way, the kept filter
/// says so.
fn keep_filter(model: &mut Model, text: &str) {
    let filter = Filter::parse(text, model.now, false);
    let open = Filter::parse(&format!("{text}*"), model.now, false);
    let otherwise = Some(open).filter(|open| !text.is_empty() && open.problem.is_none());
    filter_by(model, filter, otherwise);
    if let Some(problem) = model.dumps.filter().problem.clone() {
        model.complain(problem);
    }
}

fn history(model: &mut Model, step: isize) {
    let Some(prompt) = &mut model.prompt else {
        return;
    };
    let known = model
        .history
        .get(&prompt.kind)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let place = prompt.history.saturating_add_signed(step).min(known.len());
    prompt.history = place;
    let text = match known.len().checked_sub(place) {
        Some(index) if place > 0 => known.get(index).cloned().unwrap_or_default(),
        _ => prompt.before.clone(),
    };
    prompt.at = text.len();
    prompt.text = text;
}

fn complete(model: &mut Model) {
    let Some(prompt) = &model.prompt else { return };
    let (all, next) = match &prompt.completions {
        // There was only one completion: complete what follows.
        Some((all, shown)) if all.len() > 1 => (all.clone(), (shown + 1) % all.len()),
        _ => (ways(model, prompt), 0),
    };
    let Some(text) = all.get(next).cloned() else {
        return;
    };
    if let Some(prompt) = &mut model.prompt {
        prompt.at = text.len();
        prompt.text = text;
        prompt.completions = Some((all, next));
    }
}

/// The completions.
fn ways(model: &Model, prompt: &Prompt) -> Vec<String> {
    let values = |name: &str, start: &str| -> Vec<String> {
        match name {
            "image" => {
                let images = model
                    .facts
                    .values()
                    .filter_map(|facts| facts.compared.image.as_ref());
                distinct(images.map(|image| short_image(&image.reference, image.release())))
            }
            "node" => distinct(model.facts.values().filter_map(|facts| {
                facts
                    .compared
                    .nodes
                    .iter()
                    .find(|node| !node.is_empty())
                    .cloned()
            })),
            "since" | "until" => ["1h", "6h", "1d", "2d", "7d"].map(str::to_owned).to_vec(),
            "truncated" => vec!["yes".to_owned()],
            term => model.dumps.shelf().values(term, start),
        }
    };
    match prompt.kind {
        PromptKind::Filter => completions(&prompt.text, values),
        PromptKind::Find => Vec::new(),
        PromptKind::Command => {
            let Some((verb, rest)) = prompt.text.split_once(' ') else {
                let known = COMMANDS.iter().map(|known| known.name);
                let known = known.filter(|name| name.starts_with(&prompt.text));
                return known.map(str::to_owned).collect();
            };
            let names: Vec<String> = match commands::parse(verb).map(|(verb, _)| verb) {
                Ok(Verb::Sort) => sort_names(model).map(str::to_owned).to_vec(),
                Ok(Verb::Tab) => TABS.iter().map(|tab| tab.title().to_lowercase()).collect(),
                Ok(Verb::Store) => model
                    .place
                    .stores
                    .iter()
                    .map(|(name, _)| name.clone())
                    .collect(),
                Ok(Verb::Filter) => {
                    let found = completions(rest, values);
                    return found.iter().map(|text| format!("{verb} {text}")).collect();
                }
                _ => Vec::new(),
            };
            let matching = names.iter().filter(|name| name.starts_with(rest));
            matching.map(|name| format!("{verb} {name}")).collect()
        }
    }
}

fn distinct(values: impl Iterator<Item = String>) -> Vec<String> {
    let set: std::collections::BTreeSet<String> = values.collect();
    set.into_iter().collect()
}

/// Runs a `:` command.
fn command(model: &mut Model, text: &str, effects: &mut Vec<Effect>) {
    if text.is_empty() {
        return;
    }
    let (verb, rest) = match commands::parse(text) {
        Ok(parsed) => parsed,
        Err(problem) => return model.complain(terminal_line(&problem)),
    };
    let action = match verb {
        Verb::Backtrace => Action::Backtrace,
        Verb::Delete => Action::Delete,
        Verb::Diff => Action::Diff,
        Verb::Fetch => Action::Fetch,
        Verb::Gdb => Action::Debug,
        Verb::Refresh if rest.is_empty() => Action::Refresh,
        Verb::Refresh => return refresh_every(model, rest),
        Verb::Stores => Action::Stores,
        Verb::Transfers => Action::Transfers,
        Verb::Quit => Action::Quit,
        Verb::Help => {
            model.overlay = Some(Overlay::Help(help::page(model)));
            return;
        }
        Verb::Groups => {
            return open::show_groups(model);
        }
        Verb::Dumps => {
            model.screens.truncate(1);
            return actions::go(model, Screen::Dumps { restore: None });
        }
        Verb::Filter => {
            set_filter(model, rest, false);
            return actions::go(model, Screen::Dumps { restore: None });
        }
        Verb::Store if rest.is_empty() => Action::Stores,
        Verb::Store => {
            effects.push(Effect::Switch(rest.to_owned()));
            return;
        }
        Verb::Sort => return sort(model, rest),
        Verb::Tab => return tab(model, rest, effects),
        Verb::Dump => return dump(model, rest, effects),
        #[allow(clippy::panic)] // debug builds only, see `commands::parse`
        Verb::Panic => panic!("a panic on purpose"),
    };
    actions::act(model, action, effects);
}

/// The sort columns of the visible list.
fn sort_names(model: &Model) -> [&'static str; 7] {
    match model.screen() {
        Screen::Groups => GROUP_COLUMNS.map(GroupColumn::name),
        _ => COLUMNS.map(Column::name),
    }
}

fn sort(model: &mut Model, name: &str) {
    let names = sort_names(model);
    let found = names
        .iter()
        .position(|known| known.starts_with(name) && !name.is_empty());
    let Some(found) = found else {
        return model.complain(format!("sort by one of: {}", names.join(", ")));
    };
    if *model.screen() == Screen::Groups {
        let (before, reverse) = model.groups.sort();
        if let Some(column) = GROUP_COLUMNS.get(found) {
            group::sort(model, *column, *column == before && !reverse);
        }
    } else if let Some(column) = COLUMNS.get(found) {
        let (before, reverse) = model.dumps.sort();
        actions::sort(model, *column, *column == before && !reverse);
    }
}

fn tab(model: &mut Model, name: &str, effects: &mut Vec<Effect>) {
    let wanted = name.to_lowercase();
    let tab = TABS
        .iter()
        .find(|tab| tab.title().to_lowercase().starts_with(&wanted));
    match tab.filter(|_| !wanted.is_empty()) {
        Some(tab) => open::tab(model, *tab, effects),
        None => {
            let names: Vec<String> = TABS.iter().map(|tab| tab.title().to_lowercase()).collect();
            model.complain(format!("the tabs are: {}", names.join(", ")));
        }
    }
}

fn dump(model: &mut Model, start: &str, effects: &mut Vec<Effect>) {
    let wanted = start.to_ascii_lowercase();
    let begins = |id: &DumpId| id.to_string().starts_with(&wanted);
    let found: Vec<DumpId> = model.dumps.shelf().ids().filter(begins).take(2).collect();
    let id = match found.as_slice() {
        [id] if !wanted.is_empty() => *id,
        [_, _] => return model.complain("several dump ids start with this: type more"),
        _ => return model.complain("no dump id starts with this"),
    };
    model.screens.truncate(1);
    model.dumps.held = true;
    if !model.dumps.select(Some(id)) {
        set_filter(model, "", false);
        model.dumps.select(Some(id));
    }
    if let Some(dump) = model.dumps.find(id).cloned() {
        open::show(model, dump, None, effects);
    }
}

/// Sets the refresh interval.
fn refresh_every(model: &mut Model, text: &str) {
    let Ok(seconds) = text.trim_end_matches('s').parse::<u64>() else {
        return model.complain("refresh takes a number of seconds; 0 turns it off");
    };
    model.refresh.interval = seconds.saturating_mul(1000);
    model.say(match seconds {
        0 => "the list is refreshed on request only".to_owned(),
        _ => format!("the list is refreshed every {seconds} s while you press no key"),
    });
}
