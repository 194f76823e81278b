//! Cgroup paths that were observed or are documented, each with its source.

use super::*;

const A: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
const B: &str = "ffffffffeeeeeeeeddddddddccccccccbbbbbbbbaaaaaaaa9999999988888888";
const UID: &str = "6a9b4a0c-8f1d-4f58-9a3b-2f64ab1d7c10";
const UNDERSCORED: &str = "6a9b4a0c_8f1d_4f58_9a3b_2f64ab1d7c10";
const STATIC: &str = "4f2a1b0c9d8e7f6a5b4c3d2e1f0a9b8c";

/// `pod <uid or -> <runtime or -> <id>`, `in pod <uid>`, `host <unit or ->`, `nothing`.
fn seen(text: &str) -> String {
    let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    match Owner::from_cgroup(text.as_bytes()) {
        None => "nothing".to_owned(),
        Some(Owner::Host { unit }) => format!("host {}", or_dash(unit.as_deref())),
        Some(Owner::Pod { uid }) => format!("in pod {uid}"),
        Some(Owner::Container(found)) => format!(
            "pod {} {} {}",
            or_dash(found.pod_uid.as_deref()),
            or_dash(found.runtime),
            found.id
        ),
    }
}

#[test]
fn cgroup_paths_of_every_runtime_driver_and_class_are_read() {
    let table: &[(&str, String, String)] = &[
        (
            "containerd 1.6, cgroupfs driver, v1, seen in a test of ours: RunPodSandbox with cgroup_parent",
            format!(
                "12:memory:/kubepods/burstable/pod{UID}/{A}\n0::/kubepods/burstable/pod{UID}/{A}\n"
            ),
            format!("pod {UID} - {A}"),
        ),
        (
            "kubelet, cgroupfs driver, Guaranteed pods stand beside the classes: \
             kubernetes/pkg/kubelet/cm/pod_container_manager_linux.go",
            format!("4:cpu,cpuacct:/kubepods/pod{UID}/{A}\n"),
            format!("pod {UID} - {A}"),
        ),
        (
            "the same, BestEffort",
            format!("4:cpu,cpuacct:/kubepods/besteffort/pod{UID}/{A}\n"),
            format!("pod {UID} - {A}"),
        ),
        (
            "kubelet, systemd driver, v2, containerd: cgroup_manager_linux.go (ToSystemd, escapes `-` as `_`)",
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDERSCORED}.slice/cri-containerd-{A}.scope\n"
            ),
            format!("pod {UID} containerd {A}"),
        ),
        (
            "the same, Guaranteed",
            format!(
                "0::/kubepods.slice/kubepods-pod{UNDERSCORED}.slice/cri-containerd-{A}.scope\n"
            ),
            format!("pod {UID} containerd {A}"),
        ),
        (
            "the same, BestEffort, v1: the name of the hierarchy is systemd's",
            format!(
                "1:name=systemd:/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UNDERSCORED}.slice/cri-containerd-{A}.scope\n"
            ),
            format!("pod {UID} containerd {A}"),
        ),
        (
            "CRI-O, systemd driver: cri-o/internal/config/cgmgr (scope prefix `crio`)",
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDERSCORED}.slice/crio-{A}.scope\n"
            ),
            format!("pod {UID} cri-o {A}"),
        ),
        (
            "CRI-O 1.24 and later with crun: the process is in a sub-group `container`",
            format!(
                "0::/kubepods.slice/kubepods-pod{UNDERSCORED}.slice/crio-{A}.scope/container\n"
            ),
            format!("pod {UID} cri-o {A}"),
        ),
        (
            "CRI-O, cgroupfs driver: cgmgr/cgroupfs.go joins parent and `crio-<id>`",
            format!("0::/kubepods/burstable/pod{UID}/crio-{A}\n"),
            format!("pod {UID} cri-o {A}"),
        ),
        (
            "CRI-O's monitor is in the pod, and is not a container: `crio-conmon-<id>.scope`",
            format!("0::/kubepods.slice/kubepods-pod{UNDERSCORED}.slice/crio-conmon-{A}.scope\n"),
            format!("in pod {UID}"),
        ),
        (
            "cri-dockerd, systemd driver: moby names scopes `docker-<id>.scope` below the cgroup parent",
            format!(
                "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UNDERSCORED}.slice/docker-{A}.scope\n"
            ),
            format!("pod {UID} docker {A}"),
        ),
        (
            "cri-dockerd, cgroupfs driver",
            format!("3:memory:/kubepods/besteffort/pod{UID}/{A}\n"),
            format!("pod {UID} - {A}"),
        ),
        (
            "docker alone, v1 and cgroupfs: docs.docker.com/engine/containers/runmetrics",
            format!("9:memory:/docker/{A}\n"),
            format!("pod - docker {A}"),
        ),
        (
            "docker alone, v2 and systemd: the same page",
            format!("0::/system.slice/docker-{A}.scope\n"),
            format!("pod - docker {A}"),
        ),
        (
            "docker in docker: the outer one is what the host's daemon knows",
            format!("9:memory:/docker/{A}/docker/{B}\n"),
            format!("pod - docker {A}"),
        ),
        (
            "kind: a node is a docker container, its kubelet has `cgroupRoot: /kubelet`",
            format!(
                "0::/system.slice/docker-{B}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{UNDERSCORED}.slice/cri-containerd-{A}.scope\n"
            ),
            format!("pod {UID} containerd {A}"),
        ),
        (
            "kind, cgroupfs driver",
            format!("0::/docker/{B}/kubelet/kubepods/besteffort/pod{UID}/{A}\n"),
            format!("pod {UID} - {A}"),
        ),
        (
            "runc's cgroupfs path below a systemd slice when the drivers of kubelet and containerd \
             differ: containerd issue 4857 shows `…slice:cri-containerd:<id>`",
            format!(
                "0::/system.slice/containerd.service/kubepods-burstable-pod{UNDERSCORED}.slice:cri-containerd:{A}\n"
            ),
            format!("pod {UID} containerd {A}"),
        ),
        (
            "a static pod: its UID is the hash of its file (kubelet/config/common.go)",
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC}.slice/cri-containerd-{A}.scope\n"
            ),
            format!("pod {STATIC} containerd {A}"),
        ),
        (
            "a process in the pod's own group",
            format!("0::/kubepods/burstable/pod{UID}\n"),
            format!("in pod {UID}"),
        ),
        (
            "as a reader in a cgroup namespace sees a neighbour (cgroup_namespaces(7)): nothing shows \
             that it is below the kubelet's root, so handlers enter the node's namespace first",
            format!("0::/../../pod{UID}/{A}\n"),
            format!("pod - - {A}"),
        ),
        (
            "systemd inside a container makes groups below its own",
            format!("0::/kubepods/burstable/pod{UID}/{A}/system.slice/nginx.service\n"),
            format!("pod {UID} - {A}"),
        ),
        (
            "a container cannot pass for another pod by groups that it makes",
            format!(
                "0::/kubepods/burstable/pod{UID}/{A}/kubepods/pod{}/{B}\n",
                UID.replace('6', "7")
            ),
            format!("pod {UID} - {A}"),
        ),
        (
            "podman 4.3, root, cgroupfs manager, seen in a test of ours",
            format!("11:memory:/libpod_parent/libpod-{A}\n0::/libpod_parent/libpod-{A}\n"),
            format!("pod - podman {A}"),
        ),
        (
            "podman's monitor in the same place: `/libpod_parent/conmon`",
            "11:memory:/libpod_parent/conmon\n".to_owned(),
            "host -".to_owned(),
        ),
        (
            "podman, root, systemd manager: podman-run(1), --cgroups",
            format!("0::/machine.slice/libpod-{A}.scope/container\n"),
            format!("pod - podman {A}"),
        ),
        (
            "its monitor",
            format!("0::/machine.slice/libpod-conmon-{A}.scope\n"),
            format!("host libpod-conmon-{A}.scope"),
        ),
        (
            "podman in a pod of its own: `machine-libpod_pod_<id>.slice` is not a pod of Kubernetes",
            format!("0::/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope/container\n"),
            format!("pod - podman {A}"),
        ),
        (
            "podman without root",
            format!(
                "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope/container\n"
            ),
            format!("pod - podman {A}"),
        ),
        (
            "podman as a unit of systemd (quadlet): podman-systemd.unit(5), --cgroups=split",
            format!("0::/system.slice/web.service/libpod-payload-{A}\n"),
            format!("pod - podman {A}"),
        ),
        (
            "nerdctl, systemd",
            format!("0::/system.slice/nerdctl-{A}.scope\n"),
            format!("pod - containerd {A}"),
        ),
        (
            "nerdctl, cgroupfs: the group is containerd's namespace",
            format!("9:memory:/default/{A}\n"),
            format!("pod - containerd {A}"),
        ),
        (
            "Amazon ECS: /ecs/<task>/<id>",
            format!("9:memory:/ecs/0a1b2c3d4e5f60718293a4b5c6d7e8f9/{A}\n"),
            format!("pod - - {A}"),
        ),
        (
            "hybrid: one hierarchy is at the root",
            format!("5:rdma:/\n4:memory:/kubepods/pod{UID}/{A}\n0::/\n"),
            format!("pod {UID} - {A}"),
        ),
        (
            "a service of the host",
            "0::/system.slice/nginx.service\n".to_owned(),
            "host nginx.service".to_owned(),
        ),
        (
            "the runtime itself is a service of the host",
            "0::/system.slice/containerd.service\n".to_owned(),
            "host containerd.service".to_owned(),
        ),
        (
            "a login",
            "0::/user.slice/user-0.slice/session-3.scope\n".to_owned(),
            "host session-3.scope".to_owned(),
        ),
        (
            "v2 without systemd",
            "0::/\n".to_owned(),
            "host -".to_owned(),
        ),
        (
            "gone before it was read",
            String::new(),
            "nothing".to_owned(),
        ),
        (
            "no lines of this form",
            "garbage\n\u{fffd}:\n".to_owned(),
            "nothing".to_owned(),
        ),
        (
            "names that only look like ours",
            "0::/system.slice/docker-compose.service/podman/podcast\n".to_owned(),
            "host docker-compose.service".to_owned(),
        ),
    ];
    for (source, text, expected) in table {
        assert_eq!(seen(text), *expected, "{source}");
    }
}

