//! Reads the JSON files in IBM's core-dump-handler zips, and writes `-dump-info.json` for IBM's
//! readers.
//!
//! Folklore: IBM's composer formats the JSON by hand (`core-dump-composer/src/config.rs`). A quote
//! or a backslash in a process name makes it invalid. Then we split the text at the keys, which
//! always come in the same order. Test: `invalid_json_of_ibm_is_split_at_its_keys`.

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    BundleError, DumpId, ImageRef, Manifest, PodDescription, RawText, Workload, WorkloadOwner,
    labels,
};

/// The keys in the order in which IBM's composer writes them.
const KEYS: [&str; 11] = [
    "uuid",
    "dump_file",
    "timestamp",
    "hostname",
    "exe",
    "real_pid",
    "signal",
    "node_hostname",
    "path",
    "namespace",
    "podname",
];

/// IBM's `-dump-info.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegacyInfo {
    /// The dump's id.
    pub uuid: Option<String>,
    /// Name of the core's entry.
    pub dump_file: Option<String>,
    /// Seconds since 1970; later versions write milliseconds.
    pub timestamp: Option<String>,
    /// UTS name of the container: in Kubernetes, that of the pod.
    pub hostname: Option<String>,
    /// `comm`.
    pub exe: Option<String>,
    /// The pid in the container's namespace, despite its name.
    pub real_pid: Option<String>,
    /// Signal number.
    pub signal: Option<String>,
    /// The node.
    pub node_hostname: Option<String>,
    /// Path of the program, with `/` replaced by `!`.
    pub path: Option<String>,
    /// Kubernetes namespace.
    pub namespace: Option<String>,
    /// Pod.
    pub podname: Option<String>,
}

impl LegacyInfo {
    /// Parses the JSON of IBM's composer as far as possible.
    #[must_use]
    pub fn parse(json: &[u8]) -> Self {
        let text = String::from_utf8_lossy(json);
        let mut info = Self::default();
        match serde_json::from_slice::<Value>(json) {
            Ok(value) => {
                for (key, field) in KEYS.into_iter().zip(info.fields()) {
                    *field = match value.get(key) {
                        Some(Value::String(text)) => Some(text.clone()),
                        Some(Value::Number(number)) => Some(number.to_string()),
                        _ => None,
                    };
                }
            }
            Err(_) => {
                let found: Vec<_> = KEYS.iter().map(|key| find_key(&text, key)).collect();
                for (at, field) in info.fields().into_iter().enumerate() {
                    let next = found.iter().skip(at.saturating_add(1)).flatten().next();
                    let value = found.get(at).copied().flatten().and_then(|(_, start)| {
                        text.get(start..next.map_or(text.len(), |&(key_at, _)| key_at))
                    });
                    *field = value.and_then(unquote);
                }
            }
        }
        for field in info.fields() {
            field.take_if(|text| text.is_empty());
        }
        info
    }

