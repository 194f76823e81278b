//! Every way to leave a cluster: the node is what it was, and unshipped dumps are counted where an operator looks.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::cluster::{Cluster, NAMESPACE, wait};
use super::machine::NODE_STATE;
use super::release::{Mode, Release};
use super::report::Report;

/// Crashes whose dumps cannot be shipped, where the store is down.
const UNSHIPPED: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Live,
    Killed,
    Deleted,
    StoreDown,
    Kustomize,
}

const WAYS: [(Way, &str); 5] = [
    (Way::Live, "live"),
    (Way::Killed, "agent killed"),
    (Way::Deleted, "pod force-deleted"),
    (Way::StoreDown, "store down"),
    (Way::Kustomize, "kustomize"),
];

/// Runs them. Each installs for itself. They are short, so that all of a mode hold the lock once.
pub(super) fn run(
    cluster: &mut Cluster,
    mode: Mode,
    only: &[String],
    report: &mut Report,
) -> Result<()> {
    let group = format!("uninstall, {}", mode.name());
    cluster.guardian = Some(cluster.lock_settings()?);
    for (way, name) in super::wanted_checks(&WAYS, only) {
        // kustomize has full mode only.
        if way != Way::Kustomize || mode == Mode::Full {
            report.check(&group, name, || leave(cluster, mode, way));
            let _ = cluster.kubectl(&["delete", "pods", "--all", "--namespace", NAMESPACE]);
        }
    }
    cluster.guardian = None;
    Ok(())
}

fn leave(cluster: &mut Cluster, mode: Mode, way: Way) -> Result<String> {
    let prefix = format!("leave-{way:?}").to_lowercase();
    let release = match way {
        Way::Kustomize => {
            let release = Release::prepare(cluster, mode, &prefix)?;
            kustomize(&release)?;
            release
        }
        _ => Release::install(cluster, mode, &prefix, &[])?,
    };
    if way == Way::StoreDown {
        release.cluster.store.kill();
    }
    let outcome = leave_installed(&release, way);
    if way == Way::StoreDown {
        release.cluster.store.restart();
    }
    outcome
}

fn leave_installed(release: &Release<'_>, way: Way) -> Result<String> {
    let unshipped = match way {
        Way::StoreDown => UNSHIPPED,
        _ => 0,
    };
    for number in 0..unshipped.max(1) {
        let pod = format!("leaving-{number}");
        release
            .cluster
            .apply(&release.cluster.pod(&pod, "bug", number))?;
    }
    if unshipped == 0 {
        wait("the dump in the store", || {
            let ids = release
                .cluster
                .cdh(&release.prefix, &["ls", "-o", "id"])
                .ok()?;
            (!ids.is_empty()).then_some(())
        })?;
        // The shipper deletes a dump from the spool after it is in the store.
        wait("the empty spool", || (sealed() == 0).then_some(()))?;
    } else {
        wait("the dumps in the spool", || {
            (sealed() == unshipped).then_some(())
        })?;
    }
    match way {
        Way::Killed => super::cluster::signal(release.agent_process()?, "KILL")?,
        Way::Deleted => {
            let pod = release.agent_pod()?;
            release.in_namespace(&["delete", "pod", &pod, "--force", "--grace-period=0"])?;
        }
        _ => {}
    }
    let shown = match way {
        Way::Kustomize => leave_kustomize(release)?,
        _ => release.uninstall()?,
    };
    let left = release.leftovers()?;
    ensure!(left.wrong.is_empty(), "{}", left.wrong.join("; "));
    ensure!(
        left.dumps == unshipped,
        "{} dumps are in the spool instead of {unshipped}",
        left.dumps
    );
    if unshipped == 0 {
        return Ok("settings restored, nothing left".to_owned());
    }
    let count = format!("not shipped: {unshipped} dumps");
    let line = shown.lines().find(|line| line.contains(&count));
    let line = line.with_context(|| format!("helm does not print `{count}`: {shown}"))?;
    Ok(format!(
        "settings restored, {unshipped} dumps remain with {:?}, shown as {line:?}",
        left.beside
    ))
}

/// Sealed dumps in the node's spool.
fn sealed() -> usize {
    let entries = fs::read_dir(Path::new(NODE_STATE).join("spool"));
    let names = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name());
    names.filter(|name| name.len() == 36).count()
}

/// Installs as docs/install.md says: image and store are named in their files.
fn kustomize(release: &Release<'_>) -> Result<()> {
    let base = release.chart().with_file_name("kustomize");
    let images = &release.cluster.images;
    let image = base.join("image/kustomization.yaml");
    let text = fs::read_to_string(&image)?
        .replace(
            "newName: cdh",
            &format!("newName: {}/cdh", images.address()),
        )
        .replace("newTag: 0.1.0", &format!("digest: {}", images.cdh_digest));
    fs::write(&image, text)?;
    let store = format!(
        "store = \"{}\"\n",
        release.cluster.store_url(&release.prefix)
    );
    fs::write(base.join("agent/config.toml"), store)?;
    let agent = base.join("agent").display().to_string();
    release.cluster.kubectl(&["apply", "-k", &agent])?;
    release.wait_until_ready()
}

/// Uninstalls as docs/install.md says; the namespace goes when the release is dropped.
fn leave_kustomize(release: &Release<'_>) -> Result<String> {
    let base = release.chart().with_file_name("kustomize");
    let [agent, cleanup] = ["agent", "cleanup"].map(|name| base.join(name).display().to_string());
    release.cluster.kubectl(&["delete", "-k", &agent])?;
    release.cluster.kubectl(&["apply", "-k", &cleanup])?;
    let job = "job/cdh-cleanup";
    release.in_namespace(&["wait", "--for=condition=complete", "--timeout=120s", job])?;
    let text = release.in_namespace(&["logs", job])?;
    release.cluster.kubectl(&["delete", "-k", &cleanup])?;
    Ok(text)
}
