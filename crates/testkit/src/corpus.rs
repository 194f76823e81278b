//! The fixtures of `tests/fixtures`: cores of programs that crash in every way, built where the tests run,
//! and what gdb says of them.
//!
//! A fixture is a directory with a `build.sh`; it makes one directory per variant, with `core` and
//! `program` in it. A tool that is missing leaves variants out, with a line on standard error.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// One core of the corpus.
#[derive(Clone, Debug)]
pub struct Variant {
    /// `fixture/variant`.
    pub name: String,
    /// Where its files are.
    pub directory: PathBuf,
}

/// `tests/fixtures` of this repository.
#[must_use]
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// Names of all fixtures that are built.
///
/// # Errors
/// When the directory cannot be read.
pub fn names() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(fixtures())? {
        let entry = entry?;
        if entry.path().join("build.sh").is_file() {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Builds a fixture below `out`.
///
/// # Errors
/// When its script fails.
pub fn build(name: &str, out: &Path) -> io::Result<Vec<Variant>> {
    let fixtures = fixtures().canonicalize()?;
    let out = out.join(name);
    std::fs::create_dir_all(&out)?;
    let source = fixtures.join(name);
    let output = Command::new("sh")
        .arg(source.join("build.sh"))
        .current_dir(&out)
        .env("FIXTURES", &fixtures)
        .env("SOURCE", &source)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    for line in said.lines().filter(|line| line.starts_with("skipped: ")) {
        eprintln!("{line}");
    }
    if !output.status.success() {
        return Err(io::Error::other(format!(
            "the fixture `{name}` cannot be built: {said}"
        )));
    }
    let mut variants = Vec::new();
    for entry in std::fs::read_dir(&out)? {
        let directory = entry?.path();
        if directory.join("core").is_file() {
            let variant = directory
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            variants.push(Variant {
                name: format!("{name}/{variant}"),
                directory,
            });
        }
    }
    variants.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(variants)
}

/// A frame as gdb sees it.
#[derive(Clone, Debug, Deserialize)]
pub struct OracleFrame {
    /// Program counter.
    pub pc: u64,
    /// `normal`, `inline`, `tail`, `signal`.
    pub kind: String,
    /// Name for people.
    pub name: Option<String>,
    /// Linkage name, where there is debug information.
    pub raw: Option<String>,
    /// `file:line`, the file without its directory.
    pub place: Option<String>,
}

/// A thread as gdb sees it.
#[derive(Clone, Debug, Deserialize)]
pub struct OracleThread {
    /// Thread id.
    pub tid: u32,
    /// Innermost first.
    pub frames: Vec<OracleFrame>,
    /// Why the stack ends, where gdb gave up.
    pub stop: Option<String>,
}

impl Variant {
    /// Asks gdb; `None` where no gdb is here, no threads where it dies of the core or refuses it.
    ///
    /// # Errors
    /// When gdb cannot be run.
    pub fn oracle(&self) -> io::Result<Option<Vec<OracleThread>>> {
        let is_foreign = ["aarch64/", "machines/"]
            .iter()
            .any(|of| self.name.starts_with(of));
        let gdb = if is_foreign { "gdb-multiarch" } else { "gdb" };
        // gdb can loop for ever in a stack.
        let output = Command::new("timeout")
            .args(["20", gdb])
            .current_dir(&self.directory)
            .args(["-q", "-nx", "-batch", "-iex", "set debuginfod enabled off"])
            .args([
                "-iex",
                "set auto-load off",
                "-iex",
                "set backtrace limit unlimited",
            ])
            .args(["-iex", "set backtrace past-main on"])
            .args(["program", "core", "-x"])
            .arg(fixtures().canonicalize()?.join("oracle.py"))
            .output();
        let output = match output {
            // What `timeout` says where it finds no such program.
            Ok(output) if output.status.code() == Some(127) => {
                eprintln!("skipped: {}: {gdb} is not here", self.name);
                return Ok(None);
            }
            output => output?,
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let threads = text.lines().filter_map(|line| line.strip_prefix("ORACLE "));
        let threads: Result<Vec<OracleThread>, _> = threads.map(serde_json::from_str).collect();
        let threads = threads.map_err(io::Error::other)?;
        Ok(Some(threads))
    }
}
