use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::*;
use crate::paths::AgentPaths;
use crate::paths::SettingsFiles;

struct Node {
    root: tempfile::TempDir,
    paths: AgentPaths,
}

impl Node {
    fn new(pattern: &str, pipes: &str, suid: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut paths = AgentPaths::below(&root.path().join("agent"));
        let settings = root.path().join("settings");
        fs::create_dir_all(&settings).unwrap();
        fs::create_dir_all(paths.handler.parent().unwrap()).unwrap();
        fs::create_dir_all(&paths.state).unwrap();
        paths.settings = SettingsFiles::in_directory(&settings);
        fs::write(&paths.settings.core_pattern, pattern).unwrap();
        fs::write(&paths.settings.core_pipe_limit, pipes).unwrap();
        fs::write(&paths.settings.suid_dumpable, suid).unwrap();
        Self { root, paths }
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn examine(&self) -> Vec<Finding> {
        examine(&Examined::host(&self.paths, self.root.path()))
    }

    fn found(&self, check: &str) -> Vec<Finding> {
        let all = self.examine();
        let all = all.into_iter().filter(|finding| finding.check == check);
        let all: Vec<Finding> = all.collect();
        assert!(!all.is_empty(), "{check}");
        for finding in &all {
            assert_eq!(
                finding.state == State::Good,
                finding.way.is_none(),
                "{finding:?}"
            );
        }
        all
    }
}

#[test]
fn each_thing_that_blocks_is_named_with_the_way_around() {
    let node = Node::new("core\n", "0\n", "0\n");
    let worst = |check: &str| {
        let found = node.found(check);
        let worst = found
            .into_iter()
            .max_by_key(|finding| finding.state)
            .unwrap();
        (worst.state, worst.what)
    };
    assert_eq!(
        worst("core_pattern"),
        (
            State::Problem,
            "cdh does not get the cores; core_pattern is `core`".to_owned()
        )
    );
    assert_eq!(worst("core_pipe_limit").0, State::Warning);
    assert_eq!(worst("suid_dumpable").0, State::Warning);
    assert_eq!(worst("handler").0, State::Problem);
    assert_eq!(worst("userfaultfd").0, State::Warning);
    assert_eq!(worst("ptrace").0, State::Good);
    assert_eq!(worst("SELinux").0, State::Good);
    assert_eq!(worst("settings at boot").0, State::Good);
    assert_eq!(worst("agent").0, State::Warning);
    node.write("proc/sys/vm/unprivileged_userfaultfd", "0");
    node.write("proc/sys/kernel/yama/ptrace_scope", "3\n");
    node.write("sys/fs/selinux/enforce", "1");
    node.write("var/log/audit/audit.log", "type=AVC msg=audit(1): avc:  denied  { execute } for comm=\"kworker\" name=\"cdh-handler\"\n");
    node.write(
        "usr/lib/sysctl.d/50-coredump.conf",
        "kernel.core_pattern=|/usr/lib/systemd/systemd-coredump %P\n",
    );
    node.write("usr/lib/systemd/systemd-coredump", "");
    node.write("usr/share/apport/apport", "");
    fs::create_dir_all(node.root.path().join("var/lib/kubelet")).unwrap();
    fs::create_dir_all(node.root.path().join("proc/self/ns")).unwrap();
    symlink(
        "pid:[4026532000]",
        node.root.path().join("proc/self/ns/pid"),
    )
    .unwrap();
    assert_eq!(worst("userfaultfd").0, State::Good);
    assert_eq!(worst("ptrace").0, State::Warning);
    let (state, what) = worst("SELinux");
    assert!(
        state == State::Problem && what.contains("denied  { execute }"),
        "{what}"
    );
    assert!(
        worst("settings at boot")
            .1
            .contains("50-coredump.conf sets kernel.core_pattern")
    );
    assert!(worst("other handlers").1.contains("apport"));
    assert!(worst("pid namespace").1.contains("not that of the host"));
    // `below` names a socket that does not exist.
    assert_eq!(worst("container runtime").0, State::Problem);
}

#[test]
fn doctor_reports_noexec_and_read_only_file_systems() {
    let mut node = Node::new("core\n", "1024\n", "2\n");
    // On the machine that runs this test; one of them executes nothing.
    let noexec = |path: &&str| {
        statvfs(*path).is_ok_and(|disk| disk.f_flag.contains(StatVfsMountFlags::NOEXEC))
    };
    let places = [
        "/proc",
        "/sys",
        "/dev/mqueue",
        "/dev/pts",
        "/dev/shm",
        "/run",
    ];
    match places.iter().find(|path| noexec(path)) {
        Some(place) => {
            node.paths.handler = format!("{place}/cdh/cdh-handler").into();
            assert!(node.found("handler directory")[0].what.contains("noexec"));
            node.write("etc/os-release", "NAME=x\nID=cos\n");
            let way = node.found("handler directory").remove(0).way.unwrap();
            assert!(way.contains("/home/kubernetes/bin"), "{way}");
        }
        None => eprintln!("SKIPPED: nothing is mounted noexec here"),
    }
    node.paths.state = "/dev/shm/cdh".into();
    if Path::new("/dev/shm").is_dir() {
        assert!(node.found("state directory")[0].what.contains("in memory"));
    }
}

#[test]
fn doctor_reports_a_missing_cgroup_for_handlers_if_configured() {
    let node = Node::new("core\n", "1024\n", "2\n");
    let of_it = |all: Vec<Finding>| {
        let mut of_it = all
            .into_iter()
            .filter(|one| one.check == "cgroup of the handlers");
        of_it.next()
    };
    assert_eq!(of_it(node.examine()), None);
    let text = r#"{"spool": "/x", "limits": {"cgroup": "cdh-no-such.slice"}}"#;
    fs::write(node.paths.handler_settings(), text).unwrap();
    let found = of_it(node.examine()).unwrap();
    assert_eq!(found.state, State::Warning);
    assert!(found.what.contains("`cdh-no-such.slice`"), "{found:?}");
    assert!(found.way.unwrap().contains("limits.cgroup"));
}

#[test]
fn doctor_accepts_a_working_store_and_reports_a_missing_one() {
    let root = tempfile::tempdir().unwrap();
    let store = cdh_store::DirectoryStore::create(root.path().join("store")).unwrap();
    let finding = examine_store(&store);
    assert_eq!(finding.state, State::Good, "{finding:?}");
    let left = fs::read_dir(root.path().join("store")).unwrap();
    assert_eq!(left.count(), 0);
    fs::remove_dir_all(root.path().join("store")).unwrap();
    fs::write(root.path().join("store"), "a file").unwrap();
    assert_eq!(examine_store(&store).state, State::Problem);
}

#[test]
fn reboot_is_a_warning_until_something_installs_again() {
    let node = Node::new("core\n", "1024\n", "2\n");
    let of_it = |node: &Node| {
        let mut all = node.examine().into_iter();
        all.find(|one| one.check == "after a reboot")
    };
    // If it is not installed, nothing can be lost.
    assert_eq!(of_it(&node), None);
    let pattern = node.paths.core_pattern().unwrap();
    fs::write(&node.paths.settings.core_pattern, pattern.as_bytes()).unwrap();
    let found = of_it(&node).unwrap();
    assert_eq!(found.state, State::Warning);
    let way = found.way.unwrap();
    assert!(way.contains("cdh agent run --manage-node"), "{way}");
    fs::create_dir_all(node.root.path().join("run/systemd/system")).unwrap();
    let way = of_it(&node).unwrap().way.unwrap();
    assert!(
        way.contains("cdh agent unit > /etc/systemd/system/cdh-agent.service")
            && way.contains("systemctl enable --now cdh-agent"),
        "{way}"
    );
    node.write(
        "etc/systemd/system/cdh-agent.service",
        "[Service]\nExecStart=/usr/local/bin/cdh agent run --manage-node\n",
    );
    let found = of_it(&node).unwrap();
    assert!(found.what.contains("is not enabled"), "{found:?}");
    node.write(
        "etc/systemd/system/multi-user.target.wants/cdh-agent.service",
        "",
    );
    assert_eq!(of_it(&node).unwrap().state, State::Good);
    // Without the unit, a running agent that manages the node is enough.
    fs::remove_dir_all(node.root.path().join("etc")).unwrap();
    assert_eq!(of_it(&node).unwrap().state, State::Warning);
    let record = r#"{"manages_node": true}"#;
    fs::create_dir_all(node.paths.uploads()).unwrap();
    fs::write(node.paths.uploads().join("shipper.json"), record).unwrap();
    assert_eq!(of_it(&node).unwrap().state, State::Warning);
    let lock = fs::File::create(node.paths.shipper_lock()).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(of_it(&node).unwrap().state, State::Good);
}

#[test]
fn doctor_names_the_enabled_unit_of_the_package_as_what_installs_after_a_reboot() {
    let node = Node::new("core\n", "1024\n", "2\n");
    let pattern = node.paths.core_pattern().unwrap();
    fs::write(&node.paths.settings.core_pattern, pattern.as_bytes()).unwrap();
    node.write(
        "usr/lib/systemd/system/cdh-agent.service",
        include_str!("../../../../packaging/cdh-agent.service"),
    );
    let found = || {
        let mut all = node.examine().into_iter();
        all.find(|one| one.check == "after a reboot").unwrap()
    };
    let way = found().way.unwrap();
    assert_eq!(way, "`systemctl enable --now cdh-agent.service`");
    node.write(
        "etc/systemd/system/multi-user.target.wants/cdh-agent.service",
        "",
    );
    // Also while an agent that manages the node runs, which may have been started by hand.
    fs::create_dir_all(node.paths.uploads()).unwrap();
    let record = r#"{"manages_node": true}"#;
    fs::write(node.paths.uploads().join("shipper.json"), record).unwrap();
    let lock = fs::File::create(node.paths.shipper_lock()).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let found = found();
    assert_eq!(found.state, State::Good);
    assert_eq!(found.what, "cdh-agent.service installs it again at boot");
}

#[test]
fn container_that_only_ships_has_no_problem_by_design_and_says_what_it_cannot_see() {
    let node = Node::new("core\n", "1024\n", "2\n");
    let pattern = node.paths.core_pattern().unwrap();
    fs::write(&node.paths.settings.core_pattern, pattern.as_bytes()).unwrap();
    fs::copy("/proc/self/exe", &node.paths.handler).unwrap();
    let settings = r#"{"spool": "/x", "limits": {"cgroup": "cdh-no-such.slice"}}"#;
    fs::write(node.paths.handler_settings(), settings).unwrap();
    node.write(
        "usr/lib/sysctl.d/50-coredump.conf",
        "kernel.core_pattern=|/x %P\n",
    );
    // The kernel's settings are read-only in a container without privileges.
    let unwritable = node.root.path().join("settings");
    let as_pod = |manages| {
        examine(&Examined {
            in_pod: true,
            manages,
            node_root: None,
            ..Examined::host(&node.paths, node.root.path())
        })
    };
    let state_of = |all: &[Finding], check: &str| {
        let found = all.iter().find(|one| one.check == check);
        found.map(|one| (one.state, one.what.clone()))
    };
    let all = as_pod(false);
    assert_eq!(
        state_of(&all, "settings at boot"),
        None,
        "those of the container"
    );
    let (state, what) = state_of(&all, "files of the node").unwrap();
    assert!(
        state == State::Unknown && what.contains("sysctl.d"),
        "{what}"
    );
    let cgroup = state_of(&all, "cgroup of the handlers").unwrap();
    assert_eq!(cgroup.0, State::Unknown, "{cgroup:?}");
    // A pod always runs on a Kubernetes node, whatever it can see of the node.
    let (state, what) = state_of(&all, "container runtime").unwrap();
    assert!(
        state == State::Problem && what.contains("does not answer"),
        "{what}"
    );
    drop(fs::remove_file(unwritable.join("core_pattern")));
    let privileges = |manages| state_of(&as_pod(manages), "privileges").unwrap();
    assert_eq!(privileges(false).0, State::Good);
    assert_eq!(privileges(true).0, State::Problem);
}

#[test]
fn runtime_that_listens_and_does_not_answer_is_a_problem() {
    let node = Node::new("core\n", "1024\n", "2\n");
    let socket = node.paths.workloads.sockets[0].clone();
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    let found = node.found("container runtime").remove(0);
    assert_eq!(found.state, State::Problem);
    assert!(
        found.what.contains("did not answer within 2 s"),
        "{found:?}"
    );
    drop(listener);
}

#[test]
fn missing_agent_is_reported_with_what_waits_and_how_to_leave() {
    let node = Node::new("core\n", "1024\n", "2\n");
    let of_it = |node: &Node| {
        let mut all = node.examine().into_iter();
        all.find(|one| one.check == "agent").unwrap()
    };
    let found = of_it(&node);
    assert_eq!(found.state, State::Warning);
    let found = found.what;
    assert!(
        found.contains("nothing is installed; nothing waits"),
        "{found}"
    );
    let entry = node
        .paths
        .spool
        .join(cdh_bundle::DumpId::random().to_string());
    fs::create_dir_all(entry).unwrap();
    let found = of_it(&node);
    assert!(found.what.contains("1 dump is not shipped"), "{found:?}");
    assert!(found.way.unwrap().contains("cdh agent sweep"));
    let pattern = node.paths.core_pattern().unwrap();
    fs::write(&node.paths.settings.core_pattern, pattern.as_bytes()).unwrap();
    let found = of_it(&node);
    assert!(found.what.contains("keeps capturing within"), "{found:?}");
    assert!(found.way.unwrap().contains("cdh agent uninstall"));
}
