//! The manifest: versioned index of a bundle, and its commit record.
//!
//! Pretty-printed JSON, so that people can read it with `unzip -p`. Unknown fields are ignored,
//! because a newer minor version may add some. A greater `schema` is refused with a clear error.
//!
//! The last field is a checksum of the text before it, so a manifest can be verified anywhere, in a
//! bundle or beside it. Older manifests have no checksum.
//!
//! ```text
//! {
//!   "schema": 1,
//!   …
//!   "agent_version": "0.1.0",
//!   "checksum": "sha256:<64 hex digits: of all bytes before the last comma>"
//! }
//! ```

use std::collections::BTreeMap;

use cdh_elfcore::{BuildId, ModuleKind, SignalInfo};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{BundleError, CoreEncoding, DumpId, ImageRef, RawText, Sha256, Verdict, labels};

/// Version of the manifest that this crate writes.
pub const SCHEMA: u32 = 1;

/// Everything known about a dump without reading its core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Manifest {
    /// Version of this format.
    pub schema: u32,
    /// The dump's identity.
    pub id: DumpId,
    /// Prefix of the names of the bundle's entries.
    pub stem: String,
    /// When the kernel started the handler. If unknown: [`Timestamp::UNIX_EPOCH`], `null` in JSON.
    /// See [`captured`](Self::captured).
    #[serde(default = "unknown_time", with = "capture_time")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::schema::Time>"))]
    pub captured_at: Timestamp,
    /// When the spool entry was sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::schema::Time>"))]
    pub finished_at: Option<Timestamp>,
    /// Name of the node: its Kubernetes name if the handler was given one, otherwise the hostname.
    #[serde(default)]
    pub node: RawText,
    /// UTS name of the process's container (`%h`).
    #[serde(default)]
    pub hostname: RawText,
    /// The process that crashed.
    pub process: ProcessFacts,
    /// The fatal signal: the one that ended the process.
    pub signal: SignalFacts,
    /// The fault for which a signal handler ran that then ended the process or crashed itself. Absent if there is
    /// none, and from dumps of earlier agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_signal: Option<SignalFacts>,
    /// Architecture: `x86_64`, `aarch64`.
    #[serde(default)]
    pub machine: String,
    /// Whether the core is complete.
    pub verdict: Verdict,
    /// What killed the process during the capture, in words. Only set if the kill did not truncate
    /// the core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killed: Option<String>,
    /// The core, if one is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<CoreRecord>,
    /// Where it ran, as the container runtime reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// The image of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageRef>,
    /// ELF files that the process had mapped.
    #[serde(default)]
    pub modules: Vec<ModuleRecord>,
    /// Stable hash of the crashing thread's backtrace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Number of threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread_count: Option<u64>,
    /// Every entry of the bundle except the manifest, in zip order.
    #[serde(default)]
    pub entries: Vec<EntryRecord>,
    /// What should have been captured and is missing.
    #[serde(default)]
    pub gaps: Vec<Gap>,
    /// Version of the agent.
    #[serde(default)]
    pub agent_version: String,
    /// Where an import came from; `None` for a dump that an agent captured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<ImportRecord>,
}

/// Where an imported dump came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImportRecord {
    /// When it was imported.
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Time"))]
    pub at: Timestamp,
    /// Name of the file, without its directory.
    pub file: RawText,
    /// What another handler recorded about the crash, under its own field names:
    /// `user.coredump.pid` (extended attributes of systemd-coredump), `COREDUMP_UNIT` (its journal
    /// entry).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, RawText>,
}

fn unknown_time() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

/// Serializes a time that may be unknown: `null` in JSON.
mod capture_time {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        let known = (*time != Timestamp::UNIX_EPOCH).then_some(time);
        known.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        Ok(Option::deserialize(from)?.unwrap_or(Timestamp::UNIX_EPOCH))
    }
}

/// Something that should have been captured and was not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Gap {
    /// What is missing: `minicore`, `/proc/<pid>/maps`.
    pub what: String,
    /// The reason.
    pub why: String,
}

/// The process that crashed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProcessFacts {
    /// Process id on the host.
    pub pid: u64,
    /// Process id in its own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_pid: Option<u64>,
    /// The crashing thread's id on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tid: Option<u64>,
    /// `comm` of the crashing thread or process.
    #[serde(default)]
    pub name: RawText,
    /// Path of the program, as the process saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<RawText>,
    /// Its command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Vec<RawText>>,
    /// User id on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group id on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// When the process started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::schema::Time>"))]
    pub started_at: Option<Timestamp>,
    /// `%d`: 1 is normal, 2 means that the program gained privileges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dumpable: Option<u32>,
}

