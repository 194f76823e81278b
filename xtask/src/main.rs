//! Tasks of this repository.
//!
//! ```text
//! cargo xtask test      everything that CI runs: all tests, with the static handler built first
//! cargo xtask demo      real crashes, captured, listed, explained, and compared with gdb
//! cargo xtask handler   builds the static handler and prints its path
//! cargo xtask bench     measures against peers
//! cargo xtask fixtures  builds the corpus and compares backtraces with gdb's
//! cargo xtask docs      regenerates man pages and completions
//! ```

mod bench;
mod build;
mod crash;
mod demo;
mod docs;
mod fixtures;
mod guardian;
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
            build::test(&rest)
        }
        "demo" => {
            tools::require(&["cc", "gdb"])?;
            demo::run()
        }
        "handler" => {
            println!("{}", build::handler()?.display());
            Ok(())
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
        _ => bail!("usage: cargo xtask test | demo | handler | docs | bench | fixtures"),
    }
}
