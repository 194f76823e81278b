//! Prints groups as a table, as one page about a single crash, and as JSON.

use std::collections::BTreeSet;

use anyhow::Result;
use cdh_bundle::DumpId;
#[cfg(feature = "schema")]
use cdh_bundle::schema::Time;
use jiff::Timestamp;
use serde::Serialize;

use super::csv::csv_text;
use super::groups::{FirstFrom, Group, GroupImage, GroupWorkload};
use super::list::age;
use super::table::{Fit, aligned, aligned_within};
use super::{Style, Tone, short_image, terminal_line};

/// Maximum images and workloads in a line.
const NAMED: usize = 2;
/// The mark of a new crash.
const NEW: &str = "NEW";

const HEADER: [&str; 10] = [
    "COUNT",
    "LAST",
    "FIRST",
    "EXE",
    "SIGNAL",
    "FINGERPRINT",
    "LATEST",
    "TOP FRAME",
    "WORKLOADS",
    "IMAGES",
];
/// Columns that are shortened on a narrow terminal.
const WIDE: [usize; 3] = [7, 8, 9];

/// How groups are shown to people.
#[derive(Clone, Copy, Debug)]
pub struct GroupsView {
    /// The time.
    pub now: Timestamp,
    /// With colours or without.
    pub style: Style,
    /// Columns of the terminal; `None` if the output is not for one.
    pub width: Option<usize>,
}

/// One line for each group.
#[must_use]
pub fn groups_text(groups: &[Group], view: &GroupsView) -> String {
    let row = |group: &Group| {
        vec![
            group.count.to_string(),
            age(group.last, view.now),
            first(group, view.now),
            group.exe.clone(),
            group.signal.clone(),
            group.fingerprint.clone().unwrap_or_else(absent),
            group.newest.id.short(),
            group.top.clone().unwrap_or_else(absent),
            some(group.affected.iter().map(GroupWorkload::shown)),
            some(
                group
                    .images
                    .iter()
                    .map(|image| release(group, image, view.now)),
            ),
        ]
    };
    let rows: Vec<_> = groups.iter().map(row).collect();
    let fit = view.width.map(|width| Fit {
        width,
        columns: &WIDE,
    });
    let lines = aligned_within(&HEADER, &rows, fit);
    let mut text = String::new();
    for (number, line) in lines.into_iter().enumerate() {
        let group = number.checked_sub(1).and_then(|index| groups.get(index));
        let painted = match group {
            None => view.style.paint(Tone::Strong, line),
            // The numbers before the mark contain no such letters.
            Some(group) if group.is_new => line.replacen(NEW, &view.style.paint(Tone::Bad, NEW), 1),
            Some(_) => line,
        };
        text.push_str(&painted);
        text.push('\n');
    }
    text
}

/// One crash: since when, and each of its images and workloads.
#[must_use]
pub fn group_text(group: &Group, view: &GroupsView) -> String {
    let now = view.now;
    let time = |time: Timestamp| format!("{time} ({} ago)", age(time, now));
    let fingerprint = group.fingerprint.as_deref().unwrap_or("-");
    let title = terminal_line(&format!("{} {} {fingerprint}", group.exe, group.signal));
    let mut text = view.style.paint(Tone::Strong, title);
    if group.is_new {
        text.push_str(&format!("  {}", view.style.paint(Tone::Bad, NEW)));
    }
    let incomplete = match group.incomplete {
        0 => String::new(),
        count => format!(", {count} incomplete"),
    };
    let earlier = match group.first_from {
        FirstFrom::Store => "",
        FirstFrom::LookBack | FirstFrom::Selection => " or earlier",
    };
    let newest = group.newest.id.short();
    let lines = [
        (
            "dumps",
            format!("{}{incomplete}; latest {newest}", group.count),
        ),
        ("first seen", format!("{}{earlier}", time(group.first))),
        ("last seen", time(group.last)),
        ("top frame", group.top.clone().unwrap_or_else(absent)),
    ];
    let hint =
        "older dumps are not selected: FIRST and COUNT below are those of the selected dumps";
    let hint = group.hides_older().then(|| ("note", hint.to_owned()));
    for (name, value) in lines.into_iter().chain(hint) {
        text.push_str(&format!("\n  {name:<11} {}", terminal_line(&value)));
    }
    text.push('\n');
    let mut table = |header: &[&str], rows: &[Vec<String>]| {
        text.push('\n');
        for (number, line) in aligned(header, rows).into_iter().enumerate() {
            let painted = match number {
                0 => view.style.paint(Tone::Strong, line),
                _ => line,
            };
            text.push_str(&format!("{painted}\n"));
        }
    };
    let images: Vec<_> = group
        .images
        .iter()
        .map(|image| {
            vec![
                short_image(&image.reference, image.release.as_deref()),
                age(image.first, now),
                age(image.last, now),
                image.count.to_string(),
                image.reference.clone(),
            ]
        })
        .collect();
    if !images.is_empty() {
        table(&["IMAGE", "FIRST", "LAST", "COUNT", "REFERENCE"], &images);
    }
    let workloads: Vec<_> = group
        .affected
        .iter()
        .map(|workload| {
            vec![
                workload.name.clone(),
                age(workload.first, now),
                age(workload.last, now),
                workload.count.to_string(),
                workload.pods.to_string(),
            ]
        })
        .collect();
    if !workloads.is_empty() {
        table(&["WORKLOAD", "FIRST", "LAST", "COUNT", "PODS"], &workloads);
    }
    text
}

