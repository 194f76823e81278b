//! The shipper uploads sealed spool entries to the store, and salvages entries of dead handlers.
//!
//! It may be killed at any time: entries change state only by rename, and the store shows a dump
//! only when its manifest is uploaded. A lock ensures one shipper per spool. The shipper does not
//! know the kernel's settings.

mod backoff;
mod drops;
mod event;
mod modules;
mod patient;
mod plan;
mod queue;
mod receipts;
mod record;
mod request;
mod schedule;
mod signals;
mod sweep;
mod uploads;
mod waiting;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cdh_bundle::DumpId;
use cdh_store::{FirstSeenWriter, Store, StoreError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};

pub use drops::DropLine;
pub(crate) use drops::all_uploaded;
pub use event::{SetuidDumps, ShipperEvent, SweepError, SweepReport};
pub use plan::{ShipperOptions, ShippingPlan};
pub use record::{EntryTrouble, RuntimeTrouble, ShipperRecord, StoreTrouble};
pub use schedule::{Schedule, ScheduleError};
pub use waiting::{WaitReason, WaitingDump, waiting};

use crate::error_chain::explain;
use crate::handler::startup::settings::HandlerSettings;
use crate::ledger::Ledger;
use crate::paths::AgentPaths;
use crate::spool::{SpoolError, prepare_spool};
use crate::workload::{Enricher, WorkloadOptions};
use backoff::StorePatience;
use drops::DropsKeeper;
use modules::ModuleKeeper;
use plan::{Bandwidth, Due};
use queue::Queue;
pub(crate) use receipts::UploadReceipts;
use record::RecordKeeper;
use request::Request;
pub use signals::StopSignals;
use sweep::Sweeper;
use watch::SpoolWatch;

/// Time between two passes without inotify events: the death of a handler causes none.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Minimum time between two passes while something waits for a retry.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// Time between two searches for abandoned uploads.
const TIDYING: Duration = Duration::from_secs(6 * 3600);

/// Age after which a multipart upload counts as abandoned. An agent that could not reach its store
/// for longer starts the upload again.
const STALE_UPLOAD: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long one pass waits for running handlers. Sealing takes milliseconds, or seconds on a slow
/// disk.
const SEALING_TIME: Duration = Duration::from_secs(3);

/// Why the shipper does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShipperError {
    /// Another shipper holds the spool's lock.
    #[error("another shipper works on the spool {spool}")]
    AlreadyRunning {
        /// The spool.
        spool: PathBuf,
    },
    /// A directory of the spool cannot be used.
    #[error("cannot use {path}")]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The spool is not private, or cannot be created.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A pass failed.
    #[error(transparent)]
    Sweep(#[from] SweepError),
    /// Waiting for work failed.
    #[error("cannot wait for work")]
    Wait(#[source] io::Error),
}

/// Runs one pass over the spool.
///
/// The kernel releases a process before its handler has sealed the entry. A pass right after a
/// crash therefore gives running handlers a moment to finish. It does not wait for longer captures.
///
/// # Errors
/// Fails if another shipper runs, the spool cannot be read, or the store rejects everything.
pub fn sweep(
    paths: &AgentPaths,
    store: &dyn Store,
    options: impl Into<ShipperOptions>,
    observer: &mut dyn FnMut(&ShipperEvent),
) -> Result<SweepReport, ShipperError> {
    let _lock = lock(paths)?;
    let mut report = SweepReport::default();
    let journals = paths.uploads();
    let enricher = Enricher::begin(&workloads(paths), &paths.spool);
    let mut sweeper = sweeper(paths, &journals, options.into(), enricher, observer);
    let deadline = Instant::now() + SEALING_TIME;
    while sweeper.has_live_entries()? && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    sweeper.salvage(&mut report)?;
    let shipped = sweeper.ship(store, &mut report);
    match &shipped {
        Err(SweepError::Store(error)) => sweeper.record.store_fails(error, None),
        Ok(()) if !report.shipped.is_empty() => sweeper.record.store_works(),
        _ => {}
    }
    sweeper.record.save();
    shipped?;
    Ok(report)
}

fn sweeper<'a>(
    paths: &'a AgentPaths,
    journals: &'a Path,
    options: ShipperOptions,
    enricher: Enricher,
    observer: &'a mut dyn FnMut(&ShipperEvent),
) -> Sweeper<'a> {
    let mut record = RecordKeeper::open(&paths.state);
    env!("CARGO_PKG_VERSION").clone_into(&mut record.record.version);
    record.record.store.clone_from(&options.store);
    record.record.manages_node = options.manages_node;
    options.plan.word().clone_into(&mut record.record.plan);
    record.record.next_shipment = None;
    record.record.runtimes.clear();
    Sweeper {
        spool: &paths.spool,
        journals,
        bandwidth: Bandwidth::new(options.bandwidth),
        options,
        first_seen: FirstSeenWriter::default(),
        enricher,
        modules: ModuleKeeper::new(paths.keep_modules, &paths.spool),
        stop: &|| false,
        observer,
        failures: BTreeMap::new(),
        record,
        runtimes: BTreeMap::new(),
        seen: BTreeSet::new(),
        queue: Queue::default(),
        store_down: false,
        ledger: Ledger::of(&paths.state),
        fallback: Ledger::of(&paths.fallback),
        drops: DropsKeeper::new(&paths.state, workloads(paths).node.as_deref()),
    }
}

