//! Programs that crash, and ways to get their cores.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{build, tools};

/// Builds the demo's programs into `directory`.
pub(crate) fn build_programs(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut programs = build_other_programs(directory)?;
    programs.insert(0, build_first_program(directory)?);
    Ok(programs)
}

/// Builds the one that crashes first.
pub(crate) fn build_first_program(directory: &Path) -> Result<PathBuf> {
    cc(directory, "inlined")
}

/// Builds the others.
pub(crate) fn build_other_programs(directory: &Path) -> Result<Vec<PathBuf>> {
    let panicking = directory.join("panicking");
    let mut rustc = Command::new("rustc");
    rustc.args(["-g", "-O", "-C", "panic=abort"]);
    // Pictures and transcripts show the path; where the checkout is does not belong there.
    rustc.arg(format!("--remap-path-prefix={}=.", build::root().display()));
    rustc.args(["-C", "link-arg=-Wl,--build-id", "-o"]);
    let source = sources().join("panicking.rs");
    build::succeed(rustc.arg(&panicking).arg(source))?;
    Ok(vec![panicking, cc(directory, "threads")?])
}

fn sources() -> PathBuf {
    build::root().join("xtask/programs")
}

fn cc(directory: &Path, name: &str) -> Result<PathBuf> {
    let program = directory.join(name);
    let mut command = Command::new("cc");
    command.args(["-O2", "-g", "-pthread", "-Wl,--build-id", "-o"]);
    let source = sources().join(name).with_extension("c");
    build::succeed(command.arg(&program).arg(source))?;
    Ok(program)
}

/// Runs a program, without a limit for its core, and waits until a signal has ended it.
pub(crate) fn crash(program: &Path) -> Result<()> {
    let directory = program.parent().unwrap_or(Path::new("."));
    let status = Command::new("sh")
        .args(["-c", "ulimit -c unlimited; exec \"$0\""])
        .arg(program)
        .current_dir(directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    match status.signal() {
        Some(_) => Ok(()),
        None => bail!("{} did not crash: {status}", program.display()),
    }
}

/// Gets a core without the agent: the kernel's plain file where the pattern names one beside the
/// program, else gdb's. Returns which.
pub(crate) fn plain_core(program: &Path) -> Result<(PathBuf, &'static str)> {
    let directory = program.parent().unwrap_or(Path::new("."));
    let before = cores(directory)?;
    crash(program)?;
    let new = cores(directory)?
        .into_iter()
        .find(|core| !before.contains(core));
    if let Some(core) = new {
        let kept = program.with_extension("core");
        fs::rename(core, &kept)?;
        return Ok((kept, "a core that the kernel wrote as a plain file"));
    }
    tools::require(&["gdb"]).context("the kernel writes no plain cores here")?;
    let core = program.with_extension("core");
    let output = Command::new("gdb")
        .args(["-q", "-batch", "-ex", "run", "-ex"])
        .arg(format!("generate-core-file {}", core.display()))
        .arg(program)
        .output()?;
    if !core.is_file() {
        bail!(
            "gdb made no core: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok((core, "a core that gdb made of the process"))
}

fn cores(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("core") {
            found.push(entry.path());
        }
    }
    Ok(found)
}
