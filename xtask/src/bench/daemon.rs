//! The agent's daemon beside the handlers of a measurement, as it runs on a node: it ships into a
//! directory store, counts, and writes what it counted.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::peers::Bench;

/// How long it may take to start, and to ship what waits when all has crashed.
const PATIENCE: Duration = Duration::from_secs(180);

/// `cdh agent run`, ended when it is dropped.
pub(super) struct Daemon {
    child: Child,
    state: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Starts this `cdh` on the state directory; `ship` is `events` or `off`.
    pub(super) fn start(bench: &Bench, cdh: &Path, state: &Path, ship: &str) -> Result<Self> {
        // The guardian finds what runs from this directory.
        let program = bench.path("cdh");
        if !program.exists() {
            fs::copy(cdh, &program)?;
        }
        let store = bench.path("store");
        fs::DirBuilder::new().mode(0o700).create(&store)?;
        let spool = state.join("spool");
        fs::DirBuilder::new().mode(0o700).create(&spool)?;
        let config = bench.path("agent.toml");
        fs::write(
            &config,
            "[workloads]\nsockets = []\n[shipping]\nkeep_modules = true\n",
        )?;
        let log = bench.path("agent.log");
        let child = Command::new(program)
            .args(["agent", "run", "--ship", ship, "--log-format", "json"])
            .arg("--config")
            .arg(config)
            .arg("--state")
            .arg(state)
            .arg("--libexec")
            .arg(bench.path(""))
            .arg("--store")
            .arg(store)
            .arg("--metrics-file")
            .arg(bench.path("cdh.prom"))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        let mut daemon = Self {
            child,
            state: state.to_owned(),
            log,
        };
        // It writes its numbers when it has looked at the spool once.
        let begun = Instant::now();
        while !bench.path("cdh.prom").exists() {
            let ended = daemon.child.try_wait()?;
            if ended.is_some() || begun.elapsed() > PATIENCE {
                let log = fs::read_to_string(&daemon.log).unwrap_or_default();
                anyhow::bail!("the agent does not start ({ended:?}): {log}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        fs::remove_file(bench.path("cdh.prom"))?;
        Ok(daemon)
    }

    /// Ships what is in the spool, as a daemon does that has a store.
    pub(super) fn sweep(bench: &Bench, state: &Path) -> Result<()> {
        let mut sweep = Command::new(bench.path("cdh"));
        sweep.args(["agent", "sweep", "--config"]);
        sweep
            .arg(bench.path("agent.toml"))
            .arg("--state")
            .arg(state);
        sweep.arg("--store").arg(bench.path("store"));
        let output = sweep.env_clear().stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "cannot ship: {text}");
        Ok(())
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until nothing is left in the spool.
    pub(super) fn has_shipped(&self) -> Result<()> {
        let begun = Instant::now();
        let waits = || {
            let entries = fs::read_dir(self.state.join("spool"));
            let mut names = entries.into_iter().flatten().flatten();
            names.any(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        };
        while waits() {
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            anyhow::ensure!(
                begun.elapsed() < PATIENCE,
                "the agent does not ship: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Ends it as a service manager does.
    pub(super) fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait().context("the agent is lost")?;
        anyhow::ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
