//! Crashes without a dump: one line per kind, with their number.

use std::collections::BTreeMap;

use anyhow::Result;
use cdh_agent::DropLine;
use jiff::Timestamp;

use super::Style;
use super::list::{age, finish};
use super::table::aligned;

/// Merges the lines of each kind, the most frequent first.
#[must_use]
pub fn kinds_of_drops(lines: &[DropLine]) -> Vec<DropLine> {
    let mut kinds: BTreeMap<String, DropLine> = BTreeMap::new();
    for line in lines {
        let key = format!(
            "{} {:?} {:?} {:?} {:?} {:?} {:?}",
            line.node,
            line.outcome,
            line.reason,
            line.exe,
            line.workload,
            line.fingerprint,
            line.signal
        );
        match kinds.get_mut(&key) {
            None => drop(kinds.insert(key, line.clone())),
            Some(kind) => {
                kind.count = kind.count.saturating_add(line.count);
                kind.first = kind.first.into_iter().chain(line.first).min();
                if line.last >= kind.last {
                    kind.last = line.last;
                    kind.detail.clone_from(&line.detail);
                }
            }
        }
    }
    let mut kinds: Vec<DropLine> = kinds.into_values().collect();
    kinds.sort_by_key(|kind| std::cmp::Reverse((kind.count, kind.last)));
    kinds
}

/// For people.
#[must_use]
pub fn drops_text(dropped: &[DropLine], now: Timestamp, style: Style) -> String {
    let some = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let row = |kind: &DropLine| {
        let when = |time: Option<Timestamp>| some(time.map(|time| age(time, now)));
        let fingerprint = kind.fingerprint.as_ref();
        let fingerprint = fingerprint.map(|text| text.chars().take(8).collect());
        vec![
            kind.count.to_string(),
            when(kind.last),
            when(kind.first),
            kind.outcome.name().to_owned(),
            some(kind.reason.map(|reason| reason.name().to_owned())),
            some(kind.exe.as_ref().map(ToString::to_string)),
            some(kind.signal.clone()),
            some(fingerprint),
            some(kind.workload.clone()),
            kind.node.to_string(),
            some(kind.detail.clone()),
        ]
    };
    let rows: Vec<_> = dropped.iter().map(row).collect();
    let header = [
        "COUNT",
        "LAST",
        "FIRST",
        "OUTCOME",
        "REASON",
        "EXE",
        "SIGNAL",
        "FINGERPRINT",
        "WORKLOAD",
        "NODE",
        "DETAIL",
    ];
    finish(aligned(&header, &rows), style, |_| false)
}

/// An array of kinds, in the format of the agents.
///
/// # Errors
/// Never, for data that an agent wrote.
pub fn drops_json(dropped: &[DropLine]) -> Result<String> {
    super::json_text(dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(count: u64, last: &str, exe: &str) -> DropLine {
        let value = serde_json::json!({
            "node": "n1", "outcome": "dropped", "reason": "rate_fingerprint", "count": count,
            "first": last, "last": last, "exe": exe, "signal": "SIGSEGV", "detail": format!("at {last}"),
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn drops_merge_equal_kinds_and_escape_names() {
        let lines = [
            line(2, "2026-01-01T00:00:00Z", "/bin/a"),
            line(5, "2026-01-01T02:00:00Z", "/bin/a"),
            line(1, "2026-01-01T01:00:00Z", "/bin/\u{1b}[31mb"),
        ];
        let kinds = kinds_of_drops(&lines);
        let counts: Vec<_> = kinds.iter().map(|kind| kind.count).collect();
        assert_eq!(counts, [7, 1]);
        let now = "2026-01-01T03:00:00Z".parse().unwrap();
        let text = drops_text(&kinds, now, Style::Plain);
        assert!(!text.contains('\u{1b}'), "{text}");
        let first = text.lines().nth(1).unwrap();
        assert!(
            first.starts_with("7") && first.contains("60m") && first.contains("3h"),
            "{text}"
        );
        assert!(first.ends_with("at 2026-01-01T02:00:00Z"), "{text}");
    }
}
