//! The files of one engine, and the facts in them about a container.

use std::path::PathBuf;

use cdh_bundle::{Gap, ImageRef, Manifest, Workload, WorkloadKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::workload::{Answer, files, gap};

/// Maximum bytes of an engine's file: podman has all containers in one file, about 1 KiB each.
pub(super) const LARGEST: u64 = 16 << 20;

/// Bytes of a name.
pub(super) const LONGEST_NAME: usize = 512;

/// The facts in an engine's files about one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct EngineFacts {
    pub(super) workload: Workload,
    pub(super) image: Option<ImageRef>,
    pub(super) gaps: Vec<Gap>,
}

impl EngineFacts {
    pub(super) fn of(runtime: &str) -> Self {
        Self {
            workload: Workload {
                kind: Some(WorkloadKind::Container),
                runtime: Some(runtime.to_owned()),
                source: Some("engine".to_owned()),
                ..Workload::default()
            },
            ..Self::default()
        }
    }

    /// Name and id of the image in the engine's records.
    pub(super) fn set_image_facts(&mut self, name: Option<&str>, id: &str) {
        let extra = &mut self.workload.extra;
        if let Some(name) = name.filter(|name| name.len() <= LONGEST_NAME) {
            extra.insert("image_name".to_owned(), name.into());
        }
        if !id.is_empty() && id.len() <= LONGEST_NAME {
            extra.insert("image_id".to_owned(), id.into());
        }
    }

    pub(super) fn no_digest(&mut self, why: &str) {
        self.gaps.push(gap("image", why));
    }

    /// Whether it is a container of a pod. The container runtime has more facts about those.
    #[must_use]
    pub(crate) fn is_of_pod(&self) -> bool {
        self.workload.kind == Some(WorkloadKind::Pod)
    }

    /// Adds the facts to a manifest with the container's cgroup.
    pub(crate) fn add_to(self, manifest: &mut Manifest) {
        let before = manifest.workload.take().unwrap_or_default();
        let workload = self.workload;
        manifest.workload = Some(Workload {
            pod_uid: before.pod_uid.or(workload.pod_uid),
            container_id: before.container_id,
            extra: before.extra.into_iter().chain(workload.extra).collect(),
            ..workload
        });
        manifest.image = self.image.or(manifest.image.take());
        manifest.gaps.extend(self.gaps);
    }
}

impl From<EngineFacts> for Answer {
    fn from(facts: EngineFacts) -> Self {
        Self {
            workload: facts.workload,
            image: facts.image,
            gaps: facts.gaps,
            ..Self::default()
        }
    }
}

/// Directories of one user's engines.
#[derive(Debug)]
pub(super) struct EngineHome {
    /// The owner of every file in there.
    pub(super) owner: u32,
    /// A directory that only root can replace, and podman's storage below it.
    pub(super) podman: (PathBuf, PathBuf),
    /// The same for docker.
    pub(super) docker: (PathBuf, PathBuf),
}

impl EngineHome {
    /// A file of podman's storage.
    pub(super) fn podman<T: DeserializeOwned>(&self, below: &str) -> Option<T> {
        self.read(&self.podman, below)
    }

    /// A file of docker's.
    pub(super) fn docker<T: DeserializeOwned>(&self, below: &str) -> Option<T> {
        self.read(&self.docker, below)
    }

    pub(super) fn read<T: DeserializeOwned>(
        &self,
        (base, data): &(PathBuf, PathBuf),
        below: &str,
    ) -> Option<T> {
        let bytes = files::read_owned(base, &data.join(below), self.owner, LARGEST).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// `repository@sha256:…`, if the digest is valid.
pub(super) fn reference(repository: &str, digest: &str) -> Option<ImageRef> {
    let hex = digest.strip_prefix("sha256:")?;
    let good = hex.len() == 64
        && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !repository.is_empty()
        && repository.len() <= LONGEST_NAME;
    good.then(|| ImageRef::by_digest(format!("{repository}@{digest}")))
}
