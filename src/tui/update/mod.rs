//! `update`: applies a message to the model and returns the effects to perform.
//!
//! Synchronous: it spawns nothing and performs no I/O. Answers to outdated requests are dropped by
//! their request ids.

mod actions;
mod answers;
mod group;
mod mouse;
mod open;
mod prepare;
mod prompt;
mod refresh;
mod work;

use ratatui::crossterm::event::{KeyEvent, KeyEventKind};

use super::keymap::{Action, Context, Key};
use super::layout::regions;
use super::model::{
    AT_ONCE, GroupColumn, Grouping, Learnt, Listing, Model, Overlay, Page, Rows, Screen, Tops,
    follow,
};
use super::msg::{Effect, Msg};
use super::pages;
use super::signals::Stop;

/// Minimum milliseconds between two groupings while pages arrive.
const REGROUP: u64 = 500;
/// Minimum width for frames with addresses.
const ROOMY: u16 = 100;

/// The initial effects.
#[must_use]
pub fn start(model: &mut Model, filter: &str) -> Vec<Effect> {
    if !filter.is_empty() {
        actions::set_filter(model, filter, false);
    }
    let mut effects = Vec::new();
    actions::list(model, &mut effects);
    effects
}

/// Applies `msg` to the model and returns the effects to perform.
#[must_use]
pub fn update(model: &mut Model, msg: Msg) -> Vec<Effect> {
    let mut effects = Vec::new();
    match msg {
        Msg::Key(event) => {
            model.refresh.touched = model.clock;
            key(model, event, &mut effects);
        }
        Msg::Mouse(event) => {
            model.refresh.touched = model.clock;
            mouse::mouse(model, event, &mut effects);
        }
        Msg::Paste(text) => {
            model.refresh.touched = model.clock;
            prompt::paste(model, &text);
        }
        Msg::Resize(width, height) => {
            model.size = (width, height);
            refresh_page(model);
        }
        Msg::Tick { now, clock } => {
            (model.now, model.clock) = (now, clock);
            if model
                .message
                .as_ref()
                .is_some_and(|message| message.until <= clock)
            {
                model.message = None;
            }
            let (facts, tops) = (&model.facts, &model.tops);
            model.dumps.settle(Learnt { facts, tops });
            model.dumps.fresh.expire(clock);
            prepare::prepare(model, &mut effects);
            refresh::refresh(model, &mut effects);
        }
        Msg::Terminate => model.quit = true,
        Msg::Stop => effects.push(Effect::Suspend(Stop::Process)),
        Msg::Continued => effects.push(Effect::TakeTerminal),
        answer => answers::answer(model, answer, &mut effects),
    }
    settle(model, &mut effects);
    effects
}

fn key(model: &mut Model, event: KeyEvent, effects: &mut Vec<Effect>) {
    if event.kind == KeyEventKind::Release {
        return;
    }
    let key = Key::from(event);
    let context = model.context();
    let action = model.keymap.action(context, key);
    if context == Context::Prompt {
        return prompt::key(model, action, key, effects);
    }
    let Some(action) = action else {
        let help = model.keymap.key_for(Context::Everywhere, Action::Help);
        return model.say(format!(
            "`{}` does nothing here; `{help}` shows the keys",
            key.name()
        ));
    };
    model.message = None;
    actions::act(model, action, effects);
}

