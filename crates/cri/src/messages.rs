//! The messages of CRI v1 that are asked and read here, by hand.
//!
//! Numbers and names are those of `pkg/apis/runtime/v1/api.proto` in `kubernetes/cri-api`. Fields
//! that nobody reads here are left out: protobuf skips what it does not know, and nothing has to be
//! generated when this is built.

use std::collections::HashMap;

macro_rules! messages {
    ($($(#[doc = $doc:literal])+ $name:ident { $($field:ident: $kind:ty = [$($tag:tt)+],)* })+) => {
        $($(#[doc = $doc])+
        #[allow(missing_docs, reason = "the fields are named as in the protocol")]
        #[derive(Clone, PartialEq, ::prost::Message)]
        pub struct $name {
            $(#[prost($($tag)+)] pub $field: $kind,)*
        })+
    };
}
#[cfg(feature = "run")]
pub(crate) use messages;

messages! {
    /// What a runtime is asked first.
    VersionRequest {
        version: String = [string, tag = "1"],
    }
    /// Which runtime answers.
    VersionResponse {
        version: String = [string, tag = "1"],
        runtime_name: String = [string, tag = "2"],
        runtime_version: String = [string, tag = "3"],
        runtime_api_version: String = [string, tag = "4"],
    }
    /// Whose sandbox it is.
    PodSandboxMetadata {
        name: String = [string, tag = "1"],
        uid: String = [string, tag = "2"],
        namespace: String = [string, tag = "3"],
        attempt: u32 = [uint32, tag = "4"],
    }
    /// Which sandboxes are meant.
    PodSandboxFilter {
        id: String = [string, tag = "1"],
        label_selector: HashMap<String, String> = [map = "string, string", tag = "3"],
    }
    /// All sandboxes, or those of a filter.
    ListPodSandboxRequest {
        filter: Option<PodSandboxFilter> = [message, optional, tag = "1"],
    }
    /// A sandbox as it is listed.
    PodSandbox {
        id: String = [string, tag = "1"],
        metadata: Option<PodSandboxMetadata> = [message, optional, tag = "2"],
        state: i32 = [enumeration = "PodSandboxState", tag = "3"],
        created_at: i64 = [int64, tag = "4"],
        labels: HashMap<String, String> = [map = "string, string", tag = "5"],
        annotations: HashMap<String, String> = [map = "string, string", tag = "6"],
        runtime_handler: String = [string, tag = "7"],
    }
    /// Sandboxes.
    ListPodSandboxResponse {
        items: Vec<PodSandbox> = [message, repeated, tag = "1"],
    }
    /// Which sandbox is meant.
    PodSandboxStatusRequest {
        pod_sandbox_id: String = [string, tag = "1"],
        verbose: bool = [bool, tag = "2"],
    }
    /// An address.
    PodIp {
        ip: String = [string, tag = "1"],
    }
    /// Its network.
    PodSandboxNetworkStatus {
        ip: String = [string, tag = "1"],
        additional_ips: Vec<PodIp> = [message, repeated, tag = "2"],
    }
    /// Which namespaces are shared with whom.
    NamespaceOption {
        network: i32 = [enumeration = "NamespaceMode", tag = "1"],
        pid: i32 = [enumeration = "NamespaceMode", tag = "2"],
        ipc: i32 = [enumeration = "NamespaceMode", tag = "3"],
        target_id: String = [string, tag = "4"],
    }
    /// Its namespaces.
    Namespace {
        options: Option<NamespaceOption> = [message, optional, tag = "2"],
    }
    /// What is Linux's own in a sandbox.
    LinuxPodSandboxStatus {
        namespaces: Option<Namespace> = [message, optional, tag = "1"],
    }
    /// A sandbox.
    PodSandboxStatus {
        id: String = [string, tag = "1"],
        metadata: Option<PodSandboxMetadata> = [message, optional, tag = "2"],
        state: i32 = [enumeration = "PodSandboxState", tag = "3"],
        created_at: i64 = [int64, tag = "4"],
        network: Option<PodSandboxNetworkStatus> = [message, optional, tag = "5"],
        linux: Option<LinuxPodSandboxStatus> = [message, optional, tag = "6"],
        labels: HashMap<String, String> = [map = "string, string", tag = "7"],
        annotations: HashMap<String, String> = [map = "string, string", tag = "8"],
        runtime_handler: String = [string, tag = "9"],
    }
    /// A sandbox, and what the runtime adds.
    PodSandboxStatusResponse {
        status: Option<PodSandboxStatus> = [message, optional, tag = "1"],
        info: HashMap<String, String> = [map = "string, string", tag = "2"],
    }
    /// An image as it was asked for.
    ImageSpec {
        image: String = [string, tag = "1"],
        annotations: HashMap<String, String> = [map = "string, string", tag = "2"],
        user_specified_image: String = [string, tag = "18"],
        runtime_handler: String = [string, tag = "19"],
    }
    /// Name and restart count.
    ContainerMetadata {
        name: String = [string, tag = "1"],
        attempt: u32 = [uint32, tag = "2"],
    }
    /// Which containers are meant.
    ContainerFilter {
        id: String = [string, tag = "1"],
        pod_sandbox_id: String = [string, tag = "3"],
        label_selector: HashMap<String, String> = [map = "string, string", tag = "4"],
    }
    /// All containers, or those of a filter.
    ListContainersRequest {
        filter: Option<ContainerFilter> = [message, optional, tag = "1"],
    }
    /// A container as it is listed.
    Container {
        id: String = [string, tag = "1"],
        pod_sandbox_id: String = [string, tag = "2"],
        metadata: Option<ContainerMetadata> = [message, optional, tag = "3"],
        image: Option<ImageSpec> = [message, optional, tag = "4"],
        image_ref: String = [string, tag = "5"],
        state: i32 = [enumeration = "ContainerState", tag = "6"],
        created_at: i64 = [int64, tag = "7"],
        labels: HashMap<String, String> = [map = "string, string", tag = "8"],
        annotations: HashMap<String, String> = [map = "string, string", tag = "9"],
        image_id: String = [string, tag = "10"],
    }
    /// Containers.
    ListContainersResponse {
        containers: Vec<Container> = [message, repeated, tag = "1"],
    }
    /// Which container is meant.
    ContainerStatusRequest {
        container_id: String = [string, tag = "1"],
        verbose: bool = [bool, tag = "2"],
    }
    /// A directory of the host in a container.
    Mount {
        container_path: String = [string, tag = "1"],
        host_path: String = [string, tag = "2"],
        readonly: bool = [bool, tag = "3"],
        selinux_relabel: bool = [bool, tag = "4"],
        propagation: i32 = [enumeration = "MountPropagation", tag = "5"],
    }
    /// A container.
    ContainerStatus {
        id: String = [string, tag = "1"],
        metadata: Option<ContainerMetadata> = [message, optional, tag = "2"],
        state: i32 = [enumeration = "ContainerState", tag = "3"],
        created_at: i64 = [int64, tag = "4"],
        started_at: i64 = [int64, tag = "5"],
        finished_at: i64 = [int64, tag = "6"],
        exit_code: i32 = [int32, tag = "7"],
        image: Option<ImageSpec> = [message, optional, tag = "8"],
        image_ref: String = [string, tag = "9"],
        reason: String = [string, tag = "10"],
        message: String = [string, tag = "11"],
        labels: HashMap<String, String> = [map = "string, string", tag = "12"],
        annotations: HashMap<String, String> = [map = "string, string", tag = "13"],
        mounts: Vec<Mount> = [message, repeated, tag = "14"],
        log_path: String = [string, tag = "15"],
        image_id: String = [string, tag = "17"],
    }
    /// A container, and what the runtime adds.
    ContainerStatusResponse {
        status: Option<ContainerStatus> = [message, optional, tag = "1"],
        info: HashMap<String, String> = [map = "string, string", tag = "2"],
    }
    /// A number that may be absent.
    Int64Value {
        value: i64 = [int64, tag = "1"],
    }
    /// Which image is meant.
    ImageStatusRequest {
        image: Option<ImageSpec> = [message, optional, tag = "1"],
        verbose: bool = [bool, tag = "2"],
    }
    /// An image on this node.
    Image {
        id: String = [string, tag = "1"],
        repo_tags: Vec<String> = [string, repeated, tag = "2"],
        repo_digests: Vec<String> = [string, repeated, tag = "3"],
        size: u64 = [uint64, tag = "4"],
        uid: Option<Int64Value> = [message, optional, tag = "5"],
        username: String = [string, tag = "6"],
        spec: Option<ImageSpec> = [message, optional, tag = "7"],
        pinned: bool = [bool, tag = "8"],
    }
    /// An image, and what the runtime adds.
    ImageStatusResponse {
        image: Option<Image> = [message, optional, tag = "1"],
        info: HashMap<String, String> = [map = "string, string", tag = "2"],
    }
}

/// Whether a sandbox is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum PodSandboxState {
    /// It is.
    SandboxReady = 0,
    /// It is not.
    SandboxNotready = 1,
}

impl PodSandboxState {
    /// As the protocol calls it.
    #[must_use]
    pub fn as_str_name(self) -> &'static str {
        match self {
            Self::SandboxReady => "SANDBOX_READY",
            Self::SandboxNotready => "SANDBOX_NOTREADY",
        }
    }
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum ContainerState {
    /// Made, not started.
    Created = 0,
    /// Running.
    Running = 1,
    /// Ended.
    Exited = 2,
    /// The runtime does not know.
    Unknown = 3,
}

impl ContainerState {
    /// As the protocol calls it.
    #[must_use]
    pub fn as_str_name(self) -> &'static str {
        match self {
            Self::Created => "CONTAINER_CREATED",
            Self::Running => "CONTAINER_RUNNING",
            Self::Exited => "CONTAINER_EXITED",
            Self::Unknown => "CONTAINER_UNKNOWN",
        }
    }
}

/// With whom a namespace is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum NamespaceMode {
    /// The pod's containers.
    Pod = 0,
    /// Nobody.
    Container = 1,
    /// The node.
    Node = 2,
    /// One other container.
    Target = 3,
}

impl NamespaceMode {
    /// As the protocol calls it.
    #[must_use]
    pub fn as_str_name(self) -> &'static str {
        match self {
            Self::Pod => "POD",
            Self::Container => "CONTAINER",
            Self::Node => "NODE",
            Self::Target => "TARGET",
        }
    }
}

/// Whether mounts made later are seen on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum MountPropagation {
    /// They are not.
    Private = 0,
    /// The host's are seen in the container.
    HostToContainer = 1,
    /// Both ways.
    Bidirectional = 2,
}

impl MountPropagation {
    /// As the protocol calls it.
    #[must_use]
    pub fn as_str_name(self) -> &'static str {
        match self {
            Self::Private => "PROPAGATION_PRIVATE",
            Self::HostToContainer => "PROPAGATION_HOST_TO_CONTAINER",
            Self::Bidirectional => "PROPAGATION_BIDIRECTIONAL",
        }
    }
}
