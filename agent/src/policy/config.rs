//! The operator's policy: the table `[policy]` of the configuration.
//!
//! ```toml
//! [policy]
//! default = "full"                 # full, minicore, metadata or ignore
//! unknown_pod = "full"             # the process is in a pod that cannot be identified
//! setuid = "keep"                  # keep on the node, ship, or ignore
//! environment = ["LANG", "LC_*"]   # variables whose values are
//!
//! [[policy.rules]]                 # the first match decides
//! namespace = "kube-*"
//! action = "metadata"
//!
//! [[policy.rules]]
//! labels = { tier = "cache" }
//! exe = "/usr/bin/redis-*"
//! signal = ["SIGABRT", "SIGSEGV"]
//! action = "full"
//! core_limit = "2G"
//! ```
//!
//! Everything has a default, unknown names are refused, and [`PolicyConfig::validate`] reports
//! invalid values. A rule matches when all its conditions match; a rule without conditions always
//! matches. A pod's annotations apply in addition to the rules; of the two, the one that stores
//! less takes precedence. Nothing here opens a file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::size::Size;
use crate::outcome::Action;

/// What happens to dumps of programs that gained privileges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetuidPolicy {
    /// They stay on the node, readable by root only.
    #[default]
    Keep,
    /// They are uploaded like all others.
    Ship,
    /// There are none; the crashes are counted.
    Ignore,
}

/// One text or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One.
    One(String),
    /// Several; one of them must match.
    More(Vec<String>),
}

impl Default for OneOrMore {
    fn default() -> Self {
        Self::More(Vec::new())
    }
}

impl OneOrMore {
    /// All texts.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(more) => more.as_slice(),
        }
        .iter()
        .map(String::as_str)
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// One rule. Patterns: `*` is anything but `/`, `**` anything, `?` one character.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Its name in records; otherwise its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Patterns for the pod's namespace.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub namespace: OneOrMore,
    /// Labels that the pod must have, each with a pattern for its value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Patterns for the program's path, as seen by the process.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub exe: OneOrMore,
    /// User ids on the host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uid: Vec<u32>,
    /// Signals, by name or number.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub signal: OneOrMore,
    /// How much is stored.
    pub action: Action,
    /// Maximum size of a stored core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_limit: Option<Size>,
}

/// The table `[policy]`: which crashes become dumps, and how much of them is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// Action if no rule matches.
    pub default: Action,
    /// Maximum for a process in a pod whose namespace and labels are unknown, because the runtime
    /// cannot be asked or the pod is too new. Rules with conditions on either do not match it. The
    /// shipper decides again when the pod is known.
    pub unknown_pod: Action,
    /// Dumps of programs that gained privileges.
    pub setuid: SetuidPolicy,
    /// Patterns (case-insensitive) for names of environment variables whose values are never stored.
    pub scrub: Vec<String>,
    /// Patterns for names of environment variables whose values are stored, unless `scrub` matches.
    pub environment: Vec<String>,
    /// The first matching rule decides.
    pub rules: Vec<Rule>,
}

/// Common names of variables with secrets.
const SCRUB: [&str; 29] = [
    "*PASS*",
    "*SECRET*",
    "*TOKEN*",
    "*KEY*",
    "*CRED*",
    "*AUTH*",
    "*PRIVATE*",
    "*DSN*",
    "*CONN*",
    "*DATABASE*",
    "*DB_UR?*",
    "*REDIS*UR?*",
    "*MONGO*UR?*",
    "*AMQP*UR?*",
    "*BROKER*UR?*",
    "*COOKIE*",
    "*SESSION*",
    "*SALT*",
    "SIGN",
    "SIGN_*",
    "*_SIGN",
    "*_SIGN_*",
    "*SIGNATURE*",
    "*SIGNING*",
    "PIN",
    "PIN_*",
    "*_PIN",
    "*CERT*",
    "*WEBHOOK*",
];

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            default: Action::Full,
            unknown_pod: Action::Full,
            setuid: SetuidPolicy::Keep,
            scrub: SCRUB.map(str::to_owned).to_vec(),
            environment: Vec::new(),
            rules: Vec::new(),
        }
    }
}

/// Errors in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// An invalid value.
    #[error("`{field}` is `{found}`: {expected}")]
    Value {
        /// The field, as in the file: `policy.rules[2].signal`.
        field: String,
        /// The value that was found.
        found: String,
        /// What is expected.
        expected: &'static str,
    },
    /// A rule that no crash can reach.
    #[error(
        "`policy.rules[{rule}]` is never reached: `policy.rules[{before}]` has no conditions and \
         matches every crash; put it last, or use `policy.default`"
    )]
    Unreachable {
        /// Number of the rule, from 0.
        rule: usize,
        /// The earlier rule that matches everything.
        before: usize,
    },
}

