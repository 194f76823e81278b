use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver as Answers, channel};

use cdh_bundle::{DumpId, RawText, Verdict, Workload, WorkloadKind};
use serde_json::{Value, json};

use super::*;
use super::{WebhookConfig, WebhookFormat};
use crate::config::Secret;

/// A received request: request line and header fields in lower case, and the body.
pub(super) type Arrived = (Vec<String>, Value);

/// Reads one request from a connection, encrypted or not; `None` if the client closed it.
pub(super) fn read_request(connection: &mut dyn Read) -> Option<(Vec<String>, Vec<u8>)> {
    let mut reader = BufReader::new(connection);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader
            .read_line(&mut line)
            .ok()
            .filter(|length| *length > 0)?;
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_lowercase());
    }
    let length = head
        .iter()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// An HTTP response with this status.
pub(super) fn answer(status: u16) -> String {
    format!("HTTP/1.1 {status} x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
}

/// A server that answers with these statuses in order, then with 200; 0 closes the connection.
pub(super) fn server(mut statuses: Vec<u16>) -> (String, Answers<Arrived>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/hook/s3cr3t", listener.local_addr().unwrap());
    let (sender, arrived) = channel();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let (head, body) = read_request(&mut connection).unwrap();
            let status = if statuses.is_empty() {
                200
            } else {
                statuses.remove(0)
            };
            if status == 0 {
                continue;
            }
            if sender
                .send((head, serde_json::from_slice(&body).unwrap_or_default()))
                .is_err()
            {
                return;
            }
            let _ = connection.write_all(answer(status).as_bytes());
        }
    });
    (address, arrived)
}

/// A webhook with a short pause between attempts.
struct Quick(Webhook);

impl Deliver for Quick {
    fn target(&self) -> &'static str {
        self.0.target()
    }
    fn name(&self) -> String {
        self.0.name()
    }
    fn deliver(&self, crash: &Crash) -> Attempt {
        self.0.deliver(crash)
    }
    fn pause(&self) -> Option<Duration> {
        Some(Duration::from_millis(5))
    }
}

fn hook(url: &str, format: WebhookFormat) -> Box<dyn Deliver> {
    let config = WebhookConfig {
        url: Some(Secret::new(url)),
        format,
        headers: BTreeMap::from([("Authorization".to_owned(), Secret::new("Bearer t0k3n"))]),
        ..WebhookConfig::default()
    };
    Box::new(Quick(Webhook::new(config, 0)))
}

pub(super) fn manifest(fingerprint: &str) -> Manifest {
    let json = json!({
        "schema": 1, "id": DumpId::random(), "stem": "x", "captured_at": "2026-11-25T01:50:37.25Z",
        "process": {"pid": 7, "name": "api"}, "signal": {"number": 11, "name": "SIGSEGV"},
        "verdict": Verdict::Complete, "fingerprint": fingerprint,
    });
    let mut manifest: Manifest = serde_json::from_value(json).unwrap();
    manifest.process.name = RawText::from("<!channel> a\u{1b}[31m*b*\n");
    manifest.workload = Some(Workload {
        kind: Some(WorkloadKind::Pod),
        namespace: Some("shop".to_owned()),
        pod: Some("api-0".to_owned()),
        pod_uid: Some("u-1".to_owned()),
        container: Some("main".to_owned()),
        node: Some("node-7".to_owned()),
        ..Workload::default()
    });
    manifest
}

type Reports = Arc<Mutex<Vec<DeliveryReport>>>;

fn notifier(receivers: Vec<Box<dyn Deliver>>, state: &Path) -> (Notifier, Reports) {
    let reports = Reports::default();
    let kept = Arc::clone(&reports);
    let report: Report =
        Arc::new(move |result: &DeliveryReport| kept.lock().unwrap().push(result.clone()));
    (Notifier::begin(receivers, state, report), reports)
}

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn notifier_reports_each_new_crash_once_in_the_configured_format() {
    let state = tempfile::tempdir().unwrap();
    let formats = [
        WebhookFormat::Json,
        WebhookFormat::Slack,
        WebhookFormat::CloudEvents,
    ];
    let servers = formats.map(|format| (format, server(Vec::new())));
    let hooks = servers.iter().map(|(format, (url, _))| hook(url, *format));
    let (mut notifier, reports) = notifier(hooks.collect(), state.path());
    let first = manifest("aaaa");
    for manifest in [
        &first,
        &manifest("aaaa"),
        &manifest("bbbb"),
        &manifest("aaaa"),
    ] {
        notifier.notice(manifest);
    }
    let [plain, slack, event] = servers.map(|(_, (_, arrived))| {
        let all = [0, 1].map(|_| arrived.recv_timeout(PATIENCE).unwrap());
        drop(arrived);
        all
    });
    let (head, body) = &plain[0];
    assert!(head[0].starts_with("post /hook/s3cr3t "), "{head:?}");
    assert!(
        head.contains(&"authorization: bearer t0k3n".to_owned()),
        "{head:?}"
    );
    assert_eq!(body["dump"], first.id.to_string());
    assert_eq!(
        (&body["namespace"], &body["pod"], &body["signal"]),
        (&json!("shop"), &json!("api-0"), &json!("SIGSEGV"))
    );
    assert_eq!(plain[1].1["fingerprint"], "bbbb");
    let text = slack[0].1["text"].as_str().unwrap();
    assert!(
        text.contains("&lt;!channel&gt;") && !text.contains(['<', '*', '\u{1b}', '\n']),
        "{text}"
    );
    let (head, body) = &event[0];
    assert!(head.contains(&"content-type: application/cloudevents+json".to_owned()));
    assert_eq!(
        (&body["specversion"], &body["subject"]),
        (&json!("1.0"), &json!("shop/api-0"))
    );
    assert_eq!(body["data"]["container"], "main");
    drop(notifier);
    let reports = reports.lock().unwrap();
    assert_eq!(reports.len(), 6);
    assert!(
        reports
            .iter()
            .all(|reported| reported.outcome == Outcome::Sent),
        "{reports:?}"
    );
}

