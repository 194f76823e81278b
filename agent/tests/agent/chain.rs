//! Cores are passed on to the handler that core_pattern named before, and our own dump stays complete.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cdh_agent::InstallOptions;
use cdh_agent::supervise::socket::{CoreMode, kernel_has_sockets};
use cdh_bundle::Verdict;
use cdh_elfcore::{CoreFile, FileSource};

use super::node::{Node, handler, programs};

/// Installs over this pattern, crashes, uninstalls. `None` where this way is not available.
fn crash_over(pattern: &str, mode: CoreMode, crash: &Path) -> Option<(Node, u32)> {
    let node = Node::new()?;
    if mode == CoreMode::Socket && !kernel_has_sockets() {
        cdh_testkit::skip("this kernel has no coredump sockets");
        return None;
    }
    fs::write("/proc/sys/kernel/core_pattern", pattern).unwrap();
    let mut options = InstallOptions::new(node.paths.clone(), handler());
    options.chain = true;
    options.mode = mode;
    cdh_agent::install(&options).unwrap();
    // Again, over our own: it is still the other one that gets the cores.
    cdh_agent::install(&options).unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -c unlimited; exec \"$0\" threads 3"])
        .arg(crash);
    let mut child = command.current_dir(&node.root).spawn().unwrap();
    let pid = child.id();
    assert_eq!(child.wait().unwrap().signal(), Some(11));
    node.wait_for_handlers();
    cdh_agent::uninstall(&node.paths).unwrap();
    let now = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    assert_eq!(now.trim_end(), pattern);
    Some((node, pid))
}

const WAYS: [CoreMode; 2] = [CoreMode::Pipe, CoreMode::Socket];

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

/// A program as the previous handler: it looks at the process before it reads the core.
struct Before {
    root: tempfile::TempDir,
}

impl Before {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let text = format!(
            "#!/bin/sh\nname=$(cat /proc/$1/comm)\ncat > {0}.part\n\
             echo \"$* $name $(cat /proc/self/oom_score_adj)\" > {0}.words\nmv {0}.part {0}\n",
            root.path().join("got").display()
        );
        let script = root.path().join("before");
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        Self { root }
    }

    fn pattern(&self, specifiers: &str) -> String {
        format!(
            "|{} {specifiers}",
            self.root.path().join("before").display()
        )
    }

    /// Its arguments and what it saw; its core goes to the node.
    fn got(&self, node: &Node) -> String {
        let got = self.root.path().join("got");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !got.exists() {
            assert!(Instant::now() < deadline, "the one from before got nothing");
            std::thread::sleep(Duration::from_millis(20));
        }
        fs::copy(&got, node.path("got")).unwrap();
        fs::read_to_string(got.with_extension("words")).unwrap()
    }
}

#[test]
fn chain_passes_the_core_to_the_previous_program_while_the_process_exists() {
    for mode in WAYS {
        let before = Before::new();
        let pattern = before.pattern("%P %s %I %e");
        let crash = programs().join("crash");
        let Some((node, pid)) = crash_over(&pattern, mode, &crash) else {
            return;
        };
        let words = before.got(&node);
        // The last number: only a receiver is protected from the OOM killer.
        assert_eq!(words, format!("{pid} 11 {pid} crash crash 0\n"), "{mode:?}");
        assert_got(&node, "got");
    }
}

#[test]
fn chain_writes_a_core_file_where_the_previous_pattern_would() {
    for mode in WAYS {
        let crash = programs().join("crash");
        let Some((node, pid)) = crash_over("core.%e.%P.%s", mode, &crash) else {
            return;
        };
        assert_got(&node, &format!("core.crash.{pid}.11"));
    }
}

/// A thread that is not the first one sets its name, prints its id, and dies.
const THREAD: &str = r#"
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>
static void *work(void *place) {
    prctl(PR_SET_NAME, "worker");
    FILE *out = fopen("tid", "w");
    fprintf(out, "%d", gettid());
    fclose(out);
    *(volatile int *)place = 1;
    return 0;
}
int main(void) {
    pthread_t thread;
    pthread_create(&thread, 0, work, 0);
    for (;;) pause();
}
"#;

#[test]
fn chain_in_socket_mode_names_the_crashed_thread() {
    let (source, program) = (programs().join("thread.c"), programs().join("thread"));
    fs::write(&source, THREAD).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-pthread", "-o"]).arg(&program).arg(&source);
    assert!(cc.status().unwrap().success());
    for mode in WAYS {
        let before = Before::new();
        let pattern = before.pattern("%P %s %I %i %e");
        let Some((node, pid)) = crash_over(&pattern, mode, &program) else {
            return;
        };
        let words = before.got(&node);
        let tid = fs::read_to_string(node.path("tid")).unwrap();
        let expected = format!("{pid} 11 {tid} {tid} worker thread 0\n");
        assert_eq!(words, expected, "{mode:?}");
        assert_eq!(node.sweep().shipped.len(), 1);
        let [(manifest, _)] = &node.dumps()[..] else {
            panic!("one dump was expected")
        };
        let found = manifest.process.tid.map(|tid| tid.to_string());
        assert_eq!(found.as_ref(), Some(&tid), "{mode:?}");
    }
}
