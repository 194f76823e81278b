//! Queries a runtime about one container, and about all of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cdh_bundle::{
    EntryKind, ImageRef, PodDescription, WorkloadKind, WorkloadOwner, bounded_labels,
    image_repository, image_tag, is_image_name,
};
use cdh_cri::{
    Client, Container, ContainerState, ContainerStatusResponse, CriError, Image, PodSandbox,
};
use serde_json::Value;
use tokio::task::JoinSet;

use super::options::WorkloadOptions;
use super::{Answer, gap, scrub, shapes};
use crate::error_chain::explain;
use crate::policy::PolicyConfig;
use crate::policy::pod_settings::PodSettings;

/// Maximum containers of one pod that are described.
const MOST_CONTAINERS: usize = 16;

/// Annotations of a container with the name of its image: containerd's `annotations.ImageName`, and
/// CRI-O's `annotations.ImageName`.
const IMAGE_NAMES: [&str; 2] = [
    "io.kubernetes.cri.image-name",
    "io.kubernetes.cri-o.ImageName",
];

/// What all runtimes listed.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Containers by their ids.
    pub(crate) containers: Vec<(String, Answer)>,
    /// Settings of pods by their UIDs.
    pub(crate) settings: BTreeMap<String, PodSettings>,
    /// Which runtimes answered, and why others did not.
    pub(crate) answered: Vec<(PathBuf, Result<(), String>)>,
}

pub(crate) fn no_answer(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    format!("the container runtime did not answer within {seconds} s")
}

/// Connections to the runtimes of this node.
#[derive(Clone, Debug)]
pub(crate) struct Runtimes {
    options: Arc<WorkloadOptions>,
    open: Arc<Mutex<HashMap<PathBuf, Runtime>>>,
}

#[derive(Clone, Debug)]
struct Runtime {
    client: Client,
    name: String,
}

impl Runtimes {
    pub(crate) fn new(options: Arc<WorkloadOptions>) -> Self {
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

    /// After a failure, the runtime is connected again: it may have been restarted.
    fn forget(&self, socket: &Path) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(socket);
    }

