//! The search terms for dumps: one vocabulary for the flags and arguments of `cdh ls` and `cdh
//! groups`, and for the filter of the TUI.

mod fields;
mod selection;
mod words;

pub use fields::{FIELDS, Field};
pub use selection::{LISTING_TERMS, NEW_SINCE, Selection};
pub use words::{Haystack, Word};

use anyhow::Result;
use cdh_store::{Query, nearest};
use jiff::Timestamp;

use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};
use crate::when::parse_when;

/// Name of each term, and what it filters by.
pub const TERMS: [(&str, &str); 13] = [
    ("namespace", "of this namespace (`*` and `?` match)"),
    (
        "pod",
        "of this pod, or of this container outside Kubernetes",
    ),
    ("exe", "of this program, by name or path"),
    ("image", "of this image"),
    ("node", "from this node"),
    ("signal", "of this signal: 11, SEGV or SIGSEGV"),
    ("since", "since then: 2h, 7d, 2026-01-31"),
    ("until", "until then"),
    ("truncated", "that are not complete"),
    ("fingerprint", "with this fingerprint (or the start of it)"),
    ("pid", "of this process id"),
    ("unit", "of this systemd unit"),
    ("cmdline", "with this in the command line"),
];

/// Adds a condition on the term `name`.
///
/// # Errors
/// If there is no such term, or the value is invalid.
pub fn add_term(query: &mut Query, name: &str, value: &str, now: Timestamp) -> Result<()> {
    let text = || Some(value.to_owned());
    match name {
        "namespace" => query.namespace = text(),
        "pod" => query.pod = text(),
        // For a path, keys only hold its last part.
        "exe" if value.contains('/') => {
            query.exe = value.rsplit('/').next().map(str::to_owned);
            query.exe_path = text();
        }
        "exe" => query.exe = text(),
        "pid" => {
            let pid = value.parse().map_err(|_| {
                let shown = terminal_line(value);
                let message = format!("invalid process id `{shown}`: expected a number");
                Failure::new(ExitStatus::Failure, message)
            })?;
            query.pid = Some(pid);
        }
        "unit" => query.unit = text(),
        "cmdline" => query.command_line = text(),
        "image" => query.image = text(),
        "node" => query.node = text(),
        "signal" => query.signal = text(),
        "since" => query.since = Some(parse_when(value, now)?),
        "until" => query.until = Some(parse_when(value, now)?),
        "fingerprint" => query.fingerprint = Some(value.to_ascii_lowercase()),
        "truncated" => match value {
            "" | "yes" | "true" => query.truncated = true,
            "no" | "false" => query.truncated = false,
            _ => {
                return Err(Failure::new(
                    ExitStatus::Failure,
                    format!(
                        "invalid value `{}` of `truncated`: expected `yes` or `no`",
                        terminal_line(value)
                    ),
                )
                .into());
            }
        },
        _ => {
            return Err(unknown_term(name));
        }
    }
    Ok(())
}

/// The error for an unknown term.
fn unknown_term(name: &str) -> anyhow::Error {
    let shown = terminal_line(name);
    let failure = Failure::new(
        ExitStatus::Failure,
        format!("unknown filter term `{shown}`"),
    );
    let failure = match similar_term(name) {
        Some(similar) => failure.hint(format!("did you mean `{similar}`?")),
        None => failure,
    };
    let known: Vec<&str> = term_names().collect();
    let hint = format!("valid terms are {}", known.join(", "));
    failure.hint(hint).into()
}

fn term_names() -> impl Iterator<Item = &'static str> {
    let names = TERMS.iter().map(|(name, _)| *name);
    names.chain(LISTING_TERMS.iter().map(|(name, _)| *name))
}

/// The known term that is most similar to a misspelt one.
#[must_use]
pub fn similar_term(name: &str) -> Option<&'static str> {
    nearest(name, term_names())
}

/// Refuses an empty time range, which could never match.
///
/// # Errors
/// If `since` is later than `until`.
pub fn require_range(query: &Query) -> Result<()> {
    let (Some(since), Some(until)) = (query.since, query.until) else {
        return Ok(());
    };
    if since <= until {
        return Ok(());
    }
    let shown = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ");
    let message = format!(
        "empty time range: `since` is {}, later than `until`, {}",
        shown(since),
        shown(until)
    );
    let hint = "swap them: an age counts back from now, so `since:2h until:1h` is the hour before the last";
    Err(Failure::new(ExitStatus::Failure, message).hint(hint).into())
}

/// Whether this is a term's name, or its abbreviation.
#[must_use]
pub fn is_term(name: &str) -> bool {
    full_name(name).is_some()
}

/// The term that a name or an abbreviation means.
#[must_use]
pub fn full_name(name: &str) -> Option<&'static str> {
    let mut known = TERMS.iter().map(|(known, _)| *known);
    known.find(|known| *known == name || short(known) == name)
}

/// What people type instead.
#[must_use]
pub fn short(name: &str) -> &'static str {
    match name {
        "namespace" => "ns",
        "signal" => "sig",
        "fingerprint" => "fp",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_term_is_understood_and_no_other() {
        let now = Timestamp::UNIX_EPOCH;
        for (name, _) in TERMS {
            let value = match name {
                "truncated" => "",
                "pid" => "4242",
                _ => "2026-01-31",
            };
            assert!(
                add_term(&mut Query::default(), name, value, now).is_ok(),
                "{name}"
            );
        }
        for (name, value) in [
            ("colour", "red"),
            ("since", "someday"),
            ("truncated", "very"),
        ] {
            assert!(
                add_term(&mut Query::default(), name, value, now).is_err(),
                "{name}"
            );
        }
    }
}
