//! `cdh ls`: lists the dumps in a store, newest first. Reads object names only, unless `--image` or
//! `--node` ask for what only manifests hold.

use anyhow::Result;
use cdh_store::{Catalog, DumpSummary, Query};
use jiff::{SignedDuration, Timestamp, civil, tz::Offset};

use crate::args::{ListFormat, LsArgs, SortBy};
use crate::pipeline;
use crate::render;
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &LsArgs) -> Result<ExitStatus> {
    let now = Timestamp::now();
    let query = Query {
        namespace: args.namespace.clone(),
        pod: args.pod.clone(),
        exe: args.exe.clone(),
        image: args.image.clone(),
        node: args.node.clone(),
        signal: args.signal.clone(),
        since: args
            .since
            .as_deref()
            .map(|text| parse_when(text, now))
            .transpose()?,
        until: args
            .until
            .as_deref()
            .map(|text| parse_when(text, now))
            .transpose()?,
        truncated: args.truncated,
        fingerprint: args.fingerprint.clone(),
        // The limit counts dumps in the order asked for, so another order needs them all first.
        limit: args
            .limit
            .filter(|_| args.sort == SortBy::Time && !args.group),
    };
    let store = pipeline::open_store(settings)?;
    let mut dumps = Catalog::new(store.as_ref())
        .find(&query)
        .map_err(|error| pipeline::store_failure(error, "list"))?;
    sort(&mut dumps, args.sort);
    if !args.group {
        dumps.truncate(args.limit.unwrap_or(usize::MAX));
    }
    let text = match args.output {
        ListFormat::Table | ListFormat::Wide if dumps.is_empty() => String::new(),
        ListFormat::Table | ListFormat::Wide if args.group => {
            render::list_groups(&dumps, now, settings.style, args.limit)
        }
        ListFormat::Table => render::list_table(&dumps, now, settings.style, false),
        ListFormat::Wide => render::list_table(&dumps, now, settings.style, true),
        ListFormat::Json => render::list_json(&dumps)?,
        ListFormat::Jsonl => render::list_jsonl(&dumps)?,
        ListFormat::Csv => render::list_csv(&dumps),
        ListFormat::Id => render::list_ids(&dumps),
    };
    super::print(&text)?;
    if !dumps.is_empty() {
        return Ok(ExitStatus::Done);
    }
    if matches!(args.output, ListFormat::Table | ListFormat::Wide) {
        let filtered = args.is_filtered();
        eprintln!(
            "no dumps {}in {}",
            if filtered { "match " } else { "" },
            render::terminal_line(&store.describe())
        );
        if !filtered && settings.store_is_default {
            eprintln!(
                "hint: capture crashes here with `cdh agent install`, put a core in with `cdh import <CORE>`,"
            );
            eprintln!("      or name another store with `--store` or `CDH_STORE`");
        }
    }
    Ok(ExitStatus::Nothing)
}

impl LsArgs {
    fn is_filtered(&self) -> bool {
        let texts = [
            &self.namespace,
            &self.pod,
            &self.exe,
            &self.image,
            &self.node,
            &self.signal,
            &self.since,
            &self.until,
            &self.fingerprint,
        ];
        self.truncated || texts.iter().any(|text| text.is_some())
    }
}

fn sort(dumps: &mut [DumpSummary], by: SortBy) {
    match by {
        SortBy::Time => {}
        SortBy::Size => dumps.sort_by_key(|dump| std::cmp::Reverse(dump.size)),
        SortBy::Exe => dumps.sort_by(|a, b| a.exe.as_bytes().cmp(b.exe.as_bytes())),
        SortBy::Signal => dumps.sort_by(|a, b| a.signal.cmp(&b.signal)),
        SortBy::Pod => dumps.sort_by(|a, b| (&a.namespace, &a.pod).cmp(&(&b.namespace, &b.pod))),
    }
}

/// A point in time: an age (`90s`, `15m`, `2h`, `7d`, `2w`), a date, or a date and time (UTC unless it says otherwise).
fn parse_when(text: &str, now: Timestamp) -> Result<Timestamp> {
    let age = || {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let seconds = match text.get(digits.len()..)? {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3600,
            "d" => 86400,
            "w" => 7 * 86400,
            _ => return None,
        };
        let count: i64 = digits.parse().ok().filter(|&count| count >= 0)?;
        now.checked_sub(SignedDuration::from_secs(count.checked_mul(seconds)?))
            .ok()
    };
    let utc = |civil: civil::DateTime| Offset::UTC.to_timestamp(civil).ok();
    age()
        .or_else(|| text.parse::<Timestamp>().ok())
        .or_else(|| text.parse::<civil::DateTime>().ok().and_then(utc))
        .or_else(|| text.parse::<civil::Date>().ok().and_then(|date| utc(date.at(0, 0, 0, 0))))
        .ok_or_else(|| {
            Failure::new(ExitStatus::Failure, format!("`{text}` is not a point in time"))
                .hint("give an age (`90s`, `15m`, `2h`, `7d`, `2w`), a date (`2026-01-31`) or a time (`2026-01-31T12:00:00Z`)")
                .into()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_dates_and_times_are_points_in_time() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let table = [
            ("2h", "2026-01-31T10:00:00Z"),
            ("7d", "2026-01-24T12:00:00Z"),
            ("2026-01-30", "2026-01-30T00:00:00Z"),
            ("2026-01-30T01:02:03", "2026-01-30T01:02:03Z"),
            ("2026-01-30T01:02:03+01:00", "2026-01-30T00:02:03Z"),
        ];
        for (text, expected) in table {
            assert_eq!(
                parse_when(text, now).unwrap(),
                expected.parse().unwrap(),
                "{text}"
            );
        }
    }

    #[test]
    fn nonsense_is_no_point_in_time() {
        let now = Timestamp::now();
        for text in [
            "",
            "h",
            "-1d",
            "yesterday",
            "99999999999999999999d",
            "2026-13-01",
        ] {
            assert!(parse_when(text, now).is_err(), "{text}");
        }
    }
}
