//! Writes the outcome of a crash to the ledger, wherever that can still be written.
//!
//! The state directory first; where that is full, read-only or gone, the one below `/run`, which is
//! memory; where that fails too, the kernel log says so: no crash ends without a word.

use cdh_bundle::{Manifest, Verdict};

use super::plan::Plan;
use crate::handler::startup::log::{Level, kernel_log};
use crate::handler::startup::settings::HandlerSettings;
use crate::ledger::{Ledger, LedgerRecord};
use crate::outcome::Action;
use crate::outcome::{DropReason, Outcome};

/// Appends the record.
pub(crate) fn append(settings: &HandlerSettings, record: &LedgerRecord) {
    let places = [&settings.state, &settings.fallback];
    let mut problem = None;
    for place in places {
        match Ledger::of(place).append(record) {
            Ok(_) => return,
            Err(error) => problem = Some(error),
        }
    }
    let (outcome, name, pid) = (record.outcome.name(), &record.name, record.pid);
    let reason = record.reason.map_or("", DropReason::name);
    let why = problem.map(|error| error.to_string()).unwrap_or_default();
    let line = format!("not in the ledger ({why}): {name} (pid {pid}): {outcome} {reason}");
    kernel_log(Level::Error, &line);
}

/// Notes that the capture has begun. A ledger that cannot be written is reported when it ends.
pub(crate) fn begin(settings: &HandlerSettings, manifest: &Manifest) {
    let why = "its handler ended without a record, and no entry of it is in the spool";
    let record = LedgerRecord {
        id: Some(manifest.id),
        ..of_nothing(manifest, DropReason::Handler, why)
    };
    let _ = Ledger::of(&settings.state).begin(&record);
}

/// The record of a crash whose dump is sealed.
pub(crate) fn of_dump(manifest: &Manifest, plan: &Plan) -> LedgerRecord {
    let kept = LedgerRecord {
        action: plan.action(),
        ..LedgerRecord::of(manifest, Outcome::Kept)
    };
    if plan.action() != Action::Full {
        let (reason, why) = plan.reason();
        return LedgerRecord {
            outcome: Outcome::Reduced,
            ..kept.because(reason, why)
        };
    }
    let (Verdict::Truncated { cause, .. } | Verdict::Empty { cause, .. }) = &manifest.verdict
    else {
        return kept;
    };
    match DropReason::of_cause(*cause) {
        Some(reason) => LedgerRecord {
            outcome: Outcome::Reduced,
            ..kept.because(reason, manifest.verdict.describe())
        },
        // Another process truncated it: everything that existed is stored.
        None => kept,
    }
}

/// The record of a crash without a dump.
pub(crate) fn of_nothing(manifest: &Manifest, reason: DropReason, why: &str) -> LedgerRecord {
    let record = LedgerRecord::of(manifest, Outcome::Dropped).because(reason, why);
    LedgerRecord {
        id: None,
        verdict: None,
        cause: None,
        core_bytes: 0,
        action: Action::Ignore,
        ..record
    }
}
