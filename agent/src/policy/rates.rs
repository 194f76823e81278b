//! How many dumps there were of the same crash and of the same workload, for all handlers together.
//!
//! ```text
//! <state>/rates/counts.json   {"f:9f3c…": [window's start, with core, all], "w:…": …}
//! <state>/rates/lock          held while it is changed
//! ```
//!
//! A crash is admitted or not in one step under the lock, so that of any number of handlers that run
//! at once exactly so many get a core as are allowed. Bounded: of more than [`KEYS`] crashes and
//! workloads the oldest windows are forgotten, which lets through more, never less. Where the counts
//! cannot be read or written everything is admitted: disk and quota are bounds of their own.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config::Action;
use super::limits::RateConfig;
use crate::ledger::DropReason;
use crate::private_file::PrivateDirectory;

const DIRECTORY: &str = "rates";
const COUNTS: &str = "counts.json";
/// Crashes and workloads that are counted at most.
const KEYS: usize = 2048;
/// Bytes of a key at most; longer ones are cut.
const KEY: usize = 96;
/// Bytes of the counts at most.
const LIMIT: u64 = 1 << 20;

/// The counts of one node.
#[derive(Clone, Debug)]
pub(crate) struct Rates {
    directory: PathBuf,
    config: RateConfig,
}

/// Whose crash it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    /// Of the crashing thread.
    pub(crate) fingerprint: &'a str,
    /// Container, unit or program.
    pub(crate) workload: &'a str,
}

