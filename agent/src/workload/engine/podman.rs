//! podman's storage, in the layout of the library containers/storage (`containers.go`,
//! `images.go`):
//!
//! ```text
//! overlay-containers/containers.json            names, image, and podman's own metadata as JSON in a string
//! overlay-containers/volatile-containers.json   the same of containers with `--rm`, since podman 4.4
//! overlay-images/images.json                    digest and names of each image
//! overlay-images/<id>/=<base64 of the key>      the image's configuration, under the key `sha256:<id>`
//! ```
//!
//! libpod's own database (bolt, since podman 5 SQLite) has no further facts that are needed here.

use std::collections::HashMap;

use cdh_bundle::image_repository;
use serde::Deserialize;

use super::facts::{EngineFacts, EngineHome, LONGEST_NAME, reference};

/// Storage drivers, whose names begin the directories' names.
const DRIVERS: [&str; 5] = ["overlay", "vfs", "btrfs", "zfs", "overlay2"];

#[derive(Deserialize)]
struct Container {
    id: String,
    names: Option<Vec<String>>,
    image: Option<String>,
    metadata: Option<String>,
}

/// podman's record of a container, in `metadata`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Metadata {
    image_name: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Image {
    id: String,
    digest: Option<String>,
    names: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Configuration {
    config: Option<ContainerConfiguration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerConfiguration {
    labels: Option<HashMap<String, String>>,
}

/// The facts in podman's files about the container.
pub(super) fn find(home: &EngineHome, id: &str) -> Option<EngineFacts> {
    DRIVERS.iter().find_map(|driver| find_of(home, driver, id))
}

fn find_of(home: &EngineHome, driver: &str, id: &str) -> Option<EngineFacts> {
    let lists = ["containers", "volatile-containers"];
    let container = lists.iter().find_map(|list| {
        let all: Vec<Container> = home.podman(&format!("{driver}-containers/{list}.json"))?;
        all.into_iter().find(|one| one.id == id)
    })?;
    let metadata = container.metadata.as_deref().unwrap_or_default();
    let metadata: Metadata = serde_json::from_str(metadata).unwrap_or_default();
    let mut facts = EngineFacts::of("podman");
    let name = container.names.and_then(|names| names.into_iter().next());
    facts.workload.container = name
        .or(metadata.name)
        .filter(|name| name.len() <= LONGEST_NAME);
    let image_id = container.image.unwrap_or_default();
    let asked = metadata.image_name.filter(|name| !name.is_empty());
    facts.set_image_facts(asked.as_deref(), &image_id);
    let images: Vec<Image> = home
        .podman(&format!("{driver}-images/images.json"))
        .unwrap_or_default();
    let image = images.into_iter().find(|one| one.id == image_id);
    let (digest, tags) = image.map_or((None, Vec::new()), |image| {
        (image.digest, image.names.unwrap_or_default())
    });
    // For a container that was started by the image's id.
    let named = asked
        .as_deref()
        .and_then(image_repository)
        .filter(|name| *name != image_id);
    let repository = named.or_else(|| image_repository(tags.first()?));
    let found = repository.zip(digest.as_deref());
    let found = found.and_then(|(repository, digest)| reference(repository, digest));
    let Some(mut found) = found else {
        facts.no_digest("podman's files hold no digest of it");
        return Some(facts);
    };
    let is_id = image_id.len() == 64 && image_id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id {
        let key = base64(format!("sha256:{image_id}").as_bytes());
        let path = format!("{driver}-images/{image_id}/={key}");
        let configuration: Option<Configuration> = home.podman(&path);
        let labels = configuration.and_then(|found| found.config?.labels);
        let labels = labels.unwrap_or_default();
        found.set_labels(|name| labels.get(name).map(String::as_str));
    }
    let tags = tags
        .iter()
        .map(String::as_str)
        .filter(|tag| tag.len() <= LONGEST_NAME);
    found.set_name(
        asked.as_deref().filter(|name| name.len() <= LONGEST_NAME),
        tags,
    );
    facts.image = Some(found);
    Some(facts)
}

/// RFC 4648 with padding, as containers/storage names files of keys with a colon (`makeBigDataBaseName`).
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = usize::try_from(bits >> (18 - 6 * at) & 63).unwrap_or(0);
            let digit = ALPHABET.get(digit).copied().unwrap_or(b'=');
            text.push(match at > chunk.len() {
                true => '=',
                false => char::from(digit),
            });
        }
    }
    text
}