    /// All facts of the runtimes about the container; the error contains each runtime's answer.
    pub(crate) async fn ask(&self, id: &str) -> Result<Answer, String> {
        let sockets = self.options.sockets();
        if sockets.is_empty() {
            return Err(
                "no container runtime's socket is on this node; name it with `--cri-socket <PATH>`"
                    .to_owned(),
            );
        }
        // All in parallel, so that one that hangs does not delay the others.
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
                    problems.push(explain(&error));
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

    /// Requests everything about an existing container. A failed request is a gap: the pod may be
    /// terminating.
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
        // The crashed container is number 0; the others follow by age.
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
            let found = match image_of(container) {
                Some(name) => client.image_status(&name).await,
                None => continue,
            };
            match found {
                Ok(found) => {
                    if let Some(image) = &found.image {
                        files.push((EntryKind::ImageInfo(number), shapes::image(image)));
                        if number == 0 {
                            let info = shapes::info(&found.info, "info");
                            add_image(&mut answer, image, &info);
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

    /// All containers of all runtimes, as in lists, and the settings of all pods. Also the first
    /// process of running containers that are not in `with_pid`. `limit` applies to each runtime.
    pub(crate) async fn list(&self, with_pid: &HashSet<String>, limit: Duration) -> Listing {
        let mut listing = Listing::default();
        for socket in self.options.sockets() {
            let asked = self.list_one(&socket, with_pid, &mut listing);
            let answered = match tokio::time::timeout(limit, asked).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(explain(&error)),
                Err(_) => Err(no_answer(limit)),
            };
            if answered.is_err() {
                self.forget(&socket);
            }
            listing.answered.push((socket, answered));
        }
        listing
    }

    async fn list_one(
        &self,
        socket: &Path,
        with_pid: &HashSet<String>,
        listing: &mut Listing,
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
                listing.settings.insert(metadata.uid.clone(), found);
            }
        }
        for container in containers {
            let sandbox = by_id.get(container.pod_sandbox_id.as_str()).copied();
            let id = container.id.clone();
            let runs = container.state == ContainerState::Running as i32;
            let mut answer = self.listed(std::slice::from_ref(&container), sandbox, &name);
            finish(&mut answer, Vec::new(), &self.options.policy);
            if runs
                && !with_pid.contains(&id)
                && let Ok(status) = client.container_status(&id).await
            {
                add_status(&mut answer, &status);
                // Once per container: if a runtime hangs later, its answer was already released.
                add_image_of(&mut answer, &mut client, &container).await;
                finish(&mut answer, Vec::new(), &self.options.policy);
            }
            listing.containers.push((id, answer));
        }
        Ok(())
    }

    fn settings(&self, sandbox: &PodSandbox) -> (PodSettings, Vec<String>) {
        let selection = &self.options.selection;
        let (settings, problems) =
            PodSettings::read(&sandbox.annotations, &sandbox.labels, selection);
        let metadata = sandbox.metadata.as_ref();
        let namespace = metadata.map_or("", |metadata| &metadata.namespace);
        let policy = &self.options.policy;
        let mut settings = settings.with_names(policy, namespace, &sandbox.labels);
        settings.controller = metadata.map(|metadata| {
            let (kind, name) = match controller_of(sandbox, &metadata.name) {
                Some(owner) => (owner.kind, owner.name),
                None => ("Pod".to_owned(), metadata.name.clone()),
            };
            format!("{namespace}/{kind}/{name}")
        });
        (settings, problems)
    }

    /// The facts in lists about the first of `containers`.
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
        if let Some(sandbox) = sandbox {
            add_pod(&mut answer, sandbox);
        }
        let workload = &mut answer.workload;
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
            name_image(&mut answer, &[]);
            let workload = &answer.workload;
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

/// Whether the runtime's name for an image is more specific than the kubelet's: older kubelets use the image's
/// id. A name in another repository does not replace the one that the user chose.
fn says_more(name: &str, asked: Option<&str>) -> bool {
    match asked.filter(|asked| is_image_name(asked)) {
        None => is_image_name(name),
        Some(asked) => {
            image_tag(asked).is_none()
                && image_tag(name).is_some()
                && image_repository(asked) == image_repository(name)
        }
    }
}

/// Adds the facts from the container's own status.
fn add_status(answer: &mut Answer, status: &ContainerStatusResponse) {
    let info = shapes::info(&status.info, "info");
    answer.init_pid = info.get("pid").and_then(Value::as_u64);
    let cgroup = info
        .pointer("/runtimeSpec/linux/cgroupsPath")
        .and_then(Value::as_str);
    answer.cgroup = cgroup.filter(|path| !path.is_empty()).map(str::to_owned);
    let annotations = info.pointer("/runtimeSpec/annotations");
    let annotated = IMAGE_NAMES
        .iter()
        .filter_map(|key| annotations?.get(key)?.as_str())
        .find(|name| says_more(name, image_name(answer)))
        .map(str::to_owned);
    if let Some(name) = annotated {
        let extra = &mut answer.workload.extra;
        extra.insert("image_name".to_owned(), name.into());
    }
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

/// The pod's labels and owner.
fn add_pod(answer: &mut Answer, sandbox: &PodSandbox) {
    let (labels, left_out) = bounded_labels(&sandbox.labels);
    if left_out > 0 {
        let why = format!("{left_out} of {} are left out", sandbox.labels.len());
        answer.gaps.push(gap("labels", why));
    }
    let name = answer.workload.pod.as_deref().unwrap_or_default();
    answer.workload.owner = controller_of(sandbox, name);
    answer.workload.labels = labels;
}

/// The owner of a pod with this name.
fn controller_of(sandbox: &PodSandbox, name: &str) -> Option<WorkloadOwner> {
    let sorted = |map: &HashMap<String, String>| {
        let pairs = map.iter();
        pairs
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    let labels: BTreeMap<String, String> = sorted(&sandbox.labels);
    let annotations: BTreeMap<String, String> = sorted(&sandbox.annotations);
    WorkloadOwner::of_pod(&PodDescription {
        name,
        labels: &labels,
        annotations: &annotations,
    })
}

/// Names the image as in the pod spec, with the version from the pod's labels.
fn name_image(answer: &mut Answer, tags: &[String]) {
    let asked = image_name(answer).map(str::to_owned);
    let labels = &answer.workload.labels;
    if let Some(image) = &mut answer.image {
        image.set_name(asked.as_deref(), tags.iter().map(String::as_str));
        image.set_pod_labels(|name| labels.get(name).map(String::as_str));
    }
}

/// The image that the container was to run, if the runtime reports it.
fn image_name(answer: &Answer) -> Option<&str> {
    answer.workload.extra.get("image_name")?.as_str()
}

/// Requests the image of a listed container. After a failure, the facts in the list remain.
async fn add_image_of(answer: &mut Answer, client: &mut Client, container: &Container) {
    if let Some(name) = image_of(container)
        && let Ok(found) = client.image_status(&name).await
        && let Some(image) = &found.image
    {
        add_image(answer, image, &shapes::info(&found.info, "info"));
    }
}

/// The id for requests about the image.
fn image_of(container: &Container) -> Option<String> {
    match container.image_ref.is_empty() {
        true => container.image.as_ref().map(|image| image.image.clone()),
        false => Some(container.image_ref.clone()),
    }
}

/// The image's labels: containerd and CRI-O print its configuration, and CRI-O prints the labels a
/// second time.
fn image_label<'i>(info: &'i Value, name: &str) -> Option<&'i str> {
    let places = [info.pointer("/imageSpec/config/Labels"), info.get("labels")];
    let mut labels = places.into_iter().flatten();
    labels.find_map(|labels| labels.get(name)?.as_str())
}

/// Adds the facts from the image's own status: a digest in the requested repository, tag, version,
/// revision, platform and id. The id is the digest of its configuration, which selects the platform's
/// manifest in an index.
fn add_image(answer: &mut Answer, image: &Image, info: &Value) {
    let wanted = image_name(answer).and_then(image_repository);
    let fits = |digest: &&String| image_repository(digest) == wanted;
    let digest = image.repo_digests.iter().find(fits);
    let digest = digest.and_then(|digest| reference(digest));
    let first = image
        .repo_digests
        .iter()
        .find_map(|digest| reference(digest));
    answer.image = digest.or(answer.image.take()).or(first);
    if let Some(found) = &mut answer.image {
        found.set_labels(|name| image_label(info, name));
    }
    name_image(answer, &image.repo_tags);
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
    // No runtime has its own field for it; some add the descriptor of the pulled manifest here.
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

/// `repository@sha256:…`, if the text has this form.
fn reference(text: &str) -> Option<ImageRef> {
    let (repository, digest) = text.split_once('@')?;
    let hex = digest.strip_prefix("sha256:")?;
    let good = !repository.is_empty()
        && hex.len() == 64
        && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then(|| ImageRef::by_digest(text))
}

/// Adds the documents without their secrets; documents in `answer.files` are redacted too.
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
    let image = answer.image.iter_mut();
    let named = image.flat_map(|image| [&mut image.name, &mut image.version, &mut image.revision]);
    let labels = answer.workload.labels.values_mut();
    let redactor = scrub::redactor(&answer.secrets);
    for text in named.flatten().chain(labels) {
        if let Some(clean) = scrub::cleaned(text, &redactor) {
            *text = clean;
        }
    }
    for (kind, mut value) in all {
        scrub::strings(&mut value, &redactor);
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
    fn image_digest_belongs_to_the_requested_repository() {
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
        let asked = asked_for(container.image.as_ref().unwrap());
        let extra = &mut answer.workload.extra;
        extra.insert("image_name".to_owned(), asked.into());
        let info = serde_json::json!({"imageSpec": {"os": "linux", "architecture": "arm64", "variant": "v8"}});
        add_image(&mut answer, &image, &info);
        let found = answer.image.unwrap().reference;
        assert!(found.starts_with("quay.io/shop/api@sha256:aa"), "{found}");
        assert_eq!(answer.workload.extra["image_id"], "sha256:config");
        assert_eq!(answer.workload.extra["image_platform"], "linux/arm64/v8");
        assert_eq!(reference("sha256:abc"), None);
        assert_eq!(reference("api@sha256:../../x"), None);
    }

    fn status_with_image_name(name: &str) -> ContainerStatusResponse {
        let annotations = serde_json::json!({"io.kubernetes.cri.image-name": name});
        let info = serde_json::json!({"pid": 7, "runtimeSpec": {"annotations": annotations}});
        ContainerStatusResponse {
            info: HashMap::from([("info".to_owned(), info.to_string())]),
            ..ContainerStatusResponse::default()
        }
    }

    #[test]
    fn add_image_prefers_the_repository_that_was_asked_for_over_the_runtimes_first() {
        let digest = |repository: &str| format!("{repository}@sha256:{}", "a".repeat(64));
        let id = format!("sha256:{}", "b".repeat(64));
        let image = Image {
            repo_digests: ["mirror.local:5000/api", "quay.io/shop/api", "old.local/api"]
                .map(digest)
                .to_vec(),
            repo_tags: vec!["mirror.local:5000/api:1".to_owned()],
            ..Image::default()
        };
        // The names from the kubelet, from the runtime's annotations, and from the repository of
        // the result.
        let ours = digest("quay.io/shop/api");
        let mirror = digest("mirror.local:5000/api");
        let cases = [
            (ours.as_str(), "mirror.local:5000/api:1", "quay.io/shop/api"),
            (ours.as_str(), mirror.as_str(), "quay.io/shop/api"),
            (
                "quay.io/shop/api",
                "mirror.local:5000/api:1",
                "quay.io/shop/api",
            ),
            (id.as_str(), ours.as_str(), "quay.io/shop/api"),
            (id.as_str(), "old.local/api:1", "old.local/api"),
            (id.as_str(), id.as_str(), "mirror.local:5000/api"),
        ];
        for (asked, annotated, expected) in cases {
            let container = Container {
                image: Some(cdh_cri::ImageSpec {
                    image: asked.to_owned(),
                    ..Default::default()
                }),
                // containerd: the first of the image's digests.
                image_ref: mirror.clone(),
                ..Container::default()
            };
            let runtimes = Runtimes::new(Arc::default());
            let mut answer = runtimes.listed(&[container], None, "containerd");
            add_status(&mut answer, &status_with_image_name(annotated));
            add_image(&mut answer, &image, &Value::Null);
            let found = answer.image.unwrap();
            assert_eq!(
                image_repository(&found.reference),
                Some(expected),
                "asked for {asked}, annotated {annotated}: {found:?}"
            );
        }
    }

    fn sandbox(labels: &[(&str, &str)]) -> PodSandbox {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        PodSandbox {
            metadata: Some(cdh_cri::PodSandboxMetadata {
                name: "api-7d4b9c6f5d-x2x9k".to_owned(),
                namespace: "shop".to_owned(),
                ..Default::default()
            }),
            labels: labels.iter().map(owned).collect(),
            ..PodSandbox::default()
        }
    }

    fn listed(sandbox: &PodSandbox, image: &str) -> Answer {
        let container = Container {
            id: "c".to_owned(),
            image: Some(cdh_cri::ImageSpec {
                image: image.to_owned(),
                ..Default::default()
            }),
            image_ref: format!("quay.io/shop/api@sha256:{}", "a".repeat(64)),
            ..Container::default()
        };
        let runtimes = Runtimes::new(Arc::default());
        runtimes.listed(&[container], Some(sandbox), "containerd")
    }

    #[test]
    fn listed_pod_has_owner_labels_and_release() {
        let labels = [
            ("pod-template-hash", "7d4b9c6f5d"),
            ("app.kubernetes.io/version", "1.4.2"),
        ];
        let answer = listed(&sandbox(&labels), "quay.io/shop/api");
        let owner = answer.workload.owner.unwrap();
        assert_eq!(
            (owner.kind.as_str(), owner.name.as_str()),
            ("Deployment", "api")
        );
        assert_eq!(answer.workload.labels["pod-template-hash"], "7d4b9c6f5d");
        assert_eq!(answer.image.as_ref().unwrap().release(), Some("1.4.2"));
        let many: Vec<(String, String)> =
            (0..70).map(|n| (format!("l{n}"), String::new())).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let answer = listed(&sandbox(&many), "quay.io/shop/api:1");
        assert_eq!(answer.workload.labels.len(), 64);
        assert!(
            answer.gaps.iter().any(|gap| gap.what == "labels"),
            "{:?}",
            answer.gaps
        );
    }

    #[test]
    fn image_release_comes_from_labels_tags_and_annotations() {
        let id = format!("sha256:{}", "b".repeat(64));
        let image = Image {
            repo_tags: vec![
                "quay.io/shop/api:latest".to_owned(),
                "quay.io/shop/api:1.4.1".to_owned(),
            ],
            ..Image::default()
        };
        let labels = serde_json::json!({
            "org.opencontainers.image.version": "1.4.2", "org.opencontainers.image.revision": "5f3c",
        });
        for info in [
            serde_json::json!({"imageSpec": {"config": {"Labels": labels}}}),
            serde_json::json!({"labels": labels}),
        ] {
            let mut answer = listed(&sandbox(&[("app.kubernetes.io/version", "9")]), &id);
            add_image(&mut answer, &image, &info);
            let found = answer.image.unwrap();
            assert_eq!(found.name.as_deref(), Some("quay.io/shop/api:1.4.1"));
            assert_eq!(found.version.as_deref(), Some("1.4.2"));
            assert_eq!(found.revision.as_deref(), Some("5f3c"));
        }
        let mut answer = listed(&sandbox(&[]), &id);
        let status = status_with_image_name("quay.io/shop/api:1.4.3");
        add_status(&mut answer, &status);
        add_image(&mut answer, &image, &Value::Null);
        assert_eq!(answer.image.unwrap().release(), Some("1.4.3"));
    }

    #[test]
    fn secrets_are_removed_from_labels_and_image_names() {
        let mut answer = listed(
            &sandbox(&[("note", "is-hunter22")]),
            "quay.io/shop/api:hunter22",
        );
        let env = serde_json::json!({"env": ["DB_PASSWORD=hunter22"]});
        finish(
            &mut answer,
            vec![(EntryKind::RuntimeInfo, env)],
            &PolicyConfig::default(),
        );
        assert_eq!(answer.workload.labels["note"], "is-<removed>");
        assert_eq!(
            answer.image.unwrap().name.as_deref(),
            Some("quay.io/shop/api:<removed>")
        );
    }
}