fn absent() -> String {
    "-".to_owned()
}

/// `3h NEW`, `>90d` if it may be older, `-` if it is only known from the filtered dumps.
fn first(group: &Group, now: Timestamp) -> String {
    let age = age(group.first, now);
    match (group.first_from, group.is_new) {
        (FirstFrom::Selection, _) => absent(),
        (_, true) => format!("{age} {NEW}"),
        (FirstFrom::LookBack, false) => format!(">{age}"),
        (FirstFrom::Store, false) => age,
    }
}

/// `checkout:1.4.2 (since 3h, 12×)`; without a time if a filter hides the oldest dumps.
fn release(group: &Group, image: &GroupImage, now: Timestamp) -> String {
    let name = short_image(&image.reference, image.release.as_deref());
    let count = image.count;
    match group.hides_older() {
        true => format!("{name} ({count}×)"),
        false => format!("{name} (since {}, {count}×)", age(image.first, now)),
    }
}

fn some(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    let mut shown: Vec<String> = names.iter().take(NAMED).cloned().collect();
    if let Some(more) = names.len().checked_sub(NAMED).filter(|more| *more > 0) {
        shown.push(format!("+{more}"));
    }
    match shown.is_empty() {
        true => absent(),
        false => shown.join(" "),
    }
}

/// A crash in `cdh groups`: dumps with the same fingerprint, or without one of the same program and signal.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListedGroup<'g> {
    /// Terms that the dumps had to match; `null` if all dumps were grouped.
    filter: Option<&'g str>,
    /// First eight digits of the fingerprint.
    fingerprint: Option<&'g str>,
    /// Program.
    exe: &'g str,
    /// Signal, such as `SIGSEGV`.
    signal: &'g str,
    /// Number of dumps.
    count: usize,
    /// Number of those that are not complete.
    incomplete: usize,
    /// Bytes of the bundles, if the listing has them.
    bytes: u64,
    /// When the store first received this crash, even if the filter hides that dump.
    #[cfg_attr(feature = "schema", schemars(with = "Time"))]
    first: Timestamp,
    /// The source of `first`.
    first_from: FirstFrom,
    /// Whether the crash first appeared within the time that counts as new.
    new: bool,
    /// Capture time of the oldest selected dump; `first` covers the whole store.
    #[cfg_attr(feature = "schema", schemars(with = "Time"))]
    oldest_selected: Timestamp,
    /// Whether the filter hides older dumps of this crash. If it does, `count`, `incomplete`, `affected` and
    /// `images` do not show since when it crashes.
    older_dumps_hidden: bool,
    /// Capture time of the newest dump.
    #[cfg_attr(feature = "schema", schemars(with = "Time"))]
    last: Timestamp,
    /// Id of the newest dump.
    latest: DumpId,
    /// The frame that identifies the crash, if a backtrace was read.
    top_frame: Option<&'g str>,
    /// Workloads, as `namespace/pod` or `namespace/owner-*`.
    workloads: &'g BTreeSet<String>,
    /// The same with times and counts, in the order of their first crash.
    affected: &'g [GroupWorkload],
    /// Images in the order of their first crash, if manifests were read.
    images: &'g [GroupImage],
}

/// Columns of CSV: every key of [`ListedGroup`].
const COLUMNS: [&str; 18] = [
    "fingerprint",
    "exe",
    "signal",
    "count",
    "incomplete",
    "bytes",
    "first",
    "first_from",
    "new",
    "oldest_selected",
    "older_dumps_hidden",
    "last",
    "latest",
    "top_frame",
    "workloads",
    "affected",
    "images",
    "filter",
];

impl<'g> ListedGroup<'g> {
    /// `filter` are the terms that selected the dumps, empty for all of them.
    fn of(groups: &'g [Group], filter: &'g str) -> Vec<Self> {
        let filter = Some(filter).filter(|filter| !filter.is_empty());
        let row = |group: &'g Group| Self {
            filter,
            fingerprint: group.fingerprint.as_deref(),
            exe: &group.exe,
            signal: &group.signal,
            count: group.count,
            incomplete: group.incomplete,
            bytes: group.bytes,
            first: group.first,
            first_from: group.first_from,
            new: group.is_new,
            oldest_selected: group.oldest,
            older_dumps_hidden: filter.is_some() && group.hides_older(),
            last: group.last,
            latest: group.newest.id,
            top_frame: group.top.as_deref(),
            workloads: &group.workloads,
            affected: &group.affected,
            images: &group.images,
        };
        groups.iter().map(row).collect()
    }
}

