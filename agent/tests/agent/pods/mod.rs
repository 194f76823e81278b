//! Pods that crash in a real containerd, and cgroups of runtimes that are not here, made by hand.
//!
//! The images come from a registry in this process, and the pods are made as a kubelet makes them. Each dump is
//! compared with the arguments of the process that crashed: each pod's own note says who it is.
//! `CDH_TEST_PODS=all` runs the large numbers.

mod by_hand;
mod containerd;
mod core_files;
mod deployed;
mod registry;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::time::{Duration, Instant};

use cdh_bundle::{BundleReader, EntryKind, Manifest, WorkloadKind};
use cdh_store::{Catalog, Query};
use cdh_testkit::Program;
use serde_json::json;

use super::node::{Agent, Node};
use containerd::{Containerd, Pod, Run};
use registry::Registry;

const TOKEN: &str = "s3cret-t0ken-0815";

/// A node with a containerd and an agent; in it, pods.
struct Cluster {
    containerd: Containerd,
    registry: Registry,
    node: Node,
}

impl Cluster {
    /// `None`, with the reason on stderr, where this cannot be tested.
    fn new() -> Option<Self> {
        if !Containerd::is_installed() {
            cdh_testkit::skip("no containerd and runc: `apt install containerd runc`");
            return None;
        }
        let mut node = Node::with_settings(&json!({}))?;
        let program = Program::Pod.build(node.root.path()).unwrap();
        let registry = Registry::serve(&[("api", &program), ("pause", &program)]);
        let mut containerd = Containerd::start(node.root.path(), &registry.image("pause"));
        containerd.pull(&registry.image("api"));
        node.paths.workloads.sockets = vec![containerd.socket()];
        node.paths.workloads.pod_logs = containerd.pod_logs();
        Some(Self {
            containerd,
            registry,
            node,
        })
    }

    fn crash(&self, pod: &Pod, container: &str, how: &str, count: usize) -> Run {
        let note = format!("{}/{}/{}/{container}", pod.namespace, pod.name, pod.uid);
        Run {
            name: container.to_owned(),
            image: self.registry.image("api"),
            arguments: vec![how.to_owned(), count.to_string(), note],
            environment: vec![("API_TOKEN".to_owned(), TOKEN.to_owned())],
            ..Run::default()
        }
    }

    fn wait_for(&self, count: usize) -> Vec<(Manifest, BundleReader)> {
        wait_for_dumps(&self.node, count)
    }
}

/// Waits until the store has as many dumps.
fn wait_for_dumps(node: &Node, count: usize) -> Vec<(Manifest, BundleReader)> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let store = node.store();
        let found = Catalog::new(&store).find(&Query::default()).unwrap().len();
        if found >= count {
            assert_eq!(found, count);
            return node.dumps();
        }
        assert!(
            Instant::now() < deadline,
            "{found} dumps instead of {count}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn text(bundle: &BundleReader, kind: &EntryKind) -> Option<String> {
    let entry = bundle.entry(kind)?;
    let mut text = String::new();
    bundle
        .entry_reader(entry)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    Some(text)
}

/// Who the process says it is: its last argument. `None` where it was killed before that was read.
fn note(manifest: &Manifest) -> Option<String> {
    let arguments = manifest.process.arguments.as_ref()?;
    Some(arguments.last()?.to_string())
}

fn named(manifest: &Manifest) -> String {
    let workload = manifest.workload.as_ref().unwrap();
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    format!(
        "{}/{}/{}/{}",
        or_none(&workload.namespace),
        or_none(&workload.pod),
        or_none(&workload.pod_uid),
        or_none(&workload.container),
    )
}

