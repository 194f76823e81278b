//! Checks the agent's peers: the store, the container runtimes, and the running agent itself.

use cdh_bundle::DumpId;
use cdh_store::{ObjectKey, Store};

use super::finding::{Examined, Finding};
use crate::diagnose::status::{PatternOwner, Status, status};
use crate::error_chain::explain;
use crate::node::at_boot::{AtBoot, at_boot as look_at_boot};
use crate::paths::AgentPaths;
use crate::workload::runtime_at;

/// Whether an object in the store can be written, read and deleted.
#[must_use]
pub fn examine_store(store: &dyn Store) -> Finding {
    const CHECK: &str = "store";
    let place = store.describe();
    let text = b"written by `cdh agent doctor`, may be deleted\n";
    // Not in a folder, because a directory store would keep it after the test.
    let key = format!("doctor-{}.txt", DumpId::random());
    let failed = |verb: &str, error: &dyn std::error::Error, way: &str| {
        Finding::problem(
            CHECK,
            format!("{place}: cannot {verb}: {}", explain(error)),
            way,
        )
    };
    let key = match ObjectKey::parse(&key) {
        Ok(key) => key,
        Err(error) => return failed("name an object", &error, "report this"),
    };
    if let Err(error) = store.put(&key, &mut &text[..], text.len() as u64) {
        let usual = "check the address, credentials and the permission to write (s3:PutObject)";
        let way = error.hint().unwrap_or(usual.into());
        let way = format!("{way}; dumps wait in the spool meanwhile");
        return failed("write", &error, &way);
    }
    let read = store
        .read(&key)
        .map_err(|error| explain(&error))
        .and_then(|source| {
            let mut bytes = vec![0; text.len()];
            let count = source
                .read_at(0, &mut bytes)
                .map_err(|error| error.to_string())?;
            bytes.truncate(count);
            Ok(bytes == text)
        });
    let deleted = store.delete(&key);
    match (read, deleted) {
        (Ok(true), Ok(())) => Finding::good(
            CHECK,
            format!("{place}: a test object was written, read and deleted"),
        ),
        (Ok(false), _) => {
            let what = format!("{place} returns other bytes than were written");
            Finding::problem(
                CHECK,
                what,
                "check proxies and gateways between this node and the store",
            )
        }
        (Err(why), _) => {
            let way = "give it the permission to read (s3:GetObject): every dump is verified before it leaves the node";
            Finding::problem(
                CHECK,
                format!("{place}: cannot read what was written: {why}"),
                way,
            )
        }
        (_, Err(error)) => {
            let what = format!("{place}: cannot delete `{key}`: {}", explain(&error));
            let way = "give it the permission to delete (s3:DeleteObject), or remains of uploads that went wrong stay";
            Finding::warning(CHECK, what, way)
        }
    }
}

/// Whether the service account may create Events, if they are enabled. `None` for `events` means that this
/// process is not in a cluster.
#[cfg(feature = "daemon")]
#[must_use]
pub fn examine_events(events: Option<&crate::notify::KubernetesEvents>) -> Finding {
    const CHECK: &str = "events on pods";
    let lost = "new crashes are not shown in `kubectl describe pod`";
    match events.map(crate::notify::KubernetesEvents::check) {
        Some(Ok(())) => Finding::good(CHECK, "the service account may create them"),
        Some(Err(why)) => Finding::warning(
            CHECK,
            format!("{why}: {lost}"),
            "bind the service account to a ClusterRole that may `create` `events`, and mount its token; the chart does with `notify.kubernetesEvents=true`",
        ),
        None => Finding::warning(
            CHECK,
            format!("this process does not run in a cluster: {lost}"),
            "remove `kubernetes_events` from `[notify]`",
        ),
    }
}

pub(crate) fn runtimes(node: &Examined<'_>) -> Vec<Finding> {
    const CHECK: &str = "container runtime";
    let sockets = node.paths.workloads.sockets();
    let has = |path: &str| node.node_root.is_some_and(|root| root.join(path).is_dir());
    let is_kubernetes = node.in_pod || has("var/lib/kubelet") || has("etc/kubernetes");
    if sockets.is_empty() {
        return vec![match is_kubernetes {
            true => Finding::warning(
                CHECK,
                "no socket found: dumps will not name the images of their pods",
                "pass `--cri-socket <PATH>`; in a cluster mount it (`node.criSockets`)",
            ),
            false => Finding::good(CHECK, "none: only processes of this host are captured"),
        }];
    }
    let sockets = sockets.into_iter();
    sockets
        .map(|socket| match runtime_at(&socket) {
            Ok(name) => Finding::good(CHECK, format!("{name} answers at {}", socket.display())),
            Err(why) => Finding::problem(
                CHECK,
                format!(
                    "{} does not answer: {why}: dumps will not name their images and owners",
                    socket.display()
                ),
                "check that the runtime runs, and its socket: `--cri-socket`, in a cluster `node.criSockets`; run this as root",
            ),
        })
        .collect()
}

