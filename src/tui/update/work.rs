//! Actions on dumps: fetch, debug, mark, compare, delete, copy, page.

use std::collections::BTreeSet;

use cdh_store::DumpSummary;

use super::actions::{go, move_by};
use super::open::explain;
use crate::tui::keymap::{Action, Context};
use crate::tui::model::{Depth, DiffView, Model, Overlay, Page, Purpose, Screen, State, Transfer};
use crate::tui::msg::Effect;

/// Maximum text for the clipboard: terminals drop longer texts (xterm and tmux accept about 100 kB
/// of base64).
const CLIPBOARD: usize = 70_000;

/// The dumps that an action applies to: the marked ones, otherwise the selected one.
pub(super) fn chosen(model: &Model) -> Vec<DumpSummary> {
    let listed = matches!(model.screen(), Screen::Dumps { .. });
    if listed && !model.dumps.marks.is_empty() {
        return model.dumps.marked();
    }
    model.selected().cloned().into_iter().collect()
}

pub(super) fn transfer_selected(model: &mut Model, purpose: Purpose, effects: &mut Vec<Effect>) {
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
        let key = model.keymap.key_for(Context::Everywhere, Action::Transfers);
        model.say(format!("fetching {what}; `{key}` shows how far it is"));
    }
}

pub(super) fn mark(model: &mut Model) {
    let listed = matches!(model.screen(), Screen::Dumps { .. });
    let Some(id) = model.selected().map(|dump| dump.id).filter(|_| listed) else {
        return model.say("dumps are marked in their list");
    };
    if !model.dumps.marks.remove(&id) {
        model.dumps.marks.insert(id);
    }
    move_by(model, 1);
}

pub(super) fn diff(model: &mut Model, effects: &mut Vec<Effect>) {
    let Ok([first, second]) = <[DumpSummary; 2]>::try_from(model.dumps.marked()) else {
        let key = model.keymap.key_for(Context::Dumps, Action::Mark);
        let count = model.dumps.marks.len();
        return model.say(format!(
            "mark two dumps with `{key}` to compare them; {count} are marked"
        ));
    };
    explain(model, &first, Depth::Full, effects);
    explain(model, &second, Depth::Full, effects);
    // The older one first, to show what changed since.
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

pub(super) fn delete(model: &mut Model) {
    let dumps = chosen(model);
    if dumps.is_empty() {
        return model.say("no dump is selected");
    }
    model.overlay = Some(Overlay::Delete(dumps));
}

pub(super) fn page_text(model: &Model) -> Option<String> {
    match model.screen() {
        Screen::Group => Some(model.group_page.text()),
        Screen::Dump => Some(model.dump.as_ref()?.page.text()),
        Screen::Diff => Some(model.diff.as_ref()?.page.text()),
        _ => None,
    }
}

pub(super) fn copy(model: &mut Model, effects: &mut Vec<Effect>) {
    let (text, what) = match page_text(model) {
        Some(text) => (text, "the text".to_owned()),
        None => match model.selected() {
            Some(dump) => (dump.id.to_string(), format!("id {}", dump.id.short())),
            None => return model.say("nothing is selected"),
        },
    };
    if text.len() > CLIPBOARD {
        let key = model.keymap.key_for(Context::Dump, Action::Pager);
        return model.complain(format!(
            "this is too long for a terminal's clipboard; `{key}` opens it"
        ));
    }
    model.say(format!(
        "{what} is in the clipboard, where the terminal allows it (OSC 52)"
    ));
    effects.push(Effect::Copy(text));
}

pub(super) fn pager(model: &mut Model, effects: &mut Vec<Effect>) {
    if let Some(text) = page_text(model) {
        return effects.push(Effect::Pager(text));
    }
    let Some(dump) = model.selected().cloned() else {
        return model.say("no dump is selected");
    };
    match (model.known.opened(dump.id), model.known.stacks(dump.id)) {
        (Some(opened), Some(stacks)) => {
            let text = crate::tui::pages::backtrace(opened, stacks, 0, &BTreeSet::new());
            let lines = crate::tui::styled::lines(&text, model.theme);
            effects.push(Effect::Pager(Page::new(lines).text()));
        }
        _ => {
            explain(model, &dump, Depth::Quick, effects);
            model.say("its backtrace is being read; try again in a moment");
        }
    }
}

pub(super) fn cancel(model: &mut Model, effects: &mut Vec<Effect>) {
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