impl ProcessFacts {
    /// Path of the program without the kernel's suffix for a deleted file. So a program has one name
    /// even if its file was replaced before the crash, or if it is a memfd, which always has the suffix.
    #[must_use]
    pub fn exe_path(&self) -> Option<&[u8]> {
        let path = self.exe.as_ref()?.as_bytes();
        Some(path.strip_suffix(b" (deleted)").unwrap_or(path))
    }

    /// The name that people use: the last part of the program's path, otherwise the process name.
    #[must_use]
    pub fn exe_name(&self) -> RawText {
        let path = self.exe_path().unwrap_or_default();
        match path.rsplit(|&byte| byte == b'/').next() {
            Some(name) if !name.is_empty() => RawText::from(name),
            _ => self.name.clone(),
        }
    }
}

/// The fatal signal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SignalFacts {
    /// Signal number.
    pub number: i32,
    /// `SIGSEGV`.
    #[serde(default)]
    pub name: String,
    /// `si_code`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// `si_addr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<u64>,
    /// The signal in words.
    #[serde(default)]
    pub description: String,
}

impl From<&SignalInfo> for SignalFacts {
    fn from(signal: &SignalInfo) -> Self {
        Self {
            number: signal.number,
            name: signal.name(),
            code: signal.code,
            address: signal.address.map(|address| address.0),
            description: signal.describe(),
        }
    }
}

/// The stored core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CoreRecord {
    /// Name of the core's entry in the bundle.
    pub entry: String,
    /// How it is stored.
    pub encoding: CoreEncoding,
    /// Stored bytes of the plain core.
    pub size: u64,
    /// Bytes that the core's headers promise.
    pub expected: u64,
    /// Digest of the stored bytes of the plain core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
}

/// Where the process ran, as the container runtime reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Workload {
    /// What kind of workload it is; absent in manifests of old agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<WorkloadKind>,
    /// Kubernetes namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The pod's UID. Names may be reused, UIDs are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The object that owns the pod, if labels or `ownerReferences` name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<WorkloadOwner>,
    /// Container in the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The runtime's id of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// The container runtime: `containerd`, `cri-o`, `docker`, `podman`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Source of these facts: `cri`, `cri-cache`, `logs`, `engine`, `cgroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Kubernetes node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The pod's labels, limited in number and size, without secrets.
    #[serde(
        default,
        deserialize_with = "labels::lenient",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    /// Which container wrote each log in the bundle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<ContainerLog>,
    /// Further facts from the runtime.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

/// A log in a bundle. The entry is named `<stem>-<n>.log` as in IBM's bundles, so the name does not
/// identify the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ContainerLog {
    /// End of the entry's name: `0.log` is the log of the container that crashed.
    pub file: String,
    /// The container.
    pub container: String,
    /// The container's restart count when it wrote this log.
    pub restart: u32,
}

impl std::fmt::Display for ContainerLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "container {}, restart {}", self.container, self.restart)
    }
}

impl Workload {
    /// The pod's name; outside Kubernetes, the container's name.
    #[must_use]
    pub fn pod_or_container(&self) -> Option<&String> {
        let is_in_pod = self.kind == Some(WorkloadKind::Pod) || self.namespace.is_some();
        let container = self.container.as_ref().filter(|_| !is_in_pod);
        self.pod.as_ref().or(container)
    }
}

/// What the process is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WorkloadKind {
    /// A Kubernetes pod.
    Pod,
    /// A container outside any pod.
    Container,
    /// A process on the host, outside any container.
    Host,
    /// A kind that only a newer agent knows.
    #[serde(other)]
    Unknown,
}

/// The Kubernetes object that owns a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WorkloadOwner {
    /// `Deployment`, `StatefulSet`, `DaemonSet`, `Job`, `CronJob`, or a custom kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for WorkloadOwner {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} {}", self.kind, self.name)
    }
}

/// One ELF file mapped in the core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModuleRecord {
    /// Path, as seen by the process.
    pub path: RawText,
    /// Its build-id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_id: Option<BuildId>,
    /// SHA-256 of its file, if the agent stored the file beside the dumps. Several files can claim
    /// the same build-id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// Lowest mapped address.
    pub start: u64,
    /// First address after the mapping.
    pub end: u64,
    /// What kind of module it is.
    pub kind: ModuleKind,
}

/// One entry of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EntryRecord {
    /// Its name in the zip.
    pub name: String,
    /// Uncompressed size in bytes.
    pub size: u64,
    /// CRC-32 of the uncompressed bytes.
    pub crc32: u32,
    /// SHA-256 of the uncompressed bytes.
    pub sha256: Sha256,
    /// Size in the zip, if the entry is deflated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_size: Option<u64>,
}

