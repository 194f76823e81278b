//! Reads the kubelet's log directories: last lines of a container, and its owner.
//!
//! ```text
//! /var/log/pods/<namespace>_<pod>_<uid>/<container>/<restarts>.log
//! /var/log/containers/<pod>_<namespace>_<container>-<container id>.log  ─▶ the one above
//! 2026-01-01T00:00:00.000000001Z stdout F a whole line
//! ```
//!
//! Names of namespaces, pods and containers contain no `_`. The runtime writes the lines; docker
//! writes JSON into its own directory, to which the kubelet's file is a link.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use cdh_bundle::{ContainerLog, EntryKind};

use super::{Answer, files, gap, scrub};

/// Maximum bytes read of a log.
const WINDOW: u64 = 256 << 10;

/// Names of a pod, from its log directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LoggedNames {
    pub(super) namespace: String,
    pub(super) pod: String,
    /// `None` if it has several containers and the crashed one is unknown.
    pub(super) container: Option<String>,
    /// The log of the container's last start.
    pub(super) log: Option<PathBuf>,
}

/// The owner of this container, from the kubelet's link to its log and from the pod's directory.
pub(super) fn names(
    pods: &Path,
    links: &Path,
    uid: Option<&str>,
    container: &str,
) -> Option<LoggedNames> {
    let linked = entries(links).find_map(|name| {
        let rest = name.strip_suffix(".log")?.strip_suffix(container)?;
        let mut parts = rest.strip_suffix('-')?.split('_');
        let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
        let plain = [pod, namespace, container].iter().all(|name| is_name(name));
        (plain && parts.next().is_none()).then(|| LoggedNames {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            container: Some(container.to_owned()),
            log: None,
        })
    });
    let directory = uid.and_then(|uid| {
        entries(pods).find_map(|name| {
            let mut parts = name.split('_');
            let (namespace, pod, found) = (parts.next()?, parts.next()?, parts.next()?);
            let fits = found == uid && parts.next().is_none();
            (fits && is_name(namespace) && is_name(pod)).then(|| LoggedNames {
                namespace: namespace.to_owned(),
                pod: pod.to_owned(),
                container: None,
                log: None,
            })
        })
    });
    let uid_of = uid.unwrap_or("");
    let mut names = linked.or(directory)?;
    let directory = pods.join(format!("{}_{}_{uid_of}", names.namespace, names.pod));
    if names.container.is_none() {
        let mut containers = entries(&directory).filter(|name| is_name(name));
        names.container = containers.next().filter(|_| containers.next().is_none());
    }
    names.log = names
        .container
        .as_ref()
        .and_then(|container| last_log(&directory.join(container)));
    Some(names)
}

/// `<restarts>.log` with the highest number.
fn last_log(directory: &Path) -> Option<PathBuf> {
    let numbers =
        entries(directory).filter_map(|name| name.strip_suffix(".log")?.parse::<u32>().ok());
    Some(directory.join(format!("{}.log", numbers.max()?)))
}

fn entries(directory: &Path) -> impl Iterator<Item = String> + use<> {
    let items = std::fs::read_dir(directory).into_iter().flatten().flatten();
    items.filter_map(|item| item.file_name().into_string().ok())
}

/// A valid Kubernetes name: a DNS subdomain.
fn is_name(name: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    (1..=253).contains(&name.len()) && name.bytes().all(plain)
}

/// Adds the last lines of the logs, without secrets.
pub(super) fn read_logs(answer: &mut Answer, lines: usize) {
    if lines == 0 {
        return;
    }
    let redactor = scrub::redactor(&answer.secrets);
    for (number, path) in answer.logs.clone() {
        let kind = EntryKind::Log(number);
        match tail(&path, lines) {
            Ok(text) => {
                let text = scrub::cleaned(&text, &redactor).unwrap_or(text);
                answer.files.retain(|(found, _)| *found != kind);
                answer.files.push((kind, text.into_bytes()));
            }
            Err(_) if answer.files.iter().any(|(found, _)| *found == kind) => {}
            Err(error) => {
                let why = format!("`{}`: {error}", path.display());
                answer.gaps.retain(|gap| gap.what != kind.file_name());
                answer.gaps.push(gap(&kind.file_name(), why));
            }
        }
    }
}

