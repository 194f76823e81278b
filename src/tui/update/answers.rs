//! Processes the answers of effects.

use std::sync::Arc;

use cdh_bundle::DumpId;

use super::{actions, prepare, refresh, refresh_page};
use crate::render::Group;
use crate::report::{ExitStatus, RenderedError};
use crate::tui::diff::{Side, diff_text};
use crate::tui::model::{
    AT_ONCE, Arranged, Depth, FirstSeen, GroupColumn, Groups, Learnt, Listing, Model, Overlay,
    Page, RequestId, Screen, State, StoreLocation, TransferId,
};
use crate::tui::msg::{Effect, Fetched, Msg};
use crate::tui::pages;
use crate::tui::styled::lines;

/// Processes an answer.
pub(super) fn answer(model: &mut Model, msg: Msg, effects: &mut Vec<Effect>) {
    match msg {
        Msg::Page(request, rows) if request == model.listing => {
            for row in &rows {
                model.first_seen.note(&row.dump);
            }
            let (facts, tops) = (&model.facts, &model.tops);
            model.dumps.add(rows, Learnt { facts, tops });
            model.groups.stale = true;
            model.rest.done = false;
        }
        Msg::Listed(request, listing) if request == model.listing => listed(model, listing),
        Msg::FirstSeen(request, index) if request > model.since => {
            model.first_seen.set_index(index);
            model.groups.stale = true;
        }
        Msg::Refreshed(request, outcome) if model.refresh.asked == Some(request) => {
            refresh::refreshed(model, outcome, effects);
        }
        Msg::Arranged(request, outcome) if model.dumps.awaits(request) => {
            arranged(model, outcome);
        }
        Msg::Grouped(request, filter, outcome) if model.groups.asked == Some(request) => {
            model.groups.asked = None;
            match outcome {
                Ok(groups) if filter == model.dumps.filter().text => {
                    show_groups(model, groups, filter, effects);
                }
                // The filter has changed, and newer groups are requested.
                Ok(_) => {}
                Err(error) => notice(model, "The dumps cannot be grouped", &error),
            }
        }
        Msg::Opened(request, id, opened) if request > model.since => {
            if let Err(error) = &opened {
                note_loss(model, error);
            }
            model.known.note(id).opened = Some(opened);
            changed(model, id);
        }
        Msg::Stacks(request, id, stacks) if request > model.since => {
            if let (Ok(stacks), Some(dump)) = (&stacks, model.dumps.find(id).cloned()) {
                model.tops.note(&dump, pages::top_frame(&stacks.backtrace));
            }
            let known = model.known.note(id);
            // Stacks from the minicore are worth more than an error about the rest.
            if stacks.is_ok() || !matches!(known.stacks, Some(Ok(_))) {
                known.stacks = Some(stacks);
            }
            changed(model, id);
        }
        Msg::Texts(request, id, texts) if request > model.since => {
            model.known.note(id).texts = Some(texts);
            changed(model, id);
        }
        Msg::Explained(request, id, depth) if request > model.since => {
            explained(model, request, id, depth);
        }
        Msg::Named(request, dump, top) if request > model.since => {
            model.tops.note(&dump, top);
            model.groups.unsorted |= model.groups.column == GroupColumn::Top;
        }
        Msg::Facts(request, facts) if request > model.since => {
            let ids: Vec<DumpId> = facts.iter().map(|(id, _)| *id).collect();
            for (id, facts) in facts {
                model.facts_wanted.remove(&id);
                model.facts.insert(id, Arc::new(facts.unwrap_or_default()));
            }
            if model.dumps.filter().needs_facts() {
                let (facts, tops) = (&model.facts, &model.tops);
                model.dumps.decide(&ids, Learnt { facts, tops });
            }
            model.groups.stale = true;
            prepare::facts(model, effects);
        }
        Msg::Source(request, source) if request > model.since => {
            if let Some(view) = &mut model.dump {
                let wanted = (source.file.clone(), source.line);
                if view.source_wanted.as_ref() == Some(&wanted) {
                    view.source = Some(*source);
                }
            }
        }
        Msg::Began(id, what, total) => {
            let clock = model.clock;
            if let Some(transfer) = model.transfers.get_mut(id)
                && transfer.is_active()
            {
                transfer.started(what, total, clock);
            }
        }
        Msg::Advanced(id, done) => {
            let clock = model.clock;
            if let Some(transfer) = model.transfers.get_mut(id) {
                transfer.advanced(done, clock);
            }
        }
        Msg::Ended(id, outcome) => ended(model, id, outcome, effects),
        Msg::Deleted(dump, outcome) => match outcome {
            Ok(()) => {
                model.dumps.remove(dump.id);
                model.groups.stale = true;
                model.say(format!("deleted {}", dump.id.short()));
                if model
                    .dump
                    .as_ref()
                    .is_some_and(|view| view.dump.id == dump.id)
                {
                    model.screens.retain(|screen| *screen != Screen::Dump);
                    model.dump = None;
                }
            }
            Err(error) => notice(model, "It was not deleted", &error),
        },
        Msg::Switched(outcome) => switched(model, outcome, effects),
        Msg::Returned(outcome) => {
            model.redraw = true;
            match outcome {
                Ok(Some(text)) => model.say(text),
                Ok(None) => {}
                Err(error) => notice(model, "It could not be started", &error),
            }
        }
        // Answers to outdated requests.
        _ => {}
    }
}

