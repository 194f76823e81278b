//! Crashes of every kind of workload: what their dumps say of them, and how they are explained.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::cluster::{Cluster, NAMESPACE, processes_of, signal, wait};
use super::release::{Mode, Release};
use super::report::Report;
use crate::demo;

/// Pods that are deleted at the moment of their crash.
const DELETED: usize = 6;

/// What a dump of a workload has to say. Names end with `-` where the rest of them is random.
struct Expected {
    /// Of the check, and the note in the process's arguments.
    note: &'static str,
    pod: &'static str,
    container: &'static str,
    owner: Option<(&'static str, &'static str)>,
    label: &'static str,
    /// Pods, and dumps of each: its restarts are counted from 0.
    pods: usize,
    restarts: usize,
    uid: u64,
}

const USUAL: Expected = Expected {
    note: "",
    pod: "",
    container: "main",
    owner: None,
    label: "",
    pods: 1,
    restarts: 1,
    uid: 0,
};

fn expected() -> Vec<Expected> {
    let of = |note, pod, owner| Expected {
        note,
        pod,
        owner,
        label: note,
        ..USUAL
    };
    vec![
        Expected {
            pods: 2,
            restarts: 2,
            ..of("web", "web-", Some(("Deployment", "web")))
        },
        of("report", "report-", Some(("Job", "report"))),
        of("nightly", "nightly-", Some(("CronJob", "nightly"))),
        of("db", "db-0", Some(("StatefulSet", "db"))),
        of("probe", "probe-", Some(("DaemonSet", "probe"))),
        of("on-host-network", "on-host-network", None),
        of("on-host-pid", "on-host-pid", None),
        Expected {
            container: "prepare",
            ..of("with-init", "with-init", None)
        },
        Expected {
            container: "worker",
            uid: 10_001,
            ..of("shared-pid", "shared-pid", None)
        },
    ]
}

/// Runs the walk.
pub(super) fn run(cluster: &mut Cluster, mode: Mode, report: &mut Report) -> Result<()> {
    let group = format!("walk, {}", mode.name());
    let release = Release::install(cluster, mode, "walk", &[])?;
    let cluster = &*release.cluster;
    for object in workloads(cluster) {
        cluster.apply(&object)?;
    }
    for number in 0..DELETED {
        cluster.apply(&cluster.pod(&format!("deleted-{number}"), "filled", 32))?;
    }
    report.check(&group, "six pods force-deleted at the crash", || {
        deleted(cluster, &release)
    });
    for expected in expected() {
        report.check(&group, expected.note, || {
            dumps(cluster, &release, &expected)
        });
    }
    report.check(
        &group,
        "cdh bt with source lines from the registry, gdb agrees",
        || explained(cluster, &release),
    );
    report.check(&group, "cdh ls and groups name the owners", || {
        listed(cluster, &release)
    });
    for kind in [
        "deployments",
        "jobs",
        "cronjobs",
        "statefulsets",
        "daemonsets",
        "pods",
    ] {
        let words = [
            "delete",
            kind,
            "--all",
            "--namespace",
            NAMESPACE,
            "--force",
            "--grace-period=0",
        ];
        cluster.kubectl(&words)?;
    }
    report.check(&group, "helm uninstall", || {
        release.uninstall()?;
        let left = release.leftovers()?;
        ensure!(left.wrong.is_empty(), "{}", left.wrong.join("; "));
        Ok("settings restored, nothing left".to_owned())
    });
    Ok(())
}

fn workloads(cluster: &Cluster) -> Vec<Value> {
    let template = |note: &str, word: &str, policy: &str| {
        json!({
            "metadata": {"labels": {"app": note}},
            "spec": {
                "restartPolicy": policy, "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": false,
                "containers": [cluster.container("main", word, note, 1)],
            },
        })
    };
    let object = |api: &str, kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": api, "kind": kind,
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
        })
    };
    let selected = |note: &str| {
        json!({
            "selector": {"matchLabels": {"app": note}},
            "template": template(note, "crash", "Always"),
        })
    };
    let mut web = selected("web");
    web["replicas"] = 2.into();
    let mut db = selected("db");
    db["serviceName"] = "db".into();
    let job = |note: &str| json!({"backoffLimit": 0, "template": template(note, "crash", "Never")});
    let mut host_network = cluster.pod("on-host-network", "crash", 1);
    host_network["spec"]["hostNetwork"] = true.into();
    let mut host_pid = cluster.pod("on-host-pid", "crash", 1);
    host_pid["spec"]["hostPID"] = true.into();
    let mut with_init = cluster.pod("with-init", "pause", 0);
    with_init["spec"]["initContainers"] =
        json!([cluster.container("prepare", "crash", "with-init", 1)]);
    let mut shared = cluster.pod("shared-pid", "pause", 0);
    shared["spec"]["shareProcessNamespace"] = true.into();
    shared["spec"]["securityContext"] = json!({"runAsUser": 10_001, "runAsNonRoot": true});
    shared["spec"]["containers"] = json!([
        cluster.container("quiet", "pause", "quiet", 0),
        cluster.container("worker", "crash", "shared-pid", 1),
    ]);
    vec![
        object(
            "batch/v1beta1",
            "CronJob",
            "nightly",
            json!({"schedule": "* * * * *", "concurrencyPolicy": "Forbid", "jobTemplate": {"spec": job("nightly")}}),
        ),
        object("apps/v1", "Deployment", "web", web),
        object("batch/v1", "Job", "report", job("report")),
        object("apps/v1", "StatefulSet", "db", db),
        object("apps/v1", "DaemonSet", "probe", selected("probe")),
        host_network,
        host_pid,
        with_init,
        shared,
    ]
}

