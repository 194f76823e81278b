//! The bill of materials of a program, as CycloneDX: what `cargo tree` says is compiled into it, with the licences and
//! the checksums of `Cargo.lock`, and the C library and Rust's own, which are in a static program too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Release, checksums};
use crate::build;
use crate::targets::Target;

/// A package as `cargo tree` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Package {
    name: String,
    version: String,
    license: String,
}

impl Package {
    fn purl(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }
}

/// What a program is made of.
#[derive(Debug, Default)]
struct Graph {
    packages: BTreeMap<String, Package>,
    /// What each needs, by purl.
    needs: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// Reads lines `DEPTH|NAME vVERSION …|LICENCE`, the program's own first.
    fn parse(text: &str) -> Result<Self> {
        let mut graph = Self::default();
        let mut above: Vec<String> = Vec::new();
        for line in text.lines() {
            let package = parse_line(line).with_context(|| format!("cargo tree: `{line}`"));
            let (depth, package) = package?;
            let purl = package.purl();
            above.truncate(depth);
            if let Some(parent) = above.last() {
                let needs = graph.needs.entry(parent.clone()).or_default();
                needs.insert(purl.clone());
            }
            above.push(purl.clone());
            graph.needs.entry(purl.clone()).or_default();
            graph.packages.insert(purl, package);
        }
        Ok(graph)
    }
}

fn parse_line(line: &str) -> Option<(usize, Package)> {
    let mut columns = line.split('|');
    let depth = columns.next()?.parse().ok()?;
    let mut words = columns.next()?.split(' ');
    let license = columns.next()?.trim_end_matches("(*)").trim();
    let package = Package {
        name: words.next()?.to_owned(),
        version: words.next()?.strip_prefix('v')?.to_owned(),
        // Older packages write `MIT/Apache-2.0`.
        license: license.replace('/', " OR "),
    };
    Some((depth, package))
}

/// SHA-256 sums of downloaded packages, by purl.
fn sums(lock: &str) -> BTreeMap<String, String> {
    let mut sums = BTreeMap::new();
    for package in lock.split("[[package]]") {
        let value = |key: &str| {
            let mut lines = package.lines();
            let text = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
            text.strip_suffix('"')
        };
        if let (Some(name), Some(version), Some(sum)) =
            (value("name"), value("version"), value("checksum"))
        {
            sums.insert(format!("pkg:cargo/{name}@{version}"), sum.to_owned());
        }
    }
    sums
}

/// Writes the bill of materials of `cdh` for a target. The handler is made of some of the same packages.
pub(super) fn write(release: &Release, target: &Target, program: &Path, to: &Path) -> Result<()> {
    let mut tree = build::cargo();
    tree.args([
        "tree",
        "--locked",
        "--package",
        "cdh",
        "--edges",
        "normal,no-proc-macro",
    ]);
    tree.args([
        "--target",
        target.triple,
        "--prefix",
        "depth",
        "--format",
        "|{p}|{l}",
    ]);
    let output = tree.output().context("cannot run cargo")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo tree: {errors}");
    let graph = Graph::parse(&String::from_utf8(output.stdout)?)?;
    let lock = fs::read_to_string(build::root().join("Cargo.lock"))?;
    let libraries = [c_library(target)?, rust_library()?];
    let document = document(
        release,
        &graph,
        &sums(&lock),
        &libraries,
        &checksums::sha256(program)?,
    )?;
    let text = serde_json::to_string_pretty(&document)? + "\n";
    Ok(fs::write(to, text)?)
}

