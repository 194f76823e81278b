//! `cdh gc`: deletes the dumps that the given limits do not let stay: those that are too old, those of
//! which there are enough newer ones of the same crash, and the oldest when all together take too much
//! room. Each limit holds for itself; without any, nothing is deleted.

use anyhow::Result;
use cdh_store::{Catalog, Query, Retention};
use jiff::Timestamp;

use crate::args::GcArgs;
use crate::pipeline;
use crate::prompt;
use crate::render::{bytes, terminal_line};
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;
use crate::when::parse_when;

pub(super) fn run(settings: &Settings, args: &GcArgs) -> Result<ExitStatus> {
    let oldest = args
        .older_than
        .as_deref()
        .map(|text| parse_when(text, Timestamp::now()))
        .transpose()?;
    let retention = Retention {
        oldest,
        per_fingerprint: args.keep_per_fingerprint,
        total: args.max_total,
    };
    if retention == Retention::default() {
        let failure = Failure::new(ExitStatus::Failure, "no limit is given");
        let hint = "give `--older-than 30d`, `--keep-per-fingerprint 5` or `--max-total 500G`";
        return Err(failure.hint(hint).into());
    }
    let store = pipeline::open_store(settings)?;
    let dumps = Catalog::new(store.as_ref())
        .find(&Query::default())
        .map_err(|error| pipeline::store_failure(error, "list"))?;
    // What only its name makes a dump of is never deleted without having been looked at.
    let (dumps, unsure): (Vec<_>, Vec<_>) = dumps.into_iter().partition(|dump| dump.is_certain());
    if !unsure.is_empty() {
        eprintln!(
            "note: {} zips by another agent's own names stay: delete them with `cdh rm`",
            unsure.len()
        );
    }
    let expired = retention.expired(&dumps);
    let mut listing = String::new();
    let mut total = 0;
    for (dump, why) in &expired {
        let size = dump.size.map(bytes).unwrap_or_default();
        total += dump.size.unwrap_or(0);
        let line = format!(
            "{} {} {} {} {size}: {}",
            dump.id,
            dump.captured_at,
            dump.exe,
            dump.signal,
            why.describe()
        );
        listing.push_str(&format!("{}\n", terminal_line(&line)));
    }
    let all = dumps.len();
    let sum = format!("{} of {all} dumps, {}", expired.len(), bytes(total));
    if expired.is_empty() || args.dry_run {
        super::print(&listing)?;
        eprintln!("{sum} would be deleted");
        return Ok(ExitStatus::Done);
    }
    if !args.yes {
        eprint!("{listing}");
        let question = format!("Delete {sum}?");
        if !prompt::confirm(&question, settings.interactive)? {
            return Ok(ExitStatus::Interrupted);
        }
    }
    for (dump, _) in &expired {
        cdh_store::remove_dump(store.as_ref(), dump)
            .map_err(|error| pipeline::store_failure(error, "delete from"))?;
    }
    super::print(&listing)?;
    eprintln!("{sum} deleted");
    Ok(ExitStatus::Done)
}
