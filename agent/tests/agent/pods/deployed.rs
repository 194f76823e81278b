//! The agent as it is deployed: its own image, in a privileged pod, with the arguments of the Helm
//! chart. `cargo xtask test-pods` builds the image, and runs a registry and an S3 server.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::TOKEN;
use super::containerd::{Containerd, Pod, Run};
use super::registry::Registry;
use crate::node::Node;

/// What `cargo xtask test-pods` made ready.
struct Ready {
    /// The agent's image, by digest.
    image: String,
    /// The S3 server's bucket.
    store: String,
    /// `cdh`, for a workstation.
    cdh: String,
}

impl Ready {
    fn get() -> Option<Self> {
        let get = |name| std::env::var(name).ok();
        let ready = || {
            Some(Self {
                image: get("CDH_TEST_IMAGE")?,
                store: get("CDH_TEST_S3")?,
                cdh: get("CDH_TEST_CDH")?,
            })
        };
        let ready = ready();
        if ready.is_none() {
            cdh_testkit::skip("the agent in a pod of its own: run `cargo xtask test-pods`");
        }
        ready
    }

    fn cdh(&self, words: &[&str]) -> String {
        self.run(Command::new(&self.cdh), words)
    }

    /// On a workstation that has no cache yet, and none of the node's files.
    fn cdh_at(&self, workstation: &Path, words: &[&str]) -> String {
        let mut command = Command::new(&self.cdh);
        command.env("XDG_CACHE_HOME", workstation.join("workstation-cache"));
        command
            .env_remove("DEBUGINFOD_URLS")
            .current_dir(workstation);
        self.run(command, words)
    }

