//! The shipper: takes sealed entries from the spool to the store, and salvages what dead handlers
//! left.
//!
//! It may be killed at any moment: entries change by renames only, and the store sees a dump when
//! its manifest is there. One shipper per spool, by a lock. It knows nothing of the kernel's
//! settings.

mod backoff;
mod signals;
mod sweep;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cdh_store::{Store, StoreError};
use rustix::fs::{FlockOperation, flock};

pub use sweep::{SetuidDumps, ShipperEvent, SweepError, SweepReport};

use crate::paths::AgentPaths;
use crate::spool::{SpoolError, prepare_spool};
use backoff::Backoff;
use signals::StopSignals;
use sweep::{Sweeper, explain};
use watch::SpoolWatch;

/// Between two passes when nothing is heard from the spool: the death of a handler makes no sound.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Why the shipper does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShipperError {
    /// Another one has the spool.
    #[error("another shipper works on the spool {spool}")]
    AlreadyRunning {
        /// The spool.
        spool: PathBuf,
    },
    /// The spool's directories cannot be used.
    #[error("cannot use {path}")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The spool is not private, or cannot be made.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A pass could not be made.
    #[error(transparent)]
    Sweep(#[from] SweepError),
    /// Waiting for work failed.
    #[error("cannot wait for work")]
    Wait(#[source] io::Error),
}

/// Makes one pass over the spool.
///
/// # Errors
/// When another shipper runs, the spool cannot be read, or the store takes nothing.
pub fn sweep(
    paths: &AgentPaths,
    store: &dyn Store,
    setuid: SetuidDumps,
    observer: &mut dyn FnMut(&ShipperEvent),
) -> Result<SweepReport, ShipperError> {
    let _lock = lock(paths)?;
    let mut report = SweepReport::default();
    let mut sweeper = Sweeper {
        spool: &paths.spool,
        setuid,
        stop: &|| false,
        observer,
        failures: BTreeMap::new(),
        kept: BTreeSet::new(),
    };
    sweeper.salvage(&mut report)?;
    sweeper.ship(store, &mut report)?;
    Ok(report)
}

/// Ships until SIGTERM or SIGINT comes. A store that cannot be opened or does not answer is waited
/// for; what happens is told to `observer`.
///
/// # Errors
/// When another shipper runs, or the spool cannot be watched or read.
pub fn run(
    paths: &AgentPaths,
    open_store: &dyn Fn() -> Result<Box<dyn Store>, StoreError>,
    setuid: SetuidDumps,
    observer: &mut dyn FnMut(&ShipperEvent),
) -> Result<(), ShipperError> {
    let _lock = lock(paths)?;
    let signals = StopSignals::catch().map_err(ShipperError::Wait)?;
    let unusable = |source| ShipperError::Unusable {
        path: paths.spool.clone(),
        source,
    };
    // Watched before the first look, so that nothing falls between the two.
    let mut watch = SpoolWatch::new(&paths.spool).map_err(unusable)?;
    let stop = || signals.stop_requested();
    let mut sweeper = Sweeper {
        spool: &paths.spool,
        setuid,
        stop: &stop,
        observer,
        failures: BTreeMap::new(),
        kept: BTreeSet::new(),
    };
    let mut backoff = Backoff::default();
    let mut next_try = std::time::Instant::now();
    let mut store: Option<Box<dyn Store>> = None;
    while !stop() {
        let mut report = SweepReport::default();
        sweeper.salvage(&mut report)?;
        let now = std::time::Instant::now();
        let mut wait = SWEEP_INTERVAL;
        if now >= next_try {
            let shipped = match &store {
                Some(_) => Ok(()),
                None => open_store()
                    .map(|opened| store = Some(opened))
                    .map_err(SweepError::Store),
            };
            let shipped = shipped.and_then(|()| match &store {
                Some(store) => sweeper.ship(store.as_ref(), &mut report),
                None => Ok(()),
            });
            match shipped {
                Ok(()) if backoff.failures() > 0 => {
                    backoff.succeeded();
                    (sweeper.observer)(&ShipperEvent::StoreBack);
                }
                Ok(()) => {}
                Err(SweepError::Store(error)) => {
                    // Opened anew the next time: it may have been moved or mounted again.
                    store = None;
                    let retry_in = backoff.failed();
                    next_try = now + retry_in;
                    let why = explain(&error);
                    (sweeper.observer)(&ShipperEvent::StoreFailed { why, retry_in });
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(left) = next_try.checked_duration_since(std::time::Instant::now()) {
            wait = wait.min(left);
        }
        watch.wait(&signals, wait).map_err(ShipperError::Wait)?;
    }
    Ok(())
}

/// Whether a shipper runs on this node.
#[must_use]
pub fn is_running(paths: &AgentPaths) -> bool {
    let Ok(file) = File::open(paths.shipper_lock()) else {
        return false;
    };
    matches!(
        flock(&file, FlockOperation::NonBlockingLockShared),
        Err(rustix::io::Errno::WOULDBLOCK)
    )
}

/// The lock of the spool's only shipper; makes the directories where they are missing.
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
