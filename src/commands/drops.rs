//! `cdh drops`: crashes of which there is no dump, or whose dump had to leave the spool, as the agents
//! told the store: how many of which kind, since when, and why.

use anyhow::Result;
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
    match args.output {
        TextFormat::Json => super::print(&render::drops_json(&dropped)?)?,
        TextFormat::Text if dropped.is_empty() => {
            eprintln!("no drops in {}", render::terminal_line(&store.describe()));
        }
        TextFormat::Text => super::print(&render::drops_text(&dropped, now, settings.style))?,
    }
    Ok(if dropped.is_empty() {
        ExitStatus::Nothing
    } else {
        ExitStatus::Done
    })
}
