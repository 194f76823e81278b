//! Creates an Event on the pod; `kubectl describe pod` and `kubectl events` show it.
//!
//! The agent authenticates to the cluster's API server as its pod's service account. It creates
//! Events, and checks whether it may. The check needs no permission of its own.

use serde_json::{Value, json};
use ureq::{Agent, http};

use super::Crash;
use super::api_server::{ApiServer, is_name};
use super::crash::Pod;
use super::delivery::{Attempt, Deliver, ask, post};

/// Maximum length of an Event's message in bytes, defined by the API.
const MESSAGE: usize = 1024;

const NOT_ALLOWED: &str = "the service account may not create events";

/// Creates Events on pods.
#[derive(Clone, Debug)]
pub struct KubernetesEvents {
    server: ApiServer,
}

impl KubernetesEvents {
    /// Creates Events in this cluster.
    #[must_use]
    pub fn new(server: ApiServer) -> Self {
        Self { server }
    }

    /// Whether the service account may create Events.
    ///
    /// # Errors
    /// Fails if it may not, or if that cannot be determined.
    pub fn check(&self) -> Result<(), String> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": "create", "resource": "events"}},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let (client, request) = self.request(path)?;
        let answer = ask(&client, request, review.to_string().into_bytes())?;
        let answer: Value = serde_json::from_slice(&answer)
            .map_err(|error| format!("the API server's answer is not JSON: {error}"))?;
        match answer.pointer("/status/allowed").and_then(Value::as_bool) {
            Some(true) => Ok(()),
            Some(false) => Err(NOT_ALLOWED.to_owned()),
            None => Err("the API server does not say whether events may be created".to_owned()),
        }
    }

    fn request(&self, path: &str) -> Result<(Agent, http::request::Builder), String> {
        let request = self.server.request(path);
        let (client, request) = request.map_err(|error| error.to_string())?;
        Ok((client, request.header("content-type", "application/json")))
    }
}

impl Deliver for KubernetesEvents {
    fn target(&self) -> &'static str {
        "kubernetes"
    }

    fn name(&self) -> String {
        "the cluster".to_owned()
    }

    fn deliver(&self, crash: &Crash) -> Attempt {
        let Some(pod) = &crash.pod else {
            return Attempt::Done;
        };
        if !is_name(&pod.namespace) || !is_name(&pod.name) {
            return Attempt::Refused("its pod has no valid name".to_owned());
        }
        let path = format!("/api/v1/namespaces/{}/events", pod.namespace);
        let (client, request) = match self.request(&path) {
            Ok(request) => request,
            Err(why) => return Attempt::Later(why),
        };
        let body = event(crash, pod).to_string().into_bytes();
        match post(&client, request, body) {
            // The Event exists: the answer to an earlier attempt was lost.
            Attempt::Refused(why) if why.ends_with("409") => Attempt::Done,
            Attempt::Refused(why) if why.ends_with("403") || why.ends_with("401") => {
                Attempt::Refused(format!("{why}: {NOT_ALLOWED}"))
            }
            other => other,
        }
    }
}

fn event(crash: &Crash, pod: &Pod) -> Value {
    let message = format!(
        "{}: {}. The core is {}; look at it with `cdh bt {}`",
        crash.program, crash.signal, crash.verdict_text, crash.id
    );
    let message: String = message.chars().take(MESSAGE / 4).collect();
    // The name is derived from the dump, so a repeated message is the same Event.
    let end = crash.id.len().min(16);
    let name = pod.name.get(..pod.name.len().min(200)).unwrap_or("pod");
    let name = format!("{name}.{}", crash.id.get(..end).unwrap_or("0"));
    let field = pod
        .container
        .as_ref()
        .map(|name| format!("spec.containers{{{name}}}"));
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": pod.namespace},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
            "fieldPath": field,
        },
        "type": "Warning",
        "reason": "CoreDumped",
        "message": message,
        "count": 1,
        "firstTimestamp": seconds(&crash.at),
        "lastTimestamp": seconds(&crash.at),
        "source": {"component": "cdh", "host": crash.node},
        "reportingComponent": "cdh.io/agent",
        "reportingInstance": crash.node,
    })
}

/// Removes the fraction: `metav1.Time` has none.
fn seconds(at: &str) -> String {
    match at.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => at.to_owned(),
    }
}

#[cfg(test)]
#[path = "kubernetes_tests.rs"]
mod tests;
