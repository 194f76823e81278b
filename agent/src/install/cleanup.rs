//! Reads the progress of a cluster's cleanup, and each node's report, from its DaemonSet and that
//! DaemonSet's pods.
//!
//! ```text
//! GET /apis/apps/v1/namespaces/<namespace>/daemonsets/<name>      which nodes, which pods, how many
//! GET /api/v1/namespaces/<namespace>/pods?labelSelector=…         the report: the init container's
//!                                                                 termination message
//! ```
//! The pods' init container is `cdh agent uninstall`; a pod that is ready has restored its node.
//! Read-only; names and messages from the cluster are untrusted data.

use serde_json::Value;

use crate::notify::{AccountError, ApiServer, is_name};

/// Maximum bytes of an answer: one page of pods has a few MiB.
const ANSWER_LIMIT: u64 = 64 << 20;
/// Pods of a page.
const PAGE: u32 = 250;

/// Why the cluster's state cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// This process is not in a pod, or the pod has no token.
    #[error("this process has no service account: does it run in a pod that has one?")]
    NoAccount(#[from] AccountError),
    /// A name is not a valid Kubernetes name.
    #[error("`{name}` is not a valid name")]
    Name {
        /// Which.
        name: String,
    },
    /// The API server did not answer, or refused.
    #[error("cannot read {what} from the cluster's API server: {why}")]
    Api {
        /// What was asked for.
        what: String,
        /// What it said.
        why: String,
    },
}

/// One node of the cleanup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCleanup {
    /// Its name; `-` while the pod has no node.
    pub node: String,
    /// Whether it is done.
    pub is_done: bool,
    /// The report of the uninstall, or what the pod waits for.
    pub said: String,
}

/// The progress of the cleanup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanupProgress {
    /// Number of nodes; `None` before the cluster has counted them.
    pub wanted: Option<usize>,
    /// Nodes that have a pod, by name.
    pub nodes: Vec<NodeCleanup>,
}

impl CleanupProgress {
    /// Whether every node is done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let done = self.nodes.iter().filter(|node| node.is_done).count();
        self.wanted.is_some_and(|wanted| done >= wanted)
    }
}

/// The progress of the cleanup by this DaemonSet.
///
/// # Errors
/// If the API server does not answer, or has no such DaemonSet.
pub fn cleanup_progress(
    server: &ApiServer,
    namespace: &str,
    daemonset: &str,
) -> Result<CleanupProgress, ClusterError> {
    for name in [namespace, daemonset] {
        if !is_name(name) {
            return Err(ClusterError::Name {
                name: name.to_owned(),
            });
        }
    }
    let set = get(
        server,
        &format!("daemonset {daemonset}"),
        &format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/{daemonset}"),
    )?;
    let labels = set.pointer("/spec/selector/matchLabels");
    let labels = labels.and_then(Value::as_object).into_iter().flatten();
    let selector: Vec<String> = labels
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect();
    let pods = format!(
        "/api/v1/namespaces/{namespace}/pods?limit={PAGE}&labelSelector={}",
        selector.join(",")
    );
    let uid = set.pointer("/metadata/uid").cloned().unwrap_or_default();
    let (mut nodes, mut next) = (Vec::new(), String::new());
    loop {
        let page = get(server, "pods", &format!("{pods}{next}"))?;
        let items = page.get("items").and_then(Value::as_array);
        let own = items.into_iter().flatten().filter(|pod| is_of(pod, &uid));
        nodes.extend(own.map(of_pod));
        match page.pointer("/metadata/continue").and_then(Value::as_str) {
            Some(token) if !token.is_empty() => next = format!("&continue={token}"),
            _ => break,
        }
    }
    nodes.sort_by(|one, other| one.node.cmp(&other.node));
    let number = |path| set.pointer(path).and_then(Value::as_u64);
    let is_counted = number("/status/observedGeneration") >= number("/metadata/generation");
    let wanted = number("/status/desiredNumberScheduled").filter(|_| is_counted);
    Ok(CleanupProgress {
        wanted: wanted.and_then(|count| usize::try_from(count).ok()),
        nodes,
    })
}