#[test]
fn notifier_remembers_reported_crashes_across_restarts() {
    let state = tempfile::tempdir().unwrap();
    let (url, arrived) = server(Vec::new());
    for fingerprint in ["aaaa", "aaaa", "bbbb"] {
        let (mut notifier, _) = notifier(vec![hook(&url, WebhookFormat::Json)], state.path());
        notifier.notice(&manifest(fingerprint));
    }
    let reported: Vec<Value> = arrived
        .try_iter()
        .map(|(_, body)| body["fingerprint"].clone())
        .collect();
    assert_eq!(reported, ["aaaa", "bbbb"]);
}

#[test]
fn notifier_retries_failures_but_not_refusals() {
    let state = tempfile::tempdir().unwrap();
    let (patient, arrived) = server(vec![503, 0, 429]);
    let (strict, refused) = server(vec![404, 404, 404]);
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let hooks = [patient, strict, format!("http://{closed}/s3cr3t")];
    let hooks = hooks.iter().map(|url| hook(url, WebhookFormat::Json));
    let (mut notifier, reports) = notifier(hooks.collect(), state.path());
    notifier.notice(&manifest("aaaa"));
    drop(notifier);
    assert_eq!(
        arrived.try_iter().count(),
        3,
        "503, 429 and 200 were seen with a body"
    );
    assert_eq!(refused.try_iter().count(), 1);
    let mut words: Vec<String> = reports
        .lock()
        .unwrap()
        .iter()
        .map(|reported| format!("{:?}", reported.outcome))
        .collect();
    words.sort();
    assert_eq!(
        words[..2],
        [
            "Failed(\"connection refused, 6 tries\")",
            "Failed(\"it answered 404\")"
        ]
    );
    assert_eq!(words[2], "Sent");
    assert!(!words.concat().contains("s3cr3t"));
}

/// Blocks until it is released.
struct Stuck(Mutex<Answers<()>>);

impl Deliver for Stuck {
    fn target(&self) -> &'static str {
        "webhook"
    }
    fn name(&self) -> String {
        "stuck".to_owned()
    }
    fn deliver(&self, _: &Crash) -> Attempt {
        let _ = self.0.lock().unwrap().recv();
        Attempt::Done
    }
}

#[test]
fn notifier_hanging_receiver_delays_no_other_and_drops_are_counted() {
    let state = tempfile::tempdir().unwrap();
    let (free, stuck) = channel();
    let (url, arrived) = server(Vec::new());
    let receivers: Vec<Box<dyn Deliver>> = vec![
        Box::new(Stuck(Mutex::new(stuck))),
        hook(&url, WebhookFormat::Json),
    ];
    let (mut notifier, reports) = notifier(receivers, state.path());
    let begun = Instant::now();
    for number in 0..QUEUE + 10 {
        notifier.notice(&manifest(&format!("{number:04}")));
        arrived.recv_timeout(PATIENCE).unwrap();
    }
    assert!(begun.elapsed() < PATIENCE);
    let dropped = || {
        reports
            .lock()
            .unwrap()
            .iter()
            .filter(|reported| reported.outcome == Outcome::Dropped)
            .count()
    };
    // One is being delivered, or still in the queue.
    assert!((9..=10).contains(&dropped()), "{}", dropped());
    drop(free);
}

#[test]
fn notifier_reports_a_fingerprint_once_per_workload() {
    let state = tempfile::tempdir().unwrap();
    let (url, arrived) = server(Vec::new());
    let of = |namespace: &str, pod: &str, owner: Option<(&str, &str)>| {
        let mut manifest = manifest("aaaa");
        let workload = manifest.workload.as_mut().unwrap();
        workload.namespace = Some(namespace.to_owned());
        workload.pod = Some(pod.to_owned());
        workload.owner = owner.map(|(kind, name)| cdh_bundle::WorkloadOwner {
            kind: kind.to_owned(),
            name: name.to_owned(),
        });
        manifest
    };
    let crashes = [
        of("shop", "api-7d4b-x2x9k", Some(("Deployment", "api"))),
        of("shop", "api-7d4b-b8cfz", Some(("Deployment", "api"))),
        of("shop", "api-29345678-x2x9k", Some(("CronJob", "api"))),
        of("shop-test", "api-7d4b-x2x9k", Some(("Deployment", "api"))),
        of("shop", "bare", None),
        of("shop", "bare", None),
    ];
    for _ in 0..2 {
        let (mut notifier, _) = notifier(vec![hook(&url, WebhookFormat::Json)], state.path());
        for crash in &crashes {
            notifier.notice(crash);
        }
    }
    let reported: Vec<String> = arrived
        .try_iter()
        .map(|(_, body)| format!("{}/{}", body["namespace"], body["pod"]).replace('"', ""))
        .collect();
    assert_eq!(
        reported,
        [
            "shop/api-7d4b-x2x9k",
            "shop/api-29345678-x2x9k",
            "shop-test/api-7d4b-x2x9k",
            "shop/bare",
        ]
    );
}