#[test]
fn every_dump_names_its_own_pod_among_twins_that_come_and_go() {
    let Some(mut cluster) = Cluster::new() else {
        return;
    };
    let all = std::env::var_os("CDH_TEST_PODS").is_some();
    // Pods that stay, crashes of each; pods that are deleted within 100 ms of their crash.
    let (stay, each, deleted) = if all { (16, 6, 4) } else { (4, 3, 2) };
    let agent = Agent::start(&cluster.node.paths, &cluster.node.path("store"));
    let mut pods = Vec::new();
    for number in 0..stay + deleted {
        // Two namespaces with pods of the same names, and therefore hostnames.
        let namespace = ["shop", "shop-test"][number % 2];
        let mut pod = Pod::new(namespace, &format!("api-{}", number / 2));
        pod.host_network = number % 3 == 0;
        let sandbox = cluster.containerd.run_pod(&pod);
        pods.push((pod, sandbox));
    }
    let mut slowest = Duration::ZERO;
    // A process that is killed while it crashes may lose its arguments; its pid shows it, too.
    let mut notes = BTreeMap::new();
    for (number, (pod, sandbox)) in pods.iter().enumerate() {
        if number < stay {
            let run = cluster.crash(pod, "main", "crash", each);
            cluster.containerd.run(sandbox, pod, &run);
            continue;
        }
        let run = cluster.crash(pod, "short-lived", "wait", 1);
        let container = cluster.containerd.run(sandbox, pod, &run);
        let pid = cluster.containerd.pid_of(&container);
        notes.insert(u64::from(pid), run.arguments[2].clone());
        // As long as a kubelet takes to see it.
        std::thread::sleep(Duration::from_millis(1200));
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        let crashed = Instant::now();
        rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
        std::thread::sleep(Duration::from_millis(10));
        slowest = slowest.max(crashed.elapsed());
        cluster.containerd.remove(sandbox);
    }
    let crashes = stay * each + deleted;
    let dumps = cluster.wait_for(crashes);
    drop(agent);
    let mut sources = BTreeMap::new();
    let mut right = 0;
    for (manifest, bundle) in &dumps {
        let Some(workload) = &manifest.workload else {
            panic!(
                "{:?} {:?} {:?}",
                manifest.process, manifest.verdict, manifest.gaps
            );
        };
        let source = workload.source.clone().unwrap();
        *sources.entry(source).or_insert(0) += 1;
        let by_pid = notes.get(&manifest.process.pid).cloned();
        let truth = note(manifest).or(by_pid);
        assert_eq!(Some(named(manifest)), truth, "{:?}", manifest.gaps);
        assert_eq!(workload.kind, Some(WorkloadKind::Pod));
        assert_eq!(workload.runtime.as_deref(), Some("containerd"));
        let image = manifest.image.as_ref().map(|image| &image.reference);
        assert_eq!(
            image,
            Some(&cluster.registry.by_digest("api")),
            "{:?}",
            manifest.gaps
        );
        check_documents(manifest, bundle);
        right += 1;
    }
    eprintln!(
        "{right} of {crashes} crashes of {} pods name their pod and container; asked: {sources:?}; \
         deletion began at most {slowest:?} after the crash",
        pods.len()
    );
}

