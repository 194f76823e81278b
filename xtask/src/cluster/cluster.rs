//! The cluster that checks run in, and how they look at it: `kubectl`, `cdh` on a workstation, processes and logs
//! of the node.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cdh_testkit::{ADMIN, S3Server};
use serde_json::{Value, json};

use super::control_plane::ControlPlane;
use super::images::{Images, PROGRAM};
use super::machine;
use crate::guardian::Guardian;

/// How long a check waits for something that takes seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(180);
/// Namespace of the programs that crash.
pub(super) const NAMESPACE: &str = "shop";
/// Bucket of the dumps.
const BUCKET: &str = "dumps";

/// Everything that runs.
pub(super) struct Cluster {
    pub(super) directory: PathBuf,
    pub(super) kubectl: PathBuf,
    pub(super) helm: PathBuf,
    /// `cdh` of a workstation.
    pub(super) cdh: PathBuf,
    // The node ends before what it pulls from.
    pub(super) plane: ControlPlane,
    pub(super) store: S3Server,
    pub(super) images: Images,
    /// Manifests that were read, by the dump's id: they do not change.
    pub(super) manifests: RefCell<BTreeMap<String, Value>>,
    /// Lock of the kernel's core settings, while a group of short installations holds it.
    pub(super) guardian: Option<Guardian>,
}

impl Cluster {
    /// `s3://…` of a prefix.
    pub(super) fn store_url(&self, prefix: &str) -> String {
        let endpoint = self.store.endpoint();
        format!("s3://{BUCKET}/{prefix}?endpoint={endpoint}&region=us-east-1&path-style=true")
    }

    /// Waits for the lock of the kernel's core settings.
    pub(super) fn lock_settings(&self) -> Result<Guardian> {
        let place = self.directory.join("guardian");
        fs::create_dir_all(&place)?;
        let guardian = Guardian::start(&place)?;
        guardian.context("this process may not change the kernel's settings")
    }

    /// Makes the bucket and the namespace of the programs.
    pub(super) fn prepare(&self) -> Result<()> {
        self.store.make_bucket(BUCKET);
        self.kubectl(&["create", "namespace", NAMESPACE])?;
        Ok(())
    }

    /// A call of kubectl.
    pub(super) fn kubectl_command(&self) -> Command {
        self.client(&self.kubectl)
    }

    /// A program that finds the cluster.
    pub(super) fn client(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", self.plane.kubeconfig());
        let home = self.directory.join("home");
        command.env("HOME", &home).env("HELM_DATA_HOME", &home);
        command
    }

    /// Runs kubectl; its standard output.
    pub(super) fn kubectl(&self, words: &[&str]) -> Result<String> {
        succeed(self.kubectl_command().args(words))
    }