#[test]
fn manifest_before_the_runtime_answers_has_the_facts_of_the_cgroup() {
    let workload = |text: &str| Owner::from_cgroup(text.as_bytes()).unwrap().workload();
    let pod = workload(&format!("0::/kubepods/pod{UID}/{A}\n"));
    assert_eq!(pod.kind, Some(WorkloadKind::Pod));
    assert_eq!(
        (pod.pod_uid.as_deref(), pod.container_id.as_deref()),
        (Some(UID), Some(A))
    );
    let host = workload("0::/system.slice/nginx.service\n");
    assert_eq!(host.kind, Some(WorkloadKind::Host));
    assert_eq!(host.extra["unit"], "nginx.service");
    assert_eq!(host.pod, None);
}

/// A file system in which everything below these paths belongs to user 65534, and all directories exist.
fn with_users_directories(text: &str, users: &[&str]) -> String {
    let made_by = |_: &str, path: &str| match users.iter().any(|root| path.starts_with(*root)) {
        true => MadeBy::User(65534),
        false => MadeBy::Root,
    };
    match Owner::of_process(text.as_bytes(), made_by) {
        Some(Owner::Container(found)) if !found.is_of_root() => format!("of a user {}", found.id),
        Some(Owner::Container(found)) => {
            format!(
                "pod {} {}",
                found.pod_uid.as_deref().unwrap_or("-"),
                found.id
            )
        }
        Some(Owner::Pod { uid }) => format!("in pod {uid}"),
        Some(Owner::Host { .. }) => "host".to_owned(),
        None => "nothing".to_owned(),
    }
}

