//! Everything that a release publishes, in one directory: archives, packages, image, chart, install script, krew
//! manifest, bills of materials, checksums and their signature.
//!
//! ```text
//! commit ─▶ static programs ─▶ tar.gz, deb, rpm, image index, SBOM ─▶ SHA256SUMS ─▶ SHA256SUMS.sig
//! ```
//!
//! Invariant: the same commit, built with the same tools, makes the same bytes. It publishes nothing.

mod checksums;
mod packages;
mod programs;
mod publish;
mod sbom;
#[cfg(test)]
mod scripts_tests;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::image::{self, Variant};
use crate::options::Options;
use crate::progress::Steps;
use crate::targets::{TARGETS, Target};
use crate::{build, tools};
use programs::Programs;

const USAGE: &str = "\
usage: cargo xtask dist [OPTION]…
       cargo xtask dist --verify DIR [--signers FILE]
  builds everything that a release publishes
  --out DIR          where to put it (default target/dist)
  --target TRIPLE    build this target; may be repeated (default: all that this machine can build)
  --url URL          where the files will be downloaded from: for install.sh, packages, and the krew manifest
  --tag TAG          insist that the version is that of the tag, and that CHANGELOG.md has a section of it
  --sign KEY         sign SHA256SUMS with a private key of OpenSSH
  --allow-dirty      build although there are changes that are not committed
  --verify DIR       compare the files of a release with SHA256SUMS
  --signers FILE     also check the signature, against this file of allowed signers (ssh-keygen(1))";

/// A release that is being made.
#[derive(Debug)]
struct Release {
    version: String,
    /// The commit, with `-dirty` if there are changes.
    commit: String,
    /// Time of the commit, in seconds since 1970: that of all files.
    epoch: String,
    /// The same in RFC 3339.
    time: String,
    /// `NAME <ADDRESS>`, who made the commit.
    maintainer: String,
    url: Option<String>,
    out: PathBuf,
}

impl Release {
    fn archive(&self, target: &Target) -> String {
        format!("cdh-{}-{}.tar.gz", self.version, target.triple)
    }

    #[cfg(test)]
    fn sample(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            commit: "0123456789ab".to_owned(),
            epoch: "1700000000".to_owned(),
            time: "2023-11-14T22:13:20Z".to_owned(),
            maintainer: "A <a@example.com>".to_owned(),
            url: None,
            out: PathBuf::new(),
        }
    }
}

/// Makes a release, or verifies one.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let named = [
        "--out",
        "--target",
        "--url",
        "--tag",
        "--sign",
        "--verify",
        "--signers",
    ];
    let options = Options::parse(words, &named, &["--allow-dirty"], USAGE)?;
    if let Some(directory) = options.text("--verify") {
        let files = checksums::verify(
            Path::new(directory),
            options.text("--signers").map(Path::new),
        )?;
        println!("{files} files match SHA256SUMS");
        return Ok(());
    }
    tools::require(&["cc", "dpkg-deb", "rpmbuild", "ssh-keygen"])?;
    let release = release(&options)?;
    if let Some(tag) = options.text("--tag") {
        check_tag(
            tag,
            &release.version,
            &fs::read_to_string(build::root().join("CHANGELOG.md"))?,
        )?;
    }
    let targets = chosen(&options.all("--target"))?;
    let mut steps = Steps::new(targets.len() + 2);
    let mut built = Vec::new();
    for target in targets {
        steps.begin(&format!("{}: programs and packages", target.triple));
        let programs = programs::build(&release, target)?;
        of_target(&release, target, &programs)?;
        built.push((target, programs));
    }
    steps.begin("image index, chart, install script and krew manifest");
    of_all(&release, &built)?;
    steps.begin("checksums");
    checksums::write(&release.out)?;
    match options.text("--sign") {
        Some(key) => checksums::sign(&release.out, Path::new(key))?,
        None => println!("not signed: `--sign KEY` signs {}", checksums::SUMS),
    }
    print!("{}", fs::read_to_string(release.out.join(checksums::SUMS))?);
    println!(
        "release {} of commit {} is in {}",
        release.version,
        release.commit,
        release.out.display()
    );
    Ok(())
}

