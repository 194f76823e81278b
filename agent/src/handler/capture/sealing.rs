//! How a capture ends: with a core, without one, or without a dump.
//!
//! Invariant: each of these ends appends one line to the ledger, and so does an entry that cannot be
//! begun or sealed.

use std::io;

use cdh_bundle::{Cause, CoreEncoding, EntryKind, Gap, Manifest, RawText, Verdict};
use jiff::Timestamp;

use super::copying::{Copied, Hold, StoredCore};
use super::state::{CORE, Capture, Captured};
use crate::handler::copy::core_stream::CoreStream;
use crate::handler::copy::disk_guard::DiskGuard;
use crate::handler::record::account;
use crate::handler::record::dump_info::DumpInfo;
use crate::handler::record::gap::{gap, kind_of};
use crate::handler::record::identity::core_record;
use crate::handler::record::plan::Plan;
use crate::handler::startup::log::{HandlerLog, readable_size};
use crate::handler::startup::settings::HandlerSettings;
use crate::ledger::LedgerRecord;
use crate::outcome::Action;
use crate::outcome::DropReason;
use crate::policy::Account;
use crate::spool::{PartialEntry, SpoolError, Wanted, make_room, share_note, size_of};

/// Bytes that a dump without a core takes: minicore, facts and log.
const SMALL: u64 = 2 << 20;
/// A dump of a setuid program for which less than this is left is dropped: registers, stacks and facts
/// of a small process take about 200 KiB.
const LEAST_DUMP: u64 = 256 << 10;
/// Bytes that are written after the core: manifest, log, what is known of the container.
const AFTER_CORE: u64 = 128 << 10;
/// A core is not begun if less than this can be stored.
const LEAST_CORE: u64 = 1 << 20;

/// Creates an entry that names its owner. Where the disk is full, older dumps make room.
pub(crate) fn begin_entry(
    settings: &HandlerSettings,
    manifest: &Manifest,
    account: &Account,
) -> Result<PartialEntry, SpoolError> {
    let begin = || {
        let entry = PartialEntry::create(&settings.spool, manifest.id)?;
        let noted = entry.create_beside(&share_note(account));
        match noted.and_then(|_| entry.write_identity(manifest)) {
            Ok(()) => Ok(entry),
            Err(error) => {
                // It would have no identity: no dump is better than an empty one.
                entry.discard();
                Err(error)
            }
        }
    };
    begin().or_else(|error| {
        if reason_of(&error) != DropReason::NoSpace {
            return Err(error);
        }
        room(settings, None, SMALL, account);
        begin()
    })
}

/// Makes room in the spool; bytes that may be written.
fn room(
    settings: &HandlerSettings,
    id: Option<cdh_bundle::DumpId>,
    need: u64,
    account: &Account,
) -> u64 {
    let wanted = Wanted {
        spool: &settings.spool,
        uploads: &settings.state.join("uploads"),
        id,
        need,
        account: Some(account),
    };
    let Ok(made) = make_room(&wanted, &settings.limits, settings.floor) else {
        return u64::MAX;
    };
    for record in &made.given_up {
        account::append(settings, record);
    }
    made.room
}

/// Why the spool does not take it.
pub(crate) fn reason_of(error: &SpoolError) -> DropReason {
    match kind_of(error) {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DropReason::NoSpace,
        _ => DropReason::Spool,
    }
}

/// The end of a crash that becomes no dump.
pub(crate) fn nothing(
    settings: &HandlerSettings,
    manifest: &Manifest,
    plan: &Plan,
    log: &HandlerLog,
) -> Captured {
    let (reason, why) = plan.reason();
    let seconds = log.elapsed().as_secs_f64();
    let record = LedgerRecord {
        seconds,
        blocked_seconds: seconds,
        ..account::of_nothing(manifest, reason, &why)
    };
    account::append(settings, &record);
    let process = &manifest.process;
    let (name, pid, signal) = (
        process.exe_name(),
        process.pid,
        &manifest.crash_signal().name,
    );
    Captured {
        path: None,
        summary: format!("no dump of {name} (pid {pid}, {signal}): {why}"),
        verdict: plan.verdict(),
    }
}