#[test]
fn identity_ignores_pods_in_directories_that_a_user_made() {
    let own = "/user.slice/user-65534.slice/user@65534.service";
    let forged = [
        format!("0::{own}/app.slice/pod{UID}/{A}\n"),
        format!("0::{own}/kubepods/pod{UID}\n"),
        format!("0::{own}/kubepods.slice/kubepods-pod{UNDERSCORED}.slice\n"),
        format!("0::{own}/kubepods-pod{UNDERSCORED}.slice:cri-containerd:x\n"),
    ];
    for text in &forged {
        let found = with_users_directories(text, &[own]);
        assert!(!found.contains(UID), "{text}{found}");
    }
    // A container of the user's own, whatever its name.
    for name in [
        format!("kubepods/pod{UID}/{A}"),
        format!("kubepods.slice/kubepods-pod{UNDERSCORED}.slice/cri-containerd-{A}.scope"),
        format!("docker-{A}.scope"),
        format!("libpod-{A}.scope/container"),
    ] {
        let found = with_users_directories(&format!("0::{own}/{name}\n"), &[own]);
        assert!(
            found == format!("of a user {A}") || found == "host",
            "{name}: {found}"
        );
    }
    // In the kubelet's own tree, but in a directory that was delegated to a user.
    let delegated = format!("/kubepods/burstable/pod{UID}/{A}");
    let text = format!("0::{delegated}/kubepods/pod{STATIC}/{B}\n");
    assert_eq!(
        with_users_directories(&text, &[&format!("{delegated}/")]),
        format!("pod {UID} {A}")
    );
}

