//! What an operator may decide: the table `[policy]` of the configuration.
//!
//! ```toml
//! [policy]
//! default = "full"                 # full, minicore, metadata or ignore
//! unknown_pod = "full"             # a pod's process, and nobody can tell whose
//! setuid = "keep"                  # keep on the node, ship, or ignore
//! environment = ["LANG", "LC_*"]   # variables whose values are
//!
//! [[policy.rules]]                 # the first one that fits decides
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
//! Everything has a default, an unknown name is refused, and [`PolicyConfig::validate`] says what cannot
//! hold. A rule fits when all that it names fits; one that
//! names nothing fits always. What a pod asks for in its annotations counts beside the rules: of both,
//! what keeps less. Nothing here opens a file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::size::Size;

/// How much of a crash is kept; each keeps less than the one before.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Everything.
    #[default]
    Full,
    /// No core, but stacks and registers.
    Minicore,
    /// Neither: facts and raw backtrace only.
    Metadata,
    /// No dump; it is counted.
    Ignore,
}

impl Action {
    /// As it stands in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Minicore => "minicore",
            Self::Metadata => "metadata",
            Self::Ignore => "ignore",
        }
    }
}

/// What is done with dumps of programs that gained privileges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetuidPolicy {
    /// They stay on the node, for root only.
    #[default]
    Keep,
    /// They go into the store like all others.
    Ship,
    /// There is none; they are counted.
    Ignore,
}

/// One text or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One.
    One(String),
    /// Several; any of them fits.
    More(Vec<String>),
}

impl Default for OneOrMore {
    fn default() -> Self {
        Self::More(Vec::new())
    }
}

impl OneOrMore {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(more) => more.as_slice(),
        }
        .iter()
        .map(String::as_str)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// One rule. Patterns: `*` is anything but `/`, `**` anything, `?` one character.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// What records call it; its number otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Patterns for the pod's namespace.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub namespace: OneOrMore,
    /// Labels that the pod has, each with a pattern for its value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Patterns for the program's path, as the process saw it.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub exe: OneOrMore,
    /// User ids, as the host sees them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uid: Vec<u32>,
    /// Signals, by name or number.
    #[serde(skip_serializing_if = "OneOrMore::is_empty")]
    pub signal: OneOrMore,
    /// How much is kept.
    pub action: Action,
    /// A stored core at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_limit: Option<Size>,
}

/// The table `[policy]`: which crashes become dumps, and how much of them is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// Where no rule fits.
    pub default: Action,
    /// At most that much is kept of a process in a pod of which nobody knows namespace and labels:
    /// the runtime cannot be asked, or the pod is too new. Rules that ask for either do not fit it.
    /// The shipper decides again when the pod has become known.
    pub unknown_pod: Action,
    /// Dumps of programs that gained privileges.
    pub setuid: SetuidPolicy,
    /// Patterns for names of environment variables whose values are never kept; capitals do not
    /// matter.
    pub scrub: Vec<String>,
    /// Patterns for names of environment variables whose values are kept, unless `scrub` says no.
    pub environment: Vec<String>,
    /// The first one that fits decides.
    pub rules: Vec<Rule>,
}

/// Names that secrets go by.
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

/// What cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value that means nothing.
    #[error("`{field}` is `{found}`: {expected}")]
    Value {
        /// Where, as in the file: `policy.rules[2].signal`.
        field: String,
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// A rule that no crash can reach.
    #[error(
        "`policy.rules[{rule}]` is never reached: `policy.rules[{before}]` names nothing and fits \
         every crash; put it last, or use `policy.default`"
    )]
    Unreachable {
        /// Number of the rule, from 0.
        rule: usize,
        /// The one that takes everything.
        before: usize,
    },
}

/// Rules at most: each one is looked at for each crash.
const RULES: usize = 1000;
/// Bytes of a pattern at most.
const PATTERN: usize = 4096;

impl PolicyConfig {
    /// Says what cannot hold.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.rules.len() > RULES {
            let found = self.rules.len().to_string();
            return Err(wrong(
                "policy.rules".to_owned(),
                &found,
                "at most 1000 rules",
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

    /// Whether any rule asks for what only the daemon knows of a pod.
    #[must_use]
    pub fn asks_for_pods(&self) -> bool {
        self.rules.iter().any(Rule::asks_for_pod)
    }
}

impl Rule {
    /// What records call it.
    #[must_use]
    pub fn title(&self, number: usize) -> String {
        match &self.name {
            Some(name) => format!("rule `{name}`"),
            None => format!("rule {number}"),
        }
    }

    /// Whether it asks for the namespace or the labels of a pod.
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
            // What a process runs always has an absolute path.
            if !text.starts_with(['/', '*', '?']) {
                let expected = "a path begins with `/`, or with `**/` for any directory";
                return Err(wrong(at("exe"), text, expected));
            }
        }
        for (key, value) in &self.labels {
            if key.is_empty() || key.contains('*') {
                return Err(wrong(at("labels"), key, "a label's name has no pattern"));
            }
            // A label may have no value.
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

/// The number of a signal that is given by name or number.
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
        return Err(wrong(field(), text, "an empty pattern fits nothing"));
    }
    if text.len() > PATTERN {
        return Err(wrong(field(), text, "a pattern has 4096 bytes at most"));
    }
    Ok(())
}

/// What does not hold, in few of its own words.
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
