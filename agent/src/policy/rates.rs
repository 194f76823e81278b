//! Budgets: how many dumps each account gets in a window of time, for all handlers together.
//!
//! ```text
//! <state>/rates/counts.json   {"f|<group>|<owner>|<fingerprint>": [start of window, cores, dumps],
//!                              "w|<group>|<owner>|<program>": …, "g|<group>": …}
//! <state>/rates/lock          held while it is changed
//! ```
//!
//! A crash is admitted or rejected in one step under the lock. Of any number of concurrent
//! handlers, exactly as many store a core as the limits allow. The account (see [`Account`]) is
//! part of every key, so no process can use up the budget of another owner. The first crash of an
//! owner in a window stores its core even if its group has no cores left.
//!
//! A node has a maximum of [`KEYS`] counters. The group with the most counters loses its oldest
//! ones first, and its total last. A user who creates many fingerprints or programs therefore only
//! resets its own counters, and the total still applies. If the counts cannot be read or written,
//! everything is admitted; disk floor and quota still apply.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::account::Account;
use super::limits::RateConfig;
use crate::outcome::Action;
use crate::outcome::DropReason;
use crate::private_file::PrivateDirectory;

const DIRECTORY: &str = "rates";
const COUNTS: &str = "counts.json";
/// Maximum number of counters.
const KEYS: usize = 2048;
/// Maximum length of a fingerprint or program in a key, in characters; longer ones are truncated.
const KEY: usize = 96;
/// Maximum size of the counts in bytes: [`KEYS`] keys of up to 420 characters, and their numbers.
const LIMIT: u64 = 2 << 20;
/// Seconds by which crashes may be counted out of order.
const OUT_OF_ORDER: i64 = 60;
/// A group gets this many times the budget of one workload.
const GROUP: u32 = 4;

/// The counts of one node.
#[derive(Clone, Debug)]
pub(crate) struct Rates {
    directory: PathBuf,
    config: RateConfig,
}

/// The properties by which a crash is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    /// The account that is charged.
    pub(crate) account: &'a Account,
    /// The program, for processes of the host; empty for pods and containers.
    pub(crate) workload: &'a str,
    /// Fingerprint of the crashing thread.
    pub(crate) fingerprint: &'a str,
}

/// One time window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Window {
    /// Its start, in seconds since 1970.
    start: i64,
    full: u32,
    all: u32,
}

type Counts = BTreeMap<String, Window>;

impl Rates {
    pub(crate) fn of(state: &Path, config: &RateConfig) -> Self {
        Self {
            directory: state.join(DIRECTORY),
            config: config.clone(),
        }
    }

    /// Counts a crash for which the policy would store `wanted`, and returns how much the budget
    /// allows.
    pub(crate) fn admit(
        &self,
        subject: Subject<'_>,
        wanted: Action,
        now: i64,
    ) -> (Action, Option<(DropReason, String)>) {
        if !self.config.limits_anything() || wanted == Action::Ignore {
            return (wanted, None);
        }
        let admitted = self.change(now, |counts| {
            let mut allowed = (wanted, None);
            let is_first = self.is_first(counts, subject, now);
            for (key, limit) in self.limits(subject) {
                let window = self.window(counts, &key, now);
                let time = self.config.window;
                let (action, count) = if limit.dumps > 0 && window.all >= limit.dumps {
                    (Action::Ignore, limit.dumps)
                } else if limit.full > 0 && window.full >= limit.full && !is_first {
                    (Action::Minicore, limit.full)
                } else {
                    continue;
                };
                if action > allowed.0 {
                    let kind = match action {
                        Action::Ignore => "have a dump",
                        _ => "have their core",
                    };
                    let why = format!("{count} {} {kind} within {time}", limit.what);
                    allowed = (action, Some((limit.reason, why)));
                }
            }
            if allowed.0 != Action::Ignore {
                for (key, _) in self.limits(subject) {
                    let mut window = self.window(counts, &key, now);
                    window.all = window.all.saturating_add(1);
                    window.full = window
                        .full
                        .saturating_add(u32::from(allowed.0 == Action::Full));
                    counts.insert(key, window);
                }
            }
            allowed
        });
        admitted.unwrap_or((wanted, None))
    }

    /// Whether the workload or its group has no dump left in this window; counts nothing.
    pub(crate) fn is_spent(
        &self,
        account: &Account,
        workload: &str,
        now: i64,
    ) -> Option<(DropReason, String)> {
        let subject = Subject {
            account,
            workload,
            fingerprint: "",
        };
        let directory = PrivateDirectory::open(&self.directory).ok()?;
        let counts = read(&directory);
        let time = self.config.window;
        let [_, workload, group] = self.limits(subject);
        [workload, group].into_iter().find_map(|(key, limit)| {
            let window = self.window(&counts, &key, now);
            let is_spent = limit.dumps > 0 && window.all >= limit.dumps;
            let why = format!("{} {} have a dump within {time}", limit.dumps, limit.what);
            is_spent.then_some((limit.reason, why))
        })
    }