/// Records an entry that could not be sealed.
pub(crate) struct LostEntry<'s> {
    record: LedgerRecord,
    settings: &'s HandlerSettings,
}

impl<'s> LostEntry<'s> {
    pub(crate) fn new(manifest: &Manifest, settings: &'s HandlerSettings) -> Self {
        Self {
            record: LedgerRecord {
                // The shipper may yet seal what there is, and shall not count it again.
                id: Some(manifest.id),
                ..account::of_nothing(manifest, DropReason::Spool, "")
            },
            settings,
        }
    }

    /// The shipper seals what is there, when it can.
    pub(crate) fn tell(self, captured: &Result<Captured, SpoolError>) {
        if let Err(error) = captured {
            let record = self.record.because(reason_of(error), gap("", error).why);
            account::append(self.settings, &record);
        }
    }
}

/// The handler's peak memory, as the kernel reports it.
fn peak_memory() -> Option<String> {
    let status = std::fs::read("/proc/self/status").ok()?;
    let peak = crate::handler::os::proc_status::status_field(&status, "VmHWM")?;
    Some(RawText::from(peak).to_string())
}

/// Whether the next core of the kind may become whole: this one was truncated by another process, or there was
/// no
/// room. Limits of our own cut the next one as well.
fn is_bad_luck(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Truncated { cause, .. } | Verdict::Empty { cause, .. } => {
            !matches!(cause, Cause::Limit | Cause::Deadline)
        }
        _ => false,
    }
}

