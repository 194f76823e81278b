//! Processes that poll on io_uring while they are dumped: its completions end a dump that the kernel
//! writes by itself.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use cdh_testkit::{NOT_HERE, Program};

use super::node::{Node, Way, median};

pub(super) fn run(way: Way, rounds: usize, mib: u64) -> Result<()> {
    let node = Node::start(way)?;
    let program = Program::Kinds.build(node.bench.directory.path())?;
    let mib = mib.to_string();
    println!("{mib} MiB, {rounds} crashes each");
    let crash = |every: &str| -> Result<bool> {
        let status = Command::new(&program)
            .args(["io-uring-busy", &mib, every])
            .status()?;
        Ok(status.code() != Some(NOT_HERE))
    };
    let mut expected = 0.0;
    for every in ["20000", "5000", "1000"] {
        let mut complete = 0;
        let mut interrupted = 0;
        let mut backtraces = 0;
        for _ in 0..rounds {
            if !crash(every)? {
                eprintln!("skipped: no io_uring here");
                return Ok(());
            }
            let dump = node.take_one()?;
            complete += usize::from(dump.is_complete());
            interrupted += usize::from(dump.cause() == "interrupted");
            backtraces += usize::from(dump.has_backtrace);
            if std::env::var_os("CDH_BENCH_LOGS").is_some() && !dump.is_complete() {
                eprintln!("{}\n{}", dump.manifest["verdict"], dump.log);
            }
            if dump.is_complete() {
                expected = dump.manifest["core"]["size"].as_f64().unwrap_or(0.0);
            }
        }
        println!(
            "cdh ({way:?}), every {every} µs: {complete}/{rounds} complete, {interrupted} reported as interrupted, {backtraces} backtraces"
        );
    }
    let cat = node.bench.cat()?;
    fs::write("/proc/sys/kernel/core_pattern", &cat.pattern)?;
    ensure!(expected > 0.0, "no core was complete");
    let mut parts = Vec::new();
    for _ in 0..rounds {
        let _ = fs::remove_file(node.bench.usage());
        crash("5000")?;
        super::node::wait_until("cat does not end", || node.bench.usage().exists())?;
        let files = fs::read_dir(&cat.output)?.flatten();
        for file in files.filter(|file| file.path().is_file()) {
            parts.push(file.metadata()?.len() as f64 / expected);
            fs::remove_file(file.path())?;
        }
    }
    println!(
        "cat, every 5000 µs: {:.1} % kept (median)",
        100.0 * median(&parts)
    );
    Ok(())
}
