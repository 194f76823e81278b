//! `cdh` in the agent's container, with the environment that the Helm chart gives it and no arguments.

use std::fs;
use std::os::unix::net::UnixListener;

use super::agent::Agent;
use super::{Answer, Workstation};

impl Workstation {
    /// Variables of the chart; the API server cannot be reached.
    fn pod(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.path(name).display().to_string();
        vec![
            ("KUBERNETES_SERVICE_HOST", "127.0.0.1".to_owned()),
            ("KUBERNETES_SERVICE_PORT", "1".to_owned()),
            ("CDH_NODE_NAME", "node1".to_owned()),
            ("CDH_STATE", path("state")),
            ("CDH_LIBEXEC", path("state/lib")),
            ("CDH_NODE_MANAGE", "false".to_owned()),
            ("CDH_CRI_SOCKET", path("cri.sock")),
            ("CDH_NOTIFY_KUBERNETES_EVENTS", "true".to_owned()),
        ]
    }

    fn in_pod(&self, words: &[&str]) -> Answer {
        let variables = self.pod();
        let variables: Vec<(&str, &str)> = { variables.iter() }
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        self.with(words, &variables)
    }
}

#[test]
fn doctor_in_a_pod_needs_no_arguments_and_leaves_nothing_behind() {
    let workstation = Workstation::new();
    let left = |workstation: &Workstation| fs::read_dir(workstation.path("")).unwrap().count();
    let before = left(&workstation);
    let answer = workstation.in_pod(&["agent", "doctor"]);
    for line in [
        "PROBLEM  container runtime: ",
        "cri.sock does not answer: ",
        "warning  events on pods: cannot read /var/run/secrets/",
        "a test object was written, read and deleted",
    ] {
        assert!(answer.out.contains(line), "{line} in {}", answer.out);
    }
    assert!(
        answer.out.contains("ok       privileges: "),
        "{}",
        answer.out
    );
    assert_eq!(left(&workstation), before, "the store that it was to test");
}

#[test]
fn agent_reports_a_runtime_that_is_silent_in_its_log_and_status() {
    let workstation = Workstation::new();
    let socket = workstation.path("cri.sock");
    // It listens, and never answers.
    let _hangs = UnixListener::bind(&socket).unwrap();
    let mut command = workstation.command(&["agent", "run"]);
    command.envs(workstation.pod());
    let mut agent = Agent::start(&workstation, command);
    agent.wait_for("cannot create Events for new crashes: cannot read ");
    let line = agent.wait_for("does not answer: ");
    assert!(
        line.contains("warning: the container runtime at ") && line.contains("within 2 s"),
        "{line}"
    );
    let status = workstation.in_pod(&["agent", "status"]);
    let line = status.out.lines().find(|line| line.starts_with("runtime "));
    let line = line.unwrap_or_else(|| panic!("{}", status.out));
    assert!(
        line.contains("cri.sock: DOES NOT ANSWER since 20"),
        "{line}"
    );
    let log = agent.stop();
    let said = log.iter().filter(|line| line.contains("does not answer"));
    assert_eq!(said.count(), 1, "{log:#?}");
}
