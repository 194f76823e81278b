//! `cargo xtask test-cluster`: cdh in a real Kubernetes of one node on this machine, from its installation to its
//! end. Everything is real: API server, RBAC, kubelet, containerd, registry, S3 server, Helm.
//!
//! It takes the lock of the kernel's core settings for each installation, and leaves the machine as it was.

// The harness is split so that each file has one job; `cluster` is what all of them look at.
#[allow(clippy::module_inception)]
mod cluster;
mod control_plane;
mod from_source;
mod images;
mod kills;
mod leaving;
mod machine;
mod permissions;
mod release;
mod report;
mod updates;
mod walk;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use cdh_testkit::S3Server;

use crate::build::{self, Optimized};
use crate::charts::ChartTools;
use crate::options::{Options, is_wanted};
use crate::{python, tools};
use cluster::Cluster;
use control_plane::ControlPlane;
use images::Images;
use release::Mode;
use report::Report;

/// The words after the task's name.
pub(crate) const USAGE: &str = "[--mode full|split] [--only GROUP]… [--check PART OF A CHECK'S NAME]… [--repeat N] \
     [--size MIB] [--dir DIR] [--kubernetes DIR] [--release] [--table FILE] [--down]";

const GROUPS: [&str; 5] = ["walk", "kills", "updates", "uninstall", "permissions"];

/// Runs the groups that are wanted, all of them by default.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let usage = format!(
        "usage: cargo xtask test-cluster {USAGE}\n  groups: {}",
        GROUPS.join(", ")
    );
    let named = [
        "--mode",
        "--only",
        "--check",
        "--repeat",
        "--size",
        "--dir",
        "--kubernetes",
        "--table",
    ];
    let options = Options::parse(words, &named, &["--release", "--down"], &usage)?;
    let directory = options
        .text("--dir")
        .map_or_else(|| build::target().join("test-cluster"), PathBuf::from);
    ensure!(tools::is_root(), "a cluster is root's: run it as root");
    if options.has("--down") {
        return control_plane::down(&directory);
    }
    let modes = match options.text("--mode") {
        None => vec![Mode::Full, Mode::Split],
        Some("full") => vec![Mode::Full],
        Some("split") => vec![Mode::Split],
        Some(other) => bail!("`{other}` is not a mode\n{usage}"),
    };
    let (groups, checks) = (options.all("--only"), options.all("--check"));
    let unknown = groups
        .iter()
        .find(|group| !GROUPS.iter().any(|known| known.contains(group.as_str())));
    ensure!(
        unknown.is_none(),
        "`{}` is not a group\n{usage}",
        unknown.map_or("", |name| name)
    );
    let (repeat, mebibytes) = (options.or("--repeat", 1)?, options.or("--size", 3072)?);
    tools::require(&["cc", "gdb", "openssl", "docker-registry", "kill"])?;
    tools::offer(&[
        "etcd-server",
        "containerd",
        "runc",
        "containernetworking-plugins",
        "iproute2",
        "curl",
    ])?;
    fs::create_dir_all(&directory)?;
    let programs = match options.text("--kubernetes") {
        Some(given) => PathBuf::from(given),
        None => from_source::build(&build::target().join("kubernetes"))?,
    };
    let optimized = match options.has("--release") {
        true => Optimized::Fully,
        false => Optimized::Hardly,
    };
    let mut report = Report::default();
    let mut cluster = start(directory.canonicalize()?, &programs, optimized)?;
    for mode in modes {
        for group in GROUPS.into_iter().filter(|group| is_wanted(group, &groups)) {
            let outcome = match group {
                "walk" => walk::run(&mut cluster, mode, &mut report),
                "kills" => kills::run(&mut cluster, mode, repeat, mebibytes, &checks, &mut report),
                "updates" => updates::run(&mut cluster, mode, &checks, &mut report),
                "uninstall" => leaving::run(&mut cluster, mode, &checks, &mut report),
                _ => permissions::run(&mut cluster, mode, &mut report),
            };
            // A group that cannot begin does not keep the others from it.
            if let Err(error) = outcome {
                report.check(group, mode.name(), || Err(error));
            }
        }
    }
    drop(cluster);
    let table = report.table();
    if let Some(path) = options.text("--table") {
        fs::write(path, &table).with_context(|| format!("cannot write {path}"))?;
    }
    println!("\n{table}");
    let (failed, all) = report.failed();
    ensure!(failed == 0, "{failed} of {all} checks failed");
    println!("all {all} checks passed");
    Ok(())
}

/// The checks of a group that are wanted, by the variants of an enum and their names.
fn wanted_checks<'t, T: Copy>(
    checks: &'t [(T, &'static str)],
    only: &'t [String],
) -> impl Iterator<Item = (T, &'static str)> + 't {
    let checks = checks.iter().copied();
    checks.filter(|(_, name)| is_wanted(name, only))
}

/// Builds what runs in it, and starts the cluster.
fn start(directory: PathBuf, programs: &Path, optimized: Optimized) -> Result<Cluster> {
    let clients = ChartTools::get()?;
    let cdh = build::static_cdh(optimized)?;
    let weed = python::weed().context("there is no S3 server")?;
    // A workstation without a cache: what an earlier run did not find is not remembered.
    let _ = fs::remove_dir_all(directory.join("home"));
    // containerd names an image by the registry that it first pulled the digest from, which an earlier run has ended.
    let _ = fs::remove_dir_all(directory.join("containerd"));
    println!("building images …");
    let images = Images::serve(&directory, optimized)?;
    trust(&directory, images.address())?;
    println!("starting Kubernetes in {} …", directory.display());
    let plane = ControlPlane::start(&directory, programs, &images.app)?;
    let address = machine::STORE_ADDRESS.parse()?;
    let cluster = Cluster {
        directory,
        kubectl: clients.kubectl,
        helm: clients.helm,
        cdh,
        plane,
        store: S3Server::start_program_at(weed, address),
        images,
        manifests: RefCell::default(),
        guardian: None,
    };
    cluster.prepare()?;
    Ok(cluster)
}

/// Allows the workstation to pull from the registry: cdh does not contact a registry that only a dump names.
fn trust(directory: &Path, registry: &str) -> Result<()> {
    let place = directory.join("home/.config/cdh");
    fs::create_dir_all(&place)?;
    let settings = format!("[images]\nregistries = [\"{registry}\"]\n");
    Ok(fs::write(place.join("config.toml"), settings)?)
}
