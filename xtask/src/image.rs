//! The agent's container image: from scratch, `/cdh`, `/cdh-handler` and the certificate authorities of
//! the machine that builds it, nothing else.
//!
//! The same sources and tools make the same image: times are fixed, and the layer holds its files in
//! the order in which they are added.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build::{self, Optimized, succeed};
use crate::{progress, tools};

/// Where Debian's `ca-certificates` puts them.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// All times in the image, in seconds since 1970.
const EPOCH: &str = "0";

/// What to build, and where to put it.
pub(crate) struct ImageOptions {
    /// Name of the image in the local storage: `localhost/cdh:0.1.0`.
    pub(crate) name: String,
    /// Registry to push it to: `127.0.0.1:5000/cdh:1`.
    pub(crate) push: Option<String>,
    /// How the programs are built.
    pub(crate) optimized: Optimized,
}

impl ImageOptions {
    /// From `[NAME] [--push REGISTRY/NAME] [--debug]`.
    pub(crate) fn parse(words: &[String]) -> Result<Self> {
        let mut options = Self {
            name: format!("localhost/cdh:{}", env!("CARGO_PKG_VERSION")),
            push: None,
            optimized: Optimized::Fully,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--push" => {
                    let place = words.next().context("--push wants a registry's name")?;
                    options.push = Some(place.clone());
                }
                "--debug" => options.optimized = Optimized::Hardly,
                name => options.name = name.to_owned(),
            }
        }
        Ok(options)
    }
}

/// Builds the image; its digest.
pub(crate) fn build(options: &ImageOptions) -> Result<String> {
    tools::offer(&["buildah"])?;
    let programs = [
        ("cdh", build::static_cdh(options.optimized)?),
        ("cdh-handler", build::handler()?),
    ];
    let machine = build::host()?;
    let machine = match machine.split('-').next() {
        Some("aarch64") => "arm64",
        _ => "amd64",
    };
    let context = tempfile::tempdir()?;
    let inputs = context.path().join("inputs");
    fs::create_dir(&inputs)?;
    let mut copies = String::new();
    for (name, program) in &programs {
        let path = inputs.join(name);
        fs::copy(program, &path)?;
        // Symbols are in the build's own directory; on the node they are only weight.
        if tools::is_there("strip") {
            succeed(Command::new("strip").arg(&path))?;
        }
        copies.push_str(&format!("COPY {name} /{name}\n"));
    }
    if Path::new(AUTHORITIES).is_file() {
        fs::copy(AUTHORITIES, inputs.join("ca-certificates.crt"))?;
        copies.push_str(&format!("COPY ca-certificates.crt {AUTHORITIES}\n"));
    }
    let file: PathBuf = context.path().join("Containerfile");
    let text = format!(
        "FROM scratch\n{copies}ENV PATH=/\nENTRYPOINT [\"/cdh\"]\nCMD [\"agent\", \"run\"]\n"
    );
    fs::write(&file, text)?;
    // What is only pushed leaves nothing in the machine's own storage.
    let storage = context.path().join("storage");
    let buildah = || {
        let mut buildah = Command::new("buildah");
        if options.push.is_some() {
            buildah.arg("--root").arg(&storage);
            buildah.arg("--runroot").arg(context.path().join("run"));
            buildah.args(["--storage-driver", "vfs"]);
        }
        buildah
    };
    let mut build = buildah();
    build.args(["build", "--quiet", "--layers=false", "--timestamp", EPOCH]);
    build.args(["--identity-label=false", "--isolation", "chroot"]);
    build.args(["--os", "linux", "--arch", machine, "--tag", &options.name]);
    build.arg("--file").arg(&file).arg(&inputs);
    let output = progress::during("running buildah", || build.output());
    let output = output.context("cannot run buildah")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "buildah: {errors}");
    let digest = context.path().join("digest");
    let place = match &options.push {
        Some(registry) => format!("docker://{registry}"),
        None => format!("dir:{}", context.path().join("image").display()),
    };
    let mut push = buildah();
    push.args(["push", "--quiet", "--format", "oci", "--digestfile"]);
    push.arg(&digest);
    // A registry of this machine speaks plain HTTP.
    let is_local = |registry: &String| {
        registry.starts_with("127.0.0.1:") || registry.starts_with("localhost:")
    };
    if options.push.as_ref().is_some_and(is_local) {
        push.arg("--tls-verify=false");
    }
    succeed(push.arg(&options.name).arg(place))?;
    Ok(fs::read_to_string(digest)?.trim().to_owned())
}
