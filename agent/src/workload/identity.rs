//! Whose process it is, by its cgroup: pod UID, container id, runtime; or nobody's but the host's.
//!
//! ```text
//! kubepods/burstable/pod<UID>/<ID>                                    cgroupfs driver
//! kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID with _>.slice/crio-<ID>.scope
//! system.slice/docker-<ID>.scope          docker/<ID>           machine.slice/libpod-<ID>.scope
//! ```
//!
//! Names in a cgroup's path are made by kubelet and runtime from the outside in, and by whoever is
//! inside from there on. So the outermost pod counts, and in it the outermost container: a container
//! that makes cgroups of its own cannot pass for another pod. Nothing is opened here.

use cdh_bundle::{Workload, WorkloadKind};

/// Who a process belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A container.
    Container(ContainerIdentity),
    /// A pod, but none of its containers: the runtime's own processes stand there.
    Pod {
        /// The pod's UID.
        uid: String,
    },
    /// Nobody: a process of the host.
    Host {
        /// The systemd unit.
        unit: Option<String>,
    },
}

/// A container by what its cgroup tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerIdentity {
    /// The runtime's id.
    pub id: String,
    /// The pod's UID; `None` outside of Kubernetes.
    pub pod_uid: Option<String>,
    /// `containerd`, `cri-o`, `docker`, `podman`, where the path tells.
    pub runtime: Option<&'static str>,
}

impl ContainerIdentity {
    /// A container of which only the id is known.
    #[must_use]
    pub(crate) fn of_id(id: String) -> Self {
        Self {
            id,
            pod_uid: None,
            runtime: None,
        }
    }
}

impl Owner {
    /// Reads `/proc/<pid>/cgroup`. `None` where it names no cgroup at all.
    #[must_use]
    pub fn from_cgroup(text: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(text);
        let paths: Vec<&str> = text
            .lines()
            .filter_map(|line| line.splitn(3, ':').nth(2))
            .filter(|path| !path.is_empty())
            .collect();
        // In a hybrid one hierarchy may stand at the root while the others know better.
        let owners: Vec<Self> = paths.iter().map(|path| Self::from_path(path)).collect();
        let best = owners.iter().max_by_key(|owner| match owner {
            Self::Container(found) if found.pod_uid.is_some() => 4,
            Self::Container(_) => 3,
            Self::Pod { .. } => 2,
            Self::Host { unit: Some(_) } => 1,
            Self::Host { unit: None } => 0,
        });
        best.cloned()
    }

    fn from_path(path: &str) -> Self {
        // A container may be put below a unit's slice in one name: `<slice>:cri-containerd:<ID>`.
        let parts: Vec<&str> = path
            .split(['/', ':'])
            .filter(|part| !part.is_empty() && *part != "..")
            .collect();
        let pod = parts
            .iter()
            .enumerate()
            .find_map(|(at, part)| Some((at, pod_uid(part)?)));
        let (inner, uid) = match pod {
            Some((at, uid)) => (parts.get(at + 1..).unwrap_or_default(), Some(uid)),
            None => (parts.as_slice(), None),
        };
        let mut before = None;
        for part in inner {
            match container(part, before, uid.is_some()) {
                Part::Container { id, runtime } => {
                    return Self::Container(ContainerIdentity {
                        id,
                        pod_uid: uid,
                        runtime,
                    });
                }
                // A runtime's monitor of a container is none of its processes.
                Part::Monitor => break,
                Part::Other => {}
            }
            before = Some(*part);
        }
        match uid {
            Some(uid) => Self::Pod { uid },
            None => Self::Host {
                unit: parts.iter().rev().find_map(|part| unit(part)),
            },
        }
    }

    /// The container, where it is one's.
    #[must_use]
    pub fn container(&self) -> Option<&ContainerIdentity> {
        match self {
            Self::Container(container) => Some(container),
            _ => None,
        }
    }

