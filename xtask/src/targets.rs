//! The supported targets, as data. A target is built where its standard library and a linker are installed.
//!
//! Another target than this machine's needs `CDH_CROSS_RUSTC`, unless `rustc` itself has its standard library
//! (`rustup target add`), and a cross compiler of C: Debian's, or the one that cargo's own variable
//! `CARGO_TARGET_<TRIPLE>_LINKER` names.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{build, tools};

/// A target and its names in the formats of packages.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Rust's triple.
    pub(crate) triple: &'static str,
    /// Debian's architecture.
    pub(crate) deb: &'static str,
    /// RPM's architecture.
    pub(crate) rpm: &'static str,
    /// The architecture of an OCI image, and of krew.
    pub(crate) oci: &'static str,
    /// What begins the names of Debian's cross tools.
    pub(crate) cross: &'static str,
}

/// The supported targets.
pub(crate) const TARGETS: [Target; 2] = [
    Target {
        triple: "x86_64-unknown-linux-gnu",
        deb: "amd64",
        rpm: "x86_64",
        oci: "amd64",
        cross: "x86_64-linux-gnu-",
    },
    Target {
        triple: "aarch64-unknown-linux-gnu",
        deb: "arm64",
        rpm: "aarch64",
        oci: "arm64",
        cross: "aarch64-linux-gnu-",
    },
];

impl Target {
    /// That of this machine.
    pub(crate) fn of_host() -> Result<&'static Self> {
        let host = build::host()?;
        let found = TARGETS.iter().find(|target| target.triple == host);
        found.with_context(|| format!("this machine's target {host} is not supported"))
    }

    /// By its triple, if it can be built here.
    pub(crate) fn buildable(triple: &str) -> Result<&'static Self> {
        let found = TARGETS.iter().find(|target| target.triple == triple);
        let target = found.with_context(|| {
            let known = TARGETS.map(|one| one.triple).join(", ");
            format!("`{triple}` is not supported, only {known}")
        })?;
        if let Some(what) = target.lacks()? {
            bail!("{triple} cannot be built: {what} is missing");
        }
        Ok(target)
    }

    fn is_host(&self) -> Result<bool> {
        Ok(build::host()? == self.triple)
    }

    /// The triple as environment variables have it: `aarch64_unknown_linux_gnu`.
    fn underscored(&self) -> String {
        self.triple.replace('-', "_")
    }

    /// The compiler of C, which also links.
    pub(crate) fn compiler(&self) -> Result<String> {
        let linker = format!(
            "CARGO_TARGET_{}_LINKER",
            self.underscored().to_ascii_uppercase()
        );
        Ok(match (std::env::var(linker), self.is_host()?) {
            (Ok(given), _) => given,
            (Err(_), true) => "cc".to_owned(),
            (Err(_), false) => format!("{}gcc", self.cross),
        })
    }

    /// The program that removes symbols.
    pub(crate) fn strip(&self) -> Result<String> {
        Ok(match self.is_host()? {
            true => "strip".to_owned(),
            false => format!("{}strip", self.cross),
        })
    }

    /// The compiler of Rust that has the standard library of the target.
    pub(crate) fn rustc(&self) -> Result<OsString> {
        let cross = match self.is_host()? {
            true => None,
            false => std::env::var_os("CDH_CROSS_RUSTC"),
        };
        let usual = || std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        Ok(cross.unwrap_or_else(usual))
    }

    /// Makes cargo build this target, also the C code in packages.
    pub(crate) fn choose(&self, cargo: &mut Command) -> Result<()> {
        let (compiler, under) = (self.compiler()?, self.underscored());
        cargo.args(["--target", self.triple]);
        if !self.is_host()? {
            cargo.env("RUSTC", self.rustc()?);
            let linker = format!("CARGO_TARGET_{}_LINKER", under.to_ascii_uppercase());
            cargo.env(linker, &compiler);
            cargo.env(format!("CC_{under}"), &compiler);
        }
        Ok(())
    }

    /// What this machine lacks to build the target.
    pub(crate) fn lacks(&self) -> Result<Option<String>> {
        let compiler = self.compiler()?;
        if !tools::is_there(&compiler) {
            return Ok(Some(format!("the compiler `{compiler}`")));
        }
        let mut rustc = Command::new(self.rustc()?);
        rustc.args(["--print", "target-libdir", "--target", self.triple]);
        let output = rustc.output().context("cannot run rustc")?;
        let directory = String::from_utf8(output.stdout)?;
        Ok(match Path::new(directory.trim()).is_dir() {
            true => None,
            false => Some(format!(
                "the standard library of {} (`rustup target add`, or `CDH_CROSS_RUSTC`)",
                self.triple
            )),
        })
    }
}
