//! Tasks of this repository.
//!
//! ```text
//! cargo xtask test      everything that CI runs: all tests, with the static handler built first
//! cargo xtask demo      real crashes, captured, listed, explained, and compared with gdb
//! cargo xtask test-pods the agent in a pod of its own, dumps of pods in an S3 server, large numbers
//! cargo xtask charts    lints, renders and validates the Helm chart; `--bless` takes it as it is
//! cargo xtask image     builds the agent's container image with buildah; `--push REGISTRY/NAME`
//! cargo xtask handler   builds the static handler and prints its path
//! cargo xtask bench     measures against peers
//! cargo xtask bucket    a store with hundreds of real crashes, to try the TUI with
//! cargo xtask pictures  every view of the TUI, driven in tmux, as a picture for `docs/tui`
//! cargo xtask soak-s3   a thousand uploads past faults, kills and restarts, looked at by another client
//! cargo xtask test-s3-peers   the store's tests against another make of server
//! cargo xtask fixtures  builds the corpus and compares backtraces with gdb's
//! cargo xtask docs      regenerates man pages and completions
//! ```

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

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let task = words.next().unwrap_or_default();
    let rest: Vec<String> = words.collect();
    match task.as_str() {
        "test" => {
            tools::require(&["cc", "g++", "gdb", "unzip", "zstd"])?;
            tools::wish(&["dwz", "musl-gcc", "xz"]);
            // Pods are tested where there is a container runtime.
            if let Err(error) = tools::offer(&["containerd", "runc"]) {
                println!("SKIPPED: pods are not tested: {error:#}");
            }
            charts::check(charts::Snapshots::Compare)?;
            tools::wish(&["docker-registry", "htpasswd", "openssl"]);
            build::test(&rest)
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
            let digest = image::build(&image::ImageOptions::parse(&rest)?)?;
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
            bucket::run(&rest)
        }
        "pictures" => {
            tools::require(&["gdb", "tmux"])?;
            pictures::run(&rest)
        }
        "fixtures" => {
            tools::require(&["cc", "g++", "gdb"])?;
            tools::wish(&["dwz", "musl-gcc", "xz"]);
            fixtures::run(&rest)
        }
        "docs" => docs::generate(),
        "bench" => {
            tools::require(&["cc"])?;
            bench::run(&rest)
        }
        "soak-s3" => s3::soak(&rest),
        "test-s3-peers" => s3::test_peers(),
        _ => bail!(
            "usage: cargo xtask test | test-pods | test-s3-peers | soak-s3 | charts | image | demo | handler | docs | bench | bucket | pictures | fixtures"
        ),
    }
}