fn document(
    release: &Release,
    graph: &Graph,
    sums: &BTreeMap<String, String>,
    libraries: &[(&'static str, String, &'static str)],
    program: &str,
) -> Result<Value> {
    let own = format!("pkg:cargo/cdh@{}", release.version);
    ensure!(
        graph.packages.contains_key(&own),
        "cargo tree does not begin with {own}"
    );
    let mut components = Vec::new();
    for (purl, package) in graph.packages.iter().filter(|(purl, _)| **purl != own) {
        let mut component = json!({
            "type": "library", "bom-ref": purl, "name": package.name, "version": package.version,
            "purl": purl, "scope": "required",
        });
        if !package.license.is_empty() {
            component["licenses"] = json!([{ "expression": package.license }]);
        }
        if let Some(sum) = sums.get(purl) {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
        }
        components.push(component);
    }
    let mut needs = graph.needs.clone();
    for (name, version, license) in libraries {
        let purl = format!("pkg:generic/{name}@{version}");
        components.push(json!({
            "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
            "scope": "required", "licenses": [{ "expression": license }],
        }));
        needs.entry(own.clone()).or_default().insert(purl.clone());
        needs.insert(purl, BTreeSet::new());
    }
    let dependencies = needs
        .iter()
        .map(|(purl, needs)| json!({ "ref": purl, "dependsOn": needs }));
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": release.time,
            "component": {
                "type": "application", "bom-ref": own, "name": "cdh", "version": release.version, "purl": own,
                "licenses": [{ "expression": "Apache-2.0" }],
                "hashes": [{ "alg": "SHA-256", "content": program }],
            },
        },
        "components": components,
        "dependencies": dependencies.collect::<Vec<_>>(),
    }))
}

/// The C library that the linker puts into static programs. Its version is a text in the archive.
fn c_library(target: &Target) -> Result<(&'static str, String, &'static str)> {
    let mut compiler = Command::new(target.compiler()?);
    let output = compiler.arg("-print-file-name=libc.a").output();
    let path = String::from_utf8(output.context("cannot run the compiler")?.stdout)?;
    let archive = fs::read(path.trim()).with_context(|| format!("cannot read {}", path.trim()))?;
    let banner = b"GNU C Library (";
    let at = archive
        .windows(banner.len())
        .position(|window| window == banner);
    let text = at
        .and_then(|at| archive.get(at..at + 200))
        .unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let version = text
        .split("release version ")
        .nth(1)
        .and_then(|rest| rest.split(['\n', '\0']).next());
    let version = version.with_context(|| format!("{} names no version", path.trim()))?;
    Ok((
        "glibc",
        version.trim_end_matches('.').to_owned(),
        "LGPL-2.1-or-later",
    ))
}

fn rust_library() -> Result<(&'static str, String, &'static str)> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    let text = String::from_utf8(output.context("cannot run rustc")?.stdout)?;
    let version = text.split(' ').nth(1).context("rustc prints no version")?;
    Ok(("rust-std", version.trim().to_owned(), "MIT OR Apache-2.0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "0|cdh v0.1.0 (/src)|Apache-2.0\n1|a v1.0.0|MIT/Apache-2.0\n2|m v2.1.0 (proc-macro)|MIT\n\
                        1|b v0.3.0|ISC\n2|a v1.0.0|MIT/Apache-2.0 (*)\n";

    fn release() -> Release {
        Release::sample("0.1.0")
    }

    #[test]
    fn sbom_has_each_package_once_with_license_checksum_and_what_it_needs() {
        let graph = Graph::parse(TREE).unwrap();
        let lock = "[[package]]\nname = \"b\"\nversion = \"0.3.0\"\nchecksum = \"abcd\"\n";
        let libraries = [("glibc", "2.36".to_owned(), "LGPL-2.1-or-later")];
        let sbom = document(&release(), &graph, &sums(lock), &libraries, "ef01").unwrap();
        let components = sbom["components"].as_array().unwrap();
        let names: Vec<_> = components
            .iter()
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["a", "b", "m", "glibc"]);
        assert_eq!(
            components[0]["licenses"][0]["expression"],
            "MIT OR Apache-2.0"
        );
        assert_eq!(components[1]["hashes"][0]["content"], "abcd");
        let needs = |purl: &str| {
            let all = sbom["dependencies"].as_array().unwrap();
            all.iter().find(|one| one["ref"] == purl).unwrap()["dependsOn"].clone()
        };
        assert_eq!(
            needs("pkg:cargo/cdh@0.1.0"),
            json!([
                "pkg:cargo/a@1.0.0",
                "pkg:cargo/b@0.3.0",
                "pkg:generic/glibc@2.36"
            ])
        );
        assert_eq!(needs("pkg:cargo/b@0.3.0"), json!(["pkg:cargo/a@1.0.0"]));
        assert_eq!(
            sbom["metadata"]["component"]["hashes"][0]["content"],
            "ef01"
        );
    }
}
