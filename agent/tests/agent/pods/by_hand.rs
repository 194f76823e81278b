//! Processes in cgroups as runtimes make them that are not here, runtimes that do not answer, and processes without
//! an owner.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cdh_bundle::{Manifest, WorkloadKind};
use serde_json::json;

use super::wait_for_dumps;
use crate::node::{Agent, Node, programs};

const UID: &str = "6a9b4a0c-8f1d-4f58-9a3b-2f64ab1d7c10";
const ID: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// A cgroup, removed when it is dropped.
struct Group {
    path: PathBuf,
    made: Vec<PathBuf>,
}

impl Group {
    /// Makes a cgroup in every hierarchy that lets us; at least one does.
    fn make(name: &str) -> Option<Vec<Self>> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let roots = mounts.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (_, at, kind) = (words.next()?, words.next()?, words.next()?);
            (kind == "cgroup2" || (kind == "cgroup" && line.contains("memory")))
                .then(|| at.to_owned())
        });
        let groups: Vec<Self> = roots
            .filter_map(|root| {
                let mut path = PathBuf::from(root);
                let mut made = Vec::new();
                for part in name.split('/').filter(|part| !part.is_empty()) {
                    path.push(part);
                    if fs::create_dir(&path).is_ok() {
                        made.push(path.clone());
                    }
                }
                path.is_dir().then_some(Self { path, made })
            })
            .collect();
        if groups.is_empty() {
            cdh_testkit::skip("no cgroups can be made here");
        }
        (!groups.is_empty()).then_some(groups)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for path in self.made.iter().rev() {
            let _ = fs::remove_dir(path);
        }
    }
}

