//! Identifies the owner of a process from its cgroup: pod UID, container id, runtime; or the host.
//!
//! ```text
//! kubepods/burstable/pod<UID>/<ID>                                    cgroupfs driver
//! kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID with _>.slice/crio-<ID>.scope
//! system.slice/docker-<ID>.scope          docker/<ID>           machine.slice/libpod-<ID>.scope
//! ```
//!
//! Kubelet and runtime create the outer directories of such a path; the process itself may have
//! created the inner ones. Therefore an identity is only accepted from directories that root
//! created, and only the outermost one: the first container, or the first pod below the kubelet's
//! root cgroup (`kubepods`, at any depth). A pod inside another container counts if root created it,
//! as in kind, whose nodes are containers; the runtime then has to confirm it. A container in a
//! user's own directories (rootless podman) is charged to that user, and root's runtimes are not
//! asked about it. Nothing is opened here.

use cdh_bundle::{Workload, WorkloadKind};

/// The owner of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A container.
    Container(ContainerIdentity),
    /// A pod, but none of its containers: the runtime's own processes.
    Pod {
        /// The pod's UID.
        uid: String,
    },
    /// A process of the host.
    Host {
        /// The systemd unit.
        unit: Option<String>,
    },
}

/// A container as named by its cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerIdentity {
    /// The runtime's id.
    pub id: String,
    /// The pod's UID; `None` outside of Kubernetes.
    pub pod_uid: Option<String>,
    /// `containerd`, `cri-o`, `docker`, `podman`, if the path names it.
    pub runtime: Option<&'static str>,
    /// Its path below the root of the hierarchy, if known.
    pub cgroup: Option<String>,
    /// The user who created its cgroup, unless that is root.
    pub cgroup_owner: Option<u32>,
    /// The container around the pod, if there is one.
    pub outer: Option<String>,
}

impl ContainerIdentity {
    /// The container that the manifest's cgroup names.
    pub(crate) fn of_manifest(manifest: &cdh_bundle::Manifest) -> Option<Self> {
        let workload = manifest.workload.as_ref()?;
        let text = |key: &str| Some(workload.extra.get(key)?.as_str()?.to_owned());
        let uid = workload
            .extra
            .get("cgroup_owner")
            .and_then(serde_json::Value::as_u64);
        Some(Self {
            pod_uid: workload.pod_uid.clone(),
            cgroup: text("cgroup"),
            cgroup_owner: uid.map(|uid| u32::try_from(uid).unwrap_or(u32::MAX)),
            outer: text("outer_container"),
            ..Self::of_id(workload.container_id.clone()?)
        })
    }

    /// A container with only its id.
    #[must_use]
    pub(crate) fn of_id(id: String) -> Self {
        Self {
            id,
            pod_uid: None,
            runtime: None,
            cgroup: None,
            cgroup_owner: None,
            outer: None,
        }
    }

    /// Whether root created its cgroup: a user can only create directories of their own.
    #[must_use]
    pub(crate) fn is_of_root(&self) -> bool {
        self.cgroup_owner.is_none()
    }
}

/// Who created the directories of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MadeBy {
    /// Root created all of them.
    Root,
    /// The outermost directory that root did not create belongs to this user.
    User(u32),
    /// One of them does not exist (any more).
    Missing,
    /// The hierarchy is not mounted where we can see it.
    Unknown,
}

impl Owner {
    /// Identifies a process from `/proc/<pid>/cgroup` alone, assuming that root created every
    /// directory. `None` if it names no cgroup.
    #[must_use]
    pub fn from_cgroup(text: &[u8]) -> Option<Self> {
        Self::of_process(text, |_, _| MadeBy::Root)
    }

