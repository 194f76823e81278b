//! Finds the object that owns a pod from the name, labels and annotations that its controller
//! wrote.
//!
//! A container runtime reports labels and annotations of a pod, but not its `ownerReferences`. Each
//! rule below names the Kubernetes source that writes the label. A name is only shortened if a
//! label says how: a pod that merely looks like one of a Deployment has no owner here.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::manifest::WorkloadOwner;

/// Longest name that `generateName` produces, and the number of random characters at its end
/// (`k8s.io/apiserver/pkg/storage/names/generate.go`: `maxNameLength`, `randomLength`).
const LONGEST_GENERATED: usize = 63;
const RANDOM: usize = 5;

/// Unix minutes of 2013 and 2084. A CronJob names its Jobs by the minute (`getJobName` in
/// `pkg/controller/cronjob/utils.go`). Numbers of eight digits below this range are dates such as
/// `20261128`.
const MINUTES: std::ops::Range<u64> = 23_000_000..60_000_000;
/// Unix seconds of 2014 and 2033: the suffix before Kubernetes 1.21. Numbers of ten digits above
/// are dates such as `2026112811`.
const SECONDS: std::ops::Range<u64> = 1_400_000_000..2_000_000_000;

/// A pod, as a container runtime describes it.
#[derive(Clone, Copy, Debug)]
pub struct PodDescription<'p> {
    /// Its name.
    pub name: &'p str,
    /// Its labels.
    pub labels: &'p BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: &'p BTreeMap<String, String>,
}

impl WorkloadOwner {
    /// Finds the owner of a pod from the labels that controllers write:
    ///
    /// | label or annotation | owner | written by |
    /// |---|---|---|
    /// | `rollouts-pod-template-hash` | Rollout | Argo Rollouts, `DefaultRolloutUniqueLabelKey` |
    /// | `pod-template-hash` | Deployment | `DefaultDeploymentUniqueLabelKey` in `k8s.io/api/apps/v1` |
    /// | `statefulset.kubernetes.io/pod-name` | StatefulSet | `StatefulSetPodNameLabel` in `k8s.io/api/apps/v1` |
    /// | `controller-revision-hash` alone | DaemonSet | `ControllerRevisionHashLabelKey` in `k8s.io/api/apps/v1` |
    /// | `batch.kubernetes.io/job-name`, `job-name` | Job, CronJob | `JobNameLabel` in `k8s.io/api/batch/v1` |
    /// | `openshift.io/deployment-config.name` | DeploymentConfig | OpenShift |
    #[must_use]
    pub fn of_pod(pod: &PodDescription<'_>) -> Option<Self> {
        let label = |name: &str| text(pod.labels, name);
        let either = |name: &str| label(name).or_else(|| text(pod.annotations, name));
        let owner = |kind: &str, name: &str| {
            (!name.is_empty()).then(|| Self {
                kind: kind.to_owned(),
                name: name.to_owned(),
            })
        };
        if let Some(hash) = label("rollouts-pod-template-hash") {
            return owner("Rollout", before_hash(pod.name, hash)?);
        }
        if let Some(hash) = label("pod-template-hash") {
            return owner("Deployment", before_hash(pod.name, hash)?);
        }
        if let Some(name) = label("statefulset.kubernetes.io/pod-name") {
            return owner("StatefulSet", before_ordinal(name)?);
        }
        if let Some(job) = label("batch.kubernetes.io/job-name").or_else(|| label("job-name")) {
            return match before_time(job) {
                Some(cron_job) => owner("CronJob", cron_job),
                None => owner("Job", job),
            };
        }
        if let Some(name) = either("openshift.io/deployment-config.name") {
            return owner("DeploymentConfig", name);
        }
        // Other controllers also write this label, but with the full revision `<owner>-<hash>`.
        let revision = label("controller-revision-hash").filter(|hash| !hash.contains('-'));
        revision.and_then(|_| owner("DaemonSet", before_random(pod.name)?.strip_suffix('-')?))
    }