/// The JSON document at a path.
fn get(server: &ApiServer, what: &str, path: &str) -> Result<Value, ClusterError> {
    let failed = |why: String| ClusterError::Api {
        what: what.to_owned(),
        why,
    };
    let (client, request) = server.request(path)?;
    let request = request
        .body(())
        .map_err(|error| failed(error.to_string()))?;
    let answer = client.run(request);
    let answer = answer.map_err(|error| failed(error.to_string()))?;
    let status = answer.status().as_u16();
    if status != 200 {
        let hint = match status {
            401 | 403 => ": its service account may not",
            _ => "",
        };
        return Err(failed(format!("it answered {status}{hint}")));
    }
    let body = answer.into_body().into_with_config().limit(ANSWER_LIMIT);
    serde_json::from_reader(body.reader()).map_err(|error| failed(error.to_string()))
}

fn is_of(pod: &Value, daemonset: &Value) -> bool {
    let owners = pod.pointer("/metadata/ownerReferences");
    let mut owners = owners.and_then(Value::as_array).into_iter().flatten();
    owners.any(|owner| owner.get("uid") == Some(daemonset))
}

fn of_pod(pod: &Value) -> NodeCleanup {
    let text = |value: &Value, path: &str| value.pointer(path)?.as_str().map(str::to_owned);
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let conditions = || conditions.into_iter().flatten();
    let is_done = conditions().any(|one| one["type"] == "Ready" && one["status"] == "True");
    let statuses = |field| {
        let list = pod.pointer(field).and_then(Value::as_array);
        list.into_iter().flatten()
    };
    let init = || statuses("/status/initContainerStatuses");
    let said = init().find_map(|container| {
        text(container, "/state/terminated/message")
            .or_else(|| text(container, "/lastState/terminated/message"))
    });
    // What a container waits for: ErrImagePull, CrashLoopBackOff.
    let waits = || {
        let all = init().chain(statuses("/status/containerStatuses"));
        all.filter_map(|container| text(container, "/state/waiting/reason"))
            .find(|reason| reason != "PodInitializing")
    };
    let unscheduled = || {
        conditions()
            .find(|one| one["type"] == "PodScheduled" && one["status"] == "False")
            .and_then(|one| text(one, "/message"))
    };
    let said = said.map(|said| said.trim().replace('\n', "; "));
    let said = match is_done {
        true => said.unwrap_or_else(|| "done".to_owned()),
        false => {
            let phase = || text(pod, "/status/phase").unwrap_or_else(|| "unknown".to_owned());
            let why = unscheduled().or_else(waits).unwrap_or_else(phase);
            said.map_or_else(|| why.clone(), |said| format!("{why}: {said}"))
        }
    };
    NodeCleanup {
        node: text(pod, "/spec/nodeName").unwrap_or_else(|| "-".to_owned()),
        is_done,
        said,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::path::Path;

    use serde_json::json;

    use super::*;

    /// Serves these answers, one per connection; returns the requested paths.
    fn server(answers: Vec<(u16, Value)>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let work = move || {
            let serve = |(status, answer): (u16, Value)| {
                let (mut stream, _) = listener.accept().unwrap();
                let head: Vec<String> = BufReader::new(stream.try_clone().unwrap())
                    .lines()
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .collect();
                assert!(head.iter().any(|line| line.ends_with("Bearer the-token")));
                let body = answer.to_string();
                let length = body.len();
                let head_back = format!(
                    "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
                );
                stream.write_all(head_back.as_bytes()).unwrap();
                stream.write_all(body.as_bytes()).unwrap();
                head[0].clone()
            };
            answers.into_iter().map(serve).collect()
        };
        (address, std::thread::spawn(work))
    }

    fn account() -> tempfile::TempDir {
        let account = tempfile::tempdir().unwrap();
        fs::write(account.path().join("token"), "the-token\n").unwrap();
        fs::write(account.path().join("ca.crt"), "").unwrap();
        account
    }

    fn daemonset(observed: u64) -> Value {
        json!({
            "metadata": {"uid": "set-1", "generation": 2},
            "spec": {"selector": {"matchLabels": {"app.kubernetes.io/component": "cleanup"}}},
            "status": {"observedGeneration": observed, "desiredNumberScheduled": 3},
        })
    }

    fn pod(node: &str, ready: &str, init: &Value) -> Value {
        json!({
            "metadata": {"ownerReferences": [{"uid": "set-1"}]},
            "spec": {"nodeName": node},
            "status": {
                "phase": "Pending",
                "conditions": [{"type": "Ready", "status": ready}],
                "initContainerStatuses": [{"state": init}],
            },
        })
    }

    #[test]
    fn cleanup_reports_each_node_and_what_the_missing_ones_wait_for() {
        let done = pod(
            "node2",
            "True",
            &json!({"terminated": {
            "message": "restored: core_pattern is core\nnot shipped: 3 dumps in /var/lib/cdh/spool\n"}}),
        );
        let waits = pod(
            "node1",
            "False",
            &json!({"waiting": {"reason": "ErrImagePull"}}),
        );
        let failed = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let mut failed = pod("node3", "False", &failed);
        failed["status"]["initContainerStatuses"][0]["lastState"] =
            json!({"terminated": {"message": "error: cannot remove the trace"}});
        let stranger = json!({"metadata": {}, "spec": {"nodeName": "node4"}});
        let (address, asked) = server(vec![
            (200, daemonset(2)),
            (
                200,
                json!({"items": [done, stranger], "metadata": {"continue": "next-1"}}),
            ),
            (200, json!({"items": [waits, failed]})),
        ]);
        let account = account();
        let cluster = ApiServer::new(address, account.path());
        let progress = cleanup_progress(&cluster, "cdh", "cdh-cleanup").unwrap();
        assert!(!progress.is_done() && progress.wanted == Some(3));
        let lines: Vec<String> = { progress.nodes.iter() }
            .map(|node| format!("{} {} {}", node.node, node.is_done, node.said))
            .collect();
        assert_eq!(
            lines,
            [
                "node1 false ErrImagePull",
                "node2 true restored: core_pattern is core; not shipped: 3 dumps in /var/lib/cdh/spool",
                "node3 false CrashLoopBackOff: error: cannot remove the trace",
            ]
        );
        let asked = asked.join().unwrap();
        assert!(asked[0].starts_with("GET /apis/apps/v1/namespaces/cdh/daemonsets/cdh-cleanup "));
        let selector = "labelSelector=app.kubernetes.io/component=cleanup";
        assert!(asked[1].contains(selector), "{asked:?}");
        assert!(asked[2].contains("&continue=next-1 "), "{asked:?}");
    }

    #[test]
    fn cleanup_is_not_done_before_the_cluster_has_counted_the_nodes() {
        let nothing = json!({"items": []});
        let (address, _) = server(vec![(200, daemonset(1)), (200, nothing.clone())]);
        let account = account();
        let cluster = ApiServer::new(address, account.path());
        let progress = cleanup_progress(&cluster, "cdh", "c");
        assert!(!progress.unwrap().is_done());
        let mut none = daemonset(2);
        none["status"]["desiredNumberScheduled"] = json!(0);
        let (address, _) = server(vec![(200, none), (200, nothing)]);
        let cluster = ApiServer::new(address, account.path());
        let progress = cleanup_progress(&cluster, "cdh", "c");
        assert!(progress.unwrap().is_done());
    }

    #[test]
    fn cluster_says_what_it_cannot_ask() {
        let account = account();
        let (address, _) = server(vec![(403, json!({}))]);
        let cluster = ApiServer::new(address, account.path());
        let error = cleanup_progress(&cluster, "cdh", "c")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("daemonset c") && error.contains("may not"),
            "{error}"
        );
        for (namespace, name) in [("../x", "c"), ("cdh", "a/b"), ("cdh", "")] {
            let refused = cleanup_progress(&cluster, namespace, name);
            assert!(matches!(refused, Err(ClusterError::Name { .. })));
        }
        let elsewhere = ApiServer::new("http://127.0.0.1:1".to_owned(), Path::new("/nowhere"));
        let refused = cleanup_progress(&elsewhere, "cdh", "c");
        assert!(matches!(refused, Err(ClusterError::NoAccount(_))));
    }
}
