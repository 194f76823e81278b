//! Many processes that crash at once: how many dumps are lost, how long the processes have to wait,
//! and what all handlers together take of the node's memory.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use super::memory;
use super::peers::{Bench, Peer};
use crate::guardian::Guardian;
use crate::options::is_wanted;

/// How long nothing may change at the end before a peer counts as done.
const QUIET: Duration = Duration::from_millis(1500);
const PATIENCE: Duration = Duration::from_secs(600);

pub(super) struct Options {
    pub count: usize,
    pub mib: u64,
    pub only: Vec<String>,
    pub peers: Vec<String>,
}

/// What a storm was like.
struct Storm {
    kept: usize,
    reaped: f64,
    done: f64,
    resident_mib: f64,
    proportional_mib: f64,
}

pub(super) fn run(options: &Options) -> Result<()> {
    let bench = Bench::prepare()?;
    let guardian = Guardian::start(bench.directory.path())?
        .context("only root may change the kernel's core settings")?;
    let mut peers = vec![
        (bench.ours("cdh early", json!({ "release": "early" })), 1024),
        (bench.ours("cdh auto", json!({ "release": "auto" })), 1024),
        (bench.ours("cdh hold", json!({})), 1024),
        (bench.cat()?, 1024),
    ];
    peers.extend(bench.zstd()?.map(|peer| (peer, 1024)));
    // What the package and the other's installation set.
    peers.extend(bench.systemd()?.map(|peer| (peer, 16)));
    for given in &options.peers {
        peers.push((bench.other(given)?, 128));
    }
    println!("{} processes of {} MiB", options.count, options.mib);
    println!(
        "{:<20} {:>6} {:>12} {:>10} {:>10} {:>10}",
        "", "lost", "reaped s", "done s", "RSS MiB", "PSS MiB"
    );
    for (peer, limit) in &peers {
        if !is_wanted(&peer.name, &options.only) {
            continue;
        }
        fs::write("/proc/sys/kernel/core_pipe_limit", limit.to_string())?;
        let storm = storm(&bench, peer, options)?;
        println!(
            "{:<20} {:>6} {:>12.3} {:>10.2} {:>10.1} {:>10.1}",
            peer.name,
            options.count - storm.kept.min(options.count),
            storm.reaped,
            storm.done,
            storm.resident_mib,
            storm.proportional_mib
        );
    }
    drop(guardian);
    Ok(())
}

fn storm(bench: &Bench, peer: &Peer, options: &Options) -> Result<Storm> {
    if let Some(settings) = &peer.settings {
        fs::write(bench.path("cdh-handler.json"), settings.to_string())?;
    }
    fs::write("/proc/sys/kernel/core_pattern", bench.unmetered(peer))?;
    super::capture::empty(&peer.output)?;
    let (reader, writer) = std::io::pipe()?;
    let mib = options.mib.to_string();
    let start = || -> Result<Child> {
        Ok(Command::new(bench.path("crash"))
            .args(["heap", &mib, "wait"])
            .current_dir(bench.directory.path())
            .stdin(reader.try_clone()?)
            .stdout(Stdio::piped())
            .spawn()?)
    };
    let mut children = Vec::new();
    for _ in 0..options.count {
        children.push(start()?);
    }
    for child in &mut children {
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
    }
    let _ = Command::new("sync").status();
    drop(reader);
    let stop = AtomicBool::new(false);
    let names = handlers(bench, peer);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| memory::watch(&names, None, &stop));
        let begun = Instant::now();
        drop(writer);
        for child in &mut children {
            let _ = child.wait();
        }
        let reaped = begun.elapsed().as_secs_f64();
        let (kept, done) = wait_for_all(peer, options.count, begun);
        stop.store(true, Ordering::Relaxed);
        let most = watching.join().unwrap_or_default().handlers;
        Ok(Storm {
            kept,
            reaped,
            done,
            resident_mib: most.resident as f64 / 1024.0,
            proportional_mib: most.proportional as f64 / 1024.0,
        })
    })
}

/// Names of the processes that count as handlers.
pub(super) fn handlers(bench: &Bench, peer: &Peer) -> Vec<String> {
    let mut names = vec![bench.path("").display().to_string()];
    if let Some(program) = peer.pattern.split(' ').nth(2) {
        names.push(program.to_owned());
    }
    names
}

/// Waits until as many dumps are there as crashed, or nothing has changed for a while.
fn wait_for_all(peer: &Peer, count: usize, begun: Instant) -> (usize, f64) {
    let mut last = (0, 0);
    let mut changed = begun.elapsed();
    while begun.elapsed() < PATIENCE {
        let now = dumps(&peer.output);
        if now != last {
            (last, changed) = (now, begun.elapsed());
        }
        let all = peer.settings.is_some() && now.0 >= count;
        if all || begun.elapsed() - changed > QUIET.max(changed / 4) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    (last.0, changed.as_secs_f64())
}

/// Dumps below a directory, and their bytes. Of ours only the sealed ones count.
pub(super) fn dumps(directory: &Path) -> (usize, u64) {
    let mut found = (0, 0);
    let spool = directory.join("spool");
    let is_ours = spool.is_dir();
    let entries = fs::read_dir(if is_ours { &spool } else { directory });
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let length = entry.metadata().map_or(0, |metadata| metadata.len());
        let complete = match is_ours {
            true => fs::read_to_string(entry.path().join("manifest.json"))
                .is_ok_and(|text| !name.ends_with(".partial") && text.contains("\"complete\"")),
            false => length > 0,
        };
        found.0 += usize::from(complete);
        found.1 += length;
    }
    found
}