/// Maximum number of rules: each crash is compared with all of them.
const RULES: usize = 1000;
/// Maximum length of a pattern in bytes.
const PATTERN: usize = 4096;

impl PolicyConfig {
    /// Checks the values.
    ///
    /// # Errors
    /// The first invalid value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.rules.len() > RULES {
            let found = self.rules.len().to_string();
            return Err(wrong(
                "policy.rules".to_owned(),
                &found,
                "maximum 1000 rules",
            ));
        }
        let lists = [("scrub", &self.scrub), ("environment", &self.environment)];
        for (field, patterns) in lists {
            for (number, text) in patterns.iter().enumerate() {
                pattern(|| format!("policy.{field}[{number}]"), text)?;
            }
        }
        let mut takes_all = None;
        for (number, rule) in self.rules.iter().enumerate() {
            if let Some(before) = takes_all {
                let rule = number;
                return Err(ConfigError::Unreachable { rule, before });
            }
            rule.validate(number)?;
            takes_all = rule.names_nothing().then_some(number);
        }
        Ok(())
    }

    /// Whether any rule has a condition on pod properties that only the daemon knows.
    #[must_use]
    pub fn asks_for_pods(&self) -> bool {
        self.rules.iter().any(Rule::asks_for_pod)
    }
}

impl Rule {
    /// The rule's name in records.
    #[must_use]
    pub fn title(&self, number: usize) -> String {
        match &self.name {
            Some(name) => format!("rule `{name}`"),
            None => format!("rule {number}"),
        }
    }

    /// Whether it has a condition on the namespace or labels of a pod.
    #[must_use]
    pub fn asks_for_pod(&self) -> bool {
        !self.namespace.is_empty() || !self.labels.is_empty()
    }

    fn names_nothing(&self) -> bool {
        !self.asks_for_pod() && self.exe.is_empty() && self.uid.is_empty() && self.signal.is_empty()
    }

    fn validate(&self, number: usize) -> Result<(), ConfigError> {
        let at = |field: &str| format!("policy.rules[{number}].{field}");
        for (field, patterns) in [("namespace", &self.namespace), ("exe", &self.exe)] {
            for text in patterns.iter() {
                pattern(|| at(field), text)?;
            }
        }
        for text in self.exe.iter() {
            // The path of a process's program is always absolute.
            if !text.starts_with(['/', '*', '?']) {
                let expected = "a path begins with `/`, or with `**/` for any directory";
                return Err(wrong(at("exe"), text, expected));
            }
        }
        for (key, value) in &self.labels {
            if key.is_empty() || key.contains('*') {
                return Err(wrong(at("labels"), key, "a label's name has no pattern"));
            }
            // A label may have an empty value.
            if !value.is_empty() {
                pattern(|| at("labels"), value)?;
            }
        }
        for text in self.signal.iter() {
            if signal_number(text).is_none() {
                let expected = "a signal is a name such as `SIGSEGV` or a number from 1 to 64";
                return Err(wrong(at("signal"), text, expected));
            }
        }
        Ok(())
    }
}

/// The number of a signal, given by name or number.
#[must_use]
pub fn signal_number(text: &str) -> Option<i32> {
    /// The highest real-time signal.
    const LAST: i32 = 64;
    if let Ok(number) = text.parse::<i32>() {
        return (1..=LAST).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = match upper.strip_prefix("SIG") {
        Some(_) => upper,
        None => format!("SIG{upper}"),
    };
    (1..=LAST).find(|number| cdh_elfcore::SignalInfo::from_number(*number).name() == name)
}

fn pattern(field: impl Fn() -> String, text: &str) -> Result<(), ConfigError> {
    if text.is_empty() {
        return Err(wrong(field(), text, "an empty pattern matches nothing"));
    }
    if text.len() > PATTERN {
        return Err(wrong(
            field(),
            text,
            "the maximum length of a pattern is 4096 bytes",
        ));
    }
    Ok(())
}

/// An error with a shortened copy of the invalid value.
pub(super) fn wrong(field: String, found: &str, expected: &'static str) -> ConfigError {
    ConfigError::Value {
        field,
        found: found.chars().take(64).collect(),
        expected,
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
