//! cdh installed in the cluster by its chart, as a user installs it: image, store and secret are set, nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use cdh_testkit::ADMIN;
use serde_json::Value;

use super::cluster::{Cluster, succeed, wait};
use super::machine::{self, NODE_STATE};
use crate::build;
use crate::guardian::{Guardian, read_settings};

/// Name and namespace of the release.
pub(super) const RELEASE: &str = "cdh";
const SECRET: &str = "cdh-store";

/// How the chart installs the handler on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// One privileged container.
    Full,
    /// A privileged init container, and one without privileges.
    Split,
}

impl Mode {
    /// As the chart and the option spell it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Split => "split",
        }
    }
}

/// An installed release. Between its start and its end the kernel's core settings are locked.
pub(super) struct Release<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) mode: Mode,
    /// Prefix of its dumps in the bucket.
    pub(super) prefix: String,
    chart: PathBuf,
    /// The kernel's settings before.
    before: Vec<String>,
    traces: BTreeSet<String>,
    /// Unless the whole group has the lock.
    _guardian: Option<Guardian>,
}

impl<'a> Release<'a> {
    /// Waits for the lock, installs, and waits until the node captures.
    pub(super) fn install(
        cluster: &'a mut Cluster,
        mode: Mode,
        prefix: &str,
        more: &[&str],
    ) -> Result<Self> {
        let release = Self::prepare(cluster, mode, prefix)?;
        release.start(more)?;
        Ok(release)
    }

    /// `helm install`, with more values.
    pub(super) fn start(&self, more: &[&str]) -> Result<()> {
        let mut helm = self.helm(&["install", RELEASE]);
        helm.arg(&self.chart).args(self.values());
        helm.args(more.iter().flat_map(|value| ["--set", value]));
        succeed(&mut helm)?;
        self.wait_until_ready()
    }

    /// Everything before the installation itself.
    pub(super) fn prepare(cluster: &'a mut Cluster, mode: Mode, prefix: &str) -> Result<Self> {
        let guardian = match cluster.guardian {
            Some(_) => None,
            None => Some(cluster.lock_settings()?),
        };
        let chart = relaxed_chart(&cluster.directory.join("chart"))?;
        let release = Self {
            mode,
            prefix: format!("{}-{prefix}", mode.name()),
            chart,
            before: read_settings()?,
            traces: traces(),
            _guardian: guardian,
            cluster,
        };
        let _ = release.cluster.kubectl(&["create", "namespace", RELEASE]);
        let _ = release.in_namespace(&["delete", "secret", SECRET, "--ignore-not-found"]);
        let keys = [
            ("AWS_ACCESS_KEY_ID", ADMIN.access),
            ("AWS_SECRET_ACCESS_KEY", ADMIN.secret),
        ]
        .map(|(name, value)| format!("--from-literal={name}={value}"));
        let [access, secret] = &keys;
        release.in_namespace(&["create", "secret", "generic", SECRET, access, secret])?;
        Ok(release)
    }

    /// The chart, which checks may change.
    pub(super) fn chart(&self) -> &Path {
        &self.chart
    }

    /// A call of helm in the release's namespace.
    pub(super) fn helm(&self, words: &[&str]) -> Command {
        let mut helm = self.cluster.client(&self.cluster.helm);
        helm.args(words).args(["--namespace", RELEASE]);
        helm
    }

    /// The three values that the chart cannot know, and the mode.
    pub(super) fn values(&self) -> Vec<String> {
        let images = &self.cluster.images;
        let values = [
            format!("image.repository={}/cdh", images.address()),
            format!("image.digest={}", images.cdh_digest),
            format!("store.url={}", self.cluster.store_url(&self.prefix)),
            format!("store.existingSecret={SECRET}"),
            format!("node.mode={}", self.mode.name()),
        ];
        let words = values.into_iter().filter(|value| value != "node.mode=full");
        words
            .flat_map(|value| ["--set".to_owned(), value])
            .collect()
    }

    /// kubectl in the release's namespace.
    pub(super) fn in_namespace(&self, words: &[&str]) -> Result<String> {
        self.cluster
            .kubectl(&[&["--namespace", RELEASE], words].concat())
    }

    /// Waits until the DaemonSet's pods are ready and the kernel starts our handler.
    pub(super) fn wait_until_ready(&self) -> Result<()> {
        let words = ["rollout", "status", "daemonset/cdh", "--timeout=120s"];
        if let Err(error) = self.in_namespace(&words) {
            let pods = self
                .in_namespace(&["get", "pods", "-o", "wide"])
                .unwrap_or_default();
            bail!("{error:#}: {pods}: {}", self.agent_log());
        }
        wait("the agent's handler in core_pattern", || {
            let settings = read_settings().ok()?;
            settings[1].contains("cdh-").then_some(())
        })
    }

    /// Name of the agent's pod.
    pub(super) fn agent_pod(&self) -> Result<String> {
        let agents = "app.kubernetes.io/component=agent";
        let pods = self
            .cluster
            .get(&["pods", "--namespace", RELEASE, "--selector", agents])?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let lives = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        let pod = pods.iter().find(lives).context("no pod of the agent")?;
        let name = pod["metadata"]["name"].as_str();
        Ok(name.unwrap_or_default().to_owned())
    }

