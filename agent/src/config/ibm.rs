//! Supports the variables of IBM's core-dump-handler, and notes where their meaning differs.
//!
//! Names with the prefix `COMP_` are those that its agent passes to its composer. Names that any
//! program may use (`TIMEOUT`, `COMPRESSION`, …) count only together with one that is unique to
//! IBM's.

use std::collections::BTreeMap;

use serde_json::Value;

/// Variables that only IBM's core-dump-handler has.
const TELLING: [&str; 11] = [
    "S3_BUCKET_NAME",
    "USE_INOTIFY",
    "CORE_DIR",
    "SUID_DUMPABLE",
    "CRIO_ENDPOINT",
    "FILENAME_TEMPLATE",
    "POD_SELECTOR_LABEL",
    "LOG_LENGTH",
    "DEPLOY_CRIO_CONFIG",
    "DEPLOY_CRIO_EXE",
    "IGNORE_CRIO",
];

/// Variables without a counterpart, and why.
const WITHOUT: [(&str, &str); 14] = [
    (
        "FILENAME_TEMPLATE",
        "the entries of a bundle have IBM's default names; the key of a bundle in the store holds date, namespace, pod, program, signal, verdict and id",
    ),
    (
        "COMPRESSION",
        "cores are always compressed: zstd in frames, which costs less time than it saves",
    ),
    (
        "MOUNT_POINT",
        "no volume is mounted: the spool is a directory of the node, `node.state`",
    ),
    ("EVENT_DIR", "core events are not files here: see `notify`"),
    (
        "CORE_EVENTS",
        "core events are not files here: see `notify`",
    ),
    (
        "CORE_EVENT_DIR",
        "core events are not files here: see `notify`",
    ),
    ("VENDOR", "one static handler runs on every host"),
    (
        "DEPLOY_CRIO_CONFIG",
        "crictl is not used: the agent queries the runtime over its socket",
    ),
    (
        "DEPLOY_CRIO_EXE",
        "crictl is not used: the agent queries the runtime over its socket",
    ),
    (
        "CRIO_IMAGE_CMD",
        "crictl is not used: the agent queries the runtime over its socket",
    ),
    (
        "USE_CRIO_CONF",
        "crictl is not used: the agent queries the runtime over its socket",
    ),
    (
        "IGNORE_CRIO",
        "the runtime is queried after the capture, and never delays it",
    ),
    (
        "INCLUDE_PROC_INFO",
        "facts from `/proc` are always stored, but only the names of variables; `policy.environment` selects values to store",
    ),
    (
        "LOG_LEVEL",
        "the handler logs into the dump and the kernel's log",
    ),
];

/// The store that IBM's variables name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IbmStore {
    /// `s3://bucket`, without secrets.
    pub url: String,
    /// `S3_ACCESS_KEY` and `S3_SECRET`.
    pub keys: Option<(String, super::Secret)>,
}

/// The store of `S3_BUCKET_NAME`; `None` if it is not set.
#[must_use]
pub fn ibm_store(variables: &BTreeMap<String, String>) -> Option<IbmStore> {
    let get = |name: &str| {
        variables
            .get(name)
            .map(|text| text.trim())
            .filter(|text| !text.is_empty())
    };
    let bucket = get("S3_BUCKET_NAME")?;
    let mut options = Vec::new();
    // In IBM's handler, the region is also the host name of a server that is not Amazon's.
    let region = get("S3_REGION");
    let host = region.filter(|region| region.contains('.') || region.contains("://"));
    let endpoint = get("S3_ENDPOINT")
        .or(host)
        .map(|endpoint| match endpoint.contains("://") {
            true => endpoint.to_owned(),
            false => format!("https://{endpoint}"),
        });
    if let Some(region) = region.filter(|region| host != Some(region)) {
        options.push(format!("region={region}"));
    }
    if let Some(endpoint) = endpoint {
        options.push(format!("endpoint={endpoint}"));
    }
    options.push("path-style=true".to_owned());
    // As in IBM's handler, a role of the service account takes precedence over keys.
    let keys = match get("AWS_WEB_IDENTITY_TOKEN_FILE") {
        None => get("S3_ACCESS_KEY").zip(get("S3_SECRET")),
        Some(_) => None,
    };
    Some(IbmStore {
        url: format!("s3://{bucket}?{}", options.join("&")),
        keys: keys.map(|(access, secret)| (access.to_owned(), super::Secret::new(secret))),
    })
}

