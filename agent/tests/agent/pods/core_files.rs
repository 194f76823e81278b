//! Cores that the kernel writes into containers, on a node whose `core_pattern` is a path.

use cdh_agent::collect::{CollectEvent, CollectOptions, Collector};
use cdh_bundle::Verdict;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::super::node::handler;
use super::*;

const PODS: usize = 20;
const PATTERN: &str = "/core-of-cdh-test.%e.%p.%s";

/// Whether the process has a handler for SIGUSR1.
fn catches_usr1(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & (1 << 9) != 0)
}

/// Core limits of this process without bounds, until it is dropped.
struct UnlimitedCores {
    before: Rlimit,
}

impl UnlimitedCores {
    fn set() -> Self {
        let before = getrlimit(Resource::Core);
        let unlimited = Rlimit {
            current: None,
            maximum: None,
        };
        setrlimit(Resource::Core, unlimited).unwrap();
        Self { before }
    }
}

impl Drop for UnlimitedCores {
    fn drop(&mut self) {
        let _ = setrlimit(Resource::Core, self.before);
    }
}

#[test]
fn core_files_of_pods_are_collected_attributed_uploaded_and_deleted() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    // Containers inherit the limit of containerd, and that inherits this one.
    let _limit = UnlimitedCores::set();
    let Some(mut cluster) = Cluster::new() else {
        return;
    };
    fs::write("/proc/sys/kernel/core_pattern", PATTERN).unwrap();
    let collector = Collector::new(CollectOptions {
        paths: cluster.node.paths.clone(),
        proc: "/proc".into(),
        handler: vec![handler().into()],
        settings: cluster.node.path("cdh-handler.json"),
    });
    let mut collector = collector.unwrap();
    let agent = Agent::start(&cluster.node.paths, &cluster.node.path("store"));
    let mut expected = Vec::new();
    let mut processes = Vec::new();
    for number in 0..PODS {
        // Two namespaces with pods of the same names.
        let namespace = ["shop", "shop-test"][number % 2];
        let mut pod = Pod::new(namespace, &format!("api-{}", number / 2));
        pod.host_network = true;
        let sandbox = cluster.containerd.run_pod(&pod);
        let run = cluster.crash(&pod, "main", "wait", 1);
        expected.push(run.arguments[2].clone());
        let container = cluster.containerd.run(&sandbox, &pod, &run);
        processes.push(cluster.containerd.pid_of(&container));
    }
    // All containers live and wait for their signal.
    let deadline = Instant::now() + Duration::from_secs(120);
    while !processes.iter().all(|pid| catches_usr1(*pid)) {
        assert!(Instant::now() < deadline, "the containers do not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    collector.pass(&mut |event| panic!("{event:?}"));
    for pid in processes {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(120);
    let (mut collected, mut deleted) = (0, 0);
    while deleted < PODS {
        collector.pass(&mut |event| match event {
            CollectEvent::Collected { container, .. } => {
                assert!(container.is_some(), "{event:?}");
                collected += 1;
            }
            CollectEvent::Deleted { .. } => deleted += 1,
            other => panic!("{other:?}"),
        });
        assert!(
            Instant::now() < deadline,
            "{collected} of {PODS} collected, {deleted} deleted"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let dumps = cluster.wait_for(PODS);
    drop(agent);
    let mut found = Vec::new();
    for (manifest, bundle) in &dumps {
        assert_eq!(manifest.verdict, Verdict::Complete);
        assert_eq!(
            (
                manifest.signal.number,
                manifest.process.name.to_string().as_str()
            ),
            (11, "program")
        );
        // The program's last argument says which pod it is: it is in the core.
        let entry = bundle
            .entry(&EntryKind::Core(cdh_bundle::CoreEncoding::ZstdSeekable))
            .unwrap();
        let core = zstd::decode_all(bundle.entry_reader(entry).unwrap()).unwrap();
        let name = named(manifest);
        let is_there = core
            .windows(name.len())
            .any(|bytes| bytes == name.as_bytes());
        assert!(is_there, "the core is not of {name}");
        let has_gap = |what: &str, why: &str| {
            let mut gaps = manifest.gaps.iter();
            gaps.any(|gap| gap.what == what && gap.why.contains(why))
        };
        assert!(
            has_gap("core", "the kernel wrote it to /core-of-cdh-test.program."),
            "{:?}",
            manifest.gaps
        );
        assert!(has_gap("/proc/<pid>", "the process was gone"));
        found.push(name);
    }
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    eprintln!(
        "{} cores of {PODS} pods collected, attributed and uploaded, {deleted} files deleted",
        found.len()
    );
}
