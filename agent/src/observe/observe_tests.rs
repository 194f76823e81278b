use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::paths::AgentPaths;
use crate::shipper::ShipperEvent;

fn watcher(root: &std::path::Path) -> Arc<Watcher> {
    let textfile = root.join("cdh.prom");
    Arc::new(Watcher::new(AgentPaths::below(root), Some(textfile)))
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    connection
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    // A refused client gets nothing, or a connection reset.
    let _ = connection.read_to_string(&mut answer);
    answer
}

#[test]
fn listener_serves_three_paths_only() {
    let root = tempfile::tempdir().unwrap();
    let watcher = watcher(root.path());
    let listener = Listener::begin("127.0.0.1:0".parse().unwrap(), Arc::clone(&watcher)).unwrap();
    let get = |path: &str| {
        ask(
            listener.address(),
            &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"),
        )
    };
    let metrics = get("/metrics?x=1");
    assert!(
        metrics.starts_with("HTTP/1.1 200 OK\r\n") && metrics.contains("\ncdh_store_up 1\n"),
        "{metrics}"
    );
    assert!(get("/healthz").ends_with("\r\n\r\nok\n"));
    assert!(
        get("/readyz").starts_with("HTTP/1.1 503 ") && get("/readyz").contains("not been scanned")
    );
    assert!(watcher.notice(&ShipperEvent::Pass).is_none());
    // Unless another test holds the kernel's settings at the moment.
    assert!(get("/readyz").contains("core_pattern") || get("/readyz").contains("ok"));
    assert!(get("/etc/passwd").starts_with("HTTP/1.1 404 "));
    assert!(get("/../../etc/passwd").starts_with("HTTP/1.1 404 "));
    let head = ask(listener.address(), "HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"));
    assert!(ask(listener.address(), "POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert!(ask(listener.address(), &"x".repeat(9000)).starts_with("HTTP/1.1 400 ") || cfg!(unix));
    let text = std::fs::read_to_string(root.path().join("cdh.prom")).unwrap();
    assert!(text.contains("cdh_last_pass_timestamp_seconds 1"), "{text}");
}

#[test]
fn listener_times_out_silent_clients() {
    let root = tempfile::tempdir().unwrap();
    let listener = Listener::begin("127.0.0.1:0".parse().unwrap(), watcher(root.path())).unwrap();
    let silent: Vec<TcpStream> = (0..40)
        .map(|_| TcpStream::connect(listener.address()).unwrap())
        .collect();
    let mut slow = TcpStream::connect(listener.address()).unwrap();
    let begun = Instant::now();
    loop {
        // A byte now and then does not extend the deadline.
        let _ = slow.write_all(b"G");
        if ask(listener.address(), "GET /healthz HTTP/1.1\r\n\r\n").contains("ok") {
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(15),
            "no request was answered"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(silent);
    let stopping = Instant::now();
    drop(listener);
    assert!(stopping.elapsed() < Duration::from_secs(5));
}

#[test]
fn readiness_does_not_depend_on_the_store() {
    let root = tempfile::tempdir().unwrap();
    let watcher = watcher(root.path());
    let failed = ShipperEvent::StoreFailed {
        hint: None,
        why: "x".to_owned(),
        retry_in: Duration::ZERO,
    };
    watcher.notice(&failed);
    watcher.notice(&failed);
    let text = watcher.metrics();
    assert!(text.contains("\ncdh_store_up 0\n"), "{text}");
    assert!(text.contains("\ncdh_upload_failures_total{because=\"store\"} 2\n"));
    assert!(!text.contains("cdh_store_down_since_timestamp_seconds 0\n"));
    watcher.notice(&ShipperEvent::StoreBack);
    assert!(watcher.metrics().contains("\ncdh_store_up 1\n"));
    assert!(watcher.unhealthy().is_none());
}

#[test]
fn metrics_count_undescribed_dumps_and_silent_runtimes() {
    let root = tempfile::tempdir().unwrap();
    let watcher = watcher(root.path());
    let sealed = |kind: &str, source: &str| {
        let json = serde_json::json!({
            "schema": 1, "id": cdh_bundle::DumpId::random(), "stem": "x",
            "captured_at": "2026-11-25T01:50:37Z", "process": {"pid": 7},
            "signal": {"number": 11}, "verdict": {"state": "complete"},
            "workload": {"kind": kind, "source": source},
        });
        let manifest = Box::new(serde_json::from_value(json).unwrap());
        watcher.notice(&ShipperEvent::Sealed { manifest });
    };
    for (kind, source) in [
        ("pod", "cri"),
        ("pod", "cri-cache"),
        ("container", "engine"),
        ("host", "cgroup"),
        ("pod", "logs"),
        ("pod", "cgroup"),
    ] {
        sealed(kind, source);
    }
    for (socket, trouble) in [("/a.sock", None), ("/b.sock", Some("it hangs"))] {
        watcher.notice(&ShipperEvent::Runtime {
            socket: socket.into(),
            trouble: trouble.map(str::to_owned),
        });
    }
    let metrics = watcher.metrics();
    for line in [
        "cdh_without_workload_total 2\n",
        "cdh_runtime_up{socket=\"/a.sock\"} 1\n",
        "cdh_runtime_up{socket=\"/b.sock\"} 0\n",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[test]
fn readiness_changes_are_reported_once() {
    let root = tempfile::tempdir().unwrap();
    let mut paths = AgentPaths::below(root.path());
    paths.settings = crate::paths::SettingsFiles::in_directory(root.path());
    let ours = paths.core_pattern().unwrap();
    let pattern = paths.settings.core_pattern.clone();
    let set = |value: &[u8]| std::fs::write(&pattern, value).unwrap();
    std::fs::write(&paths.settings.core_pipe_limit, "1024\n").unwrap();
    std::fs::write(&paths.settings.suid_dumpable, "2\n").unwrap();
    set(ours.as_bytes());
    let watcher = Watcher::new(paths, None);
    watcher.notice(&ShipperEvent::Pass);
    assert_eq!(watcher.readiness_changed(), None);
    set(b"|/usr/lib/other %P\n");
    let Some(Readiness::Lost(why)) = watcher.readiness_changed() else {
        panic!("nothing is reported");
    };
    assert!(why.contains("`|/usr/lib/other %P`"), "{why}");
    assert_eq!(watcher.readiness_changed(), None);
    set(ours.as_bytes());
    assert_eq!(watcher.readiness_changed(), Some(Readiness::Ready));
}

#[test]
fn metrics_count_kept_dumps_separately() {
    let root = tempfile::tempdir().unwrap();
    let paths = AgentPaths::below(root.path());
    let sealed = |seconds: u64| {
        let id = cdh_bundle::DumpId::random();
        let entry = paths.spool.join(id.to_string());
        std::fs::create_dir_all(&entry).unwrap();
        let manifest = std::fs::File::create(entry.join("manifest.json")).unwrap();
        let then = std::time::SystemTime::now() - Duration::from_secs(seconds);
        manifest.set_modified(then).unwrap();
        id
    };
    let (kept, _waiting) = (sealed(9_000), sealed(100));
    let record = serde_json::json!({"store": "/x", "kept": [kept]});
    std::fs::create_dir_all(paths.uploads()).unwrap();
    std::fs::write(paths.uploads().join("shipper.json"), record.to_string()).unwrap();
    let text = watcher(root.path()).metrics();
    let value = |name: &str| -> u64 {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("{name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(value("cdh_spool_entries{state=\"kept\"}"), 1);
    assert_eq!(value("cdh_spool_entries{state=\"sealed\"}"), 1);
    assert!(
        (100..1_000).contains(&value("cdh_oldest_unshipped_seconds")),
        "{text}"
    );
    assert!(
        (9_000..10_000).contains(&value("cdh_oldest_kept_seconds")),
        "{text}"
    );
}
