//! Kills in the middle of the dump of a large process, as a cluster sends them: the dump is complete, and says who
//! sent the kill and why.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::cluster::{Cluster, NAMESPACE, processes_of, signal, wait, wait_for};
use super::release::{Mode, Release};
use super::report::Report;

/// Memory of a container beside that of the process that crashes, in MiB.
const BESIDE: usize = 256;

/// How long the dump of a large process may take until it is in the store.
const UPLOAD: Duration = Duration::from_secs(400);

/// Who ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killer {
    /// `kubectl delete --force`.
    Delete,
    /// A liveness probe that fails.
    Probe,
    /// A process in the same pod.
    Inside,
    /// The OOM killer, at the container's limit.
    Memory,
    /// The kubelet, because the node's memory is short.
    Eviction,
}

const KILLERS: [(Killer, &str); 5] = [
    (Killer::Delete, "kubectl delete --force"),
    (Killer::Probe, "liveness probe"),
    (Killer::Inside, "kill -9 from inside the pod"),
    (Killer::Memory, "OOM killer at the container's limit"),
    (Killer::Eviction, "eviction by the kubelet"),
];

impl Killer {
    /// Senders that a dump may name, each with what `cdh info` makes of it. A kubelet also sends SIGKILL itself, to
    /// processes that it finds in the cgroup of a pod that no longer exists.
    fn evidence(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Inside => &[("SIGKILL from `cluster`", "SIGKILL")],
            // The OOM killer has no process of its own: the sender is the one that asked for memory.
            Self::Memory => &[("(the kernel)", "memory limit")],
            _ => &[
                (
                    "SIGKILL from `runc",
                    "the container runtime ended its container",
                ),
                ("SIGKILL from `kubelet`", "kubelet ended its pod"),
            ],
        }
    }

    fn pod(self, cluster: &Cluster, name: &str, mebibytes: usize) -> Value {
        let word = match self {
            Self::Inside => "child",
            Self::Memory => "memory",
            _ => "filled",
        };
        let mut pod = cluster.pod(name, word, mebibytes);
        if self == Self::Probe {
            pod["spec"]["containers"][0]["livenessProbe"] = json!({
                "httpGet": {"port": 8080, "path": "/"}, "periodSeconds": 1, "timeoutSeconds": 5,
                // It does not listen while it fills its memory.
                "failureThreshold": 1, "initialDelaySeconds": 0,
            });
        }
        if self == Self::Memory {
            let limit = format!("{}Mi", mebibytes + BESIDE);
            pod["spec"]["containers"][0]["resources"] =
                json!({"limits": {"memory": limit}, "requests": {"memory": "16Mi"}});
        }
        pod
    }
}

/// Runs them, each `repeat` times with processes of `mebibytes`.
pub(super) fn run(
    cluster: &mut Cluster,
    mode: Mode,
    repeat: usize,
    mebibytes: usize,
    only: &[String],
    report: &mut Report,
) -> Result<()> {
    let group = format!("kills, {}", mode.name());
    let mut release = Release::install(cluster, mode, "kills", &[])?;
    for (killer, name) in super::wanted_checks(&KILLERS, only) {
        report.check(&group, &format!("{name}, {mebibytes} MiB"), || {
            let (mut complete, mut problems) = (BTreeMap::<String, usize>::new(), Vec::new());
            for number in 0..repeat {
                let pod = format!("kill-{killer:?}-{number}").to_lowercase();
                match kill(&mut release, killer, &pod, mebibytes) {
                    Ok(sender) => *complete.entry(sender).or_default() += 1,
                    Err(error) => problems.push(format!("number {}: {error:#}", number + 1)),
                }
                release.cluster.delete("pod", &pod);
            }
            let passed = repeat - problems.len();
            let senders = complete.iter();
            let senders: Vec<_> = senders
                .map(|(sender, count)| format!("{count} × {sender}"))
                .collect();
            let facts = format!("{passed} of {repeat} complete, {}", senders.join(", "));
            ensure!(problems.is_empty(), "{facts}; {}", problems.join("; "));
            Ok(facts)
        });
    }
    release.cluster.plane.restart_kubelet(None)?;
    Ok(())
}

/// Crashes one process and has it killed; what its dump says.
fn kill(release: &mut Release<'_>, killer: Killer, pod: &str, mebibytes: usize) -> Result<String> {
    if killer == Killer::Eviction {
        return evicted(release, pod, mebibytes);
    }
    let cluster = &*release.cluster;
    let first = start(cluster, killer, pod, mebibytes)?;
    match killer {
        Killer::Delete => {
            signal(first, "USR1")?;
            let words = [
                "delete",
                "pod",
                pod,
                "--namespace",
                NAMESPACE,
                "--force",
                "--grace-period=0",
            ];
            cluster.kubectl(&words)?;
        }
        Killer::Probe => signal(first, "USR2")?,
        _ => signal(first, "USR1")?,
    }
    facts(release, killer, pod)
}

