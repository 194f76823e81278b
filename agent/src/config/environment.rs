//! Our own variables: `CDH_SHIPPING_INTERVAL` is `shipping.interval`; older names go on working.

use std::collections::BTreeMap;

use serde_json::Value;

use super::check;

/// Names from before there was a file.
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

/// The variable of a key.
fn variable(key: &str) -> String {
    format!("CDH_{}", key.replace('.', "_").to_ascii_uppercase())
}

/// Keys, texts and names of the variables that are set.
pub(super) fn values(
    variables: &BTreeMap<String, String>,
    notes: &mut Vec<String>,
) -> Vec<(String, String, String)> {
    let keys = check::keys();
    let mut known: BTreeMap<String, String> = keys
        .iter()
        .map(|key| (variable(key), key.clone()))
        .collect();
    let short = SHORT
        .iter()
        .map(|(name, key)| ((*name).to_owned(), (*key).to_owned()));
    known.extend(short);
    let sections: Vec<String> = keys
        .iter()
        .filter_map(|key| Some(variable(key.split('.').next()?) + "_"))
        .collect();
    let mut found = Vec::new();
    for (name, text) in variables {
        match known.get(name) {
            // Set and empty is how many tools unset something.
            Some(key) if !text.is_empty() => found.push((key.clone(), text.clone(), name.clone())),
            Some(_) => {}
            None if sections
                .iter()
                .any(|section| name.starts_with(section.as_str())) =>
            {
                let names: Vec<&str> = known.keys().map(String::as_str).collect();
                let near = check::nearest(name, &names);
                let near = near.map(|near| format!("; did you mean `{near}`?"));
                notes.push(format!(
                    "`{name}` is no variable of the agent{}",
                    near.unwrap_or_default()
                ));
            }
            None => {}
        }
    }
    // The longer name of the same key counts.
    found.sort_by_key(|(key, _, name)| variable(key) == *name);
    found
}

/// What a variable's text means for its key: a text, any other value of TOML, or a list with commas.
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