    /// The summary of one of our dumps, for IBM's readers.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        let process = &manifest.process;
        let workload = manifest.workload.as_ref();
        let text = |text: &RawText| Some(text.escaped());
        Self {
            uuid: Some(manifest.id.to_string()),
            dump_file: manifest.core.as_ref().map(|core| core.entry.clone()),
            timestamp: Some(manifest.captured_at.as_second().to_string()),
            hostname: text(&manifest.hostname),
            exe: text(&process.name),
            real_pid: Some(process.pid.to_string()),
            signal: Some(manifest.signal.number.to_string()),
            node_hostname: text(&manifest.node),
            path: process
                .exe
                .as_ref()
                .map(|exe| exe.escaped().replace('/', "!")),
            namespace: workload.and_then(|workload| workload.namespace.clone()),
            podname: workload.and_then(|workload| workload.pod.clone()),
        }
    }

    /// Formats `-dump-info.json`: IBM's keys, all values as strings, empty if absent.
    ///
    /// # Errors
    /// Serializing these strings does not fail; the serializer's signature requires the `Result`.
    pub fn to_json(&self) -> Result<Vec<u8>, BundleError> {
        let mut info = self.clone();
        let values = KEYS.into_iter().zip(info.fields());
        let object: serde_json::Map<String, Value> = values
            .map(|(key, value)| (key.to_owned(), value.take().unwrap_or_default().into()))
            .collect();
        serde_json::to_vec(&object).map_err(|source| BundleError::Manifest { source })
    }

    fn fields(&mut self) -> [&mut Option<String>; 11] {
        [
            &mut self.uuid,
            &mut self.dump_file,
            &mut self.timestamp,
            &mut self.hostname,
            &mut self.exe,
            &mut self.real_pid,
            &mut self.signal,
            &mut self.node_hostname,
            &mut self.path,
            &mut self.namespace,
            &mut self.podname,
        ]
    }

    /// The dump's id, if it is valid.
    #[must_use]
    pub fn id(&self) -> Option<DumpId> {
        self.uuid.as_deref()?.parse().ok()
    }

    /// Time of the crash.
    #[must_use]
    pub fn captured_at(&self) -> Option<Timestamp> {
        parse_timestamp(self.timestamp.as_deref()?)
    }

    /// Path of the program, with its slashes restored.
    #[must_use]
    pub fn exe_path(&self) -> Option<String> {
        self.path.as_ref().map(|path| path.replace('!', "/"))
    }
}

/// Offset of the key, and the earliest offset of its value.
fn find_key(text: &str, key: &str) -> Option<(usize, usize)> {
    let quoted = format!("\"{key}\"");
    let at = text.find(&quoted)?;
    let colon = text.get(at.checked_add(quoted.len())?..)?;
    let after = colon.trim_start().strip_prefix(':')?;
    Some((at, text.len().checked_sub(after.len())?))
}

/// The text between the first and the last quote.
fn unquote(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('"')?;
    let (value, _) = rest.rsplit_once('"')?;
    Some(value.to_owned())
}

/// Parses seconds or milliseconds: a date after the year 5000 must be milliseconds.
fn parse_timestamp(text: &str) -> Option<Timestamp> {
    const YEAR_5000: i64 = 95_617_584_000;
    let number: i64 = text.parse().ok()?;
    if number < YEAR_5000 {
        Timestamp::from_second(number).ok()
    } else {
        Timestamp::from_millisecond(number).ok()
    }
}

/// The fields in the name of one of IBM's zips with the default template
/// `{uuid}-dump-{timestamp}-{hostname}-{exe_name}-{pid}-{signal}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyName {
    /// The dump's id.
    pub id: DumpId,
    /// Time of the crash.
    pub captured_at: Timestamp,
    /// UTS name of the container.
    pub hostname: String,
    /// `comm`. If it contains a `-`, the part before it ends up in `hostname`: the name is
    /// ambiguous.
    pub exe: String,
    /// The pid in the container's namespace.
    pub pid: u64,
    /// Signal number.
    pub signal: i32,
}

impl LegacyName {
    /// Parses the name of a zip without `.zip`, or the stem of an entry.
    #[must_use]
    pub fn parse(stem: &str) -> Option<Self> {
        let (id, rest) = stem.split_at_checked(36)?;
        let (timestamp, rest) = rest.strip_prefix("-dump-")?.split_once('-')?;
        let (rest, signal) = rest.rsplit_once('-')?;
        let (rest, pid) = rest.rsplit_once('-')?;
        let (hostname, exe) = rest.rsplit_once('-')?;
        Some(Self {
            id: id.parse().ok()?,
            captured_at: parse_timestamp(timestamp)?,
            hostname: hostname.to_owned(),
            exe: exe.to_owned(),
            pid: pid.parse().ok()?,
            signal: signal.parse().ok()?,
        })
    }
}