/// The documents are in the shapes of crictl, and hold no secret.
fn check_documents(manifest: &Manifest, bundle: &BundleReader) {
    let workload = manifest.workload.as_ref().unwrap();
    let json = |kind: &EntryKind| -> Option<serde_json::Value> {
        let text = text(bundle, kind)?;
        assert!(!text.contains(TOKEN), "{kind:?}: {text}");
        Some(serde_json::from_str(&text).unwrap())
    };
    let pod = json(&EntryKind::PodInfo).unwrap();
    assert_eq!(pod["metadata"]["namespace"], json!(workload.namespace));
    assert_eq!(pod["metadata"]["uid"], json!(workload.pod_uid));
    let ps = json(&EntryKind::PsInfo).unwrap();
    assert_eq!(ps["containers"][0]["id"], json!(workload.container_id));
    assert_eq!(
        ps["containers"][0]["metadata"]["name"],
        json!(workload.container)
    );
    let info = json(&EntryKind::DumpInfo).unwrap();
    assert_eq!(info["podname"], json!(workload.pod));
    assert_eq!(info["namespace"], json!(workload.namespace));
    if workload.source.as_deref() != Some("cri") {
        return;
    }
    if let Some(runtime) = json(&EntryKind::RuntimeInfo)
        && runtime["status"]["metadata"].is_object()
    {
        assert_eq!(runtime["status"]["metadata"]["name"], json!(workload.pod));
    }
    if let Some(image) = json(&EntryKind::ImageInfo(0)) {
        let found = manifest.image.as_ref().unwrap();
        let name = found.name.as_deref().unwrap();
        let repository = found.reference.split('@').next().unwrap();
        assert!(name.starts_with(repository), "{name} is {repository}");
        let labels = &manifest.workload.as_ref().unwrap().labels;
        assert_eq!(
            labels.get("io.kubernetes.pod.name").map(String::as_str),
            manifest.workload.as_ref().unwrap().pod.as_deref()
        );
        let digest = found.reference.clone();
        let digests = image["repoDigests"].as_array().unwrap();
        assert!(digests.contains(&json!(digest)), "{image}");
        assert_eq!(workload.extra["image_id"], image["id"]);
    }
    // Of a pod that was deleted the log may have gone with it.
    if workload.container.as_deref() == Some("main") {
        let log = text(bundle, &EntryKind::Log(0)).unwrap();
        assert!(
            log.starts_with(&format!("{} starts, token <removed>\n", named(manifest))),
            "{log}"
        );
        assert!(log.contains("takes order 1\n"), "{log}");
        if workload.extra.contains_key("exit_code") {
            assert_eq!(workload.extra["exit_code"], 139);
        }
    }
}

#[test]
fn pod_settings_select_how_much_is_stored() {
    let Some(mut cluster) = Cluster::new() else {
        return;
    };
    let agent = Agent::start(&cluster.node.paths, &cluster.node.path("store"));
    for (name, key, value) in [
        ("none", "cdh.io/dump", "false"),
        ("small", "cdh.io/profile", "minicore"),
        ("facts", "cdh.io/profile", "metadata"),
        ("wrong", "cdh.io/profile", "huge"),
    ] {
        let mut pod = Pod::new("shop", name);
        pod.host_network = true;
        pod.annotations = vec![(key.to_owned(), value.to_owned())];
        let sandbox = cluster.containerd.run_pod(&pod);
        let run = cluster.crash(&pod, "main", "crash", 1);
        cluster.containerd.run(&sandbox, &pod, &run);
    }
    let dumps = cluster.wait_for(3);
    // The one of the pod that wants none is gone from the node, too.
    let deadline = Instant::now() + Duration::from_secs(30);
    while !super::node::names_in(&cluster.node.paths.spool).is_empty() {
        assert!(Instant::now() < deadline, "the spool is not empty");
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(agent);
    let core = EntryKind::Core(cdh_bundle::CoreEncoding::ZstdSeekable);
    for (manifest, bundle) in &dumps {
        let pod = manifest.workload.as_ref().unwrap().pod.clone().unwrap();
        let has = |kind: &EntryKind| bundle.entry(kind).is_some();
        let found = (
            has(&core),
            has(&EntryKind::Minicore),
            has(&EntryKind::Backtrace),
        );
        let expected = match pod.as_str() {
            "small" => (false, true, true),
            "facts" => (false, false, true),
            "wrong" => (true, true, true),
            other => panic!("{other} is dumped"),
        };
        assert_eq!(found, expected, "{pod}");
        let complains = manifest.gaps.iter().any(|gap| gap.why.contains("`huge`"));
        assert_eq!(complains, pod == "wrong");
    }
    // What the next crash of these pods costs the node is known before it comes.
    let table = fs::read_dir(cluster.node.paths.spool.join(".pods")).unwrap();
    assert_eq!(table.count(), 4);
}
