//! `cdh drops`: lists crashes without a dump, and dumps that were deleted from the spool, as the agents reported
//! them to the store: how many of each kind, since when, and why.

use anyhow::Result;
use cdh_store::Store;
use jiff::Timestamp;

use crate::args::{DropsArgs, TextFormat};
use crate::pipeline;
use crate::render;
use crate::report::ExitStatus;
use crate::settings::Settings;
use crate::when::parse_when;

pub(super) fn run(settings: &Settings, args: &DropsArgs) -> Result<ExitStatus> {
    let now = Timestamp::now();
    let since = args
        .since
        .as_deref()
        .map(|text| parse_when(text, now))
        .transpose()?;
    let store = pipeline::open_store(settings)?;
    let mut lines = pipeline::drops(store.as_ref(), since)?;
    lines.retain(|line| {
        since
            .zip(line.last)
            .is_none_or(|(since, last)| last >= since)
    });
    let dropped = render::kinds_of_drops(&lines);
    match args.output.format() {
        TextFormat::Json => super::print(&render::drops_json(&dropped)?)?,
        TextFormat::Text if dropped.is_empty() => {
            eprintln!("no drops in {}", render::terminal_line(&store.describe()));
            for hint in hints(settings, store.as_ref(), args.since.is_some()) {
                eprintln!("hint: {}", render::terminal_line(&hint));
            }
        }
        TextFormat::Text => super::print(&render::drops_text(&dropped, now, settings.style))?,
    }
    Ok(if dropped.is_empty() {
        ExitStatus::Nothing
    } else {
        ExitStatus::Done
    })
}

/// What exists instead: older drops, dumps, or dumps in another store.
fn hints(settings: &Settings, store: &dyn Store, is_filtered: bool) -> Vec<String> {
    if is_filtered && pipeline::drops(store, None).is_ok_and(|drops| !drops.is_empty()) {
        return vec!["list older drops too: `cdh drops`".to_owned()];
    }
    match pipeline::is_empty(store) {
        false => vec![
            "this store has dumps, and no agent reported a crash without one: `cdh ls` lists them"
                .to_owned(),
        ],
        true => pipeline::hints_for_nothing(settings, store, false),
    }
}
