//! What other tools install from: the install script, the manifest of krew (`kubectl cdh`) and the chart.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Release, checksums, tree};
use crate::build;
use crate::charts::ChartTools;
use crate::targets::Target;

/// `install.sh` with the release's version and address.
pub(super) fn install_script(release: &Release) -> Result<()> {
    let text = tree::script("install.sh")?;
    let url = release.url.as_deref().unwrap_or_default();
    ensure!(
        !url.contains('\''),
        "invalid address `{url}`: it contains a quote"
    );
    let text = text
        .replace("@version@", &release.version)
        .replace("@url@", url);
    tree::write(&release.out.join("install.sh"), text.as_bytes(), 0o755)
}

/// `cdh.yaml`, the manifest of krew: the archives' addresses and sums.
pub(super) fn krew(release: &Release, url: &str, targets: &[&Target]) -> Result<()> {
    let mut sums = Vec::new();
    for target in targets {
        let archive = release.archive(target);
        sums.push((
            *target,
            archive.clone(),
            checksums::sha256(&release.out.join(archive))?,
        ));
    }
    let text = krew_manifest(&release.version, url, &sums);
    Ok(fs::write(release.out.join("cdh.yaml"), text)?)
}

fn krew_manifest(version: &str, url: &str, archives: &[(&Target, String, String)]) -> String {
    let mut text = format!(
        "apiVersion: krew.googlecontainertools.github.com/v1alpha2\nkind: Plugin\nmetadata:\n  name: cdh\nspec:\n  \
         version: v{version}\n  homepage: {url}\n  shortDescription: Explain core dumps of pods\n  description: |\n    \
         Lists the core dumps that the cdh agent captured in a cluster, prints their\n    backtraces, and starts a \
         debugger on them. The dumps are read from the store\n    (an S3 bucket), not from the cluster.\n  platforms:\n"
    );
    for (target, archive, sum) in archives {
        let name = archive.trim_end_matches(".tar.gz");
        let _ = write!(
            text,
            "  - selector:\n      matchLabels:\n        os: linux\n        arch: {}\n    uri: {url}/{archive}\n    \
             sha256: {sum}\n    files:\n      - from: {name}/bin/cdh\n        to: .\n      - from: \
             {name}/share/doc/cdh/copyright\n        to: LICENSE\n    bin: cdh\n",
            target.oci
        );
    }
    text
}

/// `cdh-<version>.tgz`, the chart: what `helm push` stores in a registry.
pub(super) fn chart(release: &Release) -> Result<()> {
    let tools = ChartTools::get().context("helm is needed for the chart")?;
    let work = tempfile::tempdir()?;
    let mut package = Command::new(&tools.helm);
    package.arg("package").arg(build::root().join("charts/cdh"));
    package.arg("--destination").arg(work.path());
    let output = package.output().context("cannot run helm")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "helm package: {errors}");
    let name = format!("cdh-{}.tgz", release.version);
    let packed = work.path().join(&name);
    ensure!(
        packed.is_file(),
        "charts/cdh/Chart.yaml has another version than {}",
        release.version
    );
    // helm stores the time of the build: the archive is made again.
    let mut unpack = Command::new("tar");
    unpack.arg("--extract").arg("--file").arg(&packed);
    build::succeed(unpack.arg("--directory").arg(work.path()))?;
    tree::tar(release, work.path(), "cdh", &release.out.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::TARGETS;

    #[test]
    fn krew_manifest_names_each_platform_with_address_and_sum() {
        let archives: Vec<_> = TARGETS
            .iter()
            .map(|target| {
                let archive = Release::sample("1.2.0").archive(target);
                (target, archive, format!("sum-of-{}", target.oci))
            })
            .collect();
        let text = krew_manifest("1.2.0", "https://example.com/v1.2.0", &archives);
        for line in [
            "  version: v1.2.0\n",
            "        arch: amd64\n    uri: https://example.com/v1.2.0/cdh-1.2.0-x86_64-unknown-linux-gnu.tar.gz\n    sha256: sum-of-amd64\n",
            "        arch: arm64\n    uri: https://example.com/v1.2.0/cdh-1.2.0-aarch64-unknown-linux-gnu.tar.gz\n    sha256: sum-of-arm64\n",
            "      - from: cdh-1.2.0-aarch64-unknown-linux-gnu/bin/cdh\n        to: .\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