/// The owner of a log: the kubelet names it `…/<container>/<restarts>.log`.
fn named(number: u32, path: &Path) -> Option<ContainerLog> {
    let restart = path.file_name()?.to_str()?.strip_suffix(".log")?;
    let container = path.parent()?.file_name()?.to_str()?;
    is_name(container).then_some(())?;
    Some(ContainerLog {
        file: EntryKind::Log(number).file_name(),
        container: container.to_owned(),
        restart: restart.parse().ok()?,
    })
}

/// The owners of the logs that were read.
pub(super) fn logs_of(answer: &Answer) -> Vec<ContainerLog> {
    let is_there = |number: &u32| {
        let kind = EntryKind::Log(*number);
        answer.files.iter().any(|(found, _)| *found == kind)
    };
    let logs = answer.logs.iter();
    let logs = logs.filter(|(number, _)| is_there(number));
    logs.filter_map(|(number, path)| named(*number, path))
        .collect()
}

/// The last lines of a container's log, in the format of `crictl logs`: messages of both streams.
pub(super) fn tail(path: &Path, lines: usize) -> io::Result<String> {
    // Pod, container and file are created by the kubelet; the directories above belong to the
    // node's layout.
    let mut file = match files::open(path, 3) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            open_docker(path)?
        }
        opened => opened?,
    };
    let length = file.metadata()?.len();
    let start = length.saturating_sub(WINDOW);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(WINDOW).read_to_end(&mut bytes)?;
    let mut text = bytes.as_slice();
    if start > 0 {
        let end = text.iter().position(|&byte| byte == b'\n').unwrap_or(0);
        text = text.get(end..).unwrap_or_default();
    }
    Ok(last_lines(text, lines))
}

/// Docker's own file, the target of the kubelet's link: `…/containers/<id>/<id>-json.log`.
fn open_docker(path: &Path) -> io::Result<File> {
    let target = std::fs::read_link(path)?;
    let name = target.file_name().and_then(|name| name.to_str());
    let id = name.and_then(|name| name.strip_suffix("-json.log"));
    let directory = target
        .parent()
        .and_then(|parent| Some((parent.file_name()?.to_str()?, parent.parent()?.file_name()?)));
    match (id, directory) {
        (Some(id), Some((found, above))) if id == found && above == "containers" => {
            files::open(&target, 2)
        }
        _ => Err(io::Error::other(
            "it is a link, and not one to docker's log",
        )),
    }
}

fn last_lines(text: &[u8], wanted: usize) -> String {
    let text = String::from_utf8_lossy(text);
    let mut messages: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (message, is_partial) = message(line);
        match messages.last_mut() {
            Some(last) if open => last.push_str(&message),
            _ => messages.push(message),
        }
        open = is_partial;
    }
    let from = messages.len().saturating_sub(wanted);
    let mut kept = messages.split_off(from).join("\n");
    if !kept.is_empty() {
        kept.push('\n');
    }
    kept
}

