//! Identifies containers of podman and docker from the files of these engines.
//!
//! The handler reads them while the process is held: with `--rm`, the engine deletes its record as soon
//! as the process has ended, and the daemon would be too late. The daemon reads them again for dumps
//! without a container name.
//!
//! ```text
//! /var/lib/containers/storage, or `graphroot` of /etc/containers/storage.conf      podman
//! /var/lib/docker, or `data-root` of /etc/docker/daemon.json                       docker
//! ~/.local/share/containers/storage, ~/.local/share/docker                         rootless
//! ```
//!
//! Invariants: every file is regular, limited in size, and owned by root, or by the user in whose home it
//! is. No link below these directories is followed. A user's own files can only name containers of that
//! user. An engine's socket or program is never used.

mod docker;
mod facts;
mod podman;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub(crate) use facts::EngineFacts;
use facts::EngineHome;

use super::files;
use crate::owner::ContainerIdentity;

/// Maximum bytes of a configuration file, and of `passwd`.
const LARGEST_CONFIG: u64 = 1 << 20;

/// The engines' default data directories.
const DATA: &str = "/var/lib";

/// The facts in the engines' files about the container. `data` is `/var/lib`; `users` are those who may
/// have started it without root.
pub(crate) fn find(
    data: &Path,
    users: &[u32],
    container: &ContainerIdentity,
) -> Option<EngineFacts> {
    // The id becomes part of paths.
    let is_id = container.id.len() == 64 && container.id.bytes().all(|b| b.is_ascii_hexdigit());
    let own = container.cgroup_owner.map(|uid| [uid]);
    let mut places = is_id.then(|| places(data, own.as_ref().map_or(users, |own| &own[..])))?;
    // A name in a user's cgroup never identifies root's containers.
    places.retain(|place| own.as_ref().is_none_or(|[uid]| place.owner == *uid));
    places.iter().find_map(|place| {
        podman::find(place, &container.id).or_else(|| docker::find(place, &container.id))
    })
}

/// Users who may have started a container: the one in whose session its cgroup is, and the one that the
/// process runs as. Root's containers are found without users.
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

fn places(data: &Path, users: &[u32]) -> Vec<EngineHome> {
    let etc = match data == Path::new(DATA) {
        true => PathBuf::from("/etc"),
        // In tests, all files of a node are below one directory.
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

/// `graphroot` of a `storage.conf` (TOML): one string on its own line.
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

/// The home directory of a user of this machine, from `passwd(5)`. Directory services are not used, because
/// they may hang.
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

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