/// One JSON array; `filter` are the terms that selected the dumps, empty for all of them.
///
/// # Errors
/// Never in practice: the parts are plain text and numbers.
pub fn groups_json(groups: &[Group], filter: &str) -> Result<String> {
    super::json_text(&ListedGroup::of(groups, filter))
}

/// One JSON object per line.
///
/// # Errors
/// As [`groups_json`].
pub fn groups_jsonl(groups: &[Group], filter: &str) -> Result<String> {
    super::escape::json_lines(&ListedGroup::of(groups, filter))
}

/// Comma-separated values with a header line; columns and values are those of JSON.
///
/// # Errors
/// As [`groups_json`].
pub fn groups_csv(groups: &[Group], filter: &str) -> Result<String> {
    csv_text(&COLUMNS, &ListedGroup::of(groups, filter))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::render::DumpFacts;
    use crate::tui::tests::dump;

    fn groups() -> (Vec<Group>, GroupsView) {
        let dumps: Vec<_> = (0..6).map(dump).collect();
        let mut groups = Group::of(dumps.iter(), |_| DumpFacts::default());
        let view = GroupsView {
            now: dumps[0].captured_at + jiff::SignedDuration::from_hours(1),
            style: Style::Plain,
            width: None,
        };
        for group in &mut groups {
            group.first_from = FirstFrom::Store;
            group.top = Some("charge_card checkout.c:88".to_owned());
            group.images = vec![GroupImage {
                reference: format!("registry.example/shop/checkout@sha256:{}", "1f".repeat(32)),
                release: Some("1.4.2".to_owned()),
                first: group.first,
                last: group.last,
                count: group.count,
            }];
        }
        (groups, view)
    }

    #[test]
    fn csv_of_groups_has_every_key_of_json_as_a_column() {
        let dumps = [crate::tui::tests::dump(1)];
        let groups = Group::of(dumps.iter(), |_| DumpFacts::default());
        let row = serde_json::to_value(&ListedGroup::of(&groups, "")[0]).unwrap();
        let mut columns = COLUMNS.to_vec();
        columns.sort_unstable();
        let keys: Vec<&String> = row.as_object().unwrap().keys().collect();
        assert_eq!(columns, keys);
    }

    #[test]
    fn groups_text_marks_new_crashes_and_names_releases() {
        let (mut groups, view) = groups();
        groups[0].is_new = true;
        groups[1].first_from = FirstFrom::LookBack;
        (groups[2].first_from, groups[2].fingerprint) = (FirstFrom::Selection, None);
        let text = groups_text(&groups, &view);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].contains(" NEW ") && !lines[2].contains("NEW"),
            "{text}"
        );
        assert!(lines[2].contains(" >"), "{text}");
        let cells: Vec<&str> = lines[3].split_whitespace().collect();
        assert_eq!((cells[2], cells[5]), ("-", "-"), "{text}");
        assert!(lines[1].contains("charge_card checkout.c:88"), "{text}");
        assert!(lines[1].contains("checkout:1.4.2 (since "), "{text}");
    }

    #[test]
    fn groups_text_fits_the_terminal() {
        let (groups, mut view) = groups();
        for width in [80, 100, 120] {
            view.width = Some(width);
            let text = groups_text(&groups, &view);
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(width), "{text}");
            assert!(text.contains("FINGERPRINT  LATEST"), "{text}");
        }
        view.width = None;
        assert!(!groups_text(&groups, &view).contains('…'));
    }

    #[test]
    fn group_text_lists_images_and_workloads_with_their_times() {
        let (groups, view) = groups();
        let text = group_text(&groups[0], &view);
        for part in [
            "first seen",
            "IMAGE ",
            "REFERENCE",
            "checkout:1.4.2",
            "WORKLOAD ",
            "COUNT",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let json: serde_json::Value =
            serde_json::from_str(&groups_json(&groups, "").unwrap()).unwrap();
        assert_eq!(json[0]["images"][0]["release"], "1.4.2");
        assert_eq!(json[0]["affected"][0]["count"], 1);
        assert_eq!(json[0]["first_from"], "store");
        assert_eq!(
            (&json[0]["filter"], &json[0]["older_dumps_hidden"]),
            (&Value::Null, &false.into())
        );
    }

    #[test]
    fn images_claim_no_first_time_where_a_filter_hides_older_dumps() {
        let (mut groups, view) = groups();
        assert!(!group_text(&groups[0], &view).contains("  note "));
        groups[0].first -= jiff::SignedDuration::from_hours(100);
        let text = groups_text(&groups, &view);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("checkout:1.4.2 (1×)"), "{text}");
        assert!(lines[2].contains("checkout:1.4.2 (since "), "{text}");
        assert!(group_text(&groups[0], &view).contains("  note "));
        let json = groups_json(&groups, "since:1d").unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        let hidden = |group: &Value| group["older_dumps_hidden"].clone();
        assert_eq!(
            (hidden(&json[0]), hidden(&json[1])),
            (true.into(), false.into())
        );
        assert_eq!(json[0]["filter"], "since:1d");
        assert!(json[0]["first"].as_str() < json[0]["oldest_selected"].as_str());
    }
}
