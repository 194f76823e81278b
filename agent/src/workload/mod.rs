//! Identifies the workload of a dump: namespace, pod, container, image, last log lines.
//!
//! ```text
//! handler   cgroup ──▶ pod UID, container id ──▶ identity.json          (never asks anybody)
//!           container outside of Kubernetes ──▶ the engine's own files, while the process is held
//! daemon    <id>.partial appears ──▶ lookup: runtime's socket, 2 s in all ──▶ answer is kept
//!           entry is sealed      ──▶ enrich: files and an amended manifest ──▶ shipped
//! ```
//!
//! The runtime is queried by container id as soon as the entry appears, because containers are removed
//! soon after the crash. Without an answer, its earlier lists (see `lookup_cache`) and the names of the
//! kubelet's log directories are used. Facts that remain unknown are gaps with the reason. Invariants:
//! nothing here is on the critical path from the kernel to the spool. An entry is sealed or amended,
//! never in between ([`cdh_bundle::amend`]). All operations are idempotent.

#![cfg_attr(not(feature = "cri"), allow(dead_code))]

pub(crate) mod engine;
mod enrich;
mod files;
mod options;
mod pod_logs;
mod scrub;
mod table;

#[cfg(feature = "cri")]
mod cri_lookup;
#[cfg(feature = "cri")]
mod lookup_cache;
#[cfg(feature = "cri")]
mod lookups;
#[cfg(not(feature = "cri"))]
#[path = "no_lookups.rs"]
mod lookups;
#[cfg(feature = "cri")]
mod shapes;

pub(crate) use enrich::{Enriched, Enricher};
pub(crate) use lookups::runtime_at;
pub use options::WorkloadOptions;
pub(crate) use table::PodTable;

use cdh_bundle::{EntryKind, Gap, ImageRef, Workload};

use crate::policy::PodSettings;

/// The facts found about a container.
#[derive(Clone, Debug, Default)]
struct Answer {
    workload: Workload,
    image: Option<ImageRef>,
    files: Vec<(EntryKind, Vec<u8>)>,
    /// Log files, by the number of the container, to be read again after the process has ended.
    logs: Vec<(u32, std::path::PathBuf)>,
    /// Values that must not appear in them.
    secrets: Vec<String>,
    settings: PodSettings,
    gaps: Vec<Gap>,
    /// The container's first process, if the runtime reports it: it ends with the container.
    init_pid: Option<u64>,
    /// Whether the runtime reports that it has ended.
    exited: bool,
    /// The container's cgroup, if the runtime reports it.
    cgroup: Option<String>,
    /// The cgroup of the process contradicts the runtime.
    disputed: bool,
}

fn gap(what: &str, why: impl Into<String>) -> Gap {
    Gap {
        what: what.to_owned(),
        why: why.into(),
    }
}