/// Starts a pod and waits until its process has its memory; the process.
fn start(cluster: &Cluster, killer: Killer, pod: &str, mebibytes: usize) -> Result<u32> {
    cluster.apply(&killer.pod(cluster, pod, mebibytes))?;
    cluster.wait_for_line(pod, "filled")?;
    let processes = processes_of(pod);
    processes.first().copied().context("no process of the pod")
}

/// Has the kubelet evict the pod of a process that crashes on SIGTERM: its SIGKILL finds a dump. Afterwards the node has
/// no memory pressure.
fn evicted(release: &mut Release<'_>, pod: &str, mebibytes: usize) -> Result<String> {
    let outcome = evict(release, pod, mebibytes).and_then(|()| {
        let facts = facts(release, Killer::Eviction, pod)?;
        let object = release.cluster.get(&["pod", pod, "--namespace", NAMESPACE]);
        let reason = object.map(|pod| pod["status"]["reason"].clone());
        Ok(format!("{facts}, reason {}", reason.unwrap_or_default()))
    });
    release.cluster.plane.restart_kubelet(None)?;
    wait("the end of the node's memory pressure", || {
        let words = ["node", super::control_plane::NODE];
        let node = release.cluster.get(&words).ok()?;
        node["spec"]["taints"].is_null().then_some(())
    })?;
    outcome
}

/// A hard eviction sends no SIGTERM, so only a soft one finds the dump under way. The pod itself brings the node below the
/// threshold: a kubelet that starts under pressure does not admit it.
fn evict(release: &mut Release<'_>, pod: &str, mebibytes: usize) -> Result<()> {
    let free = available_mebibytes()?.saturating_sub(mebibytes as u64 / 2);
    release
        .cluster
        .plane
        .restart_kubelet(Some(&format!("{free}Mi")))?;
    let process = start(release.cluster, Killer::Eviction, pod, mebibytes)?;
    signal(process, "USR2")
}

/// The dump of the crashed process: complete, with the sender and the reason.
fn facts(release: &Release<'_>, killer: Killer, pod: &str) -> Result<String> {
    let cluster = &*release.cluster;
    let words = ["--namespace", NAMESPACE, "--pod", pod];
    let dumps = wait_for(UPLOAD, "the dump", || {
        let dumps = cluster.manifests(&release.prefix, &words).ok()?;
        (!dumps.is_empty()).then_some(dumps)
    });
    let dumps = dumps.with_context(|| {
        let events = cluster
            .kubectl(&["get", "events", "--namespace", NAMESPACE])
            .unwrap_or_default();
        events
            .lines()
            .filter(|line| line.contains(pod))
            .collect::<Vec<_>>()
            .join("; ")
    })?;
    let (id, manifest) = dumps.first().context("no dump")?;
    let state = &manifest["verdict"]["state"];
    ensure!(
        state == "complete",
        "the verdict is {}",
        manifest["verdict"]
    );
    let killed = manifest["killed"].as_str().unwrap_or_default();
    ensure!(
        !killed.is_empty(),
        "the dump does not say that it was killed: the kill came after its end?"
    );
    let known = killer.evidence();
    let found = known.iter().find(|(sender, _)| killed.contains(sender));
    let (_, reason) =
        found.with_context(|| format!("killed is {killed:?} instead of one of {known:?}"))?;
    let info = cluster.cdh(&release.prefix, &["info", id])?;
    let text = info.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(
        text.contains(reason),
        "`cdh info` does not name the reason `{reason}`: {info}"
    );
    Ok(without_numbers(killed))
}

/// The sender of a kill without its pid and the time: ``SIGKILL from `runc` ``.
fn without_numbers(killed: &str) -> String {
    let end = killed.find(" (pid").unwrap_or(killed.len());
    killed.get(..end).unwrap_or(killed).to_owned()
}

/// Free memory of the node as a kubelet computes it: capacity without the working set, which has no inactive files.
fn available_mebibytes() -> Result<u64> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let field = |text: &str, name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default();
        let number = line.trim_start_matches(':').split_ascii_whitespace().next();
        number
            .and_then(|number| number.parse::<u64>().ok())
            .with_context(|| format!("no {name}"))
    };
    let total = field(&read("/proc/meminfo")?, "MemTotal")? << 10;
    let group = "/sys/fs/cgroup/memory";
    let used: u64 = read(&format!("{group}/memory.usage_in_bytes"))?
        .trim()
        .parse()?;
    let inactive = field(
        &read(&format!("{group}/memory.stat"))?,
        "total_inactive_file ",
    )?;
    Ok(total.saturating_sub(used.saturating_sub(inactive)) >> 20)
}
