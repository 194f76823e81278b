//! Options for identifying this node's pods.

use std::path::PathBuf;

use crate::policy::PolicyConfig;
use crate::policy::pod_settings::Selection;

/// Default sockets of runtimes: containerd, CRI-O, cri-dockerd, k3s and RKE2, k0s, MicroK8s,
/// Bottlerocket.
const SOCKETS: [&str; 7] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/dockershim.sock",
];

/// Where to query pods, and which answers to store.
#[derive(Clone, Debug)]
pub struct WorkloadOptions {
    /// Sockets of runtimes; empty means sockets that are found.
    pub sockets: Vec<PathBuf>,
    /// The kubelet's log directory.
    pub pod_logs: PathBuf,
    /// The kubelet's links to containers' logs; their names contain the owner.
    pub container_logs: PathBuf,
    /// Data directories of podman and docker.
    pub engines: PathBuf,
    /// Name of this node in Kubernetes.
    pub node: Option<String>,
    /// Number of last log lines to store of each container; 0 means none.
    pub log_lines: usize,
    /// Which pods are dumped.
    pub selection: Selection,
    /// The operator's policy for dumps.
    pub policy: PolicyConfig,
}

impl Default for WorkloadOptions {
    fn default() -> Self {
        Self {
            sockets: Vec::new(),
            pod_logs: "/var/log/pods".into(),
            container_logs: "/var/log/containers".into(),
            engines: "/var/lib".into(),
            node: None,
            log_lines: 500,
            selection: Selection::default(),
            policy: PolicyConfig::default(),
        }
    }
}

impl WorkloadOptions {
    /// The sockets to query, in this order. They are searched each time, because a runtime may be
    /// installed or started after the agent.
    #[must_use]
    pub fn sockets(&self) -> Vec<PathBuf> {
        if !self.sockets.is_empty() {
            return self.sockets.clone();
        }
        let found = SOCKETS.iter().map(PathBuf::from);
        found.filter(|path| path.exists()).collect()
    }
}
