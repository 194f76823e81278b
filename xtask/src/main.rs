//! Tasks of this repository: `cargo xtask TASK [OPTION]…`. `--help` names them, and behind a task its options.

mod bench;
mod bucket;
mod build;
mod charts;
mod crash;
mod demo;
mod docs;
mod fixtures;
mod guardian;
mod image;
mod options;
mod pictures;
mod pods;
mod python;
mod s3;
mod tools;

use std::process::ExitCode;

use anyhow::{Result, bail};

use options::Help;

/// Tasks, what may stand behind them, and what they do.
const TASKS: [(&str, &str, &str); 14] = [
    (
        "test",
        "[ARGUMENT OF cargo test]…",
        "everything that CI runs: all tests, with the static handler built first",
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
        "charts",
        "[--bless]",
        "lints, renders and validates the Helm chart; `--bless` takes it as it is",
    ),
    (
        "image",
        "[NAME] [--push REGISTRY/NAME] [--debug]",
        "builds the agent's container image with buildah",
    ),
    (
        "handler",
        "",
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
    ("docs", "", "regenerates man pages and completions"),
    ("--help", "", "this"),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<Help>() {
            Some(usage) => {
                println!("{usage}");
                ExitCode::SUCCESS
            }
            None => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
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
    // Each measurement has options of its own.
    match task {
        "bench" => {}
        "--help" | "-h" => options::offer_help(&words, &usage(""))?,
        _ => options::offer_help(rest, &usage(task))?,
    }
    match task {
        "test" => {
            tools::require(&["cc", "g++", "gdb", "unzip", "zstd"])?;
            tools::wish(&["dwz", "musl-gcc", "xz"]);
            // Pods are tested where there is a container runtime.
            if let Err(error) = tools::offer(&["containerd", "runc"]) {
                println!("SKIPPED: pods are not tested: {error:#}");
            }
            charts::check(charts::Snapshots::Compare)?;
            tools::wish(&["docker-registry", "htpasswd", "openssl"]);
            build::test(rest)
        }
        "test-pods" => {
            tools::require(&["cc", "gdb", "unzip", "zstd"])?;
            pods::test(rest.first().map(String::as_str))
        }
        "charts" => charts::check(match rest.iter().any(|word| word == "--bless") {
            true => charts::Snapshots::Write,
            false => charts::Snapshots::Compare,
        }),
        "image" => {
            let digest = image::build(&image::ImageOptions::parse(rest)?)?;
            println!("{digest}");
            Ok(())
        }
        "demo" => {
            tools::require(&["cc", "gdb"])?;
            demo::run()
        }
        "handler" => {
            println!("{}", build::handler()?.display());
            Ok(())
        }
        "bucket" => {
            tools::require(&["cc", "gdb"])?;
            bucket::run(rest)
        }
        "pictures" => {
            tools::require(&["gdb", "tmux"])?;
            pictures::run(rest)
        }
        "fixtures" => {
            tools::require(&["cc", "g++", "gdb"])?;
            tools::wish(&["dwz", "musl-gcc", "xz"]);
            fixtures::run(rest)
        }
        "docs" => docs::generate(),
        "bench" => {
            if !options::asks_for_help(rest) {
                tools::require(&["cc"])?;
            }
            bench::run(rest)
        }
        "soak-s3" => s3::soak(rest),
        "test-s3-peers" => s3::test_peers(),
        _ => bail!("{}", usage("")),
    }
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
