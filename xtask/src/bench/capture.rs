//! How long a crash keeps its process, what it costs, and what it leaves, compared with other handlers.
//!
//! For each peer and each kind of memory, in turn so that whatever else the machine does hits all:
//! *blocked* from the moment of the crash until the parent has its child's status; *done* until
//! everything is on disk; processor time and peak memory of the handler and its children; bytes that
//! are allocated at the end.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::peers::{Bench, Peer};
use crate::guardian::Guardian;
use crate::options::is_wanted;

/// One crash.
#[derive(Clone, Copy, Default)]
struct Measured {
    blocked: f64,
    done: f64,
    cpu: f64,
    memory_mib: f64,
    stored_mib: f64,
}

pub(super) struct Options {
    pub mib: u64,
    pub runs: usize,
    pub kinds: Vec<String>,
    pub only: Vec<String>,
    pub peers: Vec<String>,
}

pub(super) fn run(options: &Options) -> Result<()> {
    let bench = Bench::prepare()?;
    let guardian = Guardian::start(bench.directory.path())?
        .context("only root may change the kernel's core settings")?;
    let mut peers = vec![
        bench.ours("cdh hold, auto", json!({})),
        bench.ours("cdh hold, zstd", json!({ "strategy": "zstd" })),
        bench.ours("cdh hold, raw", json!({ "strategy": "raw" })),
        bench.ours("cdh early", json!({ "release": "early" })),
        bench.ours("cdh pipe", json!({ "source": "pipe" })),
        bench.plain_file(),
        bench.cat()?,
    ];
    peers.extend(bench.zstd()?);
    peers.extend(bench.systemd()?);
    for given in &options.peers {
        peers.push(bench.other(given)?);
    }
    let wanted = |peer: &Peer| is_wanted(&peer.name, &options.only);
    peers.retain(wanted);
    fs::write("/proc/sys/kernel/core_pipe_limit", "1024")?;
    let mib = options.mib.to_string();
    let mut kinds = vec!["heap", "random", "sparse"];
    kinds.retain(|kind| options.kinds.is_empty() || options.kinds.iter().any(|one| one == kind));
    let mut results: BTreeMap<(usize, usize), Vec<Measured>> = BTreeMap::new();
    for run in 0..options.runs {
        for (number, kind) in kinds.iter().enumerate() {
            for (index, peer) in peers.iter().enumerate() {
                eprintln!("run {}: {kind}, {}", run + 1, peer.name);
                let measured = measure(&bench, peer, kind, &mib)
                    .with_context(|| format!("{kind}, {}", peer.name))?;
                results.entry((number, index)).or_default().push(measured);
            }
        }
    }
    drop(guardian);
    for (number, kind) in kinds.iter().enumerate() {
        println!("\n{kind}, {mib} MiB, medians of {} runs", options.runs);
        println!(
            "{:<20} {:>10} {:>8} {:>10} {:>8} {:>10} {:>10}",
            "", "blocked s", "x", "done s", "cpu s", "peak MiB", "stored MiB"
        );
        let median_of = |index: usize| results.get(&(number, index)).map(|all| median(all));
        let first = median_of(0).unwrap_or_default();
        for (index, peer) in peers.iter().enumerate() {
            let Some(found) = median_of(index) else {
                continue;
            };
            println!(
                "{:<20} {:>10.4} {:>8.2} {:>10.3} {:>8.2} {:>10.1} {:>10.1}",
                peer.name,
                found.blocked,
                found.blocked / first.blocked,
                found.done,
                found.cpu,
                found.memory_mib,
                found.stored_mib
            );
        }
    }
    Ok(())
}

fn median(all: &[Measured]) -> Measured {
    let of = |field: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = all.iter().map(field).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Measured {
        blocked: of(|one| one.blocked),
        done: of(|one| one.done),
        cpu: of(|one| one.cpu),
        memory_mib: of(|one| one.memory_mib),
        stored_mib: of(|one| one.stored_mib),
    }
}

fn measure(bench: &Bench, peer: &Peer, kind: &str, mib: &str) -> Result<Measured> {
    if let Some(settings) = &peer.settings {
        fs::write(bench.path("cdh-handler.json"), settings.to_string())?;
    }
    if peer.pattern.len() > 127 {
        bail!("the pattern has more than 127 bytes: {}", peer.pattern);
    }
    fs::write("/proc/sys/kernel/core_pattern", &peer.pattern)?;
    empty(&peer.output)?;
    let _ = fs::remove_file(bench.usage());
    // What is still to be written from before must not be paid by this one.
    let _ = Command::new("sync").status();
    let mut child = Command::new(bench.path("crash"))
        .args([kind, mib, "wait"])
        .current_dir(bench.directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
    std::thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    drop(child.stdin.take());
    let status = child.wait()?;
    let blocked = begun.elapsed().as_secs_f64();
    if status.signal().is_none() {
        bail!("it did not crash: {status}");
    }
    let usage = loop {
        let text = fs::read_to_string(bench.usage()).unwrap_or_default();
        if text.lines().count() >= peer.meters {
            break text;
        }
        if begun.elapsed() > Duration::from_secs(900) {
            bail!("its handler does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let done = begun.elapsed().as_secs_f64();
    let mut measured = Measured {
        blocked,
        done,
        stored_mib: allocated(&peer.output)? as f64 / f64::from(1 << 20),
        ..Measured::default()
    };
    for line in usage.lines() {
        let mut words = line
            .split(' ')
            .map(|word| word.parse::<f64>().unwrap_or(0.0));
        measured.memory_mib = measured
            .memory_mib
            .max(words.next().unwrap_or(0.0) / 1024.0);
        measured.cpu += words.next().unwrap_or(0.0) / 1000.0;
    }
    empty(&peer.output)?;
    Ok(measured)
}

pub(super) fn empty(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match path.is_dir() {
            true => fs::remove_dir_all(path)?,
            false => fs::remove_file(path)?,
        }
    }
    Ok(())
}

/// Bytes that are allocated below a directory.
fn allocated(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += match metadata.is_dir() {
            true => allocated(&entry.path())?,
            false => metadata.blocks() * 512,
        };
    }
    Ok(bytes)
}
