//! Processes that are killed, frozen or starved of memory at a random byte of their dump: what is
//! left of their cores, whether the dump says why and by whom, and whether it has a backtrace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use super::node::{Dump, Node, Way, median, wait_for_dump};

/// What befalls the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kill,
    CgroupKill,
    OutOfMemory,
    Frozen,
    FrozenV1,
}

impl Fate {
    const ALL: [Self; 5] = [
        Self::Kill,
        Self::CgroupKill,
        Self::OutOfMemory,
        Self::Frozen,
        Self::FrozenV1,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::CgroupKill => "cgroup.kill",
            Self::OutOfMemory => "oom",
            Self::Frozen => "freezer-v2",
            Self::FrozenV1 => "freezer-v1",
        }
    }

    /// Cause that a cut core must name, and who must be named as the sender.
    fn expected(self) -> (&'static str, Option<String>) {
        match self {
            Self::Kill => ("killed", Some("`kill`".to_owned())),
            Self::CgroupKill => ("killed", own_name()),
            Self::OutOfMemory => ("oom_killed", Some("(the kernel)".to_owned())),
            Self::Frozen | Self::FrozenV1 => ("frozen", None),
        }
    }

    /// Where its cgroup can be made, and the file that has to be in it.
    fn place(self) -> (&'static [&'static str], &'static str) {
        const UNIFIED: &[&str] = &["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        match self {
            Self::Kill | Self::CgroupKill => (UNIFIED, "cgroup.kill"),
            Self::Frozen => (UNIFIED, "cgroup.freeze"),
            Self::FrozenV1 => (&["/sys/fs/cgroup/freezer"], "freezer.state"),
            Self::OutOfMemory => (&["/sys/fs/cgroup/memory", "/sys/fs/cgroup"], "cgroup.procs"),
        }
    }
}

/// This program, as a dump names the sender of a signal.
fn own_name() -> Option<String> {
    let name = fs::read_to_string("/proc/self/comm").ok()?;
    Some(format!("`{}`", name.trim_end()))
}

