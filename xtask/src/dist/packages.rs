//! Packages for Debian and for distributions with RPM, built by the tools of each, which know their formats.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::programs::Programs;
use super::{Release, tree};
use crate::build;
use crate::targets::Target;

/// A version as Debian and RPM sort it: `1.0.0-rc.1` is before `1.0.0`.
pub(super) fn package_version(version: &str) -> String {
    version.replacen('-', "~", 1)
}

/// `cdh_<version>_<architecture>.deb`.
pub(super) fn deb(release: &Release, target: &Target, programs: &Programs) -> Result<()> {
    let work = tempfile::tempdir()?;
    let root = work.path().join("root");
    tree::package(&root, programs, "share/zsh/vendor-completions/_cdh")?;
    let version = package_version(&release.version);
    let mut control = format!(
        "Package: cdh\nVersion: {version}\nArchitecture: {}\nMaintainer: {}\nSection: admin\nPriority: optional\n",
        target.deb, release.maintainer
    );
    // The debugger is needed on a workstation only.
    control.push_str("Suggests: gdb\n");
    if let Some(url) = &release.url {
        writeln!(control, "Homepage: {url}")?;
    }
    control.push_str(
        "Description: core dump handler for Kubernetes and hosts\n Captures core dumps, ships them to S3 or a \
         directory, and opens any of them\n as a symbolized backtrace or a debugger session with one command.\n",
    );
    let meta = root.join("DEBIAN");
    tree::write(&meta.join("control"), control.as_bytes(), 0o644)?;
    tree::write(&meta.join("conffiles"), b"/etc/cdh/agent.toml\n", 0o644)?;
    for name in ["postinst", "prerm", "postrm"] {
        let script = tree::script(&format!("deb/{name}"))?;
        tree::write(&meta.join(name), script.as_bytes(), 0o755)?;
    }
    // dpkg-deb takes modes of directories as they are, whatever the umask was.
    build::succeed(
        Command::new("chmod")
            .args(["-R", "u+w,go-w,a+rX"])
            .arg(&root),
    )?;
    let file = format!("cdh_{version}_{}.deb", target.deb);
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.args(["--root-owner-group", "-Zxz", "--build"])
        .arg(&root);
    dpkg.arg(release.out.join(file));
    // More threads make other bytes.
    dpkg.env("DPKG_DEB_THREADS_MAX", "1");
    build::succeed(dpkg.env("SOURCE_DATE_EPOCH", &release.epoch))
}

/// `cdh-<version>-1.<architecture>.rpm`.
pub(super) fn rpm(release: &Release, target: &Target, programs: &Programs) -> Result<()> {
    let work = tempfile::tempdir()?;
    let (root, top) = (work.path().join("root"), work.path().join("rpm"));
    tree::package(&root, programs, "share/zsh/site-functions/_cdh")?;
    let spec = work.path().join("cdh.spec");
    let text = tree::script("rpm/cdh.spec")?;
    // Times after the commit's would be the build's.
    let day = day(&release.epoch)?;
    let text = format!(
        "{text}\n%changelog\n* {day} {} - {}-1\n- See /usr/share/doc/cdh/CHANGELOG.md\n",
        release.maintainer,
        package_version(&release.version)
    );
    fs::write(&spec, text)?;
    let mut rpmbuild = Command::new("rpmbuild");
    rpmbuild.args([
        "-bb",
        "--quiet",
        "--target",
        &format!("{}-linux", target.rpm),
    ]);
    let version = package_version(&release.version);
    let mut definitions = vec![
        format!("_topdir {}", top.display()),
        format!("cdh_tree {}", root.display()),
        format!("cdh_version {version}"),
        "_buildhost localhost".to_owned(),
        "use_source_date_epoch_as_buildtime 1".to_owned(),
        "clamp_mtime_to_source_date_epoch 1".to_owned(),
        "source_date_epoch_from_changelog 0".to_owned(),
        // The programs stay as they were built.
        "debug_package %{nil}".to_owned(),
        "__os_install_post %{nil}".to_owned(),
        "_build_id_links none".to_owned(),
        // Every rpm since 2011 reads it.
        "_binary_payload w6.xzdio".to_owned(),
    ];
    definitions.extend(release.url.iter().map(|url| format!("cdh_url {url}")));
    for definition in &definitions {
        rpmbuild.args(["--define", definition]);
    }
    build::succeed(rpmbuild.arg(&spec).env("SOURCE_DATE_EPOCH", &release.epoch))?;
    let name = format!("cdh-{version}-1.{}.rpm", target.rpm);
    let built = top.join("RPMS").join(target.rpm).join(&name);
    copy_out(&built, &release.out.join(&name))
}

fn copy_out(built: &Path, to: &Path) -> Result<()> {
    fs::copy(built, to).with_context(|| format!("cannot copy {}", built.display()))?;
    Ok(())
}

/// A day as a spec's changelog has it: `Sat Nov 28 2026`.
fn day(epoch: &str) -> Result<String> {
    let mut date = Command::new("date");
    date.args(["--utc", "--date", &format!("@{epoch}"), "+%a %b %d %Y"]);
    let output = date
        .env("LC_ALL", "C")
        .output()
        .context("cannot run date")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prereleases_sort_before_the_release() {
        assert_eq!(package_version("1.0.0-rc.1"), "1.0.0~rc.1");
        assert_eq!(package_version("1.0.0"), "1.0.0");
    }

    #[test]
    fn changelog_day_is_in_utc() {
        assert_eq!(day("0").unwrap(), "Thu Jan 01 1970");
    }
}
