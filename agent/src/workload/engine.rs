//! Containers of podman and docker, from the files in which these engines keep them.
//!
//! The handler reads them while the process is still held: with `--rm` the engine deletes its record as
//! soon as the process is gone, and the daemon would come too late. The daemon reads them again for dumps
//! of which the handler found nothing.
//!
//! ```text
//! /var/lib/containers/storage, or `graphroot` of /etc/containers/storage.conf      podman
//! /var/lib/docker, or `data-root` of /etc/docker/daemon.json                       docker
//! ~/.local/share/containers/storage, ~/.local/share/docker                         rootless
//! ```
//!
//! Invariants: every file is regular, bounded, and owned by root, or by the user whose home it is in; no
//! link below these directories is followed. What a user writes into the own files names nothing but that
//! user's containers. An engine's socket or program is never used.

mod docker;
mod podman;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cdh_bundle::{Gap, ImageRef, Manifest, Workload, WorkloadKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Answer, files, gap};
use crate::owner::ContainerIdentity;

/// Bytes of an engine's file: podman keeps all containers in one, about 1 KiB each.
const LARGEST: u64 = 16 << 20;
/// Bytes of a configuration file, and of `passwd`.
const LARGEST_CONFIG: u64 = 1 << 20;
/// Bytes of a name.
const LONGEST_NAME: usize = 512;
/// Where the engines keep their data by default.
const DATA: &str = "/var/lib";

/// What an engine's files say about one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct EngineFacts {
    workload: Workload,
    image: Option<ImageRef>,
    gaps: Vec<Gap>,
}

