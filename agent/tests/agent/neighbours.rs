//! What one user of a node does to the dumps of another: its budget, its part of the spool, its name.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cdh_agent::ledger::Outcome;
use cdh_agent::policy::Action;
use cdh_bundle::{DumpId, Manifest, WorkloadKind};
use serde_json::json;

use super::node::{Node, names_in, programs};
use super::{manifest_of, words};

const VICTIM: u32 = 1000;
const ATTACKER: u32 = 65534;
const POD: &str = "6a9b4a0c-8f1d-4f58-9a3b-2f64ab1d7c10";

/// A handler with these limits. Its node's directories can be entered by other users.
fn node(limits: &serde_json::Value) -> Option<Node> {
    let node = Node::with_settings(&json!({ "limits": limits }))?;
    for directory in [node.root.path(), programs()] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o711)).unwrap();
    }
    fs::copy(programs().join("crash"), node.path("victim")).unwrap();
    Some(node)
}

fn crash_as(uid: u32, program: &Path, text: &str) {
    let mut command = Command::new(program);
    command.args(words(text)).current_dir("/").uid(uid).gid(uid);
    let status = command.stdout(Stdio::null()).status().unwrap();
    assert!(status.signal().is_some(), "{status}");
}

fn manifests(node: &Node) -> Vec<Manifest> {
    let names = names_in(&node.paths.spool);
    let entries = names.iter().filter(|name| name.parse::<DumpId>().is_ok());
    let all = entries.map(|name| manifest_of(&node.paths.spool.join(name)));
    let mut all: Vec<Manifest> = all.collect();
    all.sort_by_key(|manifest| manifest.captured_at);
    all
}

#[test]
fn flood_of_one_fingerprint_leaves_another_users_budget_alone() {
    let rate = json!({"rate": {"window": "10m", "fingerprint_full": 1, "fingerprint_dumps": 2,
        "workload_full": 2, "workload_dumps": 3}});
    let Some(node) = node(&rate) else { return };
    let program = node.path("victim");
    for _ in 0..5 {
        crash_as(ATTACKER, &program, "heap 1");
    }
    // Ids of the attacker's own user namespace are the attacker too.
    let inside = Command::new("setpriv")
        .args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "unshare",
            "-Ur",
        ])
        .arg(&program)
        .args(["heap", "1"])
        .current_dir("/")
        .status();
    let has_namespaces = inside.is_ok_and(|status| status.code().is_none_or(|code| code > 128));
    crash_as(VICTIM, &program, "heap 1");
    let count = if has_namespaces { 7 } else { 6 };
    let records = node.wait_for_records(count);
    let of = |uid: u32| -> Vec<(Outcome, Action)> {
        let found = records.iter().filter(|record| record.uid == Some(uid));
        found
            .map(|record| (record.outcome, record.action))
            .collect()
    };
    assert_eq!(of(VICTIM), [(Outcome::Kept, Action::Full)], "{records:?}");
    let attackers = of(ATTACKER);
    let kept = attackers
        .iter()
        .filter(|(outcome, _)| *outcome == Outcome::Kept);
    let dropped = attackers
        .iter()
        .filter(|(outcome, _)| *outcome == Outcome::Dropped);
    assert_eq!(
        (kept.count(), dropped.count()),
        (1, count - 3),
        "{records:?}"
    );
}

#[test]
fn quota_of_a_flood_is_paid_by_its_own_dumps() {
    let Some(node) = node(&json!({"spool_quota": "12M"})) else {
        return;
    };
    crash_as(VICTIM, &node.path("victim"), "random 2");
    node.wait_for_handlers();
    for number in 0..6 {
        let own = node.path(&format!("own{number}"));
        fs::copy(node.path("victim"), &own).unwrap();
        crash_as(ATTACKER, &own, "random 3");
        // Only sealed dumps can be given up.
        node.wait_for_handlers();
    }
    node.wait_for_records(7);
    node.wait_for_handlers();
    let manifests = manifests(&node);
    let has_core = |uid: u32| -> Vec<bool> {
        let found = manifests.iter().filter(|one| one.process.uid == Some(uid));
        found.map(|one| one.core.is_some()).collect()
    };
    assert_eq!(has_core(VICTIM), [true]);
    let cores = has_core(ATTACKER);
    assert!(!cores[0] && cores.contains(&true), "{cores:?}");
}

/// `pod<UID>/<container>` below a directory that belongs to the attacker, as systemd delegates one.
struct Forged {
    own: PathBuf,
    container: PathBuf,
}

impl Forged {
    fn new() -> Option<Self> {
        let places = [
            "/sys/fs/cgroup/unified",
            "/sys/fs/cgroup/pids",
            "/sys/fs/cgroup",
        ];
        let mut places = places.iter().map(Path::new);
        let place = places.find(|place| place.join("cgroup.procs").exists())?;
        let own = place.join(format!("cdh-neighbour-{}", std::process::id()));
        let container = own.join(format!("kubepods/pod{POD}/{}", "0f1e2d3c".repeat(8)));
        fs::create_dir_all(&container).ok()?;
        for directory in container
            .ancestors()
            .take_while(|path| path.starts_with(&own))
        {
            chown(directory, Some(ATTACKER), Some(ATTACKER)).unwrap();
        }
        Some(Self { own, container })
    }
}

impl Drop for Forged {
    fn drop(&mut self) {
        for directory in self
            .container
            .ancestors()
            .take_while(|path| path.starts_with(&self.own))
        {
            for _ in 0..200 {
                if fs::remove_dir(directory).is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
}

#[test]
fn cgroup_of_a_users_own_passes_for_no_pod() {
    let Some(node) = node(&json!({})) else { return };
    let Some(forged) = Forged::new() else {
        eprintln!("skipped: no cgroups are mounted here");
        return;
    };
    let script =
        r#"echo $$ > "$1"; shift; exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@""#;
    let status = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(forged.container.join("cgroup.procs"))
        .arg(node.path("victim"))
        .current_dir("/")
        .status()
        .unwrap();
    assert!(!status.success());
    node.wait_for_records(1);
    node.wait_for_handlers();
    let manifests = manifests(&node);
    let workload = manifests[0].workload.clone().unwrap();
    assert_eq!((workload.pod_uid, workload.pod), (None, None));
    assert_ne!(workload.kind, Some(WorkloadKind::Pod));
}
