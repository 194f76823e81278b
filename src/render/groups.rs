//! The same crash as one line: how often, since when, where.

use std::collections::{BTreeSet, HashMap, HashSet};

use anyhow::Result;
use cdh_bundle::{ImageRef, WorkloadOwner};
use cdh_store::DumpSummary;
use jiff::Timestamp;
use serde::Serialize;

use super::list::{age, finish};
use super::table::aligned;
use super::{Style, terminal_line};

/// Parts that the time from the first to the last of all crashes is cut into.
pub const TIMES: usize = 24;

/// Dumps with the same fingerprint, or, where there is none, of the same program and signal.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// When the store first received this crash, even if the filter hides that dump.
    pub first: Timestamp,
    /// Whether the crash first appeared within the time that counts as new.
    pub is_new: bool,
    /// When the newest was captured.
    pub last: Timestamp,
    /// How many in each part of the time of all groups together.
    pub over_time: [u32; TIMES],
    /// The newest.
    pub newest: DumpSummary,
    /// `namespace/pod`s, the pods of one deployment as one: `shop/api-*`.
    pub workloads: BTreeSet<String>,
    /// Images, where manifests were read: the one that crashed first comes first.
    pub images: Vec<GroupImage>,
    /// The frame that the crash is known by, where a backtrace was read.
    pub top: Option<String>,
}

/// One image of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupImage {
    /// `repository@sha256:…`.
    pub reference: String,
    /// Tag or version label.
    pub release: Option<String>,
    /// First dump of this group from it.
    pub first: Timestamp,
    /// Last dump of this group from it.
    pub last: Timestamp,
    /// How many dumps of this group are from it.
    pub count: usize,
}

/// What is known of a dump beyond its key, for grouping.
#[derive(Clone, Copy, Debug, Default)]
pub struct DumpFacts<'f> {
    /// Its image.
    pub image: Option<&'f ImageRef>,
    /// The object that its pod belongs to.
    pub owner: Option<&'f WorkloadOwner>,
    /// The frame that the crash is known by.
    pub top: Option<&'f str>,
}

impl Group {
    fn new(dump: &DumpSummary) -> Self {
        Self {
            fingerprint: dump.fingerprint.clone(),
            exe: dump.exe.to_string(),
            signal: dump.signal.clone(),
            count: 0,
            incomplete: 0,
            first: dump.captured_at,
            last: dump.captured_at,
            over_time: [0; TIMES],
            is_new: false,
            newest: dump.clone(),
            workloads: BTreeSet::new(),
            images: Vec::new(),
            top: None,
        }
    }

    /// All groups, the most frequent first. `facts` returns what is known of a dump beyond its key.
    #[must_use]
    pub fn of<'d, 'f>(
        dumps: impl Iterator<Item = &'d DumpSummary> + Clone,
        facts: impl Fn(&DumpSummary) -> DumpFacts<'f>,
    ) -> Vec<Self> {
        let seconds = |dump: &DumpSummary| dump.captured_at.as_second();
        let (start, end) = dumps
            .clone()
            .map(seconds)
            .fold((i64::MAX, i64::MIN), |(start, end), time| {
                (start.min(time), end.max(time))
            });
        let span = end.saturating_sub(start).max(1).saturating_add(1);
        let part = |dump: &DumpSummary| {
            let passed = seconds(dump).saturating_sub(start);
            let part = passed.saturating_mul(TIMES as i64) / span;
            usize::try_from(part).unwrap_or_default().min(TIMES - 1)
        };
        let mut places: HashMap<(Option<&str>, &[u8], &str), usize> = HashMap::new();
        let mut groups: Vec<(Self, &DumpSummary)> = Vec::new();
        // Names are put together once for each group, not for each of a hundred thousand dumps.
        let mut named: HashSet<(usize, Option<&str>, Option<&str>)> = HashSet::new();
        for dump in dumps {
            let key = (
                dump.fingerprint.as_deref(),
                dump.exe.as_bytes(),
                dump.signal.as_str(),
            );
            let next = groups.len();
            let place = *places.entry(key).or_insert(next);
            if place == next {
                groups.push((Self::new(dump), dump));
            }
            let Some((group, newest)) = groups.get_mut(place) else {
                continue;
            };
            group.count += 1;
            group.incomplete += usize::from(matches!(dump.verdict.as_str(), "truncated" | "empty"));
            group.first = group.first.min(dump.captured_at);
            if dump.captured_at > group.last {
                (group.last, *newest) = (dump.captured_at, dump);
            }
            if let Some(count) = group.over_time.get_mut(part(dump)) {
                *count = count.saturating_add(1);
            }
            let facts = facts(dump);
            let known = facts.owner.map(|owner| owner.name.as_str());
            let pod = dump.pod.as_deref();
            let owner = known.or_else(|| pod.map(|pod| pod_owner(pod).unwrap_or(pod)));
            if named.insert((place, dump.namespace.as_deref(), owner)) {
                group.workloads.extend(workload(dump, known));
            }
            if let Some(image) = facts.image {
                group.add_image(image, dump.captured_at);
            }
            if group.top.is_none() {
                group.top = facts.top.map(str::to_owned);
            }
        }
        let mut groups: Vec<Self> = groups
            .into_iter()
            .map(|(mut group, newest)| {
                group.images.sort_by_key(|image| image.first);
                Self {
                    newest: newest.clone(),
                    ..group
                }
            })
            .collect();
        groups.sort_by(|a, b| {
            let most = (b.count, b.last).cmp(&(a.count, a.last));
            most.then_with(|| a.crash().cmp(&b.crash()))
        });
        groups
    }

