//! A containerd of the test's own, and pods in it as a kubelet makes them.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cdh_cri::run::{
    Capabilities, ContainerConfig, ContainerSecurity, KeyValue, LinuxContainerConfig,
    LinuxPodSandboxConfig, PodSandboxConfig, SandboxSecurity,
};
use cdh_cri::{
    Client, ContainerMetadata, CriError, ImageSpec, Mount, NamespaceMode, NamespaceOption,
    PodSandboxMetadata,
};

/// A containerd with root, state and socket below one directory.
pub(super) struct Containerd {
    daemon: Child,
    root: PathBuf,
    runtime: tokio::runtime::Runtime,
    client: Client,
    /// Of all pods that were run.
    uids: Vec<String>,
}

/// A pod to be run.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) host_network: bool,
    pub(super) host_pid: bool,
    pub(super) annotations: Vec<(String, String)>,
}

impl Pod {
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uuid(),
            host_network: false,
            host_pid: false,
            annotations: Vec::new(),
        }
    }

    fn log_directory(&self) -> String {
        format!("{}_{}_{}", self.namespace, self.name, self.uid)
    }

    fn options(&self) -> NamespaceOption {
        let mode = |node: bool, other: NamespaceMode| match node {
            true => NamespaceMode::Node as i32,
            false => other as i32,
        };
        NamespaceOption {
            network: mode(self.host_network, NamespaceMode::Pod),
            pid: mode(self.host_pid, NamespaceMode::Container),
            ipc: NamespaceMode::Pod as i32,
            target_id: String::new(),
        }
    }
}

fn uuid() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
    text.trim().to_owned()
}

/// A container to be run in a pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) command: Vec<String>,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    /// Directories of the host, at the same path.
    pub(super) mounts: Vec<PathBuf>,
    pub(super) privileged: bool,
    pub(super) attempt: u32,
}

impl Containerd {
    /// Whether there is one on this machine.
    pub(super) fn is_installed() -> bool {
        ["containerd", "runc"].iter().all(|program| {
            let paths = std::env::var_os("PATH").unwrap_or_default();
            let mut found = std::env::split_paths(&paths).map(|path| path.join(program));
            found.any(|path| path.is_file())
        })
    }

    /// Starts it. `pause` is the image of sandboxes.
    pub(super) fn start(root: &Path, pause: &str) -> Self {
        let cni = root.join("cni");
        fs::create_dir_all(cni.join("net.d")).unwrap();
        // A network in which pods are alone: nothing is needed of it but that it is there.
        let plugin = "#!/bin/sh\ncat >/dev/null\ncase $CNI_COMMAND in\n\
            VERSION) echo '{\"cniVersion\":\"0.4.0\",\"supportedVersions\":[\"0.3.1\",\"0.4.0\"]}';;\n\
            ADD) echo '{\"cniVersion\":\"0.4.0\",\"interfaces\":[{\"name\":\"'$CNI_IFNAME'\",\"sandbox\":\"'$CNI_NETNS'\"}],\"ips\":[{\"version\":\"4\",\"interface\":0,\"address\":\"10.99.0.2/24\"}]}';;\n\
            esac\n";
        for name in ["alone", "loopback"] {
            let path = cni.join(name);
            fs::write(&path, plugin).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let network =
            "{\"cniVersion\":\"0.4.0\",\"name\":\"alone\",\"plugins\":[{\"type\":\"alone\"}]}";
        fs::write(cni.join("net.d/10-alone.conflist"), network).unwrap();
        let config = format!(
            "version = 2\nroot = \"{root}/root\"\nstate = \"{root}/state\"\n\
             [grpc]\n  address = \"{root}/containerd.sock\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"{pause}\"\n  \
             restrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"native\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"{root}/cni\"\n  \
             conf_dir = \"{root}/cni/net.d\"\n",
            root = root.display()
        );
        let path = root.join("containerd.toml");
        fs::write(&path, config).unwrap();
        let log = fs::File::create(root.join("containerd.log")).unwrap();
        // Not a `ServerProcess`: that removes the directory if the test is killed, and pods have directories
        // of the host mounted below it.
        let mut daemon = Command::new("containerd")
            .arg("--config")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let socket = root.join("containerd.sock");
        let deadline = Instant::now() + Duration::from_secs(30);
        let client = loop {
            let connect = async {
                let mut client = Client::connect(&socket).await?;
                client.version().await?;
                Ok::<_, CriError>(client)
            };
            match runtime.block_on(connect) {
                Ok(client) => break client,
                Err(error) => {
                    let is_dead = daemon.try_wait().unwrap().is_some();
                    let log = fs::read_to_string(root.join("containerd.log")).unwrap_or_default();
                    assert!(
                        !is_dead && Instant::now() < deadline,
                        "containerd does not start: {error}\n{log}"
                    );
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        Self {
            daemon,
            root: root.to_owned(),
            runtime,
            client,
            uids: Vec::new(),
        }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.root.join("containerd.sock")
    }

    /// Where the pods' logs are.
    pub(super) fn pod_logs(&self) -> PathBuf {
        self.root.join("pods")
    }

    pub(super) fn pull(&mut self, image: &str) {
        self.runtime.block_on(self.client.pull(image)).unwrap();
    }

    fn sandbox_config(&self, pod: &Pod) -> PodSandboxConfig {
        let logs = self.pod_logs().join(pod.log_directory());
        let labels = [
            ("io.kubernetes.pod.name", &pod.name),
            ("io.kubernetes.pod.namespace", &pod.namespace),
            ("io.kubernetes.pod.uid", &pod.uid),
        ];
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                namespace: pod.namespace.clone(),
                attempt: 0,
            }),
            // As the kubelet does: with the host's network goes the host's name.
            hostname: match pod.host_network {
                true => String::new(),
                false => pod.name.clone(),
            },
            log_directory: logs.display().to_string(),
            labels: owned(&labels),
            annotations: pod.annotations.iter().cloned().collect(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/kubepods/burstable/pod{}", pod.uid),
                security_context: Some(SandboxSecurity {
                    namespace_options: Some(pod.options()),
                    privileged: pod.host_pid,
                }),
            }),
        }
    }

