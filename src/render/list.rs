//! Prints listings of dumps: a table, JSON, JSON lines, CSV, bare ids.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
#[cfg(feature = "schema")]
use cdh_bundle::schema::Time;
use cdh_bundle::{DumpId, Manifest, WorkloadOwner};
use cdh_store::DumpSummary;
use jiff::Timestamp;
use serde::Serialize;

use super::csv::csv_text;
use super::table::{Fit, aligned_within};
use super::{Style, Tone, bytes};

/// A dump in a listing. Absent facts are `null`.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListedDump<'a> {
    /// Its id.
    id: DumpId,
    /// When the process crashed, to the second.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Time>"))]
    captured_at: Option<Timestamp>,
    /// Kubernetes namespace. `…` marks where the object's name was shortened.
    namespace: Option<&'a str>,
    /// Pod, or the container outside Kubernetes; likewise.
    pod: Option<&'a str>,
    /// Program; likewise.
    exe: String,
    /// Signal, such as `SIGSEGV`.
    signal: &'a str,
    /// `complete`, `truncated` or `empty`; `unknown` for a zip of IBM's core-dump-handler.
    verdict: &'a str,
    /// First eight digits of the fingerprint.
    fingerprint: Option<&'a str>,
    /// Bytes of the bundle.
    size: Option<u64>,
    /// Whether IBM's core-dump-handler wrote it.
    legacy: bool,
    /// Key of the bundle in the store.
    key: String,
    #[serde(flatten)]
    facts: ManifestFacts<'a>,
}

/// Facts that only manifests hold; all `null` if the manifest was not read.
#[derive(Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ManifestFacts<'a> {
    /// Container in the pod.
    container: Option<&'a str>,
    /// The Kubernetes object that the pod belongs to.
    owner: Option<&'a WorkloadOwner>,
    /// Labels of the pod.
    labels: Option<&'a BTreeMap<String, String>>,
    /// Node.
    node: Option<String>,
    /// Image, as `repository@sha256:…`.
    image: Option<&'a str>,
    /// Tag or version label of the image.
    release: Option<&'a str>,
}

/// Columns of CSV: every key of [`ListedDump`].
const COLUMNS: [&str; 17] = [
    "id",
    "captured_at",
    "namespace",
    "pod",
    "exe",
    "signal",
    "verdict",
    "fingerprint",
    "size",
    "legacy",
    "key",
    "container",
    "owner",
    "labels",
    "node",
    "image",
    "release",
];

impl<'a> ManifestFacts<'a> {
    fn of(manifest: &'a Manifest) -> Self {
        let workload = manifest.workload.as_ref();
        let image = manifest.image.as_ref();
        Self {
            container: workload.and_then(|workload| workload.container.as_deref()),
            owner: workload.and_then(|workload| workload.owner.as_ref()),
            labels: workload.map(|workload| &workload.labels),
            node: Some(manifest.node_name()).filter(|node| !node.is_empty()),
            image: image.map(|image| image.reference.as_str()),
            release: image.and_then(|image| image.release()),
        }
    }
}

impl<'a> ListedDump<'a> {
    fn new(dump: &'a DumpSummary, manifest: Option<&'a Manifest>) -> Self {
        Self {
            id: dump.id,
            captured_at: dump.captured(),
            namespace: dump.namespace.as_deref(),
            pod: dump.pod.as_deref(),
            exe: dump.exe.to_string(),
            signal: &dump.signal,
            verdict: &dump.verdict,
            fingerprint: dump.fingerprint.as_deref(),
            size: dump.size,
            legacy: dump.legacy,
            key: dump.key.to_string(),
            facts: manifest.map(ManifestFacts::of).unwrap_or_default(),
        }
    }
}

/// How a listing is shown to people.
#[derive(Clone, Copy, Debug)]
pub struct ListView {
    /// The time that ages are relative to.
    pub now: Timestamp,
    /// How it is styled.
    pub style: Style,
    /// Whether to print full ids, exact times and fingerprints.
    pub is_wide: bool,
    /// Columns of the terminal; `None` to print every cell in full.
    pub width: Option<usize>,
}

