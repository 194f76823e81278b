//! `cdh rm <dump>…`: deletes dumps from the store.
//!
//! The manifest is deleted first, so an interrupted removal leaves a dump that is not listed,
//! rather than one that cannot be read.

use anyhow::Result;

use crate::args::{RmArgs, TextFormat};
use crate::pipeline;
use crate::prompt;
use crate::render::{self, DeletedDump, Removal, bytes, terminal_line};
use crate::report::ExitStatus;
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &RmArgs) -> Result<ExitStatus> {
    let store = pipeline::open_store(settings)?;
    let mut dumps = Vec::new();
    // Resolve all references before deleting anything: `@1` would change its meaning.
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
    let result = match args.output.format() {
        TextFormat::Text => listing.clone(),
        TextFormat::Json => render::json_text(&Removal {
            dry_run: args.dry_run,
            dumps: dumps
                .iter()
                .map(|dump| DeletedDump::new(dump, None))
                .collect(),
        })?,
    };
    if args.dry_run {
        super::print(&result)?;
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
    super::print(&result)?;
    Ok(ExitStatus::Done)
}