/// The workload in `-pod-info.json` (`crictl pods -o json`).
pub(crate) fn workload(pod_info: &[u8]) -> Option<Workload> {
    let value: Value = serde_json::from_slice(pod_info).ok()?;
    let pod = value
        .get("items")
        .and_then(|items| items.get(0))
        .unwrap_or(&value);
    let text = |key: &str| {
        let text = pod.get("metadata")?.get(key)?.as_str()?;
        (!text.is_empty()).then(|| text.to_owned())
    };
    let map = |key: &str| labels::of_json(pod.get(key).unwrap_or(&Value::Null));
    let (labels, annotations) = (map("labels"), map("annotations"));
    let name = text("name");
    let described = PodDescription {
        name: name.as_deref().unwrap_or_default(),
        labels: &labels,
        annotations: &annotations,
    };
    let metadata = pod.get("metadata").unwrap_or(&Value::Null);
    let owner = WorkloadOwner::of_references(metadata, &described)
        .or_else(|| WorkloadOwner::of_pod(&described));
    let workload = Workload {
        namespace: text("namespace"),
        pod_uid: text("uid"),
        owner,
        labels: labels::bounded(&labels).0,
        pod: name,
        ..Workload::default()
    };
    (workload != Workload::default()).then_some(workload)
}

/// The container in `-ps-info.json` (`crictl ps -o json`): its name, id and image. Several
/// containers give `None`, because the file does not say which one crashed.
pub(crate) fn container(ps_info: &[u8], workload: &mut Workload) -> Option<ImageRef> {
    let value: Value = serde_json::from_slice(ps_info).ok()?;
    let [container] = value.get("containers")?.as_array()?.as_slice() else {
        return None;
    };
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    workload.container = text(
        container
            .get("metadata")
            .and_then(|metadata| metadata.get("name")),
    );
    workload.container_id = text(container.get("id"));
    let reference = text(container.get("imageRef"))?;
    let mut image = reference
        .contains("@sha256:")
        .then(|| ImageRef::by_digest(reference))?;
    let asked = |key: &str| {
        let name = container.get("image")?.get(key)?.as_str()?;
        (!name.is_empty()).then_some(name)
    };
    let asked = asked("userSpecifiedImage").or_else(|| asked("image"));
    image.set_name(asked, []);
    image.set_pod_labels(|name| workload.labels.get(name).map(String::as_str));
    Some(image)
}

