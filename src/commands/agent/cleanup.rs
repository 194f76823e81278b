//! `cdh agent await-cleanup`: the Job of the chart's uninstall, which waits for every node and prints what
//! each reports.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use cdh_agent::install::cleanup::{CleanupProgress, NodeCleanup, cleanup_progress};
use cdh_agent::notify::ApiServer;

use crate::args::AwaitCleanupArgs;
use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};
use crate::settings::environment;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// How long to retry while the API server does not answer or refuses: roles take effect with a
/// delay.
const PATIENCE: Duration = Duration::from_secs(30);
/// Maximum bytes that Kubernetes stores of a terminated container's message
/// (`terminationMessagePath`).
const MESSAGE: &str = "/dev/termination-log";

/// Writes these lines where the cluster shows them with the state of this container.
pub(super) fn leave_message(lines: &[String]) {
    if Path::new(MESSAGE).is_file() {
        let lines: Vec<_> = lines.iter().map(|line| terminal_line(line)).collect();
        let _ = fs::write(MESSAGE, lines.join("\n"));
    }
}

pub(super) fn run(args: &AwaitCleanupArgs) -> Result<ExitStatus> {
    let environment = environment();
    let get = |name: &str| environment.get(name).map(String::as_str);
    let host = get("KUBERNETES_SERVICE_HOST");
    let Some(server) = ApiServer::in_cluster(host, get("KUBERNETES_SERVICE_PORT")) else {
        return Err(
            Failure::new(ExitStatus::Failure, "this is not a pod of a cluster")
                .hint("the Helm chart runs this; on a host, run `cdh agent uninstall`")
                .into(),
        );
    };
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(args.timeout);
    let mut answered = begun;
    let mut shown = BTreeSet::new();
    loop {
        let progress = cleanup_progress(&server, &args.namespace, &args.daemonset);
        let progress = match progress {
            Ok(progress) => {
                answered = Instant::now();
                Some(progress)
            }
            Err(_) if answered.elapsed() < PATIENCE && Instant::now() < deadline => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(progress) = progress {
            for node in progress.nodes.iter().filter(|node| node.is_done) {
                if shown.insert(node.node.clone()) {
                    super::super::print(&line(node))?;
                }
            }
            if progress.is_done() {
                super::super::print(&summary(&progress))?;
                return Ok(ExitStatus::Done);
            }
            if Instant::now() >= deadline {
                return Err(unfinished(&progress, args.timeout)?);
            }
        }
        std::thread::sleep(PAUSE);
    }
}

fn line(node: &NodeCleanup) -> String {
    format!(
        "{}  {}\n",
        terminal_line(&node.node),
        terminal_line(&node.said)
    )
}

fn summary(progress: &CleanupProgress) -> String {
    let unshipped = { progress.nodes.iter() }
        .filter(|node| node.said.contains(super::install::NOT_SHIPPED))
        .count();
    let nodes = |count: usize| match count {
        1 => "1 node".to_owned(),
        count => format!("{count} nodes"),
    };
    let total = nodes(progress.nodes.len());
    match unshipped {
        0 => format!("{total} cleaned up, all dumps are shipped\n"),
        some => format!(
            "{total} cleaned up, dumps that were not shipped are on {}\n",
            nodes(some)
        ),
    }
}

/// Prints the nodes that are not done, and returns a failure.
fn unfinished(progress: &CleanupProgress, timeout: u64) -> Result<anyhow::Error> {
    let missing: Vec<&NodeCleanup> = progress.nodes.iter().filter(|node| !node.is_done).collect();
    for node in &missing {
        super::super::print(&line(node))?;
    }
    let without_pod = { progress.wanted.unwrap_or(0) }.saturating_sub(progress.nodes.len());
    let count = missing.len() + without_pod;
    let what = match progress.wanted {
        Some(_) => format!("after {timeout} s the cleanup is not done on {count} nodes"),
        None => format!("after {timeout} s the cluster has not started the cleanup"),
    };
    Ok(Failure::new(ExitStatus::Failure, what)
        .hint("on each of these nodes, run `cdh agent uninstall`, or repeat the cleanup when it is ready")
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_counts_the_nodes_with_unshipped_dumps() {
        let node = |said: &str| NodeCleanup {
            node: "n".to_owned(),
            is_done: true,
            said: said.to_owned(),
        };
        let mut progress = CleanupProgress {
            wanted: Some(2),
            nodes: vec![node("restored: core_pattern is core"), node("restored: x")],
        };
        assert_eq!(
            summary(&progress),
            "2 nodes cleaned up, all dumps are shipped\n"
        );
        progress
            .nodes
            .push(node("restored: x; not shipped: 3 dumps in /spool"));
        let text = summary(&progress);
        assert_eq!(
            text,
            "3 nodes cleaned up, dumps that were not shipped are on 1 node\n"
        );
    }
}
