//! Ten crashes a second while the agent is updated, killed, drained, or loses its runtime: each of them has a record.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::cluster::{Cluster, NAMESPACE, pod_log, signal, succeed, wait, wait_for};
use super::control_plane::NODE;
use super::machine::NODE_STATE;
use super::release::{Mode, RELEASE, Release};
use super::report::Report;

/// Crashes go on for so long after the action, and as long before it begins.
const AROUND: Duration = Duration::from_secs(3);
/// How long crashes go on when nothing ends them.
const LONGEST: usize = 240;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Upgrade,
    Restart,
    Kill,
    Drain,
    Containerd,
}

const ACTIONS: [(Action, &str); 5] = [
    (Action::Upgrade, "helm upgrade"),
    (Action::Restart, "rollout restart"),
    (Action::Kill, "SIGKILL of the agent"),
    (Action::Drain, "drain and uncordon"),
    (Action::Containerd, "restart of containerd"),
];

/// Runs them.
pub(super) fn run(
    cluster: &mut Cluster,
    mode: Mode,
    only: &[String],
    report: &mut Report,
) -> Result<()> {
    let group = format!("10 crashes a second, {}", mode.name());
    let mut release = Release::install(cluster, mode, "updates", &[])?;
    for (action, name) in super::wanted_checks(&ACTIONS, only) {
        report.check(&group, name, || check(&mut release, action));
        release.cluster.delete("daemonset", "rate");
        let gone = || pod_log(NAMESPACE, "rate-").is_empty().then_some(());
        let _ = wait_for(Duration::from_secs(30), "the end of the crashes", gone);
    }
    Ok(())
}

/// A DaemonSet's pods are not drained. In the node's process namespace the program knows the pids that records have.
fn crashing(cluster: &Cluster) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "rate", "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"app": "rate"}},
            "template": {
                "metadata": {"labels": {"app": "rate"}},
                "spec": {
                    "hostPID": true, "terminationGracePeriodSeconds": 1,
                    "automountServiceAccountToken": false,
                    "containers": [cluster.container("main", "rate", "rate", LONGEST)],
                },
            },
        },
    })
}

/// Pids of the processes that crashed, in their order.
fn crashed() -> Vec<u64> {
    let text = pod_log(NAMESPACE, "rate-");
    let pid = |line: &str| line.rsplit_once("crash ")?.1.trim().parse().ok();
    text.lines().filter_map(pid).collect()
}

fn check(release: &mut Release<'_>, action: Action) -> Result<String> {
    release.wait_until_ready()?;
    let before = total_of_crashes();
    release.cluster.apply(&crashing(release.cluster))?;
    wait("the first crashes", || (crashed().len() > 10).then_some(()))?;
    let (records, done) = (Mutex::new(BTreeMap::new()), AtomicBool::new(false));
    // The agent may begin a new ledger while it is updated: each line that ever was counts.
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
                records.extend(ledger());
                drop(records);
                std::thread::sleep(Duration::from_millis(250));
            }
        });
        let outcome = act_and_settle(release, action);
        done.store(true, Ordering::Relaxed);
        outcome
    });
    let pids = outcome?;
    let mut records = records.into_inner().unwrap_or_else(PoisonError::into_inner);
    records.extend(ledger());
    for (_, manifest) in unrecorded_dumps(release, &pids, &records)? {
        if let Some(pid) = manifest["process"]["pid"].as_u64() {
            records.insert(pid, "a dump without a line in the ledger".to_owned());
        }
    }
    let mut outcomes = BTreeMap::<&str, usize>::new();
    let (mut missing, mut gap, mut longest) = (0, 0, 0);
    for pid in &pids {
        match records.get(pid) {
            Some(outcome) => {
                *outcomes.entry(outcome.as_str()).or_default() += 1;
                gap = 0;
            }
            None => (missing, gap) = (missing + 1, gap + 1),
        }
        longest = longest.max(gap);
    }
    let after = total_of_crashes();
    let facts = format!(
        "{} crashes, {missing} without a record (longest gap {:.1} s); {outcomes:?}; crashes counted {before} before, {after} after",
        pids.len(),
        f64::from(longest) / 10.0
    );
    ensure!(missing == 0, "{facts}");
    ensure!(
        after >= before + pids.len() as u64,
        "the count of crashes was lost: {facts}"
    );
    Ok(facts)
}

