//! Calls cargo.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a command and insists on success.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command
        .status()
        .with_context(|| format!("cannot run {shown}"))?;
    if status.success() {
        Ok(())
    } else {
        bail!("{shown} failed: {status}")
    }
}

/// The machine's own target triple.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .arg("-vV")
        .output()
        .context("cannot run rustc")?;
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("`rustc -vV` names no host")?.to_owned())
}

/// Builds the handler as a static binary. At a fixed address, for relocating itself cost 0.3 ms of
/// the time in which the process may still be lost. A target is named so that its flags do not reach build
/// scripts and macros, which cannot be static.
pub(crate) fn handler() -> Result<PathBuf> {
    let host = host()?;
    let mut build = cargo();
    build.args([
        "build",
        "--quiet",
        "--profile",
        "handler",
        "-p",
        "cdh-agent",
    ]);
    build.args(["--bin", "cdh-handler", "--target", &host]);
    succeed(build.env(
        "RUSTFLAGS",
        "-C target-feature=+crt-static -C relocation-model=static",
    ))?;
    Ok(target().join(host).join("handler").join("cdh-handler"))
}

/// Builds `cdh` and tells where it is.
pub(crate) fn cdh() -> Result<PathBuf> {
    succeed(cargo().args(["build", "--quiet", "-p", "cdh"]))?;
    Ok(target().join("debug").join("cdh"))
}

/// Builds `cdh` as it is released and tells where it is.
pub(crate) fn cdh_release() -> Result<PathBuf> {
    succeed(cargo().args(["build", "--quiet", "--release", "-p", "cdh"]))?;
    Ok(target().join("release").join("cdh"))
}

/// Runs all tests of the workspace with the static handler at hand.
pub(crate) fn test(arguments: &[String]) -> Result<()> {
    let handler = handler()?;
    let mut test = cargo();
    test.args(["test", "--workspace"]).args(arguments);
    succeed(test.env("CDH_TEST_HANDLER", handler))
}
