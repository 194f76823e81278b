//! What is asked of a runtime about one container, and about all of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cdh_bundle::{EntryKind, ImageRef, WorkloadKind};
use cdh_cri::{
    Client, Container, ContainerState, ContainerStatusResponse, CriError, Image, PodSandbox,
};
use serde_json::Value;
use tokio::task::JoinSet;

use super::engine::repository;
use super::options::WorkloadOptions;
use super::pod_settings::PodSettings;
use super::{Answer, gap, scrub, shapes};
use crate::policy::PolicyConfig;

/// Containers of one pod that are described at most.
const MOST_CONTAINERS: usize = 16;

/// Connections to the runtimes of this node.
#[derive(Clone, Debug)]
pub(super) struct Runtimes {
    options: Arc<WorkloadOptions>,
    open: Arc<Mutex<HashMap<PathBuf, Runtime>>>,
}

#[derive(Clone, Debug)]
struct Runtime {
    client: Client,
    name: String,
}

impl Runtimes {
    pub(super) fn new(options: Arc<WorkloadOptions>) -> Self {
        Self {
            options,
            open: Arc::default(),
        }
    }

    async fn connect(&self, socket: &Path) -> Result<Runtime, CriError> {
        let known = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = known().get(socket) {
            return Ok(runtime.clone());
        }
        let mut client = Client::connect(socket).await?;
        let name = client.version().await?.runtime_name;
        let runtime = Runtime { client, name };
        known().insert(socket.to_owned(), runtime.clone());
        Ok(runtime)
    }