    /// An admitted core was not completed: the next crash may store one.
    pub(crate) fn give_back(&self, subject: Subject<'_>, now: i64) {
        if !self.config.limits_anything() {
            return;
        }
        let _ = self.change(now, |counts| {
            for (key, _) in self.limits(subject) {
                if let Some(window) = counts.get_mut(&key) {
                    window.full = window.full.saturating_sub(1);
                }
            }
        });
    }

    /// The keys of a crash with their limits: fingerprint, workload, group.
    fn limits(&self, subject: Subject<'_>) -> [(String, Limit); 3] {
        let config = &self.config;
        let account = subject.account;
        let (group, owner) = (account.group(), account.owner());
        let fingerprint = Limit {
            full: config.fingerprint_full,
            dumps: config.fingerprint_dumps,
            reason: DropReason::RateFingerprint,
            what: "crashes of this fingerprint",
        };
        let workload = Limit {
            full: config.workload_full,
            dumps: config.workload_dumps,
            reason: DropReason::RateWorkload,
            what: "crashes of this workload",
        };
        let together = Limit {
            full: config.workload_full.saturating_mul(GROUP),
            dumps: config.workload_dumps.saturating_mul(GROUP),
            what: "crashes of this controller or user",
            ..workload
        };
        [
            (
                format!("f|{group}|{owner}|{}", short(subject.fingerprint)),
                fingerprint,
            ),
            (
                format!("w|{group}|{owner}|{}", short(subject.workload)),
                workload,
            ),
            (format!("g|{group}"), together),
        ]
    }

    /// Whether the owner has stored no core in this window.
    fn is_first(&self, counts: &Counts, subject: Subject<'_>, now: i64) -> bool {
        let account = subject.account;
        let prefix = format!("w|{}|{}|", account.group(), account.owner());
        let of_owner = counts.range(prefix.clone()..);
        of_owner
            .take_while(|(key, _)| key.starts_with(&prefix))
            .all(|(key, _)| self.window(counts, key, now).full == 0)
    }

    /// The current window of a key.
    fn window(&self, counts: &Counts, key: &str, now: i64) -> Window {
        let window = counts.get(key).copied();
        let window = window.filter(|window| self.holds(window, now));
        window.unwrap_or(Window {
            start: now,
            ..Window::default()
        })
    }

    fn holds(&self, window: &Window, now: i64) -> bool {
        let length = i64::try_from(self.config.window.0).unwrap_or(i64::MAX);
        // Of two crashes, the later one may be counted first. If the clock is set back further than
        // this, the window must not last for years.
        (-OUT_OF_ORDER..length).contains(&now.saturating_sub(window.start))
    }

    fn change<T>(&self, now: i64, change: impl FnOnce(&mut Counts) -> T) -> io::Result<T> {
        let directory = PrivateDirectory::create(&self.directory)?;
        let _lock = directory.lock()?;
        let mut counts = read(&directory);
        let result = change(&mut counts);
        if counts.len() > KEYS {
            counts.retain(|_, window| self.holds(window, now));
        }
        shrink(&mut counts);
        directory.replace(COUNTS, &serde_json::to_vec(&counts)?)?;
        Ok(result)
    }
}

/// The limit of a key.
#[derive(Clone, Copy)]
struct Limit {
    /// Dumps with a core; 0 means no limit.
    full: u32,
    /// Dumps; 0 means no limit.
    dumps: u32,
    reason: DropReason,
    what: &'static str,
}

/// Removes counters until [`KEYS`] are left. In the group with the most counters, the oldest
/// fingerprint goes first, then the oldest workload, then the group itself.
fn shrink(counts: &mut Counts) {
    while counts.len() > KEYS {
        let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
        for key in counts.keys() {
            *sizes.entry(group_of(key)).or_default() += 1;
        }
        let largest = sizes.iter().max_by_key(|(_, size)| **size);
        let Some((largest, _)) = largest else { break };
        let of_group = counts.iter().filter(|(key, _)| group_of(key) == *largest);
        // Fingerprints go first, then workloads, then groups; alphabetical order would be wrong.
        let rank = |key: &str| {
            b"fwg"
                .iter()
                .position(|kind| key.as_bytes().first() == Some(kind))
        };
        let oldest = of_group.min_by_key(|(key, window)| (rank(key), window.start));
        let Some(key) = oldest.map(|(key, _)| key.clone()) else {
            break;
        };
        counts.remove(&key);
    }
}

/// The group in a key.
fn group_of(key: &str) -> &str {
    key.split('|').nth(1).unwrap_or_default()
}

fn read(directory: &PrivateDirectory) -> Counts {
    let text = directory.read(COUNTS, LIMIT).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// A part of a key that needs no escaping in JSON.
fn short(text: &str) -> String {
    let plain = |c: char| match c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '|') {
        true => c,
        false => '_',
    };
    text.chars().take(KEY).map(plain).collect()
}

#[cfg(test)]
#[path = "rates_tests.rs"]
mod tests;