    /// Identifies a process from `/proc/<pid>/cgroup`. `made_by` examines the directories of a path in the
    /// hierarchy with these controllers. `None` if no cgroup is named, or none can be verified.
    #[must_use]
    pub fn of_process(text: &[u8], made_by: impl Fn(&str, &str) -> MadeBy) -> Option<Self> {
        let text = String::from_utf8_lossy(text);
        let lines = text.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?, parts.next()?))
        });
        let lines: Vec<_> = lines.filter(|(_, path)| !path.is_empty()).collect();
        let mut owners: Vec<Self> = Vec::new();
        let mut unseen = Vec::new();
        let mut is_missing = false;
        for (controllers, path) in &lines {
            match Self::from_path(path, &|prefix| made_by(controllers, prefix)) {
                Ok(owner) => owners.push(owner),
                Err(Unverified::Missing) => is_missing = true,
                Err(Unverified::Unknown) => unseen.push(*path),
            }
        }
        if owners.is_empty() && !is_missing {
            // If no hierarchy is visible, only the text can be used.
            let read = |path: &&str| Self::from_path(path, &|_| MadeBy::Root).ok();
            owners = unseen.iter().filter_map(read).collect();
        }
        // In hybrid mode, one hierarchy may be at the root while the others have the container's
        // path.
        owners.into_iter().max_by_key(|owner| match owner {
            Self::Container(found) if found.pod_uid.is_some() => 4,
            Self::Container(_) => 3,
            Self::Pod { .. } => 2,
            Self::Host { unit: Some(_) } => 1,
            Self::Host { unit: None } => 0,
        })
    }

    fn from_path(path: &str, made_by: &dyn Fn(&str) -> MadeBy) -> Result<Self, Unverified> {
        let parts = components(path);
        let parent = |at: usize| at.checked_sub(1).and_then(|at| parts.get(at));
        let path_to = |at: usize| path.get(..parts.get(at)?.end);
        let verified = |at: usize| match path_to(at).map(made_by) {
            Some(MadeBy::Root) => Ok(None),
            Some(MadeBy::User(uid)) => Ok(Some(uid)),
            Some(MadeBy::Missing) => Err(Unverified::Missing),
            Some(MadeBy::Unknown) | None => Err(Unverified::Unknown),
        };
        let mut outer: Option<ContainerIdentity> = None;
        let mut pod: Option<String> = None;
        let mut is_below_kubelet = false;
        for (at, part) in parts.iter().enumerate() {
            let may_be_pod = is_below_kubelet || (part.joins && part.name.ends_with(".slice"));
            if pod.is_none()
                && may_be_pod
                && let Some(uid) = pod_uid(part.name)
            {
                match verified(at)? {
                    None => pod = Some(uid),
                    // Created by a user, to look like a pod's.
                    Some(_) => break,
                }
                continue;
            }
            is_below_kubelet |= is_kubelet_root(part.name);
            if outer.is_some() && pod.is_none() {
                continue;
            }
            match container(part.name, parent(at).map(|part| part.name), pod.is_some()) {
                CgroupKind::Container { id, runtime } => {
                    let found = ContainerIdentity {
                        id,
                        pod_uid: pod.clone(),
                        runtime,
                        cgroup: path_to(at).map(str::to_owned),
                        cgroup_owner: verified(at)?,
                        outer: outer.as_ref().map(|outer| outer.id.clone()),
                    };
                    match (&pod, found.cgroup_owner) {
                        (Some(_), None) => return Ok(Self::Container(found)),
                        (Some(_), Some(_)) => break,
                        (None, None) => outer = Some(found),
                        (None, Some(_)) => return Ok(Self::Container(found)),
                    }
                }
                // A runtime's monitor of a container is not one of the container's processes.
                CgroupKind::Monitor => break,
                CgroupKind::Other => {}
            }
        }
        Ok(match (pod, outer) {
            (Some(uid), _) => Self::Pod { uid },
            (None, Some(container)) => Self::Container(container),
            (None, None) => Self::Host {
                unit: parts.iter().rev().find_map(|part| unit(part.name)),
            },
        })
    }

    /// The container, if the owner is one.
    #[must_use]
    pub fn container(&self) -> Option<&ContainerIdentity> {
        match self {
            Self::Container(container) => Some(container),
            _ => None,
        }
    }

    /// The pod's UID, if the owner belongs to one.
    #[must_use]
    pub fn pod_uid(&self) -> Option<&str> {
        match self {
            Self::Container(container) => container.pod_uid.as_deref(),
            Self::Pod { uid } => Some(uid),
            Self::Host { .. } => None,
        }
    }

    /// The workload for a manifest before the runtime was asked.
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
                let extra = &mut workload.extra;
                if let Some(cgroup) = &container.cgroup {
                    extra.insert("cgroup".to_owned(), cgroup.as_str().into());
                }
                if let Some(uid) = container.cgroup_owner {
                    extra.insert("cgroup_owner".to_owned(), uid.into());
                }
                if let Some(outer) = &container.outer {
                    extra.insert("outer_container".to_owned(), outer.as_str().into());
                }
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

