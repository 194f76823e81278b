//! What the tests crash on: a node of their own below a temporary directory, and the kernel's core
//! settings, which are the machine's and are restored.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cdh_agent::ledger::{Ledger, LedgerRecord};
use cdh_agent::{AgentPaths, SetuidDumps, SweepReport};
use cdh_bundle::{BundleReader, Manifest};
use cdh_store::{Catalog, DirectoryStore, Query, Store};
use cdh_testkit::{KernelSettingsLock, Program, or_skip};

pub(crate) fn handler() -> PathBuf {
    std::env::var_os("CDH_TEST_HANDLER")
        .map_or_else(|| env!("CARGO_BIN_EXE_cdh-handler").into(), PathBuf::from)
}

pub(crate) fn programs() -> &'static Path {
    static DIRECTORY: OnceLock<tempfile::TempDir> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        for program in [
            Program::Crash,
            Program::Kinds,
            Program::Launcher,
            Program::Fuse,
        ] {
            program.build(directory.path()).unwrap();
        }
        directory
    });
    directory.path()
}

/// A node of its own below a temporary directory; the kernel's settings are this test's alone.
pub(crate) struct Node {
    pub(crate) root: tempfile::TempDir,
    pub(crate) paths: AgentPaths,
    _lock: KernelSettingsLock,
}

impl Node {
    /// `None`, with the reason on stderr, where this cannot be tested.
    pub(crate) fn new() -> Option<Self> {
        let lock = or_skip(KernelSettingsLock::for_handlers())?;
        let root = tempfile::Builder::new().prefix("cdh").tempdir().unwrap();
        let paths = AgentPaths::below(root.path());
        Some(Self {
            root,
            paths,
            _lock: lock,
        })
    }

    /// Lets the kernel start the launcher, which starts the handler.
    pub(crate) fn with_launcher() -> Option<Self> {
        let node = Self::new()?;
        let root = node.root.path();
        fs::copy(programs().join("launcher"), root.join("launcher")).unwrap();
        fs::copy(handler(), root.join("cdh-handler")).unwrap();
        // Through the launcher the core comes by the pipe; it counts the bytes.
        node.set(&serde_json::json!({ "source": "pipe" }));
        let launcher = root.join("launcher");
        let arguments = "P%P I%I p%p i%i s%s t%t d%d u%u g%g F%F h%h e%e";
        let pattern = format!("|{} {} {arguments}", launcher.display(), root.display());
        assert!(pattern.len() < 128, "{pattern}");
        fs::write("/proc/sys/kernel/core_pipe_limit", "64").unwrap();
        fs::write("/proc/sys/kernel/core_pattern", pattern).unwrap();
        Some(node)
    }

    /// Lets the kernel start the handler itself, with these settings besides the spool.
    pub(crate) fn with_settings(settings: &serde_json::Value) -> Option<Self> {
        let node = Self::new()?;
        let path = node.path("cdh-handler");
        fs::copy(handler(), &path).unwrap();
        node.set(settings);
        let arguments = "P%P I%I p%p i%i s%s t%t d%d u%u g%g F%F h%h e%e";
        let pattern = format!("|{} {arguments}", path.display());
        fs::write("/proc/sys/kernel/core_pipe_limit", "1024").unwrap();
        fs::write("/proc/sys/kernel/core_pattern", pattern).unwrap();
        Some(node)
    }

    /// Changes the handler's settings.
    pub(crate) fn set(&self, settings: &serde_json::Value) {
        let mut all = serde_json::json!({
            "spool": self.paths.spool, "state": self.paths.state, "fallback": self.paths.fallback,
        });
        for (name, value) in settings.as_object().unwrap() {
            all[name] = value.clone();
        }
        fs::write(self.path("cdh-handler.json"), all.to_string()).unwrap();
    }