    fn run(&self, mut command: Command, words: &[&str]) -> String {
        command.args(["--store", &self.store]).args(words);
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() < Some(2), "cdh {words:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn ids(&self) -> Vec<String> {
        let text = self.cdh(&["ls", "-o", "id"]);
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until there are as many dumps; the newest one's manifest and case directory. `logs` are shown where
    /// they do not come.
    fn wait(&self, count: usize, place: &Path, logs: &Path) -> (Value, std::path::PathBuf) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.ids().len() < count {
            let found = self.ids().len();
            assert!(
                Instant::now() < deadline,
                "{found} of {count} dumps{}",
                texts(logs)
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        let case = place.join(format!("case-{count}"));
        let directory = case.display().to_string();
        self.cdh(&["fetch", "latest", "--directory", &directory]);
        let manifest = files(&case).into_iter().find(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.ends_with("manifest.json")
        });
        let manifest = fs::read(manifest.unwrap()).unwrap();
        (serde_json::from_slice(&manifest).unwrap(), case)
    }
}

/// The logs of the agent's pods.
fn texts(logs: &Path) -> String {
    let logs = files(logs).into_iter();
    let logs = logs.filter(|path| path.to_string_lossy().contains("/cdh_"));
    let text = |path: std::path::PathBuf| {
        let text = fs::read_to_string(&path).unwrap_or_default();
        format!("\n{}:\n{text}", path.display())
    };
    logs.map(text).collect()
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for item in fs::read_dir(directory).into_iter().flatten().flatten() {
        match item.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found
}

const SETTINGS: [&str; 3] = [
    "kernel/core_pattern",
    "kernel/core_pipe_limit",
    "fs/suid_dumpable",
];

fn settings() -> [String; 3] {
    SETTINGS.map(|name| fs::read_to_string(format!("/proc/sys/{name}")).unwrap())
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The agent's container, with what the chart's `full` mode gives it.
fn agent(ready: &Ready, node: &Node, containerd: &Containerd, attempt: u32) -> Run {
    let state = node.path("node").display().to_string();
    let variable = |name: &str| {
        let value = std::env::var(name).unwrap_or_default();
        (name.to_owned(), value)
    };
    Run {
        name: "agent".to_owned(),
        image: ready.image.clone(),
        command: ["/cdh", "agent", "run"].map(str::to_owned).to_vec(),
        arguments: vec![
            format!("--state={state}"),
            format!("--libexec={state}/lib"),
            "--manage-node".to_owned(),
            "--release=hold".to_owned(),
            "--log-lines=500".to_owned(),
            "--pods=opt-out".to_owned(),
            format!("--cri-socket={}", containerd.socket().display()),
        ],
        environment: vec![
            ("CDH_STORE".to_owned(), ready.store.clone()),
            ("CDH_NODE_NAME".to_owned(), "node-7".to_owned()),
            variable("AWS_ACCESS_KEY_ID"),
            variable("AWS_SECRET_ACCESS_KEY"),
        ],
        mounts: vec![
            node.path("node"),
            containerd.pod_logs(),
            containerd.socket().parent().unwrap().to_owned(),
        ],
        privileged: true,
        attempt,
    }
}

#[test]
fn agent_in_its_own_pod_captures_ships_and_restores_the_node() {
    let Some(ready) = Ready::get() else { return };
    let Some(node) = Node::new() else { return };
    // What another owner has set up; the lock gives the machine's own back.
    let foreign = ["/var/crash/%e-%p", "9", "1"];
    for (name, value) in SETTINGS.iter().zip(foreign) {
        fs::write(format!("/proc/sys/{name}"), value).unwrap();
    }
    let before = settings();
    let root = node.root.path();
    let program = cdh_testkit::Program::Pod.build(root).unwrap();
    let registry = Registry::serve(&[("api", &program), ("pause", &program)]);
    fs::create_dir_all(root.join("containerd")).unwrap();
    fs::create_dir_all(root.join("node")).unwrap();
    let mut containerd = Containerd::start(&root.join("containerd"), &registry.image("pause"));
    fs::create_dir_all(containerd.pod_logs()).unwrap();
    containerd.pull(&registry.image("api"));
    containerd.pull(&ready.image);

    let mut system = Pod::new("cdh", "cdh-x7k2p");
    (system.host_network, system.host_pid) = (true, true);
    let sandbox = containerd.run_pod(&system);
    let first = agent(&ready, &node, &containerd, 0);
    let container = containerd.run(&sandbox, &system, &first);
    wait_for("the agent installs", || {
        settings()[0].contains("cdh-handler")
    });

    // Another pod crashes by itself.
    let already = ready.ids().len();
    let crash = |containerd: &mut Containerd, namespace: &str| {
        let mut pod = Pod::new(namespace, "api-5d9");
        pod.host_network = true;
        let sandbox = containerd.run_pod(&pod);
        let run = Run {
            name: "main".to_owned(),
            image: registry.image("api"),
            arguments: vec!["crash".to_owned(), "1".to_owned(), pod.uid.clone()],
            environment: vec![("API_TOKEN".to_owned(), TOKEN.to_owned())],
            ..Run::default()
        };
        containerd.run(&sandbox, &pod, &run);
        pod
    };
    let pod = crash(&mut containerd, "shop");
    let (manifest, case) = ready.wait(already + 1, root, &containerd.pod_logs());
    let workload = &manifest["workload"];
    assert_eq!(workload["namespace"], "shop");
    assert_eq!(workload["pod"], "api-5d9");
    assert_eq!(workload["pod_uid"], Value::from(pod.uid.as_str()));
    assert_eq!(workload["container"], "main");
    assert_eq!(workload["node"], "node-7");
    assert_eq!(workload["exit_code"], 139, "{manifest}");
    assert_eq!(
        manifest["image"]["reference"],
        Value::from(registry.by_digest("api"))
    );
    assert_eq!(manifest["verdict"]["state"], "complete", "{manifest}");
    let log = files(&case)
        .into_iter()
        .find(|path| path.to_string_lossy().ends_with("0.log"));
    let log = fs::read_to_string(log.unwrap()).unwrap();
    assert!(
        log.starts_with(&format!("{} starts, token <removed>\n", pod.uid)),
        "{log}"
    );
    let listed = ready.cdh(&["ls", "--namespace", "shop"]);
    assert!(listed.contains("api-5d9"), "{listed}");
    eprintln!("{listed}{}", ready.cdh(&["info", "latest"]));

    // Nothing is pulled by hand: the dump names the image.
    let native = ready.cdh_at(root, &["bt", "latest"]);
    let by_gdb = ready.cdh_at(
        root,
        &["debug", "latest", "--", "-batch", "-nx", "-ex", "bt"],
    );
    for text in [&native, &by_gdb] {
        let frames = ["take_order", "serve", "main", "pod.c:15"];
        assert!(frames.iter().all(|frame| text.contains(frame)), "{text}");
    }
    eprintln!("{native}{by_gdb}");

    // A stop may be that of an update: the handler stays in place.
    containerd.stop(&container, 20);
    assert!(settings()[0].contains("cdh-handler"));

    // Killed, it ships no more. The next crash is captured nevertheless, and remains on the node.
    let second = agent(&ready, &node, &containerd, 1);
    let container = containerd.run(&sandbox, &system, &second);
    let started = containerd
        .pod_logs()
        .join(format!("cdh_{}_{}/agent/1.log", system.name, system.uid));
    wait_for("the agent starts", || {
        let log = fs::read_to_string(&started).unwrap_or_default();
        log.contains(" agent started, pid ")
    });
    let pid = containerd.pid_of(&container);
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_ne!(settings(), before);
    crash(&mut containerd, "shop-test");
    let spool = node.path("node/spool");
    wait_for("a sealed entry", || {
        let names = crate::node::names_in(&spool);
        names.len() == 1 && !names[0].ends_with(".partial")
    });

    // The chart's clean-up: the pod of a DaemonSet, after the uninstall.
    let mut cleanup = agent(&ready, &node, &containerd, 0);
    cleanup.name = "done".to_owned();
    cleanup.command = ["/cdh", "agent", "uninstall", "--wait"]
        .map(str::to_owned)
        .to_vec();
    cleanup.arguments.truncate(2);
    let mut pod = Pod::new("cdh", "cdh-cleanup-9wq4z");
    (pod.host_network, pod.host_pid) = (true, true);
    let sandbox = containerd.run_pod(&pod);
    let container = containerd.run(&sandbox, &pod, &cleanup);
    wait_for("the settings are restored", || settings() == before);
    let log = containerd
        .pod_logs()
        .join(format!("cdh_{}_{}/done/0.log", pod.name, pod.uid));
    wait_for("it says where dumps are", || {
        let log = fs::read_to_string(&log).unwrap_or_default();
        log.contains(&format!("not shipped: 1 dump in {}", spool.display()))
    });
    containerd.stop(&container, 5);
    let left = files(&node.path("node"));
    assert!(left.iter().all(|path| path.starts_with(&spool)), "{left:?}");
    eprintln!("settings before and after: {before:?}");

    // It is found and shipped by the next agent, with its pod. That one only ships, as in the chart's
    // mode `split`: it needs no privileges and no capabilities.
    let mut later = Pod::new("cdh", "cdh-later");
    later.host_network = true;
    let sandbox = containerd.run_pod(&later);
    let mut third = agent(&ready, &node, &containerd, 0);
    third.privileged = false;
    third
        .arguments
        .retain(|word| word != "--manage-node" && !word.starts_with("--release"));
    let container = containerd.run(&sandbox, &later, &third);
    let (manifest, _) = ready.wait(already + 2, root, &containerd.pod_logs());
    assert_eq!(manifest["workload"]["namespace"], "shop-test");
    containerd.stop(&container, 20);
    assert_eq!(settings(), before);
}
