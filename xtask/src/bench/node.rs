//! Our handler as the kernel's, by the pipe or by the socket, for measurements that look at what it
//! leaves behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::peers::{Bench, OUR_ARGUMENTS};
use crate::guardian::Guardian;

/// How long handlers may take before something is wrong.
const PATIENCE: Duration = Duration::from_secs(300);

/// How the kernel passes cores to a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It starts the handler.
    Pipe,
    /// It connects to a receiver.
    Socket,
}

/// The handler at work.
pub(crate) struct Node {
    /// Its place.
    pub bench: Bench,
    receiver: Option<Child>,
    trace: Option<PathBuf>,
    _guardian: Guardian,
}

/// A dump that it left.
pub(crate) struct Dump {
    /// `manifest.json`.
    pub manifest: Value,
    /// What the handler noted.
    pub log: String,
    /// Whether a raw backtrace is there.
    pub has_backtrace: bool,
}

impl Dump {
    /// Whether nothing of the core is missing.
    pub(crate) fn is_complete(&self) -> bool {
        self.manifest["verdict"]["state"] == "complete"
    }

    /// Who or what cut the core.
    pub(crate) fn cause(&self) -> &str {
        self.manifest["verdict"]["cause"].as_str().unwrap_or("-")
    }

    /// Part of the core that is stored.
    pub(crate) fn part(&self) -> f64 {
        let bytes = |field: &str| self.manifest["verdict"][field].as_f64();
        match (bytes("got"), bytes("expected")) {
            (Some(got), Some(expected)) => got / expected,
            _ if self.is_complete() => 1.0,
            _ => 0.0,
        }
    }

    /// Milliseconds after the start at which the handler noted this.
    pub(crate) fn noted(&self, what: &str) -> Option<f64> {
        let line = self.log.lines().find(|line| line.contains(what))?;
        line.split(" ms").next()?.trim().parse().ok()
    }
}

impl Node {
    /// Takes the kernel's settings for itself.
    pub(crate) fn start(way: Way) -> Result<Self> {
        let bench = Bench::prepare()?;
        let guardian = Guardian::start(bench.directory.path())?
            .context("only root may change the kernel's core settings")?;
        fs::write("/proc/sys/kernel/core_pipe_limit", "1024")?;
        let mut node = Self {
            bench,
            receiver: None,
            trace: None,
            _guardian: guardian,
        };
        node.trace = node.trace_kills();
        node.set(&json!({}))?;
        let handler = node.bench.path("cdh-handler");
        let pattern = match way {
            Way::Pipe => format!("|{} {OUR_ARGUMENTS}", handler.display()),
            Way::Socket => {
                let socket = node.socket();
                let receiver = Command::new(handler)
                    .arg("--receive")
                    .arg(&socket)
                    .env_clear()
                    .stdin(Stdio::null())
                    .spawn()?;
                node.receiver = Some(receiver);
                wait_until("the receiver does not start", || socket.exists())?;
                format!("@{}", socket.display())
            }
        };
        fs::write("/proc/sys/kernel/core_pattern", pattern)?;
        Ok(node)
    }

    fn socket(&self) -> PathBuf {
        self.bench.path("core.sock")
    }

    fn spool(&self) -> PathBuf {
        self.bench.path("out").join("spool")
    }

    /// Changes the handler's settings.
    pub(crate) fn set(&self, settings: &Value) -> Result<()> {
        let mut all = settings.clone();
        all["spool"] = json!(self.spool());
        if let Some(trace) = &self.trace {
            all["kill_trace"] = json!(trace);
        }
        let path = self.bench.path("cdh-handler.json");
        Ok(fs::write(path, all.to_string())?)
    }

    /// The trace of SIGKILLs that an installed agent keeps.
    fn trace_kills(&self) -> Option<PathBuf> {
        let name = format!("cdh-bench-{}", std::process::id());
        let instance = super::trace::instance(&name)?;
        let event = instance.join("events/signal/signal_generate");
        fs::write(instance.join("trace_clock"), "mono").ok()?;
        fs::write(event.join("filter"), "sig==9").ok()?;
        fs::write(event.join("enable"), "1").ok()?;
        Some(instance)
    }

    /// A process that has its memory and waits for the end of its input to crash.
    pub(crate) fn ready(&self, words: &[&str], cgroup: Option<&Path>) -> Result<Child> {
        let procs = cgroup.map_or_else(|| "/dev/null".into(), |path| path.join("cgroup.procs"));
        let script = r#"echo $$ > "$1"; shift; exec "$@""#;
        let mut child = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(procs)
            .arg(self.bench.path("crash"))
            .args(words)
            .arg("wait")
            .current_dir(self.bench.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        ensure!(line == "ready\n", "it does not get ready");
        Ok(child)
    }

    /// Waits until so many bytes of a core are in the spool, or its dump is sealed.
    pub(crate) fn wait_for_bytes(&self, wanted: u64) -> Result<()> {
        let entries = || fs::read_dir(self.spool()).into_iter().flatten().flatten();
        let length =
            |path: PathBuf| fs::metadata(path.join("core.zst")).map_or(0, |file| file.len());
        wait_until("the core does not grow", || {
            entries().any(|entry| is_sealed(&entry.path()) || length(entry.path()) >= wanted)
        })
    }

    /// Waits for so many dumps and takes them out of the spool.
    pub(crate) fn take(&self, count: usize) -> Result<Vec<Dump>> {
        let sealed = || -> Vec<PathBuf> {
            let entries = fs::read_dir(self.spool()).into_iter().flatten().flatten();
            let paths = entries.map(|entry| entry.path());
            paths.filter(|path| is_sealed(path)).collect()
        };
        wait_until("the handlers do not end", || sealed().len() >= count)?;
        let mut dumps = Vec::new();
        for path in sealed() {
            let manifest = fs::read(path.join("manifest.json"))?;
            dumps.push(Dump {
                manifest: serde_json::from_slice(&manifest)?,
                log: fs::read_to_string(path.join("handler.log"))?,
                has_backtrace: path.join("backtrace.json").exists(),
            });
            fs::remove_dir_all(path)?;
        }
        Ok(dumps)
    }

    /// Takes the only dump there is.
    pub(crate) fn take_one(&self) -> Result<Dump> {
        let mut dumps = self.take(1)?;
        match (dumps.pop(), dumps.len()) {
            (Some(dump), 0) => Ok(dump),
            (_, more) => bail!("{} dumps of one crash", more + 1),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Without their socket the receiver's processes end.
        let _ = fs::remove_file(self.socket());
        if let Some(mut receiver) = self.receiver.take() {
            let _ = receiver.wait();
        }
        if let Some(trace) = &self.trace {
            super::trace::remove(trace);
        }
    }
}

fn is_sealed(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| !name.starts_with('.') && !name.ends_with(".partial"))
}

/// Waits until it is so.
pub(crate) fn wait_until(problem: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !is_so() {
        if begun.elapsed() > PATIENCE {
            bail!("{problem}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Waits until the kernel dumps the process.
pub(crate) fn wait_for_dump(pid: u32) -> Result<()> {
    let status = format!("/proc/{pid}/status");
    let begun = Instant::now();
    while !fs::read_to_string(&status).is_ok_and(|text| text.contains("CoreDumping:\t1")) {
        ensure!(begun.elapsed() < PATIENCE, "it does not crash");
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// The value in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