/// The container's output, and whether the line continues.
fn message(line: &str) -> (String, bool) {
    #[derive(serde::Deserialize)]
    struct Docker {
        log: String,
    }
    if line.starts_with('{')
        && let Ok(docker) = serde_json::from_str::<Docker>(line)
    {
        return match docker.log.strip_suffix('\n') {
            Some(whole) => (whole.to_owned(), false),
            None => (docker.log, true),
        };
    }
    // <time> <stream> <tags> <message>; tags are separated by `:`, the first is `F` or `P`.
    let mut parts = line.splitn(4, ' ');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some("stdout" | "stderr"), Some(tags), message) => (
            message.unwrap_or_default().to_owned(),
            tags.split(':').next() == Some("P"),
        ),
        _ => (line.to_owned(), false),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const UID: &str = "6a9b4a0c-8f1d-4f58-9a3b-2f64ab1d7c10";

    #[test]
    fn lines_of_cri_and_docker_are_read_and_parts_are_joined() {
        let cri = "2026-01-01T00:00:00.1Z stdout F one\n2026-01-01T00:00:00.2Z stderr P tw\n\
                   2026-01-01T00:00:00.3Z stderr F o\n2026-01-01T00:00:00.4Z stdout F \n";
        assert_eq!(last_lines(cri.as_bytes(), 500), "one\ntwo\n\n");
        assert_eq!(last_lines(cri.as_bytes(), 2), "two\n\n");
        let docker = "{\"log\":\"a\\n\",\"stream\":\"stdout\",\"time\":\"x\"}\n{\"log\":\"b\"}\n{\"log\":\"c\\n\"}\n";
        assert_eq!(last_lines(docker.as_bytes(), 500), "a\nbc\n");
        assert_eq!(
            last_lines(b"plain words here and there\n", 5),
            "plain words here and there\n"
        );
        assert_eq!(last_lines(b"", 5), "");
    }

    #[test]
    fn pod_logs_names_come_from_directories_and_links() {
        let root = tempfile::tempdir().unwrap();
        let (pods, links) = (root.path().join("pods"), root.path().join("containers"));
        let pod = pods.join(format!("shop_api-7d4_{UID}"));
        fs::create_dir_all(pod.join("main")).unwrap();
        fs::create_dir_all(&links).unwrap();
        fs::write(pod.join("main/9.log"), "old\n").unwrap();
        fs::write(pod.join("main/10.log"), "new\n").unwrap();
        let names = |uid, id| names(&pods, &links, uid, id);
        let found = names(Some(UID), "abc").unwrap();
        assert_eq!(
            (found.namespace.as_str(), found.pod.as_str()),
            ("shop", "api-7d4")
        );
        assert_eq!(found.container.as_deref(), Some("main"));
        assert_eq!(tail(&found.log.unwrap(), 9).unwrap(), "new\n");
        fs::create_dir(pod.join("sidecar")).unwrap();
        assert_eq!(names(Some(UID), "abc").unwrap().container, None);
        fs::write(links.join("api-7d4_shop_sidecar-abc.log"), "").unwrap();
        let found = names(Some(UID), "abc").unwrap();
        assert_eq!(found.container.as_deref(), Some("sidecar"));
        assert_eq!(names(Some("other"), "xyz"), None);
        fs::write(links.join("../evil_a_b-q.log"), "").unwrap();
        assert_eq!(names(None, "q"), None);
    }

    #[test]
    fn links_that_a_pod_plants_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let secret = root.path().join("shadow");
        fs::write(&secret, "root:x\n").unwrap();
        let container = root.path().join(format!("a_b_{UID}/main"));
        fs::create_dir_all(&container).unwrap();
        let log = container.join("0.log");
        std::os::unix::fs::symlink(&secret, &log).unwrap();
        assert!(tail(&log, 9).is_err());
        let aside = root.path().join(format!("a_c_{UID}"));
        std::os::unix::fs::symlink(root.path().join(format!("a_b_{UID}")), &aside).unwrap();
        fs::remove_file(&log).unwrap();
        fs::write(&log, "fine\n").unwrap();
        assert_eq!(tail(&log, 9).unwrap(), "fine\n");
        assert!(tail(&aside.join("main/0.log"), 9).is_err());
        let docker = root.path().join("docker/containers/abc");
        fs::create_dir_all(&docker).unwrap();
        fs::write(docker.join("abc-json.log"), "{\"log\":\"docker\\n\"}\n").unwrap();
        fs::remove_file(&log).unwrap();
        std::os::unix::fs::symlink(docker.join("abc-json.log"), &log).unwrap();
        assert_eq!(tail(&log, 9).unwrap(), "docker\n");
    }

    #[test]
    fn pod_logs_read_the_end_of_a_long_log() {
        let root = tempfile::tempdir().unwrap();
        let log = root.path().join("a/b/0.log");
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        let line = |n: usize| format!("2026-01-01T00:00:00Z stdout F line {n}\n");
        fs::write(&log, (0..50_000).map(line).collect::<String>()).unwrap();
        let text = tail(&log, 3).unwrap();
        assert_eq!(text, "line 49997\nline 49998\nline 49999\n");
    }
}
