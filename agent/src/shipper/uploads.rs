//! Parallel uploads, each in its own thread.
//!
//! A thread only sends and compares. The sweep processes the results one after the other and
//! changes the spool. One slot is reserved for small dumps, so that a core of many gigabytes does
//! not delay the next crash's backtrace.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;
use std::time::{Duration, Instant};

use cdh_bundle::{BundleWriter, SpoolEntry};
use cdh_store::{
    FirstSeenWriter, Flow, ShipError, ShipOptions, Shipped, Store, StoreError, ship_resumable,
};

use super::plan::Bandwidth;
use super::queue::Weight;
use crate::spool::EntryLock;

/// A dump to upload.
pub(super) struct Upload {
    pub(super) entry: SpoolEntry,
    pub(super) bundle: BundleWriter,
    /// Journal of the upload's progress.
    pub(super) journal: PathBuf,
    /// Records when its crash was first seen.
    pub(super) first_seen: FirstSeenWriter,
    /// Held while its files are read.
    pub(super) _lock: Option<EntryLock>,
}

/// Result of an upload.
pub(super) struct Done {
    pub(super) upload: Upload,
    pub(super) result: Result<Shipped, ShipError>,
    pub(super) took: Duration,
    weight: Weight,
}

/// The running uploads.
pub(super) struct Uploads<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    parallel: usize,
    running: usize,
    heavy: usize,
    sender: Sender<Done>,
    receiver: Receiver<Done>,
}

impl<'scope, 'env> Uploads<'scope, 'env> {
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>, parallel: usize) -> Self {
        let (sender, receiver) = channel();
        Self {
            scope,
            parallel: parallel.max(1),
            running: 0,
            heavy: 0,
            sender,
            receiver,
        }
    }

    /// Whether another upload may start.
    pub(super) fn has_room(&self, weight: Weight) -> bool {
        let heavy_places = self.parallel.saturating_sub(1).max(1);
        self.running < self.parallel && (weight == Weight::Light || self.heavy < heavy_places)
    }

    /// Starts an upload.
    pub(super) fn begin(
        &mut self,
        store: &'env dyn Store,
        upload: Upload,
        weight: Weight,
        stop: &'env (dyn Fn() -> bool + Sync),
        bandwidth: &Bandwidth,
    ) {
        let bandwidth = bandwidth.clone();
        let sender = self.sender.clone();
        self.running += 1;
        self.heavy += usize::from(weight == Weight::Heavy);
        self.scope.spawn(move || {
            let begun = Instant::now();
            let flow = |bytes| {
                bandwidth.take(bytes, stop);
                match stop() {
                    true => Flow::Stop,
                    false => Flow::Go,
                }
            };
            let options = ShipOptions {
                journal: &upload.journal,
                flow: &flow,
                first_seen: &upload.first_seen,
            };
            let send = || ship_resumable(store, &upload.bundle, &options);
            let result = catch_unwind(AssertUnwindSafe(send)).unwrap_or_else(|_| {
                let source = io::Error::other("the upload panicked: this is a bug");
                let path = upload.entry.path.display().to_string();
                Err(StoreError::Io { path, source }.into())
            });
            // The receiver lives in the same scope, so sending does not fail.
            let _ = sender.send(Done {
                result,
                took: begun.elapsed(),
                upload,
                weight,
            });
        });
    }

    /// Waits for one upload to finish; `None` if none is running.
    pub(super) fn wait(&mut self) -> Option<Done> {
        if self.running == 0 {
            return None;
        }
        let done = self.receiver.recv().ok()?;
        self.running -= 1;
        self.heavy -= usize::from(done.weight == Weight::Heavy);
        Some(done)
    }
}
