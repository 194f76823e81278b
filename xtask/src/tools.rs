//! Programs that tasks need: installed where that is possible, named where it is not.

use std::process::Command;

use anyhow::{Result, bail};

/// The Debian package of each program.
const PACKAGES: [(&str, &str); 14] = [
    ("cc", "gcc libc6-dev"),
    ("g++", "g++"),
    ("dwz", "dwz"),
    ("musl-gcc", "musl-tools"),
    ("xz", "xz-utils"),
    ("time", "time"),
    ("docker-registry", "docker-registry"),
    ("gdb", "gdb"),
    ("htpasswd", "apache2-utils"),
    ("openssl", "openssl"),
    ("skopeo", "skopeo"),
    ("tmux", "tmux"),
    ("unzip", "unzip"),
    ("zstd", "zstd"),
];

/// Installs packages that only some tests need, where that is possible.
///
/// # Errors
/// When one is not there afterwards; such a test is then skipped, and says so.
pub(crate) fn offer(packages: &[&str]) -> Result<()> {
    let is_installed = |package: &&str| {
        let query = Command::new("dpkg-query")
            .args(["-W", "-f=${db:Status-Status}", package])
            .output();
        query.is_ok_and(|output| output.stdout == b"installed") || is_there(package)
    };
    if packages.iter().all(is_installed) {
        return Ok(());
    }
    if is_root() && is_there("apt-get") {
        eprintln!("installing {}", packages.join(" "));
        let apt = |words: &[&str]| {
            let mut command = Command::new("apt-get");
            command.env("DEBIAN_FRONTEND", "noninteractive");
            command.args(["-o", "DPkg::Lock::Timeout=600"]).args(words);
            let output = command.output();
            output.is_ok_and(|output| output.status.success())
        };
        let install = [&["install", "-y", "--no-install-recommends"], packages].concat();
        if apt(&install) || (apt(&["update"]) && apt(&install)) {
            return Ok(());
        }
    }
    bail!("run `sudo apt install {}`", packages.join(" "))
}

/// Makes sure that all of `programs` are there.
pub(crate) fn require(programs: &[&str]) -> Result<()> {
    let missing: Vec<&str> = programs
        .iter()
        .copied()
        .filter(|program| !is_there(program))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = PACKAGES
        .iter()
        .filter(|(program, _)| missing.contains(program))
        .flat_map(|(_, packages)| packages.split(' '))
        .collect();
    if is_root() && is_there("apt-get") && apt(&packages).is_ok() {
        return Ok(());
    }
    bail!(
        "{} missing: run `sudo apt install {}`",
        missing.join(", "),
        packages.join(" ")
    )
}

/// Installs Debian packages.
pub(crate) fn apt(packages: &[&str]) -> Result<()> {
    eprintln!("installing {}", packages.join(" "));
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(words);
        command
            .stdout(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let install = [&["install", "-y", "--no-install-recommends"], packages].concat();
    if apt(&install) || (apt(&["update"]) && apt(&install)) {
        return Ok(());
    }
    bail!("apt-get cannot install {}", packages.join(" "))
}

/// Installs what of `programs` can be had; tests leave out what they lack, and say so.
pub(crate) fn wish(programs: &[&str]) {
    for program in programs {
        if let Err(error) = require(&[program]) {
            eprintln!("some tests are left out: {error}");
        }
    }
}

pub(crate) fn is_there(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|directory| directory.join(program).is_file())
}

pub(crate) fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
