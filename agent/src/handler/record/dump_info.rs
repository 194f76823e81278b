//! `dump-info.json`: the few facts in the keys that IBM's core-dump-handler uses.
//!
//! Scripts that read its bundles find here what they look for: all values are strings, as there.
//! The JSON is serialized, so no name from outside can add a key.

use cdh_bundle::{Manifest, RawText};
use serde::Serialize;

/// Contents of `dump-info.json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DumpInfo {
    uuid: String,
    dump_file: String,
    ext: &'static str,
    timestamp: String,
    hostname: RawText,
    exe: RawText,
    real_pid: String,
    signal: String,
    node_hostname: RawText,
    path: RawText,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    podname: Option<String>,
}

impl DumpInfo {
    /// From what the manifest says. `core` is the name of the core's entry.
    #[must_use]
    pub(crate) fn new(manifest: &Manifest, core: &str) -> Self {
        let process = &manifest.process;
        let workload = manifest.workload.as_ref();
        Self {
            uuid: manifest.id.to_string(),
            dump_file: core.to_owned(),
            ext: "zst",
            timestamp: manifest.captured_at.as_second().to_string(),
            hostname: manifest.hostname.clone(),
            exe: process.name.clone(),
            real_pid: process.pid.to_string(),
            signal: manifest.signal.number.to_string(),
            node_hostname: manifest.node.clone(),
            path: process.exe.clone().unwrap_or_default(),
            namespace: workload.and_then(|workload| workload.namespace.clone()),
            podname: workload.and_then(|workload| workload.pod.clone()),
        }
    }
}
