//! The automatic refresh: while the user is idle, the newest part of the store is listed again.

use super::actions;
use crate::report::{ExitStatus, Told};
use crate::tui::model::{Learnt, Listing, Model, Row};
use crate::tui::msg::Effect;

/// Asks for the newest dumps, when that is due.
pub(super) fn refresh(model: &mut Model, effects: &mut Vec<Effect>) {
    let is_interrupted = model.prompt.is_some() || model.overlay.is_some();
    let is_listed = matches!(model.dumps.listing, Listing::Done | Listing::Failed(_));
    if is_interrupted
        || !is_listed
        || !model.dumps.takes_arrivals()
        || !model.refresh.is_due(model.clock)
    {
        return;
    }
    let request = model.request();
    model.refresh.asked = Some(request);
    effects.push(Effect::Refresh(request, model.dumps.shared().0));
}

/// The newest dumps were listed, or cannot be.
pub(super) fn refreshed(
    model: &mut Model,
    outcome: Result<Vec<Row>, Told>,
    effects: &mut Vec<Effect>,
) {
    model.refresh.asked = None;
    match outcome {
        // The listing had failed before: now there is a whole one to be had.
        Ok(_) if matches!(model.dumps.listing, Listing::Failed(_)) => {
            model.refresh.succeeded(model.clock);
            actions::list(model, effects);
        }
        Ok(rows) => {
            model.refresh.succeeded(model.clock);
            model.lost = None;
            for row in &rows {
                model.first_seen.note(&row.dump);
            }
            let (facts, tops) = (&model.facts, &model.tops);
            let count = model
                .dumps
                .arrive(rows, model.clock, Learnt { facts, tops });
            if count > 0 {
                model.groups.stale = true;
                model.rest.done = false;
            }
        }
        Err(told) => {
            let is_unreachable = told.status == ExitStatus::Unreachable;
            let is_first = model.refresh.failed(is_unreachable, model.now, model.clock);
            // A banner says it already.
            if is_first && model.lost.is_none() {
                let why = match is_unreachable {
                    true => "the store is unreachable".to_owned(),
                    false => format!("cannot refresh the list: {}", told.lines.join(": ")),
                };
                model.say(format!("{why}; the list remains as it was"));
            }
            // A message goes away. The banner stays as long as the list may show what is no longer there.
            if !is_unreachable {
                model.lost = Some(told);
            }
        }
    }
}
