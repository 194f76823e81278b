//! Applies the policy to one crash.
//!
//! The handler asks before it copies the core, with the pod's facts from the node's table of pods.
//! The shipper asks again before the dump leaves the node, with the facts that the runtime reported
//! in the meantime. The same facts give the same answer. Nothing here waits or opens a file.

use super::config::{PolicyConfig, Rule, SetuidPolicy, signal_number};
use super::glob;
use super::{PodSettings, Profile};
use crate::outcome::Action;
use crate::outcome::DropReason;

/// Facts about a crash.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Crash<'a> {
    /// Path of the program, as seen by the process.
    pub(crate) exe: Option<&'a [u8]>,
    /// User id on the host.
    pub(crate) uid: Option<u32>,
    /// The signal, if already known.
    pub(crate) signal: Option<i32>,
    /// `%d`.
    pub(crate) dumpable: Option<u32>,
}

/// Facts about its pod.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pod<'a> {
    /// The process is not in a pod.
    None,
    /// It is in an unknown pod.
    Unknown,
    /// It is in a container outside any pod, and the container has settings.
    Outside(&'a PodSettings),
    /// It is in this pod. Without a namespace, only the pod's own settings are known.
    Known(&'a PodSettings),
}

/// How much of a crash to store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The action.
    pub(crate) action: Action,
    /// Maximum size of a stored core in bytes.
    pub(crate) core_limit: Option<u64>,
    /// Why it is not stored completely.
    pub(crate) reason: Option<(DropReason, String)>,
}

impl Decision {
    /// Limits the decision to `action`. The first reason for the strictest action is recorded.
    pub(crate) fn restrict(&mut self, action: Action, reason: DropReason, why: impl Into<String>) {
        if action > self.action {
            self.action = action;
            self.reason = Some((reason, why.into()));
        }
    }

    /// Lowers the maximum size of the core; 0 means no limit.
    fn limit(&mut self, bytes: Option<u64>) {
        if let Some(bytes) = bytes.filter(|bytes| *bytes > 0) {
            self.core_limit = Some(self.core_limit.map_or(bytes, |limit| limit.min(bytes)));
        }
    }
}

enum Fit {
    Yes,
    No,
    /// It depends on the signal, which is not known yet.
    Open,
}

impl PolicyConfig {
    /// The decision; `None` if it depends on the signal and the signal is not known yet.
    pub(crate) fn decide(&self, crash: &Crash<'_>, pod: Pod<'_>) -> Option<Decision> {
        let mut decision = Decision::default();
        let mut fitting = None;
        for (number, rule) in self.rules.iter().enumerate() {
            match rule.fits(crash, pod) {
                Fit::No => {}
                Fit::Open => return None,
                Fit::Yes => {
                    fitting = Some((number, rule));
                    break;
                }
            }
        }
        match fitting {
            Some((number, rule)) => {
                let (title, action) = (rule.title(number), rule.action.name());
                let why = format!("{title} of the policy says `{action}`");
                decision.restrict(rule.action, DropReason::Policy, why);
                decision.limit(rule.core_limit.map(|size| size.0));
            }
            None => {
                let why = format!("the policy's default is `{}`", self.default.name());
                decision.restrict(self.default, DropReason::Policy, why);
            }
        }
        if self.setuid == SetuidPolicy::Ignore && crash.dumpable == Some(2) {
            let why = "the policy ignores programs that gained privileges";
            decision.restrict(Action::Ignore, DropReason::Setuid, why);
        }
        if self.is_unknown(pod) {
            let action = self.unknown_pod.name();
            let why = format!("the pod is unknown, and the policy for such pods is `{action}`");
            decision.restrict(self.unknown_pod, DropReason::UnknownPod, why);
        }
        if let Pod::Known(settings) | Pod::Outside(settings) = pod {
            let (action, why) = wish(settings);
            decision.restrict(action, DropReason::Pod, why);
            decision.limit(settings.core_limit);
        }
        Some(decision)
    }

    fn is_unknown(&self, pod: Pod<'_>) -> bool {
        match pod {
            Pod::None | Pod::Outside(_) => false,
            Pod::Unknown => true,
            Pod::Known(settings) => self.wants_pods() && settings.namespace.is_none(),
        }
    }

    /// Whether the daemon must publish every pod to the handler.
    #[must_use]
    pub fn wants_pods(&self) -> bool {
        self.asks_for_pods() || self.unknown_pod != Action::Full
    }

    /// Whether any rule has a condition on this label.
    pub(crate) fn asks_for_label(&self, label: &str) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.labels.contains_key(label))
    }

    /// Whether the value of this environment variable is a secret.
    #[must_use]
    pub fn is_secret(&self, variable: &str) -> bool {
        is_named(&self.scrub, variable)
    }

    /// Whether the value of this environment variable is stored.
    #[must_use]
    pub fn keeps_value(&self, variable: &str) -> bool {
        is_named(&self.environment, variable) && !self.is_secret(variable)
    }
}

fn is_named(patterns: &[String], variable: &str) -> bool {
    let variable = variable.to_ascii_uppercase();
    let fits = |pattern: &String| matches_name(&pattern.to_ascii_uppercase(), &variable);
    patterns.iter().any(fits)
}

/// Whether the name of a variable matches a pattern, ignoring case. A star also matches slashes.
pub(crate) fn matches_name(pattern: &str, name: &str) -> bool {
    glob::matches(&pattern.replace('*', "**"), name.as_bytes())
}

/// The pod's own settings for its dumps.
fn wish(settings: &PodSettings) -> (Action, &'static str) {
    match (settings.dump, settings.profile.unwrap_or_default()) {
        (Some(false), _) => (
            Action::Ignore,
            "the pod has not asked for dumps, or asked for none",
        ),
        (_, Profile::Metadata) => (
            Action::Metadata,
            "the pod asks for the profile `metadata`, or is not known",
        ),
        (_, Profile::Minicore) => (Action::Minicore, "the pod asks for the profile `minicore`"),
        (_, Profile::Full) => (Action::Full, ""),
    }
}

impl Rule {
    fn fits(&self, crash: &Crash<'_>, pod: Pod<'_>) -> Fit {
        let any = |patterns: &super::OneOrMore, text: Option<&[u8]>| {
            patterns.is_empty()
                || text.is_some_and(|text| patterns.iter().any(|one| glob::matches(one, text)))
        };
        if !any(&self.exe, crash.exe) {
            return Fit::No;
        }
        if !self.uid.is_empty() && crash.uid.is_none_or(|uid| !self.uid.contains(&uid)) {
            return Fit::No;
        }
        if self.asks_for_pod() {
            let Pod::Known(settings) = pod else {
                return Fit::No;
            };
            let namespace = settings.namespace.as_deref();
            if !any(&self.namespace, namespace.map(str::as_bytes)) {
                return Fit::No;
            }
            let has = |(key, pattern): (&String, &String)| {
                let value = settings.labels.get(key);
                value.is_some_and(|value| glob::matches(pattern, value.as_bytes()))
            };
            if !self.labels.iter().all(has) {
                return Fit::No;
            }
        }
        if self.signal.is_empty() {
            return Fit::Yes;
        }
        match crash.signal {
            None => Fit::Open,
            Some(signal)
                if self
                    .signal
                    .iter()
                    .any(|one| signal_number(one) == Some(signal)) =>
            {
                Fit::Yes
            }
            Some(_) => Fit::No,
        }
    }
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;