    /// Finds the controller in the `ownerReferences` of a pod's JSON. A ReplicaSet with a
    /// `pod-template-hash` belongs to a Deployment; a Job with a minute in its name belongs to a
    /// CronJob.
    pub(crate) fn of_references(metadata: &Value, pod: &PodDescription<'_>) -> Option<Self> {
        let references = metadata.get("ownerReferences")?.as_array()?;
        let is_controller =
            |one: &&Value| one.get("controller").and_then(Value::as_bool) == Some(true);
        let found = references.iter().find(is_controller);
        let found = found.or(references.first())?;
        let text = |key: &str| found.get(key)?.as_str().filter(|text| !text.is_empty());
        let (kind, name) = (text("kind")?, text("name")?);
        let hash = self::text(pod.labels, "pod-template-hash");
        let deployment = hash.and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'));
        let (kind, name) = match (kind, deployment, before_time(name)) {
            ("ReplicaSet", Some(deployment), _) => ("Deployment", deployment),
            ("Job", _, Some(cron_job)) => ("CronJob", cron_job),
            _ => (kind, name),
        };
        Some(Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
        })
    }
}

fn text<'m>(map: &'m BTreeMap<String, String>, key: &str) -> Option<&'m str> {
    map.get(key)
        .map(String::as_str)
        .filter(|text| !text.is_empty())
}

/// `api-` for `api-x2x9k`: the `generateName` without the random characters.
fn before_random(pod: &str) -> Option<&str> {
    let end = pod.len().checked_sub(RANDOM)?;
    pod.get(..end)
}

/// `api` for `api-7d4b9c6f5d-x2x9k` with the hash `7d4b9c6f5d`. `generateName` truncates a long
/// name, including the hash.
fn before_hash<'p>(pod: &'p str, hash: &str) -> Option<&'p str> {
    /// Minimum length of a truncated hash: fewer characters could be the end of the owner's own
    /// name.
    const SURE: usize = 4;
    let base = before_random(pod)?;
    let full = base.strip_suffix('-').unwrap_or(base);
    if let Some(name) = full
        .strip_suffix(hash)
        .and_then(|name| name.strip_suffix('-'))
    {
        return Some(name);
    }
    let cut = (SURE..hash.len())
        .rev()
        .filter(|_| pod.len() == LONGEST_GENERATED);
    cut.filter_map(|length| {
        let name = base.strip_suffix(hash.get(..length)?)?;
        name.strip_suffix('-')
    })
    .next()
}

/// `db` for `db-0`: `getPodName` in `pkg/controller/statefulset/stateful_set_utils.go`.
fn before_ordinal(pod: &str) -> Option<&str> {
    let (name, ordinal) = pod.rsplit_once('-')?;
    let is_number = !ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(name)
}

