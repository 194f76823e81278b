//! Entries with every source of facts except a runtime; other tests use a real runtime.

use std::fs;
use std::path::PathBuf;

use cdh_bundle::{BundleWriter, DumpId, EntryDir, SpoolState};

use super::*;
use crate::handler::HandlerArguments;
use crate::handler::record::identity::first_manifest;
use crate::owner::Owner;
use crate::paths::AgentPaths;
use crate::policy::Selection;

const UID: &str = "6a9b4a0c-8f1d-4f58-9a3b-2f64ab1d7c10";
const ID: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

struct Node {
    root: tempfile::TempDir,
    paths: AgentPaths,
}

impl Node {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let paths = AgentPaths::below(root.path());
        fs::create_dir_all(&paths.spool).unwrap();
        Self { root, paths }
    }

    fn entry(&self, cgroup: &str) -> SpoolEntry {
        let id = DumpId::random();
        let mut manifest = first_manifest(id, &HandlerArguments::default(), None);
        manifest.workload = Owner::from_cgroup(cgroup.as_bytes()).map(|owner| owner.workload());
        let mut entry = EntryDir::create(&self.paths.spool, id).unwrap();
        entry
            .write_file(&EntryKind::DumpInfo, b"{\"uuid\": \"x\"}")
            .unwrap();
        let core = EntryKind::Core(cdh_bundle::CoreEncoding::ZstdSeekable);
        entry.write_file(&core, &[7; 5000]).unwrap();
        entry.write_file(&EntryKind::Minicore, b"small").unwrap();
        manifest.core = Some(cdh_bundle::CoreRecord {
            entry: core.bundle_name(&manifest.stem),
            encoding: cdh_bundle::CoreEncoding::ZstdSeekable,
            size: 5000,
            expected: 5000,
            sha256: None,
        });
        let path = entry.seal(manifest).unwrap();
        let state = SpoolState::Sealed;
        SpoolEntry { id, path, state }
    }

    fn pod_logs(&self) {
        let container = self
            .paths
            .workloads
            .pod_logs
            .join(format!("shop_api_{UID}/main"));
        fs::create_dir_all(&container).unwrap();
        let line = "2026-01-01T00:00:00Z stderr F out of cheese\n";
        fs::write(container.join("0.log"), line).unwrap();
    }

    fn enrich(&self, entry: &SpoolEntry) -> Enriched {
        let enricher = Enricher::begin(&self.paths.workloads, &self.paths.spool);
        enricher.enrich(entry, &self.journal()).unwrap()
    }

    fn journal(&self) -> PathBuf {
        self.root.path().join("journal")
    }
}

fn manifest(entry: &SpoolEntry) -> Manifest {
    let bundle = BundleWriter::from_entry(&entry.path).unwrap();
    bundle.write_to(&mut std::io::sink()).unwrap();
    bundle.manifest().clone()
}

fn pod_cgroup() -> String {
    format!("0::/kubepods/burstable/pod{UID}/{ID}\n")
}

#[test]
fn enrich_without_a_runtime_takes_names_from_the_kubelets_directories() {
    let node = Node::new();
    node.pod_logs();
    let entry = node.entry(&pod_cgroup());
    assert!(matches!(node.enrich(&entry), Enriched::Ready));
    let found = manifest(&entry);
    let workload = found.workload.clone().unwrap();
    assert_eq!(workload.source.as_deref(), Some("logs"));
    assert_eq!(workload.namespace.as_deref(), Some("shop"));
    assert_eq!(workload.pod.as_deref(), Some("api"));
    assert_eq!(workload.container.as_deref(), Some("main"));
    assert_eq!(workload.pod_uid.as_deref(), Some(UID));
    let gap = found
        .gaps
        .iter()
        .find(|gap| gap.what == "workload")
        .unwrap();
    assert!(!gap.why.is_empty());
    let log = fs::read_to_string(entry.path.join("0.log")).unwrap();
    assert_eq!(log, "out of cheese\n");
    let info = fs::read_to_string(entry.path.join("dump-info.json")).unwrap();
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(
        (&info["podname"], &info["uuid"]),
        (&"api".into(), &"x".into())
    );
    // Once is enough.
    node.enrich(&entry);
    assert_eq!(manifest(&entry), found);
}

