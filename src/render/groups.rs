//! Groups dumps of the same crash: how often, since when, where.

use std::collections::{BTreeSet, HashMap, HashSet};

#[cfg(feature = "schema")]
use cdh_bundle::schema::Time;
use cdh_bundle::{DumpId, ImageRef, WorkloadOwner};
use cdh_store::{DumpSummary, FirstSeen, Reach};
use jiff::Timestamp;
use serde::Serialize;

use super::workload::pod_owner;

/// Number of parts of the time from the first to the last of all crashes.
pub const TIMES: usize = 24;

/// Dumps with the same fingerprint, program and signal. A dump without a fingerprint is a group of its own:
/// program and signal do not identify a bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// First eight digits; absent if no fingerprint could be computed.
    pub fingerprint: Option<String>,
    /// Program.
    pub exe: String,
    /// `SIGSEGV`.
    pub signal: String,
    /// How many dumps.
    pub count: usize,
    /// How many of them are not complete.
    pub incomplete: usize,
    /// Bytes of their bundles, if the listing has them.
    pub bytes: u64,
    /// When the store first received this crash, even if the filter hides that dump.
    pub first: Timestamp,
    /// Capture time of the oldest grouped dump. Times of images and workloads begin there.
    pub oldest: Timestamp,
    /// The source of `first`.
    pub first_from: FirstFrom,
    /// Whether the crash first appeared within the time that counts as new.
    pub is_new: bool,
    /// When the newest was captured.
    pub last: Timestamp,
    /// Number of dumps in each part of the time of all groups.
    pub over_time: [u32; TIMES],
    /// The newest.
    pub newest: DumpSummary,
    /// `namespace/pod`s; pods of one deployment are merged: `shop/api-*`.
    pub workloads: BTreeSet<String>,
    /// The same with times and counts, in the order of their first crash.
    pub affected: Vec<GroupWorkload>,
    /// Images in the order of their first crash, if manifests were read.
    pub images: Vec<GroupImage>,
    /// The frame that identifies the crash, if a backtrace was read.
    pub top: Option<String>,
}

/// The source of a group's first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FirstFrom {
    /// The grouped dumps: the crash may be older.
    #[default]
    Selection,
    /// The whole store.
    Store,
    /// The searched part of the store: the crash may be older.
    LookBack,
}

/// One workload of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GroupWorkload {
    /// `namespace/pod`, or `namespace/owner-*`.
    pub name: String,
    /// The object that its pods belong to, if manifests name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<WorkloadOwner>,
    /// First dump of this group from it.
    #[cfg_attr(feature = "schema", schemars(with = "Time"))]
    pub first: Timestamp,
    /// Last dump of this group from it.
    #[cfg_attr(feature = "schema", schemars(with = "Time"))]
    pub last: Timestamp,
    /// Number of dumps of this group from it.
    pub count: usize,
    /// Number of different pods, or of containers outside Kubernetes.
    pub pods: usize,
}

impl GroupWorkload {
    /// Its name, with the number of its pods if there are several: `shop/api-* (3 pods)`.
    #[must_use]
    pub fn shown(&self) -> String {
        match self.pods {
            0 | 1 => self.name.clone(),
            pods => format!("{} ({pods} pods)", self.name),
        }
    }
}

/// One image of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GroupImage {
    /// `repository@sha256:…`.
    pub reference: String,
    /// Tag or version label.
    pub release: Option<String>,
    /// First dump of this group from it.
    #[cfg_attr(feature = "schema", schemars(with = "Time"))]
    pub first: Timestamp,
    /// Last dump of this group from it.
    #[cfg_attr(feature = "schema", schemars(with = "Time"))]
    pub last: Timestamp,
    /// Number of dumps of this group from it.
    pub count: usize,
}

/// Fingerprint, or id of a dump without one; program and signal: dumps with equal values are one
/// crash.
type GroupedCrash<'d> = (Result<&'d str, DumpId>, &'d [u8], &'d str);
/// Number of a group, namespace, kind and name of the owner: workloads with equal values are one.
type GroupedWorkload<'d> = (usize, Option<&'d str>, Option<&'d str>, Option<&'d str>);

