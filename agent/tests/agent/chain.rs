//! Cores are handed on to whoever had the core pattern before, and our own dump is none the worse.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use cdh_agent::InstallOptions;
use cdh_bundle::Verdict;
use cdh_elfcore::{CoreFile, FileSource};

use super::node::{Node, handler, programs};

/// Installs over this pattern, crashes, uninstalls.
fn crash_over(pattern: &str) -> Option<(Node, u32)> {
    let node = Node::new()?;
    fs::write("/proc/sys/kernel/core_pattern", pattern).unwrap();
    let mut options = InstallOptions::new(node.paths.clone(), handler());
    options.chain = true;
    cdh_agent::install(&options).unwrap();
    // Again, over our own: it is still the other one that gets the cores.
    cdh_agent::install(&options).unwrap();
    let program = programs().join("crash");
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -c unlimited; exec \"$0\" threads 3"])
        .arg(program);
    let mut child = command.current_dir(&node.root).spawn().unwrap();
    let pid = child.id();
    assert_eq!(child.wait().unwrap().signal(), Some(11));
    node.wait_for_handlers();
    cdh_agent::uninstall(&node.paths).unwrap();
    let now = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    assert_eq!(now.trim_end(), pattern);
    Some((node, pid))
}

/// Waits for a core in this file, and compares it with the dump's.
fn assert_got(node: &Node, name: &str) {
    let path = node.path(name);
    let deadline = Instant::now() + Duration::from_secs(30);
    let is_whole = || {
        let core = fs::File::open(&path).and_then(FileSource::new).ok();
        let core = core.and_then(|core| CoreFile::open(Box::new(core)).ok());
        core.is_some_and(|core| core.completeness().is_complete())
    };
    while !is_whole() {
        assert!(
            Instant::now() < deadline,
            "no core in {name}: {:?}",
            super::names_in(node.root.path())
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(node.sweep().shipped.len(), 1);
    let [(manifest, bundle)] = &node.dumps()[..] else {
        panic!("one dump was expected")
    };
    assert_eq!(manifest.verdict, Verdict::Complete);
    let own = bundle.core_reader().unwrap().unwrap();
    super::assert_same(own, fs::File::open(&path).unwrap());
}

#[test]
fn a_program_from_before_gets_the_core_and_still_finds_the_process() {
    let root = tempfile::tempdir().unwrap();
    let script = root.path().join("before");
    let got = root.path().join("got");
    let text = format!(
        "#!/bin/sh\necho \"$2 $(cat /proc/$1/comm)\" > {0}.name\ncat > {0}.part && mv {0}.part {0}\n",
        got.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let Some((node, _)) = crash_over(&format!("|{} %P %e", script.display())) else {
        return;
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while !got.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::copy(&got, node.path("got")).unwrap();
    assert_got(&node, "got");
    let name = fs::read_to_string(got.with_extension("name")).unwrap();
    assert_eq!(name, "crash crash\n");
}

#[test]
fn a_file_from_before_is_written_where_it_would_have_been() {
    let Some((node, pid)) = crash_over("core.%e.%P") else {
        return;
    };
    assert_got(&node, &format!("core.crash.{pid}"));
}
