//! What an operator may decide: the tables `[policy]` and `[limits]` of the configuration.
//!
//! ```toml
//! [policy]
//! default = "full"                 # full, minicore, metadata or ignore
//! unknown_pod = "full"             # a pod's process, and nobody can tell whose
//! setuid = "keep"                  # keep on the node, ship, or ignore
//! scrub = ["*PASS*", "*TOKEN*"]    # variables whose values are never kept
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
//!
//! [limits]
//! spool_quota = "20G"
//! spool_quota_percent = 25         # of the spool's file system; the lower one counts
//! disk_floor = "1G"
//! disk_floor_percent = 5           # the higher one counts
//! core_limit = "8G"
//! handlers = 4
//!
//! [limits.rate]
//! window = "10m"
//! fingerprint_full = 1             # then minicores
//! fingerprint_dumps = 20           # then only counted
//! workload_full = 10
//! workload_dumps = 100
//! ```
//!
//! Everything has a default, an unknown name is refused, and [`PolicyConfig::validate`] and
//! [`LimitsConfig::validate`] say what cannot hold. A rule fits when all that it names fits; one that
//! names nothing fits always. What a pod asks for in its annotations counts beside the rules: of both,
//! what keeps less. Nothing here opens a file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::size::{Seconds, Size};
use crate::handler::settings::HandlerSettings;

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
const SCRUB: [&str; 9] = [
    "*PASS*",
    "*SECRET*",
    "*TOKEN*",
    "*KEY*",
    "*CRED*",
    "*AUTH*",
    "*PRIVATE*",
    "*DSN*",
    "*CONN*",
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

/// How many dumps there may be of the same crash, and of the same workload, in a window of time.
/// 0 means no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateConfig {
    /// How long a window is. It begins with the first crash in it.
    pub window: Seconds,
    /// Dumps of one fingerprint with their core; of further ones minicores are kept.
    pub fingerprint_full: u32,
    /// Dumps of one fingerprint at all; further crashes are only counted.
    pub fingerprint_dumps: u32,
    /// Dumps of one workload (container, or program on the host) with their core.
    pub workload_full: u32,
    /// Dumps of one workload at all.
    pub workload_dumps: u32,
}

impl Default for RateConfig {
    fn default() -> Self {
        Self {
            window: Seconds(600),
            fingerprint_full: 10,
            fingerprint_dumps: 100,
            workload_full: 30,
            workload_dumps: 300,
        }
    }
}

impl RateConfig {
    /// No limits.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            fingerprint_full: 0,
            fingerprint_dumps: 0,
            workload_full: 0,
            workload_dumps: 0,
            ..Self::default()
        }
    }

    /// Whether anything is limited.
    #[must_use]
    pub fn limits_anything(&self) -> bool {
        let counts = [
            self.fingerprint_full,
            self.fingerprint_dumps,
            self.workload_full,
            self.workload_dumps,
        ];
        counts.iter().any(|count| *count > 0)
    }
}

/// The table `[limits]`: what captures may take of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Bytes of the whole spool at most; 0 means no limit. When it is reached, the oldest cores are
    /// given up first, then the oldest minicores, then the oldest dumps.
    pub spool_quota: Size,
    /// The same as a part of the spool's file system; 0 means no limit. The lower one counts.
    pub spool_quota_percent: u8,
    /// Bytes of the spool's file system that stay free. Without a number 256 MiB, but a twentieth of
    /// the file system at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_floor: Option<Size>,
    /// The same as a part of the file system. The higher one counts.
    pub disk_floor_percent: u8,
    /// Bytes of one stored core at most; 0 means no limit.
    pub core_limit: Size,
    /// Handlers that copy at once, the others wait with the memory held; 0 means two more than there
    /// are processors.
    pub handlers: usize,
    /// How long a handler waits for its turn before it goes on without.
    pub handler_wait: Seconds,
    /// How long a core may take; what was not copied by then is cut off. 0 means no limit.
    pub copy_time: Seconds,
    /// Bytes of one minicore at most.
    pub minicore_limit: Size,
    /// The cgroup that handlers enter, below the cgroup file system's root: `cdh.slice`. It must be
    /// there; nothing is entered otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Dumps of the same crash and of the same workload.
    pub rate: RateConfig,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            spool_quota: Size(0),
            spool_quota_percent: 50,
            disk_floor: None,
            disk_floor_percent: 0,
            core_limit: Size(0),
            handlers: 0,
            handler_wait: Seconds(600),
            copy_time: Seconds(3600),
            minicore_limit: Size(16 << 20),
            cgroup: None,
            rate: RateConfig::default(),
        }
    }
}

