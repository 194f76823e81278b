//! File systems that start no programs: no matter for a spool, a clear refusal for a handler that the kernel
//! is to start, and a receiver that runs from memory where the kernel only connects.

use std::fs;
use std::process::Command;

use cdh_agent::diagnose::doctor::{Examined, Finding, State, examine};
use cdh_agent::node::binary::BinaryError;
use cdh_agent::node::settings::NodeSettings;
use cdh_agent::supervise::socket::{CoreMode, kernel_has_sockets};
use cdh_agent::{InstallError, InstallOptions};
use cdh_bundle::Verdict;

use super::node::{Node, SmallDisk, handler, names_in, programs};

const NOEXEC: &str = "size=64m,mode=0700,noexec,nosuid,nodev";

/// What the doctor says of the handler's directory.
fn handler_directory(node: &Node) -> Finding {
    let findings = examine(&Examined::host(&node.paths, std::path::Path::new("/")));
    let mut of_it = findings
        .into_iter()
        .filter(|one| one.check == "handler directory");
    of_it.next().unwrap()
}

#[test]
fn spool_on_a_noexec_file_system_stores_dumps() {
    let Some(node) = Node::new() else { return };
    let Some(_disk) = SmallDisk::mount(node.paths.state.clone(), NOEXEC) else {
        return;
    };
    let options = InstallOptions::new(node.paths.clone(), handler());
    cdh_agent::install(&options).unwrap();
    assert_eq!(handler_directory(&node).state, State::Good);
    Command::new(programs().join("crash")).status().unwrap();
    node.wait_for_handlers();
    assert_eq!(node.sweep().shipped.len(), 1);
    assert_eq!(node.dumps()[0].0.verdict, Verdict::Complete);
    cdh_agent::uninstall(&node.paths).unwrap();
}

#[test]
fn install_refuses_a_noexec_directory_before_any_change() {
    let Some(node) = Node::new() else { return };
    let directory = node.paths.handler.parent().unwrap().to_owned();
    let Some(_disk) = SmallDisk::mount(directory.clone(), NOEXEC) else {
        return;
    };
    let before = NodeSettings::read(&node.paths.settings).unwrap();
    let options = InstallOptions::new(node.paths.clone(), handler());
    let error = cdh_agent::install(&options).unwrap_err();
    assert!(
        matches!(
            error,
            InstallError::Binary(BinaryError::NotExecutable { .. })
        ),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("noexec") && text.contains(directory.to_str().unwrap()),
        "{text}"
    );
    assert_eq!(NodeSettings::read(&node.paths.settings).unwrap(), before);
    assert!(names_in(&directory).is_empty() && !node.paths.backup().exists());
    let finding = handler_directory(&node);
    assert!(
        finding.state == State::Problem && finding.what.contains("noexec"),
        "{finding:?}"
    );
    assert!(finding.way.unwrap().contains("--libexec"));
}

#[test]
fn receiver_runs_from_memory_on_a_noexec_file_system() {
    let Some(node) = Node::new() else { return };
    if !kernel_has_sockets() {
        return cdh_testkit::skip("this kernel has no coredump sockets");
    }
    let directory = node.paths.handler.parent().unwrap().to_owned();
    let Some(_disk) = SmallDisk::mount(directory, NOEXEC) else {
        return;
    };
    // The workaround that the doctor names works.
    assert!(
        handler_directory(&node)
            .way
            .unwrap()
            .contains("--mode socket")
    );
    let mut options = InstallOptions::new(node.paths.clone(), handler());
    for mode in [CoreMode::Socket, CoreMode::Auto] {
        options.mode = mode;
        let report = cdh_agent::install(&options).unwrap();
        assert!(
            report.now.core_pattern.to_string().starts_with('@'),
            "{report:?}"
        );
        let finding = handler_directory(&node);
        assert!(
            finding.state == State::Good && finding.what.contains("from memory"),
            "{finding:?}"
        );
        Command::new(programs().join("crash")).status().unwrap();
        let (manifest, log) = node.take_entry();
        assert_eq!(manifest.verdict, Verdict::Complete, "{log}");
        // Its settings are those beside the handler, which it is not beside.
        assert!(!log.contains("the defaults hold"), "{log}");
    }
    cdh_agent::uninstall(&node.paths).unwrap();
    assert!(!cdh_agent::handler::is_receiving(&node.paths.socket()));
    fs::metadata(&node.paths.handler).unwrap_err();
}