/// Dumps of processes with this note, as soon as there are `count`.
fn with_note(
    cluster: &Cluster,
    release: &Release<'_>,
    note: &str,
    count: usize,
) -> Result<Vec<(String, Value)>> {
    let mut last = String::new();
    let found = wait(&format!("{count} dumps of {note}"), || {
        let has_note = |manifest: &Value| {
            let arguments = manifest["process"]["arguments"].as_array();
            arguments.is_some_and(|words| words.get(2).is_some_and(|word| word == note))
        };
        let words = ["--namespace", NAMESPACE];
        match cluster.manifests(&release.prefix, &words) {
            Ok(all) => {
                last = format!("{} dumps in all", all.len());
                let found: Vec<_> = all
                    .into_iter()
                    .filter(|(_, found)| has_note(found))
                    .collect();
                (found.len() >= count).then_some(found)
            }
            Err(error) => {
                last = format!("{error:#}");
                None
            }
        }
    });
    found.context(last)
}

/// Compares what dumps of a workload say with what it is.
fn dumps(cluster: &Cluster, release: &Release<'_>, expected: &Expected) -> Result<String> {
    let count = expected.pods * expected.restarts;
    let dumps = with_note(cluster, release, expected.note, count)?;
    let mut restarts = BTreeSet::new();
    let mut pods = BTreeSet::new();
    for (id, manifest) in &dumps {
        let workload = &manifest["workload"];
        let text = |name: &str| workload[name].as_str().unwrap_or_default();
        let check = |what: &str, is: &Value, wanted: &Value| {
            let gaps = &manifest["gaps"];
            ensure!(
                is == wanted,
                "{what} of {id} is {is} instead of {wanted}; gaps are {gaps}; {}",
                release.agent_problems()
            );
            Ok(())
        };
        check("namespace", &workload["namespace"], &json!(NAMESPACE))?;
        let pod = text("pod");
        let is_pod = match expected.pod.ends_with('-') {
            true => pod.starts_with(expected.pod),
            false => pod == expected.pod,
        };
        ensure!(
            is_pod,
            "pod of {id} is {pod:?} instead of {:?}",
            expected.pod
        );
        check(
            "container",
            &workload["container"],
            &json!(expected.container),
        )?;
        check(
            "node",
            &workload["node"],
            &json!(super::control_plane::NODE),
        )?;
        let owner = expected.owner.map_or(
            Value::Null,
            |(kind, name)| json!({"kind": kind, "name": name}),
        );
        check("owner", &workload["owner"], &owner)?;
        check(
            "label `app`",
            &workload["labels"]["app"],
            &json!(expected.label),
        )?;
        check("uid", &manifest["process"]["uid"], &json!(expected.uid))?;
        check_image(cluster, manifest)?;
        restarts.insert(
            workload["restart_count"]
                .as_u64()
                .context("no restart count")?,
        );
        pods.insert(pod.to_owned());
    }
    let (first, last) = (restarts.first().copied(), restarts.len());
    ensure!(
        first == Some(0) && last >= expected.restarts,
        "restarts are {restarts:?} instead of 0 to {}",
        expected.restarts - 1
    );
    ensure!(pods.len() == expected.pods, "pods are {pods:?}");
    let (id, _) = dumps.last().context("no dumps")?;
    check_log(cluster, release, id, expected.note)?;
    for (id, manifest) in &dumps {
        // Crashes of the same program in other workloads do not take this one's core.
        let verdict = &manifest["verdict"];
        ensure!(
            verdict["state"] == "complete",
            "all else is right, but the verdict of {id} is {verdict}"
        );
    }
    Ok(format!(
        "{} dumps; pods {pods:?}; owner, labels, digest and logs are right; restarts {restarts:?}",
        dumps.len()
    ))
}

