//! The automatic refresh: lists the newest part of the store again while the user is idle.

use super::actions;
use crate::report::{ExitStatus, RenderedError};
use crate::tui::model::{Learnt, Listing, Model, Row};
use crate::tui::msg::Effect;

/// Requests the newest dumps when a refresh is due.
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

/// Processes the result of a refresh.
pub(super) fn refreshed(
    model: &mut Model,
    outcome: Result<Vec<Row>, RenderedError>,
    effects: &mut Vec<Effect>,
) {
    model.refresh.asked = None;
    match outcome {
        // The last listing had failed: a complete one is possible now.
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
        Err(error) => {
            let is_unreachable = error.status == ExitStatus::Unreachable;
            let is_first = model.refresh.failed(is_unreachable, model.now, model.clock);
            // A banner already shows it.
            if is_first && model.lost.is_none() {
                let why = match is_unreachable {
                    true => "the store is unreachable".to_owned(),
                    false => format!("cannot refresh the list: {}", error.lines.join(": ")),
                };
                model.say(format!("{why}; the list remains as it was"));
            }
            // A message disappears, but the banner remains while the list may show deleted dumps.
            if !is_unreachable {
                model.lost = Some(error);
            }
        }
    }
}