    /// A runtime that failed is connected to anew: it may have been restarted.
    fn forget(&self, socket: &Path) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(socket);
    }

    /// All that the runtimes know about the container; the error says what each of them said.
    pub(super) async fn ask(&self, id: &str) -> Result<Answer, String> {
        let sockets = self.options.sockets();
        if sockets.is_empty() {
            return Err(
                "no container runtime's socket is on this node; name it with `--cri-socket <PATH>`"
                    .to_owned(),
            );
        }
        // All at once: one that hangs does not keep another from answering.
        let mut asked = JoinSet::new();
        for socket in sockets {
            let (this, id) = (self.clone(), id.to_owned());
            asked.spawn(async move {
                let answer = this.ask_one(&socket, &id).await;
                (socket, answer)
            });
        }
        let mut problems = Vec::new();
        while let Some(done) = asked.join_next().await {
            match done {
                Ok((_, Ok(Some(answer)))) => return Ok(answer),
                Ok((socket, Ok(None))) => {
                    problems.push(format!("`{}` does not know it", socket.display()));
                }
                Ok((socket, Err(error))) => {
                    self.forget(&socket);
                    problems.push(crate::shipper::explain(&error));
                }
                Err(error) => problems.push(error.to_string()),
            }
        }
        Err(problems.join("; "))
    }

    async fn ask_one(&self, socket: &Path, id: &str) -> Result<Option<Answer>, CriError> {
        let mut runtime = self.connect(socket).await?;
        let Some(container) = runtime.client.container(id).await? else {
            return Ok(None);
        };
        Ok(Some(self.describe(&mut runtime, container).await?))
    }

    /// Asks for everything about a container that is there. What fails on the way is a gap: the pod
    /// may be going away just now.
    async fn describe(
        &self,
        runtime: &mut Runtime,
        container: Container,
    ) -> Result<Answer, CriError> {
        let client = &mut runtime.client;
        let sandbox_id = container.pod_sandbox_id.clone();
        let sandboxes = client.sandboxes(Some(&sandbox_id)).await?;
        let sandbox = sandboxes.into_iter().find(|one| one.id == sandbox_id);
        let mut containers = client.containers(Some(&sandbox_id)).await?;
        // The one that crashed is number 0; the others follow by age.
        containers.retain(|other| other.id != container.id);
        containers.sort_by_key(|other| other.created_at);
        containers.insert(0, container);
        containers.truncate(MOST_CONTAINERS);
        let mut answer = self.listed(&containers, sandbox.as_ref(), &runtime.name);
        answer.workload.source = Some("cri".to_owned());
        answer.logs.clear();

        let mut inspected = Vec::new();
        for (number, container) in (0_u32..).zip(&containers) {
            match client.container_status(&container.id).await {
                Ok(status) => {
                    inspected.push(shapes::container(&status));
                    let path = status.status.as_ref().map(|status| status.log_path.clone());
                    if let Some(path) = path.filter(|path| !path.is_empty()) {
                        answer.logs.push((number, path.into()));
                    }
                    if number == 0 {
                        add_status(&mut answer, &status);
                    }
                }
                Err(error) => {
                    let what = format!("status of container {number}");
                    answer.gaps.push(gap(&what, error.to_string()));
                }
            }
        }
        let mut runtime_info = match client.sandbox_status(&sandbox_id).await {
            Ok(status) => shapes::sandbox(&status),
            Err(error) => {
                answer
                    .gaps
                    .push(gap("runtime-info.json", error.to_string()));
                serde_json::json!({})
            }
        };
        if let Some(map) = runtime_info.as_object_mut() {
            map.insert("containers".to_owned(), inspected.into());
        }
        let mut files = vec![(EntryKind::RuntimeInfo, runtime_info)];
        for (number, container) in (0_u32..).zip(&containers) {
            let name = match container.image_ref.is_empty() {
                true => container.image.as_ref().map(|image| image.image.clone()),
                false => Some(container.image_ref.clone()),
            };
            let found = match name {
                Some(name) => client.image_status(&name).await,
                None => continue,
            };
            match found {
                Ok(found) => {
                    if let Some(image) = &found.image {
                        files.push((EntryKind::ImageInfo(number), shapes::image(image)));
                        if number == 0 {
                            let info = shapes::info(&found.info, "info");
                            add_image(&mut answer, container, image, &info);
                        }
                    }
                }
                Err(error) => {
                    let what = EntryKind::ImageInfo(number).file_name();
                    answer.gaps.push(gap(&what, error.to_string()));
                }
            }
        }
        if answer.image.is_none() {
            let why = "the runtime knows no digest of it: it was imported, not pulled";
            answer.gaps.push(gap("image", why));
        }
        finish(&mut answer, files, &self.options.policy);
        Ok(answer)
    }

    /// All containers of all runtimes, by what a list tells, and the settings of all pods.
    /// Of running ones that are not in `with_pid` also the first process.
    pub(super) async fn list(
        &self,
        with_pid: &HashSet<String>,
    ) -> (Vec<(String, Answer)>, BTreeMap<String, PodSettings>) {
        let mut all = Vec::new();
        let mut settings = BTreeMap::new();
        for socket in self.options.sockets() {
            let listed = self.list_one(&socket, with_pid, &mut all, &mut settings);
            if listed.await.is_err() {
                self.forget(&socket);
            }
        }
        (all, settings)
    }

    async fn list_one(
        &self,
        socket: &Path,
        with_pid: &HashSet<String>,
        all: &mut Vec<(String, Answer)>,
        settings: &mut BTreeMap<String, PodSettings>,
    ) -> Result<(), CriError> {
        let Runtime { mut client, name } = self.connect(socket).await?;
        let sandboxes = client.sandboxes(None).await?;
        let containers = client.containers(None).await?;
        let by_id: HashMap<&str, &PodSandbox> = sandboxes
            .iter()
            .map(|sandbox| (sandbox.id.as_str(), sandbox))
            .collect();
        for sandbox in &sandboxes {
            let (found, _) = self.settings(sandbox);
            if let Some(metadata) = &sandbox.metadata {
                settings.insert(metadata.uid.clone(), found);
            }
        }
        for container in containers {
            let sandbox = by_id.get(container.pod_sandbox_id.as_str()).copied();
            let id = container.id.clone();
            let runs = container.state == ContainerState::Running as i32;
            let mut answer = self.listed(&[container], sandbox, &name);
            finish(&mut answer, Vec::new(), &self.options.policy);
            if runs
                && !with_pid.contains(&id)
                && let Ok(status) = client.container_status(&id).await
            {
                let info = shapes::info(&status.info, "info");
                answer.init_pid = info.get("pid").and_then(Value::as_u64);
            }
            all.push((id, answer));
        }
        Ok(())
    }

    fn settings(&self, sandbox: &PodSandbox) -> (PodSettings, Vec<String>) {
        let selection = &self.options.selection;
        let (settings, problems) =
            PodSettings::read(&sandbox.annotations, &sandbox.labels, selection);
        let namespace = sandbox
            .metadata
            .as_ref()
            .map(|metadata| metadata.namespace.as_str());
        let policy = &self.options.policy;
        let settings = settings.with_names(policy, namespace.unwrap_or(""), &sandbox.labels);
        (settings, problems)
    }

    /// What lists tell about the first of `containers`.
    fn listed(
        &self,
        containers: &[Container],
        sandbox: Option<&PodSandbox>,
        runtime: &str,
    ) -> Answer {
        let mut answer = Answer::default();
        let workload = &mut answer.workload;
        workload.source = Some("cri-cache".to_owned());
        workload.runtime = (!runtime.is_empty()).then(|| runtime.to_owned());
        let metadata = sandbox.and_then(|sandbox| sandbox.metadata.as_ref());
        if let Some(metadata) = metadata {
            workload.kind = Some(WorkloadKind::Pod);
            workload.namespace = Some(metadata.namespace.clone());
            workload.pod = Some(metadata.name.clone());
            workload.pod_uid = Some(metadata.uid.clone());
        }
        if let Some(container) = containers.first() {
            let attempt = container.metadata.as_ref().map_or(0, |found| found.attempt);
            let restarts = container
                .annotations
                .get("io.kubernetes.container.restartCount")
                .and_then(|count| count.parse().ok())
                .unwrap_or(attempt);
            workload.container_id = Some(container.id.clone());
            workload.container = container.metadata.as_ref().map(|found| found.name.clone());
            let extra = &mut workload.extra;
            extra.insert("restart_count".to_owned(), restarts.into());
            if let Some(image) = &container.image {
                extra.insert("image_name".to_owned(), asked_for(image).into());
            }
            if !container.image_id.is_empty() {
                let id = container.image_id.as_str();
                extra.insert("image_id".to_owned(), id.into());
            }
            answer.image = reference(&container.image_ref);
            if let (Some(metadata), Some(name)) = (metadata, &workload.container) {
                let directory =
                    format!("{}_{}_{}", metadata.namespace, metadata.name, metadata.uid);
                let log = format!("{directory}/{name}/{restarts}.log");
                let path = self.options.pod_logs.join(log);
                answer.logs.push((0, path));
            }
        }
        let mut files = vec![(EntryKind::PsInfo, shapes::containers(containers))];
        if let Some(sandbox) = sandbox {
            let problems;
            (answer.settings, problems) = self.settings(sandbox);
            let problems = problems.into_iter().map(|why| gap("pod's settings", why));
            answer.gaps.extend(problems);
            files.push((EntryKind::PodInfo, shapes::pod(sandbox)));
        }
        for (kind, value) in files {
            answer.files.push((kind, value.to_string().into_bytes()));
        }
        answer
    }
}