/// Crashes a process in these groups; how long it took until it was reaped.
fn crash_in(groups: &[Group]) -> Duration {
    let mut shell = Command::new("sh")
        .args(["-c", "read go; exec \"$0\" threads 2"])
        .arg(programs().join("crash"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    for group in groups {
        fs::write(group.path.join("cgroup.procs"), shell.id().to_string()).unwrap();
    }
    let begun = Instant::now();
    shell.stdin.take().unwrap().write_all(b"go\n").unwrap();
    shell.wait().unwrap();
    begun.elapsed()
}

#[test]
fn cgroups_of_runtimes_that_are_not_here_are_understood() {
    let Some(node) = Node::with_settings(&json!({})) else {
        return;
    };
    let pod = UID.replace('-', "_");
    let logs = node
        .paths
        .workloads
        .pod_logs
        .join(format!("shop_api-7d4_{UID}/main"));
    fs::create_dir_all(&logs).unwrap();
    fs::write(
        logs.join("0.log"),
        "2026-01-01T00:00:00Z stdout F last words\n",
    )
    .unwrap();
    let cases = [
        format!(
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{pod}.slice/crio-{ID}.scope"
        ),
        format!("kubepods.slice/kubepods-pod{pod}.slice/crio-{ID}.scope/container"),
        format!(
            "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{pod}.slice/docker-{ID}.scope"
        ),
    ];
    for (count, case) in cases.iter().enumerate() {
        let Some(groups) = Group::make(case) else {
            return;
        };
        crash_in(&groups);
        node.wait_for_handlers();
        assert_eq!(node.sweep().shipped.len(), 1, "{case}");
        assert_eq!(node.dumps().len(), count + 1);
    }
    for (manifest, bundle) in node.dumps() {
        let workload = manifest.workload.unwrap();
        assert_eq!(workload.kind, Some(WorkloadKind::Pod));
        assert_eq!(workload.pod_uid.as_deref(), Some(UID));
        assert_eq!(workload.container_id.as_deref(), Some(ID));
        assert_eq!(workload.pod.as_deref(), Some("api-7d4"));
        assert_eq!(workload.container.as_deref(), Some("main"));
        let runtime = workload.runtime.as_deref();
        assert!(matches!(runtime, Some("cri-o" | "docker")), "{runtime:?}");
        let log = super::text(&bundle, &cdh_bundle::EntryKind::Log(0)).unwrap();
        assert_eq!(log, "last words\n");
    }
}

#[test]
fn dropped_crash_of_a_pod_has_the_names_and_the_node_that_dumps_have() {
    let drops = json!({"node": "node1", "policy": {"default": "ignore"}});
    let Some(mut node) = Node::with_settings(&drops) else {
        return;
    };
    node.paths.workloads.node = Some("node1".to_owned());
    let Some(groups) = Group::make(&format!("kubepods/burstable/pod{UID}/{ID}")) else {
        return;
    };
    let logs = node
        .paths
        .workloads
        .pod_logs
        .join(format!("shop_api-7d4_{UID}/main"));
    fs::create_dir_all(&logs).unwrap();
    fs::write(logs.join("2.log"), "2026-01-01T00:00:00Z stdout F x\n").unwrap();
    crash_in(&groups);
    let ledger = cdh_agent::ledger::Ledger::of(&node.paths.state);
    let deadline = Instant::now() + Duration::from_secs(60);
    while ledger.totals().seq == 0 {
        assert!(Instant::now() < deadline, "no record of the crash");
        std::thread::sleep(Duration::from_millis(20));
    }
    node.set(&json!({"node": "node1"}));
    crash_in(&groups);
    node.wait_for_handlers();
    assert_eq!(node.sweep().shipped.len(), 1);
    let (manifest, _) = node.dumps().remove(0);
    assert_eq!(manifest.node.to_string(), "node1");
    let workload = manifest.workload.unwrap();
    let [log] = workload.logs.as_slice() else {
        panic!("{:?}", workload.logs)
    };
    assert_eq!(log.to_string(), "container main, restart 2");
    let mut lines = Vec::new();
    for day in fs::read_dir(node.path("store/drops")).unwrap() {
        for object in fs::read_dir(day.unwrap().path()).unwrap() {
            let object = object.unwrap();
            let name = object.file_name().into_string().unwrap();
            assert!(name.contains("Z_node1_"), "{name}");
            let text = fs::read_to_string(object.path()).unwrap();
            let found = text.lines().map(|line| serde_json::from_str(line).unwrap());
            lines.extend(found.collect::<Vec<cdh_agent::DropLine>>());
        }
    }
    let names = |container: &str| format!("shop/api-7d4/{container}");
    let dumps = names(&workload.container.unwrap());
    let shown: Vec<_> = { lines.iter() }
        .map(|line| (line.node.to_string(), line.workload.clone(), line.count))
        .collect();
    assert_eq!(shown, [("node1".to_owned(), Some(dumps), 1)]);
}

/// How a runtime's socket may be.
#[derive(Clone, Copy, Debug)]
enum Socket {
    Absent,
    Refuses,
    Hangs,
    SpeaksGarbage,
}

impl Socket {
    /// Makes it; what is returned keeps it as it is.
    fn make(self, path: &Path) -> Option<UnixListener> {
        let _ = fs::remove_file(path);
        match self {
            Self::Absent => None,
            Self::Refuses => {
                drop(UnixListener::bind(path).unwrap());
                None
            }
            Self::Hangs => Some(UnixListener::bind(path).unwrap()),
            Self::SpeaksGarbage => {
                let listener = UnixListener::bind(path).unwrap();
                let answering = listener.try_clone().unwrap();
                std::thread::spawn(move || {
                    for mut stream in answering.incoming().flatten() {
                        let _ = stream.write_all(&[0x41; 300]);
                    }
                });
                Some(listener)
            }
        }
    }
}

#[test]
fn broken_runtime_loses_no_crash() {
    let Some(node) = Node::with_settings(&json!({})) else {
        return;
    };
    let group = format!("kubepods/burstable/pod{UID}/{ID}");
    let Some(groups) = Group::make(&group) else {
        return;
    };
    // The first one waits for the disk.
    crash_in(&groups);
    let mut count = 1;
    let mut medians = Vec::new();
    for socket in [
        Socket::Absent,
        Socket::Refuses,
        Socket::Hangs,
        Socket::SpeaksGarbage,
    ] {
        let _held = socket.make(&node.path("cri.sock"));
        let agent = Agent::start(&node.paths, &node.path("store"));
        let begun = Instant::now();
        let mut times: Vec<Duration> = (0..5).map(|_| crash_in(&groups)).collect();
        count += times.len();
        let dumps = wait_for_dumps(&node, count);
        let shipped = begun.elapsed();
        drop(agent);
        // All five were looked up at once: a hung runtime holds none of them up for longer than one.
        assert!(shipped < Duration::from_secs(8), "{socket:?}: {shipped:?}");
        let newest = dumps
            .iter()
            .map(|(manifest, _)| manifest)
            .max_by_key(|m| m.finished_at);
        let why = workload_gap(newest.unwrap());
        let expected = match socket {
            Socket::Absent | Socket::Refuses => "cannot connect",
            Socket::Hangs => "did not answer within 2 s",
            Socket::SpeaksGarbage => "failed",
        };
        assert!(
            why.contains(expected)
                || (why.contains("cannot connect") && !matches!(socket, Socket::Hangs)),
            "{socket:?}: {why}"
        );
        times.sort();
        eprintln!(
            "{socket:?}: reaped after {:?} (median of 5), shipped after {shipped:?}: {why}",
            times[2]
        );
        medians.push(times[2]);
    }
    let without = medians[0];
    for median in &medians[1..] {
        // What two crashes differ by on a busy machine; a question to the runtime would be 2 s.
        assert!(
            *median < without * 3 + Duration::from_millis(300),
            "{medians:?}"
        );
    }
}

fn workload_gap(manifest: &Manifest) -> String {
    let gap = manifest.gaps.iter().find(|gap| gap.what == "workload");
    gap.map(|gap| gap.why.clone()).unwrap_or_default()
}

#[test]
fn host_process_belongs_to_no_pod() {
    let Some(node) = Node::with_settings(&json!({})) else {
        return;
    };
    fs::copy("/bin/sleep", node.path("sleep")).unwrap();
    let mut sleep = Command::new(node.path("sleep")).arg("60").spawn().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let pid = rustix::process::Pid::from_child(&sleep);
    rustix::process::kill_process(pid, rustix::process::Signal::ABORT).unwrap();
    sleep.wait().unwrap();
    node.wait_for_handlers();
    assert_eq!(node.sweep().shipped.len(), 1);
    let [(manifest, _)] = &node.dumps()[..] else {
        panic!("one dump was expected")
    };
    let workload = manifest.workload.as_ref().unwrap();
    assert_eq!(workload.kind, Some(WorkloadKind::Host));
    assert_eq!((&workload.pod, &workload.container_id), (&None, &None));
    assert!(manifest.gaps.is_empty(), "{:?}", manifest.gaps);
    let named = |part: &str| {
        let mut modules = manifest.modules.iter();
        modules.any(|module| module.path.to_string().contains(part) && module.build_id.is_some())
    };
    assert!(named("/sleep") && named("libc"), "{:?}", manifest.modules);
}

/// podman, with storage of the test's own.
struct Podman<'n> {
    node: &'n Node,
}

impl Podman<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let storage = self.node.path("engines/containers/storage");
        let mut command = Command::new("podman");
        command
            .args(["--root", storage.to_str().unwrap()])
            .args(["--runroot", self.node.path("run").to_str().unwrap()])
            .args([
                "--storage-driver",
                "overlay",
                "--cgroup-manager",
                "cgroupfs",
            ])
            .args(["--runtime", "runc"])
            .args(words);
        command
    }

    /// Builds the image of a program that crashes; what keeps podman from it is printed.
    fn build(&self) -> Option<()> {
        let program = cdh_testkit::Program::Pod
            .build(self.node.root.path())
            .unwrap();
        let context = self.node.path("context");
        fs::create_dir_all(&context).unwrap();
        fs::copy(&program, context.join("program")).unwrap();
        let file = "FROM scratch\nCOPY program /program\n\
                    LABEL org.opencontainers.image.version=1.4.2 org.opencontainers.image.revision=5f3c\n\
                    ENTRYPOINT [\"/program\"]\n";
        fs::write(context.join("Containerfile"), file).unwrap();
        let words = ["build", "-q", "-t", "localhost/shop/web:1"];
        let mut build = self.command(&words);
        match build.arg(&context).output() {
            Err(error) => cdh_testkit::skip(format!("podman: {error}: `apt install podman`")),
            Ok(built) if !built.status.success() => {
                let why = String::from_utf8_lossy(&built.stderr);
                cdh_testkit::skip(format!("podman builds nothing here: {why}"));
            }
            Ok(_) => return Some(()),
        }
        None
    }

    /// Crashes a container; with `--rm` nothing is left of it.
    fn crash(&self, options: &[&str]) {
        let limits = [
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
        ];
        let mut run = self.command(&["run", "--network", "none"]);
        run.args(limits).args(options);
        run.args(["localhost/shop/web:1", "crash", "1", "podman"]);
        let run = run.output().unwrap();
        let errors = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(139), "{errors}");
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        for words in [&["rm", "-f", "-a"][..], &["rmi", "-f", "-a"]] {
            let _ = self.command(words).output();
        }
    }
}

