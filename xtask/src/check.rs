//! What a change must satisfy besides the tests: format, lints, documentation, dependencies, generated files, fuzz
//! targets. Each check runs although another one failed, so that one run shows all that is to be done.
//! `--planted` shows that each check fails: it plants a violation, runs the check, and takes the violation away.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::progress::{self, Steps};
use crate::targets::TARGETS;
use crate::{build, docs, layers, prose, tools};

/// How a check ended.
enum Outcome {
    Passed,
    /// It could not run here, and why. CI installs what is missing.
    Skipped(String),
}

/// A check. Its name is what `cargo xtask check NAME` takes.
struct Check {
    name: &'static str,
    what: &'static str,
    run: fn() -> Result<Outcome>,
    /// What the check must refuse: a file, and what is added at its end.
    violation: (&'static str, &'static str),
}

const CHECKS: [Check; 9] = [
    Check {
        name: "fmt",
        what: "the format of all Rust files",
        run: format,
        violation: ("src/when.rs", "\n#[test]\nfn planted()  {}\n"),
    },
    Check {
        name: "prose",
        what: "words and sentences of documentation, messages and comments",
        run: words,
        violation: ("docs/README.md", "\nIt stands.\n"),
    },
    Check {
        name: "layers",
        what: "no import points up, and no new cycle between files",
        run: layers,
        violation: ("agent/src/paths.rs", "\nuse crate::shipper::run as _;\n"),
    },
    Check {
        name: "clippy",
        what: "lints of all targets, warnings denied",
        run: clippy,
        violation: (
            "src/main.rs",
            "\n#[test]\nfn planted() {\n    dbg!(1);\n}\n",
        ),
    },
    Check {
        name: "doc",
        what: "documentation of the crates, warnings denied",
        run: doc,
        violation: ("src/main.rs", "\n/// See [`planted`].\nmod nothing {}\n"),
    },
    Check {
        name: "deny",
        what: "licences, sources and advisories of dependencies",
        run: deny,
        violation: ("deny.toml", "\n[[bans.deny]]\nname = \"serde\"\n"),
    },
    Check {
        name: "docs",
        what: "man pages and schemas against the program",
        run: generated,
        violation: ("man/cdh.1", ".SH PLANTED\n"),
    },
    Check {
        name: "fuzz",
        what: "the fuzz targets compile",
        run: fuzz,
        violation: (
            "fuzz/fuzz_targets/core.rs",
            "\nconst PLANTED: u32 = \"text\";\n",
        ),
    },
    Check {
        name: "cross",
        what: "cdh and its agent compile for the targets of a release that this machine is not",
        run: cross,
        violation: (
            "agent/src/lib.rs",
            "\n#[cfg(not(target_arch = \"x86_64\"))]\nconst PLANTED: u32 = \"text\";\n",
        ),
    },
];

/// A file with something added. Dropped, it is as it was, with its time, so that cargo builds nothing again.
struct Planted {
    path: PathBuf,
    before: Vec<u8>,
    time: SystemTime,
}

impl Planted {
    fn add((file, text): (&str, &str)) -> Result<Self> {
        let path = build::root().join(file);
        let before = fs::read(&path).with_context(|| format!("cannot read {file}"))?;
        let time = fs::metadata(&path)?.modified()?;
        let planted = Self { path, before, time };
        fs::write(&planted.path, [&planted.before, text.as_bytes()].concat())?;
        Ok(planted)
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        let restore = || -> Result<()> {
            fs::write(&self.path, &self.before)?;
            let file = fs::File::options().write(true).open(&self.path)?;
            Ok(file.set_modified(self.time)?)
        };
        if let Err(error) = restore() {
            eprintln!("error: restore {} with git: {error:#}", self.path.display());
        }
    }
}

/// Runs a check on a tree that it must refuse.
fn run_planted(check: &Check) -> Result<Outcome> {
    let (file, _) = check.violation;
    // A check that fails without the violation shows nothing.
    match (check.run)()? {
        Outcome::Passed => {}
        skipped => return Ok(skipped),
    }
    println!("planting a violation in {file}; after an interruption, restore it with git");
    let _planted = Planted::add(check.violation)?;
    match (check.run)() {
        Ok(Outcome::Passed) => bail!("the check passed although {file} breaks it"),
        Ok(skipped) => Ok(skipped),
        Err(why) => {
            println!("refused, as it must be: {why:#}");
            Ok(Outcome::Passed)
        }
    }
}

/// Runs all checks, or those that are named.
///
/// # Errors
/// When a name is unknown or a check failed; the error lists the failed ones.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let (flags, names): (Vec<&String>, Vec<&String>) =
        words.iter().partition(|word| *word == "--planted");
    let is_known = |name: &&&String| CHECKS.iter().any(|check| check.name == **name);
    if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
        let known: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
        let known = known.join(", ");
        bail!("no check is called `{unknown}`; there are {known}");
    }
    let is_chosen =
        |check: &&Check| names.is_empty() || names.iter().any(|name| *name == check.name);
    let chosen: Vec<&Check> = CHECKS.iter().filter(is_chosen).collect();
    let mut steps = Steps::new(chosen.len());
    let mut results = Vec::new();
    for check in chosen {
        let Check { name, what, .. } = check;
        steps.begin(&format!("{name}: {what}"));
        let result = match flags.is_empty() {
            true => (check.run)(),
            false => run_planted(check),
        };
        if let Err(error) = &result {
            eprintln!("error: {error:#}");
        }
        results.push((*name, result));
    }
    println!();
    for (name, result) in &results {
        match result {
            Ok(Outcome::Passed) => println!("{name:<7} passed"),
            Ok(Outcome::Skipped(why)) => println!("{name:<7} skipped: {why}"),
            Err(_) => println!("{name:<7} FAILED"),
        }
    }
    let failed = results.iter().filter(|(_, result)| result.is_err());
    let failed: Vec<&str> = failed.map(|(name, _)| *name).collect();
    match failed.as_slice() {
        [] => Ok(()),
        failed => bail!(
            "failed: {}; run one with `cargo xtask check NAME`",
            failed.join(", ")
        ),
    }
}