/// Options for workload lookups, with the node name that the handler writes into its dumps.
fn workloads(paths: &AgentPaths) -> WorkloadOptions {
    let installed = || HandlerSettings::read(&paths.handler_settings()).0.node;
    let mut workloads = paths.workloads.clone();
    workloads.node = workloads.node.or_else(installed);
    workloads
}

/// Asks the running agent to ship now, even if its plan is `off`: these dumps, or all that wait.
/// Returns when the agent has accepted the request; the result shows in the spool.
///
/// # Errors
/// Fails if the request cannot be written, or if the agent does not accept it within `patience`.
pub fn ask_to_ship(
    paths: &AgentPaths,
    only: Option<BTreeSet<DumpId>>,
    patience: Duration,
) -> io::Result<()> {
    Request { only }.leave(&paths.spool)?;
    let deadline = Instant::now() + patience;
    while !request::is_taken(&paths.spool) {
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Opens the store. Called again after the store failed.
pub type OpenStore<'a> = dyn Fn() -> Result<Box<dyn Store>, StoreError> + 'a;

/// Ships until SIGTERM or SIGINT arrives. If the store cannot be opened or does not answer, it
/// retries with backoff. Reports events to `observer`.
///
/// # Errors
/// Fails if another shipper runs, or if the spool cannot be watched or read.
pub fn run(
    paths: &AgentPaths,
    open_store: &OpenStore<'_>,
    options: impl Into<ShipperOptions>,
    observer: &mut dyn FnMut(&ShipperEvent),
) -> Result<(), ShipperError> {
    let signals = StopSignals::catch().map_err(ShipperError::Wait)?;
    crate::supervise::refresh_kill_trace(paths);
    run_until(signals.as_fd(), paths, open_store, options, observer)
}

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
/// Fails if the signals cannot be blocked or polled.
pub fn wait_for_stop() -> Result<(), ShipperError> {
    let signals = StopSignals::catch().map_err(ShipperError::Wait)?;
    let mut stop = [PollFd::new(&signals, PollFlags::IN)];
    loop {
        match poll(&mut stop, None) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(ShipperError::Wait(error.into())),
        }
    }
}

/// Like [`run`], until `stop` is readable.
///
/// # Errors
/// Like [`run`].
pub fn run_until(
    stop: BorrowedFd<'_>,
    paths: &AgentPaths,
    open_store: &OpenStore<'_>,
    options: impl Into<ShipperOptions>,
    observer: &mut dyn FnMut(&ShipperEvent),
) -> Result<(), ShipperError> {
    let _lock = lock(paths)?;
    let _receiver = crate::supervise::socket::ReceiverWatch::begin(paths);
    let unusable = |source| ShipperError::Unusable {
        path: paths.spool.clone(),
        source,
    };
    // Watch before the first scan, so that no entry is missed between the two.
    let mut watch = SpoolWatch::new(&paths.spool).map_err(unusable)?;
    let stopped = || is_readable(stop);
    let journals = paths.uploads();
    let options = options.into();
    let haste = options.haste.max(1);
    let mut due = Due::new(&options);
    let enricher = Enricher::begin(&workloads(paths), &paths.spool).watch();
    let mut sweeper = sweeper(paths, &journals, options, enricher, observer);
    sweeper.stop = &stopped;
    sweeper.forget_journals();
    let mut patience = StorePatience::default();
    let mut store = None;
    let mut tidied: Option<Instant> = None;
    while !stopped() {
        let mut report = SweepReport::default();
        sweeper.salvage(&mut report)?;
        sweeper.report_runtimes();
        let mut wait = SWEEP_INTERVAL / haste;
        let request = Request::take(&paths.spool);
        let asked = request.is_some();
        sweeper.options.only = request.and_then(|request| request.only);
        let is_due = asked || due.left() == Some(Duration::ZERO);
        // Check the store at start, so that an unusable store is reported before the first crash.
        let is_unknown = store.is_none() && due.left().is_some();
        if asked || patience.is_over() && (is_due || is_unknown) {
            let reached = reach(&mut store, open_store);
            let shipped = reached.and_then(|store| match is_due {
                true => sweeper.ship(store, &mut report),
                false => Ok(()),
            });
            match shipped {
                Ok(()) => {
                    if is_due && !asked {
                        due.shipped();
                    }
                    patience.succeeded();
                    sweeper.store_answers();
                    if tidied.is_none_or(|at| at.elapsed() >= TIDYING) {
                        tidied = Some(Instant::now());
                        tidy(store.as_deref(), sweeper.observer);
                    }
                }
                Err(SweepError::Store(error)) => {
                    // Reopen it next time: it may have been moved or remounted.
                    store = None;
                    sweeper.store_down = true;
                    let retry_in = patience.failed(haste);
                    let hint = error.hint().map(Into::into);
                    let why = explain(&error);
                    sweeper.record.store_fails(&error, sweep::after(retry_in));
                    (sweeper.observer)(&ShipperEvent::StoreFailed {
                        why,
                        hint,
                        retry_in,
                    });
                }
                Err(error) => return Err(error.into()),
            }
        }
        sweeper.record.record.next_shipment = due.next_shipment();
        sweeper.record.save();
        (sweeper.observer)(&ShipperEvent::Pass);
        // Retry failed entries when both their own backoff and the store's are over.
        let next = match (patience.left(), due.left()) {
            (Some(left), _) => Some(left),
            (None, Some(Duration::ZERO)) => sweeper.next_try(),
            (None, left) => left,
        };
        if let Some(left) = next {
            wait = wait.min(left.max(SHORTEST_WAIT / haste));
        }
        watch.wait(stop, wait).map_err(ShipperError::Wait)?;
    }
    Ok(())
}

/// Aborts abandoned uploads: their parts cost money and do not show in listings.
fn tidy(store: Option<&dyn Store>, observer: &mut dyn FnMut(&ShipperEvent)) {
    let event = match store.map(|store| store.abort_stale_uploads(STALE_UPLOAD)) {
        None | Some(Ok(0)) => return,
        Some(Ok(count)) => ShipperEvent::UploadsAborted { count },
        Some(Err(error)) => ShipperEvent::UploadsKept {
            why: explain(&error),
        },
    };
    observer(&event);
}

/// The store; opens and checks it if it is not open yet.
fn reach<'s>(
    store: &'s mut Option<Box<dyn Store>>,
    open_store: &OpenStore<'_>,
) -> Result<&'s dyn Store, SweepError> {
    let opened = match store.take() {
        Some(opened) => opened,
        None => {
            let opened = open_store().map_err(SweepError::Store)?;
            match opened.check() {
                // Write-only credentials: the first upload shows whether they work.
                Ok(()) | Err(StoreError::Denied { said: Some(_), .. }) => opened,
                Err(error) => return Err(SweepError::Store(error)),
            }
        }
    };
    Ok(&**store.insert(opened))
}

fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Whether a shipper runs on this node.
#[must_use]
pub fn is_running(paths: &AgentPaths) -> bool {
    running(paths).unwrap_or_default()
}

/// Like [`is_running`]; `None` if the caller may not look into root's state directory.
pub(crate) fn running(paths: &AgentPaths) -> Option<bool> {
    let file = match File::open(paths.shipper_lock()) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
        Err(_) => return Some(false),
    };
    Some(matches!(
        flock(&file, FlockOperation::NonBlockingLockShared),
        Err(rustix::io::Errno::WOULDBLOCK)
    ))
}

/// Takes the lock of the spool's only shipper; creates missing directories.
fn lock(paths: &AgentPaths) -> Result<File, ShipperError> {
    let unusable = |path: &Path, source| ShipperError::Unusable {
        path: path.to_owned(),
        source,
    };
    let mut private = fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    private
        .create(&paths.state)
        .map_err(|source| unusable(&paths.state, source))?;
    let uploads = paths.uploads();
    private
        .create(&uploads)
        .map_err(|source| unusable(&uploads, source))?;
    prepare_spool(&paths.spool)?;
    let path = paths.shipper_lock();
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| unusable(&path, source))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ShipperError::AlreadyRunning {
            spool: paths.spool.clone(),
        }),
        Err(error) => Err(unusable(&path, error.into())),
    }
}

