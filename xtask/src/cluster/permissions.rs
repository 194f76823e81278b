//! Each permission that the chart asks for, removed: the agent still captures and ships, and reports what is lost.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::cluster::{Cluster, NAMESPACE, wait};
use super::release::{Mode, Release};
use super::report::Report;

/// The rule of a role, and the verb that is removed from it.
struct Removed {
    rule: usize,
    verb: String,
    what: String,
}

/// Runs them: the agent's role first, then that of the clean-up.
pub(super) fn run(all: &mut Cluster, mode: Mode, report: &mut Report) -> Result<()> {
    let group = format!("permissions, {}", mode.name());
    let events = "notify.kubernetesEvents=true";
    let release = Release::install(all, mode, "permissions", &[events])?;
    let cluster = &*release.cluster;
    let roles = cluster.get(&["clusterroles", "--selector", "app.kubernetes.io/name=cdh"])?;
    let mut number = 0;
    report.check(&group, "with all of them", || {
        crash(cluster, &release, number)?;
        let words = ["get", "events", "--namespace", NAMESPACE];
        wait("an Event of the crash", || {
            let events = cluster.kubectl(&words).ok()?;
            events
                .lines()
                .any(|line| line.contains("SIGSEGV"))
                .then_some(())
        })?;
        Ok("the crash is an Event of its pod".to_owned())
    });
    for role in roles["items"].as_array().into_iter().flatten() {
        let name = role["metadata"]["name"].as_str().unwrap_or_default();
        for removed in verbs(&role["rules"]) {
            number += 1;
            report.check(&group, &format!("{name} without {}", removed.what), || {
                let mut less = role.clone();
                less["rules"] = without(&role["rules"], &removed);
                less["metadata"] = json!({"name": name, "labels": role["metadata"]["labels"]});
                cluster.apply(&less)?;
                let before = release.agent_log().len();
                let crashed = crash(cluster, &release, number);
                let said = wait("what the agent says of it", || {
                    let log = release.agent_log();
                    let new = log.get(before..).unwrap_or_default();
                    let line = new
                        .lines()
                        .find(|line| line.contains("forbidden") || line.contains("403"));
                    line.map(str::to_owned)
                });
                less["rules"] = role["rules"].clone();
                cluster.apply(&less)?;
                crashed?;
                // Nothing is lost where no crash needs the verb.
                Ok(match said {
                    Ok(line) => format!("the dump is in the store; the agent logs {line:?}"),
                    Err(_) => {
                        let events =
                            cluster.kubectl(&["get", "events", "--namespace", NAMESPACE])?;
                        let pod = format!("permission-{number}");
                        ensure!(
                            events.contains(&pod),
                            "nothing is said of it, and no Event is there"
                        );
                        "nothing is lost: dump and Event are there".to_owned()
                    }
                })
            });
        }
    }
    drop(release);
    for number in 0..hook_verbs(&chart_template()?).len() {
        let template = chart_template()?;
        let (line, verb) = &hook_verbs(&template)[number];
        let name = format!(
            "hook of the uninstallation without {verb} in `{}`",
            line.trim()
        );
        report.check(&group, &name, || {
            without_hook_verb(all, mode, number, &template, line, verb)
        });
    }
    Ok(())
}

/// The hooks of the chart's uninstallation.
const HOOKS: &str = "templates/cleanup.yaml";

fn chart_template() -> Result<String> {
    let path = crate::build::root().join("charts/cdh").join(HOOKS);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Lines with verbs, one for each of these.
fn hook_verbs(template: &str) -> Vec<(String, String)> {
    let lines = template
        .lines()
        .filter(|line| line.trim_start().starts_with("verbs: ["));
    let verbs = |line: &str| {
        let (_, list) = line.split_once('[').unwrap_or_default();
        let words = list
            .trim_end_matches(']')
            .split(',')
            .map(|word| word.trim().to_owned());
        words
            .map(|verb| (line.to_owned(), verb))
            .collect::<Vec<_>>()
    };
    lines.flat_map(verbs).collect()
}

/// Helm keeps the hooks of the installation, so the chart is changed before it.
fn without_hook_verb(
    cluster: &mut Cluster,
    mode: Mode,
    number: usize,
    template: &str,
    line: &str,
    verb: &str,
) -> Result<String> {
    let release = Release::prepare(cluster, mode, &format!("hook-{number}"))?;
    let (before, list) = line.split_once('[').unwrap_or_default();
    let left: Vec<&str> = { list.trim_end_matches(']').split(',').map(str::trim) }
        .filter(|word| *word != verb)
        .collect();
    // A rule without verbs is not valid. None of ours watches.
    let left = match left.is_empty() {
        true => "watch".to_owned(),
        false => left.join(", "),
    };
    let less = format!("{before}[{left}]");
    fs::write(release.chart().join(HOOKS), template.replace(line, &less))?;
    release.start(&[])?;
    let said = match release.uninstall() {
        Ok(text) => format!("helm says {:?}", text.trim()),
        Err(error) => format!("helm fails and says {:?}", format!("{error:#}")),
    };
    let left = release.leftovers()?;
    let settings: Vec<&String> = left
        .wrong
        .iter()
        .filter(|what| !what.starts_with("objects"))
        .collect();
    ensure!(settings.is_empty(), "{settings:?}; {said}");
    Ok(format!("settings restored; {said}"))
}

/// A crash with a fingerprint of its own, until its dump is in the store.
fn crash(cluster: &Cluster, release: &Release<'_>, number: usize) -> Result<()> {
    let pod = format!("permission-{number}");
    cluster.apply(&cluster.pod(&pod, "bug", number))?;
    wait("the dump in the store", || {
        let words = ["ls", "-o", "id", "--pod", &pod];
        let ids = cluster.cdh(&release.prefix, &words).ok()?;
        (!ids.is_empty()).then_some(())
    })
}

/// Each verb of each rule.
fn verbs(rules: &Value) -> Vec<Removed> {
    let mut found = Vec::new();
    for (number, rule) in rules.as_array().into_iter().flatten().enumerate() {
        for verb in rule["verbs"].as_array().into_iter().flatten() {
            let verb = verb.as_str().unwrap_or_default().to_owned();
            found.push(Removed {
                rule: number,
                what: format!("{verb} of {}", rule["resources"]),
                verb,
            });
        }
    }
    found
}

fn without(rules: &Value, removed: &Removed) -> Value {
    let mut rules = rules.as_array().cloned().unwrap_or_default();
    if let Some(verbs) =
        { rules.get_mut(removed.rule) }.and_then(|rule| rule["verbs"].as_array_mut())
    {
        verbs.retain(|verb| verb.as_str() != Some(&removed.verb));
    }
    // A rule without verbs is not valid.
    rules.retain(|rule| {
        rule["verbs"]
            .as_array()
            .is_none_or(|verbs| !verbs.is_empty())
    });
    rules.into()
}
