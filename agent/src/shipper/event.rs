//! Events of a pass over the spool, their sums, and why a pass ended early.

use std::path::PathBuf;
use std::time::Duration;

use cdh_bundle::{BundleError, DumpId, Manifest, Verdict};
use cdh_store::{ObjectKey, StoreError};

use crate::policy::SetuidPolicy;

/// What happens to dumps of setuid programs (and of other processes that the kernel marks as not
/// dumpable).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetuidDumps {
    /// They stay in the node's spool, readable by root only.
    #[default]
    Keep,
    /// They are uploaded like all others.
    Ship,
}

impl From<SetuidPolicy> for SetuidDumps {
    fn from(policy: SetuidPolicy) -> Self {
        match policy {
            SetuidPolicy::Ship => Self::Ship,
            _ => Self::Keep,
        }
    }
}

/// An action or a failure of the shipper.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ShipperEvent {
    /// A dump was uploaded and removed from the spool.
    Shipped {
        /// Id of the dump.
        id: DumpId,
        /// Name of the program, escaped.
        name: String,
        /// Its signal.
        signal: String,
        /// Whether the core is complete.
        verdict: Verdict,
        /// Its key in the store.
        key: ObjectKey,
        /// Size of the bundle in bytes.
        bytes: u64,
        /// Duration of the upload.
        took: Duration,
    },
    /// A sealed dump was seen for the first time, with everything known about its workload.
    Sealed {
        /// Its manifest.
        manifest: Box<Manifest>,
    },
    /// A pass over all entries ended.
    Pass,
    /// An entry of a dead handler was sealed.
    Salvaged {
        /// Id of the dump.
        id: DumpId,
        /// Its verdict.
        verdict: Verdict,
    },
    /// A dump of a setuid program stays on the node. Reported once for each dump, also across
    /// restarts.
    Kept {
        /// Id of the dump.
        id: DumpId,
        /// Name of the program, escaped.
        name: String,
    },
    /// A pod asked for no dumps; this one was deleted.
    Unwanted {
        /// Id of the dump.
        id: DumpId,
        /// Which pod asked for that, and how.
        why: String,
    },
    /// A dump is shipped without information about its workload.
    NotEnriched {
        /// Id of the dump.
        id: DumpId,
        /// Why.
        why: String,
    },
    /// A container runtime started or stopped answering.
    Runtime {
        /// Its socket; empty if none was found.
        socket: PathBuf,
        /// Why it does not answer.
        trouble: Option<String>,
    },
    /// Files that the process had mapped could not be stored.
    ModulesNotKept {
        /// Id of the dump.
        id: DumpId,
        /// The files, or the reason.
        why: String,
    },
    /// An entry cannot be processed; it is in quarantine.
    Quarantined {
        /// Id of the dump.
        id: DumpId,
        /// Why.
        why: String,
    },
    /// An entry cannot be processed now; the shipper will retry it.
    Failed {
        /// Id of the dump.
        id: DumpId,
        /// Why.
        why: String,
    },
    /// The store failed; all uploads wait.
    StoreFailed {
        /// Why.
        why: String,
        /// How to fix it.
        hint: Option<String>,
        /// Time until the next retry.
        retry_in: Duration,
    },
    /// The store works again.
    StoreBack,
    /// Abandoned uploads were aborted.
    UploadsAborted {
        /// Number of uploads.
        count: usize,
    },
    /// The store cannot list or abort unfinished uploads.
    UploadsKept {
        /// Why.
        why: String,
    },
}

/// Totals of one pass.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SweepReport {
    /// Dumps that were uploaded.
    pub shipped: Vec<DumpId>,
    /// Entries of dead handlers that were sealed.
    pub salvaged: Vec<DumpId>,
    /// Entries that were moved to quarantine.
    pub quarantined: Vec<DumpId>,
    /// Dumps of setuid programs that stay on the node.
    pub kept: Vec<DumpId>,
    /// Entries that will be retried.
    pub failed: Vec<DumpId>,
    /// Dumps of pods that asked for none.
    pub unwanted: Vec<DumpId>,
    /// Entries whose handlers are running.
    pub in_progress: Vec<DumpId>,
}

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SweepError {
    /// The spool cannot be read.
    #[error(transparent)]
    Spool(#[from] BundleError),
    /// The store rejects uploads.
    #[error("the store does not accept dumps")]
    Store(#[source] StoreError),
}
