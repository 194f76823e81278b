//! Prefetches data for the selection: its backtrace, the frames of the visible dumps, and facts
//! from manifests where needed.
//!
//! Everything here waits until the selection is idle, so that scrolling through a thousand dumps
//! requests nothing.

use cdh_store::DumpSummary;

use super::open::explain;
use crate::pipeline::SourceQuestion;
use crate::tui::layout::regions;
use crate::tui::model::{Depth, DumpView, GroupColumn, Model, Screen, Tab};
use crate::tui::msg::{Effect, SourceWanted};
use crate::tui::pages;

/// Milliseconds without a move after which the selection is idle.
const REST: u64 = 150;
/// Maximum manifests per request.
const CHUNK: usize = 64;
/// Maximum manifests read for the images of groups; a filter for an image reads all it needs.
const FOR_GROUPS: usize = 4096;
/// Maximum manifests read of one group, oldest and newest first.
const PER_GROUP: usize = 1024;
/// Maximum groups whose frames are looked up to sort by them.
const SORTED_BY_FRAME: usize = 256;

/// Called when the selection is idle.
pub(super) fn prepare(model: &mut Model, effects: &mut Vec<Effect>) {
    if model.rest.done || model.clock.saturating_sub(model.rest.moved) < REST {
        return;
    }
    model.rest.done = true;
    if let Some(dump) = model.selected().cloned() {
        explain(model, &dump, Depth::Quick, effects);
    }
    names(model, effects);
    facts(model, effects);
}

/// Requests the frames of the visible dumps.
fn names(model: &mut Model, effects: &mut Vec<Effect>) {
    let rows = usize::from(regions(model).body.height);
    let shown: Vec<DumpSummary> = match model.screen() {
        Screen::Dumps { .. } => {
            let places = model.dumps.top..model.dumps.top + rows;
            places
                .filter_map(|place| model.dumps.get(place))
                .cloned()
                .collect()
        }
        Screen::Groups => {
            let (first, rows) = match model.groups.column {
                GroupColumn::Top => (0, rows.max(SORTED_BY_FRAME)),
                _ => (model.groups.top, rows),
            };
            let groups = model.groups.list.iter().skip(first).take(rows);
            groups.map(|group| group.newest.clone()).collect()
        }
        _ => return,
    };
    for dump in shown {
        if !model.tops.knows(&dump) && model.tops.ask(&dump) {
            let request = model.request();
            effects.push(Effect::Name(request, Box::new(dump)));
        }
    }
}

/// Requests the next manifests.
pub(super) fn facts(model: &mut Model, effects: &mut Vec<Effect>) {
    if !model.facts_wanted.is_empty() {
        return;
    }
    let lacking = |dump: &&DumpSummary| !model.facts.contains_key(&dump.id);
    let wanted: Vec<DumpSummary> = if model.dumps.filter().needs_facts() {
        model.dumps.take_undecided(CHUNK, &model.facts)
    } else if matches!(model.screen(), Screen::Groups | Screen::Group) {
        let mut wanted = of_selected_group(model);
        if model.facts.len() < FOR_GROUPS {
            let is_wanted = |dump: &&DumpSummary| wanted.iter().any(|known| known.id == dump.id);
            let others = model.dumps.visible().filter(lacking);
            let others = others.filter(|dump| !is_wanted(dump));
            let others: Vec<_> = others.take(CHUNK - wanted.len()).cloned().collect();
            wanted.extend(others);
        }
        wanted
    } else {
        return;
    };
    if !wanted.is_empty() {
        let request = model.request();
        model.facts_wanted.extend(wanted.iter().map(|dump| dump.id));
        effects.push(Effect::Facts(request, wanted));
    }
}

/// The next manifests of the selected group: the newest and oldest dumps first, because they
/// determine the first and last image.
fn of_selected_group(model: &Model) -> Vec<DumpSummary> {
    let Some(group) = model.groups.selected() else {
        return Vec::new();
    };
    let known: usize = group.images.iter().map(|image| image.count).sum();
    if known >= PER_GROUP {
        return Vec::new();
    }
    let its = model.dumps.visible().filter(|dump| group.holds(dump));
    let mut lacking: Vec<&DumpSummary> = its
        .filter(|dump| !model.facts.contains_key(&dump.id))
        .collect();
    if lacking.len() > CHUNK {
        lacking.sort_unstable_by_key(|dump| dump.captured_at);
        let newest = lacking.split_off(lacking.len() - CHUNK / 2);
        lacking.truncate(CHUNK / 2);
        lacking.extend(newest);
    }
    lacking.into_iter().cloned().collect()
}

/// Requests the source of the selected frame.
pub(super) fn source(model: &mut Model, effects: &mut Vec<Effect>) {
    if *model.screen() != Screen::Dump {
        return;
    }
    let Some(view) = model
        .dump
        .as_ref()
        .filter(|view| view.tab == Tab::Backtrace)
    else {
        return;
    };
    let wanted = source_wanted(model, view);
    let place = wanted
        .as_ref()
        .map(|wanted| (wanted.question.file.clone(), wanted.line));
    if place == view.source_wanted {
        return;
    }
    let request = model.request();
    if let Some(view) = &mut model.dump {
        view.source_wanted.clone_from(&place);
        // The visible source remains until the new one arrives, to avoid flicker and jumping lines.
        if place.is_none() {
            view.source = None;
        }
    }
    if let Some(wanted) = wanted {
        effects.push(Effect::Source(request, Box::new(wanted)));
    }
}

fn source_wanted(model: &Model, view: &DumpView) -> Option<SourceWanted> {
    let known = model.known.get(view.dump.id)?;
    let stacks = model.known.stacks(view.dump.id)?;
    let frame = pages::frame_at(view, stacks)?;
    let place = frame.location.as_ref()?;
    let built = frame
        .module
        .and_then(|index| *stacks.module_times.get(index)?);
    let opened = known
        .opened
        .as_ref()
        .and_then(|opened| opened.as_ref().ok())?;
    let manifest = &opened.manifest;
    Some(SourceWanted {
        question: SourceQuestion::new(place, built),
        line: place.line,
        is_own: frame.is_own(&stacks.backtrace.modules),
        revision: manifest
            .image
            .as_ref()
            .and_then(|image| image.revision.clone()),
        crashed: manifest.captured_at,
    })
}
