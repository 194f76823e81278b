//! `cdh rm <dump>…`: deletes dumps from the store.
//!
//! The manifest goes first, so that a removal cut short leaves a dump that does not exist rather
//! than one that cannot be read.

use anyhow::Result;

use crate::args::RmArgs;
use crate::pipeline;
use crate::prompt;
use crate::render::{bytes, terminal_line};
use crate::report::ExitStatus;
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &RmArgs) -> Result<ExitStatus> {
    let store = pipeline::open_store(settings)?;
    let mut dumps = Vec::new();
    // All references are resolved before anything is deleted: `@1` must not change its meaning on the way.
    for reference in &args.dumps {
        let summary = pipeline::resolve(settings, store.as_ref(), reference)?;
        if !dumps
            .iter()
            .any(|known: &cdh_store::DumpSummary| known.key == summary.key)
        {
            dumps.push(summary);
        }
    }
    let mut listing = String::new();
    for dump in &dumps {
        let size = dump.size.map(bytes).unwrap_or_default();
        let line = format!("{} {} {} {size}", dump.id, dump.exe, dump.signal);
        listing.push_str(&format!("{}\n", terminal_line(line.trim_end())));
    }
    if args.dry_run {
        super::print(&listing)?;
        return Ok(ExitStatus::Done);
    }
    if !args.yes {
        eprint!("{listing}");
        let question = match dumps.len() {
            1 => "Delete this dump?".to_owned(),
            count => format!("Delete these {count} dumps?"),
        };
        if !prompt::confirm(&question, settings.interactive)? {
            return Ok(ExitStatus::Interrupted);
        }
    }
    for dump in &dumps {
        cdh_store::remove_dump(store.as_ref(), dump)
            .map_err(|error| pipeline::store_failure(error, "delete from"))?;
    }
    pipeline::forget_listed(settings, &dumps);
    super::print(&listing)?;
    Ok(ExitStatus::Done)
}