#[test]
fn identity_takes_the_outermost_of_container_and_pod() {
    for (text, expected) in [
        (
            format!("0::/system.slice/docker-{A}.scope/pod{UID}/{B}\n"),
            format!("pod - docker {A}"),
        ),
        (format!("0::/pod{UID}/{A}\n"), format!("pod - - {A}")),
        (
            format!("0::/system.slice/web.service/pod{UID}\n"),
            "host web.service".to_owned(),
        ),
        (
            format!("0::/machine.slice/libpod-{A}.scope/container/pod{UID}/{B}\n"),
            format!("pod - podman {A}"),
        ),
        (
            format!("0::/kubepods/pod{UID}/{A}/kubepods/pod{STATIC}/{B}\n"),
            format!("pod {UID} - {A}"),
        ),
    ] {
        assert_eq!(seen(&text), expected, "{text}");
    }
    // In kind, the node is a container, which is recorded: the runtime has to confirm the pod.
    let kind = format!("0::/docker/{B}/kubelet/kubepods/besteffort/pod{UID}/{A}\n");
    let Some(Owner::Container(found)) = Owner::from_cgroup(kind.as_bytes()) else {
        panic!("no container")
    };
    assert_eq!(
        (found.pod_uid.as_deref(), found.outer.as_deref()),
        (Some(UID), Some(B))
    );
}

#[test]
fn identity_is_verified_in_the_hierarchy_of_its_own_line() {
    // The user has a directory of its own in one hierarchy of a hybrid node.
    let text = format!(
        "1:name=systemd:/own/kubepods/pod{UID}/{A}\n4:memory:/system.slice/x.service\n0::/\n"
    );
    let made_by = |controllers: &str, path: &str| match controllers {
        "name=systemd" if path.starts_with("/own") => MadeBy::User(1000),
        _ => MadeBy::Root,
    };
    let found = Owner::of_process(text.as_bytes(), made_by);
    assert!(
        !matches!(&found, Some(owner) if owner.pod_uid().is_some()),
        "{found:?}"
    );
    // Removed before it could be examined: no owner. Not mounted: only the text is used.
    let text = format!("0::/kubepods/pod{UID}/{A}\n");
    let of = |made: MadeBy| Owner::of_process(text.as_bytes(), |_, _| made);
    assert_eq!(of(MadeBy::Missing), None);
    assert_eq!(of(MadeBy::Unknown).unwrap().pod_uid(), Some(UID));
}