/// Why a path identifies no owner.
enum Unverified {
    Missing,
    Unknown,
}

/// A component of a cgroup's path. A container may be below a unit's slice in one name:
/// `<slice>:cri-containerd:<ID>`.
struct Component<'p> {
    name: &'p str,
    /// Where the directory that contains it ends in the path.
    end: usize,
    /// Whether the same directory name contains further components.
    joins: bool,
}

fn components(path: &str) -> Vec<Component<'_>> {
    let mut parts = Vec::new();
    let mut at = 0;
    for directory in path.split('/') {
        let end = at + directory.len();
        let names: Vec<&str> = directory
            .split(':')
            .filter(|name| !name.is_empty())
            .collect();
        let joins = names.len() > 1;
        if directory != ".." {
            parts.extend(names.into_iter().map(|name| Component { name, end, joins }));
        }
        at = end + 1;
    }
    parts
}

/// Whether it is the cgroup below which the kubelet creates pods: `kubepods`, with the systemd
/// driver `kubepods.slice`, or `<root>-kubepods.slice` with a `cgroupRoot`.
fn is_kubelet_root(part: &str) -> bool {
    match part.strip_suffix(".slice") {
        Some(slice) => slice == "kubepods" || slice.ends_with("-kubepods"),
        None => part == "kubepods",
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
    // A UUID, or for a static pod the hash of its file.
    let shape: Vec<usize> = uid.split('-').map(str::len).collect();
    let known = shape == [8, 4, 4, 4, 12] || shape == [32];
    (known && uid.bytes().all(|byte| byte == b'-' || is_hex(byte))).then_some(uid)
}

enum CgroupKind {
    Container {
        id: String,
        runtime: Option<&'static str>,
    },
    Monitor,
    Other,
}

/// The meaning of a cgroup's name below `before`.
fn container(part: &str, before: Option<&str>, in_pod: bool) -> CgroupKind {
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
            return CgroupKind::Monitor;
        }
        if is_id(rest) {
            let runtime = Some(runtime);
            return CgroupKind::Container {
                id: rest.to_owned(),
                runtime,
            };
        }
    }
    if !is_id(name) {
        return CgroupKind::Other;
    }
    let runtime = match before {
        Some("docker" | "buildkit") => Some("docker"),
        Some("cri-containerd") => Some("containerd"),
        Some("crio") => Some("cri-o"),
        // A namespace of containerd, for containers of nerdctl and `ctr`.
        Some("default" | "k8s.io") => Some("containerd"),
        Some("libpod_parent") => Some("podman"),
        _ if in_pod => None,
        // An id anywhere else: ECS (`/ecs/<task>/<id>`), a custom `--cgroup-parent`.
        Some(_) => None,
        None => return CgroupKind::Other,
    };
    CgroupKind::Container {
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
#[path = "owner_tests.rs"]
mod tests;