#[test]
fn enrich_records_unknown_facts_once_as_a_gap_with_the_reason() {
    let node = Node::new();
    let entry = node.entry(&pod_cgroup());
    node.enrich(&entry);
    let found = manifest(&entry);
    assert_eq!(
        found.workload.clone().unwrap().container_id.as_deref(),
        Some(ID)
    );
    assert_eq!(
        found
            .gaps
            .iter()
            .filter(|gap| gap.what == "workload")
            .count(),
        1
    );
    node.enrich(&entry);
    assert_eq!(manifest(&entry), found);
}

#[test]
fn enrich_marks_host_processes_without_a_query() {
    let node = Node::new();
    let entry = node.entry("0::/system.slice/nginx.service\n");
    let before = manifest(&entry);
    node.enrich(&entry);
    assert_eq!(manifest(&entry), before);
    assert_eq!(before.workload.unwrap().kind, Some(WorkloadKind::Host));
}

#[test]
fn enrich_leaves_an_entry_with_a_started_upload_unchanged() {
    let node = Node::new();
    node.pod_logs();
    let entry = node.entry(&pod_cgroup());
    let before = manifest(&entry);
    fs::write(node.journal(), "").unwrap();
    node.enrich(&entry);
    assert_eq!(manifest(&entry), before);
}

#[test]
fn enrich_stores_only_facts_of_an_unknown_pod_on_an_opt_in_node() {
    let mut node = Node::new();
    node.paths.workloads.selection = Selection::OptIn { label: None };
    let entry = node.entry(&pod_cgroup());
    assert!(matches!(node.enrich(&entry), Enriched::Ready));
    let found = manifest(&entry);
    assert_eq!(found.core, None);
    assert_eq!(found.verdict.word(), "empty");
    let names: Vec<_> = found.entries.iter().map(|entry| &entry.name).collect();
    assert!(
        names.iter().all(|name| name.ends_with("dump-info.json")),
        "{names:?}"
    );
}

#[test]
fn enrich_removes_a_core_above_the_pods_limit() {
    let node = Node::new();
    let entry = node.entry(&pod_cgroup());
    let limited = |limit: u64| {
        let mut found = manifest(&entry);
        let decision = Decision {
            core_limit: Some(limit),
            ..Decision::default()
        };
        super::limit(&mut found, &decision);
        found
    };
    assert!(limited(5000).core.is_some());
    let short = limited(4999);
    assert!(short.core.is_none());
    assert!(
        short
            .entries
            .iter()
            .any(|entry| entry.name.ends_with("minicore.elf"))
    );
}

#[test]
fn names_of_a_dropped_crash_come_from_the_kubelets_directories() {
    let node = Node::new();
    node.pod_logs();
    let enricher = Enricher::begin(&node.paths.workloads, &node.paths.spool);
    let found = enricher.names_of(Some(UID), ID).unwrap();
    let name = crate::ledger::workload_name(&found);
    assert_eq!(name.as_deref(), Some("shop/api/main"));
    assert!(enricher.names_of(None, ID).is_none());
}

#[test]
fn logs_name_their_container_and_restart() {
    let node = Node::new();
    node.pod_logs();
    let container = node
        .paths
        .workloads
        .pod_logs
        .join(format!("shop_api_{UID}/main"));
    fs::rename(container.join("0.log"), container.join("3.log")).unwrap();
    let entry = node.entry(&pod_cgroup());
    node.enrich(&entry);
    let logs = manifest(&entry).workload.unwrap().logs;
    let shown: Vec<String> = logs
        .iter()
        .map(|log| format!("{}: {log}", log.file))
        .collect();
    assert_eq!(shown, ["0.log: container main, restart 3"]);
}