/// Keeps cursors on their lists and on the screen, and updates pages.
fn settle(model: &mut Model, effects: &mut Vec<Effect>) {
    arrange(model, effects);
    if matches!(model.screen(), Screen::Groups | Screen::Group) && model.groups.stale {
        regroup(model, effects);
    }
    let just = model.clock.saturating_sub(model.groups.made) < REGROUP;
    if model.groups.unsorted && !just && model.groups.list.len() <= AT_ONCE {
        model.groups.made = model.clock;
        model.groups.resort(&model.tops);
    }
    let regions = regions(model);
    let rows = usize::from(regions.body.height);
    let dumps = &mut model.dumps;
    dumps.cursor = dumps.cursor.min(dumps.visible_len().saturating_sub(1));
    dumps.top = follow(dumps.top, dumps.cursor, rows, dumps.visible_len());
    let groups = &mut model.groups;
    groups.cursor = groups.cursor.min(groups.list.len().saturating_sub(1));
    groups.top = follow(groups.top, groups.cursor, rows, groups.list.len());
    let transfers = &mut model.transfers;
    transfers.cursor = transfers.cursor.min(transfers.list.len().saturating_sub(1));
    transfers.top = follow(
        transfers.top,
        transfers.cursor,
        rows / 2,
        transfers.list.len(),
    );
    if let Some(view) = &mut model.dump {
        let threads = model.known.stacks(view.dump.id);
        let count = threads.map_or(1, |stacks| stacks.backtrace.threads.len());
        view.thread = view.thread.min(count.saturating_sub(1));
        let height = usize::from(regions.threads.height.max(1));
        view.thread_top = follow(view.thread_top, view.thread, height, count);
        view.page.follow(rows);
    }
    if let Some(view) = &mut model.diff {
        view.page.follow(rows);
    }
    if *model.screen() == Screen::Group {
        group::refresh_page(model);
        model.group_page.follow(rows);
    }
    let height = usize::from(model.size.1).saturating_sub(6);
    if let Some(Overlay::Help(page)) = &mut model.overlay {
        page.top = page.top.min(page.lines.len().saturating_sub(height));
        page.cursor = page.top;
    }
    prepare::source(model, effects);
}

/// Requests arrangements that take too long to do here, and dropping of data that takes long to
/// drop.
fn arrange(model: &mut Model, effects: &mut Vec<Effect>) {
    if model.dumps.is_due() {
        let request = model.request();
        let (facts, tops) = (&model.facts, &model.tops);
        let job = model
            .dumps
            .due(request, model.clock, Learnt { facts, tops });
        effects.push(Effect::Arrange(request, Box::new(job)));
    }
    let replaced = model.dumps.take_replaced();
    let count: usize = replaced.iter().map(Rows::len).sum();
    if count > AT_ONCE {
        effects.push(Effect::Discard(replaced, Vec::new()));
    }
}

/// Groups the visible dumps, here or, if that takes long, on another thread.
fn regroup(model: &mut Model, effects: &mut Vec<Effect>) {
    if model.dumps.is_arranging() || model.groups.is_asked() {
        return;
    }
    let busy = model.dumps.listing == Listing::Running || !model.facts_wanted.is_empty();
    let just = model.clock.saturating_sub(model.groups.made) < REGROUP;
    if busy && just && !model.groups.list.is_empty() {
        return;
    }
    model.groups.stale = false;
    let (rows, visible) = model.dumps.shared();
    let grouping = Grouping {
        rows,
        visible,
        facts: model.facts.clone(),
        filter: model.dumps.filter().text.clone(),
        first_seen: model.first_seen.clone(),
        tops: match model.groups.column {
            GroupColumn::Top => model.tops.clone(),
            _ => Tops::default(),
        },
        sort: model.groups.sort(),
        now: model.now,
    };
    if grouping.visible.len() > AT_ONCE {
        let request = model.request();
        model.groups.asked = Some(request);
        effects.push(Effect::Group(request, Box::new(grouping)));
    } else {
        let groups = grouping.groups();
        answers::show_groups(model, groups, grouping.filter, effects);
    }
}

/// Updates the page of the open dump.
pub(super) fn refresh_page(model: &mut Model) {
    let roomy = model.size.0 >= ROOMY;
    if let Some(view) = &mut model.dump {
        let lines = pages::tab(&model.known, view, model.theme, roomy);
        view.page.replace(lines);
    }
}

/// Replaces the page of the open dump.
pub(super) fn new_page(model: &mut Model) {
    let roomy = model.size.0 >= ROOMY;
    if let Some(view) = &mut model.dump {
        view.page = Page {
            sought: view.page.sought.clone(),
            ..Page::new(pages::tab(&model.known, view, model.theme, roomy))
        };
        view.source = None;
    }
}
