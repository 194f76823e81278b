//! 500 processes of 20 to 300 MiB that crash within a minute, of five different bugs, into a much smaller spool. The
//! disk must keep its floor, and the memory of the agent and all handlers is measured. The first dump of each bug must
//! be complete, and each of the others recorded. The agent runs as on a node: with rates it ships into a directory
//! store; with a quota alone it ships nothing, for there the spool has to fill. Everything that is claimed of us is checked, and a failure
//! fails the measurement.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cdh_agent::ledger::{Ledger, LedgerRecord, Outcome};
use cdh_bundle::{Manifest, Verdict};
use serde_json::json;

use super::daemon::Daemon;
use super::memory::{self, Most};
use super::peers::{Bench, Peer};
use super::storm::{dumps, handlers};
use crate::build;
use crate::guardian::Guardian;
use crate::options::is_wanted;

/// Sizes of the processes, MiB.
const SIZES: [u64; 6] = [20, 40, 60, 80, 120, 300];
/// Bugs that there are.
const BUGS: usize = 5;
/// In which all of them crash.
const TIME: Duration = Duration::from_secs(50);
/// Bytes of the spool's file system.
const DISK: &str = "size=2g,mode=0700";
/// Bytes that stay free of it.
const FLOOR: u64 = 256 << 20;
/// What the agent and all handlers may have together, resident, KiB: half of what the chart grants the agent
/// alone.
const MEMORY: u64 = 256 << 10;
/// How long nothing may change at the end before a peer counts as done.
const QUIET: Duration = Duration::from_secs(6);

/// Our handler, with a quota and without rates, and an agent that does not ship.
const WITHOUT_RATES: &str = "quota alone";

pub(super) struct Options {
    pub count: usize,
    pub only: Vec<String>,
    pub peers: Vec<String>,
}

