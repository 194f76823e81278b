//! The same crashes as one line: a pure function of the dumps that the filter lets through.

use std::collections::{BTreeSet, HashMap, HashSet};

use cdh_bundle::DumpId;
use cdh_store::DumpSummary;
use jiff::Timestamp;

use super::{CrashKey, Facts};
use crate::render::pod_owner;

/// Parts that the time from the first to the last crash is cut into.
pub const BUCKETS: usize = 24;
/// Names that are kept of workloads and images; the others are counted.
const NAMES: usize = 64;

/// Dumps with the same fingerprint, program and signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What they have in common.
    pub key: CrashKey,
    /// How many.
    pub count: u32,
    /// When the first one was captured.
    pub first: Timestamp,
    /// When the last one was captured.
    pub last: Timestamp,
    /// How many in each part of the time of all groups together.
    pub buckets: [u32; BUCKETS],
    /// Namespaces with what ran in them: `payments/worker`.
    pub workloads: BTreeSet<String>,
    /// Images, as far as manifests were read.
    pub images: BTreeSet<String>,
    /// How many are not complete.
    pub incomplete: u32,
    /// The newest of them.
    pub newest: DumpSummary,
}

/// Groups the dumps, the most frequent crash first.
#[must_use]
pub fn grouped<'a>(
    dumps: impl Iterator<Item = &'a DumpSummary> + Clone,
    facts: &HashMap<DumpId, Facts>,
) -> Vec<Group> {
    let seconds = |dump: &DumpSummary| dump.captured_at.as_second();
    let times = dumps.clone().map(seconds);
    let (start, end) = times.fold((i64::MAX, i64::MIN), |(start, end), time| {
        (start.min(time), end.max(time))
    });
    let span = end.saturating_sub(start).max(1);
    let bucket = |dump: &DumpSummary| {
        let passed = seconds(dump).saturating_sub(start);
        let place = passed.saturating_mul(BUCKETS as i64) / span.saturating_add(1);
        usize::try_from(place).unwrap_or_default().min(BUCKETS - 1)
    };
    let mut places: HashMap<(Option<&str>, &[u8], &str), usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    let mut newest: Vec<&DumpSummary> = Vec::new();
    // A name is put together once for each group, not for each of a hundred thousand dumps.
    let mut known: HashSet<(usize, Option<&str>, Option<&str>)> = HashSet::new();
    for dump in dumps {
        let key = (
            dump.fingerprint.as_deref(),
            dump.exe.as_bytes(),
            dump.signal.as_str(),
        );
        let next = groups.len();
        let place = *places.entry(key).or_insert(next);
        if place == next {
            newest.push(dump);
            groups.push(Group {
                key: CrashKey::of(dump),
                count: 0,
                first: dump.captured_at,
                last: dump.captured_at,
                buckets: [0; BUCKETS],
                workloads: BTreeSet::new(),
                images: BTreeSet::new(),
                incomplete: 0,
                newest: dump.clone(),
            });
        }
        let Some(group) = groups.get_mut(place) else {
            continue;
        };
        group.count = group.count.saturating_add(1);
        group.first = group.first.min(dump.captured_at);
        if dump.captured_at > group.last {
            group.last = dump.captured_at;
            if let Some(newest) = newest.get_mut(place) {
                *newest = dump;
            }
        }
        group.incomplete = group
            .incomplete
            .saturating_add(u32::from(dump.verdict != "complete"));
        if let Some(count) = group.buckets.get_mut(bucket(dump)) {
            *count = count.saturating_add(1);
        }
        if group.workloads.len() < NAMES
            && known.insert((
                place,
                dump.namespace.as_deref(),
                dump.pod.as_deref().map(owner),
            ))
            && let Some(name) = workload(dump)
        {
            group.workloads.insert(name);
        }
        if group.images.len() < NAMES && !facts.is_empty() {
            let image = facts.get(&dump.id).and_then(|facts| facts.image.as_deref());
            if let Some(image) = image.filter(|image| !group.images.contains(*image)) {
                group.images.insert(image.to_owned());
            }
        }
    }
    for (group, newest) in groups.iter_mut().zip(newest) {
        if group.newest.id != newest.id {
            group.newest = newest.clone();
        }
    }
    groups.sort_by(|a, b| (b.count, b.last, &a.key).cmp(&(a.count, a.last, &b.key)));
    groups
}

/// `payments/worker` for a pod `worker-7d4b9c6f5-x2x9z` of the namespace `payments`.
#[must_use]
pub fn workload(dump: &DumpSummary) -> Option<String> {
    let owner = dump.pod.as_deref().map(owner);
    match (dump.namespace.as_deref(), owner) {
        (Some(namespace), Some(owner)) => Some(format!("{namespace}/{owner}")),
        (one, other) => one.or(other).map(str::to_owned),
    }
}

fn owner(pod: &str) -> &str {
    pod_owner(pod).unwrap_or(pod)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::tests::dump;

    #[test]
    fn equal_crashes_are_one_group_with_its_times_and_workloads() {
        let dumps: Vec<DumpSummary> = (0..40).map(dump).collect();
        let groups = grouped(dumps.iter(), &HashMap::new());
        assert_eq!(groups.iter().map(|group| group.count).sum::<u32>(), 40);
        for group in &groups {
            assert_eq!(group.buckets.iter().sum::<u32>(), group.count);
            assert!(group.first <= group.last && group.newest.captured_at == group.last);
        }
        assert!(groups.windows(2).all(|pair| pair[0].count >= pair[1].count));
    }
}
