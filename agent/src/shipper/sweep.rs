//! One pass over the spool: salvage entries of dead handlers, ship sealed entries, remove uploaded
//! ones.
//!
//! Invariant: an entry leaves the spool only after the store has confirmed size and checksum of its
//! bundle and of its manifest. An entry that cannot be processed is moved to quarantine, never
//! deleted. If the store fails, the pass ends for all entries, and no entry is blamed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cdh_bundle::{
    BundleError, BundleWriter, DumpId, Manifest, SpoolEntry, SpoolState, amend, list_spool,
    sweep_spool,
};
use cdh_store::{FirstSeenWriter, ShipError, Store, StoreError};
use jiff::Timestamp;

use super::backoff::StorePatience;
use super::drops::{DropsKeeper, named_by};
use super::event::{SetuidDumps, ShipperEvent, SweepError, SweepReport};
use super::modules::ModuleKeeper;
use super::plan::{Bandwidth, ShipperOptions};
use super::queue::Queue;
use super::receipts::UploadReceipts;
use super::record::RecordKeeper;
use super::uploads::{Done, Upload, Uploads};
use crate::error_chain::explain;
use crate::ledger::{Ledger, LedgerRecord};
use crate::outcome::{DropReason, Outcome};
use crate::salvage::{SalvageError, Salvaged, salvage};
use crate::spool::{EntryLock, QUARANTINE};
use crate::workload::{Enriched, Enricher};

/// Failures of one entry before it goes into quarantine.
const PATIENCE: u32 = 5;

/// Runs passes over a spool and remembers earlier failures.
pub(super) struct Sweeper<'a> {
    pub(super) spool: &'a Path,
    /// Directory of upload journals: `<id>.journal`.
    pub(super) journals: &'a Path,
    pub(super) options: ShipperOptions,
    pub(super) bandwidth: Bandwidth,
    /// Records in the store when each crash was first seen.
    pub(super) first_seen: FirstSeenWriter,
    /// Looks up the workload of each dump.
    pub(super) enricher: Enricher,
    /// Stores the files that crashed processes had mapped.
    pub(super) modules: ModuleKeeper,
    pub(super) stop: &'a (dyn Fn() -> bool + Sync),
    pub(super) observer: &'a mut dyn FnMut(&ShipperEvent),
    pub(super) failures: BTreeMap<DumpId, StorePatience>,
    /// The record for `cdh agent status`; also remembers which kept dumps were reported.
    pub(super) record: RecordKeeper,
    /// Last reported state of each runtime.
    pub(super) runtimes: BTreeMap<PathBuf, Result<(), String>>,
    /// Sealed entries that were already reported.
    pub(super) seen: BTreeSet<DumpId>,
    pub(super) queue: Queue,
    /// The store failed, and no upload has succeeded since.
    pub(super) store_down: bool,
    /// The ledger with the outcome of each crash.
    pub(super) ledger: Ledger,
    /// The ledger of handlers that could not write the main one.
    pub(super) fallback: Ledger,
    /// Uploads counts of crashes without a dump.
    pub(super) drops: DropsKeeper,
}

