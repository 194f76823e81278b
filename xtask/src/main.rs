//! Tasks of this repository: `cargo xtask TASK [OPTION]…`. `--help` names them, and behind a task its options.

// A failed test or task may panic; nothing of this ships.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]
// What only tasks with the feature use.
#![cfg_attr(not(feature = "bench"), allow(dead_code))]

#[cfg(feature = "bench")]
mod bench;
mod bucket;
mod build;
mod charts;
mod check;
#[cfg(feature = "bench")]
mod cluster;
mod crash;
mod demo;
mod dist;
mod docs;
mod faulthandler;
#[cfg(feature = "bench")]
mod fixtures;
mod goroutines;
mod guardian;
mod image;
mod layers;
mod options;
#[cfg(feature = "bench")]
mod pictures;
#[cfg(feature = "bench")]
mod pods;
mod progress;
mod prose;
mod python;
#[cfg(feature = "bench")]
mod s3;
mod suite;
mod targets;
mod tools;
mod values;

use std::process::ExitCode;

use anyhow::{Result, bail};

use options::Help;
use suite::TestsFailed;

/// Tasks, what may stand behind them, and what they do.
const TASKS: [(&str, &str, &str); 20] = [
    (
        "test",
        "[--install] [ARGUMENT OF cargo test]…",
        "all tests, with the static handler built first; missing packages are installed as root, or with `--install`",
    ),
    (
        "check",
        "[--planted] [CHECK]…",
        "what CI demands besides tests: fmt, clippy, doc, deny, docs, fuzz, cross; `--planted` shows that each can fail",
    ),
    (
        "demo",
        "",
        "real crashes, captured, listed, explained, and compared with gdb",
    ),
    (
        "test-pods",
        "[PART OF A TEST'S NAME]",
        "the agent in a pod of its own, dumps of pods in an S3 server, large numbers",
    ),
    (
        "test-cluster",
        "[--mode full|split] [--only GROUP]… [OPTION]…",
        "a real Kubernetes of one node: install, crash, explain, update, uninstall; see `test-cluster --help`",
    ),
    (
        "charts",
        "[--bless]",
        "lints, renders and validates the Helm chart; `--bless` takes it as it is",
    ),
    (
        "image",
        "[NAME] [--push REGISTRY/NAME] [--target TRIPLE] [--debug]",
        "builds the agent's container image with buildah",
    ),
    (
        "dist",
        "[OPTION]…",
        "everything that a release publishes, or a check of one; see `dist --help`",
    ),
    (
        "handler",
        "[--target TRIPLE]",
        "builds the static handler and prints its path",
    ),
    (
        "bench",
        "WHAT [OPTION]…",
        "measures against peers; see `bench --help`",
    ),
    (
        "bucket",
        "DIR [COUNT] [--cdh PROGRAM] [--flat]",
        "a store with hundreds of real crashes and a planted history (`--flat`: without), to try `groups` and the TUI with",
    ),
    (
        "pictures",
        "STORE [DIR]",
        "every view of the TUI, driven in tmux, as a picture for `docs/tui`",
    ),
    (
        "soak-s3",
        "[--dumps N] [--seed N]",
        "a thousand uploads past faults, kills and restarts, looked at by another client",
    ),
    (
        "test-s3-peers",
        "",
        "the store's tests against another make of server",
    ),
    (
        "fixtures",
        "[--products | --seeds DIR] [--keep DIR] [--cdh PROGRAM] [NAME]…",
        "builds the corpus and compares backtraces with gdb's",
    ),
    (
        "goroutines",
        "[--cdh PROGRAM] [--keep DIR] [VERSION=GO]… [--case NAME…]",
        "compares goroutines with what Go programs print themselves, for each command `go`",
    ),
    (
        "faulthandler",
        "[--cdh PROGRAM] [--keep DIR] [--pystack PROGRAM] [PYTHON[@ROOT]]…",
        "compares Python frames with what faulthandler prints",
    ),
    (
        "values",
        "[--cdh PROGRAM] [--gdb PROGRAM] [--keep DIR] [--build BUILD]… [--directory DIR]… [NAME]…",
        "compares the variables of frames with those that gdb reads from the same cores",
    ),
    ("docs", "", "regenerates man pages and JSON schemas"),
    ("--help", "", "this"),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(usage) = error.downcast_ref::<Help>() {
                println!("{usage}");
                return ExitCode::SUCCESS;
            }
            if let Some(TestsFailed(status)) = error.downcast_ref::<TestsFailed>() {
                return *status;
            }
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How the tasks are named, or how this one is used.
fn usage(task: &str) -> String {
    let all = || {
        let lines = TASKS.map(|(name, _, what)| format!("\n  {name:<14} {what}"));
        format!("usage: cargo xtask TASK [OPTION]…{}", lines.concat())
    };
    match TASKS.iter().find(|(name, ..)| *name == task) {
        Some((name, options, what)) if !name.starts_with('-') => {
            let line = format!("usage: cargo xtask {name} {options}");
            format!("{}\n  {what}", line.trim_end())
        }
        _ => all(),
    }
}

fn run() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (task, rest) = match words.split_first() {
        Some((task, rest)) => (task.as_str(), rest),
        None => ("", &[][..]),
    };
    // These have a usage of their own.
    match task {
        "bench" | "dist" | "test-cluster" => {}
        "--help" | "-h" => options::offer_help(&words, &usage(""))?,
        _ => options::offer_help(rest, &usage(task))?,
    }
    match task {
        "test" => suite::run(rest),
        "check" => check::run(rest),
        "charts" => charts::check(match rest.iter().any(|word| word == "--bless") {
            true => charts::Snapshots::Write,
            false => charts::Snapshots::Compare,
        }),
        "image" => {
            let digest = image::build(&image::ImageOptions::parse(rest)?)?;
            println!("{digest}");
            Ok(())
        }
        "dist" => dist::run(rest),
        "demo" => {
            tools::require(&["cc"])?;
            demo::run()
        }
        "handler" => {
            let options = options::Options::parse(rest, &["--target"], &[], &usage(task))?;
            let handler = match options.text("--target") {
                Some(triple) => build::handler_for(targets::Target::buildable(triple)?)?,
                None => build::handler()?,
            };
            println!("{}", handler.display());
            Ok(())
        }
        "bucket" => {
            tools::require(&["cc", "gdb"])?;
            bucket::run(rest)
        }
        "docs" => docs::generate(),
        "goroutines" => {
            tools::require(&["python3"])?;
            goroutines::run(rest)
        }
        "faulthandler" => {
            tools::require(&["cc", "python3"])?;
            faulthandler::run(rest)
        }
        "values" => {
            tools::require(&["cc", "gdb", "python3"])?;
            values::run(rest)
        }
        "test-pods" | "test-cluster" | "pictures" | "fixtures" | "bench" | "soak-s3"
        | "test-s3-peers" => run_with_own_crates(task, rest),
        _ => bail!("{}", usage("")),
    }
}

