//! docker's files, in the format of `dockerd` (moby `container/container.go`,
//! `reference/store.go`):
//!
//! ```text
//! containers/<id>/config.v2.json       name, image, labels (the image's are merged into them)
//! image/<driver>/repositories.json     tags and digests, each with the id of its image
//! ```
//!
//! With containerd's image store there is no `repositories.json`; `config.v2.json` then holds the descriptor
//! of the manifest that the container was made from. If cri-dockerd created the container, labels name its
//! pod.

use std::collections::HashMap;

use cdh_bundle::{WorkloadKind, image_repository};
use serde::Deserialize;

use super::facts::{EngineFacts, EngineHome, LONGEST_NAME, reference};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    name: Option<String>,
    image: Option<String>,
    driver: Option<String>,
    config: Configuration,
    image_manifest: Option<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Configuration {
    image: Option<String>,
    labels: Option<HashMap<String, String>>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Repositories {
    /// Repository, then name with tag or digest, then the image's id.
    repositories: HashMap<String, HashMap<String, String>>,
}

/// The facts in docker's files about the container.
pub(super) fn find(home: &EngineHome, id: &str) -> Option<EngineFacts> {
    let container: Container = home.docker(&format!("containers/{id}/config.v2.json"))?;
    let labels = container.config.labels.unwrap_or_default();
    let label = |name: &str| labels.get(name).filter(|text| !text.is_empty()).cloned();
    let mut facts = EngineFacts::of("docker");
    let workload = &mut facts.workload;
    workload.namespace = label("io.kubernetes.pod.namespace");
    workload.pod = label("io.kubernetes.pod.name");
    workload.pod_uid = label("io.kubernetes.pod.uid");
    if workload.pod.is_some() {
        workload.kind = Some(WorkloadKind::Pod);
    }
    workload.container = label("io.kubernetes.container.name").or_else(|| {
        let name = container.name?;
        let name = name.trim_start_matches('/');
        (!name.is_empty() && name.len() <= LONGEST_NAME).then(|| name.to_owned())
    });
    let asked = container.config.image.filter(|name| !name.is_empty());
    let image_id = container.image.unwrap_or_default();
    facts.set_image_facts(asked.as_deref(), &image_id);

    let driver = container.driver.unwrap_or_default();
    let is_driver = !driver.is_empty() && driver.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let known: Repositories = is_driver
        .then(|| home.docker(&format!("image/{driver}/repositories.json")))
        .flatten()
        .unwrap_or_default();
    let all = known.repositories.values().flatten();
    let mut names: Vec<&str> = all
        .filter(|(name, id)| **id == image_id && name.len() <= LONGEST_NAME)
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    let repository = asked.as_deref().and_then(image_repository);
    let digest_of = |name: &str| {
        let (repository, digest) = name.split_once('@')?;
        reference(image_repository(repository)?, digest)
    };
    let named = names
        .iter()
        .filter(|name| image_repository(name) == repository);
    let descriptor = container.image_manifest.and_then(|found| found.digest);
    let found = asked
        .as_deref()
        .and_then(digest_of)
        .or_else(|| named.clone().find_map(|name| digest_of(name)))
        .or_else(|| reference(repository?, descriptor.as_deref()?))
        .or_else(|| names.iter().find_map(|name| digest_of(name)));
    let Some(mut found) = found else {
        facts.no_digest("docker's files hold no digest of it: it was built here and not pushed");
        return Some(facts);
    };
    found.set_labels(|name| labels.get(name).map(String::as_str));
    found.set_name(
        asked.as_deref().filter(|name| name.len() <= LONGEST_NAME),
        names,
    );
    facts.image = Some(found);
    Some(facts)
}
