//! Whatever happens to an agent's installation, an uninstall ends with the newest foreign value of each kernel
//! setting.
//!
//! Random sequences against the real kernel: install, with other numbers, from another directory, by the socket,
//! foreign changes, SIGKILL at any moment of an installation or an uninstall. One complete uninstall ends each
//! sequence. `CDH_TEST_SEQUENCES=500` runs that
//! many of them, `CDH_TEST_SEED` begins elsewhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use cdh_agent::SettingsFiles;
use cdh_agent::node::settings::NodeSettings;
use cdh_agent::{AgentPaths, HANDLER_NAME};
use cdh_bundle::RawText;
use cdh_testkit::{KernelSettingsLock, or_skip};

/// Sequences of a plain run.
const SEQUENCES: u64 = 12;
/// Steps of a sequence at most.
const STEPS: u64 = 8;
/// Microseconds that an installation takes on an idle machine, and on a busy one.
const LONGEST: [u64; 2] = [20_000, 80_000];

/// xorshift64*: the same sequences for the same seed on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }
}

/// The handler to install: a static one if the tests were given one.
fn handler() -> String {
    std::env::var("CDH_TEST_HANDLER").unwrap_or_else(|_| env!("CARGO_BIN_EXE_cdh").to_owned())
}

struct Node {
    directory: tempfile::TempDir,
    /// What an uninstall must end with.
    foreign: NodeSettings,
    log: Vec<String>,
}

