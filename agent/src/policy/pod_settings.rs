//! A pod's settings for its own dumps, in annotations or labels:
//!
//! | `cdh.io/dump` | `"true"`, `"false"` | whether there are dumps of it |
//! | `cdh.io/profile` | `full`, `minicore`, `metadata` | how much of them is kept |
//! | `cdh.io/core-limit` | `2G` | a stored core at most; of a longer one the rest stays |
//!
//! An annotation takes precedence over a label. An invalid value is ignored and recorded as a gap:
//! the pod's author sees the mistake, and no evidence is lost.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::policy::{PolicyConfig, Size};

const PREFIX: &str = "cdh.io/";

/// How much of a dump is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Everything.
    #[default]
    Full,
    /// No core, but stacks and registers.
    Minicore,
    /// Neither: facts and raw backtrace only.
    Metadata,
}

/// Which pods are dumped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// All pods that do not opt out.
    #[default]
    OptOut,
    /// Pods with `cdh.io/dump: "true"`, or with this label, whatever its value. An unidentified pod gets a dump
    /// without a core, because it may have opted in.
    OptIn {
        /// The label.
        label: Option<String>,
    },
}

/// A pod's own settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodSettings {
    /// Whether it is dumped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dump: Option<bool>,
    /// How much is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// Maximum bytes of a stored core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_limit: Option<u64>,
    /// The pod's namespace, if the node's policy has conditions on pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its labels that the node's policy has conditions on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `<namespace>/<kind>/<name>` of its controller, or of the pod itself; its crashes are charged
    /// to this budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
}

impl PodSettings {
    /// Parses the settings; also returns the invalid ones.
    #[must_use]
    pub fn read(
        annotations: &HashMap<String, String>,
        labels: &HashMap<String, String>,
        selection: &Selection,
    ) -> (Self, Vec<String>) {
        let mut problems = Vec::new();
        let value = |name: &str| {
            let key = format!("{PREFIX}{name}");
            let found = annotations.get(&key).or_else(|| labels.get(&key))?;
            Some((found.trim().to_owned(), key))
        };
        let mut settings = Self::default();
        let mut refuse = |key: &str, value: &str, expected: &str| {
            let shown: String = value.chars().take(64).collect();
            problems.push(format!("`{key}` is `{shown}`: {expected} is expected"));
        };
        if let Some((text, key)) = value("dump") {
            match text.as_str() {
                "true" => settings.dump = Some(true),
                "false" => settings.dump = Some(false),
                other => refuse(&key, other, "`true` or `false`"),
            }
        }
        if let Some((text, key)) = value("profile") {
            match text.as_str() {
                "full" => settings.profile = Some(Profile::Full),
                "minicore" => settings.profile = Some(Profile::Minicore),
                "metadata" => settings.profile = Some(Profile::Metadata),
                other => refuse(&key, other, "`full`, `minicore` or `metadata`"),
            }
        }
        if let Some((text, key)) = value("core-limit") {
            match text.parse::<Size>() {
                Ok(size) => settings.core_limit = Some(size.0),
                Err(_) => refuse(&key, &text, "a number of bytes such as `512M` or `2G`"),
            }
        }
        if settings.dump.is_none()
            && let Selection::OptIn { label } = selection
        {
            let chosen = label
                .as_ref()
                .is_some_and(|label| labels.contains_key(label));
            settings.dump = Some(chosen);
        }
        (settings, problems)
    }

    /// The settings of an unidentified pod.
    #[must_use]
    pub fn of_unknown(selection: &Selection) -> Self {
        match selection {
            Selection::OptOut => Self::default(),
            Selection::OptIn { .. } => Self {
                profile: Some(Profile::Metadata),
                ..Self::default()
            },
        }
    }

    /// Whether the pod has no settings.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        self.dump != Some(false)
            && self.profile.unwrap_or_default() == Profile::Full
            && self.core_limit.is_none()
            && self.namespace.is_none()
            && self.controller.is_none()
    }

    /// Adds the facts that the node's policy has conditions on.
    #[must_use]
    pub fn with_names(
        mut self,
        policy: &PolicyConfig,
        namespace: &str,
        labels: &HashMap<String, String>,
    ) -> Self {
        if policy.wants_pods() {
            self.namespace = Some(namespace.to_owned());
            let asked = labels.iter().filter(|(key, _)| policy.asks_for_label(key));
            let asked = asked.map(|(key, value)| (key.clone(), value.clone()));
            self.labels = asked.collect();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn pod_annotations_take_precedence_over_labels_and_mistakes_are_reported() {
        let read = |annotations: &[(&str, &str)], labels: &[(&str, &str)]| {
            PodSettings::read(&map(annotations), &map(labels), &Selection::OptOut)
        };
        let (found, problems) = read(
            &[("cdh.io/profile", "minicore"), ("cdh.io/core-limit", "2Gi")],
            &[("cdh.io/profile", "full"), ("cdh.io/dump", "true")],
        );
        let expected = PodSettings {
            dump: Some(true),
            profile: Some(Profile::Minicore),
            core_limit: Some(2 << 30),
            ..PodSettings::default()
        };
        assert_eq!((found, problems), (expected, Vec::new()));
        let (found, problems) = read(
            &[
                ("cdh.io/dump", "no"),
                ("cdh.io/profile", "tiny"),
                ("cdh.io/core-limit", "much"),
            ],
            &[],
        );
        assert!(found.is_usual());
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(
            problems[0].contains("`cdh.io/dump` is `no`"),
            "{problems:?}"
        );
    }

    #[test]
    fn opt_in_dumps_pods_that_ask_and_stores_facts_of_unknown_pods() {
        let opt_in = Selection::OptIn {
            label: Some("keep-cores".to_owned()),
        };
        let dumped = |annotations: &[(&str, &str)], labels: &[(&str, &str)]| {
            let (found, _) = PodSettings::read(&map(annotations), &map(labels), &opt_in);
            found.dump
        };
        assert_eq!(dumped(&[], &[]), Some(false));
        assert_eq!(dumped(&[("cdh.io/dump", "true")], &[]), Some(true));
        assert_eq!(dumped(&[], &[("keep-cores", "")]), Some(true));
        assert_eq!(
            dumped(&[("cdh.io/dump", "false")], &[("keep-cores", "")]),
            Some(false)
        );
        assert_eq!(
            PodSettings::of_unknown(&opt_in).profile,
            Some(Profile::Metadata)
        );
        assert!(PodSettings::of_unknown(&Selection::OptOut).is_usual());
    }
}