/// `backup` for `backup-29345678`.
fn before_time(job: &str) -> Option<&str> {
    let (name, digits) = job.rsplit_once('-')?;
    let number: u64 = digits.parse().ok()?;
    let is_time = match digits.len() {
        8 => MINUTES.contains(&number),
        10 => SECONDS.contains(&number),
        _ => false,
    };
    (is_time && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(pod: &str, labels: &[(&str, &str)]) -> Option<(String, String)> {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let found = WorkloadOwner::of_pod(&PodDescription {
            name: pod,
            labels: &labels,
            annotations: &BTreeMap::new(),
        })?;
        Some((found.kind, found.name))
    }

    #[test]
    fn owner_is_read_from_the_labels_of_each_controller() {
        let hash = ("pod-template-hash", "7d4b9c6f5d");
        for (pod, labels, kind, name) in [
            ("api-7d4b9c6f5d-x2x9k", &[hash][..], "Deployment", "api"),
            ("a-b-7d4b9c6f5d-x2x9k", &[hash], "Deployment", "a-b"),
            (
                "web-66b9c7b5d-2jq7x",
                &[("rollouts-pod-template-hash", "66b9c7b5d")],
                "Rollout",
                "web",
            ),
            (
                "db-0",
                &[
                    ("statefulset.kubernetes.io/pod-name", "db-0"),
                    ("apps.kubernetes.io/pod-index", "0"),
                    ("controller-revision-hash", "db-5f8c6d7b9"),
                ],
                "StatefulSet",
                "db",
            ),
            (
                "node-agent-x2x9k",
                &[
                    ("controller-revision-hash", "5f8c6d7b9"),
                    ("pod-template-generation", "1"),
                ],
                "DaemonSet",
                "node-agent",
            ),
            (
                "backup-29345678-x2x9k",
                &[("batch.kubernetes.io/job-name", "backup-29345678")],
                "CronJob",
                "backup",
            ),
            (
                "old-1616161616-x2x9k",
                &[("job-name", "old-1616161616")],
                "CronJob",
                "old",
            ),
            (
                "load-20261128-x2x9k",
                &[("job-name", "load-20261128")],
                "Job",
                "load-20261128",
            ),
            (
                "load-2026112811-x2x9k",
                &[("job-name", "load-2026112811")],
                "Job",
                "load-2026112811",
            ),
            (
                "migrate-x2x9k",
                &[("job-name", "migrate")],
                "Job",
                "migrate",
            ),
            (
                "shop-3-x2x9k",
                &[("openshift.io/deployment-config.name", "shop")],
                "DeploymentConfig",
                "shop",
            ),
        ] {
            let expected = Some((kind.to_owned(), name.to_owned()));
            assert_eq!(owner(pod, labels), expected, "{pod}");
        }
    }

    #[test]
    fn owner_is_not_guessed_from_names_alone() {
        for (pod, labels) in [
            ("api-7d4b9c6f5d-x2x9k", &[][..]),
            ("api-7d4b9c6f5d-x2x9k", &[("app", "api")]),
            ("api", &[("pod-template-hash", "7d4b9c6f5d")]),
            ("-7d4b9c6f5d-x2x9k", &[("pod-template-hash", "7d4b9c6f5d")]),
            ("db", &[("statefulset.kubernetes.io/pod-name", "db")]),
            (
                "set-x2x9k",
                &[("controller-revision-hash", "set-5f8c6d7b9")],
            ),
            ("é2x9k", &[("controller-revision-hash", "5f8c6d7b9")]),
            ("", &[("controller-revision-hash", "5f8c6d7b9")]),
        ] {
            assert_eq!(owner(pod, labels), None, "{pod}");
        }
    }

    #[test]
    fn owner_with_a_long_name_is_found_by_its_truncated_hash() {
        let hash = "7d4b9c6f5d";
        for length in [40, 46, 47, 48, 53, 54, 57] {
            let name = "d".repeat(length);
            let base: String = format!("{name}-{hash}-").chars().take(58).collect();
            let found = owner(&format!("{base}x2x9k"), &[("pod-template-hash", hash)]);
            let expected = (length <= 53).then(|| ("Deployment".to_owned(), name));
            assert_eq!(found, expected, "{base}");
        }
    }

    #[test]
    fn owner_references_name_the_controller() {
        let labels = BTreeMap::from([("pod-template-hash".to_owned(), "7d4b".to_owned())]);
        let pod = PodDescription {
            name: "api-7d4b-x2x9k",
            labels: &labels,
            annotations: &BTreeMap::new(),
        };
        let found = |kind: &str, name: &str| {
            let metadata = serde_json::json!({"ownerReferences": [
                {"kind": "Other", "name": "x"}, {"kind": kind, "name": name, "controller": true},
            ]});
            let owner = WorkloadOwner::of_references(&metadata, &pod).unwrap();
            (owner.kind, owner.name)
        };
        for (kind, name, expected_kind, expected) in [
            ("ReplicaSet", "api-7d4b", "Deployment", "api"),
            ("ReplicaSet", "bare", "ReplicaSet", "bare"),
            ("Job", "backup-29345678", "CronJob", "backup"),
            ("Kafka", "events", "Kafka", "events"),
        ] {
            assert_eq!(
                found(kind, name),
                (expected_kind.to_owned(), expected.to_owned())
            );
        }
    }
}