    /// What the agent has logged, of all its containers and restarts.
    pub(super) fn agent_log(&self) -> String {
        super::cluster::pod_log(RELEASE, "cdh-")
    }

    /// Lines of the agent's log that name a problem, the last ones.
    pub(super) fn agent_problems(&self) -> String {
        let log = self.agent_log();
        let is_problem = |line: &&str| {
            ["cannot", "fail", "warning", "does not"]
                .iter()
                .any(|word| line.contains(word))
        };
        let lines: Vec<&str> = log.lines().filter(is_problem).collect();
        let last = lines
            .get(lines.len().saturating_sub(3)..)
            .unwrap_or_default();
        format!("the agent logs {last:?}")
    }

    /// The process of the agent.
    pub(super) fn agent_process(&self) -> Result<u32> {
        let is_agent = |process: &u32| {
            machine::executable(*process) == "/cdh"
                && machine::command_line(*process)
                    .iter()
                    .any(|word| word == "run")
        };
        let found = machine::processes().into_iter().find(is_agent);
        found.context("no process of the agent")
    }

    /// `helm uninstall`; what it printed.
    pub(super) fn uninstall(&self) -> Result<String> {
        let mut helm = self.helm(&["uninstall", RELEASE, "--timeout", "120s"]);
        let output = helm.output().context("cannot run helm")?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        ensure!(output.status.success(), "helm uninstall: {}", text.trim());
        Ok(text)
    }

    /// What is not as it was before the installation. Unshipped dumps may stay.
    pub(super) fn leftovers(&self) -> Result<Leftovers> {
        let mut wrong = Vec::new();
        let settings = read_settings()?;
        if settings != self.before {
            wrong.push(format!(
                "settings are {settings:?} instead of {:?}",
                self.before
            ));
        }
        let new: Vec<String> = traces().difference(&self.traces).cloned().collect();
        if !new.is_empty() {
            wrong.push(format!("trace instances {}", new.join(", ")));
        }
        let (mut dumps, mut files) = (BTreeSet::new(), Vec::new());
        for path in machine::files_below(Path::new(NODE_STATE)) {
            let inside = path.strip_prefix(NODE_STATE).unwrap_or(&path);
            let mut parts = inside
                .iter()
                .map(|part| part.to_string_lossy().into_owned());
            match (parts.next().as_deref(), parts.next()) {
                (Some("spool"), Some(dump)) => {
                    dumps.insert(dump);
                }
                _ => files.push(inside.display().to_string()),
            }
        }
        // The next agent resumes the uploads of these dumps from their journals.
        let mut beside = Vec::new();
        if !dumps.is_empty() {
            let is_journal =
                |file: &String| file.starts_with("uploads/") && file.ends_with(".journal");
            (beside, files) = files.into_iter().partition(is_journal);
        }
        if !files.is_empty() {
            wrong.push(format!("files {}", files.join(", ")));
        }
        let objects = self.cluster.kubectl(&[
            "get",
            "--namespace",
            RELEASE,
            "--no-headers",
            "-o",
            "name",
            "daemonsets,roles,rolebindings,configmaps,serviceaccounts",
        ])?;
        let ours: Vec<&str> = objects
            .lines()
            .filter(|name| name.contains("/cdh"))
            .collect();
        if !ours.is_empty() {
            wrong.push(format!("objects {}", ours.join(", ")));
        }
        Ok(Leftovers {
            wrong,
            dumps: dumps.len(),
            beside,
        })
    }
}

impl Drop for Release<'_> {
    /// However a check ended, the next one begins with a node without cdh.
    fn drop(&mut self) {
        let _ = self
            .helm(&["uninstall", RELEASE, "--no-hooks", "--ignore-not-found"])
            .output();
        let words = [
            "delete",
            "namespace",
            RELEASE,
            "--ignore-not-found",
            "--timeout=60s",
        ];
        let _ = self.cluster.kubectl(&words);
        let _ = wait("the end of the agent", || {
            self.agent_process().is_err().then_some(())
        });
        let _ = fs::remove_dir_all(NODE_STATE);
    }
}

/// What an uninstallation left.
pub(super) struct Leftovers {
    /// What should not be there.
    pub(super) wrong: Vec<String>,
    /// Unshipped dumps, which should.
    pub(super) dumps: usize,
    /// What stays with them.
    pub(super) beside: Vec<String>,
}

fn traces() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for root in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"] {
        let entries = fs::read_dir(Path::new(root).join("instances"));
        for entry in entries.into_iter().flatten().flatten() {
            found.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

/// The chart as it is, for a Kubernetes that is older than those it supports.
fn relaxed_chart(place: &Path) -> Result<PathBuf> {
    let _ = fs::remove_dir_all(place);
    fs::create_dir_all(place)?;
    succeed(
        Command::new("cp")
            .arg("-R")
            .arg(build::root().join("charts"))
            .arg(place),
    )?;
    let chart = place.join("charts/cdh");
    let path = chart.join("Chart.yaml");
    let text = fs::read_to_string(&path)?;
    let lines = text
        .lines()
        .map(|line| match line.starts_with("kubeVersion:") {
            true => "kubeVersion: \">=1.20.0-0\"",
            false => line,
        });
    fs::write(&path, lines.collect::<Vec<_>>().join("\n"))?;
    Ok(chart)
}
