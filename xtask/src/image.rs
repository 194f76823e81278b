//! The agent's container image: from scratch, `/cdh`, `/cdh-handler` and the certificate authorities of
//! the machine that builds it, nothing else.
//!
//! The same sources and tools make the same image: times are fixed, and the layer holds its files in
//! the order in which they are added.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build::{self, Optimized, succeed};
use crate::targets::Target;
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
    /// What they are built for; `None`: this machine.
    pub(crate) target: Option<&'static Target>,
}

impl ImageOptions {
    /// From `[NAME] [--push REGISTRY/NAME] [--target TRIPLE] [--debug]`.
    pub(crate) fn parse(words: &[String]) -> Result<Self> {
        let mut options = Self {
            name: format!("localhost/cdh:{}", env!("CARGO_PKG_VERSION")),
            push: None,
            optimized: Optimized::Fully,
            target: None,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--push" => {
                    let place = words.next().context("--push wants a registry's name")?;
                    options.push = Some(place.clone());
                }
                "--target" => {
                    let triple = words.next().context("--target needs a target's triple")?;
                    options.target = Some(Target::buildable(triple)?);
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
    let (cdh, handler) = match options.target {
        Some(target) => (
            build::static_cdh_for(target, options.optimized)?,
            build::handler_for(target)?,
        ),
        None => (build::static_cdh(options.optimized)?, build::handler()?),
    };
    let programs = [("cdh", cdh.as_path()), ("cdh-handler", &handler)];
    let target = match options.target {
        Some(target) => target,
        None => Target::of_host()?,
    };
    let strip = target.strip()?;
    let context = tempfile::tempdir()?;
    let inputs = context.path().join("inputs");
    let file = context.path().join("Containerfile");
    write_inputs(&inputs, &file, &programs)?;
    for (name, _) in &programs {
        // Symbols are in the build's own directory; on the node they are only weight.
        if tools::is_there(&strip) {
            succeed(Command::new(&strip).arg(inputs.join(name)))?;
        }
    }
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
    run_build(
        buildah(),
        target.oci,
        EPOCH,
        &["--tag", &options.name],
        &file,
        &inputs,
    )?;
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

/// Writes what the image holds into `inputs`, and the file that says so.
fn write_inputs(inputs: &Path, file: &Path, programs: &[(&str, &Path)]) -> Result<()> {
    fs::create_dir(inputs)?;
    let mut copies = String::new();
    for (name, program) in programs {
        fs::copy(program, inputs.join(name))
            .with_context(|| format!("cannot copy {}", program.display()))?;
        copies.push_str(&format!("COPY {name} /{name}\n"));
    }
    if Path::new(AUTHORITIES).is_file() {
        fs::copy(AUTHORITIES, inputs.join("ca-certificates.crt"))?;
        copies.push_str(&format!("COPY ca-certificates.crt {AUTHORITIES}\n"));
    }
    let text = format!(
        "FROM scratch\n{copies}ENV PATH=/\nENTRYPOINT [\"/cdh\"]\nCMD [\"agent\", \"run\"]\n"
    );
    Ok(fs::write(file, text)?)
}

/// Builds an image for one architecture; `words` say where it goes.
fn run_build(
    mut build: Command,
    architecture: &str,
    epoch: &str,
    words: &[&str],
    file: &Path,
    inputs: &Path,
) -> Result<()> {
    build.args(["build", "--quiet", "--layers=false", "--timestamp", epoch]);
    build.args(["--identity-label=false", "--isolation", "chroot"]);
    build
        .args(["--os", "linux", "--arch", architecture])
        .args(words);
    build.arg("--file").arg(file).arg(inputs);
    let output = progress::during("running buildah", || build.output());
    let output = output.context("cannot run buildah")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "buildah: {errors}");
    Ok(())
}

/// The programs of one architecture of an image index.
pub(crate) struct Variant<'a> {
    /// As in OCI: `amd64`.
    pub(crate) architecture: &'static str,
    pub(crate) cdh: &'a Path,
    pub(crate) handler: &'a Path,
}

/// Builds an image for each variant and writes their index as an OCI layout into `layout`.
pub(crate) fn index(variants: &[Variant<'_>], epoch: &str, tag: &str, layout: &Path) -> Result<()> {
    tools::offer(&["buildah"])?;
    let context = tempfile::tempdir()?;
    let buildah = || {
        let mut buildah = Command::new("buildah");
        buildah.arg("--root").arg(context.path().join("storage"));
        buildah.arg("--runroot").arg(context.path().join("run"));
        buildah.args(["--storage-driver", "vfs"]);
        buildah
    };
    const LIST: &str = "localhost/cdh-index";
    for variant in variants {
        let inputs = context.path().join(variant.architecture);
        let file = context.path().join("Containerfile");
        let programs = [("cdh", variant.cdh), ("cdh-handler", variant.handler)];
        write_inputs(&inputs, &file, &programs)?;
        let words = ["--manifest", LIST];
        run_build(
            buildah(),
            variant.architecture,
            epoch,
            &words,
            &file,
            &inputs,
        )?;
    }
    let mut push = buildah();
    push.args([
        "manifest", "push", "--quiet", "--all", "--format", "oci", LIST,
    ]);
    succeed(push.arg(format!("oci:{}:{tag}", layout.display())))
}