    /// An object, or a list of them.
    pub(super) fn get(&self, words: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "-o", "json"], words].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Creates or changes an object.
    pub(super) fn apply(&self, object: &Value) -> Result<()> {
        let mut kubectl = self.kubectl_command();
        kubectl.args(["apply", "-f", "-"]);
        kubectl
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = kubectl.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(object.to_string().as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl apply: {}", errors.trim());
        Ok(())
    }

    /// Deletes an object of the programs, at once.
    pub(super) fn delete(&self, kind: &str, name: &str) {
        let words = [
            "delete",
            kind,
            name,
            "--namespace",
            NAMESPACE,
            "--ignore-not-found",
        ];
        let _ = self.kubectl(&[&words[..], &["--grace-period=0", "--force"]].concat());
    }

    /// Runs `cdh` on the dumps of a prefix and returns its standard output.
    pub(super) fn cdh(&self, prefix: &str, words: &[&str]) -> Result<String> {
        Ok(self.cdh_with_warnings(prefix, words)?.0)
    }

    /// Runs `cdh` on the dumps of a prefix and returns its standard output and its warnings.
    pub(super) fn cdh_with_warnings(
        &self,
        prefix: &str,
        words: &[&str],
    ) -> Result<(String, String)> {
        let mut cdh = Command::new(&self.cdh);
        cdh.env("AWS_ACCESS_KEY_ID", ADMIN.access);
        cdh.env("AWS_SECRET_ACCESS_KEY", ADMIN.secret);
        // None of the files of the machine that is also the node.
        let home = self.directory.join("home");
        cdh.env("HOME", &home)
            .env("XDG_CACHE_HOME", home.join("cache"))
            .env("XDG_CONFIG_HOME", home.join(".config"));
        cdh.env_remove("DEBUGINFOD_URLS")
            .current_dir(&self.directory);
        cdh.args(["--store", &self.store_url(prefix)]).args(words);
        let output = cdh.output().context("cannot run cdh")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        // 1: nothing was found.
        ensure!(
            output.status.code() < Some(2),
            "cdh {}: {}",
            words.join(" "),
            errors.trim()
        );
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((text, errors.trim().to_owned()))
    }

    /// Manifests of the dumps of a prefix, and their ids.
    pub(super) fn manifests(&self, prefix: &str, words: &[&str]) -> Result<Vec<(String, Value)>> {
        let ids = self.cdh(prefix, &[&["ls", "-o", "id"], words].concat())?;
        let read = |id: &str| {
            if let Some(known) = self.manifests.borrow().get(id) {
                return Ok((id.to_owned(), known.clone()));
            }
            let text = self.cdh(prefix, &["info", id, "-o", "json"])?;
            let mut document: Value = serde_json::from_str(&text)?;
            let manifest = document["manifest"].take();
            let mut known = self.manifests.borrow_mut();
            known.insert(id.to_owned(), manifest.clone());
            Ok((id.to_owned(), manifest))
        };
        ids.lines().map(read).collect()
    }

    /// A container of the test program: its word, its note, and its number.
    pub(super) fn container(&self, name: &str, word: &str, note: &str, number: usize) -> Value {
        json!({
            "name": name, "image": self.images.app,
            "command": [PROGRAM, word, note, number.to_string()],
        })
    }

    /// A pod of one container, `main`, that is not started again.
    pub(super) fn pod(&self, name: &str, word: &str, number: usize) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name, "tier": "test"}},
            "spec": {
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": false,
                "containers": [self.container("main", word, name, number)],
            },
        })
    }

    /// Waits until a container of the programs has written a line, and returns all it wrote.
    pub(super) fn wait_for_line(&self, pod: &str, line: &str) -> Result<String> {
        wait(&format!("`{line}` of the pod {pod}"), || {
            let text = pod_log(NAMESPACE, pod);
            text.lines()
                .any(|found| found.contains(line))
                .then_some(text)
        })
    }
}

/// What the containers of a pod wrote, of all its restarts, as the node has it. The name may be a prefix.
pub(super) fn pod_log(namespace: &str, pod: &str) -> String {
    let prefix = format!("{namespace}_{pod}");
    let inside = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let mut text = String::new();
    for pod in inside(Path::new("/var/log/pods")) {
        let name = pod
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with(&prefix) {
            for file in inside(&pod).iter().flat_map(|container| inside(container)) {
                text.push_str(&fs::read_to_string(file).unwrap_or_default());
            }
        }
    }
    text
}

/// Processes of the node that run the test program with this word and note, oldest first.
pub(super) fn processes_of(note: &str) -> Vec<u32> {
    let is_it = |process: &u32| {
        machine::executable(*process) == PROGRAM
            && machine::command_line(*process)
                .get(2)
                .is_some_and(|word| word == note)
    };
    let mut found: Vec<u32> = machine::processes().into_iter().filter(is_it).collect();
    found.sort_unstable();
    found
}

/// Sends a signal to a process of the node.
pub(super) fn signal(process: u32, name: &str) -> Result<()> {
    succeed(Command::new("kill").args(["-s", name, &process.to_string()]))?;
    Ok(())
}

/// Waits until there is a value.
pub(super) fn wait<T>(what: &str, found: impl FnMut() -> Option<T>) -> Result<T> {
    wait_for(PATIENCE, what, found)
}

/// Waits until there is a value, for so long at most.
pub(super) fn wait_for<T>(
    patience: Duration,
    what: &str,
    mut found: impl FnMut() -> Option<T>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(value) = found() {
            return Ok(value);
        }
        if begun.elapsed() > patience {
            bail!("waited {} s in vain for {what}", patience.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Runs a command and insists on success; its standard output.
pub(super) fn succeed(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let words: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        words.join(" "),
        errors.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