impl Sweeper<'_> {
    /// Whether handlers are running.
    pub(super) fn has_live_entries(&mut self) -> Result<bool, SweepError> {
        let entries = list_spool(self.spool)?;
        self.modules.notice(&entries);
        Ok(entries.iter().any(|entry| entry.state == SpoolState::Live))
    }

    /// Reports runtimes that started or stopped answering.
    pub(super) fn report_runtimes(&mut self) {
        let now = self.enricher.runtimes();
        for socket in self.runtimes.keys() {
            if !now.contains_key(socket) {
                self.record.runtime(socket, None);
            }
        }
        for (socket, answer) in &now {
            let trouble = answer.as_ref().err();
            if self.runtimes.get(socket) == Some(answer) {
                continue;
            }
            self.record.runtime(socket, trouble.map(String::as_str));
            (self.observer)(&ShipperEvent::Runtime {
                socket: socket.clone(),
                trouble: trouble.cloned(),
            });
        }
        self.runtimes = now;
    }

    /// Seals entries of dead handlers and finishes interrupted removals. Works without a store.
    pub(super) fn salvage(&mut self, report: &mut SweepReport) -> Result<(), SweepError> {
        let _ = self.ledger.absorb(&self.fallback);
        self.drops.note(&named_by(&self.enricher));
        sweep_spool(self.spool)?;
        let entries = list_spool(self.spool)?;
        self.modules.notice(&entries);
        let is_there = |id: &DumpId| entries.iter().any(|entry| entry.id == *id);
        let _ = self.ledger.end_lost(is_there);
        self.seen.retain(is_there);
        self.record.retain(is_there);
        for entry in entries {
            match entry.state {
                _ if (self.stop)() => break,
                // Do this now, even while the store is unreachable: the runtime forgets pods.
                SpoolState::Sealed => {
                    if let Some(entry) = self.enrich(entry, report) {
                        self.report_sealed(&entry);
                    }
                }
                SpoolState::Live => report.in_progress.push(entry.id),
                _ => self.salvage_one(entry, report),
            }
        }
        Ok(())
    }

    fn journal(&self, id: DumpId) -> PathBuf {
        self.journals.join(format!("{id}.journal"))
    }

    /// Adds the workload to the dump. Returns `None` if the pod asked for no dumps and the entry
    /// was removed.
    fn enrich(&mut self, entry: SpoolEntry, report: &mut SweepReport) -> Option<SpoolEntry> {
        let id = entry.id;
        // A handler may be shrinking the entry to make room; if it is gone, it was removed for
        // newer dumps.
        let lock = match EntryLock::take(&entry.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            lock => lock.ok(),
        };
        let enriched = self.enricher.enrich(&entry, &self.journal(id));
        drop(lock);
        match enriched {
            Ok(Enriched::Ready) => {}
            Ok(Enriched::Unwanted { why, record }) => {
                self.remove(entry);
                let _ = self.ledger.append(&record);
                report.unwanted.push(id);
                (self.observer)(&ShipperEvent::Unwanted { id, why });
                return None;
            }
            Err(error) => {
                let why = explain(&error);
                (self.observer)(&ShipperEvent::NotEnriched { id, why });
            }
        }
        Some(entry)
    }

    fn salvage_one(&mut self, entry: SpoolEntry, report: &mut SweepReport) {
        let id = entry.id;
        match salvage(self.spool, id) {
            Ok(Salvaged::Sealed { verdict, .. }) => {
                self.failures.remove(&id);
                report.salvaged.push(id);
                self.record_salvaged(&entry);
                (self.observer)(&ShipperEvent::Salvaged { id, verdict });
            }
            Ok(Salvaged::Alive) => report.in_progress.push(id),
            Ok(Salvaged::Gone) => {}
            Err(error) => {
                self.entry_failed(&entry, explain(&error), is_lack_of_space(&error), report);
            }
        }
    }

    /// Reports a sealed entry once.
    fn report_sealed(&mut self, entry: &SpoolEntry) {
        // A dump that is kept on the node was captured long before this process started.
        if self.seen.insert(entry.id)
            && !self.record.record.kept.contains(&entry.id)
            && let Ok(json) = fs::read(entry.path.join("manifest.json"))
            && let Ok(manifest) = Manifest::from_json(&json)
        {
            let manifest = Box::new(manifest);
            (self.observer)(&ShipperEvent::Sealed { manifest });
        }
    }

    /// Writes the ledger record of a handler that died before it could.
    fn record_salvaged(&self, entry: &SpoolEntry) {
        /// Number of recent records searched for one that the handler wrote.
        const RECENT: u64 = 5000;
        let recent = self.ledger.totals().seq.saturating_sub(RECENT);
        let records = self.ledger.since(recent);
        let known = records.iter().any(|record| record.id == Some(entry.id));
        let sealed = self.spool.join(entry.id.to_string());
        if known {
            return;
        }
        if let Ok(bundle) = BundleWriter::from_entry(&sealed) {
            let record = LedgerRecord::of(bundle.manifest(), Outcome::Reduced);
            let why = "the handler died; its complete files were kept";
            let _ = self
                .ledger
                .append(&record.because(DropReason::Handler, why));
        }
    }

    /// Ships all sealed entries, several in parallel; see [`Queue`] for the order. Entries sealed
    /// in the meantime join the queue. Counts of crashes without a dump are uploaded last.
    pub(super) fn ship(
        &mut self,
        store: &dyn Store,
        report: &mut SweepReport,
    ) -> Result<(), SweepError> {
        let mut tried = BTreeSet::new();
        std::thread::scope(|scope| {
            let mut uploads = Uploads::new(scope, self.options.parallel);
            let mut failure = None;
            loop {
                let mut waiting = match self.queue.order(self.spool, &tried) {
                    Ok(waiting) => waiting,
                    Err(error) => {
                        failure.get_or_insert(SweepError::Spool(error));
                        Vec::new()
                    }
                };
                if let Some(only) = &self.options.only {
                    waiting.retain(|one| only.contains(&one.entry.id));
                }
                waiting.reverse();
                while failure.is_none()
                    && !(self.stop)()
                    && let Some(next) = waiting.pop()
                {
                    if !uploads.has_room(next.weight) {
                        break;
                    }
                    tried.insert(next.entry.id);
                    match self.prepare(store, next.entry, report) {
                        Ok(None) => {}
                        Ok(Some(upload)) => {
                            uploads.begin(store, upload, next.weight, self.stop, &self.bandwidth);
                        }
                        Err(error) => failure = Some(error),
                    }
                }
                let Some(done) = uploads.wait() else {
                    return failure.map_or(Ok(()), Err);
                };
                if let Err(error) = self.finish(store, done, report) {
                    failure.get_or_insert(error);
                }
            }
        })?;
        let shipped = self.drops.ship(store, &named_by(&self.enricher));
        shipped.map_err(SweepError::Store)?;
        Ok(())
    }

    /// Prepares an upload; `None` if there is nothing to upload now.
    fn prepare(
        &mut self,
        store: &dyn Store,
        entry: SpoolEntry,
        report: &mut SweepReport,
    ) -> Result<Option<Upload>, SweepError> {
        let id = entry.id;
        if self
            .failures
            .get(&id)
            .is_some_and(|trouble| !trouble.is_over())
        {
            report.failed.push(id);
            return Ok(None);
        }
        let Some(entry) = self.enrich(entry, report) else {
            return Ok(None);
        };
        self.report_sealed(&entry);
        // Meanwhile, handlers that need room take it from other entries.
        let lock = match EntryLock::take(&entry.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            lock => lock.ok(),
        };
        let bundle = match BundleWriter::from_entry(&entry.path) {
            Ok(bundle) if bundle.manifest().id == id => bundle,
            Ok(_) => {
                let why = "its manifest belongs to another dump";
                self.quarantine(&entry, why, report);
                return Ok(None);
            }
            Err(error) => {
                self.bundle_failed(&entry, &error, report);
                return Ok(None);
            }
        };
        let manifest = bundle.manifest();
        if self.options.setuid == SetuidDumps::Keep && manifest.process.dumpable == Some(2) {
            report.kept.push(id);
            if self.record.record.kept.insert(id) {
                let name = manifest.process.exe_name().to_string();
                (self.observer)(&ShipperEvent::Kept { id, name });
            }
            return Ok(None);
        }
        let journal = self.journal(id);
        let bundle = self.with_digests(&entry, bundle, &journal);
        // Before the dump is uploaded: afterwards the entry is gone.
        self.keep_modules(store, &entry, bundle.manifest());
        Ok(Some(Upload {
            entry,
            bundle,
            journal,
            first_seen: self.first_seen.clone(),
            _lock: lock,
        }))
    }

    /// Records in the manifest which files the process had mapped. An upload that was already
    /// started continues with its original bundle.
    fn with_digests(
        &mut self,
        entry: &SpoolEntry,
        bundle: BundleWriter,
        journal: &Path,
    ) -> BundleWriter {
        let identified = match journal.exists() {
            true => None,
            false => self.modules.identify(&entry.path, bundle.manifest()),
        };
        let Some(manifest) = identified else {
            return bundle;
        };
        let amended = amend(&entry.path, manifest, &[]);
        match amended.and_then(|()| BundleWriter::from_entry(&entry.path)) {
            Ok(amended) => amended,
            Err(error) => {
                let (id, why) = (entry.id, explain(&error));
                (self.observer)(&ShipperEvent::ModulesNotKept { id, why });
                bundle
            }
        }
    }

    /// Stores the modules of a dump. Failures do not delay the dump.
    fn keep_modules(&mut self, store: &dyn Store, entry: &SpoolEntry, manifest: &Manifest) {
        let kept = self.modules.keep(store, &entry.path, manifest);
        if let Some(why) = ModuleKeeper::remark(&kept) {
            let id = manifest.id;
            (self.observer)(&ShipperEvent::ModulesNotKept { id, why });
        }
    }

    /// Processes the result of an upload.
    fn finish(
        &mut self,
        store: &dyn Store,
        done: Done,
        report: &mut SweepReport,
    ) -> Result<(), SweepError> {
        let Done {
            upload,
            result,
            took,
            ..
        } = done;
        let Upload { entry, bundle, .. } = upload;
        let id = entry.id;
        match result {
            Ok(shipped) => {
                let manifest = bundle.manifest();
                let event = ShipperEvent::Shipped {
                    id,
                    name: manifest.process.exe_name().to_string(),
                    signal: manifest.crash_signal().name.clone(),
                    verdict: manifest.verdict.clone(),
                    key: shipped.key,
                    bytes: bundle.len(),
                    took,
                };
                // `cdh gc` may have deleted modules during the upload that no other dump needs.
                self.keep_modules(store, &entry, manifest);
                // Without it the collector keeps the core file: nothing is lost.
                let _ = UploadReceipts::of(self.journals).write(manifest);
                drop(bundle);
                self.remove(entry);
                self.failures.remove(&id);
                report.shipped.push(id);
                (self.observer)(&event);
                self.store_answers();
                Ok(())
            }
            Err(ShipError::Bundle(error)) => {
                self.bundle_failed(&entry, &error, report);
                Ok(())
            }
            // Another object is stored under this key. We must not replace it; other dumps are not
            // affected.
            Err(
                error @ ShipError::Store(StoreError::Conflict { .. } | StoreError::Length { .. }),
            ) => {
                self.entry_failed(&entry, explain(&error), false, report);
                Ok(())
            }
            Err(ShipError::Store(StoreError::Stopped)) => Ok(()),
            // A failure of the store, however often it occurs: the entry is intact and remains.
            Err(
                error @ (ShipError::Verify { .. }
                | ShipError::Store(
                    StoreError::UploadLost { .. } | StoreError::Changed { .. },
                )),
            ) => {
                self.entry_failed(&entry, explain(&error), true, report);
                Ok(())
            }
            Err(ShipError::Store(error)) => Err(SweepError::Store(error)),
            Err(error) => {
                self.entry_failed(&entry, explain(&error), false, report);
                Ok(())
            }
        }
    }

    /// Reports that the store works again, if it had failed.
    pub(super) fn store_answers(&mut self) {
        self.record.store_works();
        if std::mem::take(&mut self.store_down) {
            (self.observer)(&ShipperEvent::StoreBack);
        }
    }

    fn bundle_failed(&mut self, entry: &SpoolEntry, error: &BundleError, report: &mut SweepReport) {
        // An entry that does not match its own manifest today will not match it tomorrow.
        match error {
            BundleError::Io { .. } => self.entry_failed(entry, explain(error), false, report),
            _ => self.quarantine(entry, &explain(error), report),
        }
    }

    /// Counts a temporary failure. After several, the entry goes into quarantine, unless the disk
    /// or the store failed, which is not the entry's fault.
    fn entry_failed(
        &mut self,
        entry: &SpoolEntry,
        why: String,
        is_patient: bool,
        report: &mut SweepReport,
    ) {
        let backoff = self.failures.entry(entry.id).or_default();
        let wait = backoff.failed(self.options.haste);
        if backoff.failures() >= PATIENCE && !is_patient {
            return self.quarantine(entry, &why, report);
        }
        report.failed.push(entry.id);
        self.record.entry_fails(entry.id, why.clone(), after(wait));
        (self.observer)(&ShipperEvent::Failed { id: entry.id, why });
    }

    fn quarantine(&mut self, entry: &SpoolEntry, why: &str, report: &mut SweepReport) {
        let id = entry.id;
        let place = || -> io::Result<()> {
            let directory = self.spool.join(QUARANTINE);
            fs::create_dir_all(&directory)?;
            fs::rename(&entry.path, directory.join(id.to_string()))?;
            fs::write(
                directory.join(id.to_string()).join("reason.txt"),
                format!("{why}\n"),
            )
        };
        let event = match place() {
            Ok(()) => {
                self.failures.remove(&id);
                report.quarantined.push(id);
                ShipperEvent::Quarantined {
                    id,
                    why: why.to_owned(),
                }
            }
            Err(error) => {
                report.failed.push(id);
                ShipperEvent::Failed {
                    id,
                    why: format!("{why}; no quarantine: {error}"),
                }
            }
        };
        (self.observer)(&event);
    }

    /// Time until the first failed entry is retried.
    pub(super) fn next_try(&self) -> Option<Duration> {
        let waits = self.failures.values();
        waits
            .map(|trouble| trouble.left().unwrap_or_default())
            .min()
    }

    /// Removes journals whose entries are gone: shipped, in quarantine, or removed by hand.
    pub(super) fn forget_journals(&self) {
        let Ok(items) = fs::read_dir(self.journals) else {
            return;
        };
        for path in items.flatten().map(|item| item.path()) {
            let stem = path.file_stem().unwrap_or_default();
            if path.extension().is_some_and(|end| end == "journal")
                && !self.spool.join(stem).exists()
            {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Removes an entry after its upload was verified.
    fn remove(&mut self, entry: SpoolEntry) {
        let id = entry.id;
        if let Err(error) = entry.remove() {
            let why = format!(
                "it is in the store, but cannot be removed from the spool: {}",
                explain(&error)
            );
            (self.observer)(&ShipperEvent::Failed { id, why });
        }
    }
}

/// The time after this wait.
pub(super) fn after(wait: Duration) -> Option<Timestamp> {
    Timestamp::now().checked_add(wait).ok()
}

fn is_lack_of_space(error: &SalvageError) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(
            kind,
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        ) {
            return true;
        }
        source = error.source();
    }
    false
}
