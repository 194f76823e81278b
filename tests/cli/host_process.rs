//! A process of the host outside of any container: the system's own `sleep`, killed with
//! SIGABRT, captured by the kernel's pipe and debugged where it crashed.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cdh_agent::SettingsFiles;
use cdh_agent::node::settings::NodeSettings;
use cdh_testkit::{KernelSettingsLock, or_skip};

struct Workstation<'p>(&'p Path);

impl Workstation<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cdh"));
        for (name, place) in [
            ("CDH_STORE", "store"),
            ("CDH_STATE", "state"),
            ("CDH_LIBEXEC", "libexec"),
            ("XDG_CACHE_HOME", "cache"),
        ] {
            command.env(name, self.0.join(place));
        }
        command.env_remove("DEBUGINFOD_URLS").args(words);
        command
    }

    fn run(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        // 1 says that something is missing, such as debugging information.
        assert!(output.status.code() < Some(2), "cdh {words:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Uninstalls, also when the test panics.
struct Installed<'d>(&'d Workstation<'d>);

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        let _ = self.0.command(&["agent", "uninstall"]).output();
    }
}

#[test]
fn host_process_is_captured_with_its_modules_and_debugged() {
    let Some(_lock) = or_skip(KernelSettingsLock::for_handlers()) else {
        return;
    };
    let before = NodeSettings::read(&SettingsFiles::kernel()).unwrap();
    let directory = tempfile::Builder::new().prefix("cdh").tempdir().unwrap();
    let workstation = Workstation(directory.path());
    fs::create_dir(directory.path().join("store")).unwrap();
    let mut words = vec!["agent", "install"];
    let handler = std::env::var("CDH_TEST_HANDLER").unwrap_or_default();
    if !handler.is_empty() {
        words.extend(["--handler", &handler]);
    }
    workstation.run(&words);
    let installed = Installed(&workstation);
    let mut sleep = Command::new("sh")
        .args(["-c", "ulimit -c unlimited; exec sleep 1000"])
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let pid = rustix::process::Pid::from_child(&sleep);
    rustix::process::kill_process(pid, rustix::process::Signal::ABORT).unwrap();
    assert_eq!(sleep.wait().unwrap().signal(), Some(6));
    workstation.run(&["agent", "sweep", "--keep-modules"]);
    drop(installed);
    assert_eq!(
        NodeSettings::read(&SettingsFiles::kernel()).unwrap(),
        before
    );

    let info = workstation.run(&["info", "latest"]);
    assert!(
        info.contains("SIGABRT") && info.contains("complete"),
        "{info}"
    );
    let modules = fs::read_dir(directory.path().join("store/modules")).unwrap();
    assert!(modules.count() >= 2, "sleep itself and its C library");
    let native = workstation.run(&["bt", "latest"]);
    assert!(native.contains("nanosleep"), "{native}");
    let by_gdb = workstation.run(&["debug", "latest", "--", "-batch", "-nx", "-ex", "bt"]);
    assert!(by_gdb.contains("nanosleep"), "{by_gdb}");
}
