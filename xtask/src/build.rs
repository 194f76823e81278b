//! Calls cargo.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress;
use crate::targets::Target;

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

/// Runs a command and insists on success. A sign of life names its program.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    progress::succeed(command, &format!("running {program}"))
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

/// The handler that `CDH_TEST_HANDLER` names, or a static one that is built now. It has a fixed address: to
/// relocate itself would cost 0.3 ms of the time in which the process may still be lost. The target is named
/// so that its flags do not reach build scripts and macros, which cannot be static.
pub(crate) fn handler() -> Result<PathBuf> {
    match std::env::var_os("CDH_TEST_HANDLER") {
        Some(given) => Ok(given.into()),
        None => handler_for(Target::of_host()?),
    }
}

/// A static handler for a target, built now.
pub(crate) fn handler_for(target: &Target) -> Result<PathBuf> {
    let words = ["-p", "cdh-agent", "--bin", "cdh-handler"];
    static_program(target, "handler", "handler", &words)
}

/// How much time the compiler takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Optimized {
    /// For use.
    Fully,
    /// For a test.
    Hardly,
}

/// The `cdh` that `CDH_TEST_CDH` names, or one that is built now: a static binary, which needs nothing of the image
/// or host that it runs in.
pub(crate) fn static_cdh(optimized: Optimized) -> Result<PathBuf> {
    match std::env::var_os("CDH_TEST_CDH") {
        Some(given) => Ok(given.into()),
        None => static_cdh_for(Target::of_host()?, optimized),
    }
}

/// A static `cdh` for a target, built now.
pub(crate) fn static_cdh_for(target: &Target, optimized: Optimized) -> Result<PathBuf> {
    let (profile, directory) = match optimized {
        Optimized::Fully => ("release", "release"),
        Optimized::Hardly => ("dev", "debug"),
    };
    static_program(target, profile, directory, &["-p", "cdh", "--bin", "cdh"])
}

/// Builds a program as a static binary; the last word is its name.
fn static_program(
    target: &Target,
    profile: &str,
    directory: &str,
    words: &[&str],
) -> Result<PathBuf> {
    let (triple, name) = (target.triple, words.last().copied().unwrap_or_default());
    let mut build = cargo();
    build.args(["build", "--profile", profile]).args(words);
    target.choose(&mut build)?;
    build.env(
        "RUSTFLAGS",
        "-C target-feature=+crt-static -C relocation-model=static",
    );
    progress::cargo(&mut build, &format!("building the static {name}"))?;
    Ok(self::target().join(triple).join(directory).join(name))
}

/// Builds `cdh` and returns its path.
pub(crate) fn cdh() -> Result<PathBuf> {
    progress::cargo(cargo().args(["build", "-p", "cdh"]), "building cdh")?;
    Ok(target().join("debug").join("cdh"))
}

/// Builds what the demo runs into `directory`: `cdh` without the client of buckets, and a handler that is
/// neither optimized nor static, from the packages that both share.
pub(crate) fn demo(directory: &Path) -> Result<()> {
    let mut build = cargo();
    build.args(["build", "-p", "cdh", "-p", "cdh-agent"]);
    build.args([
        "--no-default-features",
        "--bin",
        "cdh",
        "--bin",
        "cdh-handler",
    ]);
    // It is built once, for small dumps: neither incremental, nor for a debugger, nor optimized.
    build.env("CARGO_INCREMENTAL", "0");
    build.env("CARGO_PROFILE_DEV_DEBUG", "0");
    build.env("CARGO_PROFILE_DEV_OVERFLOW_CHECKS", "false");
    let manifest = std::fs::read_to_string(root().join("Cargo.toml"))?;
    let optimized = manifest.lines().filter_map(|line| {
        let name = line.strip_prefix("[profile.dev.package.")?;
        name.strip_suffix(']').filter(|name| !name.starts_with('"'))
    });
    for name in optimized {
        build.args([
            "--config",
            &format!("profile.dev.package.{name}.opt-level=0"),
        ]);
    }
    progress::cargo(&mut build, "building cdh and its handler")?;
    for name in ["cdh", "cdh-handler"] {
        // Moved: a `cdh` without buckets is not what others expect where cargo puts programs.
        let (built, kept) = (target().join("debug").join(name), directory.join(name));
        std::fs::rename(&built, &kept)
            .with_context(|| format!("cannot move {} to {}", built.display(), kept.display()))?;
    }
    Ok(())
}

/// Builds `cdh` as users have it, the static binary of the image, and returns its path.
#[cfg(feature = "bench")]
pub(crate) fn cdh_release() -> Result<PathBuf> {
    match std::env::var_os("CDH_BENCH_CDH") {
        Some(built) => Ok(PathBuf::from(built)),
        None => static_cdh(Optimized::Fully),
    }
}

/// Runs the tests of the store that take a server, with the one on this port.
#[cfg(feature = "bench")]
pub(crate) fn store_tests(port: u16) -> Result<()> {
    let mut test = cargo();
    test.args(["test", "-p", "cdh-store", "--test", "store", "s3::"]);
    test.env("CDH_TEST_S3_PORT", port.to_string());
    progress::succeed(&mut test, "testing the store")
}

/// A call of cargo in the root of the repository.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // `cargo run` describes xtask in these. ring's build script watches them: with them, everything above it
    // would be built again after each plain `cargo test`.
    let of_xtask =
        |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in names.filter(|name| of_xtask(name)) {
        command.env_remove(name);
    }
    command
}
