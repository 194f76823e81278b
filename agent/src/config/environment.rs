//! Our own variables: `CDH_SHIPPING_INTERVAL` is `shipping.interval`; older names still work.

use std::collections::BTreeMap;
use std::fmt;

use cdh_store::nearest;
use serde_json::Value;

use super::check;

/// Names from before the configuration file existed.
const SHORT: [(&str, &str); 10] = [
    ("CDH_STATE", "node.state"),
    ("CDH_LIBEXEC", "node.libexec"),
    ("CDH_KEEP_MODULES", "shipping.keep_modules"),
    ("CDH_CRI_SOCKET", "workloads.sockets"),
    ("CDH_NODE_NAME", "workloads.node"),
    ("CDH_LOG_LINES", "workloads.log_lines"),
    ("CDH_PODS", "workloads.pods"),
    ("CDH_OPT_IN_LABEL", "workloads.opt_in_label"),
    ("CDH_METRICS", "metrics.listen"),
    ("CDH_LOG_FORMAT", "log.format"),
];

/// Variables that are not the agent's: those of the command line, and of this repository's own tests.
const OTHERS: [&str; 4] = ["CDH_CONFIG", "CDH_DEBUGGER", "CDH_OFFLINE", "CDH_STORE"];
const OF_TESTS: [&str; 3] = ["CDH_TEST_", "CDH_BENCH_", "CDH_DOC"];

/// A variable whose name begins with `CDH_` and that is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// The known variable with the most similar name.
    pub similar: Option<String>,
}

impl fmt::Display for UnknownVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown variable `{}`", self.name)?;
        match &self.similar {
            Some(similar) => write!(f, " (did you mean `{similar}`?)"),
            None => Ok(()),
        }
    }
}

/// Variables whose names begin with `CDH_` and that neither the agent nor the command line knows.
#[must_use]
pub fn unknown_variables(variables: &BTreeMap<String, String>) -> Vec<UnknownVariable> {
    let ours = |name: &str| name.starts_with("CDH_");
    if !variables.keys().any(|name| ours(name)) {
        return Vec::new();
    }
    let known = known();
    let names = || known.keys().map(String::as_str).chain(OTHERS);
    let is_cluster = variables.contains_key("KUBERNETES_SERVICE_HOST");
    let unknown = variables.iter().filter(|(name, text)| {
        ours(name)
            && is_set(text)
            && names().all(|known| known != *name)
            && !OF_TESTS.iter().any(|start| name.starts_with(start))
            && !(is_cluster && is_service_link(name))
    });
    unknown
        .map(|(name, _)| UnknownVariable {
            name: name.clone(),
            similar: nearest(name, names()).map(str::to_owned),
        })
        .collect()
}

/// Whether Kubernetes sets it in each pod for a Service `cdh-…`: `CDH_S3_SERVICE_HOST`, `CDH_S3_PORT`,
/// `CDH_S3_PORT_8333_TCP_ADDR` (`makeLinkVariables` in `pkg/kubelet/envvars/envvars.go`).
fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.contains("_PORT_")
}

/// Many tools set a variable to an empty text to unset it.
fn is_set(text: &str) -> bool {
    !text.is_empty()
}

/// Every variable of the agent, with its key.
fn known() -> BTreeMap<String, String> {
    let keys = check::keys().into_iter();
    let mut known: BTreeMap<String, String> = keys.map(|key| (variable(&key), key)).collect();
    let short = SHORT
        .iter()
        .map(|(name, key)| ((*name).to_owned(), (*key).to_owned()));
    known.extend(short);
    known
}

/// The variable of a key: `CDH_SHIPPING_INTERVAL` for `shipping.interval`.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("CDH_{}", key.replace('.', "_").to_ascii_uppercase())
}

/// Keys, texts and names of the variables that are set.
pub(super) fn values(variables: &BTreeMap<String, String>) -> Vec<(String, String, String)> {
    let known = known();
    let mut found = Vec::new();
    for (name, text) in variables {
        if let Some(key) = known.get(name)
            && is_set(text)
        {
            found.push((key.clone(), text.clone(), name.clone()));
        }
    }
    // If two names mean the same key, the longer one takes precedence.
    found.sort_by_key(|(key, _, name)| variable(key) == *name);
    found
}

/// Parses a variable's text for its key: a text, another TOML value, or a list with commas.
///
/// # Errors
/// As [`check::value`].
pub(super) fn parse(key: &str, text: &str) -> Result<Value, (String, Option<String>)> {
    let as_text = Value::String(text.to_owned());
    let error = match check::value(key, &as_text) {
        Ok(()) => return Ok(as_text),
        Err(error) => error,
    };
    let boolean = match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "on" => Some(Value::Bool(true)),
        "0" | "no" | "off" => Some(Value::Bool(false)),
        _ => None,
    };
    let parsed = toml::from_str::<BTreeMap<String, Value>>(&format!("value = {text}"));
    let parsed = parsed.ok().filter(|all| all.len() == 1);
    let parsed = parsed.and_then(|mut all| all.remove("value"));
    let items = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty());
    let list = Value::Array(items.map(|item| Value::String(item.to_owned())).collect());
    let fits = |value: &Value| check::value(key, value).is_ok();
    let candidates = parsed.into_iter().chain(boolean).chain([list]);
    candidates.into_iter().find(fits).ok_or(error)
}