    /// The pod's UID, where it is of one.
    #[must_use]
    pub fn pod_uid(&self) -> Option<&str> {
        match self {
            Self::Container(container) => container.pod_uid.as_deref(),
            Self::Pod { uid } => Some(uid),
            Self::Host { .. } => None,
        }
    }

    /// What a manifest says before the runtime was asked.
    #[must_use]
    pub fn workload(&self) -> Workload {
        let mut workload = Workload {
            source: Some("cgroup".to_owned()),
            pod_uid: self.pod_uid().map(str::to_owned),
            ..Workload::default()
        };
        match self {
            Self::Container(container) => {
                workload.kind = Some(match container.pod_uid {
                    Some(_) => WorkloadKind::Pod,
                    None => WorkloadKind::Container,
                });
                workload.container_id = Some(container.id.clone());
                workload.runtime = container.runtime.map(str::to_owned);
            }
            Self::Pod { .. } => workload.kind = Some(WorkloadKind::Pod),
            Self::Host { unit } => {
                workload.kind = Some(WorkloadKind::Host);
                if let Some(unit) = unit {
                    workload
                        .extra
                        .insert("unit".to_owned(), unit.as_str().into());
                }
            }
        }
        workload
    }
}

/// The UID in the name of a pod's cgroup.
fn pod_uid(part: &str) -> Option<String> {
    let uid = match part.strip_suffix(".slice") {
        // kubepods-pod…, kubepods-burstable-pod…, kubelet-kubepods-besteffort-pod… (kind).
        Some(slice) => {
            let (qos, uid) = slice.rsplit_once("-pod")?;
            qos.split('-')
                .any(|word| word == "kubepods")
                .then_some(uid)?
        }
        None => part.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    // A UUID, or of a static pod the hash of its file.
    let shape: Vec<usize> = uid.split('-').map(str::len).collect();
    let known = shape == [8, 4, 4, 4, 12] || shape == [32];
    (known && uid.bytes().all(|byte| byte == b'-' || is_hex(byte))).then_some(uid)
}

enum Part {
    Container {
        id: String,
        runtime: Option<&'static str>,
    },
    Monitor,
    Other,
}

/// What the name of a cgroup below `before` is.
fn container(part: &str, before: Option<&str>, in_pod: bool) -> Part {
    const PREFIXES: [(&str, &str); 6] = [
        ("cri-containerd-", "containerd"),
        ("nerdctl-", "containerd"),
        ("crio-", "cri-o"),
        ("docker-", "docker"),
        ("libpod-payload-", "podman"),
        ("libpod-", "podman"),
    ];
    let name = part.strip_suffix(".scope").unwrap_or(part);
    for (prefix, runtime) in PREFIXES {
        let Some(rest) = name.strip_prefix(prefix) else {
            continue;
        };
        if rest.strip_prefix("conmon-").is_some_and(is_id) {
            return Part::Monitor;
        }
        if is_id(rest) {
            let runtime = Some(runtime);
            return Part::Container {
                id: rest.to_owned(),
                runtime,
            };
        }
    }
    if !is_id(name) {
        return Part::Other;
    }
    let runtime = match before {
        Some("docker" | "buildkit") => Some("docker"),
        Some("cri-containerd") => Some("containerd"),
        Some("crio") => Some("cri-o"),
        // A namespace of containerd: nerdctl and `ctr` put their containers there.
        Some("default" | "k8s.io") => Some("containerd"),
        Some("libpod_parent") => Some("podman"),
        _ if in_pod => None,
        // An id anywhere else: ECS (`/ecs/<task>/<id>`), a custom `--cgroup-parent`.
        Some(_) => None,
        None => return Part::Other,
    };
    Part::Container {
        id: name.to_owned(),
        runtime,
    }
}

/// Container ids are 256 random bits in hexadecimal.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(is_hex)
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn unit(part: &str) -> Option<String> {
    let is_unit = part.ends_with(".service") || part.ends_with(".scope");
    is_unit.then(|| part.to_owned())
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