/// Runs cargo with these words.
fn cargo(words: &[&str]) -> Result<Outcome> {
    let mut cargo = build::cargo();
    progress::cargo(cargo.args(words), &format!("cargo {}", words[0]))?;
    Ok(Outcome::Passed)
}

/// A tool of cargo that comes with the toolchain in one way of installing it and not in another.
fn has_tool(name: &str) -> bool {
    let version = build::cargo().args([name, "--version"]).output();
    version.is_ok_and(|output| output.status.success())
}

fn format() -> Result<Outcome> {
    if !has_tool("fmt") {
        return Ok(Outcome::Skipped(
            "rustfmt is not installed: `rustup component add rustfmt`".to_owned(),
        ));
    }
    cargo(&["fmt", "--all", "--check"]).context("`cargo fmt --all` formats them")?;
    cargo(&["fmt", "--manifest-path", FUZZ, "--check"])
        .context("`cargo fmt --manifest-path fuzz/Cargo.toml` formats them")
}

fn words() -> Result<Outcome> {
    prose::check()?;
    Ok(Outcome::Passed)
}

fn layers() -> Result<Outcome> {
    layers::check()?;
    Ok(Outcome::Passed)
}

fn clippy() -> Result<Outcome> {
    if !has_tool("clippy") {
        return Ok(Outcome::Skipped(
            "clippy is not installed: `rustup component add clippy`".to_owned(),
        ));
    }
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ])
}

/// What is public and not documented is a warning of the compiler, and an error of [`clippy`]; this finds broken links.
fn doc() -> Result<Outcome> {
    let mut doc = build::cargo();
    doc.args(["doc", "--workspace", "--no-deps"]);
    doc.env("RUSTDOCFLAGS", "-D warnings -D missing_docs");
    progress::cargo(&mut doc, "documenting")?;
    Ok(Outcome::Passed)
}

fn deny() -> Result<Outcome> {
    if !has_tool("deny") {
        return Ok(Outcome::Skipped(
            "cargo-deny is not installed: `cargo install --locked cargo-deny`".to_owned(),
        ));
    }
    cargo(&["deny", "--offline", "check", "licenses", "bans", "sources"])?;
    // The database of advisories is fetched from a public repository, which not every machine reaches.
    let fetched = build::cargo().args(["deny", "fetch", "db"]).output();
    if !fetched.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: advisories: the database cannot be fetched");
        return Ok(Outcome::Passed);
    }
    cargo(&["deny", "--offline", "check", "advisories"])
}

/// The manifest of the fuzz targets, which are not in the workspace.
const FUZZ: &str = "fuzz/Cargo.toml";

fn fuzz() -> Result<Outcome> {
    // libFuzzer is C++.
    tools::require(&["cc", "g++"])?;
    let mut check = build::cargo();
    check.args(["check", "--manifest-path", FUZZ]);
    // The packages that both have are not built twice.
    check.env("CARGO_TARGET_DIR", build::target());
    progress::cargo(&mut check, "checking the fuzz targets")?;
    Ok(Outcome::Passed)
}

fn cross() -> Result<Outcome> {
    let host = build::host()?;
    let mut missing = Vec::new();
    let mut checked = 0;
    for target in TARGETS.iter().filter(|target| target.triple != host) {
        if let Some(what) = target.lacks()? {
            missing.push(format!("{}: {what} is missing", target.triple));
            continue;
        }
        let mut check = build::cargo();
        check.args(["check", "-p", "cdh", "-p", "cdh-agent"]);
        target.choose(&mut check)?;
        progress::cargo(&mut check, &format!("checking for {}", target.triple))?;
        checked += 1;
    }
    Ok(match (checked, missing.is_empty()) {
        (0, false) => Outcome::Skipped(missing.join("; ")),
        _ => Outcome::Passed,
    })
}

fn generated() -> Result<Outcome> {
    let fresh = tempfile::tempdir()?;
    // The digests of earlier versions stay.
    let (old, new) = (
        build::root().join(docs::VERSIONS),
        fresh.path().join(docs::VERSIONS),
    );
    std::fs::create_dir_all(new.parent().context("it is in a directory")?)?;
    std::fs::copy(old, new)?;
    docs::generate_into(fresh.path())?;
    for directory in docs::DIRECTORIES {
        let mut diff = Command::new("diff");
        diff.args(["--recursive", "--brief"]);
        diff.arg(build::root().join(directory))
            .arg(fresh.path().join(directory));
        build::succeed(&mut diff).context("`cargo xtask docs` writes them")?;
    }
    Ok(Outcome::Passed)
}
