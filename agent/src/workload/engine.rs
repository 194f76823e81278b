//! Containers of podman and docker, by the files in which these engines keep them: they have no
//! daemon to ask, or one that speaks no CRI.
//!
//! podman: `containers/storage/overlay-containers/containers.json` (names, image) and
//! `overlay-images/images.json` (digests). docker: `docker/containers/<id>/config.v2.json`, whose
//! labels name the pod where cri-dockerd made it. Only files of root are looked at.

use std::path::Path;

use cdh_bundle::{ImageRef, WorkloadKind, image_repository as repository};
use serde_json::Value;

use super::files;
use super::identity::ContainerIdentity;
use super::{Answer, gap};

/// Bytes of an engine's file at most: podman keeps all containers in one.
const LARGEST: u64 = 32 << 20;

/// What the engine's files say about the container.
pub(super) fn find(root: &Path, container: &ContainerIdentity) -> Option<Answer> {
    podman(root, container).or_else(|| docker(root, container))
}

fn podman(root: &Path, container: &ContainerIdentity) -> Option<Answer> {
    let storage = root.join("containers/storage");
    let containers = json(&storage.join("overlay-containers/containers.json"), 1)?;
    let mut all = containers.as_array()?.iter();
    let found = all.find(|one| text(one, "id").as_deref() == Some(&container.id))?;
    let mut answer = Answer::default();
    answer.workload.kind = Some(WorkloadKind::Container);
    answer.workload.runtime = Some("podman".to_owned());
    answer.workload.container = found
        .get("names")
        .and_then(|names| names.get(0)?.as_str())
        .map(str::to_owned);
    let image = text(found, "image").unwrap_or_default();
    // What podman was told, in JSON in a string.
    let metadata =
        text(found, "metadata").and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let name = metadata.and_then(|metadata| text(&metadata, "image-name"));
    set_image_facts(&mut answer, name.as_deref(), &image);
    let images = json(&storage.join("overlay-images/images.json"), 1);
    let record = images.as_ref().and_then(|images| {
        let mut all = images.as_array()?.iter();
        all.find(|one| text(one, "id").as_deref() == Some(&image))
    });
    let digest = record.and_then(|record| text(record, "digest"));
    match name.as_deref().and_then(repository).zip(digest) {
        Some((repository, digest)) => {
            let reference = format!("{repository}@{digest}");
            answer.image = Some(ImageRef::by_digest(reference));
        }
        None => answer
            .gaps
            .push(gap("image", "podman's files do not tell its digest")),
    }
    Some(answer)
}

fn docker(root: &Path, container: &ContainerIdentity) -> Option<Answer> {
    let path = root.join("docker/containers").join(&container.id);
    let found = json(&path.join("config.v2.json"), 2)?;
    let config = found.get("Config")?;
    let label = |name: &str| config.get("Labels").and_then(|labels| text(labels, name));
    let mut answer = Answer::default();
    let workload = &mut answer.workload;
    workload.runtime = Some("docker".to_owned());
    workload.namespace = label("io.kubernetes.pod.namespace");
    workload.pod = label("io.kubernetes.pod.name");
    workload.pod_uid = label("io.kubernetes.pod.uid");
    workload.kind = Some(match workload.pod {
        Some(_) => WorkloadKind::Pod,
        None => WorkloadKind::Container,
    });
    workload.container = label("io.kubernetes.container.name").or_else(|| {
        let name = text(&found, "Name")?;
        Some(name.trim_start_matches('/').to_owned())
    });
    let name = text(config, "Image");
    let id = text(&found, "Image").unwrap_or_default();
    set_image_facts(&mut answer, name.as_deref(), &id);
    match name.filter(|name| name.contains("@sha256:")) {
        Some(reference) => answer.image = Some(ImageRef::by_digest(reference)),
        None => answer
            .gaps
            .push(gap("image", "docker's files do not tell its digest")),
    }
    Some(answer)
}

fn set_image_facts(answer: &mut Answer, name: Option<&str>, id: &str) {
    let extra = &mut answer.workload.extra;
    if let Some(name) = name {
        extra.insert("image_name".to_owned(), name.into());
    }
    if !id.is_empty() {
        extra.insert("image_id".to_owned(), id.into());
    }
}

fn json(path: &Path, depth: usize) -> Option<Value> {
    serde_json::from_slice(&files::read(path, depth, LARGEST).ok()?).ok()
}

fn text(value: &Value, key: &str) -> Option<String> {
    let text = value.get(key)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn identity(id: &str) -> ContainerIdentity {
        ContainerIdentity {
            id: id.to_owned(),
            pod_uid: None,
            runtime: None,
        }
    }

    #[test]
    fn containers_are_found_in_the_files_of_podman_and_docker() {
        let root = tempfile::tempdir().unwrap();
        let storage = root.path().join("containers/storage");
        fs::create_dir_all(storage.join("overlay-containers")).unwrap();
        fs::create_dir_all(storage.join("overlay-images")).unwrap();
        // As podman 4.3.1 writes them.
        let containers = serde_json::json!([{
            "id": "c1", "names": ["web"], "image": "i1",
            "metadata": "{\"image-name\":\"localhost:5000/shop/web:1\",\"image-id\":\"i1\",\"name\":\"web\"}",
        }]);
        let images = serde_json::json!([{
            "id": "i1", "digest": "sha256:aa", "names": ["localhost:5000/shop/web:1"],
        }]);
        let write = |path: &str, value: &Value| {
            fs::write(storage.join(path), value.to_string()).unwrap();
        };
        write("overlay-containers/containers.json", &containers);
        write("overlay-images/images.json", &images);
        let found = find(root.path(), &identity("c1")).unwrap();
        assert_eq!(found.workload.container.as_deref(), Some("web"));
        assert_eq!(
            found.image.unwrap().reference,
            "localhost:5000/shop/web@sha256:aa"
        );

        let docker = root.path().join("docker/containers/d1");
        fs::create_dir_all(&docker).unwrap();
        let config = serde_json::json!({
            "Name": "/k8s_main_api_shop_u_0", "Image": "sha256:bb",
            "Config": {"Image": "shop/api@sha256:cc", "Labels": {
                "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.name": "api",
                "io.kubernetes.container.name": "main", "io.kubernetes.pod.uid": "u",
            }},
        });
        fs::write(docker.join("config.v2.json"), config.to_string()).unwrap();
        let found = find(root.path(), &identity("d1")).unwrap();
        assert_eq!(found.workload.kind, Some(WorkloadKind::Pod));
        assert_eq!(found.workload.container.as_deref(), Some("main"));
        assert_eq!(found.image.unwrap().reference, "shop/api@sha256:cc");
        assert!(find(root.path(), &identity("other")).is_none());
    }
}