impl Manifest {
    /// The signal that the crash is known by: the original one if a signal handler ended the process.
    #[must_use]
    pub fn crash_signal(&self) -> &SignalFacts {
        self.original_signal.as_ref().unwrap_or(&self.signal)
    }

    /// A manifest that contains nothing else.
    #[must_use]
    pub fn new(id: DumpId, captured_at: Timestamp, verdict: Verdict) -> Self {
        Self {
            schema: SCHEMA,
            id,
            stem: String::new(),
            captured_at,
            finished_at: None,
            node: RawText::default(),
            hostname: RawText::default(),
            process: ProcessFacts::default(),
            signal: SignalFacts::default(),
            original_signal: None,
            machine: String::new(),
            verdict,
            killed: None,
            core: None,
            workload: None,
            image: None,
            modules: Vec::new(),
            fingerprint: None,
            thread_count: None,
            entries: Vec::new(),
            gaps: Vec::new(),
            agent_version: String::new(),
            imported: None,
        }
    }

    /// Parses a manifest.
    ///
    /// # Errors
    /// Fails if the schema is newer, the text is not a manifest, or the checksum does not match.
    pub fn from_json(json: &[u8]) -> Result<Self, BundleError> {
        #[derive(Deserialize)]
        struct Version {
            schema: u64,
        }
        // Check this first: damage may look like a newer schema, or like invalid JSON.
        if let Some((text, stated)) = split_checksum(json) {
            let found = Sha256::of(text).to_string();
            if !found.as_bytes().eq(stated) {
                return Err(BundleError::Mismatch {
                    entry: "manifest.json".to_owned(),
                    expected: format!("SHA-256 {}", RawText::from(stated)),
                    found,
                });
            }
        }
        let invalid = |source| BundleError::Manifest { source };
        // Check the version first: a newer schema may differ in everything else.
        let version: Version = serde_json::from_slice(json).map_err(invalid)?;
        if version.schema > u64::from(SCHEMA) {
            return Err(BundleError::Schema {
                found: version.schema,
            });
        }
        serde_json::from_slice(json).map_err(invalid)
    }

    /// When the process crashed; `None` if unknown.
    #[must_use]
    pub fn captured(&self) -> Option<Timestamp> {
        Some(self.captured_at).filter(|time| *time != Timestamp::UNIX_EPOCH)
    }

    /// The time under which a store lists the dump: that of the crash, otherwise that of the
    /// import.
    #[must_use]
    pub fn listed_at(&self) -> Timestamp {
        let imported = self.imported.as_ref().map(|imported| imported.at);
        self.captured()
            .or(imported)
            .unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Name of the node: its Kubernetes name if known, otherwise the hostname.
    #[must_use]
    pub fn node_name(&self) -> String {
        let workload = self.workload.as_ref();
        let in_kubernetes = workload.and_then(|workload| workload.node.clone());
        in_kubernetes.unwrap_or_else(|| self.node.to_string())
    }

    /// Formats the manifest as JSON.
    ///
    /// # Errors
    /// Fails if `workload.extra` cannot be written as JSON.
    pub fn to_json(&self) -> Result<Vec<u8>, BundleError> {
        let mut json =
            serde_json::to_vec_pretty(self).map_err(|source| BundleError::Manifest { source })?;
        if json.ends_with(JSON_END) {
            json.truncate(json.len().saturating_sub(JSON_END.len()));
        }
        let digest = Sha256::of(&json).to_string();
        json.extend_from_slice(CHECKSUM_FIELD);
        json.extend_from_slice(digest.as_bytes());
        json.extend_from_slice(CHECKSUM_END);
        Ok(json)
    }
}

/// The end of pretty-printed JSON.
const JSON_END: &[u8] = b"\n}";
/// The bytes between the text and its digest.
const CHECKSUM_FIELD: &[u8] = b",\n  \"checksum\": \"sha256:";
/// The bytes after the digest.
const CHECKSUM_END: &[u8] = b"\"\n}\n";

/// The text before the checksum, and the checksum's hex digits; `None` without a checksum.
fn split_checksum(json: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = json.strip_suffix(CHECKSUM_END)?;
    let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(64)?)?;
    Some((rest.strip_suffix(CHECKSUM_FIELD)?, digits))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Cause;

