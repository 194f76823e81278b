//! One line of the ledger: what became of a crash, or later of its dump.

use cdh_bundle::{Cause, DumpId, Manifest, RawText, Verdict};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::policy::Action;

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A crash: its dump has the core, as much of it as there was.
    Kept,
    /// A crash: its dump has less than it could have; the reason is recorded.
    Reduced,
    /// A crash without a dump.
    Dropped,
    /// No crash: a dump that waits in the spool has lost its core, or also its minicore.
    Degraded,
    /// No crash: a dump was removed from the spool before it was in the store.
    Removed,
    /// A newer handler knows.
    #[serde(other)]
    Unknown,
}

/// Why less was kept than there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// A rule of the node's policy, or its default.
    Policy,
    /// An annotation of the pod.
    Pod,
    /// The pod is not known.
    UnknownPod,
    /// It gained privileges.
    Setuid,
    /// Enough crashes of the same fingerprint.
    RateFingerprint,
    /// Enough crashes of the same workload.
    RateWorkload,
    /// The spool's quota.
    Quota,
    /// The disk: full, or at the floor.
    NoSpace,
    /// The limit for one core.
    Limit,
    /// The time limit for one core.
    Deadline,
    /// The spool cannot be written: read-only, gone, not private.
    Spool,
    /// The handler died or failed.
    Handler,
    /// A newer handler knows.
    #[serde(other)]
    Unknown,
}

impl Outcome {
    /// As it stands in records and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Reduced => "reduced",
            Self::Dropped => "dropped",
            Self::Degraded => "degraded",
            Self::Removed => "removed",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it counts a crash; the others tell what became of a dump later.
    #[must_use]
    pub fn is_crash(self) -> bool {
        matches!(self, Self::Kept | Self::Reduced | Self::Dropped)
    }
}

impl DropReason {
    /// As it stands in records and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Pod => "pod",
            Self::UnknownPod => "unknown_pod",
            Self::Setuid => "setuid",
            Self::RateFingerprint => "rate_fingerprint",
            Self::RateWorkload => "rate_workload",
            Self::Quota => "quota",
            Self::NoSpace => "no_space",
            Self::Limit => "limit",
            Self::Deadline => "deadline",
            Self::Spool => "spool",
            Self::Handler => "handler",
            Self::Unknown => "unknown",
        }
    }

    /// Why a core was cut, where that was the node's own doing.
    #[must_use]
    pub fn of_cause(cause: Cause) -> Option<Self> {
        Some(match cause {
            Cause::NoSpace => Self::NoSpace,
            Cause::Limit => Self::Limit,
            Cause::Deadline => Self::Deadline,
            Cause::Policy => Self::Policy,
            Cause::RateLimit => Self::RateFingerprint,
            Cause::Quota => Self::Quota,
            Cause::HandlerDied => Self::Handler,
            _ => return None,
        })
    }
}

/// One line. Texts from outside are cut to [`LedgerRecord::TEXT`] bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerRecord {
    /// Its number, counted up without end; 0 until it is appended.
    #[serde(default)]
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, where it is less than it could have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<DropReason>,
    /// The reason in words: which rule, which limit, what the system said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The dump, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<DumpId>,
    /// How much of it was kept.
    #[serde(default)]
    pub action: Action,
    /// Name of the process.
    #[serde(default)]
    pub name: RawText,
    /// Its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<RawText>,
    /// Its id on the host.
    #[serde(default)]
    pub pid: u64,
    /// User id on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// `SIGSEGV`.
    #[serde(default)]
    pub signal: String,
    /// Of the crashing thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Namespace, pod and container, or unit, or container id, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The pod's UID, by which the agent finds names that the handler does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The runtime's id of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// `complete`, `truncated`, `empty`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Who cut the core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Bytes of the plain core that were captured.
    #[serde(default)]
    pub core_bytes: u64,
    /// Bytes that the dump takes in the spool, or that were given up.
    #[serde(default)]
    pub stored_bytes: u64,
    /// From the handler's start to the sealed dump.
    #[serde(default)]
    pub seconds: f64,
    /// How long the process had to wait for its end.
    #[serde(default)]
    pub blocked_seconds: f64,
}

impl LedgerRecord {
    /// Bytes of a text from outside.
    pub const TEXT: usize = 256;

    /// A record of what a manifest is about.
    #[must_use]
    pub fn of(manifest: &Manifest, outcome: Outcome) -> Self {
        let process = &manifest.process;
        let id_of = |field: fn(&cdh_bundle::Workload) -> &Option<String>| {
            let id = field(manifest.workload.as_ref()?).as_deref()?;
            Some(id.chars().take(Self::TEXT).collect())
        };
        let (verdict, cause) = match &manifest.verdict {
            Verdict::Truncated { cause, .. } | Verdict::Empty { cause, .. } => {
                (manifest.verdict.word(), Some(*cause))
            }
            verdict => (verdict.word(), None),
        };
        Self {
            seq: 0,
            at: Timestamp::now(),
            outcome,
            reason: None,
            detail: None,
            id: Some(manifest.id),
            action: Action::Full,
            name: cut(&process.name),
            exe: process.exe.as_ref().map(cut),
            pid: process.pid,
            uid: process.uid,
            signal: manifest.signal.name.clone(),
            fingerprint: manifest.fingerprint.clone(),
            workload: manifest.workload.as_ref().and_then(workload_name),
            pod_uid: id_of(|workload| &workload.pod_uid),
            container_id: id_of(|workload| &workload.container_id),
            verdict: Some(verdict.to_owned()),
            cause,
            core_bytes: manifest.core.as_ref().map_or(0, |core| core.size),
            stored_bytes: 0,
            seconds: 0.0,
            blocked_seconds: 0.0,
        }
    }

    /// What it counts under in the sums: `kept`, `dropped/policy`.
    #[must_use]
    pub fn key(&self) -> String {
        let outcome = self.outcome.name();
        match self.reason {
            Some(reason) => format!("{outcome}/{}", reason.name()),
            None => outcome.to_owned(),
        }
    }

    /// The same with a reason.
    #[must_use]
    pub fn because(mut self, reason: DropReason, detail: impl Into<String>) -> Self {
        let detail: String = detail.into();
        self.reason = Some(reason);
        self.detail = Some(detail.chars().take(Self::TEXT).collect());
        self
    }
}

fn cut(text: &RawText) -> RawText {
    let bytes = text.as_bytes();
    RawText::from(bytes.get(..LedgerRecord::TEXT).unwrap_or(bytes))
}

/// `namespace/pod/container`, or else what is known of it.
pub(crate) fn workload_name(workload: &cdh_bundle::Workload) -> Option<String> {
    let unit = || workload.extra.get("unit")?.as_str().map(str::to_owned);
    let name = match (&workload.namespace, &workload.pod, &workload.container) {
        (Some(namespace), Some(pod), Some(container)) => format!("{namespace}/{pod}/{container}"),
        (Some(namespace), Some(pod), None) => format!("{namespace}/{pod}"),
        (_, _, Some(container)) => container.clone(),
        _ => workload
            .pod_uid
            .clone()
            .or_else(|| workload.container_id.clone())
            .or_else(unit)?,
    };
    Some(name.chars().take(LedgerRecord::TEXT).collect())
}