/// Facts of a dump that its key does not hold, for grouping.
#[derive(Clone, Copy, Debug, Default)]
pub struct DumpFacts<'f> {
    /// Its image.
    pub image: Option<&'f ImageRef>,
    /// The object that its pod belongs to.
    pub owner: Option<&'f WorkloadOwner>,
    /// The frame that identifies the crash.
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
            bytes: 0,
            first: dump.captured_at,
            last: dump.captured_at,
            over_time: [0; TIMES],
            oldest: dump.captured_at,
            first_from: FirstFrom::Selection,
            is_new: false,
            newest: dump.clone(),
            workloads: BTreeSet::new(),
            affected: Vec::new(),
            images: Vec::new(),
            top: None,
        }
    }

    /// All groups, the most frequent first. `facts` returns the facts of a dump that its key does
    /// not hold.
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
        let mut places: HashMap<GroupedCrash<'_>, usize> = HashMap::new();
        let mut groups: Vec<(Self, &DumpSummary)> = Vec::new();
        // Names are built once per group, not once for each of a hundred thousand dumps.
        let mut named: HashMap<GroupedWorkload<'_>, usize> = HashMap::new();
        let mut pods: HashSet<(usize, usize, &str)> = HashSet::new();
        for dump in dumps {
            let fingerprint = dump.fingerprint.as_deref();
            let key = (
                fingerprint.ok_or(dump.id),
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
            group.bytes = group.bytes.saturating_add(dump.size.unwrap_or(0));
            group.first = group.first.min(dump.captured_at);
            group.oldest = group.first;
            if dump.captured_at > group.last {
                (group.last, *newest) = (dump.captured_at, dump);
            }
            if let Some(count) = group.over_time.get_mut(part(dump)) {
                *count = count.saturating_add(1);
            }
            let facts = facts(dump);
            let kind = facts.owner.map(|owner| owner.kind.as_str());
            let known = facts.owner.map(|owner| owner.name.as_str());
            let pod = dump.pod.as_deref();
            let owner = known.or_else(|| pod.map(|pod| pod_owner(pod).unwrap_or(pod)));
            let next = group.affected.len();
            let number = *named
                .entry((place, dump.namespace.as_deref(), kind, owner))
                .or_insert(next);
            group.add_workload(number, dump, facts.owner);
            if let (Some(pod), Some(workload)) = (pod, group.affected.get_mut(number)) {
                workload.pods += usize::from(pods.insert((place, number, pod)));
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
                group.affected.retain(|workload| !workload.name.is_empty());
                group.affected.sort_by_key(|workload| workload.first);
                let names = group.affected.iter().map(|workload| workload.name.clone());
                group.workloads = names.collect();
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

    /// Whether the crash has older dumps than the grouped ones. Then the times of images and workloads do
    /// not show since when they crash.
    #[must_use]
    pub fn hides_older(&self) -> bool {
        // Without a fingerprint, only the selected dumps show when it began.
        self.first_from == FirstFrom::Selection || self.first.as_second() < self.oldest.as_second()
    }

    /// Records when the store first received each crash, and whether that was after `new_since`. A group
    /// without a fingerprint is never new: a name and a signal do not identify a bug.
    pub fn mark_first_seen(groups: &mut [Self], seen: &FirstSeen, new_since: Timestamp) {
        let from = match seen.reach() {
            Reach::Whole => FirstFrom::Store,
            Reach::Since(_) => FirstFrom::LookBack,
        };
        for group in groups {
            let fingerprint = group.fingerprint.as_deref();
            let Some(first) = fingerprint.and_then(|text| seen.first(text)) else {
                continue;
            };
            group.first = group.first.min(first);
            group.first_from = from;
            // Keys have whole seconds.
            group.is_new = group.first.as_second() >= new_since.as_second();
        }
    }

    fn add_workload(&mut self, number: usize, dump: &DumpSummary, owner: Option<&WorkloadOwner>) {
        let time = dump.captured_at;
        match self.affected.get_mut(number) {
            Some(known) => {
                known.first = known.first.min(time);
                known.last = known.last.max(time);
                known.count += 1;
            }
            // A process of the host has no workload: its name is empty until all are counted.
            None => self.affected.push(GroupWorkload {
                name: workload(dump, owner.map(|owner| owner.name.as_str())).unwrap_or_default(),
                owner: owner.cloned(),
                first: time,
                last: time,
                count: 1,
                pods: 0,
            }),
        }
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
    pub fn crash(&self) -> (Result<&str, DumpId>, &str, &str) {
        let fingerprint = self.fingerprint.as_deref().ok_or(self.newest.id);
        (fingerprint, &self.exe, &self.signal)
    }

    /// Whether a dump belongs to this crash.
    #[must_use]
    pub fn holds(&self, dump: &DumpSummary) -> bool {
        let (fingerprint, exe, signal) = self.crash();
        dump.fingerprint.as_deref().ok_or(dump.id) == fingerprint
            && dump.signal == signal
            && dump.exe.to_string() == exe
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
    fn groups_first_seen_ignores_the_time_filter() {
        let dumps: Vec<DumpSummary> = (0..6).map(dump).collect();
        let newest = dumps[0].captured_at;
        let hour = jiff::SignedDuration::from_hours(1);
        let mut groups = Group::of(dumps.iter(), |_| DumpFacts::default());
        groups[1].fingerprint = None;
        let mut seen = FirstSeen::default();
        for group in &groups {
            if let Some(fingerprint) = &group.fingerprint {
                seen.insert(fingerprint, group.first);
            }
        }
        let old = newest - 1000 * hour;
        seen.insert(groups[0].fingerprint.as_deref().unwrap(), old);
        Group::mark_first_seen(&mut groups, &seen, newest - 100 * hour);
        assert_eq!((groups[0].first, groups[0].is_new), (old, false));
        assert_eq!(groups[0].first_from, FirstFrom::Store);
        assert!(groups[0].hides_older() && !groups[2].hides_older());
        // Nothing is known about the age of a crash without a fingerprint.
        assert!(!groups[1].is_new && groups[1].first_from == FirstFrom::Selection);
        assert!(groups[2].is_new);
    }

    #[test]
    fn groups_do_not_merge_dumps_without_a_fingerprint() {
        let mut dumps: Vec<DumpSummary> = (0..4).map(|_| dump(1)).collect();
        for (number, one) in dumps.iter_mut().enumerate() {
            one.id = DumpId::random();
            if number < 2 {
                one.fingerprint = None;
            }
        }
        let groups = Group::of(dumps.iter(), |_| DumpFacts::default());
        let counts: Vec<usize> = groups.iter().map(|group| group.count).collect();
        assert_eq!(counts, [2, 1, 1]);
        for group in &groups {
            let held = dumps.iter().filter(|dump| group.holds(dump)).count();
            assert_eq!(held, group.count);
        }
    }

    #[test]
    fn workloads_have_times_and_counts() {
        let mut dumps: Vec<DumpSummary> = (0..5).map(|_| dump(1)).collect();
        let day = jiff::SignedDuration::from_hours(24);
        let start = dumps[0].captured_at;
        for (number, one) in dumps.iter_mut().enumerate() {
            one.captured_at = start + day * i32::try_from(number).unwrap();
            one.namespace = Some("shop".to_owned());
        }
        dumps[0].pod = Some("db-0".to_owned());
        dumps[1].pod = Some("api-7d4b9c6f5d-x2x9k".to_owned());
        dumps[2].pod = Some("api-7d4b9c6f5d-b8cfz".to_owned());
        (dumps[3].namespace, dumps[3].pod) = (None, None);
        dumps[4].pod = Some("api-7d4b9c6f5d-b8cfz".to_owned());
        let owner = WorkloadOwner {
            kind: "StatefulSet".to_owned(),
            name: "db".to_owned(),
        };
        let facts = |dump: &DumpSummary| DumpFacts {
            owner: (dump.pod.as_deref() == Some("db-0")).then_some(&owner),
            ..DumpFacts::default()
        };
        let groups = Group::of(dumps.iter(), facts);
        let shown: Vec<_> = groups[0]
            .affected
            .iter()
            .map(|workload| (workload.name.as_str(), workload.count, workload.pods))
            .collect();
        assert_eq!(shown, [("shop/db-*", 1, 1), ("shop/api-*", 3, 2)]);
        assert_eq!(groups[0].affected[1].shown(), "shop/api-* (2 pods)");
        assert_eq!(groups[0].affected[0].owner.as_ref(), Some(&owner));
        let api = &groups[0].affected[1];
        assert_eq!((api.first, api.last), (start + day, start + 4 * day));
        // Without facts, a number at the end of a name has no meaning.
        let groups = Group::of(dumps.iter(), |_| DumpFacts::default());
        assert!(groups[0].workloads.contains("shop/db-0"));
    }

    #[test]
    fn owners_of_one_name_and_different_kinds_are_different_workloads() {
        let mut dumps: Vec<DumpSummary> = (0..2).map(|_| dump(1)).collect();
        dumps[0].pod = Some("api-x2x9k".to_owned());
        dumps[1].pod = Some("api-29345678-x2x9k".to_owned());
        let owners = ["DaemonSet", "CronJob"].map(|kind| WorkloadOwner {
            kind: kind.to_owned(),
            name: "api".to_owned(),
        });
        let facts = |dump: &DumpSummary| DumpFacts {
            owner: owners.get(usize::from(dump.pod.as_deref() != Some("api-x2x9k"))),
            ..DumpFacts::default()
        };
        let groups = Group::of(dumps.iter(), facts);
        let mut kinds: Vec<_> = { groups[0].affected.iter() }
            .map(|workload| workload.owner.as_ref().unwrap().kind.as_str())
            .collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["CronJob", "DaemonSet"]);
    }
}