/// Columns that are shortened to fit a terminal: names of workloads and programs. Ids are typed, so they are
/// never shortened.
const CUT_COLUMNS: [usize; 3] = [2, 3, 4];

/// Columns for people.
#[must_use]
pub fn list_table(dumps: &[DumpSummary], view: &ListView) -> String {
    let ListView {
        now, is_wide: wide, ..
    } = *view;
    let narrow = [
        "ID",
        "AGE",
        "NAMESPACE",
        "POD",
        "EXE",
        "SIGNAL",
        "VERDICT",
        "SIZE",
    ];
    let full = [
        "ID",
        "CAPTURED",
        "NAMESPACE",
        "POD",
        "EXE",
        "SIGNAL",
        "VERDICT",
        "SIZE",
        "FINGERPRINT",
    ];
    let absent = || "-".to_owned();
    let row = |dump: &DumpSummary| {
        let mut cells = vec![
            if wide {
                dump.id.to_string()
            } else {
                dump.id.short()
            },
            match dump.captured() {
                None => absent(),
                Some(time) if wide => time.to_string(),
                Some(time) => age(time, now),
            },
            dump.namespace.clone().unwrap_or_else(absent),
            dump.pod.clone().unwrap_or_else(absent),
            dump.exe.to_string(),
            dump.signal.clone(),
            dump.verdict.clone(),
            dump.size.map_or_else(absent, bytes),
        ];
        if wide {
            cells.push(dump.fingerprint.clone().unwrap_or_else(absent));
        }
        cells
    };
    let rows: Vec<_> = dumps.iter().map(row).collect();
    let header: &[&str] = if wide { &full } else { &narrow };
    let bad = |index: usize| {
        dumps
            .get(index)
            .is_some_and(|dump| dump.verdict != "complete")
    };
    let fit = view.width.map(|width| Fit {
        width,
        columns: &CUT_COLUMNS,
    });
    finish(aligned_within(header, &rows, fit), view.style, bad)
}

pub(super) fn finish(lines: Vec<String>, style: Style, bad: impl Fn(usize) -> bool) -> String {
    let mut text = String::new();
    for (number, line) in lines.into_iter().enumerate() {
        let painted = match number.checked_sub(1) {
            None => style.paint(Tone::Strong, line),
            Some(index) if bad(index) => style.paint(Tone::Bad, line),
            Some(_) => line,
        };
        text.push_str(&painted);
        text.push('\n');
    }
    text
}