    fn add_image(&mut self, image: &ImageRef, time: Timestamp) {
        let known = self.images.iter_mut();
        match known
            .into_iter()
            .find(|known| known.reference == image.reference)
        {
            Some(known) => {
                known.first = known.first.min(time);
                known.last = known.last.max(time);
                known.count += 1;
            }
            None => self.images.push(GroupImage {
                reference: image.reference.clone(),
                release: image.release().map(str::to_owned),
                first: time,
                last: time,
                count: 1,
            }),
        }
    }

    /// What its dumps have in common.
    #[must_use]
    pub fn crash(&self) -> (Option<&str>, &str, &str) {
        (self.fingerprint.as_deref(), &self.exe, &self.signal)
    }
}

/// `shop/api-*` of a pod `api-7d4b9c6f5d-x2x9k`: the pods of one owner are one workload.
fn workload(dump: &DumpSummary, owner: Option<&str>) -> Option<String> {
    let pod = dump
        .pod
        .as_deref()
        .map(|pod| match owner.or_else(|| pod_owner(pod)) {
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
    let some = |names: Vec<&str>| {
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
            group.newest.id.short(),
            some(group.workloads.iter().map(String::as_str).collect()),
            some(
                group
                    .images
                    .iter()
                    .map(|image| image.reference.as_str())
                    .collect(),
            ),
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
    #[derive(Serialize)]
    struct Json<'g> {
        fingerprint: Option<&'g str>,
        exe: &'g str,
        signal: &'g str,
        count: usize,
        incomplete: usize,
        first: Timestamp,
        last: Timestamp,
        /// Id of the newest.
        latest: String,
        workloads: &'g BTreeSet<String>,
        images: &'g [GroupImage],
    }
    let groups = groups.iter().map(|group| Json {
        fingerprint: group.fingerprint.as_deref(),
        exe: &group.exe,
        signal: &group.signal,
        count: group.count,
        incomplete: group.incomplete,
        first: group.first,
        last: group.last,
        latest: group.newest.id.to_string(),
        workloads: &group.workloads,
        images: &group.images,
    });
    Ok(serde_json::to_string_pretty(&groups.collect::<Vec<_>>())? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::tests::dump;

    #[test]
    fn equal_crashes_are_one_group_with_its_times_and_workloads() {
        let mut dumps: Vec<DumpSummary> = (0..40).map(dump).collect();
        for (number, dump) in dumps.iter_mut().enumerate() {
            let random = ["x2x9k", "b8cfz"][number % 2];
            dump.pod = Some(format!("{}-7d4b9c6f5d-{random}", dump.exe));
        }
        let image = ImageRef::by_digest("an image");
        let facts = |dump: &DumpSummary| DumpFacts {
            image: (dump.id == dumps[0].id).then_some(&image),
            ..DumpFacts::default()
        };
        let groups = Group::of(dumps.iter(), facts);
        assert_eq!(groups.iter().map(|group| group.count).sum::<usize>(), 40);
        for group in &groups {
            assert_eq!(group.over_time.iter().sum::<u32>() as usize, group.count);
            assert!(group.first <= group.last && group.newest.captured_at == group.last);
            let workload = group.workloads.first().unwrap();
            assert!(workload.ends_with(&format!("/{}-*", group.exe)));
            assert_eq!(group.workloads.len(), 1, "{:?}", group.workloads);
        }
        assert!(groups.windows(2).all(|pair| pair[0].count >= pair[1].count));
        let images = groups.iter().flat_map(|group| &group.images);
        let images: Vec<&str> = images.map(|image| image.reference.as_str()).collect();
        assert_eq!(images, ["an image"]);
        assert!(Group::of([].into_iter(), |_| DumpFacts::default()).is_empty());
    }

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
