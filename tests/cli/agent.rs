//! The agent's configuration, its numbers and its messages, as an operator meets them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use cdh_bundle::{CoreEncoding, DumpId, EntryKind, Manifest, Verdict};
use serde_json::{Value, json};

use super::{Answer, Workstation};

const PATIENCE: Duration = Duration::from_secs(30);

impl Workstation {
    pub(super) fn with(&self, words: &[&str], variables: &[(&str, &str)]) -> Answer {
        let mut command = self.command(words);
        command.envs(variables.iter().copied());
        self.answer(command.output().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Seals a dump in the spool, as a handler would.
    fn crash(&self, fingerprint: &str) -> DumpId {
        self.crash_of("api", fingerprint, 1)
    }

    /// As [`Workstation::crash`], of this program; `dumpable` is 2 for setuid programs.
    pub(super) fn crash_of(&self, name: &str, fingerprint: &str, dumpable: u8) -> DumpId {
        let process = json!({"pid": 1, "name": name, "dumpable": dumpable});
        self.crash_in(&process, fingerprint)
    }

    /// The same of a process with these facts.
    pub(super) fn crash_in(&self, process: &Value, fingerprint: &str) -> DumpId {
        let spool = self.path("state/spool");
        let id = DumpId::random();
        let mut entry = cdh_agent::spool::PartialEntry::create(&spool, id).unwrap();
        let json = json!({
            "schema": 1, "id": id, "stem": id, "captured_at": jiff::Timestamp::now(),
            "process": process, "signal": {"number": 11, "name": "SIGSEGV"},
            "verdict": Verdict::Complete, "fingerprint": fingerprint,
        });
        let manifest: Manifest = serde_json::from_value(json).unwrap();
        entry
            .write_file(&EntryKind::Core(CoreEncoding::None), b"a core")
            .unwrap();
        entry.seal(manifest).unwrap();
        id
    }
}

/// `cdh agent run`, and what it logs. It is ended with the test.
pub(super) struct Agent {
    child: Child,
    log: Receiver<String>,
    seen: Vec<String>,
}

impl Agent {
    fn run(workstation: &Workstation, words: &[&str]) -> Self {
        let mut command = workstation.command(&["agent", "run"]);
        command.args(words);
        Self::start(workstation, command)
    }

    /// Starts `cdh agent run …`.
    pub(super) fn start(workstation: &Workstation, mut command: Command) -> Self {
        command.arg("--state").arg(workstation.path("state"));
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self {
            child,
            log,
            seen: Vec::new(),
        }
    }

    /// The first line that holds this.
    pub(super) fn wait_for(&mut self, text: &str) -> String {
        loop {
            let line = self.log.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no `{text}` in {:#?}", self.seen));
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    pub(super) fn stop(mut self) -> Vec<String> {
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        assert!(self.child.wait().unwrap().success());
        // Until its end: the last line is read by another thread.
        while let Ok(line) = self.log.recv_timeout(PATIENCE) {
            self.seen.push(line);
        }
        std::mem::take(&mut self.seen)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn check_config_reports_lines_and_prints_origins() {
    let workstation = Workstation::new();
    let file = workstation.write(
        "agent.toml",
        "store = \"s3://dumps/prod?region=eu\"\n[shipping]\nparallel = 3\n[[notify.webhooks]]\nurl = \"https://hooks.example/T0/hush\"\n",
    );
    let answer = workstation.with(&["agent", "check-config", &file], &[]);
    assert_eq!(
        (answer.code, answer.out.as_str()),
        (0, "ok: [WORKSTATION]/agent.toml\n"),
        "{}",
        answer.err
    );
    let answer = workstation.with(
        &["agent", "check-config", &file, "--print"],
        &[
            ("CDH_STORE", ""),
            ("CDH_LOG_LINES", "7"),
            ("SUID_DUMPABLE", "0"),
        ],
    );
    for line in [
        "store = \"s3://dumps/prod?region=eu\"  # [WORKSTATION]/agent.toml",
        "parallel = 3  # [WORKSTATION]/agent.toml:3",
        "log_lines = 7  # CDH_LOG_LINES",
        "suid_dumpable = 0  # SUID_DUMPABLE (of IBM's core-dump-handler)",
        "# interval is not set",
        "[limits.rate]",
    ] {
        assert!(
            answer.out.lines().any(|found| found == line),
            "{line} in\n{}",
            answer.out
        );
    }
    assert!(!answer.out.contains("hush") && answer.out.contains("(hidden)"));
    let file = workstation.write(
        "wrong.toml",
        "[shipping]\nschedul = \"x\"\n\n[limits]\nspool_quota = \"much\"\n",
    );
    let answer = workstation.with(&["agent", "check-config", &file], &[]);
    assert_eq!(answer.code, 2);
    for text in [
        "error: [WORKSTATION]/wrong.toml:2: there is no key `shipping.schedul`",
        "hint: did you mean `schedule`?",
        "error: [WORKSTATION]/wrong.toml:5: `limits.spool_quota`: invalid size `much`",
    ] {
        assert!(answer.err.contains(text), "{}", answer.err);
    }
    // The same file serves the workstation.
    let both = workstation.write(
        "both.toml",
        "[stores.x]\nurl = \"/x\"\n[log]\nformat = \"json\"\n",
    );
    assert_eq!(
        workstation.with(&["--config", &both, "ls"], &[]).code,
        2,
        "the store is not there yet"
    );
    let typo = workstation.write("typo.toml", "[storse.x]\nurl = \"/x\"\n");
    assert!(
        workstation
            .with(&["--config", &typo, "ls"], &[])
            .err
            .contains("unknown key `storse`")
    );
}

/// A value for each key: what `--print` has to write so that it is read again.
const EVERY_KEY: &str = r#"
[node]
state = "/var/lib/a\"b\u007f"
libexec = "/opt/cdh"
manage = true
core_pipe_limit = 7
suid_dumpable = 0
mode = "auto"
chain = true
[capture]
release = "early"
strategy = "raw"
[collect]
files = true
[policy]
default = "minicore"
unknown_pod = "metadata"
setuid = "ship"
scrub = ["*PASS*", "a'b"]
environment = ["LANG"]
[[policy.rules]]
name = "system"
namespace = "kube-*"
action = "metadata"
[[policy.rules]]
labels = { tier = "cache", "example.com/a b" = "c" }
exe = "/usr/bin/redis-*"
uid = [999]
signal = ["SIGABRT", "SIGSEGV"]
action = "full"
core_limit = "2G"
[limits]
spool_quota = "20G"
spool_quota_percent = 51
disk_floor = "1G"
disk_floor_percent = 4
core_limit = "8G"
handlers = 4
handler_wait = "20s"
copy_time = "2h"
minicore_limit = "3M"
cgroup = "cdh.slice"
[limits.rate]
window = "11m"
fingerprint_full = 1
fingerprint_dumps = 2
workload_full = 3
workload_dumps = 4
[shipping]
mode = "interval"
interval = "10m"
bandwidth = "20M"
parallel = 3
keep_modules = true
[workloads]
sockets = ["/run/x.sock"]
node = "n1"
log_lines = 9
pods = "opt-in"
opt_in_label = "dump"
[metrics]
listen = "127.0.0.1:9464"
textfile = "/var/lib/x.prom"
[notify]
kubernetes_events = true
[[notify.webhooks]]
name = "chat"
url = "https://hooks.example/T0/hush"
format = "slack"
headers = { Authorization = "hush" }
[log]
format = "json"
"#;

#[test]
fn printed_configuration_is_toml_that_reads_back_as_the_same() {
    let workstation = Workstation::new();
    let every = workstation.write("every.toml", EVERY_KEY);
    let from_ibm = [
        ("S3_BUCKET_NAME", "dumps"),
        ("SCHEDULE", "0 2 * * *"),
        ("CDH_STORE", ""),
    ];
    let some = [
        ("CDH_LIMITS_DISK_FLOOR", "3G"),
        ("CDH_SHIPPING_PARALLEL", "5"),
    ];
    /// A file and variables.
    type Case<'c> = (&'c [&'c str], &'c [(&'c str, &'c str)]);
    let cases: [Case<'_>; 4] = [
        (&[], &[]),
        (&[&every], &[]),
        (&[], &from_ibm),
        (&[&every], &some),
    ];
    for (file, variables) in cases {
        let run = |words: Vec<String>, variables: &[(&str, &str)]| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let answer = workstation.with(&words, variables);
            assert_eq!(answer.code, 0, "{words:?}: {}", answer.err);
            answer.out
        };
        let values = |text: &str| {
            let json: Value = serde_json::from_str(text).unwrap();
            let pair = |value: &Value| (value["key"].clone(), value["value"].clone());
            let all = json["values"]
                .as_array()
                .unwrap()
                .iter()
                .chain([&json["store"]]);
            all.map(pair).collect::<Vec<_>>()
        };
        let before = values(&run(
            words(file, &["-o", "json", "--show-secrets"]),
            variables,
        ));
        let text = run(words(file, &["--show-secrets"]), variables);
        let copy = workstation.write("copy.toml", &text);
        let again = words(&[&copy], &["-o", "json", "--show-secrets"]);
        let again = run(again, &[("CDH_STORE", "")]);
        assert_eq!(values(&again), before, "{text}");
        for (key, value) in &before {
            let name = key.as_str().unwrap().rsplit('.').next().unwrap();
            let line = match value.is_null() {
                true => format!("# {name} is not set"),
                false => format!("{name} = "),
            };
            let line = { text.lines() }.find(|found| found.starts_with(&line));
            let line = line.unwrap_or_else(|| panic!("{key} in\n{text}"));
            assert!(value.is_null() || line.contains("  # "), "{line}");
        }
        // Without secrets it is a file as well.
        let text = run(words(file, &["--print"]), variables);
        assert!(!text.contains("hush"), "{text}");
        let copy = workstation.write("copy.toml", &text);
        run(words(&[&copy], &[]), &[("CDH_STORE", "")]);
    }
}

/// `cdh agent check-config` with a file and flags.
fn words(file: &[&str], flags: &[&str]) -> Vec<String> {
    let words = ["agent", "check-config"].iter().chain(file).chain(flags);
    words.map(|word| (*word).to_owned()).collect()
}

#[test]
fn every_key_of_the_configuration_is_in_the_test_of_its_printing() {
    let workstation = Workstation::new();
    let answer = workstation.with(&["agent", "check-config", "-o", "json"], &[]);
    let json: Value = serde_json::from_str(&answer.out).unwrap();
    for value in json["values"].as_array().unwrap() {
        let name = value["key"].as_str().unwrap().rsplit('.').next().unwrap();
        // One excludes the other.
        let is_set = EVERY_KEY.contains(&format!("\n{name} = ")) || name == "schedule";
        let is_table = EVERY_KEY.contains(&format!(".{name}]]\n"));
        assert!(is_set || is_table, "{name}");
    }
}

#[test]
fn configuration_errors_are_lines_without_escaped_line_breaks() {
    let workstation = Workstation::new();
    for text in [
        "store = \"x\n",
        "[limits]\nspool_quota = \n",
        "[policy]\nscrub = [\"a\"\nb=1\n",
        "[node]\nmode = \"so\\q\"\n",
        "a=1\na=2\n",
        "[images]\noffline=\"x\"\n",
        "[[policy.rules]]\nuid = \"x\"\n[log]\nformat = 1\n",
        "[node]\nstate = \"\"\"\nno end\n",
    ] {
        let file = workstation.write("wrong.toml", text);
        for words in [
            &["agent", "check-config", &file][..],
            &["--config", &file, "agent", "status", "--no-store"],
        ] {
            let answer = workstation.with(words, &[]);
            assert_eq!(answer.code, 2, "{text}: {}", answer.out);
            assert!(!answer.err.contains("\\n"), "{text}: {}", answer.err);
            assert!(answer.err.starts_with("error: "), "{text}: {}", answer.err);
        }
    }
}

#[test]
fn unknown_variables_are_reported_with_the_near_match_by_both_sides() {
    let workstation = Workstation::new();
    let wrong = [
        ("CDH_SHIPING_INTERVAL", "5m"),
        ("CDH_STOER", "/x"),
        ("CDH_QQQ", "1"),
    ];
    for words in [
        &["agent", "check-config"][..],
        &["ls"],
        &["agent", "status", "--no-store"],
    ] {
        let answer = workstation.with(words, &wrong);
        for text in [
            "unknown variable `CDH_SHIPING_INTERVAL` (did you mean `CDH_SHIPPING_INTERVAL`?)",
            "unknown variable `CDH_STOER` (did you mean `CDH_STORE`?)",
            "unknown variable `CDH_QQQ`",
        ] {
            assert!(answer.err.contains(text), "{words:?}: {}", answer.err);
        }
    }
    let answer = workstation.with(&["agent", "check-config", "--json"], &wrong);
    let json: Value = serde_json::from_str(&answer.out).unwrap();
    let found = json["unknown_variables"].as_array().unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!(found[1]["similar"], "CDH_SHIPPING_INTERVAL", "{found:?}");
}

#[test]
fn two_ways_to_ship_at_once_are_refused_by_every_command() {
    let workstation = Workstation::new();
    let both = [("INTERVAL", "60000"), ("SCHEDULE", "0 * * * *")];
    for words in [
        &["agent", "check-config"][..],
        &["agent", "run"],
        &["agent", "sweep"],
    ] {
        let answer = workstation.with(words, &both);
        assert_eq!(answer.code, 2, "{words:?}");
        assert!(
            answer
                .err
                .contains("`shipping.interval` and `shipping.schedule` are both set"),
            "{}",
            answer.err
        );
        assert!(
            answer.err.contains("INTERVAL") && answer.err.contains("SCHEDULE"),
            "{}",
            answer.err
        );
    }
    let answer = workstation.with(
        &[
            "agent",
            "run",
            "--interval",
            "5m",
            "--schedule",
            "0 * * * *",
        ],
        &[],
    );
    assert_eq!(answer.code, 2);
}

#[test]
fn variables_of_ibms_handler_are_a_configuration() {
    let workstation = Workstation::new();
    let answer = workstation.with(
        &["agent", "check-config", "--print"],
        &[
            ("CDH_STORE", ""),
            ("S3_BUCKET_NAME", "dumps"),
            ("S3_REGION", "eu-de"),
            ("S3_ACCESS_KEY", "AK"),
            ("S3_SECRET", "hush"),
            ("SCHEDULE", "0 0 2 * * *"),
            ("LOG_LENGTH", "9"),
            ("CRIO_ENDPOINT", "unix:///run/crio/crio.sock"),
            ("FILENAME_TEMPLATE", "{uuid}"),
        ],
    );
    assert_eq!(answer.code, 0, "{}", answer.err);
    for text in [
        "store = \"s3://dumps?path-style=true&region=eu-de\"  # S3_BUCKET_NAME",
        "schedule = \"0 0 2 * * *\"  # SCHEDULE (of IBM's core-dump-handler)",
        "log_lines = 9  # LOG_LENGTH",
        "sockets = [\"/run/crio/crio.sock\"]  # CRIO_ENDPOINT",
    ] {
        assert!(answer.out.contains(text), "{text} in\n{}", answer.out);
    }
    assert!(
        answer
            .err
            .contains("note: `FILENAME_TEMPLATE` changes nothing"),
        "{}",
        answer.err
    );
    assert!(!(answer.out + &answer.err).contains("hush"));
}

/// Reads with the parser of Prometheus' own client, and prints families with their types.
const PARSER: &str = r#"
import json, sys
from prometheus_client.parser import text_string_to_metric_families
families = {}
for family in text_string_to_metric_families(sys.stdin.read()):
    samples = [[sample.name, sample.labels, sample.value] for sample in family.samples]
    families[family.name] = {"type": family.type, "samples": samples}
json.dump(families, sys.stdout)
"#;

fn parsed(text: &str) -> Option<Value> {
    let Some(packages) = std::env::var_os("CDH_TEST_PROMETHEUS") else {
        eprintln!("SKIPPED: no prometheus_client here; `cargo xtask test` installs it");
        return None;
    };
    let mut python = std::process::Command::new("python3");
    python.env("PYTHONPATH", packages).args(["-c", PARSER]);
    let mut child = python
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "Prometheus' parser refuses this:\n{text}"
    );
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn get(address: &str, path: &str) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    write!(connection, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// Metrics that the README names for what is worth an alert.
fn named_in_the_docs() -> Vec<String> {
    let page =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/monitoring.md")).unwrap();
    let words = page.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let mut names: Vec<String> = words
        .filter(|word| word.starts_with("cdh_"))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn metrics_parse_as_prometheus_and_a_new_crash_is_notified_once() {
    let hook = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = hook.local_addr().unwrap();
    let (sender, arrived) = channel();
    std::thread::spawn(move || {
        for connection in hook.incoming() {
            let mut connection = connection.unwrap();
            let mut reader = BufReader::new(connection.try_clone().unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).unwrap() > 2 {
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            connection
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
            let _ = sender.send(serde_json::from_slice::<Value>(&body).unwrap());
        }
    });
    let workstation = Workstation::new();
    let textfile = workstation.path("cdh.prom");
    let file = workstation.write(
        "agent.toml",
        &format!(
            "[metrics]\nlisten = \"127.0.0.1:0\"\ntextfile = {textfile:?}\n[log]\nformat = \"json\"\n\
             [[notify.webhooks]]\nname = \"ops\"\nurl = \"http://{address}/T0/hush\"\nformat = \"slack\"\n"
        ),
    );
    let first = workstation.crash("aaaa");
    let mut agent = Agent::run(&workstation, &["--config", &file]);
    let listening: Value = serde_json::from_str(&agent.wait_for("listening")).unwrap();
    let metrics = listening["address"].as_str().unwrap().to_owned();
    agent.wait_for("\"shipped\"");
    let message = arrived.recv_timeout(PATIENCE).unwrap();
    assert!(
        message["text"].as_str().unwrap().contains("SIGSEGV"),
        "{message}"
    );
    assert!(message.to_string().contains(&format!("cdh bt {first}")));
    // The same crash again is shipped and not reported; another one is both.
    workstation.crash("aaaa");
    agent.wait_for("\"shipped\"");
    workstation.crash("bbbb");
    agent.wait_for("\"shipped\"");
    let second = arrived.recv_timeout(PATIENCE).unwrap();
    assert!(second.to_string().contains("bbbb"), "{second}");
    let text = get(&metrics, "/metrics");
    assert_eq!(get(&metrics, "/healthz"), "ok\n");
    for name in named_in_the_docs() {
        let type_line = format!("# TYPE {name} ");
        let histogram = name
            .trim_end_matches("_bucket")
            .trim_end_matches("_sum")
            .trim_end_matches("_count");
        let histogram = format!("# TYPE {histogram} histogram");
        assert!(
            text.contains(&type_line) || text.contains(&histogram),
            "{name} of docs/monitoring.md in\n{text}"
        );
    }
    assert!(named_in_the_docs().len() >= 10);
    if let Some(families) = parsed(&text) {
        let shipped = &families["cdh_shipped"];
        let value = |name: &str| families[name]["samples"][0][2].as_f64();
        assert_eq!(shipped["type"], "counter");
        assert_eq!(
            (value("cdh_shipped"), value("cdh_store_up")),
            (Some(3.0), Some(1.0))
        );
        assert_eq!(families["cdh_upload_seconds"]["type"], "histogram");
        println!("{} families read", families.as_object().unwrap().len());
        let begun = Instant::now();
        while !textfile.exists() {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(
            parsed(&fs::read_to_string(&textfile).unwrap()).unwrap()["cdh_store_up"].is_object()
        );
    }
    let log = agent.stop();
    assert!(arrived.try_recv().is_err(), "told twice");
    for line in &log {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["time"].is_string() && line["level"].is_string() && line["event"].is_string());
    }
    assert!(!log.concat().contains("hush"));
}

#[test]
fn agent_with_shipping_off_ships_on_request() {
    let workstation = Workstation::new();
    let (one, other) = (workstation.crash("aaaa"), workstation.crash("bbbb"));
    let mut agent = Agent::run(&workstation, &["--ship", "off"]);
    agent.wait_for("captured");
    let state = workstation.path("state");
    let state = state.to_str().unwrap();
    let spool = |id: DumpId| workstation.path("state/spool").join(id.to_string());
    assert!(spool(one).exists() && spool(other).exists());
    let path = spool(one);
    let answer = workstation.run(&["agent", "sweep", "--state", state, path.to_str().unwrap()]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert!(!spool(one).exists() && spool(other).exists());
    let answer = workstation.run(&["agent", "sweep", "--state", state]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert!(!spool(other).exists());
    agent.stop();
    assert_eq!(
        workstation
            .run(&["agent", "sweep", "--state", state, "nonsense"])
            .code,
        2
    );
}

#[test]
fn doctor_names_problems_and_fixes() {
    let workstation = Workstation::new();
    let place = workstation.path("nowhere");
    let place = place.to_str().unwrap();
    let words = [
        "agent",
        "doctor",
        "--state",
        place,
        "--libexec",
        place,
        "--json",
    ];
    let findings = workstation.json_of_any_status(&words);
    let findings = findings.as_array().unwrap();
    let of = |check: &str| {
        findings
            .iter()
            .find(|finding| finding["check"] == check)
            .unwrap()
    };
    assert_eq!(of("handler")["state"], "problem");
    assert_eq!(of("store")["state"], "good");
    assert!(
        of("handler")["way"]
            .as_str()
            .unwrap()
            .contains("cdh agent install")
    );
    let answer = workstation.run(&words[..6]);
    assert_eq!(answer.code, 2);
    assert!(answer.out.contains("PROBLEM  handler: "), "{}", answer.out);
}
