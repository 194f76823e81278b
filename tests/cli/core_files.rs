//! `cdh agent run` on a node whose kernel writes cores into files: a program of the host crashes.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cdh_testkit::{KernelSettingsLock, or_skip, root_is_a_mount};

use super::Workstation;
use super::agent::Agent;

const PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// Lets the kernel write a core of `sleep` into the directory, and returns its path.
fn crash(cores: &Path) -> PathBuf {
    let mut sleep = Command::new("sh")
        .args(["-c", "ulimit -c unlimited; exec sleep 1000"])
        .spawn()
        .unwrap();
    let pid = rustix::process::Pid::from_child(&sleep);
    // Until the shell has become `sleep`.
    let name = format!("/proc/{}/comm", sleep.id());
    while fs::read_to_string(&name).unwrap() != "sleep\n" {
        std::thread::sleep(Duration::from_millis(5));
    }
    rustix::process::kill_process(pid, rustix::process::Signal::ABORT).unwrap();
    assert_eq!(sleep.wait().unwrap().signal(), Some(6));
    cores.join(format!("core.sleep.{}.6", sleep.id()))
}

fn configured(workstation: &Workstation) -> Command {
    let file = workstation.path("agent.toml");
    fs::write(&file, "[collect]\nfiles = true\n").unwrap();
    let mut command = workstation.command(&["agent", "run", "--config"]);
    command.arg(file);
    command
}

#[test]
fn agent_collects_uploads_and_deletes_the_core_files_of_the_host() {
    if or_skip(root_is_a_mount()).is_none() {
        return;
    }
    let Some(_lock) = or_skip(KernelSettingsLock::for_settings()) else {
        return;
    };
    let workstation = Workstation::new();
    let cores = workstation.path("cores");
    fs::create_dir(&cores).unwrap();
    let pattern = format!("{}/core.%e.%p.%s", cores.display());
    fs::write(PATTERN, &pattern).unwrap();
    // One is there before the agent, one is written while it runs.
    let first = crash(&cores);
    assert!(first.exists(), "the kernel wrote no core file");
    fs::write(cores.join("core.sleep.x.6"), "no name that the kernel made").unwrap();
    let mut agent = Agent::start(&workstation, configured(&workstation));
    let mut deleted = |core: &Path| {
        let name = core.file_name().unwrap().to_str().unwrap();
        let line = agent.wait_for(&format!("core file `{name}` is deleted, dump "));
        assert!(!core.exists(), "{line}");
        eprintln!("{line}");
    };
    deleted(&first);
    let second = crash(&cores);
    deleted(&second);
    assert_eq!(fs::read_to_string(PATTERN).unwrap().trim_end(), pattern);
    let log = agent.stop();
    let collected = log
        .iter()
        .filter(|line| line.contains(" of no container is dump "));
    assert_eq!(collected.count(), 2, "{log:#?}");
    let left: Vec<_> = fs::read_dir(&cores).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let dumps = workstation.json(&["ls", "-o", "json"]);
    assert_eq!(dumps.as_array().unwrap().len(), 2, "{dumps}");
    let info = workstation.run(&["info", "latest"]);
    for text in [
        "SIGABRT",
        "complete",
        "the kernel wrote it to ",
        " on the node",
    ] {
        assert!(info.out.contains(text), "{text} in {}", info.out);
    }
    let native = workstation.run(&["bt", "latest"]);
    assert!(native.out.contains("nanosleep"), "{}", native.out);
    eprintln!("{}", native.out);
}

#[test]
fn agent_that_collects_refuses_a_pattern_that_is_no_path() {
    let Some(_lock) = or_skip(KernelSettingsLock::for_settings()) else {
        return;
    };
    fs::write(PATTERN, "core").unwrap();
    let workstation = Workstation::new();
    let mut command = configured(&workstation);
    command.arg("--state").arg(workstation.path("state"));
    let answer = workstation.answer(command.output().unwrap());
    assert_ne!(answer.code, 0);
    for text in [
        "cannot collect core files",
        "core_pattern is `core`, not an absolute path",
        "/tmp/core.%e.%p.%t",
    ] {
        assert!(answer.err.contains(text), "{text} in {}", answer.err);
    }
}