/// Keys, values and names of IBM's variables that are set.
pub(super) fn values(
    variables: &BTreeMap<String, String>,
    notes: &mut Vec<String>,
) -> Vec<(String, Value, String)> {
    let find = |name: &str| {
        let long = format!("COMP_{name}");
        let get = |name: &str| variables.get(name).filter(|text| !text.trim().is_empty());
        let long = get(&long).map(|text| (long.clone(), text.trim().to_owned()));
        long.or_else(|| get(name).map(|text| (name.to_owned(), text.trim().to_owned())))
    };
    let is_ibm = variables
        .keys()
        .any(|name| name.starts_with("COMP_") || TELLING.contains(&name.as_str()));
    let mut found = Vec::new();
    let mut put =
        |key: &str, value: Value, name: &str| found.push((key.to_owned(), value, name.to_owned()));
    if let Some((name, text)) = find("INTERVAL") {
        match text.parse::<u64>() {
            Ok(milliseconds) => {
                let seconds = milliseconds.div_ceil(1000).max(1);
                notes.push(format!(
                    "`{name}` is in milliseconds: {text} are {seconds} s"
                ));
                put("shipping.interval", Value::from(seconds), &name);
            }
            Err(_) => put(
                "shipping.interval",
                Value::String(format!("{text} ms")),
                &name,
            ),
        }
    }
    if let Some((name, text)) = find("SCHEDULE") {
        put("shipping.schedule", Value::String(text), &name);
    }
    let timed = find("INTERVAL").is_some() || find("SCHEDULE").is_some();
    match find("USE_INOTIFY").map(|(name, text)| (name, text.eq_ignore_ascii_case("true"))) {
        Some((name, true)) if timed => {
            notes.push(format!(
                "`{name}` has no effect with an interval or a schedule, as in IBM's handler"
            ));
        }
        Some((name, true)) => put("shipping.mode", Value::from("events"), &name),
        Some((name, false)) if !timed => {
            notes.push(format!("`{name}` is not true, and there is no interval and no schedule: dumps stay on the node"));
            put("shipping.mode", Value::from("off"), &name);
        }
        _ => {}
    }
    if let Some((name, text)) = find("LOG_LENGTH") {
        put("workloads.log_lines", number(text), &name);
    }
    if let Some((name, text)) = find("POD_SELECTOR_LABEL") {
        notes.push(format!(
            "`{name}`: pods with `cdh.io/dump: \"true\"` are dumped too"
        ));
        put("workloads.pods", Value::from("opt-in"), &name);
        put("workloads.opt_in_label", Value::String(text), &name);
    }
    if let Some((name, text)) = find("SUID_DUMPABLE") {
        put("node.suid_dumpable", number(text), &name);
    }
    if let Some((name, text)) = find("CORE_DIR") {
        notes.push(format!("`{name}` is the directory of the spool and of the backup of the node's settings: {text}"));
        put("node.state", Value::String(text), &name);
    }
    if is_ibm && let Some((name, text)) = find("HOST_DIR") {
        put("node.libexec", Value::String(text), &name);
    }
    if let Some((name, text)) = find("CRIO_ENDPOINT") {
        let path = text.strip_prefix("unix://").unwrap_or(&text);
        put(
            "workloads.sockets",
            Value::Array(vec![Value::from(path)]),
            &name,
        );
    }
    if is_ibm && let Some((name, text)) = find("TIMEOUT") {
        notes.push(format!(
            "`{name}`: a core that takes longer than {text} s is truncated and stored, not lost"
        ));
        put("limits.copy_time", number(text), &name);
    }
    // A note is harmless even if the variable belongs to another program.
    for (name, why) in WITHOUT {
        if let Some((name, _)) = find(name) {
            notes.push(format!("`{name}` changes nothing: {why}"));
        }
    }
    found
}

fn number(text: String) -> Value {
    text.parse::<u64>().map_or(Value::String(text), Value::from)
}
