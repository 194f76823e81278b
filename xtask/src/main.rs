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
//! cargo xtask docs      regenerates man pages and completions
//! ```

mod bench;
mod build;
mod charts;
mod crash;
mod demo;
mod docs;
mod guardian;
mod image;
mod pods;
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
            tools::require(&["cc", "gdb", "unzip", "zstd"])?;
            // Pods are tested where there is a container runtime.
            if let Err(error) = tools::offer(&["containerd", "runc"]) {
                println!("SKIPPED: pods are not tested: {error:#}");
            }
            charts::check(charts::Snapshots::Compare)?;
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
        "docs" => docs::generate(),
        "bench" => {
            tools::require(&["cc"])?;
            bench::run(&rest)
        }
        _ => bail!(
            "usage: cargo xtask test | test-pods | charts | image | demo | handler | docs | bench"
        ),
    }
}
