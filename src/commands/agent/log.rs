//! The agent's log on standard error: lines for people, or JSON objects for machines.

use cdh_agent::ShipperEvent;
use cdh_agent::config::LogFormat;
use cdh_agent::notify::{Outcome, Told};
use serde_json::{Map, Value, json};

use crate::render::terminal_line;

/// Writes the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Log {
    format: LogFormat,
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Info,
    Warning,
    Error,
}

impl Log {
    pub(super) fn new(format: LogFormat) -> Self {
        Self { format }
    }

    /// One line. `fields` are for machines; `text` says the same to people.
    pub(super) fn line(self, level: Level, event: &str, text: &str, fields: Value) {
        match self.format {
            LogFormat::Text => eprintln!("{}", terminal_line(text)),
            LogFormat::Json => eprintln!("{}", object(level, event, text, fields)),
        }
    }

    /// What the shipper tells.
    pub(super) fn event(self, event: &ShipperEvent) {
        if let Some((level, name, text, fields)) = describe(event) {
            self.line(level, name, &text, fields);
        }
    }

    /// What became of a message about a crash.
    pub(super) fn told(self, told: &Told) {
        let (level, text) = match &told.outcome {
            Outcome::Sent => (Level::Info, format!("told {} of {}", told.name, told.id)),
            Outcome::Failed(why) => (
                Level::Error,
                format!("cannot tell {} of {}: {why}", told.name, told.id),
            ),
            Outcome::Dropped => (
                Level::Warning,
                format!("{} is not told of {}: too many wait", told.name, told.id),
            ),
        };
        let fields = json!({"dump": told.id, "target": told.target, "receiver": told.name, "result": told.outcome.word()});
        self.line(level, "notification", &text, fields);
    }
}

fn object(level: Level, event: &str, text: &str, fields: Value) -> Value {
    let mut object = Map::new();
    let level = match level {
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
    };
    object.insert(
        "time".to_owned(),
        Value::from(jiff::Timestamp::now().to_string()),
    );
    object.insert("level".to_owned(), Value::from(level));
    object.insert("event".to_owned(), Value::from(event));
    object.insert("message".to_owned(), Value::from(text));
    if let Value::Object(fields) = fields {
        object.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
    }
    Value::Object(object)
}

/// Level, name, sentence, fields; `None` for what is no news.
fn describe(event: &ShipperEvent) -> Option<(Level, &'static str, String, Value)> {
    use Level::{Error, Info, Warning};
    Some(match event {
        ShipperEvent::Shipped {
            id,
            name,
            signal,
            verdict,
            key,
            bytes,
            took,
        } => (
            Info,
            "shipped",
            format!("shipped {id} {name} {signal} {} {key}", verdict.word()),
            json!({"dump": id, "program": name, "signal": signal, "verdict": verdict.word(),
                   "key": key.to_string(), "bytes": bytes, "seconds": took.as_secs_f64()}),
        ),
        ShipperEvent::Sealed { manifest } => {
            let id = manifest.id;
            let name = manifest.process.exe_name();
            let workload = manifest.workload.as_ref();
            let namespace = workload.and_then(|workload| workload.namespace.as_ref());
            let pod = workload.and_then(|workload| workload.pod.as_ref());
            let place = match (namespace, pod) {
                (Some(namespace), Some(pod)) => format!(" in {namespace}/{pod}"),
                _ => String::new(),
            };
            let signal = &manifest.signal.name;
            let verdict = manifest.verdict.describe();
            (
                Info,
                "captured",
                format!("captured {id} {name}{place} {signal}: {verdict}"),
                json!({"dump": id, "program": name.to_string(), "signal": signal, "namespace": namespace,
                       "pod": pod, "verdict": manifest.verdict.word(), "fingerprint": manifest.fingerprint}),
            )
        }
        ShipperEvent::Salvaged { id, verdict } => (
            Warning,
            "salvaged",
            format!("salvaged {id}: {}", verdict.describe()),
            json!({"dump": id}),
        ),
        ShipperEvent::Kept { id } => (
            Info,
            "kept",
            format!("kept {id} on this node: it is of a setuid program, for root only"),
            json!({"dump": id}),
        ),
        ShipperEvent::Unwanted { id, why } => (
            Info,
            "unwanted",
            format!("not kept {id}: {why}"),
            json!({"dump": id, "why": why}),
        ),
        ShipperEvent::NotEnriched { id, why } => (
            Warning,
            "without_workload",
            format!("{id} says nothing of its pod: {why}"),
            json!({"dump": id, "why": why}),
        ),
        ShipperEvent::ModulesNotKept { id, why } => (
            Warning,
            "modules_not_kept",
            format!("modules of {id} not kept: {why}"),
            json!({"dump": id, "why": why}),
        ),
        ShipperEvent::Quarantined { id, why } => (
            Error,
            "quarantined",
            format!("quarantined {id}: {why}"),
            json!({"dump": id, "why": why}),
        ),
        ShipperEvent::Failed { id, why } => (
            Error,
            "failed",
            format!("failed {id}: {why}"),
            json!({"dump": id, "why": why}),
        ),
        ShipperEvent::StoreFailed { why, retry_in } => (
            Error,
            "store_failed",
            format!(
                "the store fails: {why}; next try in {} s",
                retry_in.as_secs()
            ),
            json!({"why": why, "retry_in_seconds": retry_in.as_secs()}),
        ),
        ShipperEvent::StoreBack => (
            Info,
            "store_back",
            "the store answers again".to_owned(),
            Value::Null,
        ),
        ShipperEvent::UploadsAborted { count } => (
            Info,
            "uploads_aborted",
            format!("gave up {count} uploads that nobody finished"),
            json!({"count": count}),
        ),
        ShipperEvent::UploadsKept { why } => (
            Warning,
            "uploads_kept",
            format!("unfinished uploads stay: {why}"),
            json!({"why": why}),
        ),
        ShipperEvent::Pass => return None,
        other => (Info, "other", format!("{other:?}"), Value::Null),
    })
}
