//! A single node of Kubernetes: etcd, API server, controllers, scheduler, containerd and kubelet, each a server of
//! this process. RBAC and certificates are real; there is no kube-proxy and no DNS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use cdh_testkit::ServerProcess;
use serde_json::json;

use super::machine::{
    self, API_ADDRESS, BRIDGE, BRIDGE_ADDRESS, CGROUP, CONTAINERD_SOCKET, NODE_ADDRESS,
};

/// Name of the node. The machine's own name is another one, so that a mistake is noticed.
pub(super) const NODE: &str = "node1";

/// Free memory below which the kubelet evicts pods at once.
const EVICTION: &str = "200Mi";
/// How long the node lacks memory before a soft eviction: long enough to start a pod and prepare it.
const EVICTION_DELAY: &str = "30s";
/// How many seconds the kubelet leaves a pod between SIGTERM and SIGKILL in a soft eviction: as few as it allows
/// (`minimumGracePeriodInSeconds`).
const EVICTION_GRACE: u64 = 2;

/// The running servers. They end when this is dropped, and the machine is what it was.
pub(super) struct ControlPlane {
    directory: PathBuf,
    programs: PathBuf,
    kubelet: Option<ServerProcess>,
    _others: Vec<ServerProcess>,
    containerd: Option<ServerProcess>,
}

impl ControlPlane {
    /// Starts it in `directory`, with Kubernetes' programs of `programs`. `pause` is the image that holds a pod's
    /// namespaces.
    pub(super) fn start(directory: &Path, programs: &Path, pause: &str) -> Result<Self> {
        machine::prepare(directory)?;
        // From here on dropping it cleans up.
        let mut plane = Self {
            directory: directory.to_owned(),
            programs: programs.to_owned(),
            kubelet: None,
            _others: Vec::new(),
            containerd: None,
        };
        for name in ["pki", "cni", "containerd", "kubelet"] {
            fs::create_dir_all(directory.join(name))?;
        }
        plane.make_certificates()?;
        plane.configure(pause)?;
        plane.restart_containerd()?;
        let etcd = plane.etcd()?;
        plane._others.push(etcd);
        let api = plane.api_server()?;
        plane._others.push(api);
        for (program, name) in [
            ("kube-controller-manager", "controllers"),
            ("kube-scheduler", "scheduler"),
        ] {
            let server = plane.controller(program, name)?;
            plane._others.push(server);
        }
        plane.restart_kubelet(None)?;
        Ok(plane)
    }