    pub(crate) fn sample() -> Manifest {
        Manifest {
            schema: SCHEMA,
            id: DumpId::random(),
            stem: "stem".to_owned(),
            captured_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            finished_at: None,
            node: RawText::from("node-1"),
            hostname: RawText::from("api-7d4"),
            process: ProcessFacts {
                pid: 4242,
                name: RawText::from("api"),
                exe: Some(RawText::from("/usr/bin/api")),
                ..ProcessFacts::default()
            },
            signal: SignalFacts {
                number: 11,
                name: "SIGSEGV".to_owned(),
                ..SignalFacts::default()
            },
            original_signal: None,
            machine: "x86_64".to_owned(),
            killed: None,
            verdict: Verdict::Truncated {
                expected: 3,
                got: 1,
                cause: Cause::Killed,
                evidence: None,
            },
            core: None,
            workload: Some(Workload {
                namespace: Some("shop".to_owned()),
                pod: Some("api-7d4".to_owned()),
                extra: [("uid".to_owned(), serde_json::json!("u"))].into(),
                ..Workload::default()
            }),
            image: None,
            modules: vec![ModuleRecord {
                path: RawText::from(&b"/lib/\xff"[..]),
                build_id: BuildId::parse("41d0"),
                sha256: None,
                start: 4096,
                end: u64::MAX,
                kind: ModuleKind::Library,
            }],
            fingerprint: Some("0123456789abcdef".to_owned()),
            thread_count: Some(3),
            entries: Vec::new(),
            gaps: vec![Gap {
                what: "maps".to_owned(),
                why: "gone".to_owned(),
            }],
            agent_version: "0.1.0".to_owned(),
            imported: None,
        }
    }

    #[test]
    fn manifest_without_a_capture_time_says_null_and_is_listed_by_its_import() {
        let at: Timestamp = "2026-02-03T04:05:06Z".parse().unwrap();
        let mut manifest = sample();
        manifest.captured_at = Timestamp::UNIX_EPOCH;
        manifest.imported = Some(ImportRecord {
            at,
            file: RawText::from("core.7"),
            fields: BTreeMap::new(),
        });
        let json = manifest.to_json().unwrap();
        let document: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert!(document["captured_at"].is_null());
        let back = Manifest::from_json(&json).unwrap();
        assert_eq!((back.captured(), back.listed_at()), (None, at));
        assert_eq!(back, manifest);
        assert_eq!(sample().listed_at(), sample().captured_at);
    }

    #[test]
    fn manifest_round_trips_through_json() {
        let manifest = sample();
        assert_eq!(
            Manifest::from_json(&manifest.to_json().unwrap()).unwrap(),
            manifest
        );
    }

    #[test]
    fn manifest_with_a_flipped_bit_is_refused_or_unchanged() {
        let manifest = sample();
        let json = manifest.to_json().unwrap();
        let mut unchanged = 0;
        for at in 0..json.len() {
            for bit in 0..8 {
                let mut hurt = json.clone();
                hurt[at] ^= 1 << bit;
                if let Ok(read) = Manifest::from_json(&hurt) {
                    assert_eq!(read, manifest, "byte {at} bit {bit}");
                    unchanged += 1;
                }
            }
        }
        // Only a flip in the name of the checksum field goes unnoticed.
        assert!(unchanged < 8 * 40, "{unchanged}");
    }

    #[test]
    fn manifest_without_a_checksum_is_read() {
        let manifest = sample();
        let json = serde_json::to_vec_pretty(&manifest).unwrap();
        assert_eq!(Manifest::from_json(&json).unwrap(), manifest);
    }

    #[test]
    fn manifest_with_a_newer_schema_is_refused_by_number() {
        let error = Manifest::from_json(br#"{"schema": 2, "all": "new"}"#).unwrap_err();
        assert!(matches!(error, BundleError::Schema { found: 2 }), "{error}");
    }

    #[test]
    fn manifest_ignores_unknown_fields() {
        let mut json: serde_json::Value =
            serde_json::from_slice(&sample().to_json().unwrap()).unwrap();
        json["later"] = serde_json::json!({"x": 1});
        json["process"]["later"] = serde_json::json!(1);
        assert!(Manifest::from_json(json.to_string().as_bytes()).is_ok());
    }

    #[test]
    fn exe_name_is_the_last_part_of_the_path() {
        let mut process = sample().process;
        assert_eq!(process.exe_name(), RawText::from("api"));
        process.exe = Some(RawText::from("/memfd:stage2 (deleted)"));
        assert_eq!(process.exe_name(), RawText::from("memfd:stage2"));
        assert_eq!(process.exe_path(), Some(&b"/memfd:stage2"[..]));
        process.exe = Some(RawText::from("/"));
        process.name = RawText::from("comm");
        assert_eq!(process.exe_name(), RawText::from("comm"));
    }
}