/// Does it, lets crashes go on, ends them, and waits for their records; the pids of all.
fn act_and_settle(release: &mut Release<'_>, action: Action) -> Result<Vec<u64>> {
    std::thread::sleep(AROUND);
    act(release, action)?;
    std::thread::sleep(AROUND);
    let parent = super::cluster::processes_of("rate");
    for process in parent {
        // Stopped before it is killed, it starts no further child.
        let _ = signal(process, "STOP");
    }
    std::thread::sleep(Duration::from_secs(2));
    let pids = crashed();
    let spool = Path::new(NODE_STATE).join("spool");
    wait("an empty spool", || {
        let entries = fs::read_dir(&spool).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        (!names.any(|name| name.len() >= 36)).then_some(())
    })?;
    for process in super::cluster::processes_of("rate") {
        let _ = signal(process, "KILL");
    }
    Ok(pids)
}

fn act(release: &mut Release<'_>, action: Action) -> Result<()> {
    match action {
        Action::Upgrade => {
            let time = jiff::Timestamp::now().as_second();
            let mut helm = release.helm(&["upgrade", RELEASE]);
            helm.arg(release.chart()).args(release.values());
            helm.args(["--set-string", &format!("podAnnotations.updated={time}")]);
            succeed(&mut helm)?;
            release.wait_until_ready()
        }
        Action::Restart => {
            release.in_namespace(&["rollout", "restart", "daemonset/cdh"])?;
            release.wait_until_ready()
        }
        Action::Kill => {
            let process = release.agent_process()?;
            signal(process, "KILL")?;
            wait("another agent", || {
                release
                    .agent_process()
                    .ok()
                    .filter(|found| *found != process)
            })?;
            release.wait_until_ready()
        }
        Action::Drain => {
            let words = [
                "drain",
                NODE,
                "--ignore-daemonsets",
                "--force",
                "--delete-emptydir-data",
                "--timeout=60s",
            ];
            release.cluster.kubectl(&words)?;
            std::thread::sleep(AROUND);
            release.cluster.kubectl(&["uncordon", NODE])?;
            release.wait_until_ready()
        }
        Action::Containerd => {
            release.cluster.plane.restart_containerd()?;
            wait("the node", || {
                let node = release.cluster.get(&["node", NODE]).ok()?;
                let conditions = node["status"]["conditions"].as_array()?;
                conditions
                    .iter()
                    .any(|found| found["type"] == "Ready" && found["status"] == "True")
                    .then_some(())
            })?;
            release.wait_until_ready()
        }
    }
}

/// The outcome of each crash that the node's ledgers name, by pid.
fn ledger() -> BTreeMap<u64, String> {
    let mut found = BTreeMap::new();
    for state in [NODE_STATE, "/run/cdh"] {
        for name in ["records.1.jsonl", "records.jsonl"] {
            let path = Path::new(state).join("ledger").join(name);
            let text = fs::read_to_string(path).unwrap_or_default();
            for line in text.lines() {
                let Ok(record) = serde_json::from_str::<Value>(line) else {
                    continue;
                };
                if let (Some(pid), Some(outcome)) =
                    (record["pid"].as_u64(), record["outcome"].as_str())
                {
                    found.insert(pid, outcome.to_owned());
                }
            }
        }
    }
    found
}

/// Dumps that have no line.
fn unrecorded_dumps(
    release: &Release<'_>,
    pids: &[u64],
    records: &BTreeMap<u64, String>,
) -> Result<Vec<(String, Value)>> {
    if pids.iter().all(|pid| records.contains_key(pid)) {
        return Ok(Vec::new());
    }
    let words = ["--namespace", NAMESPACE];
    release
        .cluster
        .manifests(&release.prefix, &words)
        .context("cannot list the dumps")
}

/// Crashes that the agent has counted since it was installed.
fn total_of_crashes() -> u64 {
    let path = Path::new(NODE_STATE).join("ledger/totals.json");
    let text = fs::read_to_string(path).unwrap_or_default();
    let totals: Value = serde_json::from_str(&text).unwrap_or_default();
    totals["seq"].as_u64().unwrap_or(0)
}
