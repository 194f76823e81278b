//! The content of a notification about a crash. Texts from outside are escaped and truncated.

use cdh_bundle::{Manifest, WorkloadKind};
use serde_json::{Value, json};

/// Maximum length of one text, in characters.
const LONGEST: usize = 256;

/// Identifies equal crashes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CrashKey {
    /// The tenant: a namespace; empty for the host. Each tenant's share of the remembered crashes
    /// is limited.
    pub namespace: String,
    /// Workload and fingerprint.
    pub crash: String,
}

/// A crash that is new on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crash {
    /// Identifies crashes that are reported once: the same fingerprint in the same workload.
    pub key: CrashKey,
    /// Id of the dump.
    pub id: String,
    /// Fingerprint of the crashing thread.
    pub fingerprint: Option<String>,
    /// Time of the crash.
    pub at: String,
    /// Name of the node.
    pub node: String,
    /// The pod, if the process was in one.
    pub pod: Option<Pod>,
    /// The image.
    pub image: Option<String>,
    /// Name of the program.
    pub program: String,
    /// Process id on the host.
    pub pid: u64,
    /// `SIGSEGV`.
    pub signal: String,
    /// The signal in words: `address not mapped, at 0x0`.
    pub description: String,
    /// `complete`, `truncated`, `empty`.
    pub verdict: String,
    /// The verdict in words.
    pub verdict_text: String,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: Option<String>,
    /// The container.
    pub container: Option<String>,
}

impl Crash {
    /// Takes the facts from a dump's manifest.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        let process = &manifest.process;
        let program = cut(&process.exe_name().to_string());
        let workload = manifest.workload.as_ref();
        let is_pod = workload.is_some_and(|workload| workload.kind != Some(WorkloadKind::Host));
        let pod = workload.filter(|_| is_pod).and_then(|workload| {
            Some(Pod {
                namespace: cut(workload.namespace.as_deref()?),
                name: cut(workload.pod.as_deref()?),
                uid: workload.pod_uid.as_deref().map(cut),
                container: workload.container.as_deref().map(cut),
            })
        });
        let node = workload.and_then(|workload| workload.node.as_deref());
        let node = node.map_or_else(|| cut(&manifest.node.to_string()), cut);
        let fingerprint = manifest.fingerprint.as_deref().map(cut);
        // Without a backtrace, crashes of the same program by the same signal are equal.
        let same = fingerprint
            .clone()
            .unwrap_or_else(|| format!("{program}/{}", manifest.crash_signal().name));
        // Pods of a Deployment are short-lived, so the crash belongs to the Deployment.
        let owner = workload.and_then(|workload| workload.owner.as_ref());
        let named = match (owner, &pod) {
            (Some(owner), _) => cut(&owner.to_string()),
            (None, Some(pod)) => format!("Pod {}", pod.name),
            (None, None) => String::new(),
        };
        let key = CrashKey {
            namespace: pod
                .as_ref()
                .map_or_else(String::new, |pod| pod.namespace.clone()),
            crash: format!("{named} {same}"),
        };
        Self {
            key,
            id: manifest.id.to_string(),
            fingerprint,
            at: manifest.captured_at.to_string(),
            node,
            pod,
            image: manifest.image.as_ref().map(|image| cut(&image.reference)),
            program,
            pid: process.pid,
            signal: cut(&manifest.crash_signal().name),
            description: cut(&manifest.crash_signal().description),
            verdict: manifest.verdict.word().to_owned(),
            verdict_text: cut(&manifest.verdict.describe()),
        }
    }

    /// One line for people.
    #[must_use]
    pub fn headline(&self) -> String {
        let place = match &self.pod {
            Some(pod) => format!(" in {}/{}", pod.namespace, pod.name),
            None => String::new(),
        };
        let detail = match self.description.as_str() {
            "" => String::new(),
            detail => format!(" ({detail})"),
        };
        format!(
            "{}{place} on {} died of {}{detail}",
            self.program, self.node, self.signal
        )
    }

    /// All facts as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let pod = self.pod.as_ref();
        json!({
            "schema": 1,
            "event": "crash",
            "dump": self.id,
            "fingerprint": self.fingerprint,
            "time": self.at,
            "node": self.node,
            "namespace": pod.map(|pod| &pod.namespace),
            "pod": pod.map(|pod| &pod.name),
            "pod_uid": pod.and_then(|pod| pod.uid.as_ref()),
            "container": pod.and_then(|pod| pod.container.as_ref()),
            "image": self.image,
            "program": self.program,
            "pid": self.pid,
            "signal": self.signal,
            "description": self.description,
            "verdict": self.verdict,
            "verdict_text": self.verdict_text,
            "command": format!("cdh bt {}", self.id),
        })
    }
}

/// Removes control characters and limits the length.
fn cut(text: &str) -> String {
    let harmless = text.chars().flat_map(|letter| match letter.is_control() {
        true => letter.escape_default().collect::<Vec<_>>(),
        false => vec![letter],
    });
    harmless.take(LONGEST).collect()
}