#[cfg(test)]
mod shipping_tests;

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::ffi::OsString;
    use std::io::{Seek, Write};

    use cdh_bundle::Verdict;
    use cdh_store::{Catalog, DirectoryStore, Query};

    use super::*;
    use crate::handler::startup::settings::HandlerSettings;
    use crate::handler::{HandlerArguments, HandlerLog, capture};

    /// A spool, a store, and dumps of processes that never existed.
    pub(super) struct Node {
        root: tempfile::TempDir,
        pub(super) paths: AgentPaths,
    }

    impl Node {
        pub(super) fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let paths = AgentPaths::below(root.path());
            Self { root, paths }
        }

        pub(super) fn dump(&self, name: &str, dumpable: &str) -> PathBuf {
            let words = ["s11".to_owned(), format!("d{dumpable}"), format!("e{name}")];
            let arguments = HandlerArguments::parse(words.map(OsString::from));
            let settings = HandlerSettings {
                spool: self.paths.spool.clone(),
                state: self.paths.state.clone(),
                ..HandlerSettings::default()
            };
            let mut stream = tempfile::tempfile().unwrap();
            stream
                .write_all(b"not a core, and kept nevertheless")
                .unwrap();
            stream.rewind().unwrap();
            capture(&arguments, &settings, stream, HandlerLog::default())
                .unwrap()
                .path
                .unwrap()
        }

        pub(super) fn store(&self) -> DirectoryStore {
            DirectoryStore::create(self.root.path().join("store")).unwrap()
        }

        pub(super) fn dumps(&self) -> usize {
            Catalog::new(&self.store())
                .find(&Query::default())
                .unwrap()
                .len()
        }

        pub(super) fn sweep(&self) -> SweepReport {
            sweep(&self.paths, &self.store(), SetuidDumps::Keep, &mut |_| {}).unwrap()
        }
    }

    #[test]
    fn sweep_removes_an_entry_after_its_upload() {
        let node = Node::new();
        let path = node.dump("one", "1");
        let report = node.sweep();
        assert_eq!((report.shipped.len(), node.dumps()), (1, 1));
        assert!(!path.exists());
        assert_eq!(node.sweep().shipped.len(), 0);
    }

    #[test]
    fn sweep_writes_receipts_only_for_complete_cores_and_only_if_asked() {
        let complete = |node: &Node| {
            let id = super::shipping_tests::entry(node, 1, 10);
            let path = node.paths.spool.join(id.to_string());
            let bundle = cdh_bundle::BundleWriter::from_entry(&path).unwrap();
            let mut manifest = bundle.manifest().clone();
            let encoding = cdh_bundle::CoreEncoding::None;
            manifest.core = Some(cdh_bundle::CoreRecord {
                entry: cdh_bundle::EntryKind::Core(encoding).bundle_name(&manifest.stem),
                encoding,
                size: 10,
                expected: 10,
                sha256: None,
            });
            cdh_bundle::amend(&path, manifest, &[]).unwrap();
            id
        };
        let node = Node::new();
        prepare_spool(&node.paths.spool).unwrap();
        let id = complete(&node);
        let receipts = UploadReceipts::of(&node.paths.uploads());
        assert_eq!(node.sweep().shipped, [id]);
        assert!(!receipts.has(id), "not asked for");
        receipts.begin().unwrap();
        let id = complete(&node);
        // Its verdict is truncated.
        let other = node.dump("odd", "1");
        assert_eq!(node.sweep().shipped.len(), 2);
        let other = other.file_name().unwrap().to_str().unwrap();
        assert!(receipts.has(id) && !receipts.has(other.parse().unwrap()));
    }

    #[test]
    fn sweep_quarantines_a_damaged_entry_and_ships_the_others() {
        let node = Node::new();
        let rotten = node.dump("rotten", "1");
        node.dump("good", "1");
        fs::write(rotten.join("core.zst"), "something else").unwrap();
        let report = node.sweep();
        assert_eq!((report.quarantined.len(), report.shipped.len()), (1, 1));
        let name = rotten.file_name().unwrap();
        let place = node.paths.spool.join(crate::spool::QUARANTINE).join(name);
        assert!(
            fs::read_to_string(place.join("reason.txt"))
                .unwrap()
                .contains("core.zst")
        );
        assert_eq!(fs::read(place.join("core.zst")).unwrap(), b"something else");
    }

    #[test]
    fn sweep_keeps_setuid_dumps_on_the_node_unless_configured() {
        let node = Node::new();
        let path = node.dump("su", "2");
        assert_eq!(node.sweep().kept.len(), 1);
        assert!(path.exists());
        let store = node.store();
        let report = sweep(&node.paths, &store, SetuidDumps::Ship, &mut |_| {}).unwrap();
        assert_eq!(report.shipped.len(), 1);
    }

    #[test]
    fn shipper_uploads_everything_after_the_store_recovers() {
        let node = Node::new();
        node.dump("before", "1");
        let (stop, stopper) = rustix::pipe::pipe().unwrap();
        let opened = Cell::new(0);
        let open = || -> Result<Box<dyn Store>, StoreError> {
            opened.set(opened.get() + 1);
            match opened.get() {
                1 => Err(StoreError::NotFound {
                    path: "the store".to_owned(),
                }),
                _ => Ok(Box::new(node.store())),
            }
        };
        let mut stopper = Some(stopper);
        let mut log = Vec::new();
        let mut observer = |event: &ShipperEvent| {
            let word = match event {
                ShipperEvent::StoreFailed { .. } => "failed",
                ShipperEvent::StoreBack => "back",
                ShipperEvent::Pass | ShipperEvent::Sealed { .. } | ShipperEvent::Runtime { .. } => {
                    return;
                }
                // Added while the shipper runs: only inotify announces it.
                ShipperEvent::Shipped { name, .. } if name == "before" => {
                    node.dump("after", "1");
                    "before"
                }
                ShipperEvent::Shipped { .. } => {
                    stopper = None;
                    "after"
                }
                _ => "other",
            };
            log.push(word);
        };
        let begun = Instant::now();
        run_until(
            stop.as_fd(),
            &node.paths,
            &open,
            SetuidDumps::Keep,
            &mut observer,
        )
        .unwrap();
        assert_eq!(log, ["failed", "before", "back", "after"]);
        assert_eq!(node.dumps(), 2);
        assert!(begun.elapsed() < SWEEP_INTERVAL);
    }

    #[test]
    fn shipper_refuses_to_run_twice() {
        let node = Node::new();
        assert!(!is_running(&node.paths));
        let held = lock(&node.paths).unwrap();
        assert!(is_running(&node.paths));
        let error = sweep(&node.paths, &node.store(), SetuidDumps::Keep, &mut |_| {}).unwrap_err();
        assert!(
            matches!(error, ShipperError::AlreadyRunning { .. }),
            "{error}"
        );
        drop(held);
        assert!(!is_running(&node.paths));
    }

    #[test]
    fn invalid_core_is_shipped_unchanged_and_never_complete() {
        let node = Node::new();
        node.dump("odd", "1");
        node.sweep();
        let store = node.store();
        let catalog = Catalog::new(&store);
        let dump = catalog.find(&Query::default()).unwrap().remove(0);
        let manifest = catalog.manifest(&dump).unwrap();
        assert!(
            matches!(manifest.verdict, Verdict::Truncated { .. }),
            "{:?}",
            manifest.verdict
        );
        let bundle = cdh_bundle::BundleReader::open(store.read(&dump.key).unwrap()).unwrap();
        let mut core = Vec::new();
        io::Read::read_to_end(&mut bundle.core_reader().unwrap().unwrap(), &mut core).unwrap();
        assert_eq!(core, b"not a core, and kept nevertheless");
        assert!(bundle.verify().unwrap().is_good());
    }
}
