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

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
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
pub(crate) fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .arg("-vV")
        .output()
        .context("cannot run rustc")?;
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("`rustc -vV` names no host")?.to_owned())
}

/// The handler that `CDH_TEST_HANDLER` names, else one that is built as a static binary. At a fixed address, for relocating itself cost 0.3 ms of
/// the time in which the process may still be lost. A target is named so that its flags do not reach build
/// scripts and macros, which cannot be static.
pub(crate) fn handler() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("CDH_TEST_HANDLER") {
        return Ok(given.into());
    }
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

/// How much time the compiler takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Optimized {
    /// For use.
    Fully,
    /// For a test.
    Hardly,
}

/// Builds `cdh` as a static binary, which needs nothing of the image or host that it runs in.
pub(crate) fn static_cdh(optimized: Optimized) -> Result<PathBuf> {
    let host = host()?;
    let (profile, directory) = match optimized {
        Optimized::Fully => ("release", "release"),
        Optimized::Hardly => ("dev", "debug"),
    };
    let mut build = cargo();
    build.args(["build", "--quiet", "--profile", profile, "-p", "cdh"]);
    build.args(["--bin", "cdh", "--target", &host]);
    succeed(build.env(
        "RUSTFLAGS",
        "-C target-feature=+crt-static -C relocation-model=static",
    ))?;
    Ok(target().join(host).join(directory).join("cdh"))
}

/// Builds `cdh` and tells where it is.
pub(crate) fn cdh() -> Result<PathBuf> {
    succeed(cargo().args(["build", "--quiet", "-p", "cdh"]))?;
    Ok(target().join("debug").join("cdh"))
}

/// Builds `cdh` as users have it, the static binary of the image, and tells where it is.
pub(crate) fn cdh_release() -> Result<PathBuf> {
    match std::env::var_os("CDH_BENCH_CDH") {
        Some(built) => Ok(PathBuf::from(built)),
        None => static_cdh(Optimized::Fully),
    }
}

/// Runs the tests of the store that take a server, with the one on this port.
pub(crate) fn store_tests(port: u16) -> Result<()> {
    let mut test = cargo();
    test.args(["test", "-p", "cdh-store", "--test", "store", "s3::"]);
    succeed(test.env("CDH_TEST_S3_PORT", port.to_string()))
}

/// Runs all tests of the workspace with the static handler at hand.
pub(crate) fn test(arguments: &[String]) -> Result<()> {
    let handler = handler()?;
    let mut test = cargo();
    test.args(["test", "--workspace"]).args(arguments);
    if let Some(weed) = crate::python::weed() {
        test.env("CDH_TEST_WEED", weed);
    }
    if let Some(packages) = crate::python::prometheus() {
        test.env("CDH_TEST_PROMETHEUS", packages);
    }
    succeed(test.env("CDH_TEST_HANDLER", handler))
}