    /// Waits for an entry in the spool, and until no handler is at work on one.
    pub(crate) fn wait_for_handlers(&self) {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let names = names_in(&self.paths.spool);
            let at_work = names.iter().any(|name| name.ends_with(".partial"));
            if !at_work && names.iter().any(|name| !self.is_strangers(name)) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the handlers do not end: {names:?}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until a handler has stored more than a MiB of a core, and so holds what it is to hold.
    pub(crate) fn wait_for_copy(&self) {
        self.wait_for_bytes("core.zst", 1 << 20);
    }

    /// Waits until a handler has begun to write this file of an entry.
    pub(crate) fn wait_for_file(&self, file: &str) {
        self.wait_for_bytes(file, 0);
    }

    fn wait_for_bytes(&self, file: &str, least: u64) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let is_there = |name: &String| {
            let path = self.paths.spool.join(name).join(file);
            fs::metadata(path).is_ok_and(|found| found.len() > least)
        };
        while !names_in(&self.paths.spool).iter().any(is_there) {
            assert!(Instant::now() < deadline, "{file}: nothing is written");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Waits until the ledger for crashes without a spool has a record.
    pub(crate) fn wait_for_fallback(&self) -> Ledger {
        let fallback = Ledger::of(&self.paths.fallback);
        let deadline = Instant::now() + Duration::from_secs(30);
        while fallback.totals().crashes() == 0 {
            assert!(Instant::now() < deadline, "no record anywhere");
            std::thread::sleep(Duration::from_millis(5));
        }
        fallback
    }

    /// Takes the one sealed entry out of the spool: its manifest and the handler's log.
    pub(crate) fn take_entry(&self) -> (Manifest, String) {
        self.wait_for_handlers();
        let entry = self.entry();
        let manifest = fs::read(entry.join("manifest.json")).unwrap();
        let log = fs::read_to_string(entry.join("handler.log")).unwrap();
        fs::remove_dir_all(&entry).unwrap();
        (Manifest::from_json(&manifest).unwrap(), log)
    }

    /// The ledger that the handlers write.
    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::of(&self.paths.state)
    }

    /// Waits until the ledger has so many crashes of the tests' programs.
    pub(crate) fn wait_for_records(&self, count: usize) -> Vec<LedgerRecord> {
        let deadline = Instant::now() + Duration::from_secs(120);
        let ours = |record: &LedgerRecord| {
            let exe = record.exe.as_ref().map(|exe| exe.as_bytes().to_vec());
            let ours = [programs(), self.root.path()];
            record.outcome.is_crash()
                && exe.is_none_or(|exe| {
                    let path = Path::new(OsStr::from_bytes(&exe));
                    ours.iter().any(|place| path.starts_with(place))
                })
        };
        loop {
            let mut records = self.ledger().since(0);
            records.retain(ours);
            if records.len() >= count {
                return records;
            }
            assert!(
                Instant::now() < deadline,
                "{} of {count} records",
                records.len()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until an agent that was started offers its socket for modules.
    pub(crate) fn wait_for_agent(&self) {
        let socket = self.paths.spool.join(".modules");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !socket.exists() {
            assert!(Instant::now() < deadline, "the agent does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Runs the program until it dies, and waits for the launcher.
    pub(crate) fn crash(&self, words: &[&OsStr]) {
        let program = programs().join("crash");
        let status = self.run(Command::new(program).args(words));
        assert!(status.signal().is_some(), "{status}");
    }

    /// Runs a command that has the program die, and waits for the launcher.
    pub(crate) fn run(&self, command: &mut Command) -> std::process::ExitStatus {
        let _ = fs::remove_file(self.path("usage"));
        let status = command.current_dir(&self.root).status().unwrap();
        let deadline = Instant::now() + Duration::from_secs(300);
        while !self.path("usage").exists() {
            assert!(Instant::now() < deadline, "the handler does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        status
    }

    /// Peak memory of the last handler, KiB.
    pub(crate) fn peak_memory(&self) -> u64 {
        let usage = fs::read_to_string(self.path("usage")).unwrap();
        usage.split(' ').next().unwrap().parse().unwrap()
    }

    pub(crate) fn store(&self) -> DirectoryStore {
        DirectoryStore::create(self.path("store")).unwrap()
    }

    pub(crate) fn sweep(&self) -> SweepReport {
        let mut observer = |event: &cdh_agent::ShipperEvent| {
            if !matches!(event, cdh_agent::ShipperEvent::Sealed { .. }) {
                eprintln!("{event:?}");
            }
        };
        cdh_agent::sweep(&self.paths, &self.store(), SetuidDumps::Ship, &mut observer).unwrap()
    }

    /// All dumps in the store, each verified by us and by `unzip`.
    pub(crate) fn dumps(&self) -> Vec<(Manifest, BundleReader)> {
        let store = self.store();
        let catalog = Catalog::new(&store);
        let open = |dump: cdh_store::DumpSummary| {
            let manifest = catalog.manifest(&dump).unwrap();
            let zip = self.path("store").join(dump.key.as_str());
            let tested = Command::new("unzip")
                .arg("-tqq")
                .arg(&zip)
                .output()
                .unwrap();
            assert!(
                tested.status.success(),
                "{}",
                String::from_utf8_lossy(&tested.stdout)
            );
            let bundle = BundleReader::open(store.read(&dump.key).unwrap()).unwrap();
            let verification = bundle.verify().unwrap();
            assert!(
                verification.is_good(),
                "{:?}",
                verification.problems().collect::<Vec<_>>()
            );
            (manifest, bundle)
        };
        catalog
            .find(&Query::default())
            .unwrap()
            .into_iter()
            .map(open)
            .collect()
    }

    /// The newest sealed entry, of whatever process.
    pub(crate) fn entry_of_anybody(&self) -> PathBuf {
        let names = names_in(&self.paths.spool);
        let paths = names.iter().map(|name| self.paths.spool.join(name));
        let born = |path: &PathBuf| fs::metadata(path).unwrap().modified().unwrap();
        paths.max_by_key(born).unwrap()
    }

    /// The one sealed entry of the spool.
    pub(crate) fn entry(&self) -> PathBuf {
        let mut names = names_in(&self.paths.spool);
        names.retain(|name| !self.is_strangers(name));
        assert_eq!(names.len(), 1, "{names:?}");
        self.paths.spool.join(&names[0])
    }
}

impl Node {
    /// Whether a program crashed that is none of the tests': the machine may have others.
    fn is_strangers(&self, name: &str) -> bool {
        let manifest = fs::read(self.paths.spool.join(name).join("manifest.json"));
        let manifest = Manifest::from_json(&manifest.unwrap_or_default());
        let exe = manifest.ok().and_then(|manifest| manifest.process.exe);
        exe.is_some_and(|exe| {
            let path = Path::new(OsStr::from_bytes(exe.as_bytes()));
            // In a container of the tests, the program is at the root.
            let ours = [programs(), self.root.path()];
            !ours.iter().any(|place| path.starts_with(place)) && path != Path::new("/program")
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A test that failed leaves no process behind.
        let _ = cdh_agent::handler::stop_receiving(&self.paths.socket());
    }
}

/// The agent's shipper in this process, until it is dropped.
pub(crate) struct Agent {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    pub(crate) fn start(paths: &AgentPaths, store: &Path) -> Self {
        let (stop, stopper) = rustix::pipe::pipe().unwrap();
        let (paths, store) = (paths.clone(), store.to_owned());
        let thread = std::thread::spawn(move || {
            let open = || -> Result<Box<dyn cdh_store::Store>, _> {
                Ok(Box::new(DirectoryStore::create(store.clone())?))
            };
            let mut tell = |event: &_| eprintln!("{event:?}");
            cdh_agent::run_until(stop.as_fd(), &paths, &open, SetuidDumps::Ship, &mut tell)
                .unwrap();
        });
        Self {
            stop: Some(stopper),
            thread: Some(thread),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Names in a directory but for those that are hidden.
pub(crate) fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

/// A small file system, unmounted when it is dropped.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(at: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "cdh-test"])
            .arg(&at)
            .status()
            .is_ok_and(|status| status.success());
        if !mounted {
            cdh_testkit::skip("no tmpfs can be mounted");
        }
        mounted.then_some(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