/// `12s`, `5m`, `3h`, `9d`: how long ago, in one unit.
#[must_use]
pub fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second());
    match seconds {
        ..0 => "future".to_owned(),
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Manifests of listed dumps, as far as they were read.
pub type Manifests = HashMap<DumpId, Manifest>;

/// One JSON array.
///
/// # Errors
/// Never in practice: the rows are plain text and numbers.
pub fn list_json(dumps: &[DumpSummary], manifests: &Manifests) -> Result<String> {
    let row = |dump| ListedDump::new(dump, manifests.get(&dump.id));
    let rows: Vec<_> = dumps.iter().map(row).collect();
    super::json_text(&rows)
}

/// One JSON object per line.
///
/// # Errors
/// Never in practice: the rows are plain text and numbers.
pub fn list_jsonl(dumps: &[DumpSummary], manifests: &Manifests) -> Result<String> {
    let row = |dump| ListedDump::new(dump, manifests.get(&dump.id));
    super::escape::json_lines(&dumps.iter().map(row).collect::<Vec<_>>())
}

/// Comma-separated values with a header line; columns and values are those of JSON.
///
/// # Errors
/// Never in practice: the rows are plain text and numbers.
pub fn list_csv(dumps: &[DumpSummary], manifests: &Manifests) -> Result<String> {
    let row = |dump| ListedDump::new(dump, manifests.get(&dump.id));
    let rows: Vec<_> = dumps.iter().map(row).collect();
    csv_text(&COLUMNS, &rows)
}

/// Ids only, one per line.
#[must_use]
pub fn list_ids(dumps: &[DumpSummary]) -> String {
    dumps.iter().map(|dump| format!("{}\n", dump.id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_has_every_key_of_json_as_a_column() {
        let dump = crate::tui::tests::dump(1);
        let row = serde_json::to_value(ListedDump::new(&dump, None)).unwrap();
        let mut columns = COLUMNS.to_vec();
        columns.sort_unstable();
        let keys: Vec<&String> = row.as_object().unwrap().keys().collect();
        assert_eq!(columns, keys);
    }

    #[test]
    fn listing_fits_the_terminal_and_is_complete_without_one() {
        let mut long = crate::tui::tests::dump(1);
        let pod = "checkout-service-".repeat(8);
        long.namespace = Some("a-legal-namespace-of-63-characters-".to_owned());
        long.pod = Some(pod.clone());
        // Two columns each.
        long.exe = "\u{540d}\u{524d}".repeat(30).into();
        let mut view = ListView {
            now: long.captured_at,
            style: Style::Plain,
            is_wide: false,
            width: None,
        };
        assert!(list_table(std::slice::from_ref(&long), &view).contains(&pod));
        for width in [200, 120, 80, 60, 20] {
            for is_wide in [false, true] {
                view = ListView {
                    is_wide,
                    width: Some(width),
                    ..view
                };
                let table = list_table(std::slice::from_ref(&long), &view);
                let widths = table.lines().map(unicode_width::UnicodeWidthStr::width);
                assert!(widths.max().unwrap() <= width, "{width}:\n{table}");
                assert!(table.contains('\u{2026}'), "{table}");
                if width >= 80 && !is_wide {
                    assert!(
                        table.contains(&long.id.short()) && table.contains("SIGSEGV"),
                        "{table}"
                    );
                }
            }
        }
    }

    #[test]
    fn ages_have_one_unit() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let table = [
            (5, "5s"),
            (300, "5m"),
            (10_800, "3h"),
            (864_000, "10d"),
            (-9, "future"),
        ];
        for (seconds, text) in table {
            assert_eq!(
                age(Timestamp::from_second(1_000_000 - seconds).unwrap(), now),
                text
            );
        }
    }

    #[test]
    fn json_listing_has_owner_labels_node_and_image_of_manifests() {
        let dump = crate::tui::tests::dump(1);
        let json = serde_json::json!({
            "schema": 1, "id": dump.id, "stem": "s", "captured_at": "2026-01-01T00:00:00Z",
            "process": {"pid": 7}, "signal": {"number": 11}, "verdict": {"state": "complete"},
            "node": "vm", "image": {"reference": "quay.io/shop/api@sha256:00ff", "name": "quay.io/shop/api:1.4.2"},
            "workload": {
                "pod": "api-7d4b9c6f5d-x2x9k", "container": "main", "node": "node1",
                "owner": {"kind": "Deployment", "name": "api"}, "labels": {"app": "api"},
            },
        });
        let manifest: Manifest = serde_json::from_value(json).unwrap();
        let manifests = Manifests::from([(dump.id, manifest)]);
        let dumps = [dump];
        let array: Vec<serde_json::Value> =
            serde_json::from_str(&list_json(&dumps, &manifests).unwrap()).unwrap();
        let line: serde_json::Value =
            serde_json::from_str(&list_jsonl(&dumps, &manifests).unwrap()).unwrap();
        assert_eq!(array, std::slice::from_ref(&line));
        assert_eq!(line["owner"]["kind"], "Deployment");
        assert_eq!(line["labels"]["app"], "api");
        assert_eq!(
            (&line["container"], &line["node"]),
            (&"main".into(), &"node1".into())
        );
        assert_eq!(line["release"], "1.4.2");
        let without: serde_json::Value =
            serde_json::from_str(&list_jsonl(&dumps, &Manifests::new()).unwrap()).unwrap();
        assert!(without["owner"].is_null() && without["labels"].is_null());
    }
}
