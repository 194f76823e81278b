//! What the node pulls: the image of the test program and cdh's own, in a registry on loopback.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use cdh_testkit::{DockerRegistry, Packing, RegistryAccess, TestImages, TestLayer};
use serde_json::json;

use crate::build::{self, Optimized};
use crate::image::{self, ImageOptions};

/// The registry, and what is in it.
pub(super) struct Images {
    registry: DockerRegistry,
    /// Crashes in every way, and holds a pod's namespaces if it has no arguments.
    pub(super) app: String,
    /// Digest of cdh's own image.
    pub(super) cdh_digest: String,
}

/// The program of the test images.
pub(super) const PROGRAM: &str = "/app/cluster";

impl Images {
    /// Builds and serves them.
    pub(super) fn serve(directory: &Path, optimized: Optimized) -> Result<Self> {
        let place = directory.join("run/registry");
        let _ = fs::remove_dir_all(&place);
        let program = build_program(&directory.join("programs"))?;
        let app = put(&place, "app", &program, PROGRAM)?;
        let registry = DockerRegistry::start(&place, RegistryAccess::Open)?;
        let registry = registry.context("docker-registry is missing")?;
        let cdh_digest = image::build(&ImageOptions {
            name: "localhost/cdh:cluster".to_owned(),
            push: Some(format!("{}/cdh:cluster", registry.address)),
            optimized,
            target: None,
        })?;
        let named = |name: &str, digest: &str| format!("{}/{name}@{digest}", registry.address);
        Ok(Self {
            app: named("app", &app),
            cdh_digest,
            registry,
        })
    }

    /// `127.0.0.1:port`.
    pub(super) fn address(&self) -> &str {
        &self.registry.address
    }
}

fn build_program(directory: &Path) -> Result<PathBuf> {
    fs::create_dir_all(directory)?;
    let program = directory.join("cluster");
    let mut cc = Command::new("cc");
    cc.args([
        "-O1",
        "-g",
        "-fno-omit-frame-pointer",
        "-static",
        "-pthread",
    ]);
    cc.args(["-Wl,--build-id", "-o"]).arg(&program);
    build::succeed(cc.arg(build::root().join("xtask/programs/cluster.c")))?;
    Ok(program)
}

/// An image with this file and nothing else; its digest.
fn put(registry: &Path, repository: &str, file: &Path, at: &str) -> Result<String> {
    let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let (parent, _) = at
        .trim_start_matches('/')
        .rsplit_once('/')
        .unwrap_or_default();
    let layer = TestLayer::new()
        .directory(&format!("{parent}/"))
        .file(at.trim_start_matches('/'), &content)
        .pack(Packing::Plain);
    let mut images = TestImages::default();
    let machine = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let run = json!({"Entrypoint": [at], "Cmd": ["pause", "sandbox"]});
    let digest = images.image_to_run(machine, &[layer], &run);
    DockerRegistry::put(registry, repository, &images)?;
    Ok(digest)
}
