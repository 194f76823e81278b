//! Files of crashed processes, stored beside the dumps although they are gone when these are shipped.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use super::node::{Agent, Node};

#[test]
fn program_that_was_deleted_before_it_crashed_is_stored() {
    let Some(mut node) = Node::with_settings(&json!({})) else {
        return;
    };
    node.paths.keep_modules = true;
    let program = node.path("sleep");
    fs::copy("/bin/sleep", &program).unwrap();
    let agent = Agent::start(&node.paths, &node.path("store"));
    node.wait_for_agent();
    let mut sleep = Command::new(&program).arg("60").spawn().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    fs::remove_file(&program).unwrap();
    let pid = rustix::process::Pid::from_child(&sleep);
    rustix::process::kill_process(pid, rustix::process::Signal::ABORT).unwrap();
    sleep.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let manifest = loop {
        if let Some((manifest, _)) = node.dumps().pop() {
            break manifest;
        }
        assert!(Instant::now() < deadline, "nothing is shipped");
        std::thread::sleep(Duration::from_millis(50));
    };
    drop(agent);
    let mut modules = manifest.modules.iter();
    let module = modules.find(|module| module.path.to_string().contains("/sleep"));
    let module = module.unwrap();
    let (id, digest) = (module.build_id.as_ref().unwrap(), module.sha256.unwrap());
    let stored = fs::read(node.path(&format!("store/modules/{id}-{digest}"))).unwrap();
    assert!(stored == fs::read("/bin/sleep").unwrap());
}