/// What the container's own status adds.
fn add_status(answer: &mut Answer, status: &ContainerStatusResponse) {
    let info = shapes::info(&status.info, "info");
    answer.init_pid = info.get("pid").and_then(Value::as_u64);
    let Some(status) = &status.status else {
        return;
    };
    answer.exited = status.state == ContainerState::Exited as i32;
    let extra = &mut answer.workload.extra;
    if answer.exited {
        extra.insert("exit_code".to_owned(), status.exit_code.into());
        if !status.reason.is_empty() {
            extra.insert("exit_reason".to_owned(), status.reason.as_str().into());
        }
    }
    if !status.image_id.is_empty() {
        extra.insert("image_id".to_owned(), status.image_id.as_str().into());
    }
}

/// What the image's own status adds: a digest in the repository that was asked for, the id (the
/// digest of its configuration, by which the platform's manifest is found in an index), the platform.
fn add_image(answer: &mut Answer, container: &Container, image: &Image, info: &Value) {
    let asked = container.image.as_ref().map(asked_for).unwrap_or_default();
    let wanted = repository(asked);
    let fits = |digest: &&String| repository(digest) == wanted;
    let digest = image.repo_digests.iter().find(fits);
    let digest = digest.and_then(|digest| reference(digest));
    let first = image
        .repo_digests
        .iter()
        .find_map(|digest| reference(digest));
    answer.image = digest.or(answer.image.take()).or(first);
    let extra = &mut answer.workload.extra;
    if !image.id.is_empty() {
        extra
            .entry("image_id".to_owned())
            .or_insert_with(|| image.id.as_str().into());
    }
    let spec = info.get("imageSpec");
    let field = |name: &str| spec.and_then(|spec| spec.get(name)).and_then(Value::as_str);
    if let (Some(os), Some(machine)) = (field("os"), field("architecture")) {
        let variant = field("variant").map(|variant| format!("/{variant}"));
        let platform = format!("{os}/{machine}{}", variant.unwrap_or_default());
        extra.insert("image_platform".to_owned(), platform.into());
    }
    // No runtime tells it in a field of its own; some put the pulled manifest's descriptor here.
    let manifest = info.pointer("/target/digest").and_then(Value::as_str);
    if let Some(digest) = manifest {
        extra.insert("image_manifest".to_owned(), digest.into());
    }
}