fn listed(model: &mut Model, listing: Listing) {
    if let Listing::Failed(error) = &listing {
        note_loss(model, error);
        if model.dumps.total() > 0 && error.status != ExitStatus::Unreachable {
            let line = error.lines.join(": ");
            model.complain(line);
        }
    } else {
        model.lost = None;
        model.first_seen.is_listed = true;
        model.refresh.succeeded(model.clock);
    }
    let (facts, tops) = (&model.facts, &model.tops);
    model.dumps.end(listing, Learnt { facts, tops });
    model.groups.stale = true;
    model.rest.done = false;
}

/// A long list was arranged.
fn arranged(model: &mut Model, outcome: Result<Box<Arranged>, RenderedError>) {
    let sorting = actions::sorting(model);
    match outcome {
        Ok(arranged) => {
            let (facts, tops) = (&model.facts, &model.tops);
            model.dumps.take(*arranged, Learnt { facts, tops });
        }
        Err(error) => {
            model.dumps.give_up();
            notice(model, "The list cannot be arranged", &error);
        }
    }
    if model
        .message
        .as_ref()
        .is_some_and(|message| message.text == sorting)
    {
        model.say(actions::sorting(model));
    }
    model.groups.stale = true;
    model.rest.done = false;
}

/// Shows groups, and performs the action that waited for them.
pub(super) fn show_groups(
    model: &mut Model,
    groups: Vec<Group>,
    filter: String,
    effects: &mut Vec<Effect>,
) {
    let before = model.groups.show(groups, filter, model.clock);
    if before.len() > AT_ONCE {
        effects.push(Effect::Discard(Vec::new(), before));
    }
    model.rest.done = false;
    if let Some(action) = model
        .groups
        .then
        .take()
        .filter(|_| *model.screen() == Screen::Groups)
    {
        actions::act(model, action, effects);
    }
}

/// An unreachable store may come back: a banner shows that, and the key to retry.
fn note_loss(model: &mut Model, error: &RenderedError) {
    if error.status == ExitStatus::Unreachable {
        model.lost = Some(error.clone());
    }
}

fn explained(model: &mut Model, request: RequestId, id: DumpId, depth: Depth) {
    let known = model.known.note(id);
    known.depth = known.depth.max(Some(depth));
    if known.pending.is_some_and(|(asked, _)| asked == request) {
        known.pending = None;
    }
}

/// More is known about a dump.
fn changed(model: &mut Model, id: DumpId) {
    if model.dump.as_ref().is_some_and(|view| view.dump.id == id) {
        refresh_page(model);
    }
    if model
        .diff
        .as_ref()
        .is_some_and(|view| view.dumps.iter().any(|dump| dump.id == id))
    {
        refresh_diff(model);
    }
}

