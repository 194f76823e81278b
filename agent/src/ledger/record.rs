//! One line of the ledger: the outcome of a crash, or a later change to its dump.

use cdh_bundle::{Cause, DumpId, Manifest, RawText, Verdict};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::outcome::{Action, DropReason, Outcome};

/// One line. Texts from outside are truncated to [`LedgerRecord::TEXT`] bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerRecord {
    /// Its number, strictly increasing; 0 until it is appended.
    #[serde(default)]
    pub seq: u64,
    /// Time of the crash or change.
    pub at: Timestamp,
    /// The outcome.
    pub outcome: Outcome,
    /// The reason, if less was stored than possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<DropReason>,
    /// The reason in words: the rule, the limit, or the system's error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The dump, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<DumpId>,
    /// How much was stored.
    #[serde(default)]
    pub action: Action,
    /// Name of the process.
    #[serde(default)]
    pub name: RawText,
    /// Path of the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<RawText>,
    /// Process id on the host.
    #[serde(default)]
    pub pid: u64,
    /// User id on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// `SIGSEGV`.
    #[serde(default)]
    pub signal: String,
    /// Fingerprint of the crashing thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Namespace, pod and container, or unit, or container id, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The pod's UID. The agent uses it to find names that the handler does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The runtime's id of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// `complete`, `truncated`, `empty`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// What truncated the core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Captured bytes of the plain core.
    #[serde(default)]
    pub core_bytes: u64,
    /// Bytes that the dump occupies in the spool, or that were freed.
    #[serde(default)]
    pub stored_bytes: u64,
    /// Seconds from the handler's start to the sealed dump.
    #[serde(default)]
    pub seconds: f64,
    /// Seconds that the exit of the process was delayed.
    #[serde(default)]
    pub blocked_seconds: f64,
}

impl LedgerRecord {
    /// Maximum length of a text from outside, in bytes.
    pub const TEXT: usize = 256;

    /// A record for the dump of this manifest.
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
            signal: manifest.crash_signal().name.clone(),
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

    /// The key in the totals: `kept`, `dropped/policy`.
    #[must_use]
    pub fn key(&self) -> String {
        let outcome = self.outcome.name();
        match self.reason {
            Some(reason) => format!("{outcome}/{}", reason.name()),
            None => outcome.to_owned(),
        }
    }

    /// Adds a reason to the record.
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

/// `namespace/pod/container`, or the parts that are known.
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