impl EngineFacts {
    fn of(runtime: &str) -> Self {
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

    /// Name and id of the image as the engine has them.
    fn set_image_facts(&mut self, name: Option<&str>, id: &str) {
        let extra = &mut self.workload.extra;
        if let Some(name) = name.filter(|name| name.len() <= LONGEST_NAME) {
            extra.insert("image_name".to_owned(), name.into());
        }
        if !id.is_empty() && id.len() <= LONGEST_NAME {
            extra.insert("image_id".to_owned(), id.into());
        }
    }

    fn no_digest(&mut self, why: &str) {
        self.gaps.push(gap("image", why));
    }

    /// Whether it is a container of a pod. The container runtime knows more about those.
    #[must_use]
    pub(crate) fn is_of_pod(&self) -> bool {
        self.workload.kind == Some(WorkloadKind::Pod)
    }

    /// Adds them to a manifest that knows the container's cgroup.
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

/// What the engines' files say about the container. `data` is `/var/lib`; `users` are those who may have
/// started it without root.
pub(crate) fn find(
    data: &Path,
    users: &[u32],
    container: &ContainerIdentity,
) -> Option<EngineFacts> {
    // It becomes part of paths.
    let is_id = container.id.len() == 64 && container.id.bytes().all(|b| b.is_ascii_hexdigit());
    let own = container.cgroup_owner.map(|uid| [uid]);
    let mut places = is_id.then(|| places(data, own.as_ref().map_or(users, |own| &own[..])))?;
    // What a user's cgroup is called names none of root's containers.
    places.retain(|place| own.as_ref().is_none_or(|[uid]| place.owner == *uid));
    places.iter().find_map(|place| {
        podman::find(place, &container.id).or_else(|| docker::find(place, &container.id))
    })
}

/// Users who may have started a container: the one whose session its cgroup is in, and the one that the
/// process runs as. Root's containers are found without.
#[must_use]
pub(crate) fn users_of(cgroup: &[u8], uid: Option<u32>) -> Vec<u32> {
    let text = String::from_utf8_lossy(cgroup);
    let session = text.split(['/', '\n']).find_map(|part| {
        let number = part
            .strip_prefix("user-")
            .and_then(|rest| rest.strip_suffix(".slice"))
            .or_else(|| part.strip_prefix("user@")?.strip_suffix(".service"));
        number?.parse().ok()
    });
    let mut users: Vec<u32> = [session, uid].into_iter().flatten().collect();
    users.retain(|uid| *uid != 0);
    users.dedup();
    users
}

/// Directories of one user's engines.
#[derive(Debug)]
struct EngineHome {
    /// Who owns every file in there.
    owner: u32,
    /// A directory that only root can replace, and podman's storage below it.
    podman: (PathBuf, PathBuf),
    /// The same for docker.
    docker: (PathBuf, PathBuf),
}

impl EngineHome {
    /// A file of podman's storage.
    fn podman<T: DeserializeOwned>(&self, below: &str) -> Option<T> {
        self.read(&self.podman, below)
    }

    /// A file of docker's.
    fn docker<T: DeserializeOwned>(&self, below: &str) -> Option<T> {
        self.read(&self.docker, below)
    }

    fn read<T: DeserializeOwned>(
        &self,
        (base, data): &(PathBuf, PathBuf),
        below: &str,
    ) -> Option<T> {
        let bytes = files::read_owned(base, &data.join(below), self.owner, LARGEST).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

fn places(data: &Path, users: &[u32]) -> Vec<EngineHome> {
    let etc = match data == Path::new(DATA) {
        true => PathBuf::from("/etc"),
        // Everything of a node that is laid out elsewhere is below one directory.
        false => data.join("etc"),
    };
    let root = rustix::process::geteuid().as_raw();
    let config = |below: &str| files::read_owned(&etc, Path::new(below), root, LARGEST_CONFIG).ok();
    let set = |place: Option<PathBuf>, usual: &str| {
        let place = place.filter(|place| place.is_absolute());
        (place.unwrap_or_else(|| data.join(usual)), PathBuf::new())
    };
    let graph_root = config("containers/storage.conf").and_then(|text| graph_root(&text));
    let data_root = config("docker/daemon.json").and_then(|text| data_root(&text));
    let system = EngineHome {
        owner: root,
        podman: set(graph_root, "containers/storage"),
        docker: set(data_root, "docker"),
    };
    let passwd = config("passwd").unwrap_or_default();
    let rootless = users.iter().filter_map(|uid| {
        let home = home_of(&passwd, *uid)?;
        Some(EngineHome {
            owner: *uid,
            podman: (home.clone(), ".local/share/containers/storage".into()),
            docker: (home, ".local/share/docker".into()),
        })
    });
    std::iter::once(system).chain(rootless).collect()
}

/// `graphroot` of a `storage.conf` (TOML): one string on a line of its own.
fn graph_root(text: &[u8]) -> Option<PathBuf> {
    let text = String::from_utf8_lossy(text);
    text.lines().find_map(|line| {
        let value = line.trim().strip_prefix("graphroot")?.trim_start();
        let value = value.strip_prefix('=')?.trim().trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| value.into())
    })
}

/// `data-root` of a `daemon.json`.
fn data_root(text: &[u8]) -> Option<PathBuf> {
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    Some(value.get("data-root")?.as_str()?.into())
}

/// The home directory of a user of this machine, as `passwd(5)` has it. Nobody else is asked: a directory
/// service may hang.
fn home_of(passwd: &[u8], uid: u32) -> Option<PathBuf> {
    let uid = uid.to_string();
    let mut users = passwd.split(|byte| *byte == b'\n').map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        (fields.nth(2), fields.nth(2))
    });
    let (_, home) = users.find(|(found, _)| *found == Some(uid.as_bytes()))?;
    let home = PathBuf::from(OsStr::from_bytes(home?));
    home.is_absolute().then_some(home)
}

/// `repository@sha256:…`, where the digest is one.
fn reference(repository: &str, digest: &str) -> Option<ImageRef> {
    let hex = digest.strip_prefix("sha256:")?;
    let good = hex.len() == 64
        && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !repository.is_empty()
        && repository.len() <= LONGEST_NAME;
    good.then(|| ImageRef::by_digest(format!("{repository}@{digest}")))
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