fn assert_is_web(manifest: &Manifest) {
    let workload = manifest.workload.as_ref().unwrap();
    assert_eq!(workload.kind, Some(WorkloadKind::Container));
    assert_eq!(workload.runtime.as_deref(), Some("podman"));
    assert_eq!(workload.container.as_deref(), Some("web"));
    assert_eq!(workload.source.as_deref(), Some("engine"));
    let image = manifest.image.as_ref().unwrap();
    let reference = &image.reference;
    assert!(
        reference.starts_with("localhost/shop/web@sha256:"),
        "{reference}"
    );
    assert_eq!(image.name.as_deref(), Some("localhost/shop/web:1"));
    assert_eq!(image.version.as_deref(), Some("1.4.2"));
    assert_eq!(image.revision.as_deref(), Some("5f3c"));
}

#[test]
fn podman_container_that_still_exists_is_found_by_the_daemon() {
    let Some(mut node) = Node::with_settings(&json!({"engines": "/nonexistent"})) else {
        return;
    };
    node.paths.workloads.engines = node.path("engines");
    let podman = Podman { node: &node };
    if podman.build().is_none() {
        return;
    }
    podman.crash(&["--name", "web"]);
    node.wait_for_handlers();
    assert_eq!(node.sweep().shipped.len(), 1);
    let dumps = node.dumps();
    assert_is_web(&dumps[0].0);
}