fn release(options: &Options) -> Result<Release> {
    let git = |words: &[&str]| -> Result<String> {
        let output = Command::new("git")
            .current_dir(build::root())
            .args(words)
            .output();
        let output = output.context("cannot run git")?;
        ensure!(
            output.status.success(),
            "git: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let mut commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changes = git(&["status", "--porcelain"])?;
    if !changes.is_empty() {
        ensure!(
            options.has("--allow-dirty"),
            "changes are not committed; `--allow-dirty` builds them:\n{changes}"
        );
        commit.push_str("-dirty");
    }
    let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(given) => given,
        Err(_) => git(&["log", "-1", "--format=%ct"])?,
    };
    let mut date = Command::new("date");
    date.args([
        "--utc",
        "--date",
        &format!("@{epoch}"),
        "+%Y-%m-%dT%H:%M:%SZ",
    ]);
    let time = date.output().context("cannot run date")?;
    ensure!(
        time.status.success(),
        "`{epoch}` is not a time in seconds since 1970"
    );
    let out = options
        .text("--out")
        .map_or_else(|| build::target().join("dist"), PathBuf::from);
    Ok(Release {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit,
        time: String::from_utf8(time.stdout)?.trim().to_owned(),
        epoch,
        maintainer: git(&["log", "-1", "--format=%cn <%ce>"])?,
        url: options
            .text("--url")
            .map(|url| url.trim_end_matches('/').to_owned()),
        out: empty(out)?,
    })
}

/// An empty directory. One that holds an older release is emptied, one that holds anything else is refused.
fn empty(directory: PathBuf) -> Result<PathBuf> {
    let shown = directory.display();
    let is_empty = |path: &Path| {
        path.read_dir()
            .is_ok_and(|mut items| items.next().is_none())
    };
    if directory.exists() && !is_empty(&directory) {
        ensure!(
            directory.join(checksums::SUMS).is_file(),
            "{shown} holds something else than a release"
        );
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {shown}"))?;
    Ok(std::path::absolute(&directory)?)
}

/// Whether a tag and the changelog are those of the version.
fn check_tag(tag: &str, version: &str, changelog: &str) -> Result<()> {
    ensure!(
        tag == format!("v{version}"),
        "the tag is {tag}, the version of the workspace {version}"
    );
    let heading = format!("## {version}");
    let is_heading = |line: &str| {
        let rest = line.strip_prefix(&heading);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    ensure!(
        changelog.lines().any(is_heading),
        "CHANGELOG.md has no section `{heading}`"
    );
    Ok(())
}

/// The targets that were named, or all that can be built here.
fn chosen(names: &[String]) -> Result<Vec<&'static Target>> {
    let mut chosen = Vec::new();
    for name in names {
        chosen.push(Target::buildable(name)?);
    }
    if names.is_empty() {
        for target in &TARGETS {
            match target.lacks()? {
                None => chosen.push(target),
                Some(what) => println!("SKIPPED: {}: {what} is missing", target.triple),
            }
        }
    }
    ensure!(!chosen.is_empty(), "no supported target can be built here");
    Ok(chosen)
}

fn of_target(release: &Release, target: &Target, programs: &Programs) -> Result<()> {
    archive(release, target, programs)?;
    packages::deb(release, target, programs)?;
    packages::rpm(release, target, programs)?;
    let name = format!("cdh-{}-{}.cdx.json", release.version, target.triple);
    sbom::write(release, target, &programs.cdh, &release.out.join(name))
}

/// `cdh-<version>-<target>.tar.gz`, to be unpacked below a prefix.
fn archive(release: &Release, target: &Target, programs: &Programs) -> Result<()> {
    let archive = release.archive(target);
    let work = tempfile::tempdir()?;
    let name = archive.trim_end_matches(".tar.gz");
    let (root, zsh) = (work.path().join(name), "share/zsh/site-functions/_cdh");
    tree::prefix(&root, programs, tree::ManPages::Plain, zsh)?;
    tree::tar(release, work.path(), name, &release.out.join(&archive))
}

fn of_all(release: &Release, built: &[(&'static Target, Programs)]) -> Result<()> {
    let variants = built.iter().map(|(target, programs)| Variant {
        architecture: target.oci,
        cdh: &programs.cdh,
        handler: &programs.handler,
    });
    let work = tempfile::tempdir()?;
    let layout = work.path().join("image");
    image::index(
        &variants.collect::<Vec<_>>(),
        &release.epoch,
        &release.version,
        &layout,
    )?;
    let archive = format!("cdh-{}-image.tar", release.version);
    tree::tar(release, &layout, ".", &release.out.join(archive))?;
    publish::chart(release)?;
    publish::install_script(release)?;
    let targets: Vec<&Target> = built.iter().map(|(target, _)| *target).collect();
    match &release.url {
        Some(url) => publish::krew(release, url, &targets),
        None => {
            println!("SKIPPED: the krew manifest needs the address of the release: `--url URL`");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_must_be_the_version_and_have_a_section_in_the_changelog() {
        let changelog = "# Changelog\n\n## Unreleased\n\n## 1.2.0 - 2026-11-28\n\n## 1.1.0\n";
        check_tag("v1.2.0", "1.2.0", changelog).unwrap();
        check_tag("v1.1.0", "1.1.0", changelog).unwrap();
        assert!(check_tag("v1.2.1", "1.2.0", changelog).is_err());
        assert!(check_tag("v1.2", "1.2", changelog).is_err());
    }

    #[test]
    fn directory_of_something_else_is_not_emptied() {
        let directory = tempfile::tempdir().unwrap();
        let path = || directory.path().join("dist");
        fs::create_dir(path()).unwrap();
        fs::write(path().join("thesis.txt"), "x").unwrap();
        assert!(empty(path()).is_err() && path().join("thesis.txt").exists());
        fs::write(path().join(checksums::SUMS), "").unwrap();
        empty(path()).unwrap();
        assert!(path().read_dir().unwrap().next().is_none());
    }
}