/// A file system in memory, unmounted when it is dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", DISK, "cdh-bench"]).arg(at);
        let mounted = mount.status().is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("no tmpfs can be mounted: the spool is on the machine's own disk");
        }
        mounted.then(|| Self(at.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

pub(super) fn run(options: &Options) -> Result<()> {
    let bench = Bench::prepare()?;
    let Some(guardian) = Guardian::start(bench.directory.path())? else {
        anyhow::bail!("only root may change the kernel's core settings");
    };
    let limits = json!({
        "spool_quota": "1500M", "disk_floor": FLOOR,
        "rate": {"window": "10m", "fingerprint_full": 1, "fingerprint_dumps": 20,
                 "workload_full": 0, "workload_dumps": 0},
    });
    // Every core is wanted here: only the quota bounds them.
    let only_quota = json!({
        "spool_quota": "1G", "disk_floor": FLOOR,
        "rate": {"fingerprint_full": 0, "fingerprint_dumps": 0, "workload_full": 0,
                 "workload_dumps": 0},
    });
    // The spool is where an agent of this state directory looks for it.
    let ours = |name: &str, limits: serde_json::Value| {
        let mut peer = bench.ours(name, json!({ "limits": limits }));
        if let Some(settings) = &mut peer.settings {
            settings["state"] = json!(bench.path("out"));
        }
        (peer, 1024)
    };
    let mut peers = vec![ours("cdh", limits), ours(WITHOUT_RATES, only_quota)];
    peers.extend(bench.systemd()?.map(|peer| (peer, 16)));
    for given in &options.peers {
        peers.push((bench.other(given)?, 128));
    }
    let cdh = build::cdh_release()?;
    let _disk = Disk::mount(&bench.path("out"));
    println!(
        "{} processes of 20 to 300 MiB in {} s",
        options.count,
        TIME.as_secs()
    );
    for (peer, limit) in &peers {
        if !is_wanted(&peer.name, &options.only) {
            continue;
        }
        fs::write("/proc/sys/kernel/core_pipe_limit", limit.to_string())?;
        flood(&bench, peer, &cdh, options.count)?;
    }
    drop(guardian);
    Ok(())
}

fn flood(bench: &Bench, peer: &Peer, cdh: &Path, count: usize) -> Result<()> {
    if let Some(settings) = &peer.settings {
        fs::write(bench.path("cdh-handler.json"), settings.to_string())?;
    }
    super::capture::empty(&peer.output)?;
    let _ = fs::remove_dir_all(bench.path("store"));
    let ships = peer.settings.is_some() && peer.name != WITHOUT_RATES;
    let daemon = match (&peer.settings, ships) {
        (None, _) => None,
        (_, true) => Some(Daemon::start(bench, cdh, &peer.output, "events")?),
        (_, false) => Some(Daemon::start(bench, cdh, &peer.output, "off")?),
    };
    fs::write("/proc/sys/kernel/core_pattern", bench.unmetered(peer))?;
    let stop = AtomicBool::new(false);
    let least = AtomicU64::new(u64::MAX);
    let names = handlers(bench, peer);
    let ledger = Ledger::of(&peer.output);
    let agent = daemon.as_ref().map(Daemon::id);
    let (crashed, most) = std::thread::scope(|scope| -> Result<(usize, Most)> {
        let watching = scope.spawn(|| memory::watch(&names, agent, &stop));
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                least.fetch_min(free(&peer.output), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let begun = Instant::now();
        let crashed = crash_all(bench, count, begun);
        let all_crashed = begun.elapsed().as_secs_f64();
        let done = wait(peer, &ledger, count, begun);
        let shipped = match &daemon {
            Some(daemon) if ships => daemon.has_shipped(),
            _ => Ok(()),
        };
        let all_shipped = begun.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        let most = watching.join().unwrap_or_default();
        let crashed = crashed?;
        println!("\n{}", peer.name);
        println!("  crashed              {crashed} in {all_crashed:.1} s, done after {done:.1} s");
        shipped?;
        if ships {
            println!("  shipped              after {all_shipped:.1} s");
        }
        Ok((crashed, most))
    })?;
    if let Some(daemon) = daemon {
        daemon.stop()?;
    }
    println!(
        "  complete dumps       {}",
        dumps(&peer.output).0 + complete(&stored(bench)).count()
    );
    println!(
        "  stored               {} MiB",
        allocated(&peer.output) >> 20
    );
    if ships {
        let store = bench.path("store");
        println!(
            "  in the store         {} dumps, {} MiB",
            stored(bench).len(),
            allocated(&store) >> 20
        );
    }
    let free = least.load(Ordering::Relaxed);
    println!("  least free disk      {} MiB", free >> 20);
    let shown = |memory: memory::Memory| {
        let (resident, proportional) = (memory.resident >> 10, memory.proportional >> 10);
        format!("{resident} MiB RSS, {proportional} MiB PSS")
    };
    println!("  handlers' memory     {}", shown(most.handlers));
    if peer.settings.is_none() {
        return Ok(());
    }
    println!("  agent's memory       {}", shown(most.agent));
    println!(
        "  at one time          {}, of {} MiB",
        shown(most.together),
        MEMORY >> 10
    );
    check(bench, &ledger, crashed, free, &peer.name)?;
    let together = most.handlers.resident + most.agent.resident;
    ensure!(most.agent.resident > 0, "the agent's memory was not seen");
    ensure!(
        together <= MEMORY,
        "agent and handlers had {together} KiB, their bound is {MEMORY} KiB"
    );
    Ok(())
}

/// Manifests of what is in the store.
fn stored(bench: &Bench) -> Vec<Manifest> {
    let days = fs::read_dir(bench.path("store").join("dumps"));
    let days = days.into_iter().flatten().flatten();
    let files = days.flat_map(|day| fs::read_dir(day.path()).into_iter().flatten().flatten());
    let paths = files.map(|file| file.path());
    let manifests = paths.filter(|path| path.extension().is_some_and(|end| end == "json"));
    manifests
        .filter_map(|path| Manifest::from_json(&fs::read(path).ok()?).ok())
        .collect()
}

fn complete(manifests: &[Manifest]) -> impl Iterator<Item = &Manifest> {
    let is_complete = |one: &&Manifest| one.verdict == Verdict::Complete;
    manifests.iter().filter(is_complete)
}

/// Lets them crash, evenly over the time; how many a signal has ended.
fn crash_all(bench: &Bench, count: usize, begun: Instant) -> Result<usize> {
    let mut children: Vec<Child> = Vec::new();
    let mut crashed = 0;
    let mut reap = |children: &mut Vec<Child>| {
        children.retain_mut(|child| match child.try_wait() {
            Ok(Some(status)) => {
                use std::os::unix::process::ExitStatusExt;
                crashed += usize::from(status.signal().is_some());
                false
            }
            _ => true,
        });
    };
    for number in 0..count {
        let due = TIME.mul_f64(number as f64 / count.max(1) as f64);
        while begun.elapsed() < due || memory_is_short() {
            reap(&mut children);
            std::thread::sleep(Duration::from_millis(2));
        }
        let size = SIZES[number % SIZES.len()];
        // Cores of those that are kept are like those of programs; the rest is made quickly.
        let kind = match number {
            ..20 => "heap",
            _ if number.is_multiple_of(10) => "heap",
            _ => "pages",
        };
        let bug = number % BUGS;
        let child = Command::new(bench.path("crash"))
            .args([kind, &size.to_string(), "bug", &bug.to_string()])
            .current_dir(bench.directory.path())
            .stdout(Stdio::null())
            .spawn()?;
        children.push(child);
    }
    while !children.is_empty() {
        reap(&mut children);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(crashed)
}

/// The machine itself must not run out: a real node would have started no more of them.
fn memory_is_short() -> bool {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.is_some_and(|kib| kib < 2 << 20)
}

/// Waits until each crash is in the ledger, or nothing has changed for a while.
fn wait(peer: &Peer, ledger: &Ledger, count: usize, begun: Instant) -> f64 {
    let mut last = (0, 0, 0);
    let mut changed = begun.elapsed();
    loop {
        let (found, bytes) = dumps(&peer.output);
        let records = ledger.totals().crashes();
        let now = (found, bytes, records);
        if now != last {
            (last, changed) = (now, begun.elapsed());
        }
        let all = peer.settings.is_some() && records >= count as u64;
        if all || begun.elapsed() - changed > QUIET {
            return changed.as_secs_f64();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What is claimed of our handler.
fn check(bench: &Bench, ledger: &Ledger, crashed: usize, free: u64, name: &str) -> Result<()> {
    let crash = bench.path("crash");
    let is_ours = |record: &LedgerRecord| {
        let exe = record.exe.as_ref().map(ToString::to_string);
        record.outcome.is_crash() && exe.is_none_or(|exe| exe == crash.display().to_string())
    };
    let mut records = ledger.since(0);
    let given_up = records
        .iter()
        .filter(|record| !record.outcome.is_crash())
        .count();
    records.retain(is_ours);
    let mut sums: BTreeMap<String, usize> = BTreeMap::new();
    for record in &records {
        *sums.entry(record.key()).or_default() += 1;
    }
    for (what, count) in &sums {
        println!("  {what:<20} {count}");
    }
    let total: usize = sums.values().sum();
    println!("  together             {total}");
    if given_up > 0 {
        println!("  made smaller later   {given_up}");
    }
    let mut waits: Vec<f64> = records
        .iter()
        .map(|record| record.blocked_seconds)
        .collect();
    waits.sort_by(f64::total_cmp);
    if let (Some(median), Some(longest)) = (waits.get(waits.len() / 2), waits.last()) {
        println!("  blocked              {median:.3} s median, {longest:.3} s at most");
    }
    let kept = records
        .iter()
        .filter(|record| record.outcome == Outcome::Kept);
    let kept: BTreeSet<_> = kept
        .filter_map(|record| record.fingerprint.clone())
        .collect();
    let bugs: BTreeSet<_> = records
        .iter()
        .filter_map(|record| record.fingerprint.clone())
        .collect();
    let mut there = stored(bench);
    for entry in fs::read_dir(bench.path("out").join("spool"))?.flatten() {
        let json = fs::read(entry.path().join("manifest.json")).unwrap_or_default();
        there.extend(Manifest::from_json(&json).ok());
    }
    let whole: BTreeSet<_> = complete(&there)
        .filter_map(|manifest| manifest.fingerprint.clone())
        .collect();
    println!(
        "  bugs                 {} seen, {} kept complete",
        bugs.len(),
        whole.len()
    );
    let reasons = records
        .iter()
        .all(|record| record.outcome == Outcome::Kept || record.reason.is_some());
    ensure!(total == crashed, "{total} records of {crashed} crashes");
    ensure!(reasons, "a crash was reduced or dropped without a reason");
    // By the quota alone the oldest cores make room, whatever they are of.
    ensure!(
        name == WITHOUT_RATES || (bugs.len() == BUGS && whole == bugs && kept == bugs),
        "a bug has no complete dump"
    );
    ensure!(
        free >= FLOOR,
        "only {free} bytes of the disk were free, the floor is {FLOOR}"
    );
    Ok(())
}

fn free(directory: &Path) -> u64 {
    let found = rustix::fs::statvfs(directory);
    found.map_or(u64::MAX, |found| {
        found.f_bavail.saturating_mul(found.f_frsize)
    })
}

/// Bytes that a directory takes, with all below it.
fn allocated(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => allocated(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