fn asked_for(image: &cdh_cri::ImageSpec) -> &str {
    match image.user_specified_image.as_str() {
        "" => &image.image,
        asked => asked,
    }
}

/// `repository@sha256:…` where it is that.
fn reference(text: &str) -> Option<ImageRef> {
    let (repository, digest) = text.split_once('@')?;
    let hex = digest.strip_prefix("sha256:")?;
    let good = !repository.is_empty()
        && hex.len() == 64
        && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then(|| ImageRef::by_digest(text))
}

/// Adds the documents without their secrets; those that stand in `answer.files` are cleaned too.
fn finish(answer: &mut Answer, files: Vec<(EntryKind, Value)>, policy: &PolicyConfig) {
    let earlier = std::mem::take(&mut answer.files);
    let earlier = earlier.into_iter().filter_map(|(kind, bytes)| {
        let value = serde_json::from_slice::<Value>(&bytes).ok()?;
        Some((kind, value))
    });
    let mut all: Vec<(EntryKind, Value)> = earlier.chain(files).collect();
    for (_, value) in &mut all {
        scrub::environments(value, policy, &mut answer.secrets);
    }
    for (kind, mut value) in all {
        scrub::strings(&mut value, &answer.secrets);
        if let Ok(mut bytes) = serde_json::to_vec_pretty(&value) {
            bytes.push(b'\n');
            answer.files.push((kind, bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_repository_that_was_asked_for() {
        let digest = |repository: &str| format!("{repository}@sha256:{}", "a".repeat(64));
        let image = Image {
            id: "sha256:config".to_owned(),
            repo_digests: vec![digest("mirror.local/api"), digest("quay.io/shop/api")],
            ..Image::default()
        };
        let container = Container {
            image: Some(cdh_cri::ImageSpec {
                image: "sha256:config".to_owned(),
                user_specified_image: "quay.io/shop/api:1".to_owned(),
                ..Default::default()
            }),
            ..Container::default()
        };
        let mut answer = Answer::default();
        let info = serde_json::json!({"imageSpec": {"os": "linux", "architecture": "arm64", "variant": "v8"}});
        add_image(&mut answer, &container, &image, &info);
        let found = answer.image.unwrap().reference;
        assert!(found.starts_with("quay.io/shop/api@sha256:aa"), "{found}");
        assert_eq!(answer.workload.extra["image_id"], "sha256:config");
        assert_eq!(answer.workload.extra["image_platform"], "linux/arm64/v8");
        assert_eq!(reference("sha256:abc"), None);
        assert_eq!(reference("api@sha256:../../x"), None);
    }
}