/// Whether the handler is installed again after a reboot; no finding if it is not installed now.
pub(crate) fn at_boot(node: &Examined<'_>) -> Option<Finding> {
    const CHECK: &str = "after a reboot";
    let status = status(node.paths)
        .ok()
        .filter(|status| status.pattern == PatternOwner::Ours)?;
    if node.in_pod {
        return Some(Finding::good(
            CHECK,
            "Kubernetes starts the pod, which installs it again",
        ));
    }
    let found = look_at_boot(node.root, node.manages);
    let missing = missing_at_boot(&found, node.program, node.flags);
    let is_managed = status.record.is_some_and(|record| record.manages_node);
    Some(match (found, missing) {
        (AtBoot::Unit { name }, _) => {
            Finding::good(CHECK, format!("{name} installs it again at boot"))
        }
        (AtBoot::Script { path }, _) => {
            let path = path.display();
            Finding::good(CHECK, format!("{path} installs it again at boot"))
        }
        // An unknown init system may start it.
        _ if is_managed && status.shipper_running == Some(true) => Finding::good(
            CHECK,
            "the running `cdh agent run --manage-node` installs it whenever it starts",
        ),
        (_, Some((what, way))) => Finding::warning(CHECK, what, way),
        (_, None) => return None,
    })
}

/// What is wrong with the start of the handler at boot, and how to fix it; `None` if something
/// installs it.
#[must_use]
pub fn missing_at_boot(found: &AtBoot, program: &str, flags: &str) -> Option<(String, String)> {
    let flags = match flags {
        "" => String::new(),
        flags => format!(" {flags}"),
    };
    let lost = "a reboot loses core_pattern";
    Some(match found {
        AtBoot::Unit { .. } | AtBoot::Script { .. } => return None,
        AtBoot::Disabled { name } => (
            format!("{lost}, and {name}, which would install it again, is not enabled"),
            format!("`systemctl enable --now {name}`"),
        ),
        AtBoot::ShipsOnly { name } => (
            format!(
                "{lost}, and {name} runs the agent without `--manage-node`: it ships dumps and does not install"
            ),
            format!(
                "add `--manage-node` to the unit (`systemctl edit --full {name}`), or set `manage = true` in `[node]` of /etc/cdh/agent.toml"
            ),
        ),
        AtBoot::Nothing { has_systemd: true } => (
            format!("{lost}, and nothing installs it again at boot"),
            format!(
                "`{program} agent unit{flags} > /etc/systemd/system/cdh-agent.service && systemctl enable --now cdh-agent`"
            ),
        ),
        AtBoot::Nothing { has_systemd: false } => (
            format!("{lost}, and nothing installs it again at boot"),
            format!(
                "start `{program} agent run --manage-node{flags}` at boot (it installs when it starts); `{program} agent unit{flags}` prints a systemd unit that does"
            ),
        ),
    })
}

pub(crate) fn spool(paths: &AgentPaths) -> Vec<Finding> {
    const CHECK: &str = "agent";
    let Ok(status) = status(paths) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    found.push(match status.shipper_running {
        Some(true) => Finding::good(CHECK, "runs"),
        None => Finding::warning(
            CHECK,
            format!("cannot look into {}", paths.state.display()),
            "run as root",
        ),
        Some(false) => without_agent(&status),
    });
    // These have their own checks.
    let checked = ["core_pipe_limit", "is missing", "are not bounded by"];
    let known = |problem: &&String| !checked.iter().any(|words| problem.contains(words));
    for problem in status.problems.iter().filter(known) {
        found.push(Finding::warning(
            CHECK,
            problem.clone(),
            "see `cdh agent status`",
        ));
    }
    found
}

/// No agent runs: reports that the handler continues to capture, how many dumps wait, and how to
/// uninstall.
fn without_agent(status: &Status) -> Finding {
    const CHECK: &str = "agent";
    let installed = status.pattern == PatternOwner::Ours;
    let oldest = { status.waiting.iter() }
        .filter_map(|dump| dump.captured_at)
        .min();
    let waits = match (status.waiting.len(), oldest) {
        (0, _) => "nothing waits".to_owned(),
        (1, _) => "1 dump is not shipped".to_owned(),
        (count, Some(oldest)) => {
            format!("{count} dumps are not shipped, the oldest of {oldest:.0}")
        }
        (count, None) => format!("{count} dumps are not shipped"),
    };
    let spool = status.spool.display();
    let (goes_on, way) = match installed {
        false if status.waiting.is_empty() => (
            "nothing is installed",
            "run `cdh agent install`, and start `cdh agent run`",
        ),
        true => (
            "the handler keeps capturing within the spool's quota",
            "start `cdh agent run`, or run `cdh agent sweep` regularly; if cdh is to leave this node, run `cdh agent uninstall`",
        ),
        false => (
            "nothing is installed",
            "ship them with `cdh agent sweep`, or delete the directory",
        ),
    };
    Finding::warning(
        CHECK,
        format!("does not run: {goes_on}; {waits} ({spool})"),
        way,
    )
}
