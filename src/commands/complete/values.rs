//! Completes values from the listing cache and the config file, without contacting a store.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use cdh_store::DumpSummary;
use jiff::Timestamp;

use super::Candidate;
use super::walk::Position;
use crate::args::{ColorWhen, GlobalArgs};
use crate::pipeline;
use crate::query::{FIELDS, LISTING_TERMS, NEW_SINCE, TERMS};
use crate::render::age;
use crate::settings::{Role, Settings, environment};

/// Examples of times; the user can type any other.
const TIMES: [&str; 7] = ["1h", "6h", "1d", "7d", "30d", "today", "yesterday"];

/// Signals that dump core (`signal(7)`).
const SIGNALS: [&str; 8] = [
    "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGQUIT", "SIGSEGV", "SIGSYS", "SIGTRAP",
];

/// Where values come from.
#[derive(Default)]
pub(super) struct Values {
    settings: Option<Settings>,
    listed: OnceCell<Vec<DumpSummary>>,
}

impl Values {
    /// The store that the command line, the environment or the config file names.
    pub(super) fn new(position: &Position) -> Self {
        let environment = environment();
        let given = |option: &str, variable: &str| {
            let typed = position.given.get(option);
            typed.or_else(|| environment.get(variable)).cloned()
        };
        let global = GlobalArgs {
            store: given("store", "CDH_STORE"),
            config: given("config", "CDH_CONFIG").map(PathBuf::from),
            color: ColorWhen::Never,
        };
        Self {
            // If the config file is broken, only values from the declarations are offered.
            settings: Settings::gather(&global, Role::Workstation).ok(),
            listed: OnceCell::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn empty() -> Self {
        Self::default()
    }

    fn dumps(&self) -> &[DumpSummary] {
        self.listed.get_or_init(|| {
            let settings = self.settings.as_ref();
            settings.map(pipeline::cached_listing).unwrap_or_default()
        })
    }

    /// The values of an argument; `None` if only its declaration knows them. `start` is the part that
    /// the user typed.
    pub(super) fn of(&self, argument: &str, start: &str) -> Option<Vec<Candidate>> {
        Some(match argument {
            "dump" | "dumps" | "a" | "b" => self.references(start),
            "terms" => self.terms(start),
            "namespace" | "namespace_or_count" => self.names(|dump| dump.namespace.clone()),
            "pod" => self.names(|dump| dump.pod.clone()),
            "exe" => self.names(|dump| Some(dump.exe.to_string())),
            "signal" => self.signals(start),
            "fingerprint" => self.names(|dump| dump.fingerprint.clone()),
            "store" => self.stores(),
            "since" | "until" | "new_since" | "older_than" => times(),
            "field" => fields(),
            _ => return None,
        })
    }

    /// Ids, newest first. The shell completes paths.
    fn references(&self, start: &str) -> Vec<Candidate> {
        if start.contains('/') || start.starts_with(['.', '~']) {
            return Vec::new();
        }
        let now = Timestamp::now();
        let describe = |dump: &DumpSummary| {
            let when = dump.captured().map(|time| age(time, now));
            let when = when.map_or_else(|| "imported".to_owned(), |age| format!("{age} ago"));
            let place = [dump.namespace.as_deref(), dump.pod.as_deref()];
            let place: Vec<&str> = place.into_iter().flatten().collect();
            let place = place.join("/");
            format!("{} {} {when} {place}", dump.exe, dump.signal)
                .trim_end()
                .to_owned()
        };
        let newest = self.dumps().first().map(describe);
        let latest = Candidate::new(
            "latest",
            newest.unwrap_or_else(|| "the newest dump".to_owned()),
        );
        let is_whole = start.len() > 8;
        let ids = self.dumps().iter().map(|dump| {
            let id = match is_whole {
                true => dump.id.to_string(),
                false => dump.id.short(),
            };
            Candidate::new(id, describe(dump))
        });
        std::iter::once(latest).chain(ids).collect()
    }

    /// Terms, or after a colon the values of one.
    fn terms(&self, start: &str) -> Vec<Candidate> {
        if let Some((name, _)) = start.split_once(':') {
            let term = match name {
                "ns" => "namespace",
                "sig" => "signal",
                "fp" => "fingerprint",
                NEW_SINCE => "new_since",
                "truncated" => {
                    return ["yes", "no"]
                        .map(|value| prefixed(name, &Candidate::new(value, "")))
                        .to_vec();
                }
                name => name,
            };
            let is_term = TERMS.iter().any(|(known, _)| *known == term) || term == "new_since";
            let start = start.get(name.len() + 1..).unwrap_or_default();
            let values = self.of(term, start).filter(|_| is_term).unwrap_or_default();
            return values.iter().map(|value| prefixed(name, value)).collect();
        }
        let terms = TERMS.iter().chain(&LISTING_TERMS);
        terms
            .map(|(name, help)| Candidate::new(format!("{name}:"), format!("dumps {help}")))
            .collect()
    }

    fn names(&self, name: impl Fn(&DumpSummary) -> Option<String>) -> Vec<Candidate> {
        // A name that was shortened in its key cannot be searched for.
        let known: BTreeSet<String> = self.dumps().iter().filter_map(name).collect();
        known
            .into_iter()
            .map(|name| Candidate::new(name, ""))
            .collect()
    }

    /// Names get the prefix `SIG` only if the user types it.
    fn signals(&self, start: &str) -> Vec<Candidate> {
        let listed = self.dumps().iter().map(|dump| dump.signal.as_str());
        let known: BTreeSet<&str> = listed
            .filter(|signal| signal.starts_with("SIG"))
            .chain(SIGNALS)
            .collect();
        let is_long = start.len() > 1 && start.starts_with("SI");
        let shown = |signal: &str| match is_long {
            true => signal.to_owned(),
            false => signal.trim_start_matches("SIG").to_owned(),
        };
        known
            .into_iter()
            .map(|signal| Candidate::new(shown(signal), ""))
            .collect()
    }

    fn stores(&self) -> Vec<Candidate> {
        let Some(settings) = &self.settings else {
            return Vec::new();
        };
        let stores = settings.stores.iter();
        stores
            .map(|(name, url)| Candidate::new(name, url.to_string()))
            .collect()
    }
}

fn prefixed(term: &str, value: &Candidate) -> Candidate {
    Candidate {
        value: format!("{term}:{}", value.value),
        description: value.description.clone(),
    }
}

fn times() -> Vec<Candidate> {
    TIMES.map(|time| Candidate::new(time, "")).to_vec()
}

fn fields() -> Vec<Candidate> {
    let fields = FIELDS.iter();
    fields
        .map(|(name, journal, _)| Candidate::new(*name, journal))
        .collect()
}