/// Tasks that need the project's own crates.
#[cfg(feature = "bench")]
fn run_with_own_crates(task: &str, rest: &[String]) -> Result<()> {
    match task {
        "test-pods" => {
            tools::require(&["cc", "gdb", "kill", "unzip", "zstd"])?;
            pods::test(rest.first().map(String::as_str))
        }
        "test-cluster" => cluster::run(rest),
        "pictures" => {
            tools::require(&["gdb", "tmux"])?;
            pictures::run(rest)
        }
        "fixtures" => {
            tools::require(&["cc", "g++", "gdb"])?;
            tools::wish(&["dwz", "musl-gcc", "xz"]);
            fixtures::run(rest)
        }
        "bench" => {
            if !options::asks_for_help(rest) {
                tools::require(&["cc"])?;
            }
            bench::run(rest)
        }
        "soak-s3" => s3::soak(rest),
        _ => s3::test_peers(),
    }
}

/// This program was built without the project's own crates: cargo builds the other one and becomes it.
#[cfg(not(feature = "bench"))]
fn run_with_own_crates(task: &str, rest: &[String]) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let mut cargo = build::cargo();
    if let Ok(directory) = std::env::current_dir() {
        cargo.current_dir(directory);
    }
    let manifest = build::root().join("Cargo.toml");
    cargo.args(["run", "--package", "xtask", "--manifest-path"]);
    cargo.arg(manifest).arg("--").arg(task).args(rest);
    Err(anyhow::Error::new(cargo.exec()).context("cannot run cargo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_task_tells_its_own_usage_and_none_tells_them_all() {
        for (name, options, what) in TASKS.iter().filter(|(name, ..)| *name != "--help") {
            let own = usage(name);
            assert!(
                own.contains(
                    &format!("cargo xtask {name} {options}")
                        .trim_end()
                        .to_owned()
                )
            );
            assert!(own.contains(what) && usage("").contains(what), "{own}");
        }
    }
}
