//! The groups: how they are sorted, and what leads from a crash to its images.

use super::{actions, open, prompt};
use crate::render::{Group, short_image};
use crate::tui::details;
use crate::tui::keymap::{Action, Context};
use crate::tui::model::{AT_ONCE, GROUP_COLUMNS, GroupColumn, Model, Page, Screen};

/// Sorts the groups by another column.
pub(super) fn sort_step(model: &mut Model, step: usize) {
    let (column, _) = model.groups.sort();
    let place = GROUP_COLUMNS.iter().position(|known| *known == column);
    let next = (place.unwrap_or(0) + step) % GROUP_COLUMNS.len();
    if let Some(next) = GROUP_COLUMNS.get(next) {
        sort(model, *next, false);
    }
}

/// Sorts the groups. A long list is sorted where it is made, on another thread.
pub(super) fn sort(model: &mut Model, column: GroupColumn, reverse: bool) {
    let groups = &mut model.groups;
    (groups.column, groups.reverse) = (column, reverse);
    groups.at_first = false;
    if groups.list.len() <= AT_ONCE {
        groups.resort(&model.tops);
    }
    if groups.list.len() > AT_ONCE || groups.is_asked() {
        // What is being made is sorted by the column before.
        groups.asked = None;
        groups.stale = true;
    }
    let reversed = if reverse { ", reversed" } else { "" };
    model.say(format!("sorted by {}{reversed}", column.name()));
    model.rest.moved = model.clock;
    model.rest.done = false;
}

/// Shows the crashes that appeared last first; from there, the most frequent first again.
pub(super) fn newest_crashes(model: &mut Model) {
    let is_here = *model.screen() == Screen::Groups;
    let is_sorted = model.groups.sort() == (GroupColumn::First, false);
    let column = match is_here && is_sorted {
        true => GroupColumn::Count,
        false => GroupColumn::First,
    };
    if !is_here {
        open::groups(model);
    }
    sort(model, column, false);
    model.groups.at_first = true;
    (model.groups.cursor, model.groups.top) = (0, 0);
    if column == GroupColumn::First {
        let key = model.keymap.key_for(Context::Dumps, Action::NewCrashes);
        model.say(format!(
            "sorted by first seen; NEW: within the last 24 h; `{key}` sorts by count"
        ));
    }
}

/// Shows the images and workloads of the selected group as a page; from the list of dumps, those of the
/// selected dump's group.
pub(super) fn versions(model: &mut Model) {
    if *model.screen() != Screen::Groups {
        let Some(dump) = model.selected().cloned() else {
            return model.say("no dump is selected");
        };
        open::groups(model);
        let is_it = |group: &Group| group.holds(&dump);
        if let Some(place) = model.groups.list.iter().position(is_it) {
            model.groups.cursor = place;
        }
        model.groups.select = Some(dump);
    }
    model.group_page = Page::default();
    actions::go(model, Screen::Group);
}

/// The page of the group shows what is known now.
pub(super) fn refresh_page(model: &mut Model) {
    let lines = match model.groups.selected() {
        Some(group) => details::page(group, model, model.theme),
        None => Vec::new(),
    };
    model.group_page.replace(lines);
}

/// Begins a filter by the image of what is selected. `tab` takes the next one of the group.
pub(super) fn by_image(model: &mut Model) {
    let grouped = matches!(model.screen(), Screen::Groups | Screen::Group);
    let names: Vec<String> = match model.groups.selected().filter(|_| grouped) {
        Some(group) => details::images(group)
            .into_iter()
            .map(|row| row.name)
            .collect(),
        None => image_of_dump(model).into_iter().collect(),
    };
    if names.is_empty() {
        model.rest.done = false;
        return model.say("no image is known; if manifests are being read, try again in a moment");
    }
    let before = model.dumps.filter().text.clone();
    let others = before.split_whitespace();
    let others: Vec<&str> = others.filter(|term| !term.starts_with("image:")).collect();
    let mut filters: Vec<String> = Vec::new();
    for name in names {
        let name = name.replace(char::is_whitespace, "?");
        let filter = format!("{} image:{name} ", others.join(" "));
        let filter = filter.trim_start().to_owned();
        if !filters.contains(&filter) {
            filters.push(filter);
        }
    }
    prompt::offer(model, filters);
}

fn image_of_dump(model: &Model) -> Option<String> {
    let dump = model.selected()?;
    let opened = model.known.opened(dump.id);
    let manifest = opened.and_then(|opened| opened.manifest.image.as_ref());
    let facts = model.facts.get(&dump.id);
    let image = manifest.or_else(|| facts.and_then(|facts| facts.compared.image.as_ref()))?;
    Some(short_image(&image.reference, image.release()))
}
