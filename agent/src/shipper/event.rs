//! What a pass over the spool tells: event by event, in sums, and why it ended early.

use std::path::PathBuf;
use std::time::Duration;

use cdh_bundle::{BundleError, DumpId, Manifest, Verdict};
use cdh_store::{ObjectKey, StoreError};

use crate::policy::SetuidPolicy;

/// What is done with dumps of setuid programs (and of others that the kernel calls not dumpable).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetuidDumps {
    /// They stay on the node, in the spool, for root only.
    #[default]
    Keep,
    /// They go into the store like all others.
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

/// Something the shipper did or could not do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ShipperEvent {
    /// A dump is in the store, and no longer in the spool.
    Shipped {
        /// Which.
        id: DumpId,
        /// Name of the program, escaped.
        name: String,
        /// Its signal.
        signal: String,
        /// Whether the core is whole.
        verdict: Verdict,
        /// Where it is.
        key: ObjectKey,
        /// Bytes of the bundle.
        bytes: u64,
        /// How long it took.
        took: Duration,
    },
    /// A sealed dump was seen for the first time, with all that is known of its workload.
    Sealed {
        /// What is known of it.
        manifest: Box<Manifest>,
    },
    /// All entries were looked at.
    Pass,
    /// What a dead handler left was sealed.
    Salvaged {
        /// Which.
        id: DumpId,
        /// What is in it.
        verdict: Verdict,
    },
    /// A dump of a setuid program stays on the node. Reported once for each dump, also over restarts.
    Kept {
        /// Which.
        id: DumpId,
        /// Name of the program, escaped.
        name: String,
    },
    /// A pod wants no dumps; this one is gone.
    Unwanted {
        /// Which.
        id: DumpId,
        /// Whose.
        why: String,
    },
    /// A dump is shipped without a word about its workload.
    NotEnriched {
        /// Which.
        id: DumpId,
        /// Why.
        why: String,
    },
    /// A container runtime answers, or no longer does; reported when that changes.
    Runtime {
        /// Its socket; empty where none was found.
        socket: PathBuf,
        /// Why it does not answer.
        trouble: Option<String>,
    },
    /// Files that the process had mapped are not in the store.
    ModulesNotKept {
        /// Of which dump.
        id: DumpId,
        /// Which, or why.
        why: String,
    },
    /// Nothing can be made of an entry; it is in quarantine.
    Quarantined {
        /// Which.
        id: DumpId,
        /// Why.
        why: String,
    },
    /// An entry could not be dealt with now; it will be tried again.
    Failed {
        /// Which.
        id: DumpId,
        /// Why.
        why: String,
    },
    /// The store does not answer; everything waits.
    StoreFailed {
        /// Why.
        why: String,
        /// What to do about it.
        hint: Option<String>,
        /// When it is tried again.
        retry_in: Duration,
    },
    /// The store answers again.
    StoreBack,
    /// Uploads that nobody finished were given up.
    UploadsAborted {
        /// How many.
        count: usize,
    },
    /// The store does not tell of unfinished uploads, or does not let go of them.
    UploadsKept {
        /// Why.
        why: String,
    },
}

/// Sums of one pass.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SweepReport {
    /// Dumps that went into the store.
    pub shipped: Vec<DumpId>,
    /// Entries of dead handlers that were sealed.
    pub salvaged: Vec<DumpId>,
    /// Entries that went into quarantine.
    pub quarantined: Vec<DumpId>,
    /// Dumps of setuid programs that stay.
    pub kept: Vec<DumpId>,
    /// Entries that will be tried again.
    pub failed: Vec<DumpId>,
    /// Dumps of pods that want none.
    pub unwanted: Vec<DumpId>,
    /// Entries whose handlers are at work.
    pub in_progress: Vec<DumpId>,
}

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SweepError {
    /// The spool cannot be read.
    #[error(transparent)]
    Spool(#[from] BundleError),
    /// The store does not take anything.
    #[error("the store takes no dumps")]
    Store(#[source] StoreError),
}
