//! The CRI v1 messages that this crate sends and reads, written by hand.
//!
//! Names and numbers are those of `pkg/apis/runtime/v1/api.proto` in `kubernetes/cri-api`. Unused
//! fields are left out: protobuf skips unknown fields, and the build needs no code generator.

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
    /// Asks for the version of the runtime.
    VersionRequest {
        version: String = [string, tag = "1"],
    }
    /// Name and version of the runtime.
    VersionResponse {
        version: String = [string, tag = "1"],
        runtime_name: String = [string, tag = "2"],
        runtime_version: String = [string, tag = "3"],
        runtime_api_version: String = [string, tag = "4"],
    }
    /// Name, namespace and UID of the sandbox's pod.
    PodSandboxMetadata {
        name: String = [string, tag = "1"],
        uid: String = [string, tag = "2"],
        namespace: String = [string, tag = "3"],
        attempt: u32 = [uint32, tag = "4"],
    }
    /// Selects sandboxes.
    PodSandboxFilter {
        id: String = [string, tag = "1"],
        label_selector: HashMap<String, String> = [map = "string, string", tag = "3"],
    }
    /// Asks for all sandboxes, or for those that match a filter.
    ListPodSandboxRequest {
        filter: Option<PodSandboxFilter> = [message, optional, tag = "1"],
    }
    /// A sandbox in a listing.
    PodSandbox {
        id: String = [string, tag = "1"],
        metadata: Option<PodSandboxMetadata> = [message, optional, tag = "2"],
        state: i32 = [enumeration = "PodSandboxState", tag = "3"],
        created_at: i64 = [int64, tag = "4"],
        labels: HashMap<String, String> = [map = "string, string", tag = "5"],
        annotations: HashMap<String, String> = [map = "string, string", tag = "6"],
        runtime_handler: String = [string, tag = "7"],
    }
    /// The listed sandboxes.
    ListPodSandboxResponse {
        items: Vec<PodSandbox> = [message, repeated, tag = "1"],
    }
    /// Asks for the status of a sandbox.
    PodSandboxStatusRequest {
        pod_sandbox_id: String = [string, tag = "1"],
        verbose: bool = [bool, tag = "2"],
    }
    /// An IP address.
    PodIp {
        ip: String = [string, tag = "1"],
    }
    /// The sandbox's network.
    PodSandboxNetworkStatus {
        ip: String = [string, tag = "1"],
        additional_ips: Vec<PodIp> = [message, repeated, tag = "2"],
    }
    /// Which namespaces are shared, and with whom.
    NamespaceOption {
        network: i32 = [enumeration = "NamespaceMode", tag = "1"],
        pid: i32 = [enumeration = "NamespaceMode", tag = "2"],
        ipc: i32 = [enumeration = "NamespaceMode", tag = "3"],
        target_id: String = [string, tag = "4"],
    }
    /// Namespaces of the sandbox.
    Namespace {
        options: Option<NamespaceOption> = [message, optional, tag = "2"],
    }
    /// Linux-specific status of a sandbox.
    LinuxPodSandboxStatus {
        namespaces: Option<Namespace> = [message, optional, tag = "1"],
    }
    /// Status of a sandbox.
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
    /// Status of a sandbox, with the runtime's additional information.
    PodSandboxStatusResponse {
        status: Option<PodSandboxStatus> = [message, optional, tag = "1"],
        info: HashMap<String, String> = [map = "string, string", tag = "2"],
    }
    /// An image, as it was requested.
    ImageSpec {
        image: String = [string, tag = "1"],
        annotations: HashMap<String, String> = [map = "string, string", tag = "2"],
        user_specified_image: String = [string, tag = "18"],
        runtime_handler: String = [string, tag = "19"],
    }
    /// Name and restart count of a container.
    ContainerMetadata {
        name: String = [string, tag = "1"],
        attempt: u32 = [uint32, tag = "2"],
    }
    /// Selects containers.
    ContainerFilter {
        id: String = [string, tag = "1"],
        pod_sandbox_id: String = [string, tag = "3"],
        label_selector: HashMap<String, String> = [map = "string, string", tag = "4"],
    }
    /// Asks for all containers, or for those that match a filter.
    ListContainersRequest {
        filter: Option<ContainerFilter> = [message, optional, tag = "1"],
    }
    /// A container in a listing.
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
    /// The listed containers.
    ListContainersResponse {
        containers: Vec<Container> = [message, repeated, tag = "1"],
    }
    /// Asks for the status of a container.
    ContainerStatusRequest {
        container_id: String = [string, tag = "1"],
        verbose: bool = [bool, tag = "2"],
    }
    /// A host directory mounted into a container.
    Mount {
        container_path: String = [string, tag = "1"],
        host_path: String = [string, tag = "2"],
        readonly: bool = [bool, tag = "3"],
        selinux_relabel: bool = [bool, tag = "4"],
        propagation: i32 = [enumeration = "MountPropagation", tag = "5"],
    }
    /// Status of a container.
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
    /// Status of a container, with the runtime's additional information.
    ContainerStatusResponse {
        status: Option<ContainerStatus> = [message, optional, tag = "1"],
        info: HashMap<String, String> = [map = "string, string", tag = "2"],
    }
    /// A number that may be absent.
    Int64Value {
        value: i64 = [int64, tag = "1"],
    }
    /// Asks for the status of an image.
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
    /// An image, with the runtime's additional information.
    ImageStatusResponse {
        image: Option<Image> = [message, optional, tag = "1"],
        info: HashMap<String, String> = [map = "string, string", tag = "2"],
    }
}

/// State of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum PodSandboxState {
    /// It is running.
    SandboxReady = 0,
    /// It is not running.
    SandboxNotready = 1,
}

impl PodSandboxState {
    /// Name in the protocol.
    #[must_use]
    pub fn as_str_name(self) -> &'static str {
        match self {
            Self::SandboxReady => "SANDBOX_READY",
            Self::SandboxNotready => "SANDBOX_NOTREADY",
        }
    }
}

/// State of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum ContainerState {
    /// Created, not started.
    Created = 0,
    /// Running.
    Running = 1,
    /// Ended.
    Exited = 2,
    /// The runtime does not know.
    Unknown = 3,
}

impl ContainerState {
    /// Name in the protocol.
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

/// Scope of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum NamespaceMode {
    /// Shared by the pod's containers.
    Pod = 0,
    /// Private to the container.
    Container = 1,
    /// Shared with the node.
    Node = 2,
    /// Shared with one other container.
    Target = 3,
}

impl NamespaceMode {
    /// Name in the protocol.
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

/// Whether mounts made later are visible on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
#[repr(i32)]
pub enum MountPropagation {
    /// They are not visible.
    Private = 0,
    /// The host's mounts are visible in the container.
    HostToContainer = 1,
    /// Visible in both directions.
    Bidirectional = 2,
}

impl MountPropagation {
    /// Name in the protocol.
    #[must_use]
    pub fn as_str_name(self) -> &'static str {
        match self {
            Self::Private => "PROPAGATION_PRIVATE",
            Self::HostToContainer => "PROPAGATION_HOST_TO_CONTAINER",
            Self::Bidirectional => "PROPAGATION_BIDIRECTIONAL",
        }
    }
}
