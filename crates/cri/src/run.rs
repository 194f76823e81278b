//! Starting and removing pods and images: what a kubelet does, and tests do in its place.

use std::collections::HashMap;

use crate::client::{Client, CriError};
use crate::messages::{
    ContainerMetadata, ImageSpec, Mount, NamespaceOption, PodSandboxMetadata, messages,
};

messages! {
    /// Whether a container may do everything, and in which namespaces.
    SandboxSecurity {
        namespace_options: Option<NamespaceOption> = [message, optional, tag = "1"],
        privileged: bool = [bool, tag = "6"],
    }
    /// What is Linux's own in a sandbox.
    LinuxPodSandboxConfig {
        cgroup_parent: String = [string, tag = "1"],
        security_context: Option<SandboxSecurity> = [message, optional, tag = "2"],
    }
    /// A sandbox to be started.
    PodSandboxConfig {
        metadata: Option<PodSandboxMetadata> = [message, optional, tag = "1"],
        hostname: String = [string, tag = "2"],
        log_directory: String = [string, tag = "3"],
        labels: HashMap<String, String> = [map = "string, string", tag = "6"],
        annotations: HashMap<String, String> = [map = "string, string", tag = "7"],
        linux: Option<LinuxPodSandboxConfig> = [message, optional, tag = "8"],
    }
    /// Starts a sandbox.
    RunPodSandboxRequest {
        config: Option<PodSandboxConfig> = [message, optional, tag = "1"],
    }
    /// Its id.
    RunPodSandboxResponse {
        pod_sandbox_id: String = [string, tag = "1"],
    }
    /// A sandbox to be stopped or removed.
    SandboxId {
        pod_sandbox_id: String = [string, tag = "1"],
    }
    /// A variable of the environment.
    KeyValue {
        key: String = [string, tag = "1"],
        value: String = [string, tag = "2"],
    }
    /// Capabilities by name, or `ALL`.
    Capabilities {
        add: Vec<String> = [string, repeated, tag = "1"],
        drop: Vec<String> = [string, repeated, tag = "2"],
    }
    /// Whether a container may do everything, and in which namespaces.
    ContainerSecurity {
        capabilities: Option<Capabilities> = [message, optional, tag = "1"],
        privileged: bool = [bool, tag = "2"],
        namespace_options: Option<NamespaceOption> = [message, optional, tag = "3"],
    }
    /// What is Linux's own in a container.
    LinuxContainerConfig {
        security_context: Option<ContainerSecurity> = [message, optional, tag = "2"],
    }
    /// A container to be made.
    ContainerConfig {
        metadata: Option<ContainerMetadata> = [message, optional, tag = "1"],
        image: Option<ImageSpec> = [message, optional, tag = "2"],
        command: Vec<String> = [string, repeated, tag = "3"],
        args: Vec<String> = [string, repeated, tag = "4"],
        envs: Vec<KeyValue> = [message, repeated, tag = "6"],
        mounts: Vec<Mount> = [message, repeated, tag = "7"],
        labels: HashMap<String, String> = [map = "string, string", tag = "9"],
        annotations: HashMap<String, String> = [map = "string, string", tag = "10"],
        log_path: String = [string, tag = "11"],
        linux: Option<LinuxContainerConfig> = [message, optional, tag = "15"],
    }
    /// Makes a container.
    CreateContainerRequest {
        pod_sandbox_id: String = [string, tag = "1"],
        config: Option<ContainerConfig> = [message, optional, tag = "2"],
        sandbox_config: Option<PodSandboxConfig> = [message, optional, tag = "3"],
    }
    /// A container.
    ContainerId {
        container_id: String = [string, tag = "1"],
    }
    /// A container, and how long it may take to end.
    StopContainerRequest {
        container_id: String = [string, tag = "1"],
        timeout: i64 = [int64, tag = "2"],
    }
    /// An image to be pulled or removed.
    ImageRequest {
        image: Option<ImageSpec> = [message, optional, tag = "1"],
    }
    /// What was pulled.
    PullImageResponse {
        image_ref: String = [string, tag = "1"],
    }
    /// Nothing.
    Empty {}
}

impl Client {
    /// Starts a sandbox; its id.
    ///
    /// # Errors
    /// When the runtime says no.
    pub async fn run_pod(&mut self, config: PodSandboxConfig) -> Result<String, CriError> {
        let request = RunPodSandboxRequest {
            config: Some(config),
        };
        let answer: RunPodSandboxResponse = self.runtime("RunPodSandbox", request).await?;
        Ok(answer.pod_sandbox_id)
    }

    /// Makes and starts a container; its id.
    ///
    /// # Errors
    /// When the runtime says no.
    pub async fn run_container(
        &mut self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String, CriError> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let made: ContainerId = self.runtime("CreateContainer", request).await?;
        let id = made.container_id.clone();
        let _: Empty = self.runtime("StartContainer", made).await?;
        Ok(id)
    }

    /// Stops a container: SIGTERM, and SIGKILL after `seconds`.
    ///
    /// # Errors
    /// When the runtime says no.
    pub async fn stop_container(&mut self, id: &str, seconds: i64) -> Result<(), CriError> {
        let request = StopContainerRequest {
            container_id: id.to_owned(),
            timeout: seconds,
        };
        let _: Empty = self.runtime("StopContainer", request).await?;
        Ok(())
    }

    /// Stops and removes a sandbox with its containers.
    ///
    /// # Errors
    /// When the runtime says no.
    pub async fn remove_pod(&mut self, sandbox: &str) -> Result<(), CriError> {
        let id = SandboxId {
            pod_sandbox_id: sandbox.to_owned(),
        };
        let _: Empty = self.runtime("StopPodSandbox", id.clone()).await?;
        let _: Empty = self.runtime("RemovePodSandbox", id).await?;
        Ok(())
    }

    /// Pulls an image.
    ///
    /// # Errors
    /// When the runtime or the registry says no.
    pub async fn pull(&mut self, image: &str) -> Result<String, CriError> {
        let request = ImageRequest {
            image: Some(ImageSpec {
                image: image.to_owned(),
                ..ImageSpec::default()
            }),
        };
        let answer: PullImageResponse = self.images("PullImage", request).await?;
        Ok(answer.image_ref)
    }
}
