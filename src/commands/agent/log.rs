//! The agent's log on standard error: lines for people, or JSON objects for machines.
//!
//! Lines of `cdh agent run` begin with the time. Under systemd they do not: the journal has its own.

use std::collections::BTreeMap;

use cdh_agent::ShipperEvent;
use cdh_agent::config::LogFormat;
use cdh_agent::notify::{DeliveryReport, Outcome};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::render::terminal_line;

/// Writes the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Log {
    format: LogFormat,
    /// Whether lines begin with the time.
    timed: bool,
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Info,
    Warning,
    Error,
}

impl Log {
    /// The log of a service.
    pub(super) fn of_service(format: LogFormat, environment: &BTreeMap<String, String>) -> Self {
        Self {
            format,
            timed: !is_journal(environment.get("JOURNAL_STREAM").map(String::as_str)),
        }
    }

    /// What a command prints while the user waits for it.
    pub(super) fn of_command(format: LogFormat) -> Self {
        Self {
            format,
            timed: false,
        }
    }

    /// One line. `fields` are for machines; `text` is the same for people.
    pub(super) fn line(self, level: Level, event: &str, text: &str, fields: Value) {
        match self.format {
            LogFormat::Text => eprintln!("{}", self.text(level, text, Timestamp::now())),
            LogFormat::Json => eprintln!("{}", object(level, event, text, fields)),
        }
    }

    /// Whether lines are JSON objects.
    pub(super) fn is_json(self) -> bool {
        self.format == LogFormat::Json
    }

    fn text(self, level: Level, text: &str, now: Timestamp) -> String {
        let time = match self.timed {
            true => now.strftime("%Y-%m-%dT%H:%M:%S%.3fZ ").to_string(),
            false => String::new(),
        };
        let word = match level {
            Level::Info => "",
            Level::Warning => "warning: ",
            Level::Error => "error: ",
        };
        format!("{time}{word}{}", terminal_line(text))
    }

    /// What the shipper reports.
    pub(super) fn event(self, event: &ShipperEvent) {
        if let Some((level, name, text, fields)) = describe(event) {
            self.line(level, name, &text, fields);
        }
    }

    /// The outcome of a notification.
    pub(super) fn delivery(self, report: &DeliveryReport) {
        let (level, text) = match &report.outcome {
            Outcome::Sent => (
                Level::Info,
                format!("notified {} of {}", report.name, report.id),
            ),
            Outcome::Failed(why) => (
                Level::Error,
                format!("cannot notify {} of {}: {why}", report.name, report.id),
            ),
            Outcome::Dropped => (
                Level::Warning,
                format!(
                    "dropped the notification of {} to {}: its queue is full",
                    report.id, report.name
                ),
            ),
        };
        let fields = json!({"dump": report.id, "target": report.target, "receiver": report.name, "result": report.outcome.word()});
        self.line(level, "notification", &text, fields);
    }
}

/// Whether standard error is the stream that systemd names as the journal's.
fn is_journal(stream: Option<&str>) -> bool {
    let Some((device, inode)) = stream.and_then(|stream| stream.split_once(':')) else {
        return false;
    };
    rustix::fs::fstat(std::io::stderr())
        .is_ok_and(|found| device.parse() == Ok(found.st_dev) && inode.parse() == Ok(found.st_ino))
}

fn object(level: Level, event: &str, text: &str, fields: Value) -> Value {
    let mut object = Map::new();
    let level = match level {
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
    };
    object.insert("time".to_owned(), Value::from(Timestamp::now().to_string()));
    object.insert("level".to_owned(), Value::from(level));
    object.insert("event".to_owned(), Value::from(event));
    object.insert("message".to_owned(), Value::from(text));
    if let Value::Object(fields) = fields {
        object.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
    }
    Value::Object(object)
}

/// Level, name, sentence and fields; `None` for events that are not logged.
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
            let signal = &manifest.crash_signal().name;
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
        ShipperEvent::Kept { id, name } => (
            Info,
            "kept",
            format!(
                "kept {id} {name} on this node: it is of a setuid program (policy.setuid); `cdh info {id}` shows it"
            ),
            json!({"dump": id, "program": name, "why": "setuid"}),
        ),
        ShipperEvent::Unwanted { id, why } => (
            Info,
            "unwanted",
            format!("discarded {id}: {why}"),
            json!({"dump": id, "why": why}),
        ),
        ShipperEvent::NotEnriched { id, why } => (
            Warning,
            "without_workload",
            format!("cannot identify the pod of {id}: {why}"),
            json!({"dump": id, "why": why}),
        ),
        ShipperEvent::Runtime { socket, trouble } => {
            let named = match socket.as_os_str().is_empty() {
                true => String::new(),
                false => format!(" at {}", socket.display()),
            };
            let fields = json!({"socket": socket, "why": trouble});
            match trouble {
                None => (
                    Info,
                    "runtime",
                    format!("the container runtime{named} answers"),
                    fields,
                ),
                Some(why) => (
                    Warning,
                    "runtime_failed",
                    format!(
                        "the container runtime{named} does not answer: {why}; dumps of pods lack image, owner and \
                         labels, and names where the kubelet's log directories do not show them"
                    ),
                    fields,
                ),
            }
        }
        ShipperEvent::ModulesNotKept { id, why } => (
            Warning,
            "modules_not_kept",
            format!("modules of {id} not stored: {why}"),
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
            format!("cannot ship {id}: {why}"),
            json!({"dump": id, "why": why}),
        ),
        ShipperEvent::StoreFailed {
            why,
            hint,
            retry_in,
        } => {
            let seconds = retry_in.as_secs_f64().ceil();
            let hint_text = hint
                .as_ref()
                .map_or_else(String::new, |hint| format!(" (hint: {hint})"));
            (
                Error,
                "store_failed",
                format!("the store fails: {why}; next try in {seconds} s{hint_text}"),
                json!({"why": why, "hint": hint, "retry_in_seconds": seconds}),
            )
        }
        ShipperEvent::StoreBack => (
            Info,
            "store_back",
            "the store answers again".to_owned(),
            Value::Null,
        ),
        ShipperEvent::UploadsAborted { count } => (
            Info,
            "uploads_aborted",
            format!("aborted {count} stale multipart uploads"),
            json!({"count": count}),
        ),
        ShipperEvent::UploadsKept { why } => (
            Warning,
            "uploads_kept",
            format!("cannot abort stale multipart uploads: {why}"),
            json!({"why": why}),
        ),
        ShipperEvent::Pass => return None,
        other => (Info, "other", format!("{other:?}"), Value::Null),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_lines_of_a_service_begin_with_the_time_in_utc() {
        let log = Log::of_service(LogFormat::Text, &BTreeMap::new());
        let now = "2026-11-28T12:00:00.1239Z".parse().unwrap();
        assert_eq!(
            log.text(Level::Error, "no\nroom", now),
            "2026-11-28T12:00:00.123Z error: no\\nroom"
        );
        let log = Log::of_command(LogFormat::Text);
        assert_eq!(log.text(Level::Info, "shipped", now), "shipped");
    }

    #[test]
    fn stream_of_the_journal_is_recognized_by_device_and_inode() {
        let found = rustix::fs::fstat(std::io::stderr()).unwrap();
        let own = format!("{}:{}", found.st_dev, found.st_ino);
        assert!(is_journal(Some(&own)));
        for other in [None, Some(""), Some("1"), Some("0:0"), Some("x:y")] {
            assert!(!is_journal(other), "{other:?}");
        }
    }
}
