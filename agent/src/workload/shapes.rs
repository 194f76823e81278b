//! Formats the runtime's answers as the JSON of `crictl`, for scripts that were written for IBM's
//! bundles.
//!
//! `crictl` prints protobuf's JSON: camelCase, 64-bit numbers as strings, enums by name. In `inspect` and
//! `inspectp`, times are RFC 3339, and the runtime's additions are beside `status`, parsed if they are JSON.

use std::collections::{BTreeMap, HashMap};

use cdh_cri::{
    Container, ContainerState, ContainerStatusResponse, Image, ImageSpec, MountPropagation,
    NamespaceMode, PodSandbox, PodSandboxMetadata, PodSandboxState, PodSandboxStatusResponse,
};
use jiff::Timestamp;
use serde_json::{Value, json};

/// One of the items of `crictl pods -o json`: IBM's `-pod-info.json`.
pub(super) fn pod(pod: &PodSandbox) -> Value {
    json!({
        "id": pod.id,
        "metadata": pod_metadata(pod.metadata.as_ref()),
        "state": sandbox_state(pod.state),
        "createdAt": pod.created_at.to_string(),
        "labels": sorted(&pod.labels),
        "annotations": sorted(&pod.annotations),
        "runtimeHandler": pod.runtime_handler,
    })
}

/// `crictl ps -o json`: IBM's `-ps-info.json`.
pub(super) fn containers(containers: &[Container]) -> Value {
    let one = |container: &Container| {
        json!({
            "id": container.id,
            "podSandboxId": container.pod_sandbox_id,
            "metadata": container_metadata(container.metadata.as_ref()),
            "image": image_spec(container.image.as_ref()),
            "imageRef": container.image_ref,
            "state": container_state(container.state),
            "createdAt": container.created_at.to_string(),
            "labels": sorted(&container.labels),
            "annotations": sorted(&container.annotations),
        })
    };
    json!({ "containers": containers.iter().map(one).collect::<Vec<_>>() })
}

/// `crictl inspectp`: IBM's `-runtime-info.json`.
pub(super) fn sandbox(answer: &PodSandboxStatusResponse) -> Value {
    let Some(status) = &answer.status else {
        return with_info(json!({}), &answer.info);
    };
    let options = status
        .linux
        .as_ref()
        .and_then(|linux| linux.namespaces.as_ref()?.options.as_ref());
    let mode = |mode: i32| {
        let known = NamespaceMode::try_from(mode);
        known.map_or("UNKNOWN", NamespaceMode::as_str_name)
    };
    let namespaces = options.map(|options| {
        json!({
            "network": mode(options.network),
            "pid": mode(options.pid),
            "ipc": mode(options.ipc),
            "targetId": options.target_id,
        })
    });
    let network = status.network.as_ref().map(|network| {
        let ips: Vec<_> = network
            .additional_ips
            .iter()
            .map(|ip| json!({ "ip": ip.ip }))
            .collect();
        json!({ "ip": network.ip, "additionalIps": ips })
    });
    let shown = json!({
        "id": status.id,
        "metadata": pod_metadata(status.metadata.as_ref()),
        "state": sandbox_state(status.state),
        "createdAt": time(status.created_at),
        "network": network,
        "linux": { "namespaces": { "options": namespaces } },
        "labels": sorted(&status.labels),
        "annotations": sorted(&status.annotations),
        "runtimeHandler": status.runtime_handler,
    });
    with_info(shown, &answer.info)
}

/// `crictl inspect`.
pub(super) fn container(answer: &ContainerStatusResponse) -> Value {
    let Some(status) = &answer.status else {
        return with_info(json!({}), &answer.info);
    };
    let mounts: Vec<_> = status
        .mounts
        .iter()
        .map(|mount| {
            let propagation = MountPropagation::try_from(mount.propagation);
            json!({
                "containerPath": mount.container_path,
                "hostPath": mount.host_path,
                "readonly": mount.readonly,
                "selinuxRelabel": mount.selinux_relabel,
                "propagation": propagation.map_or("UNKNOWN", MountPropagation::as_str_name),
            })
        })
        .collect();
    let shown = json!({
        "id": status.id,
        "metadata": container_metadata(status.metadata.as_ref()),
        "state": container_state(status.state),
        "createdAt": time(status.created_at),
        "startedAt": time(status.started_at),
        "finishedAt": time(status.finished_at),
        "exitCode": status.exit_code,
        "image": image_spec(status.image.as_ref()),
        "imageRef": status.image_ref,
        "reason": status.reason,
        "message": status.message,
        "labels": sorted(&status.labels),
        "annotations": sorted(&status.annotations),
        "mounts": mounts,
        "logPath": status.log_path,
    });
    with_info(shown, &answer.info)
}

/// One of the items of `crictl images -o json`: IBM's `-<n>-image-info.json`.
pub(super) fn image(image: &Image) -> Value {
    let uid = image
        .uid
        .as_ref()
        .map(|uid| json!({ "value": uid.value.to_string() }));
    json!({
        "id": image.id,
        "repoTags": image.repo_tags,
        "repoDigests": image.repo_digests,
        "size": image.size.to_string(),
        "uid": uid,
        "username": image.username,
        "spec": image.spec.as_ref().map(|spec| image_spec(Some(spec))),
        "pinned": image.pinned,
    })
}

/// The runtime's addition under a key, parsed if it is JSON.
pub(super) fn info(info: &HashMap<String, String>, key: &str) -> Value {
    let text = info.get(key);
    let parsed = text.and_then(|text| serde_json::from_str(text).ok());
    parsed
        .or_else(|| text.map(|text| text.as_str().into()))
        .unwrap_or(Value::Null)
}

fn with_info(status: Value, more: &HashMap<String, String>) -> Value {
    let mut all = serde_json::Map::new();
    for key in more.keys() {
        all.insert(key.clone(), info(more, key));
    }
    all.insert("status".to_owned(), status);
    Value::Object(all)
}

fn pod_metadata(metadata: Option<&PodSandboxMetadata>) -> Value {
    metadata.map_or(Value::Null, |metadata| {
        json!({
            "name": metadata.name,
            "uid": metadata.uid,
            "namespace": metadata.namespace,
            "attempt": metadata.attempt,
        })
    })
}

fn container_metadata(metadata: Option<&cdh_cri::ContainerMetadata>) -> Value {
    metadata.map_or(
        Value::Null,
        |metadata| json!({ "name": metadata.name, "attempt": metadata.attempt }),
    )
}

fn image_spec(spec: Option<&ImageSpec>) -> Value {
    spec.map_or(Value::Null, |spec| {
        json!({
            "image": spec.image,
            "annotations": sorted(&spec.annotations),
            "userSpecifiedImage": spec.user_specified_image,
            "runtimeHandler": spec.runtime_handler,
        })
    })
}

fn sandbox_state(state: i32) -> &'static str {
    PodSandboxState::try_from(state).map_or("UNKNOWN", PodSandboxState::as_str_name)
}

fn container_state(state: i32) -> &'static str {
    ContainerState::try_from(state).map_or("CONTAINER_UNKNOWN", ContainerState::as_str_name)
}

fn sorted(map: &HashMap<String, String>) -> BTreeMap<&str, &str> {
    map.iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

/// Nanoseconds since 1970 as RFC 3339; zero is protobuf's "never", which `crictl` prints as 1970 too.
fn time(nanoseconds: i64) -> String {
    Timestamp::from_nanosecond(nanoseconds.into())
        .map_or_else(|_| nanoseconds.to_string(), |time| time.to_string())
}