impl Node {
    /// A node whose settings are now as another tool left them.
    fn new(log: &str) -> Self {
        Self {
            directory: tempfile::Builder::new().prefix("cdh").tempdir().unwrap(),
            foreign: NodeSettings::read(&SettingsFiles::kernel()).unwrap(),
            log: vec![log.to_owned()],
        }
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn agent(&self, words: &[String], libexec: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cdh"));
        command.arg("agent").args(words).env_clear();
        command.arg("--state").arg(self.state());
        command
            .arg("--libexec")
            .arg(self.directory.path().join(libexec));
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Runs the command to its end, or kills it after some microseconds.
    fn run(&mut self, words: &[String], libexec: &str, kill_after: Option<u64>) {
        let mut child = self.agent(words, libexec).spawn().unwrap();
        self.log.push(format!(
            "{} in {libexec}, killed after {kill_after:?}",
            words.join(" ")
        ));
        if let Some(micros) = kill_after {
            std::thread::sleep(Duration::from_micros(micros));
            // It may have ended by itself.
            let _ = child.kill();
            child.wait().unwrap();
            return;
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\n{}", self.log.join("\n"));
    }

    /// Another tool changes some settings. Its numbers are never ours: an equal value shows no change.
    fn edit(&mut self, random: &mut Random, sequence: u64) {
        let files = SettingsFiles::kernel();
        let mut now = NodeSettings::read(&files).unwrap();
        let patterns = [
            "core",
            "|/bin/false %p",
            "core.%p",
            "/var/crash/%e \\ \"x\"",
        ];
        if random.below(2) == 0 {
            let pattern = format!("{}{}", random.one_of(&patterns), sequence % 7);
            now.core_pattern = RawText::from(pattern.as_str());
            self.foreign.core_pattern = now.core_pattern.clone();
        }
        if random.below(2) == 0 {
            now.core_pipe_limit = random.one_of(&[0, 4, 16, 99]);
            self.foreign.core_pipe_limit = now.core_pipe_limit;
        }
        if random.below(2) == 0 {
            now.suid_dumpable = random.one_of(&[0, 1]);
            self.foreign.suid_dumpable = now.suid_dumpable;
        }
        self.log.push(format!("another owner sets {now:?}"));
        now.apply(&files).unwrap();
    }

    fn step(&mut self, random: &mut Random, sequence: u64) {
        let libexec = random.one_of(&["one", "two"]);
        let kill_after = (random.below(2) == 0).then(|| {
            let longest = random.one_of(&LONGEST);
            random.below(longest)
        });
        match random.below(8) {
            0 | 1 => self.edit(random, sequence),
            2 => self.run(&["uninstall".to_owned()], libexec, kill_after),
            choice => {
                let limit = random.one_of(&[1024, 512, 777]);
                // The self-test of the socket crashes a process each time.
                let mode = if choice == 7 { "auto" } else { "pipe" };
                let mut words = vec!["install".to_owned()];
                words.extend(["--core-pipe-limit".to_owned(), limit.to_string()]);
                words.extend(["--mode".to_owned(), mode.to_owned()]);
                words.extend(["--handler".to_owned(), handler()]);
                self.run(&words, libexec, kill_after);
            }
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_happens_an_uninstall_ends_with_the_newest_foreign_settings() {
    let Some(_lock) = or_skip(KernelSettingsLock::for_settings()) else {
        return;
    };
    let files = SettingsFiles::kernel();
    let first = number("CDH_TEST_SEED").unwrap_or(1);
    for sequence in first..first + number("CDH_TEST_SEQUENCES").unwrap_or(SEQUENCES) {
        let mut random = Random(sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut node = Node::new(&format!("sequence {sequence}"));
        for _ in 0..=random.below(STEPS) {
            node.step(&mut random, sequence);
        }
        for libexec in ["one", "two"] {
            node.run(&["uninstall".to_owned()], libexec, None);
        }
        let now = NodeSettings::read(&files).unwrap();
        assert_eq!(now, node.foreign, "{}", node.log.join("\n"));
        for libexec in ["one", "two"] {
            assert_nothing_is_left(&node, libexec);
        }
    }
}

fn assert_nothing_is_left(node: &Node, libexec: &str) {
    let paths = AgentPaths {
        handler: node.directory.path().join(libexec).join(HANDLER_NAME),
        state: node.state(),
        ..AgentPaths::default()
    };
    let log = node.log.join("\n");
    assert!(!paths.handler.exists(), "{log}");
    assert!(!paths.backup().exists(), "{log}");
    assert!(!cdh_agent::handler::is_receiving(&paths.socket()), "{log}");
    let left = names(&node.directory.path().join(libexec));
    assert!(left.is_empty(), "{left:?}\n{log}");
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn install_on_a_noexec_node_gives_advice_and_changes_nothing() {
    let Some(_lock) = or_skip(KernelSettingsLock::for_settings()) else {
        return;
    };
    let files = SettingsFiles::kernel();
    let node = Node::new("noexec");
    let place = node.directory.path().join("noexec");
    fs::create_dir(&place).unwrap();
    let mut mount = Command::new("mount");
    mount.args([
        "-t",
        "tmpfs",
        "-o",
        "size=256m,noexec,mode=0755",
        "cdh-test",
    ]);
    if !mount.arg(&place).status().unwrap().success() {
        cdh_testkit::skip("no tmpfs can be mounted");
        return;
    }
    let words = ["install", "--mode", "pipe"].map(str::to_owned);
    let mut install = node.agent(&words, "noexec");
    install.arg("--handler").arg(handler());
    let output = install.output().unwrap();
    let doctor = node.agent(&["doctor", "--no-store"].map(str::to_owned), "noexec");
    let found = { doctor }.stdout(Stdio::piped()).output().unwrap();
    let left = names(&place);
    let unmounted = Command::new("umount").arg("-l").arg(&place).status();
    assert!(unmounted.unwrap().success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("is it mounted noexec?"), "{said}");
    assert!(
        said.contains("hint: choose a directory") && said.contains("--libexec"),
        "{said}"
    );
    assert_eq!(NodeSettings::read(&files).unwrap(), node.foreign);
    assert!(left.is_empty(), "{left:?}");
    let found = String::from_utf8_lossy(&found.stdout);
    let problem = "PROBLEM  handler directory: ";
    assert!(
        found.contains(problem) && found.contains("mounted noexec"),
        "{found}"
    );
}

#[test]
fn install_warns_of_a_reboot_and_uninstall_says_how_to_ship_what_is_left() {
    let Some(_lock) = or_skip(KernelSettingsLock::for_handlers()) else {
        return;
    };
    let directory = tempfile::Builder::new().prefix("cdh").tempdir().unwrap();
    let place = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    // The handler is found beside the program.
    let bin = place("bin/cdh");
    fs::create_dir(directory.path().join("bin")).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_cdh"), &bin).unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(&bin);
        command.arg("agent").args(words).env_clear();
        command.envs([("CDH_STATE", place("state")), ("CDH_LIBEXEC", place("lib"))]);
        command
            .env("CDH_STORE", place("store"))
            .env("HOME", place("home"));
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (code, _, said) = run(&["install"]);
    assert_eq!(code, Some(2), "{said}");
    let beside = place("bin/cdh-handler");
    assert!(
        said.contains("cargo xtask handler") && said.contains(&beside),
        "{said}"
    );
    let Ok(given) = std::env::var("CDH_TEST_HANDLER") else {
        eprintln!("skipped: no static handler; `cargo xtask test` builds one");
        return;
    };
    fs::copy(given, &beside).unwrap();
    let given = ["--release", "early", "--core-limit", "2G"];
    let (code, out, said) = run(&[&["install"], &given[..]].concat());
    assert_eq!(code, Some(0), "{said}");
    assert!(out.starts_with("installed: core_pattern is |"), "{out}");
    // Unless this machine has a unit, the warning comes with a command that has all flags.
    assert!(
        said.contains("warning: a reboot loses core_pattern"),
        "{said}"
    );
    for text in [
        format!("{bin} agent"),
        format!("--state {}", place("state")),
        format!("--libexec {}", place("lib")),
        format!("--store {}", place("store")),
        "--release early".to_owned(),
        "--core-limit 2147483648".to_owned(),
    ] {
        assert!(said.contains(&text), "{text} in {said}");
    }
    // What the hint says is a command.
    let (code, unit, said) = run(&["unit"]);
    assert_eq!(code, Some(0), "{said}");
    let command = format!(
        "ExecStart={bin} agent run --manage-node --state {}",
        place("state")
    );
    assert!(
        unit.contains(&command) && unit.contains("WantedBy="),
        "{unit}"
    );
    // It is that of the installation, although nothing was given to this command.
    let (_, found, _) = run(&["doctor", "--no-store"]);
    assert!(found.contains("warning  after a reboot: "), "{found}");
    for text in ["--release early", "--core-limit 2147483648"] {
        assert!(
            unit.contains(text) && found.contains(text),
            "{text} in {unit}{found}"
        );
    }
    let (_, unit, _) = run(&["unit", "--release", "hold"]);
    assert!(
        unit.contains("--release hold") && !unit.contains("early"),
        "{unit}"
    );

    let status = Command::new("sh")
        .args(["-c", "kill -SEGV $$"])
        .status()
        .unwrap();
    assert!(!status.success());
    let spool = directory.path().join("state/spool");
    for _ in 0..200 {
        let sealed = names(&spool).into_iter().filter(|name| name.len() == 36);
        if sealed.count() > 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let (code, out, said) = run(&["uninstall"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(out.contains("not shipped: "), "{out}");
    let line = out
        .lines()
        .find_map(|line| line.strip_prefix("ship them: "));
    let line = line.unwrap_or_else(|| panic!("{out}"));
    // The line is a command that ships them.
    let shipped = Command::new("sh")
        .args(["-c", line])
        .env_clear()
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&shipped.stderr);
    assert!(
        shipped.status.success() && log.contains("shipped "),
        "{log}"
    );
    let left = names(&spool).into_iter().filter(|name| name.len() == 36);
    assert_eq!(left.count(), 0);
}

#[test]
fn run_that_manages_the_node_satisfies_the_doctor_and_remains_installed() {
    let Some(_lock) = or_skip(KernelSettingsLock::for_settings()) else {
        return;
    };
    let files = SettingsFiles::kernel();
    let node = Node::new("run --manage-node");
    let words = ["run", "--manage-node", "--handler", &handler()].map(str::to_owned);
    let mut agent = node.agent(&words, "lib");
    agent.env("CDH_STORE", node.directory.path().join("store"));
    let mut child = agent.spawn().unwrap();
    let words = ["doctor", "--no-store"].map(str::to_owned);
    let mut found = String::new();
    for _ in 0..200 {
        let output = node
            .agent(&words, "lib")
            .stdout(Stdio::piped())
            .output()
            .unwrap();
        found = String::from_utf8(output.stdout).unwrap();
        if found.contains("ok       after a reboot: ") {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert!(found.contains("ok       after a reboot: "), "{found}");
    for text in [
        "Z installed: core_pattern is |",
        "Z capture: mode pipe, release hold",
        "an installed handler keeps capturing into the spool until `cdh agent uninstall`",
        "Z stopped: ",
    ] {
        assert!(said.contains(text), "{text} in {said}");
    }
    let now = NodeSettings::read(&files).unwrap();
    assert!(
        now.core_pattern.to_string().contains("cdh-handler"),
        "{now:?}"
    );
    let words = ["uninstall".to_owned()];
    let output = node.agent(&words, "lib").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(NodeSettings::read(&files).unwrap(), node.foreign);
}
