//! The programs of a release: static, and the same bytes wherever the same commit is built with the same tools.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Release;
use crate::targets::Target;
use crate::{build, progress};

/// `cdh` and `cdh-handler` of a target.
pub(super) struct Programs {
    /// The command line and the agent.
    pub(super) cdh: PathBuf,
    /// What the kernel starts.
    pub(super) handler: PathBuf,
}

/// Builds both.
pub(super) fn build(release: &Release, target: &Target) -> Result<Programs> {
    let handler = ["-p", "cdh-agent", "--bin", "cdh-handler"];
    Ok(Programs {
        cdh: program(release, target, "release", &["-p", "cdh", "--bin", "cdh"])?,
        handler: program(release, target, "handler", &handler)?,
    })
}

fn program(release: &Release, target: &Target, profile: &str, words: &[&str]) -> Result<PathBuf> {
    let (triple, name) = (target.triple, words.last().copied().unwrap_or_default());
    let mut cargo = build::cargo();
    cargo.args(["build", "--locked", "--profile", profile]);
    target.choose(&mut cargo)?;
    cargo.args(words);
    let prefixes = prefixes(target)?;
    let compiler = target.compiler()?;
    let mut flags = vec![
        "-Ctarget-feature=+crt-static".to_owned(),
        "-Crelocation-model=static".to_owned(),
        format!("-Clinker={compiler}"),
    ];
    let mut of_c = Vec::new();
    for (from, to) in &prefixes {
        let from = from.display();
        flags.push(format!("--remap-path-prefix={from}={to}"));
        of_c.push(format!("-ffile-prefix-map={from}={to}"));
    }
    let under = triple.replace('-', "_");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    cargo.env(format!("CFLAGS_{under}"), of_c.join(" "));
    cargo.env(format!("CC_{under}"), &compiler);
    cargo.env("CDH_COMMIT", &release.commit);
    cargo.env("SOURCE_DATE_EPOCH", &release.epoch);
    cargo.env("CARGO_INCREMENTAL", "0");
    progress::cargo(&mut cargo, &format!("building {name} for {triple}"))?;
    let directory = build::target().join(triple).join(profile);
    Ok(directory.join(name))
}

/// Directories of this machine, and their names in the programs. Of two that match, the last one is used.
fn prefixes(target: &Target) -> Result<Vec<(PathBuf, &'static str)>> {
    let home = std::env::var_os("HOME").unwrap_or_default();
    let cargo = std::env::var_os("CARGO_HOME")
        .map_or_else(|| Path::new(&home).join(".cargo"), PathBuf::from);
    let rustc = target.rustc()?;
    let output = Command::new(rustc).args(["--print", "sysroot"]).output();
    let sysroot = output.context("cannot run rustc")?.stdout;
    let sysroot = String::from_utf8(sysroot)?;
    Ok(vec![
        (PathBuf::from(sysroot.trim()), "/rust"),
        (cargo, "/cargo"),
        (build::root().to_owned(), "/cdh"),
        (build::target(), "/target"),
    ])
}