/// Updates the page of the comparison.
pub(super) fn refresh_diff(model: &mut Model) {
    let Some(view) = &mut model.diff else { return };
    let [first, second] = &*view.dumps;
    let mut sides = Vec::new();
    let mut text = None;
    for dump in [first, second] {
        let known = model.known.get(dump.id);
        let failed = known.and_then(|known| match (&known.opened, &known.stacks) {
            (Some(Err(error)), _) | (_, Some(Err(error))) => Some(error),
            _ => None,
        });
        if let Some(error) = failed {
            view.page.replace(pages::problem(error, model.theme));
            return;
        }
        match (model.known.opened(dump.id), model.known.stacks(dump.id)) {
            (Some(opened), Some(stacks)) => sides.push(Side { opened, stacks }),
            _ => text = Some(format!("reading {} …\n", dump.id.short())),
        }
    }
    if let [a, b] = sides.as_slice() {
        text = Some(diff_text(a, b));
    }
    let all = lines(&text.unwrap_or_default(), model.theme);
    if view.page.lines.is_empty() {
        view.page = Page::new(all);
    } else {
        view.page.replace(all);
    }
}

fn ended(
    model: &mut Model,
    id: TransferId,
    outcome: Result<Fetched, RenderedError>,
    effects: &mut Vec<Effect>,
) {
    let waiting = matches!(model.overlay, Some(Overlay::Waiting(awaited)) if awaited == id);
    if waiting {
        model.overlay = None;
    }
    let Some(transfer) = model.transfers.get_mut(id) else {
        return;
    };
    let short = transfer.dump.id.short();
    match outcome {
        Ok(Fetched::Here(path)) => {
            transfer.state = State::Done(path.clone());
            transfer.what = "fetched".to_owned();
            model.say(format!("{short} is in {path}"));
        }
        Ok(Fetched::Ready(invocation)) => {
            transfer.state = State::Done(invocation.shell_line());
            transfer.what = "ready".to_owned();
            let title = format!("{short} {}", transfer.dump.exe);
            if waiting {
                effects.push(Effect::Debug(invocation, title));
            }
        }
        Err(error) if error.status == ExitStatus::Interrupted => {
            transfer.state = State::Cancelled;
            transfer.what = "cancelled".to_owned();
        }
        Err(error) => {
            transfer.state = State::Failed(error.clone());
            transfer.what = "failed".to_owned();
            note_loss(model, &error);
            if waiting {
                notice(model, "The debugger cannot be started", &error);
            } else {
                model.complain(format!("{short}: {}", error.lines.join(": ")));
            }
        }
    }
}

fn notice(model: &mut Model, title: &str, error: &RenderedError) {
    let mut text = error.lines.clone();
    for hint in &error.hints {
        text.push(String::new());
        text.push(format!("to do: {hint}"));
    }
    model.overlay = Some(Overlay::Notice {
        title: title.to_owned(),
        lines: text,
    });
}

fn switched(
    model: &mut Model,
    outcome: Result<StoreLocation, RenderedError>,
    effects: &mut Vec<Effect>,
) {
    match outcome {
        Ok(place) => {
            // Answers still on their way belong to the previous store.
            model.since = model.request();
            model.place = place;
            model.dumps.clear();
            model.known.forget(false);
            model.facts.clear();
            model.facts_wanted.clear();
            model.tops = crate::tui::model::Tops::default();
            model.first_seen = FirstSeen::default();
            let (column, reverse) = model.groups.sort();
            model.groups = Groups {
                column,
                reverse,
                ..Groups::default()
            };
            model.refresh.asked = None;
            (model.dump, model.diff, model.lost) = (None, None, None);
            model.screens = vec![Screen::Dumps { restore: None }];
            actions::list(model, effects);
            model.say(format!("this is {}", model.place.store));
        }
        Err(error) => notice(model, "The store was not switched", &error),
    }
}
