//! The same crash as one line: how often, since when, where.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use cdh_bundle::Manifest;
use cdh_store::DumpSummary;
use jiff::Timestamp;
use serde::Serialize;

use super::list::{age, finish};
use super::table::aligned;
use super::{Style, terminal_line};

/// Dumps with the same fingerprint, or, where there is none, of the same program and signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// First eight digits; absent where no fingerprint could be made.
    pub fingerprint: Option<String>,
    /// Program.
    pub exe: String,
    /// `SIGSEGV`.
    pub signal: String,
    /// How many dumps.
    pub count: usize,
    /// How many of them are not complete.
    pub incomplete: usize,
    /// The oldest.
    pub first: Timestamp,
    /// The newest.
    pub last: Timestamp,
    /// Id of the newest.
    pub latest: String,
    /// `namespace/pod`s, the pods of one deployment as one: `shop/api-*`.
    pub workloads: BTreeSet<String>,
    /// References of images, where manifests were read.
    pub images: BTreeSet<String>,
}

impl Group {
    /// All groups, the most frequent first. `manifests` belong to `dumps`, or are none.
    #[must_use]
    pub fn of(dumps: &[DumpSummary], manifests: &[Option<Manifest>]) -> Vec<Self> {
        let mut groups: BTreeMap<(Option<String>, String, String), Self> = BTreeMap::new();
        for (index, dump) in dumps.iter().enumerate() {
            let key = (
                dump.fingerprint.clone(),
                dump.exe.to_string(),
                dump.signal.clone(),
            );
            let group = groups.entry(key).or_insert_with(|| Self {
                fingerprint: dump.fingerprint.clone(),
                exe: dump.exe.to_string(),
                signal: dump.signal.clone(),
                count: 0,
                incomplete: 0,
                first: dump.captured_at,
                last: dump.captured_at,
                latest: dump.id.to_string(),
                workloads: BTreeSet::new(),
                images: BTreeSet::new(),
            });
            group.count += 1;
            group.incomplete += usize::from(matches!(dump.verdict.as_str(), "truncated" | "empty"));
            group.first = group.first.min(dump.captured_at);
            if dump.captured_at > group.last {
                group.last = dump.captured_at;
                group.latest = dump.id.to_string();
            }
            group.workloads.extend(workload(dump));
            let manifest = manifests.get(index).and_then(Option::as_ref);
            let image = manifest.and_then(|manifest| manifest.image.as_ref());
            group
                .images
                .extend(image.map(|image| image.reference.clone()));
        }
        let mut groups: Vec<Self> = groups.into_values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse((group.count, group.last)));
        groups
    }
}

fn workload(dump: &DumpSummary) -> Option<String> {
    // The pods of one owner are one workload.
    let pod = dump.pod.as_deref().map(|pod| match pod_owner(pod) {
        Some(owner) => format!("{owner}-*"),
        None => pod.to_owned(),
    });
    match (dump.namespace.as_deref(), pod) {
        (Some(namespace), Some(pod)) => Some(format!("{namespace}/{pod}")),
        (Some(namespace), None) => Some(namespace.to_owned()),
        (None, pod) => pod,
    }
}

/// The name of a pod without what Kubernetes made up, where it made up anything: `api` of
/// `api-7d4b9c6f5d-x2x9k`, `db` of `db-0`.
#[must_use]
pub fn pod_owner(pod: &str) -> Option<&str> {
    let made_up = |part: &str, lengths: std::ops::RangeInclusive<usize>| {
        // The letters of `k8s.io/apimachinery/pkg/util/rand`.
        lengths.contains(&part.len())
            && part
                .bytes()
                .all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b))
    };
    let (rest, last) = pod.rsplit_once('-')?;
    if !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()) {
        return Some(rest);
    }
    if !made_up(last, 5..=5) {
        return None;
    }
    match rest.rsplit_once('-') {
        Some((name, hash)) if made_up(hash, 6..=10) => Some(name),
        _ => Some(rest),
    }
}

/// For people.
#[must_use]
pub fn groups_text(groups: &[Group], now: Timestamp, style: Style) -> String {
    let some = |names: &BTreeSet<String>| {
        let mut shown: Vec<String> = names
            .iter()
            .take(2)
            .map(|name| terminal_line(name))
            .collect();
        if names.len() > 2 {
            shown.push(format!("+{}", names.len() - 2));
        }
        if shown.is_empty() {
            "-".to_owned()
        } else {
            shown.join(" ")
        }
    };
    let row = |group: &Group| {
        vec![
            group.count.to_string(),
            age(group.last, now),
            age(group.first, now),
            group.exe.clone(),
            group.signal.clone(),
            group.fingerprint.clone().unwrap_or_else(|| "-".to_owned()),
            group.latest.get(..8).unwrap_or(&group.latest).to_owned(),
            some(&group.workloads),
            some(&group.images),
        ]
    };
    let rows: Vec<_> = groups.iter().map(row).collect();
    let header = [
        "COUNT",
        "LAST",
        "FIRST",
        "EXE",
        "SIGNAL",
        "FINGERPRINT",
        "LATEST",
        "WORKLOADS",
        "IMAGES",
    ];
    finish(aligned(&header, &rows), style, |_| false)
}

/// One JSON array.
///
/// # Errors
/// Never in practice: the parts are plain text and numbers.
pub fn groups_json(groups: &[Group]) -> Result<String> {
    Ok(serde_json::to_string_pretty(groups)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_one_owner_are_one_workload() {
        let table = [
            ("api-7d4b9c6f5d-x2x9k", Some("api")),
            ("big-api-7d4b9c6f5d-x2x9k", Some("big-api")),
            ("db-0", Some("db")),
            ("agent-x2x9k", Some("agent")),
            ("node-agent-x2x9z", Some("node-agent")),
            ("plain", None),
            ("web-server", None),
        ];
        for (pod, expected) in table {
            assert_eq!(pod_owner(pod), expected);
        }
    }
}