/// Adds the image's tag from `-<n>-image-info.json` (an item of `crictl images -o json`).
pub(crate) fn add_tags(image_info: &[u8], image: &mut ImageRef) {
    let Ok(value) = serde_json::from_slice::<Value>(image_info) else {
        return;
    };
    let tags = value.get("repoTags").and_then(Value::as_array);
    let tags = tags.into_iter().flatten().filter_map(Value::as_str);
    image.set_name(None, tags);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::tests::sample;

    /// Formats JSON like `CoreConfig::get_dump_info`.
    fn ibm_json(exe: &str) -> String {
        format!(
            "{{\"uuid\":\"6a4f4e4d-9c55-4f0b-8f38-8a8f7c5d4e3b\", \"dump_file\":\"x.core\", \
             \"timestamp\": \"1767225600\",\n        \"hostname\": \"api-7d4\", \"exe\": \"{exe}\", \
             \"real_pid\": \"1\", \"signal\": \"11\", \"node_hostname\": \"node\", \"path\": \"!usr!bin!api\" }}"
        )
    }

    #[test]
    fn legacy_info_parses_ibms_json() {
        let info = LegacyInfo::parse(ibm_json("api").as_bytes());
        assert_eq!(info.exe.as_deref(), Some("api"));
        assert_eq!(info.captured_at(), "2026-01-01T00:00:00Z".parse().ok());
        assert_eq!(info.exe_path().as_deref(), Some("/usr/bin/api"));
        assert_eq!(info.id().map(|id| id.short()).as_deref(), Some("6a4f4e4d"));
        assert_eq!(info.namespace, None);
    }

    #[test]
    fn invalid_json_of_ibm_is_split_at_its_keys() {
        for exe in ["a\"b", "a\\", "\", \"", "\n\u{1b}"] {
            let info = LegacyInfo::parse(ibm_json(exe).as_bytes());
            assert_eq!(info.exe.as_deref(), Some(exe));
            assert_eq!(info.signal.as_deref(), Some("11"), "{exe}");
            assert_eq!(info.node_hostname.as_deref(), Some("node"), "{exe}");
            assert_eq!(info.path.as_deref(), Some("!usr!bin!api"), "{exe}");
        }
    }

    #[test]
    fn legacy_info_writes_valid_json_with_ibms_keys() {
        let mut manifest = sample();
        manifest.process.name = RawText::from(&b"a\"\n\xff"[..]);
        let json = LegacyInfo::of(&manifest).to_json().unwrap();
        let value: Value = serde_json::from_slice(&json).unwrap();
        assert!(KEYS.iter().all(|key| value[*key].is_string()), "{value}");
        assert_eq!(value["exe"], "a\"\n\\xff");
        assert_eq!(LegacyInfo::parse(&json).namespace.as_deref(), Some("shop"));
    }

    #[test]
    fn legacy_name_parses_the_default_template_from_both_ends() {
        let name = "6a4f4e4d-9c55-4f0b-8f38-8a8f7c5d4e3b-dump-1767225600-api-7d4-x2v-node-1-11";
        let parsed = LegacyName::parse(name).unwrap();
        assert_eq!(
            (parsed.hostname.as_str(), parsed.exe.as_str()),
            ("api-7d4-x2v", "node")
        );
        assert_eq!((parsed.pid, parsed.signal), (1, 11));
        for other in [
            "",
            "x",
            &name[1..],
            &name[..50],
            &name.replace("dump", "core"),
        ] {
            assert_eq!(LegacyName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn legacy_container_is_known_only_if_there_is_one() {
        let mut found = workload(br#"{"metadata":{"name":"api","namespace":"shop"}}"#).unwrap();
        let one =
            br#"{"containers":[{"id":"c1","imageRef":"r@sha256:00","metadata":{"name":"main"}}]}"#;
        assert_eq!(container(one, &mut found).unwrap().reference, "r@sha256:00");
        assert_eq!(found.container.as_deref(), Some("main"));
        assert!(container(br#"{"containers":[{},{}]}"#, &mut found).is_none());
        assert!(workload(b"{}").is_none());
    }

    #[test]
    fn legacy_owner_labels_and_tag_are_read_from_crictl_output() {
        let pod = serde_json::json!({"items": [{
            "metadata": {"name": "api-7d4b9c6f5d-x2x9k", "namespace": "shop", "uid": "u1"},
            "labels": {"pod-template-hash": "7d4b9c6f5d", "app.kubernetes.io/version": "1.4.2"},
        }]});
        let mut found = workload(pod.to_string().as_bytes()).unwrap();
        assert_eq!(found.owner.as_ref().unwrap().name, "api");
        assert_eq!(found.pod_uid.as_deref(), Some("u1"));
        assert_eq!(found.labels.len(), 2);
        let id = format!("sha256:{}", "c".repeat(64));
        let ps = serde_json::json!({"containers": [{
            "imageRef": "quay.io/shop/api@sha256:00ff", "image": {"image": id},
        }]});
        let mut image = container(ps.to_string().as_bytes(), &mut found).unwrap();
        assert_eq!(
            (image.name.as_deref(), image.release()),
            (None, Some("1.4.2"))
        );
        add_tags(
            br#"{"repoTags":["quay.io/shop/api:1.4.2-rc1"]}"#,
            &mut image,
        );
        assert_eq!(image.release(), Some("1.4.2-rc1"));
        add_tags(b"[", &mut image);
        assert_eq!(image.name.as_deref(), Some("quay.io/shop/api:1.4.2-rc1"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, text: String) {
            let _ = LegacyInfo::parse(&bytes);
            let _ = LegacyInfo::parse(format!("{{\"uuid\":{text}\"exe\":\"").as_bytes());
            let _ = LegacyName::parse(&text);
            let _ = workload(&bytes);
        }
    }
}
