//! `cargo xtask bench tui`: how long the TUI lets one wait, on a store of a hundred thousand dumps.
//!
//! The store is a directory with empty bundles and manifests: a listing reads names only. `cdh` runs in a
//! pseudo-terminal of 160×45; a redraw lasts from the key to the last byte that it makes `cdh` write at once.
//! `CDH_BENCH_CDH` names the program, else the release build is made and taken.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::build;
use crate::options::Options;

/// A redraw is over when nothing more was written for so long.
const SILENCE: Duration = Duration::from_millis(12);
/// What was read or prefetched for the new selection is drawn later: that is waited for, not measured.
const AFTERWARDS: Duration = Duration::from_millis(300);
/// The listing is over when nothing more was written for so long.
const LONG_SILENCE: Duration = Duration::from_millis(700);
const PATIENCE: Duration = Duration::from_secs(30);
/// The dumps are spread over so many days.
const DAYS: i64 = 60;

/// Keys, and what they do.
const STEPS: [(&str, &str); 14] = [
    ("one page down", "\x1b[6~"),
    ("to the last", "G"),
    ("to the first", "<"),
    ("open the filter", "/"),
    ("first key of the filter", "p"),
    ("second key", "a"),
    ("third key", "y"),
    ("take the filter", "\r"),
    ("clear the filter", "\x1b"),
    ("sort by workload", "]"),
    ("turn the order round", "="),
    ("sort by program", "]"),
    ("groups", "g"),
    ("back to the dumps", "g"),
];

pub(super) fn run(words: &[String]) -> Result<()> {
    const USAGE: &str = "usage: cargo xtask bench tui [--dumps N] [--runs N]";
    let options = Options::parse(words, &["--dumps", "--runs"], &[], USAGE)?;
    let dumps: i64 = options.or("--dumps", 100_000)?;
    let runs: usize = options.or("--runs", 5)?;
    let program = match std::env::var_os("CDH_BENCH_CDH") {
        Some(program) => PathBuf::from(program),
        None => build::cdh_release()?,
    };
    let scratch = tempfile::tempdir()?;
    let store = scratch.path().join("store");
    println!("making {dumps} dumps …");
    fill(&store, dumps)?;
    let mut times: Vec<(String, Vec<f64>)> = Vec::new();
    let mut peak = (0, 0);
    for _ in 0..runs.max(1) {
        let (measured, memory) = session(&program, scratch.path(), &store)?;
        for (name, millis) in measured {
            match times.iter_mut().find(|(known, _)| *known == name) {
                Some((_, all)) => all.push(millis),
                None => times.push((name, vec![millis])),
            }
        }
        peak = (memory.0.max(peak.0), memory.1.max(peak.1));
    }
    println!("{dumps} dumps, {runs} runs: median, worst (ms)");
    for (name, mut all) in times {
        all.sort_by(f64::total_cmp);
        let median = all.get(all.len() / 2).copied().unwrap_or_default();
        let worst = all.last().copied().unwrap_or_default();
        println!("{name:<26} {median:>8.1} {worst:>8.1}");
    }
    println!("memory: {} MiB, at its peak {} MiB", peak.0, peak.1);
    Ok(())
}

