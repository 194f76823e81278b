//! Checks whether a key exists and whether its value has the right type; lists the keys.

use cdh_store::nearest;
use serde_json::{Map, Value};

use super::AgentConfig;

/// Tables of the file for the workstation, and for the store.
pub(super) const FOREIGN: [&str; 6] = ["store", "stores", "images", "cache", "tui", "debugger"];

/// Keys that the default configuration does not contain.
const OPTIONAL: [&str; 2] = ["limits.disk_floor", "limits.cgroup"];

/// Every key with its value. A table below a section, or a list, is a single value, unless it is a
/// section itself.
pub(super) fn leaves(all: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    collect("", all, &mut found);
    found
}

fn collect(prefix: &str, value: &Value, found: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(fields) if !is_leaf(prefix) => {
            for (name, value) in fields {
                let key = match prefix {
                    "" => name.clone(),
                    prefix => format!("{prefix}.{name}"),
                };
                collect(&key, value, found);
            }
        }
        value => found.push((prefix.to_owned(), value.clone())),
    }
}

/// Whether a table under this key is a single value.
pub(super) fn is_leaf(key: &str) -> bool {
    key.split('.').count() > 2
}

/// Every key there is.
pub(super) fn keys() -> Vec<String> {
    let all = serde_json::to_value(AgentConfig::default()).unwrap_or_default();
    let mut keys: Vec<String> = leaves(&all).into_iter().map(|(key, _)| key).collect();
    for key in OPTIONAL {
        if !keys.iter().any(|known| known == key) {
            keys.push(key.to_owned());
        }
    }
    keys
}

/// Sets a value under its key.
pub(super) fn insert(all: &mut Value, key: &str, value: Value) {
    let mut place = all;
    for name in key.split('.') {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Some(fields) = place.as_object_mut() else {
            return;
        };
        place = fields.entry(name).or_insert(Value::Null);
    }
    *place = value;
}

/// Whether this is a complete valid configuration.
///
/// # Errors
/// The mistake, and advice.
pub(super) fn value(key: &str, value: &Value) -> Result<(), (String, Option<String>)> {
    let mut all = Value::Object(Map::new());
    insert(&mut all, key, value.clone());
    match serde_json::from_value::<AgentConfig>(all) {
        Ok(_) => Ok(()),
        Err(error) => Err(explain(key, &error.to_string())),
    }
}

/// Names in serde's message: the unknown one, and the known ones.
fn explain(key: &str, said: &str) -> (String, Option<String>) {
    let mut names = said.split('`').skip(1).step_by(2);
    let kind = if said.starts_with("unknown field") {
        "key"
    } else if said.starts_with("unknown variant") {
        "value"
    } else {
        return (format!("`{key}`: {said}"), None);
    };
    let unknown = names.next().unwrap_or_default();
    let known: Vec<&str> = names.collect();
    let text = match kind {
        "value" => format!("`{key}` cannot be `{unknown}`"),
        _ if key.split('.').next() == Some(unknown) => format!("there is no table `[{unknown}]`"),
        _ if key.ends_with(&format!(".{unknown}")) => format!("there is no key `{key}`"),
        _ => format!("there is no key `{unknown}` in `{key}`"),
    };
    // At the top level of the file, there are also keys that are not the agent's.
    let is_top = key.split('.').next() == Some(unknown);
    let more = is_top.then_some(FOREIGN);
    let more = more.iter().flatten().copied();
    let hint = match nearest(unknown, known.iter().copied().chain(more)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are: {}", known.join(", ")),
    };
    (text, Some(hint))
}

/// Mistakes in values that have the right type.
pub(super) fn whole(config: &AgentConfig) -> Vec<(&'static str, String)> {
    let mut wrong = Vec::new();
    for (key, path) in [
        ("node.state", &config.node.state),
        ("node.libexec", &config.node.libexec),
    ] {
        if !path.is_absolute() {
            wrong.push((
                key,
                format!(
                    "`{key}` is `{}`: an absolute path is needed",
                    path.display()
                ),
            ));
        }
    }
    if config.node.suid_dumpable > 2 {
        wrong.push((
            "node.suid_dumpable",
            "`node.suid_dumpable` is 0, 1 or 2".to_owned(),
        ));
    }
    if config.node.core_pipe_limit == 0 {
        let why = "`node.core_pipe_limit` is 0: the kernel would not wait for handlers, and facts in /proc would be lost";
        wrong.push(("node.core_pipe_limit", why.to_owned()));
    }
    if !(1..=64).contains(&config.shipping.parallel) {
        wrong.push((
            "shipping.parallel",
            "`shipping.parallel` is 1 to 64 uploads at once".to_owned(),
        ));
    }
    if let Some(listen) = &config.metrics.listen
        && listen.parse::<std::net::SocketAddr>().is_err()
    {
        let why = format!(
            "`metrics.listen` is `{listen}`: an address and a port are needed, such as `127.0.0.1:9464`, `0.0.0.0:9464` or `[::]:9464`"
        );
        wrong.push(("metrics.listen", why));
    }
    if let Some(path) = &config.metrics.textfile
        && (!path.is_absolute() || path.extension().is_none_or(|end| end != "prom"))
    {
        let why = format!(
            "`metrics.textfile` is `{}`: an absolute path that ends in `.prom` is needed, or no collector reads it",
            path.display()
        );
        wrong.push(("metrics.textfile", why));
    }
    for hook in &config.notify.webhooks {
        let why = match (&hook.url, &hook.url_file) {
            (Some(_), Some(_)) => "a webhook has `url` or `url_file`, not both",
            (None, None) => "a webhook needs `url` or `url_file`",
            (Some(url), None) if !is_http(url.reveal()) => {
                "a webhook's `url` begins with `https://` or `http://`"
            }
            _ => continue,
        };
        wrong.push(("notify.webhooks", format!("`notify.webhooks`: {why}")));
    }
    wrong
}

fn is_http(url: &str) -> bool {
    url.starts_with("https://") || url.starts_with("http://")
}
