//! Removes secrets from a runtime's answers.
//!
//! Names of environment variables are stored. Their values are removed, except those of a few
//! variables that never hold secrets, or that the node's policy names. Values of variables with
//! secret names are also removed everywhere else, because they occur in arguments and logs. The
//! annotation in which `kubectl apply` stores the complete pod is removed.

use cdh_bundle::RawText;
use serde_json::Value;

use crate::policy::PolicyConfig;
use crate::redaction::{REMOVED, Redactor, SecretNames, Secrets};

/// Variables whose values stay.
const HARMLESS: [&str; 6] = ["PATH", "HOSTNAME", "HOME", "TERM", "TZ", "LANG"];
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Removes the values of all environments in `value`; the secrets among them are added to `secrets`.
pub(super) fn environments(value: &mut Value, policy: &PolicyConfig, secrets: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                match key.to_ascii_lowercase().as_str() {
                    "env" | "envs" | "environment" => one_environment(value, policy, secrets),
                    LAST_APPLIED => *value = REMOVED.into(),
                    _ => environments(value, policy, secrets),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                environments(item, policy, secrets);
            }
        }
        Value::String(text) if text.contains("\"env\"") || text.contains("\"envs\"") => {
            // JSON in a string: a copy of a specification.
            if let Ok(mut inner) = serde_json::from_str::<Value>(text)
                && inner.is_object()
            {
                environments(&mut inner, policy, secrets);
                *text = inner.to_string();
            }
        }
        _ => {}
    }
}

fn one_environment(value: &mut Value, policy: &PolicyConfig, secrets: &mut Vec<String>) {
    let mut note = |name: &str, value: &str| {
        let name = name.to_ascii_uppercase();
        if HARMLESS.contains(&name.as_str()) || name.starts_with("LC_") {
            return true;
        }
        if policy.keeps_value(&name) {
            return true;
        }
        if policy.is_secret(&name) {
            secrets.push(value.to_owned());
        }
        false
    };
    match value {
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::String(text) => {
                        let (name, value) = text.split_once('=').unwrap_or((text, ""));
                        if !note(name, value) {
                            *text = format!("{name}={REMOVED}");
                        }
                    }
                    Value::Object(map) => {
                        let name = map.get("key").or_else(|| map.get("name"));
                        let name = name.and_then(Value::as_str).unwrap_or("").to_owned();
                        if let Some(value) = map.get_mut("value") {
                            let text = value.as_str().unwrap_or("").to_owned();
                            if !note(&name, &text) {
                                *value = REMOVED.into();
                            }
                        }
                    }
                    other => *other = REMOVED.into(),
                }
            }
        }
        Value::Object(map) => {
            for (name, value) in map.iter_mut() {
                let text = value.as_str().unwrap_or("").to_owned();
                if !note(name, &text) {
                    *value = REMOVED.into();
                }
            }
        }
        Value::Null => {}
        other => *other = REMOVED.into(),
    }
}

/// Removes these secrets, and texts that look like secrets.
pub(super) fn redactor(secrets: &[String]) -> Redactor {
    let mut found = Secrets::new(SecretNames::of(&PolicyConfig::default()));
    for secret in secrets {
        found.add(secret.as_bytes());
    }
    found.redactor()
}

/// Removes secrets from every string of `value`. A list of strings only is treated as a command
/// line.
pub(super) fn strings(value: &mut Value, redactor: &Redactor) {
    match value {
        Value::String(text) => {
            if let Some(clean) = cleaned(text, redactor) {
                *text = clean;
            }
        }
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let texts = items.iter().filter_map(Value::as_str).map(RawText::from);
            let mut texts: Vec<RawText> = texts.collect();
            redactor.arguments(&mut texts);
            for (item, text) in items.iter_mut().zip(&texts) {
                *item = String::from_utf8_lossy(text.as_bytes()).into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| strings(item, redactor)),
        Value::Object(map) => map.values_mut().for_each(|item| strings(item, redactor)),
        _ => {}
    }
}

/// The text without secrets; `None` if it contains none.
pub(super) fn cleaned(text: &str, redactor: &Redactor) -> Option<String> {
    let clean = redactor.cleaned(text.as_bytes())?;
    Some(String::from_utf8_lossy(&clean).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_values_go_and_secrets_go_everywhere() {
        let mut value = serde_json::json!({
            "info": {
                "config": {"envs": [{"key": "DB_PASSWORD", "value": "hunter22"}, {"key": "TZ", "value": "UTC"}]},
                "runtimeSpec": {"process": {
                    "env": ["PATH=/bin", "API_TOKEN=abcdef=1", "MODE=fast", "ODD"],
                    "args": ["/srv", "--password=hunter22"],
                }},
            },
            "annotations": {LAST_APPLIED: "{\"env\": \"x\"}", "note": "{\"env\":[{\"name\":\"A_KEY\",\"value\":\"zzzzzzzz\"}]}"},
        });
        let mut secrets = Vec::new();
        environments(&mut value, &PolicyConfig::default(), &mut secrets);
        let redactor = redactor(&secrets);
        strings(&mut value, &redactor);
        let text = value.to_string();
        for secret in ["hunter22", "abcdef", "fast", "zzzzzzzz", "\\\"x\\\""] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        for kept in [
            "DB_PASSWORD",
            "API_TOKEN",
            "MODE",
            "PATH=/bin",
            "UTC",
            "/srv",
            "A_KEY",
        ] {
            assert!(text.contains(kept), "{kept} not in {text}");
        }
        let log = cleaned("login with hunter22 failed\n", &redactor).unwrap();
        assert_eq!(log, "login with <removed> failed\n");
        assert_eq!(cleaned("nothing here", &redactor), None);
    }
}
