//! Starts and removes pods and images, as a kubelet does. For tests.

use std::collections::HashMap;

use crate::client::{Client, CriError};
use crate::messages::{
    ContainerMetadata, ImageSpec, Mount, NamespaceOption, PodSandboxMetadata, messages,
};

messages! {
    /// Privileges and namespaces of a sandbox.
    SandboxSecurity {
        namespace_options: Option<NamespaceOption> = [message, optional, tag = "1"],
        privileged: bool = [bool, tag = "6"],
    }
    /// Linux-specific settings of a sandbox.
    LinuxPodSandboxConfig {
        cgroup_parent: String = [string, tag = "1"],
        security_context: Option<SandboxSecurity> = [message, optional, tag = "2"],
    }
    /// Configuration of a sandbox.
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
    /// Id of the new sandbox.
    RunPodSandboxResponse {
        pod_sandbox_id: String = [string, tag = "1"],
    }
    /// A sandbox to stop or remove.
    SandboxId {
        pod_sandbox_id: String = [string, tag = "1"],
    }
    /// An environment variable.
    KeyValue {
        key: String = [string, tag = "1"],
        value: String = [string, tag = "2"],
    }
    /// Capabilities by name, or `ALL`.
    Capabilities {
        add: Vec<String> = [string, repeated, tag = "1"],
        drop: Vec<String> = [string, repeated, tag = "2"],
    }
    /// Privileges and namespaces of a container.
    ContainerSecurity {
        capabilities: Option<Capabilities> = [message, optional, tag = "1"],
        privileged: bool = [bool, tag = "2"],
        namespace_options: Option<NamespaceOption> = [message, optional, tag = "3"],
    }
    /// Linux-specific settings of a container.
    LinuxContainerConfig {
        security_context: Option<ContainerSecurity> = [message, optional, tag = "2"],
    }
    /// Configuration of a container.
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
    /// Creates a container.
    CreateContainerRequest {
        pod_sandbox_id: String = [string, tag = "1"],
        config: Option<ContainerConfig> = [message, optional, tag = "2"],
        sandbox_config: Option<PodSandboxConfig> = [message, optional, tag = "3"],
    }
    /// Id of a container.
    ContainerId {
        container_id: String = [string, tag = "1"],
    }
    /// Stops a container with a grace period in seconds.
    StopContainerRequest {
        container_id: String = [string, tag = "1"],
        timeout: i64 = [int64, tag = "2"],
    }
    /// An image to pull or remove.
    ImageRequest {
        image: Option<ImageSpec> = [message, optional, tag = "1"],
    }
    /// The image that was pulled.
    PullImageResponse {
        image_ref: String = [string, tag = "1"],
    }
    /// An empty answer.
    Empty {}
}

impl Client {
    /// Starts a sandbox and returns its id.
    ///
    /// # Errors
    /// Fails if the runtime refuses.
    pub async fn run_pod(&mut self, config: PodSandboxConfig) -> Result<String, CriError> {
        let request = RunPodSandboxRequest {
            config: Some(config),
        };
        let answer: RunPodSandboxResponse = self.runtime("RunPodSandbox", request).await?;
        Ok(answer.pod_sandbox_id)
    }

    /// Creates and starts a container and returns its id.
    ///
    /// # Errors
    /// Fails if the runtime refuses.
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

    /// Stops a container: SIGTERM, then SIGKILL after `seconds`.
    ///
    /// # Errors
    /// Fails if the runtime refuses.
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
    /// Fails if the runtime refuses.
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
    /// Fails if the runtime or the registry refuses.
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
