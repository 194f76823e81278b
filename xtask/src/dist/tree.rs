//! The files of a target below one prefix, and the archives that are made of them. GNU tar and gzip are called so that
//! the same files make the same bytes: sorted, owned by root, with the time of the commit.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::Release;
use super::programs::Programs;
use crate::build;

/// How man pages are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ManPages {
    /// As they are.
    Plain,
    /// As distributions have them.
    Compressed,
}

/// Copies a file of the repository or of the build; creates its directories.
pub(super) fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    write(to, &bytes, mode)
}

/// Writes a file; creates its directories.
pub(super) fn write(to: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let write = || -> Result<()> {
        for above in to.parent().into_iter() {
            fs::create_dir_all(above)?;
        }
        fs::write(to, bytes)?;
        Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
    };
    write().with_context(|| format!("cannot write {}", to.display()))
}

/// Where each kind of file is below a prefix (`/usr`, `/usr/local`).
pub(super) fn prefix(root: &Path, programs: &Programs, pages: ManPages, zsh: &str) -> Result<()> {
    copy(&programs.cdh, &root.join("bin/cdh"), 0o755)?;
    copy(
        &programs.handler,
        &root.join("libexec/cdh/cdh-handler"),
        0o755,
    )?;
    let source = build::root();
    for page in fs::read_dir(source.join("man"))? {
        let page = page?;
        let name = page.file_name();
        let section = Path::new(&name).extension().unwrap_or_default();
        let directory = format!("share/man/man{}", section.display());
        let to = root.join(directory).join(&name);
        copy(&page.path(), &to, 0o644)?;
        if pages == ManPages::Compressed {
            build::succeed(Command::new("gzip").args(["-9", "--no-name"]).arg(&to))?;
        }
    }
    for (from, to) in [
        (
            "completions/cdh.bash",
            "share/bash-completion/completions/cdh",
        ),
        (
            "completions/cdh.fish",
            "share/fish/vendor_completions.d/cdh.fish",
        ),
        ("completions/_cdh", zsh),
        ("README.md", "share/doc/cdh/README.md"),
        ("CHANGELOG.md", "share/doc/cdh/CHANGELOG.md"),
        ("LICENSE", "share/doc/cdh/copyright"),
        ("packaging/agent.toml", "share/doc/cdh/agent.toml"),
    ] {
        copy(&source.join(from), &root.join(to), 0o644)?;
    }
    Ok(())
}

/// The tree of a package, below `/`.
pub(super) fn package(root: &Path, programs: &Programs, zsh: &str) -> Result<()> {
    prefix(&root.join("usr"), programs, ManPages::Compressed, zsh)?;
    let source = build::root().join("packaging");
    for (from, to) in [
        ("agent.toml", "etc/cdh/agent.toml"),
        (
            "cdh-agent.service",
            "usr/lib/systemd/system/cdh-agent.service",
        ),
    ] {
        copy(&source.join(from), &root.join(to), 0o644)?;
    }
    Ok(())
}

/// A script or spec of a package, with the shell functions that it shares with others.
pub(super) fn script(name: &str) -> Result<String> {
    let read = |name: &str| {
        let path = build::root().join("packaging").join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    Ok(read(name)?.replace("@restore-node.sh@\n", &read("restore-node.sh")?))
}

/// Makes `archive` of `name` in `directory`; compresses it if its name ends in `gz`.
pub(super) fn tar(release: &Release, directory: &Path, name: &str, archive: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--format=ustar", "--sort=name", "--owner=0"]);
    tar.args(["--group=0", "--numeric-owner", "--mode=u+w,go-w,a+rX"]);
    tar.arg(format!("--mtime=@{}", release.epoch));
    tar.arg("--directory").arg(directory).arg(name);
    if archive
        .extension()
        .is_none_or(|end| end != "gz" && end != "tgz")
    {
        return build::succeed(tar.arg("--file").arg(archive));
    }
    let mut tar = tar
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run tar")?;
    let unpacked = tar.stdout.take().context("tar has an output")?;
    let mut gzip = Command::new("gzip");
    gzip.args(["-9", "--no-name"]).stdin(unpacked);
    gzip.stdout(fs::File::create(archive)?);
    let status = gzip.status().context("cannot run gzip")?;
    ensure!(
        tar.wait()?.success() && status.success(),
        "tar and gzip failed"
    );
    Ok(())
}
