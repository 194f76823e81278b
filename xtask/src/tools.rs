//! Programs that tasks need: installed where that is possible, named where it is not.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

use crate::progress;

/// The Debian package of each program.
const PACKAGES: [(&str, &str); 19] = [
    ("bzip2", "bzip2"),
    ("cc", "gcc libc6-dev"),
    ("dpkg-deb", "dpkg"),
    ("rpmbuild", "rpm"),
    ("ssh-keygen", "openssh-client"),
    ("g++", "g++"),
    ("dwz", "dwz"),
    ("musl-gcc", "musl-tools"),
    ("xz", "xz-utils"),
    ("time", "time"),
    ("docker-registry", "docker-registry"),
    // Without the debug information of libc, gdb guesses at some frames below it.
    ("gdb", "gdb libc6-dbg"),
    ("htpasswd", "apache2-utils"),
    ("kill", "procps"),
    ("openssl", "openssl"),
    ("skopeo", "skopeo"),
    ("tmux", "tmux"),
    ("unzip", "unzip"),
    ("zstd", "zstd"),
];

/// Whether [`apt`] becomes root with sudo.
static USES_SUDO: AtomicBool = AtomicBool::new(false);

/// From now on users other than root install with sudo.
pub(crate) fn install_with_sudo() {
    USES_SUDO.store(!is_root(), Ordering::Relaxed);
}

/// Installs packages that only some tests need, where that is possible.
///
/// # Errors
/// When one is not there afterwards; such a test is then skipped, and says so.
pub(crate) fn offer(packages: &[&str]) -> Result<()> {
    let missing = not_installed(packages);
    if missing.is_empty() {
        return Ok(());
    }
    apt(&missing)
}

/// Those of `packages` that are not installed, and have no program of their name.
pub(crate) fn not_installed<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let is_installed = |package: &&&str| {
        let query = Command::new("dpkg-query")
            .args(["-W", "-f=${db:Status-Status}", package])
            .output();
        query.is_ok_and(|output| output.stdout == b"installed") || is_there(package)
    };
    let missing = packages.iter().filter(|package| !is_installed(package));
    missing.copied().collect()
}

/// Makes sure that all of `programs` are there.
pub(crate) fn require(programs: &[&'static str]) -> Result<()> {
    let missing = missing(programs);
    if missing.is_empty() {
        return Ok(());
    }
    apt(&packages_of(&missing)).with_context(|| format!("{} missing", missing.join(", ")))
}

/// Those of `programs` that are not there.
pub(crate) fn missing(programs: &[&'static str]) -> Vec<&'static str> {
    let missing = programs.iter().filter(|program| !is_there(program));
    missing.copied().collect()
}

/// The Debian packages that bring these programs.
pub(crate) fn packages_of(programs: &[&str]) -> Vec<&'static str> {
    PACKAGES
        .iter()
        .filter(|(program, _)| programs.contains(program))
        .flat_map(|(_, packages)| packages.split(' '))
        .collect()
}

/// Installs Debian packages as root or with sudo; otherwise the error says how to install them.
pub(crate) fn apt(packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    let uses_sudo = USES_SUDO.load(Ordering::Relaxed);
    if !(uses_sudo || is_root()) || !is_there("apt-get") {
        bail!("run `sudo apt install {names}`");
    }
    eprintln!("installing with apt-get, which takes about 30 s: {names}");
    let apt = |words: &[&str]| {
        let mut command = Command::new(if uses_sudo { "sudo" } else { "env" });
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        command.args(["-o", "DPkg::Lock::Timeout=600"]).args(words);
        progress::succeed(&mut command, "installing with apt-get")
    };
    let install = [&["install", "-y", "--no-install-recommends"], packages].concat();
    // The package lists may be old, or not there at all.
    if apt(&install).is_ok() || (apt(&["update"]).is_ok() && apt(&install).is_ok()) {
        return Ok(());
    }
    bail!("apt-get cannot install {names}")
}

/// Installs those of `programs` that are available. Tests that need another one skip and report that.
pub(crate) fn wish(programs: &[&'static str]) {
    let missing = missing(programs);
    if missing.is_empty() || apt(&packages_of(&missing)).is_ok() {
        return;
    }
    // One of them may have no package here.
    for program in missing {
        if let Err(error) = require(&[program]) {
            eprintln!("some tests are left out: {error:#}");
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