#[test]
fn node_name_of_an_older_handlers_dump_is_the_one_in_kubernetes() {
    let mut node = Node::new();
    node.paths.workloads.node = Some("node1".to_owned());
    let entry = node.entry(&pod_cgroup());
    node.enrich(&entry);
    let found = manifest(&entry);
    assert_eq!(
        (found.node.to_string(), found.node_name()),
        ("node1".to_owned(), "node1".to_owned())
    );
}

#[test]
fn runtime_answer_about_another_cgroup_or_pod_is_disputed() {
    let path = format!("/kubepods/burstable/pod{UID}/{ID}");
    let scope = format!("/kubepods.slice/kubepods-pod{UID}.slice/cri-containerd-{ID}.scope");
    for (found, reported, is_same) in [
        (&path, format!("/kubepods/burstable/pod{UID}/{ID}"), true),
        (
            &scope,
            format!("kubepods-pod{UID}.slice:cri-containerd:{ID}"),
            true,
        ),
        (
            &scope,
            format!("/kubepods.slice/kubepods-pod{UID}.slice:cri-containerd:{ID}"),
            true,
        ),
        (
            &format!("/docker/b/kubelet{path}"),
            format!("/kubelet{path}"),
            true,
        ),
        (
            &format!("/a.slice:cri-containerd:{ID}"),
            format!("a.slice:cri-containerd:{ID}"),
            true,
        ),
        (
            &format!("/kubepods/podx/{ID}"),
            format!("/kubepods/burstable/pod{UID}/{ID}"),
            false,
        ),
        (
            &format!("/evil{path}"),
            path[1..].replace("kubepods", "pods"),
            false,
        ),
        (
            &format!("/x{path}"),
            format!("kubepods-pod{UID}.slice:cri-containerd:{ID}"),
            false,
        ),
    ] {
        assert_eq!(
            is_same_cgroup(found, &reported),
            is_same,
            "{found} {reported}"
        );
    }
    let container = ContainerIdentity {
        pod_uid: Some(UID.to_owned()),
        cgroup: Some(path.clone()),
        ..ContainerIdentity::of_id(ID.to_owned())
    };
    let mut answer = Answer {
        cgroup: Some(path),
        ..Answer::default()
    };
    answer.workload.pod_uid = Some(UID.to_owned());
    assert_eq!(disagreement(&answer, &container), None);
    answer.workload.pod_uid = Some(UID.replace('6', "7"));
    assert!(
        disagreement(&answer, &container)
            .unwrap()
            .contains("names pod")
    );
    answer.workload.pod_uid = None;
    answer.cgroup = Some("/kubepods/other".to_owned());
    assert!(
        disagreement(&answer, &container)
            .unwrap()
            .contains("`/kubepods/other`")
    );
}

#[test]
fn runtimes_that_do_not_answer_are_known_by_their_sockets() {
    let mut node = Node::new();
    node.paths.workloads.node = Some("node1".to_owned());
    let socket = node.root.path().join("cri.sock");
    let hangs = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    drop(hangs);
    let enricher = Enricher::begin(&node.paths.workloads, &node.paths.spool);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let why = loop {
        match enricher.runtimes().remove(&socket) {
            Some(answer) => break answer.unwrap_err(),
            None => assert!(std::time::Instant::now() < deadline),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(why.contains("cannot connect"), "{why}");
}

#[test]
fn pod_inside_of_a_container_is_that_container_unless_a_runtime_confirms_it() {
    let node = Node::new();
    node.pod_logs();
    let outer = ID.replace('0', "b");
    let entry = node.entry(&format!("0::/docker/{outer}/kubepods/pod{UID}/{ID}\n"));
    node.enrich(&entry);
    let manifest = manifest(&entry);
    let workload = manifest.workload.unwrap();
    assert_eq!(
        (workload.kind, workload.pod_uid, workload.pod),
        (Some(WorkloadKind::Container), None, None)
    );
    assert_eq!(workload.container_id, Some(outer));
    assert!(
        manifest
            .gaps
            .iter()
            .any(|gap| gap.what == "workload" && gap.why.contains("no runtime"))
    );
    assert!(
        manifest
            .entries
            .iter()
            .all(|entry| !entry.name.ends_with(".log"))
    );
}