/// Empty dumps of four namespaces, twelve crashes and as many pods as a cluster has.
fn fill(store: &Path, dumps: i64) -> Result<()> {
    let now = Timestamp::now();
    let step = SignedDuration::from_hours(24 * DAYS).as_millis() as i64 / dumps.max(1);
    let mut day_before = String::new();
    for n in 0..dumps {
        let at = now - SignedDuration::from_millis(n * step);
        let text = at.to_string();
        let (day, time) = text
            .split_at_checked(10)
            .context("a timestamp has a date")?;
        let time: String = time.chars().filter(char::is_ascii_digit).take(6).collect();
        let pick = |of: [&'static str; 4], by: i64| of[(n / by) as usize % of.len()];
        let namespace = pick(["shop", "payments", "search", "batch"], 1);
        let exe = pick(["api", "worker", "indexer", "cron"], 3);
        let signal = pick(["SIGSEGV", "SIGSEGV", "SIGABRT", "SIGBUS"], 5);
        let verdict = if n % 9 == 8 { "truncated" } else { "complete" };
        let pod = format!("{exe}-7d4b9c6f5-{:05x}", n * 7919 % 30_011);
        let crash = 0x51a7_0000_i64 + n % 12;
        let stem = format!(
            "{time}Z_{namespace}_{pod}_{exe}_{signal}_{crash:08x}_{verdict}_{n:08x}-0000-4000-8000-000000000000"
        );
        let directory = store.join("dumps").join(day);
        if day != day_before {
            fs::create_dir_all(&directory)?;
            day_before = day.to_owned();
        }
        for end in ["zip", "manifest.json"] {
            File::create(directory.join(format!("{stem}.{end}")))?;
        }
    }
    Ok(())
}

/// What was waited for, and how many milliseconds.
type Time = (String, f64);

/// What a program writes to its terminal, each piece with its time.
struct Terminal {
    master: File,
    child: Child,
    pieces: Receiver<(Instant, Vec<u8>)>,
}

impl Terminal {
    fn start(mut command: Command) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let name = ptsname(&master, Vec::new())?;
        let slave = File::from(rustix::fs::open(name, flags, Mode::empty())?);
        let size = Winsize {
            ws_row: 45,
            ws_col: 160,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&slave, size)?;
        command
            .stdin(Stdio::from(slave.try_clone()?))
            .stdout(Stdio::from(slave.try_clone()?))
            .stderr(Stdio::from(slave));
        let child = command.spawn().context("cannot start `setsid`")?;
        let master = File::from(master);
        let mut reader = master.try_clone()?;
        let (sender, pieces) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 64 << 10];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                let piece = bytes.get(..count).unwrap_or_default().to_vec();
                if sender.send((Instant::now(), piece)).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            master,
            child,
            pieces,
        })
    }

    /// Until nothing was written for `silence`: when the last byte came, and when the first `text` did.
    fn settle(&self, silence: Duration, text: &str) -> Result<(Instant, Option<Instant>)> {
        let first = self.pieces.recv_timeout(PATIENCE);
        let (mut last, mut piece) = first.context("nothing was drawn")?;
        let mut seen = Vec::new();
        let mut found = None;
        loop {
            if found.is_none() && !text.is_empty() {
                seen.extend_from_slice(&piece);
                let is_here = String::from_utf8_lossy(&seen).contains(text);
                found = is_here.then_some(last);
            }
            match self.pieces.recv_timeout(silence) {
                Ok((at, next)) => (last, piece) = (at, next),
                Err(_) => return Ok((last, found)),
            }
        }
    }

    fn memory(&self) -> Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let of = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let both = of("VmRSS:").zip(of("VmHWM:"));
        let (now, peak) = both.context("no memory is reported")?;
        Ok((now >> 10, peak >> 10))
    }
}

fn millis(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}

/// One start, all steps, and the memory at the end: now, and at its peak.
fn session(program: &Path, home: &Path, store: &Path) -> Result<(Vec<Time>, (u64, u64))> {
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait"]).arg(program).arg("tui");
    command
        .env_clear()
        .env("HOME", home)
        .env("CDH_STORE", store);
    command.env("TERM", "xterm-256color").env("LANG", "C.UTF-8");
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let start = Instant::now();
    let mut terminal = Terminal::start(command)?;
    let (last, row) = terminal.settle(LONG_SILENCE, "7d4b9c6f5")?;
    let row = row.context("no dump was drawn")?;
    let mut found = vec![
        ("first screen".to_owned(), millis(start, row)),
        ("all dumps are listed".to_owned(), millis(start, last)),
    ];
    for (name, keys) in STEPS {
        let before = Instant::now();
        terminal.master.write_all(keys.as_bytes())?;
        let (last, _) = terminal.settle(SILENCE, "")?;
        found.push((name.to_owned(), millis(before, last)));
        while terminal.pieces.recv_timeout(AFTERWARDS).is_ok() {}
    }
    let memory = terminal.memory()?;
    terminal.master.write_all(b"q")?;
    let ended = terminal.child.wait()?;
    ensure!(ended.success(), "cdh ended with {ended}");
    Ok((found, memory))
}