    /// Configuration of an administrator's client.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.pki("admin.conf")
    }

    fn pki(&self, name: &str) -> PathBuf {
        self.directory.join("pki").join(name)
    }

    fn server(
        &self,
        name: &str,
        command: &Command,
        is_ready: impl FnMut() -> bool,
    ) -> Result<ServerProcess> {
        let place = self.directory.join("run").join(name);
        fs::create_dir_all(&place)?;
        Ok(ServerProcess::start(command, &place, is_ready)?)
    }

    fn make_certificates(&self) -> Result<()> {
        let openssl = |words: &[&str]| {
            let mut openssl = Command::new("openssl");
            openssl.args(words).current_dir(self.directory.join("pki"));
            let output = openssl.output().context("cannot run openssl")?;
            let errors = String::from_utf8_lossy(&output.stderr);
            anyhow::ensure!(output.status.success(), "openssl: {errors}");
            Ok(())
        };
        openssl(&[
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=ca",
            "-keyout", "ca.key", "-out", "ca.crt",
        ])?;
        openssl(&["genrsa", "-out", "sa.key", "2048"])?;
        openssl(&["rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub"])?;
        let names = format!(
            "subjectAltName=IP:127.0.0.1,IP:{API_ADDRESS},IP:{NODE_ADDRESS},IP:{BRIDGE_ADDRESS},DNS:{NODE}"
        );
        fs::write(self.pki("names"), names)?;
        for (name, subject) in [
            ("admin", "/O=system:masters/CN=admin".to_owned()),
            ("kubelet", format!("/O=system:nodes/CN=system:node:{NODE}")),
            (
                "kube-controller-manager",
                "/CN=system:kube-controller-manager".to_owned(),
            ),
            ("kube-scheduler", "/CN=system:kube-scheduler".to_owned()),
            ("api", "/CN=kube-apiserver".to_owned()),
        ] {
            let [key, request, certificate] =
                ["key", "csr", "crt"].map(|end| format!("{name}.{end}"));
            openssl(&[
                "req", "-newkey", "rsa:2048", "-nodes", "-subj", &subject, "-keyout", &key, "-out",
                &request,
            ])?;
            openssl(&[
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                "names",
                "-out",
                &certificate,
            ])?;
            let config = json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                "clusters": [{"name": "k", "cluster": {
                    "server": format!("https://{API_ADDRESS}:443"),
                    "certificate-authority": self.pki("ca.crt"),
                }}],
                "users": [{"name": "u", "user": {
                    "client-certificate": self.pki(&certificate), "client-key": self.pki(&key),
                }}],
            });
            fs::write(self.pki(&format!("{name}.conf")), config.to_string())?;
        }
        Ok(())
    }

    fn configure(&self, pause: &str) -> Result<()> {
        let directory = self.directory.display();
        let bridge = json!({"cniVersion": "0.4.0", "name": "b", "plugins": [{
            "type": "bridge", "bridge": BRIDGE, "isGateway": true, "ipMasq": false, "hairpinMode": true,
            "ipam": {
                "type": "host-local", "ranges": [[{"subnet": "10.244.7.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}], "dataDir": self.directory.join("cni/ipam"),
            },
        }]});
        fs::write(self.directory.join("cni/10-b.conflist"), bridge.to_string())?;
        let config = format!(
            r#"version = 2
root = "{directory}/containerd/root"
state = "{directory}/containerd/state"
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without the capability to lower an OOM score no container starts.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{directory}/cni"
"#
        );
        Ok(fs::write(
            self.directory.join("containerd/config.toml"),
            config,
        )?)
    }

    /// Ends containerd, if it runs, and starts it. Containers go on.
    pub(super) fn restart_containerd(&mut self) -> Result<()> {
        self.containerd = None;
        let mut command = Command::new("containerd");
        command
            .arg("--config")
            .arg(self.directory.join("containerd/config.toml"));
        let answers = || std::os::unix::net::UnixStream::connect(CONTAINERD_SOCKET).is_ok();
        self.containerd = Some(self.server("containerd", &command, answers)?);
        Ok(())
    }

    fn etcd(&self) -> Result<ServerProcess> {
        let mut command = Command::new("etcd");
        command
            .arg("--data-dir")
            .arg(self.directory.join("run/etcd/data"));
        command.args(["--listen-client-urls", "http://127.0.0.1:2379"]);
        command.args(["--advertise-client-urls", "http://127.0.0.1:2379"]);
        command.args([
            "--listen-peer-urls",
            "http://127.0.0.1:2380",
            "--unsafe-no-fsync",
        ]);
        let _ = fs::remove_dir_all(self.directory.join("run/etcd"));
        let answers = || {
            cdh_testkit::http_get("http://127.0.0.1:2379", "/health")
                .is_ok_and(|(status, _)| status == 200)
        };
        self.server("etcd", &command, answers)
    }

    fn api_server(&self) -> Result<ServerProcess> {
        let mut command = Command::new(self.programs.join("kube-apiserver"));
        let mut option = |name: &str, value: &str| {
            command.arg(format!("--{name}={value}"));
        };
        for (name, value) in [
            ("etcd-servers", "http://127.0.0.1:2379"),
            ("bind-address", API_ADDRESS),
            ("advertise-address", API_ADDRESS),
            ("secure-port", "443"),
            ("insecure-port", "0"),
            ("service-cluster-ip-range", "10.96.0.0/16"),
            ("service-account-issuer", "https://kubernetes.default.svc"),
            ("api-audiences", "https://kubernetes.default.svc"),
            ("authorization-mode", "Node,RBAC"),
            ("allow-privileged", "true"),
            ("enable-admission-plugins", "NodeRestriction"),
            ("endpoint-reconciler-type", "none"),
            // The node's name resolves nowhere.
            ("kubelet-preferred-address-types", "InternalIP"),
        ] {
            option(name, value);
        }
        for (name, file) in [
            ("client-ca-file", "ca.crt"),
            ("tls-cert-file", "api.crt"),
            ("tls-private-key-file", "api.key"),
            ("service-account-key-file", "sa.pub"),
            ("service-account-signing-key-file", "sa.key"),
            ("kubelet-client-certificate", "admin.crt"),
            ("kubelet-client-key", "admin.key"),
            ("kubelet-certificate-authority", "ca.crt"),
        ] {
            option(name, &self.pki(file).display().to_string());
        }
        self.server("api", &command, || {
            self.get("/readyz").is_some_and(|text| text == "ok")
        })
    }

    fn controller(&self, program: &str, name: &str) -> Result<ServerProcess> {
        let mut command = Command::new(self.programs.join(program));
        let config = self.pki(&format!("{program}.conf"));
        command.arg(format!("--kubeconfig={}", config.display()));
        command.args([
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            "--port=0",
        ]);
        if program == "kube-controller-manager" {
            for (name, file) in [
                ("service-account-private-key-file", "sa.key"),
                ("root-ca-file", "ca.crt"),
            ] {
                command.arg(format!("--{name}={}", self.pki(file).display()));
            }
            command.arg("--use-service-account-credentials=true");
        }
        self.server(name, &command, || true)
    }

    /// Ends the kubelet, if it runs, and starts it. With `soft_eviction`, it asks a pod to end if less memory is free,
    /// and kills it later.
    pub(super) fn restart_kubelet(&mut self, soft_eviction: Option<&str>) -> Result<()> {
        self.kubelet = None;
        let mut config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "address": NODE_ADDRESS, "healthzBindAddress": "127.0.0.1",
            "authentication": {
                "anonymous": {"enabled": false}, "webhook": {"enabled": true},
                "x509": {"clientCAFile": self.pki("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{CGROUP}"), "cgroupsPerQOS": true, "enforceNodeAllocatable": ["pods"],
            "failSwapOn": false, "clusterDomain": "cluster.local", "resolvConf": "/etc/resolv.conf",
            "tlsCertFile": self.pki("kubelet.crt"), "tlsPrivateKeyFile": self.pki("kubelet.key"),
            "evictionHard": {
                "memory.available": EVICTION, "nodefs.available": "2%", "imagefs.available": "2%",
                "nodefs.inodesFree": "1%",
            },
            "evictionPressureTransitionPeriod": "5s",
            "imageGCHighThresholdPercent": 99, "imageGCLowThresholdPercent": 98,
            "makeIPTablesUtilChains": false, "registerNode": true,
        });
        if let Some(free) = soft_eviction {
            config["evictionSoft"] = json!({"memory.available": free});
            config["evictionSoftGracePeriod"] = json!({"memory.available": EVICTION_DELAY});
            config["evictionMaxPodGracePeriod"] = json!(EVICTION_GRACE);
        }
        let path = self.directory.join("kubelet.json");
        fs::write(&path, config.to_string())?;
        let mut command = Command::new(self.programs.join("kubelet"));
        for (name, value) in [
            ("config", path.display().to_string()),
            ("kubeconfig", self.pki("kubelet.conf").display().to_string()),
            ("container-runtime", "remote".to_owned()),
            (
                "container-runtime-endpoint",
                format!("unix://{CONTAINERD_SOCKET}"),
            ),
            (
                "root-dir",
                self.directory.join("kubelet").display().to_string(),
            ),
            ("hostname-override", NODE.to_owned()),
            ("node-ip", NODE_ADDRESS.to_owned()),
            // Why pods are started anew, in its log.
            ("v", "3".to_owned()),
        ] {
            command.arg(format!("--{name}={value}"));
        }
        let is_ready = || {
            let healthy = cdh_testkit::http_get("http://127.0.0.1:10248", "/healthz");
            healthy.is_ok_and(|(status, _)| status == 200) && self.is_node_ready()
        };
        self.kubelet = Some(self.server("kubelet", &command, is_ready)?);
        Ok(())
    }

    fn is_node_ready(&self) -> bool {
        let node = self.get(&format!("/api/v1/nodes/{NODE}"));
        let node = node.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
        let conditions = node
            .as_ref()
            .and_then(|node| node["status"]["conditions"].as_array());
        conditions
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    }

    /// Asks the API server as an administrator; `None` if it does not answer.
    fn get(&self, path: &str) -> Option<String> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "5"]);
        for (name, file) in [
            ("cacert", "ca.crt"),
            ("cert", "admin.crt"),
            ("key", "admin.key"),
        ] {
            curl.arg(format!("--{name}")).arg(self.pki(file));
        }
        let output = curl
            .arg(format!("https://{API_ADDRESS}{path}"))
            .output()
            .ok()?;
        String::from_utf8(output.stdout).ok()
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // The kubelet first: it would start containers anew.
        self.kubelet = None;
        self._others.clear();
        self.containerd = None;
        if let Err(error) = machine::clean_up(&self.directory) {
            eprintln!("WARNING: the machine is not what it was: {error:#}");
        }
    }
}

/// Ends what an earlier run left, without a start.
pub(super) fn down(directory: &Path) -> Result<()> {
    match directory.is_dir() {
        true => machine::clean_up(directory),
        false => Ok(()),
    }
}