impl Capture<'_> {
    /// Whether a core may be begun that takes so many bytes at most; if not, the plan says why.
    pub(crate) fn has_room(&mut self, need: u64, guard: &DiskGuard) -> bool {
        let need = match self.settings.core_limit {
            0 => need,
            limit => need.min(limit),
        };
        let room = room(
            self.settings,
            Some(self.entry.id()),
            need.saturating_add(SMALL),
            self.plan.account(),
        );
        if self.is_over(room) {
            return false;
        }
        // The entry's other files count towards the quota too. The core's begun file is small by now.
        let others = size_of(self.entry.path()).saturating_add(AFTER_CORE);
        let room = match room {
            u64::MAX => room,
            room => room.saturating_sub(others),
        };
        if room < need.min(LEAST_CORE) {
            let why = format!("the spool's quota leaves {room} bytes");
            self.plan.restrict(Action::Minicore, DropReason::Quota, why);
            return false;
        }
        guard.set_quota(room);
        true
    }

    /// Whether a setuid program's dump would exceed the quota of its kind; the plan then wants none.
    /// These dumps wait on the node for its administrator, so no later one makes room.
    fn is_over(&mut self, room: u64) -> bool {
        let is_over = self.plan.account().is_setuid() && room < LEAST_DUMP;
        if is_over {
            let why = "dumps of setuid programs have used up their part of the spool's quota";
            self.plan
                .restrict(Action::Ignore, DropReason::Quota, why.to_owned());
        }
        is_over
    }

    /// There shall be no dump.
    pub(crate) fn discard(self) -> Captured {
        let captured = nothing(self.settings, &self.manifest, &self.plan, self.log);
        self.entry.discard();
        captured
    }

    /// The dump is as small as the plan says. Nothing more is needed of the process.
    pub(crate) fn seal_without_core(mut self, stream: CoreStream) -> Result<Captured, SpoolError> {
        let mut hold = Hold {
            stream: Some(stream),
            pin: self.pin.take(),
            held: None,
        };
        self.release(&mut hold);
        self.write_facts();
        self.entry.release_reserve();
        self.entry.remove_file(&CORE.file_name());
        self.manifest.core = None;
        self.manifest.verdict = self.plan.verdict();
        let (_, why) = self.plan.reason();
        self.log.note(&format!("no core: {why}"));
        let action = self.plan.action();
        if action == Action::Metadata {
            self.gaps.push(Gap {
                what: "minicore".to_owned(),
                why: why.clone(),
            });
        }
        self.gaps.push(Gap {
            what: "core".to_owned(),
            why,
        });
        let is_setuid = self.plan.account().is_setuid();
        if (action == Action::Minicore || is_setuid) && self.plan.reason().0 != DropReason::Quota {
            let room = room(
                self.settings,
                Some(self.entry.id()),
                SMALL,
                self.plan.account(),
            );
            if self.is_over(room) {
                return Ok(self.discard());
            }
        }
        self.seal()
    }

    pub(crate) fn finish_core(&mut self, copied: Copied<'_>, got: u64, expected: Option<u64>) {
        let outcome = copied.outcome;
        for error in [&outcome.write_error, &outcome.read_error]
            .into_iter()
            .flatten()
        {
            self.gaps.push(gap("core", error));
        }
        self.entry.release_reserve();
        self.manifest.core = None;
        let encoding = copied.encoding;
        let stored = match copied.core.filter(|_| got > 0).map(StoredCore::finish) {
            Some(Ok(finished)) => {
                if let Some(digests) = finished.digests {
                    self.entry.record(&CORE, digests);
                }
                finished.size
            }
            Some(Err(error)) => {
                // The frames are there; the shipper's salvage cannot do better than a gap here.
                self.gaps.push(gap("core", &error));
                self.entry.remove_file(&CORE.file_name());
                self.manifest.verdict = Verdict::Empty {
                    cause: Cause::NoSpace,
                    evidence: Some(error.to_string()),
                };
                return;
            }
            None if encoding == CoreEncoding::None => got,
            None => return self.entry.remove_file(&CORE.file_name()),
        };
        let expected = expected.unwrap_or(got);
        self.manifest.core = Some(core_record(&self.manifest.stem, encoding, got, expected));
        self.log
            .note(&format!("core stored in {}", readable_size(stored)));
    }

    pub(crate) fn seal(mut self) -> Result<Captured, SpoolError> {
        let encoding = self.manifest.core.as_ref().map(|core| core.encoding);
        let kind = encoding.map_or(CORE, EntryKind::Core);
        let core = kind.bundle_name(&self.manifest.stem);
        let info = DumpInfo::new(&self.manifest, &core);
        self.write_json(EntryKind::DumpInfo, "dump-info.json", &info);
        let verdict = self.manifest.verdict.clone();
        self.log.note(&verdict.describe());
        if let Some(peak) = peak_memory() {
            self.log
                .note(&format!("peak memory of the handler: {peak}"));
        }
        for gap in &self.gaps {
            self.log
                .note(&format!("missing: {}: {}", gap.what, gap.why));
        }
        let text = self.log.text().to_owned();
        self.note_gap_of("log", |this| {
            this.entry
                .write_file(&EntryKind::HandlerLog, text.as_bytes())
        });
        self.manifest.gaps = self.gaps;
        self.manifest.finished_at = Some(Timestamp::now());
        let elapsed = self.log.elapsed();
        let summary = summary(&self.manifest, elapsed);
        if is_bad_luck(&verdict) {
            self.plan.give_back(self.manifest.fingerprint.as_deref());
        }
        let record = account::of_dump(&self.manifest, &self.plan);
        let path = self.entry.seal(self.manifest)?;
        let record = LedgerRecord {
            stored_bytes: size_of(&path),
            seconds: elapsed.as_secs_f64(),
            blocked_seconds: self.blocked.unwrap_or(elapsed).as_secs_f64(),
            ..record
        };
        account::append(self.settings, &record);
        Ok(Captured {
            path: Some(path),
            summary,
            verdict,
        })
    }
}

/// One line for the kernel log.
fn summary(manifest: &Manifest, elapsed: std::time::Duration) -> String {
    let process = &manifest.process;
    format!(
        "dump {} of {} (pid {}, {}): {} in {:.3} s, {} gaps",
        manifest.id,
        process.exe_name(),
        process.pid,
        manifest.crash_signal().name,
        manifest.verdict.describe(),
        elapsed.as_secs_f64(),
        manifest.gaps.len(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_a_limit_of_ours_cut_still_counts() {
        let cut = |cause| Verdict::Truncated {
            expected: 2,
            got: 1,
            cause,
            evidence: None,
        };
        assert!(is_bad_luck(&cut(Cause::Killed)) && is_bad_luck(&cut(Cause::NoSpace)));
        assert!(!is_bad_luck(&cut(Cause::Limit)) && !is_bad_luck(&Verdict::Complete));
    }
}