/// A cgroup that is removed when it is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(fate: Fate) -> Option<Self> {
        let (parents, file) = fate.place();
        let parent = parents.iter().map(Path::new).find(|path| path.is_dir())?;
        let group = Self(parent.join(format!("cdh-bench-{}", std::process::id())));
        fs::create_dir_all(&group.0).ok()?;
        group.0.join(file).exists().then_some(group)
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.0.join(file);
        fs::write(&path, value).with_context(|| format!("{} = {value}", path.display()))
    }

    /// Leaves it so many bytes more than it has now.
    fn limit(&self, headroom: u64) -> Result<()> {
        let (usage, limit) = match self.0.join("memory.max").exists() {
            true => ("memory.current", "memory.max"),
            false => ("memory.usage_in_bytes", "memory.limit_in_bytes"),
        };
        let used: u64 = fs::read_to_string(self.0.join(usage))?.trim().parse()?;
        self.write(limit, &(used + headroom).to_string())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..500 {
            if fs::remove_dir(&self.0).is_ok() || !self.0.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What came of the rounds.
#[derive(Default)]
struct Tally {
    complete: usize,
    right_cause: usize,
    sender: usize,
    backtraces: usize,
    parts: Vec<f64>,
    to_end: Vec<f64>,
}

pub(super) struct Options {
    pub mib: u64,
    pub rounds: usize,
    pub only: Vec<String>,
}

pub(super) fn run(way: Way, options: &Options) -> Result<()> {
    let node = Node::start(way)?;
    let mib = options.mib.to_string();
    let words = ["random", mib.as_str()];
    // How long an undisturbed dump takes that holds its process to the end.
    node.set(&json!({ "strategy": "zstd" }))?;
    let mut child = node.ready(&words, None)?;
    drop(child.stdin.take());
    wait_for_dump(child.id())?;
    let begun = Instant::now();
    child.wait()?;
    let whole = begun.elapsed();
    node.take_one()?;
    println!(
        "{mib} MiB, {} rounds, an undisturbed dump holds its process for {whole:.2?}",
        options.rounds
    );
    println!(
        "{:<12} {:<9} {:>9} {:>12} {:>8} {:>11} {:>14} {:>16}",
        "", "", "complete", "right cause", "sender", "backtraces", "stored part", "ends after ms"
    );
    let mut random = Random(u64::from(std::process::id()) | 1 << 40);
    for fate in Fate::ALL {
        for held in [true, false] {
            let name = format!("{} {}", fate.name(), if held { "held" } else { "free" });
            if !options.only.is_empty()
                && !options.only.iter().any(|only| name.contains(only.as_str()))
            {
                continue;
            }
            node.set(&json!({ "pin": held, "strategy": "zstd" }))?;
            let mut tally = Tally::default();
            for _ in 0..options.rounds {
                // Of memory that cannot be compressed. A moment of time would be past the end of a
                // dump that is quicker than the first one.
                let bytes = (options.mib << 20) as f64 * (0.05 + 0.8 * random.next());
                let Some(cgroup) = Cgroup::new(fate) else {
                    eprintln!("skipped: {} is not here", fate.name());
                    break;
                };
                let (dump, to_end) = strike(&node, fate, &cgroup, &words, bytes as u64)?;
                tally.add(fate, &dump, to_end);
            }
            let all = tally.parts.len();
            let of = |count: usize| format!("{count}/{all}");
            println!(
                "{:<12} {:<9} {:>9} {:>12} {:>8} {:>11} {:>13.1}% {:>16.0}",
                fate.name(),
                if held { "held" } else { "not held" },
                of(tally.complete),
                of(tally.right_cause),
                of(tally.sender),
                of(tally.backtraces),
                100.0 * median(&tally.parts),
                median(&tally.to_end)
            );
        }
    }
    Ok(())
}

impl Tally {
    fn add(&mut self, fate: Fate, dump: &Dump, to_end: Duration) {
        let (cause, sender) = fate.expected();
        let told = dump.manifest["killed"]
            .as_str()
            .or(dump.manifest["verdict"]["evidence"].as_str())
            .unwrap_or_default();
        self.complete += usize::from(dump.is_complete());
        self.right_cause += usize::from(dump.cause() == cause);
        self.sender += usize::from(sender.is_some_and(|sender| told.contains(&sender)));
        self.backtraces += usize::from(dump.has_backtrace);
        self.parts.push(dump.part());
        self.to_end.push(to_end.as_secs_f64() * 1e3);
        if std::env::var_os("CDH_BENCH_LOGS").is_some() {
            eprintln!("{}\n{}", dump.manifest["verdict"], dump.log);
        }
    }
}

/// Lets one process crash and its fate come upon it; the dump, and how long it lived on after that.
fn strike(
    node: &Node,
    fate: Fate,
    cgroup: &Cgroup,
    words: &[&str],
    bytes: u64,
) -> Result<(Dump, Duration)> {
    let group = (fate != Fate::Kill).then_some(cgroup.0.as_path());
    let mut child = node.ready(words, group)?;
    if fate == Fate::OutOfMemory {
        cgroup.limit(8 << 20)?;
    }
    drop(child.stdin.take());
    wait_for_dump(child.id())?;
    node.wait_for_bytes(bytes)?;
    let begun = Instant::now();
    let mut hungry = None;
    match fate {
        Fate::Kill => {
            let id = child.id().to_string();
            Command::new("kill").args(["-9", &id]).status()?;
        }
        Fate::CgroupKill => cgroup.write("cgroup.kill", "1")?,
        Fate::OutOfMemory => hungry = Some(eat(node, cgroup)?),
        Fate::Frozen => cgroup.write("cgroup.freeze", "1")?,
        Fate::FrozenV1 => cgroup.write("freezer.state", "FROZEN")?,
    }
    let frozen = matches!(fate, Fate::Frozen | Fate::FrozenV1);
    if !frozen {
        child.wait()?;
    }
    let to_end = begun.elapsed();
    let dump = node.take_one()?;
    match fate {
        Fate::Frozen => cgroup.write("cgroup.freeze", "0")?,
        Fate::FrozenV1 => cgroup.write("freezer.state", "THAWED")?,
        _ => {}
    }
    child.wait()?;
    if let Some(mut hungry) = hungry {
        let _ = hungry.kill();
        let _ = hungry.wait();
    }
    Ok((dump, to_end))
}

/// A process that takes more memory than the cgroup has left.
fn eat(node: &Node, cgroup: &Cgroup) -> Result<Child> {
    let script = r#"echo $$ > "$1"; exec "$2" random 64 wait"#;
    Ok(Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(cgroup.0.join("cgroup.procs"))
        .arg(node.bench.path("crash"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?)
}

/// Moments that differ from run to run.
struct Random(u64);

impl Random {
    /// From 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}