#[test]
fn podman_container_with_rm_is_found_by_the_handler_while_its_process_is_held() {
    let Some(node) = Node::with_settings(&json!({})) else {
        return;
    };
    let podman = Podman { node: &node };
    if podman.build().is_none() {
        return;
    }
    for release in ["hold", "early"] {
        node.set(&json!({"engines": node.path("engines"), "release": release}));
        podman.crash(&["--rm", "--name", "web"]);
        node.wait_for_handlers();
        let left = podman.command(&["ps", "-aq"]).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&left.stdout),
            "",
            "podman has forgotten it"
        );
        assert_eq!(node.sweep().shipped.len(), 1, "{release}");
    }
    let dumps = node.dumps();
    assert_eq!(dumps.len(), 2);
    for (manifest, _) in &dumps {
        assert_is_web(manifest);
        assert!(manifest.gaps.is_empty(), "{:?}", manifest.gaps);
    }
}

#[test]
fn podman_container_with_rm_has_its_program_stored() {
    let Some(mut node) = Node::with_settings(&json!({})) else {
        return;
    };
    node.set(&json!({"engines": node.path("engines")}));
    node.paths.keep_modules = true;
    let podman = Podman { node: &node };
    if podman.build().is_none() {
        return;
    }
    // An agent stores a file once: a new agent with a new store has to store it again.
    let stored = [(); 2].map(|()| {
        let agent = Agent::start(&node.paths, &node.path("store"));
        node.wait_for_agent();
        podman.crash(&["--rm", "--name", "web"]);
        let dumps = wait_for_dumps(&node, 1);
        drop(agent);
        let program = &dumps[0].0.modules[0];
        assert_eq!(program.path.to_string(), "/program");
        let (id, digest) = (program.build_id.as_ref().unwrap(), program.sha256.unwrap());
        let name = format!("store/modules/{id}-{digest}");
        let is_stored = node.path(&name).exists();
        fs::remove_dir_all(node.path("store")).unwrap();
        is_stored
    });
    assert_eq!(stored, [true; 2]);
}