    /// Runs a pod without containers; the sandbox's id.
    pub(super) fn run_pod(&mut self, pod: &Pod) -> String {
        let config = self.sandbox_config(pod);
        self.uids.push(pod.uid.clone());
        self.runtime
            .block_on(self.client.run_pod(config))
            .unwrap_or_else(|error| panic!("{error}: {}", self.log()))
    }

    /// Runs a container in a pod; its id.
    pub(super) fn run(&mut self, sandbox: &str, pod: &Pod, run: &Run) -> String {
        let logs = self.pod_logs().join(pod.log_directory()).join(&run.name);
        fs::create_dir_all(&logs).unwrap();
        let labels = [
            ("io.kubernetes.container.name", &run.name),
            ("io.kubernetes.pod.name", &pod.name),
            ("io.kubernetes.pod.namespace", &pod.namespace),
            ("io.kubernetes.pod.uid", &pod.uid),
        ];
        let attempt = run.attempt.to_string();
        let mount = |path: &PathBuf| Mount {
            container_path: path.display().to_string(),
            host_path: path.display().to_string(),
            ..Mount::default()
        };
        let variable = |(key, value): &(String, String)| KeyValue {
            key: key.clone(),
            value: value.clone(),
        };
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: run.name.clone(),
                attempt: run.attempt,
            }),
            image: Some(ImageSpec {
                image: run.image.clone(),
                ..ImageSpec::default()
            }),
            command: run.command.clone(),
            args: run.arguments.clone(),
            envs: run.environment.iter().map(variable).collect(),
            mounts: run.mounts.iter().map(mount).collect(),
            labels: owned(&labels),
            annotations: owned(&[("io.kubernetes.container.restartCount", &attempt)]),
            log_path: format!("{}/{}.log", run.name, run.attempt),
            linux: Some(LinuxContainerConfig {
                security_context: Some(ContainerSecurity {
                    // All or nothing.
                    capabilities: (!run.privileged).then(|| Capabilities {
                        drop: vec!["ALL".to_owned()],
                        ..Capabilities::default()
                    }),
                    privileged: run.privileged,
                    namespace_options: Some(pod.options()),
                }),
            }),
        };
        let sandbox_config = self.sandbox_config(pod);
        self.runtime
            .block_on(self.client.run_container(sandbox, config, sandbox_config))
            .unwrap_or_else(|error| panic!("{error}: {}", self.log()))
    }

    pub(super) fn remove(&mut self, sandbox: &str) {
        self.runtime
            .block_on(self.client.remove_pod(sandbox))
            .unwrap();
    }

    /// Stops a container: SIGTERM, and SIGKILL after `seconds`.
    pub(super) fn stop(&mut self, container: &str, seconds: i64) {
        self.runtime
            .block_on(self.client.stop_container(container, seconds))
            .unwrap();
    }

    /// The process id of a container's first process.
    pub(super) fn pid_of(&mut self, container: &str) -> u32 {
        let status = self
            .runtime
            .block_on(self.client.container_status(container))
            .unwrap();
        let info: serde_json::Value = serde_json::from_str(&status.info["info"]).unwrap();
        u32::try_from(info["pid"].as_u64().unwrap()).unwrap()
    }

    /// Last lines of its log.
    pub(super) fn log(&self) -> String {
        let log = fs::read_to_string(self.root.join("containerd.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(8).collect();
        lines.join("\n")
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let sandboxes = self.runtime.block_on(self.client.sandboxes(None));
        for sandbox in sandboxes.unwrap_or_default() {
            let _ = self.runtime.block_on(self.client.remove_pod(&sandbox.id));
        }
        // The kubelet would; containerd leaves the pods' cgroups.
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten();
        let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
        roots.extend(hierarchies.flatten().map(|item| item.path()));
        for root in roots {
            let kubepods = root.join("kubepods");
            for uid in &self.uids {
                let _ = fs::remove_dir(kubepods.join(format!("burstable/pod{uid}")));
            }
            let _ = fs::remove_dir(kubepods.join("burstable"));
            let _ = fs::remove_dir(kubepods);
        }
        let pid = rustix::process::Pid::from_child(&self.daemon);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.daemon.wait();
    }
}

fn owned(pairs: &[(&str, &String)]) -> HashMap<String, String> {
    let one = |(key, value): &(&str, &String)| ((*key).to_owned(), (*value).clone());
    pairs.iter().map(one).collect()
}