impl LimitsConfig {
    /// Nothing but the floor of free disk: what a handler without settings goes by.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            spool_quota_percent: 0,
            rate: RateConfig::unlimited(),
            ..Self::default()
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

impl LimitsConfig {
    /// Says what cannot hold.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let percents = [
            ("spool_quota_percent", self.spool_quota_percent),
            ("disk_floor_percent", self.disk_floor_percent),
        ];
        for (field, percent) in percents {
            if percent > 100 {
                let expected = "a part of the file system is 0 to 100 per cent";
                return Err(wrong(
                    format!("limits.{field}"),
                    &percent.to_string(),
                    expected,
                ));
            }
        }
        if self.disk_floor_percent == 100 {
            let expected = "less than 100, or no core can be stored";
            return Err(wrong(
                "limits.disk_floor_percent".to_owned(),
                "100",
                expected,
            ));
        }
        if self.handlers > 1024 {
            let found = self.handlers.to_string();
            return Err(wrong("limits.handlers".to_owned(), &found, "1024 at most"));
        }
        /// Registers and the top of one stack need that much.
        const SMALLEST: u64 = 64 << 10;
        /// It is gathered in the handler's memory.
        const LARGEST: u64 = 256 << 20;
        if !(SMALLEST..=LARGEST).contains(&self.minicore_limit.0) {
            let found = self.minicore_limit.to_string();
            let expected = "a minicore has `64K` to `256M`";
            return Err(wrong("limits.minicore_limit".to_owned(), &found, expected));
        }
        if let Some(cgroup) = &self.cgroup {
            let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
            let usable = cgroup.trim_start_matches('/').split('/').all(plain)
                && !cgroup.contains(['\0', '\n']);
            if !usable {
                let expected = "a path such as `cdh.slice` or `system.slice/cdh-handlers.slice`";
                return Err(wrong("limits.cgroup".to_owned(), cgroup, expected));
            }
        }
        self.rate.validate()
    }

    /// Puts the limits into the handler's settings.
    pub fn apply(&self, settings: &mut HandlerSettings) {
        settings.core_limit = self.core_limit.0;
        settings.slots = self.handlers;
        settings.slot_seconds = self.handler_wait.0;
        settings.copy_seconds = self.copy_time.0;
        settings.minicore_limit = self.minicore_limit.0;
        settings.limits = self.clone();
    }
}

impl RateConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=31 * 86_400).contains(&self.window.0) {
            let expected = "a window lasts `1s` to `31d`";
            let field = "limits.rate.window".to_owned();
            return Err(wrong(field, &self.window.to_string(), expected));
        }
        let pairs = [
            ("fingerprint", self.fingerprint_full, self.fingerprint_dumps),
            ("workload", self.workload_full, self.workload_dumps),
        ];
        for (what, full, all) in pairs {
            if all > 0 && full > all {
                let expected = "not more than the number of all dumps (`…_dumps`)";
                let field = format!("limits.rate.{what}_full");
                return Err(wrong(field, &full.to_string(), expected));
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

fn wrong(field: String, found: &str, expected: &'static str) -> ConfigError {
    ConfigError::Value {
        field,
        found: found.chars().take(64).collect(),
        expected,
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
