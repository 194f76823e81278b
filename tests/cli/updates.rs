//! The agent's life in a cluster, without one: it runs as in the chart's pod, in a mount namespace of its own
//! that has no tracefs. Updates lose no crash and forget nothing; only an uninstall leaves the node.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cdh_agent::SettingsFiles;
use cdh_agent::handler::settings::HandlerSettings;
use cdh_agent::ledger::{Ledger, LedgerRecord};
use cdh_agent::node::settings::NodeSettings;
use cdh_bundle::Manifest;
use cdh_testkit::{KernelSettingsLock, Program, or_skip, root_is_a_mount, skip};

/// Longest wait for anything, on a machine that also builds.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node below a temporary directory. The kernel's settings are this test's alone, and restored.
struct Node {
    directory: tempfile::TempDir,
    before: NodeSettings,
    _lock: KernelSettingsLock,
}

impl Node {
    fn new() -> Option<Self> {
        let Some(lock) = KernelSettingsLock::acquire().unwrap() else {
            skip("only root may change the kernel's core settings");
            return None;
        };
        // The agent gets mounts of its own.
        or_skip(root_is_a_mount())?;
        let directory = tempfile::Builder::new().prefix("cdh").tempdir().unwrap();
        Program::Crash.build(directory.path()).unwrap();
        fs::create_dir(directory.path().join("store")).unwrap();
        Some(Self {
            before: NodeSettings::read(&SettingsFiles::kernel()).unwrap(),
            directory,
            _lock: lock,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `cdh agent …` as in a pod: its own mounts, and a `/sys` without tracefs.
    fn agent(&self, words: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        let script = "mount -t tmpfs none /sys/kernel && exec \"$@\"";
        command.args(["-m", "sh", "-c", script, "sh"]);
        command.arg(env!("CARGO_BIN_EXE_cdh"));
        command.args(["--config", &self.config()]);
        command.arg("agent").args(words);
        command.arg(format!("--state={}", self.path("state").display()));
        command.arg(format!("--libexec={}", self.path("state/lib").display()));
        command.env("CDH_STORE", self.path("store"));
        command
    }

    /// The agent's container, with the arguments of the chart's `full` mode.
    fn start(&self, more: &[&str]) -> Child {
        let handler = std::env::var("CDH_TEST_HANDLER")
            .unwrap_or_else(|_| env!("CARGO_BIN_EXE_cdh").to_owned());
        let mut words = vec!["run", "--manage-node", "--handler", &handler];
        words.extend(["--release=hold", "--log-lines=500", "--pods=opt-out"]);
        words.extend(more);
        let mut log = fs::File::options();
        let log = log.create(true).append(true).open(self.path("agent.log"));
        let mut command = self.agent(&words);
        command.stderr(log.unwrap()).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        self.wait("the agent installs", || {
            self.is_ours() && self.log().matches(" agent started, pid ").count() > 0
        });
        child
    }

    fn config(&self) -> String {
        let path = self.path("agent.toml");
        if !path.exists() {
            fs::write(&path, "").unwrap();
        }
        path.display().to_string()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    fn now(&self) -> NodeSettings {
        NodeSettings::read(&SettingsFiles::kernel()).unwrap()
    }

    fn is_ours(&self) -> bool {
        let handler = self.path("state/lib/cdh-handler").display().to_string();
        self.now().core_pattern.to_string().contains(&handler)
    }

    fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn crash(&self) {
        let status = Command::new(self.path("crash"))
            .args(["heap", "1"])
            .status();
        assert!(!status.unwrap().success());
    }

    /// Records of crashes of the test's own program.
    fn records(&self) -> Vec<LedgerRecord> {
        // In a chroot, the handler sees the program below the chroot's directory.
        let own = self.path("crash").display().to_string();
        let mut records = Ledger::of(&self.path("state")).since(0);
        let is_own = |record: &LedgerRecord| {
            let exe = record.exe.as_ref();
            record.outcome.is_crash() && exe.is_some_and(|exe| exe.to_string().ends_with(&own))
        };
        records.retain(is_own);
        records
    }

    fn uninstall(&self, more: &[&str]) -> (Option<i32>, String) {
        let mut words = vec!["uninstall"];
        words.extend(more);
        let output = self.agent(&words).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A test that failed leaves no trace and no handler.
        let _ = self.uninstall(&[]);
    }
}

fn signal(child: &mut Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
    child.wait().unwrap();
}

fn terminate(mut child: Child) {
    signal(&mut child, rustix::process::Signal::TERM);
}

/// tracefs of the machine, mounted for a look.
struct Traces(tempfile::TempDir);

impl Traces {
    fn mount() -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tracefs", "tracefs"]).arg(place.path());
        let mounted = mount.status().is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("skipped: no tracefs can be mounted");
        }
        mounted.then_some(Self(place))
    }

    fn has(&self, name: &str) -> bool {
        self.0.path().join("instances").join(name).is_dir()
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn killer_is_named_and_trace_removed_although_the_agent_has_mounts_of_its_own() {
    let Some(node) = Node::new() else { return };
    let Some(traces) = Traces::mount() else {
        return;
    };
    let agent = node.start(&["--ship", "off"]);
    let (settings, _) = HandlerSettings::read(&node.path("state/lib/cdh-handler.json"));
    let trace = settings.kill_trace.unwrap();
    assert!(traces.has(&trace), "{trace}");

    let mut victim = Command::new(node.path("crash"));
    let mut victim = victim.args(["random", "64"]).spawn().unwrap();
    let spool = node.path("state/spool");
    let entries = |ends: &str| {
        let items = fs::read_dir(&spool).into_iter().flatten().flatten();
        let mut paths: Vec<_> = items.map(|item| item.path()).collect();
        paths.retain(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.len() == 36 + ends.len() && name.ends_with(ends)
        });
        paths
    };
    node.wait("a dump begins", || {
        let begun = entries(".partial");
        begun.iter().any(|path| path.join("core.zst").exists())
    });
    let mut kill = Command::new("kill");
    let mut killer = kill.args(["-9", &victim.id().to_string()]).spawn().unwrap();
    let id = killer.id();
    killer.wait().unwrap();
    victim.wait().unwrap();
    node.wait("the dump is sealed", || entries("").len() == 1);
    let manifest = fs::read(entries("")[0].join("manifest.json")).unwrap();
    let killed = Manifest::from_json(&manifest).unwrap().killed.unwrap();
    assert!(
        killed.contains(&format!("SIGKILL from `kill` (pid {id})")),
        "{killed}"
    );

    // A stop is not an uninstall: the handler stays, and with it its trace.
    terminate(agent);
    assert!(node.is_ours() && traces.has(&trace));
    // The kernel keeps a trace that is being read, and the uninstall says so.
    let reader = fs::File::open(traces.0.path().join("instances").join(&trace).join("trace"));
    let (code, said) = node.uninstall(&[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("restored, but the trace of SIGKILLs is not removed"),
        "{said}"
    );
    drop(reader.unwrap());
    let (code, said) = node.uninstall(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!traces.has(&trace), "{said}");
    assert_eq!(node.now(), node.before);
}

#[test]
fn updates_of_the_agent_lose_no_crash_and_forget_nothing() {
    let Some(node) = Node::new() else { return };
    let hook = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!(
        "[metrics]\ntextfile = \"{}\"\n[[notify.webhooks]]\nurl = \"http://{}/hook\"\n",
        node.path("cdh.prom").display(),
        hook.local_addr().unwrap()
    );
    fs::write(node.path("agent.toml"), config).unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    std::thread::spawn(move || {
        for stream in hook.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 65536];
            let _ = stream.read(&mut request);
            count.fetch_add(1, Ordering::Relaxed);
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    let counted = || {
        let text = fs::read_to_string(node.path("cdh.prom")).unwrap_or_default();
        let lines = text
            .lines()
            .filter(|line| line.starts_with("cdh_crashes_total{"));
        lines
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum::<f64>() as usize
    };
    let mut agent = node.start(&[]);
    node.crash();
    node.wait("the crash is counted and reported", || {
        counted() == 1 && told.load(Ordering::Relaxed) == 1
    });

    // A crash every tenth of a second, while the pod is replaced, killed, and replaced again.
    let crashes = 40;
    std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            for _ in 0..crashes {
                node.crash();
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        for how in ["TERM", "KILL", "TERM"] {
            std::thread::sleep(Duration::from_millis(500));
            let how = match how {
                "KILL" => rustix::process::Signal::KILL,
                _ => rustix::process::Signal::TERM,
            };
            signal(&mut agent, how);
            assert!(node.is_ours(), "{how:?}: {}", node.log());
            // As long as a node takes to start the next pod.
            std::thread::sleep(Duration::from_millis(300));
            agent = node.start(&[]);
        }
        storm.join().unwrap();
    });
    node.wait("each crash has a record", || {
        node.records().len() == crashes + 1
    });
    node.wait("the counter goes on", || counted() == crashes + 1);
    terminate(agent);
    // The same crash is news once.
    assert_eq!(told.load(Ordering::Relaxed), 1, "{}", node.log());

    let (code, said) = node.uninstall(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(node.now(), node.before);
}

#[test]
fn uninstall_waits_for_a_stopping_agent_and_leaves_only_unshipped_dumps() {
    let Some(node) = Node::new() else { return };
    // The store cannot be used: what crashes stays on the node.
    fs::remove_dir(node.path("store")).unwrap();
    fs::write(node.path("store"), "a file").unwrap();
    let mut agent = node.start(&[]);
    node.crash();
    node.wait("a dump waits", || node.records().len() == 1);

    let (code, said) = node.uninstall(&["--wait-for-agent", "1"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("the agent or a handler still works"),
        "{said}"
    );
    // The settings are restored at once, whatever the agent does.
    assert_eq!(node.now(), node.before);

    let mut cleanup = node.agent(&["uninstall", "--wait-for-agent", "60"]);
    let cleanup = cleanup.stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    signal(&mut agent, rustix::process::Signal::TERM);
    let output = cleanup.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("not shipped: 1 dump in "), "{said}");
    let names = |place: &str| {
        let items = fs::read_dir(node.path(place)).into_iter().flatten();
        let mut names: Vec<_> = items.map(|item| item.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names("state/spool").len(), 1, "{:?}", names("state/spool"));
    // What is not in the store yet: the dump, and the record of the crash.
    for name in names("state") {
        let kept = ["spool", "ledger", "drops", "uploads"];
        assert!(kept.iter().any(|one| name == **one), "{:?}", names("state"));
    }
    let (code, said) = node.uninstall(&["--wait-for-agent", "60"]);
    assert_eq!(code, Some(0), "{said}");
    fs::remove_dir_all(node.path("state/spool")).unwrap();
}

#[test]
fn handler_without_an_agent_keeps_to_the_quota_and_records_every_crash() {
    let Some(node) = Node::new() else { return };
    let quota: u64 = 2 << 20;
    // In a container or chroot, an entry takes more than its own files: seen were some 100 KiB.
    let most = quota + (256 << 10);
    let config = format!(
        "[limits]\nspool_quota = {quota}\n[limits.rate]\nfingerprint_full = 0\nworkload_full = 0\n"
    );
    fs::write(node.path("agent.toml"), config).unwrap();
    terminate(node.start(&["--ship", "off"]));
    for _ in 0..12 {
        let status = Command::new(node.path("crash"))
            .args(["random", "1"])
            .status();
        assert!(!status.unwrap().success());
    }
    node.wait("each crash has a record", || node.records().len() == 12);
    // The last handler still writes when its record is there.
    node.wait("the spool is within its quota", || {
        cdh_agent::spool::count(&node.path("state/spool")).is_ok_and(|found| found.bytes <= most)
    });
    let output = node.agent(&["doctor", "--no-store"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for text in [
        "does not run: the handler keeps capturing within",
        "cdh agent uninstall",
    ] {
        assert!(said.contains(text), "{text} in {said}");
    }
    let (code, said) = node.uninstall(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("not shipped: "), "{said}");
    assert_eq!(node.now(), node.before);
}
