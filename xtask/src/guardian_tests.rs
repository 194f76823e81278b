use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use cdh_testkit::or_skip;

use super::*;
use crate::bench::trace;

/// Where a measurement of this process may have its cgroups.
fn cgroups(pid: u32) -> Vec<PathBuf> {
    let places =
        ["", "unified", "freezer", "memory"].map(|name| Path::new("/sys/fs/cgroup").join(name));
    let places = places
        .into_iter()
        .filter(|place| place.join("cgroup.procs").exists());
    places
        .map(|place| place.join(format!("cdh-bench-{pid}")))
        .collect()
}

fn instances(pid: u32) -> [PathBuf; 2] {
    let name = |what: &str| Path::new("/sys/kernel/tracing/instances").join(format!("{what}{pid}"));
    [name("cdh-bench-"), name("cdh-guarded-")]
}

/// Copies `sleep` into the directory and starts it there.
fn sleeper(place: &Path) -> Child {
    let program = place.join("sleeper");
    fs::copy("/bin/sleep", &program).unwrap();
    Command::new(program)
        .arg("600")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The other process of the test below: it takes what a measurement takes, and waits for its end.
#[test]
#[ignore = "another test runs it and kills it"]
fn a_measurement_that_waits_for_its_end() {
    let place = tempfile::Builder::new().prefix("cdhb").tempdir().unwrap();
    let pid = std::process::id();
    let guardian = Guardian::start(place.path()).unwrap().unwrap();
    fs::write(SETTINGS[1], "core.guarded").unwrap();
    fs::write(SETTINGS[2], "77").unwrap();
    let mut sleeper = sleeper(place.path());
    for group in cgroups(pid) {
        fs::create_dir(&group).unwrap();
        fs::write(group.join("cgroup.procs"), sleeper.id().to_string()).unwrap();
        // A frozen process dies only when it is let go.
        let _ = fs::write(group.join("freezer.state"), "FROZEN");
    }
    let traces: Vec<_> = instances(pid)
        .iter()
        .filter_map(|path| trace::instance(&path.file_name().unwrap().to_string_lossy()))
        .collect();
    let mount = place.path().join("disk");
    fs::create_dir(&mount).unwrap();
    let mut tmpfs = Command::new("mount");
    tmpfs.args(["-t", "tmpfs", "cdh-bench"]).arg(&mount);
    println!(
        "ready {} {} {} {}",
        place.path().display(),
        sleeper.id(),
        traces.len(),
        tmpfs.status().is_ok_and(|status| status.success())
    );
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    // A process that is released cleans up after itself.
    let _ = Command::new("umount").arg(&mount).status();
    sleeper.kill().unwrap();
    drop(guardian);
    sleeper.wait().unwrap();
}

#[test]
fn a_measurement_that_is_killed_leaves_no_settings_cgroups_traces_or_processes() {
    let before = {
        let Some(_lock) = or_skip(KernelSettingsLock::for_settings()) else {
            return;
        };
        read_settings().unwrap()
    };
    for is_killed in [true, false] {
        let mut other = Command::new(std::env::current_exe().unwrap());
        other.args(["--ignored", "--exact", "--nocapture"]);
        other.arg("guardian::tests::a_measurement_that_waits_for_its_end");
        let mut other = other
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = other.id();
        let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).find_map(|line| {
            // The name of the test precedes it.
            line.split_once("ready ").map(|(_, rest)| rest.to_owned())
        });
        let ready = ready.expect("it says that it is ready");
        let words: Vec<&str> = ready.split(' ').collect();
        let (place, sleeper) = (Path::new(words[0]), words[1]);
        assert!(place.is_dir() && read_settings().unwrap()[2] == "77");
        assert!(cgroups(pid).iter().any(|group| group.is_dir()));
        if is_killed {
            other.kill().unwrap();
        } else {
            drop(other.stdin.take());
        }
        let status = other.wait().unwrap();
        assert_eq!(status.success(), !is_killed);
        // The guardian has the lock as long as it works.
        let _lock = KernelSettingsLock::acquire().unwrap();
        assert_eq!(read_settings().unwrap(), before);
        let left: Vec<_> = cgroups(pid)
            .into_iter()
            .chain(instances(pid))
            .filter(|path| path.exists())
            .collect();
        assert!(left.is_empty(), "killed {is_killed}: {left:?}");
        assert!(!place.exists(), "killed {is_killed}: {}", place.display());
        assert!(!Path::new("/proc").join(sleeper).join("root").exists());
    }
}
