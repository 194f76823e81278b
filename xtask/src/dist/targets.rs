//! The targets of a release, as data. A target is built where its standard library and a linker are installed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{build, tools};

/// A target and its names in the formats of packages.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Rust's triple.
    pub(super) triple: &'static str,
    /// Debian's architecture.
    pub(super) deb: &'static str,
    /// RPM's architecture.
    pub(super) rpm: &'static str,
    /// The architecture of an OCI image, and of krew.
    pub(super) oci: &'static str,
    /// The compiler and linker on a machine of another target.
    pub(super) cross: &'static str,
}

/// The supported targets.
pub(super) const TARGETS: [Target; 2] = [
    Target {
        triple: "x86_64-unknown-linux-gnu",
        deb: "amd64",
        rpm: "x86_64",
        oci: "amd64",
        cross: "x86_64-linux-gnu-gcc",
    },
    Target {
        triple: "aarch64-unknown-linux-gnu",
        deb: "arm64",
        rpm: "aarch64",
        oci: "arm64",
        cross: "aarch64-linux-gnu-gcc",
    },
];

impl Target {
    /// The compiler of C, which also links.
    pub(super) fn compiler(&self) -> Result<&'static str> {
        Ok(match build::host()? == self.triple {
            true => "cc",
            false => self.cross,
        })
    }

    /// What this machine lacks to build the target.
    pub(super) fn lacks(&self) -> Result<Option<String>> {
        let compiler = self.compiler()?;
        if !tools::is_there(compiler) {
            return Ok(Some(format!("the compiler `{compiler}`")));
        }
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut rustc = Command::new(rustc);
        rustc.args(["--print", "target-libdir", "--target", self.triple]);
        let output = rustc.output().context("cannot run rustc")?;
        let directory = String::from_utf8(output.stdout)?;
        Ok(match Path::new(directory.trim()).is_dir() {
            true => None,
            false => Some(format!("the standard library of {}", self.triple)),
        })
    }
}