/// One window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Window {
    /// Its start, seconds since 1970.
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

    /// Counts a crash of which `wanted` would be kept, and says how much may be.
    pub(crate) fn admit(
        &self,
        subject: Subject<'_>,
        wanted: Action,
        now: i64,
    ) -> (Action, Option<(DropReason, String)>) {
        if !self.config.limits_anything() || wanted == Action::Ignore {
            return (wanted, None);
        }
        let admitted = self.change(|counts| {
            let keys = [subject.fingerprint_key(), subject.workload_key()];
            let limits = [
                (self.config.fingerprint_full, self.config.fingerprint_dumps),
                (self.config.workload_full, self.config.workload_dumps),
            ];
            let names = [
                (DropReason::RateFingerprint, "crashes of this fingerprint"),
                (DropReason::RateWorkload, "crashes of this workload"),
            ];
            let mut allowed = (wanted, None);
            for ((key, (full, all)), (reason, what)) in keys.iter().zip(limits).zip(names) {
                let window = self.window(counts, key, now);
                let time = self.config.window;
                let (action, count) = if all > 0 && window.all >= all {
                    (Action::Ignore, all)
                } else if full > 0 && window.full >= full {
                    (Action::Minicore, full)
                } else {
                    continue;
                };
                if action > allowed.0 {
                    let kind = match action {
                        Action::Ignore => "have a dump",
                        _ => "have their core",
                    };
                    let why = format!("{count} {what} {kind} within {time}");
                    allowed = (action, Some((reason, why)));
                }
            }
            if allowed.0 != Action::Ignore {
                for key in &keys {
                    let mut window = self.window(counts, key, now);
                    window.all = window.all.saturating_add(1);
                    window.full = window
                        .full
                        .saturating_add(u32::from(allowed.0 == Action::Full));
                    counts.insert(key.clone(), window);
                }
            }
            allowed
        });
        admitted.unwrap_or((wanted, None))
    }

    /// Whether there is no dump to be had for this workload any more; counts nothing.
    pub(crate) fn is_spent(&self, workload: &str, now: i64) -> Option<(DropReason, String)> {
        let limit = self.config.workload_dumps;
        if limit == 0 {
            return None;
        }
        let subject = Subject {
            fingerprint: "",
            workload,
        };
        let directory = PrivateDirectory::open(&self.directory).ok()?;
        let counts = read(&directory);
        let window = self.window(&counts, &subject.workload_key(), now);
        let time = self.config.window;
        (window.all >= limit).then(|| {
            let why = format!("{limit} crashes of this workload have a dump within {time}");
            (DropReason::RateWorkload, why)
        })
    }

    /// A core that was admitted did not become whole: the next one gets the chance.
    pub(crate) fn give_back(&self, subject: Subject<'_>) {
        if !self.config.limits_anything() {
            return;
        }
        let _ = self.change(|counts| {
            for key in [subject.fingerprint_key(), subject.workload_key()] {
                if let Some(window) = counts.get_mut(&key) {
                    window.full = window.full.saturating_sub(1);
                }
            }
        });
    }

    /// The window that now is in.
    fn window(&self, counts: &Counts, key: &str, now: i64) -> Window {
        let length = i64::try_from(self.config.window.0).unwrap_or(i64::MAX);
        let window = counts.get(key).copied();
        // A clock that was set back must not make a window of years.
        let holds = |window: &Window| (0..length).contains(&now.saturating_sub(window.start));
        window.filter(holds).unwrap_or(Window {
            start: now,
            ..Window::default()
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> io::Result<T> {
        let directory = PrivateDirectory::create(&self.directory)?;
        let _lock = directory.lock()?;
        let mut counts = read(&directory);
        let result = change(&mut counts);
        while counts.len() > KEYS {
            let oldest = counts.iter().min_by_key(|(_, window)| window.start);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else {
                break;
            };
            counts.remove(&key);
        }
        directory.replace(COUNTS, &serde_json::to_vec(&counts)?)?;
        Ok(result)
    }
}

fn read(directory: &PrivateDirectory) -> Counts {
    let text = directory.read(COUNTS, LIMIT).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

impl Subject<'_> {
    fn fingerprint_key(&self) -> String {
        key('f', self.fingerprint)
    }

    fn workload_key(&self) -> String {
        key('w', self.workload)
    }
}

fn key(kind: char, text: &str) -> String {
    let text: String = text.chars().take(KEY).collect();
    format!("{kind}:{text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Seconds;

    fn rates(state: &Path) -> Rates {
        let config = RateConfig {
            window: Seconds(60),
            fingerprint_full: 1,
            fingerprint_dumps: 3,
            workload_full: 2,
            workload_dumps: 0,
        };
        Rates::of(state, &config)
    }

    fn subject<'a>(fingerprint: &'a str, workload: &'a str) -> Subject<'a> {
        Subject {
            fingerprint,
            workload,
        }
    }

    #[test]
    fn the_first_is_kept_whole_then_stacks_then_only_counted_until_the_window_ends() {
        let state = tempfile::tempdir().unwrap();
        let rates = rates(state.path());
        let admit = |now| rates.admit(subject("f1", "w1"), Action::Full, now).0;
        let found: Vec<Action> = (0..5).map(|_| admit(1000)).collect();
        let (full, small, none) = (Action::Full, Action::Minicore, Action::Ignore);
        assert_eq!(found, [full, small, small, none, none]);
        assert_eq!(admit(1059), none);
        assert_eq!(admit(1060), full);
        // A clock that was set back.
        assert_eq!(admit(500), full);
        let why = rates.admit(subject("f1", "w1"), full, 500).1.unwrap();
        let text = "1 crashes of this fingerprint have their core within 1m".to_owned();
        assert_eq!(why, (DropReason::RateFingerprint, text));
    }

    #[test]
    fn a_workload_has_a_limit_of_its_own() {
        let state = tempfile::tempdir().unwrap();
        let rates = rates(state.path());
        let admit = |fingerprint: &str| rates.admit(subject(fingerprint, "w"), Action::Full, 0);
        assert_eq!((admit("a").0, admit("b").0), (Action::Full, Action::Full));
        let (action, why) = admit("c");
        assert_eq!(
            (action, why.unwrap().0),
            (Action::Minicore, DropReason::RateWorkload)
        );
        rates.give_back(subject("b", "w"));
        assert_eq!(admit("b").0, Action::Full);
        // What is small anyway takes no core from others.
        let small = rates.admit(subject("d", "v"), Action::Metadata, 0);
        assert_eq!(small, (Action::Metadata, None));
        assert_eq!(
            rates.admit(subject("d", "v"), Action::Full, 0).0,
            Action::Full
        );
    }

    #[test]
    fn of_many_at_once_as_many_are_admitted_as_may_be() {
        let state = tempfile::tempdir().unwrap();
        let rates = rates(state.path());
        let admit = || rates.admit(subject("x", "w"), Action::Full, 7).0;
        let found = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(admit)).collect();
            let found = threads.into_iter().map(|thread| thread.join().unwrap());
            found.collect::<Vec<_>>()
        });
        let count = |wanted| found.iter().filter(|action| **action == wanted).count();
        assert_eq!(
            (
                count(Action::Full),
                count(Action::Minicore),
                count(Action::Ignore)
            ),
            (1, 2, 13)
        );
    }

    #[test]
    fn the_table_is_bounded_and_a_broken_one_admits() {
        let state = tempfile::tempdir().unwrap();
        let rates = rates(state.path());
        let counts: Counts = (0..KEYS + 50)
            .map(|number| (format!("f:{number}"), Window::default()))
            .collect();
        std::fs::create_dir_all(state.path().join("rates")).unwrap();
        let file = state.path().join("rates/counts.json");
        std::fs::write(&file, serde_json::to_vec(&counts).unwrap()).unwrap();
        rates.admit(subject("new", "w"), Action::Full, 1_000_000);
        let left: Counts = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert!(left.len() <= KEYS && left.contains_key("f:new"));
        std::fs::write(&file, "{").unwrap();
        assert_eq!(
            rates.admit(subject("new", "w"), Action::Full, 1).0,
            Action::Full
        );
        assert_eq!(rates.is_spent("w", 1), None);
    }
}