fn check_image(cluster: &Cluster, manifest: &Value) -> Result<()> {
    let (_, digest) = cluster.images.app.split_once('@').unwrap_or_default();
    let image = manifest["image"].to_string();
    ensure!(
        image.contains(digest),
        "the image is {image} instead of {digest}"
    );
    Ok(())
}

/// The last lines that the container wrote are in the dump.
fn check_log(cluster: &Cluster, release: &Release<'_>, id: &str, note: &str) -> Result<()> {
    let case = cluster.directory.join("case");
    let _ = fs::remove_dir_all(&case);
    let words = ["fetch", id, "--directory", &case.display().to_string()];
    cluster.cdh(&release.prefix, &words)?;
    let line = format!("{note} starts");
    let mut names = Vec::new();
    let mut directories = vec![case.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|end| end == "log") {
                if fs::read_to_string(&path).is_ok_and(|text| text.contains(&line)) {
                    return Ok(fs::remove_dir_all(&case)?);
                }
                names.push(path);
            }
        }
    }
    anyhow::bail!("none of the logs {names:?} of {id} has `{line}`")
}

/// All crash at once, and are deleted at once.
fn deleted(cluster: &Cluster, release: &Release<'_>) -> Result<String> {
    let names: Vec<String> = (0..DELETED)
        .map(|number| format!("deleted-{number}"))
        .collect();
    for name in &names {
        cluster.wait_for_line(name, "filled")?;
    }
    for name in &names {
        for process in processes_of(name) {
            signal(process, "USR1")?;
        }
    }
    let mut words = vec![
        "delete",
        "pod",
        "--namespace",
        NAMESPACE,
        "--force",
        "--grace-period=0",
        "--wait=false",
    ];
    words.extend(names.iter().map(String::as_str));
    cluster.kubectl(&words)?;
    for name in &names {
        let dumps = with_note(cluster, release, name, 1)?;
        let (id, manifest) = dumps.first().context("no dump")?;
        let workload = &manifest["workload"];
        let facts = json!([
            workload["namespace"],
            workload["pod"],
            workload["container"],
            workload["labels"]["app"],
            manifest["verdict"]["state"]
        ]);
        ensure!(
            facts == json!([NAMESPACE, name, "main", name, "complete"]),
            "{id} says {facts}"
        );
        check_image(cluster, manifest)?;
        check_log(cluster, release, id, name)?;
    }
    Ok(format!(
        "{DELETED} of {DELETED} complete, with names, labels, digest and logs"
    ))
}

/// A workstation that has none of the node's files explains a crash, and gdb says the same.
fn explained(cluster: &Cluster, release: &Release<'_>) -> Result<String> {
    let dumps = with_note(cluster, release, "report", 1)?;
    let (id, _) = dumps.first().context("no dump")?;
    let (text, warnings) = cluster.cdh_with_warnings(&release.prefix, &["bt", id])?;
    for (function, file) in [
        ("price_of", "cluster.c:"),
        ("checkout", "cluster.c:"),
        ("main", "cluster.c:"),
    ] {
        let line = text.lines().find(|line| line.contains(function));
        ensure!(
            line.is_some_and(|line| line.contains(file)) || text.contains(&format!("{function}\n")),
            "no source line of {function}: {text}{warnings}"
        );
    }
    ensure!(
        text.contains("cluster.c:"),
        "no source lines: {text}{warnings}"
    );
    let json = cluster.cdh(&release.prefix, &["bt", id, "-o", "json"])?;
    let gdb = cluster.cdh(&release.prefix, &["debug", id, "--", "-batch", "-ex", "bt"])?;
    let frames = demo::compare_frames(&gdb, &serde_json::from_str(&json)?)?;
    Ok(format!("gdb agrees on all {frames} frames"))
}

fn listed(cluster: &Cluster, release: &Release<'_>) -> Result<String> {
    let json: Value = serde_json::from_str(&cluster.cdh(&release.prefix, &["ls", "-o", "json"])?)?;
    let text = json.to_string();
    let info = {
        let dumps = with_note(cluster, release, "web", 1)?;
        let (id, _) = dumps.first().context("no dump")?;
        cluster.cdh(&release.prefix, &["info", id])?
    };
    for wanted in ["Deployment web", "app=web"] {
        ensure!(
            info.contains(wanted),
            "`cdh info` does not show `{wanted}`: {info}"
        );
    }
    ensure!(
        text.contains("\"Deployment\""),
        "`cdh ls -o json` has no owners"
    );
    let groups = cluster.cdh(&release.prefix, &["groups", "-o", "json"])?;
    ensure!(
        groups.contains("Deployment"),
        "`cdh groups -o json` has no owners"
    );
    Ok("info, ls -o json and groups -o json have owner and labels".to_owned())
}
