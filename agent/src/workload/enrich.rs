//! Adds the workload to a sealed entry before it is shipped.
//!
//! Sources in order of precedence: the runtime's answer, its earlier lists, the kubelet's log directories,
//! the engine's files, and last the cgroup alone, with a gap that gives the reason. This is done once per
//! entry, and repeating it after a SIGKILL gives the same result. An entry is not changed if the store may
//! already have a part of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cdh_bundle::{
    BundleError, Cause, DumpId, EntryKind, Gap, Manifest, RawText, SpoolEntry, Verdict, Workload,
    WorkloadKind, amend, settle,
};

use super::lookups::Lookups;
use super::options::WorkloadOptions;
use super::pod_logs::read_logs;
use super::{Answer, PodTable, engine, gap, pod_logs};
use crate::ledger::LedgerRecord;
use crate::outcome::Action;
use crate::outcome::{DropReason, Outcome};
use crate::owner::{ContainerIdentity, Owner};
use crate::policy::pod_settings::PodSettings;
use crate::policy::{Crash, Decision, Pod, PolicyConfig};

/// How long to wait for the runtime to notice the end of a container whose first process crashed.
const EXIT_TIME: Duration = Duration::from_millis(700);
/// How long to wait for a second answer if the end of the container is not awaited.
const AGAIN: Duration = Duration::from_millis(300);
/// Maximum bytes of an entry's small JSON files.
const JSON_LIMIT: u64 = 16 << 20;
/// Maximum entries recorded as done.
const MOST_DONE: usize = 4096;

/// The result for an entry.
#[derive(Debug)]
pub(crate) enum Enriched {
    /// It may be shipped.
    Ready,
    /// Its pod wants no dumps.
    Unwanted {
        /// By which words.
        why: String,
        /// The facts for the ledger.
        record: Box<LedgerRecord>,
    },
}

/// Finds the workload of each dump.
pub(crate) struct Enricher {
    options: Arc<WorkloadOptions>,
    lookups: Lookups,
    /// Entries that need not be processed again.
    done: RefCell<BTreeSet<DumpId>>,
}

impl Enricher {
    /// Starts to collect the containers of this node.
    pub(crate) fn begin(options: &WorkloadOptions, spool: &Path) -> Self {
        let options = Arc::new(options.clone());
        let lookups = Lookups::begin(Arc::clone(&options), spool, PodTable::of(spool));
        Self {
            options,
            lookups,
            done: RefCell::default(),
        }
    }

    /// Looks up containers as soon as their entries appear.
    pub(crate) fn watch(mut self) -> Self {
        self.lookups.watch();
        self
    }

    /// Prepares an entry for shipping. `journal` exists if its upload has begun.
    ///
    /// # Errors
    /// If the entry cannot be read or written. The facts are then missing and may be added next
    /// time; the entry can be shipped nevertheless.
    pub(crate) fn enrich(
        &self,
        entry: &SpoolEntry,
        journal: &Path,
    ) -> Result<Enriched, BundleError> {
        if self.done.borrow().contains(&entry.id) {
            return Ok(Enriched::Ready);
        }
        let enriched = self.enrich_now(entry, journal)?;
        let mut done = self.done.borrow_mut();
        if done.len() >= MOST_DONE {
            // Processing it again is cheap.
            done.clear();
        }
        done.insert(entry.id);
        Ok(enriched)
    }

    fn enrich_now(&self, entry: &SpoolEntry, journal: &Path) -> Result<Enriched, BundleError> {
        settle(&entry.path)?;
        let Some(mut manifest) = manifest_of(&entry.path) else {
            return Ok(Enriched::Ready);
        };
        self.guess_by_pid(&mut manifest);
        if journal.exists() || is_enriched(&manifest) {
            return Ok(Enriched::Ready);
        }
        let mut answer = self.answer(&manifest);
        complete(&mut answer, &manifest, self.options.node.as_deref());
        answer.workload.logs = pod_logs::logs_of(&answer);
        let decision = decide(&self.options.policy, &manifest, &answer);
        if decision.action == Action::Ignore {
            let named = answer.workload.pod.as_deref().unwrap_or("?");
            let (reason, why) = decision.reason.unwrap_or((DropReason::Pod, String::new()));
            let why = format!("pod `{named}`: {why}");
            manifest.workload = Some(answer.workload);
            let record = LedgerRecord::of(&manifest, Outcome::Removed).because(reason, &why);
            let record = Box::new(record);
            return Ok(Enriched::Unwanted { why, record });
        }
        let (manifest, files) = amended(manifest, answer, &decision, &entry.path);
        amend(&entry.path, manifest, &files)?;
        Ok(Enriched::Ready)
    }

    /// Which runtimes answer, by their sockets, and why others do not.
    pub(crate) fn runtimes(&self) -> BTreeMap<PathBuf, Result<(), String>> {
        let mut runtimes = self.lookups.runtimes();
        // A Kubernetes node always has a runtime, even if its socket was not found.
        if self.options.node.is_some() && self.options.sockets().is_empty() {
            let why = "no socket of a container runtime was found".to_owned();
            runtimes.insert(PathBuf::new(), Err(why));
        }
        runtimes
    }

    /// The names of a container whose ids the handler recorded: from the runtimes' lists, from the kubelet's
    /// log directories, or from the engine's files. Sends no request, so it is cheap even for thousands.
    pub(crate) fn names_of(&self, pod_uid: Option<&str>, container: &str) -> Option<Workload> {
        if let Some(answer) = self.lookups.known_after_list(container) {
            return Some(answer.workload);
        }
        let options = &self.options;
        let (pods, links) = (&options.pod_logs, &options.container_logs);
        if let Some(found) = pod_logs::names(pods, links, pod_uid, container) {
            return Some(Workload {
                namespace: Some(found.namespace),
                pod: Some(found.pod),
                container: found.container,
                ..Workload::default()
            });
        }
        let container = ContainerIdentity::of_id(container.to_owned());
        Some(self.engine(&container, None)?.workload)
    }

    /// The workload of a process whose cgroup was no longer readable.
    fn guess_by_pid(&self, manifest: &mut Manifest) {
        if manifest.workload.is_some() {
            return;
        }
        if let Some(id) = self.lookups.by_pid(manifest.process.pid) {
            let owner = Owner::Container(ContainerIdentity::of_id(id));
            manifest.workload = Some(owner.workload());
            let why = "it was killed before it could be read; by its pid it was the container's first process";
            manifest.gaps.push(gap("cgroup", why));
        }
    }

    fn answer(&self, manifest: &Manifest) -> Answer {
        let workload = manifest.workload.clone().unwrap_or_default();
        let Some(container) = ContainerIdentity::of_manifest(manifest) else {
            // A process of the runtime in a pod: a monitor, or one that is entering the container.
            let mut answer = self.unknown(&workload, "", "no container's cgroup");
            answer.workload.container = None;
            return answer;
        };
        if !container.is_of_root() {
            // The user chose the id, which may be that of another user's container.
            return self
                .engine(&container, manifest.process.uid)
                .unwrap_or_else(|| {
                    let mut answer = Answer::default();
                    answer.gaps.push(gap(
                        "workload",
                        "a container of a user: its engine's files do not name it",
                    ));
                    answer
                });
        }
        let answer = self.answer_of_root(manifest, &container, &workload);
        match disagreement(&answer, &container) {
            None => answer,
            Some(why) => self.disputed(&why, &container),
        }
    }

    /// The facts about a container whose cgroup root created.
    fn answer_of_root(
        &self,
        manifest: &Manifest,
        container: &ContainerIdentity,
        workload: &Workload,
    ) -> Answer {
        if container.pod_uid.is_none()
            && self.lookups.known(&container.id).is_none()
            && let Some(answer) = self.engine(container, manifest.process.uid)
        {
            return answer;
        }
        let id = manifest.id;
        match self.lookups.answer(id, container) {
            Ok(first) => self.after_exit(first, manifest, container),
            Err(why) => match self.lookups.known(&container.id) {
                Some(mut answer) => {
                    let why = format!("{why}; this is what it listed before");
                    answer.gaps.push(gap("workload", why));
                    read_logs(&mut answer, self.options.log_lines);
                    answer
                }
                None => match self.unknown(workload, &container.id, &why) {
                    answer if answer.workload.pod.is_some() => answer,
                    answer => self.engine(container, None).unwrap_or(answer),
                },
            },
        }
    }

    /// The first answer is from the moment of the crash, so logs and exit are requested again.
    fn after_exit(
        &self,
        first: Answer,
        manifest: &Manifest,
        container: &ContainerIdentity,
    ) -> Answer {
        let ends = first.init_pid == Some(manifest.process.pid);
        let limit = if ends { EXIT_TIME } else { AGAIN };
        let again = match ends {
            _ if first.exited => None,
            true => self
                .lookups
                .answer_after_exit(manifest.id, container, limit),
            false => None,
        };
        match again {
            // Facts that only the first answer has about a terminating pod must not be lost.
            Some(mut later) => {
                for (kind, bytes) in first.files {
                    if !later.files.iter().any(|(found, _)| *found == kind) {
                        later.gaps.retain(|gap| gap.what != kind.file_name());
                        later.files.push((kind, bytes));
                    }
                }
                later.image = later.image.or(first.image);
                later
            }
            None => {
                let mut answer = first;
                read_logs(&mut answer, self.options.log_lines);
                answer
            }
        }
    }

    /// The rest of an identity that the runtime contradicts: no names, documents or logs.
    fn disputed(&self, why: &str, container: &ContainerIdentity) -> Answer {
        let mut answer = Answer {
            settings: PodSettings::of_unknown(&self.options.selection),
            disputed: true,
            ..Answer::default()
        };
        answer.workload.source = Some("disputed".to_owned());
        if let Some(outer) = &container.outer {
            // The surrounding container is the most that can be identified.
            answer.workload.kind = Some(WorkloadKind::Container);
            answer.workload.container_id = Some(outer.clone());
        }
        answer.gaps.push(gap("workload", why));
        answer
    }

    /// The facts about a container that no runtime knows.
    fn unknown(&self, workload: &Workload, container: &str, why: &str) -> Answer {
        let mut answer = Answer {
            settings: PodSettings::of_unknown(&self.options.selection),
            ..Answer::default()
        };
        answer.gaps.push(gap("workload", why));
        let names = pod_logs::names(
            &self.options.pod_logs,
            &self.options.container_logs,
            workload.pod_uid.as_deref(),
            container,
        );
        if let Some(names) = names {
            answer.workload.source = Some("logs".to_owned());
            answer.workload.namespace = Some(names.namespace);
            answer.workload.pod = Some(names.pod);
            answer.workload.container = names.container;
            answer.logs = names.log.map(|log| (0, log)).into_iter().collect();
            read_logs(&mut answer, self.options.log_lines);
        }
        answer
    }

    fn engine(&self, container: &ContainerIdentity, uid: Option<u32>) -> Option<Answer> {
        let users = engine::users_of(b"", uid);
        engine::find(&self.options.engines, &users, container).map(Answer::from)
    }
}

/// Contradictions between runtime and cgroup. A name in a cgroup path alone proves nothing.
fn disagreement(answer: &Answer, container: &ContainerIdentity) -> Option<String> {
    if let (Some(ours), Some(theirs)) = (&container.pod_uid, &answer.workload.pod_uid)
        && ours != theirs
    {
        return Some(format!(
            "the cgroup names pod `{ours}`, the runtime says that the container belongs to pod `{theirs}`"
        ));
    }
    if let (Some(ours), Some(theirs)) = (&container.cgroup, &answer.cgroup)
        && !is_same_cgroup(ours, theirs)
    {
        return Some(format!(
            "the process is in cgroup `{ours}`, the runtime put the container into `{theirs}`"
        ));
    }
    let is_known = answer
        .workload
        .source
        .as_deref()
        .is_some_and(|from| from.starts_with("cri"));
    (container.outer.is_some() && container.pod_uid.is_some() && !is_known).then(|| {
        "a pod inside another container, which no runtime of this node confirms".to_owned()
    })
}

/// Whether a path in `/proc/<pid>/cgroup` matches a runtime's `cgroupsPath`: a path, or with the
/// systemd driver `<slice>:<prefix>:<name>`. The runtime may see only the end of the path.
fn is_same_cgroup(path: &str, reported: &str) -> bool {
    let ends = |end: &str| {
        let end = end.trim_matches('/');
        path.strip_suffix(end)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    };
    let parts: Vec<&str> = reported.split(':').collect();
    let [slice, prefix, name] = parts[..] else {
        return ends(reported);
    };
    let slice = slice.rsplit('/').next().unwrap_or_default();
    let scope = match (prefix, name.ends_with(".slice")) {
        (_, true) => name.to_owned(),
        ("", false) => format!("{name}.scope"),
        (prefix, false) => format!("{prefix}-{name}.scope"),
    };
    // A runtime without the systemd driver uses such a name literally.
    ends(reported) || ends(&format!("{slice}/{scope}")) || (slice.is_empty() && ends(&scope))
}

/// Whether nothing more can be found out about it.
fn is_enriched(manifest: &Manifest) -> bool {
    match &manifest.workload {
        // From an older handler, or of a process that ended immediately.
        None => true,
        Some(workload) => {
            workload.kind == Some(WorkloadKind::Host)
                || workload.source.as_deref() != Some("cgroup")
                || manifest.gaps.iter().any(|gap| gap.what == "workload")
        }
    }
}

fn manifest_of(entry: &Path) -> Option<Manifest> {
    let path = entry.join(EntryKind::Manifest.file_name());
    let json = super::files::read(&path, 1, 64 << 20).ok()?;
    Manifest::from_json(&json).ok()
}

/// Adds facts from the cgroup that the answer lacks, and records contradictions.
fn complete(answer: &mut Answer, manifest: &Manifest, node: Option<&str>) {
    let Some(before) = &manifest.workload else {
        return;
    };
    let workload = &mut answer.workload;
    if answer.disputed {
        let kind = workload.kind.unwrap_or(WorkloadKind::Host);
        workload.kind = Some(kind);
        workload.node = node.map(str::to_owned);
        if let Some(cgroup) = before.extra.get("cgroup") {
            workload.extra.insert("cgroup".to_owned(), cgroup.clone());
        }
        return;
    }
    let fill = |field: &mut Option<String>, from: &Option<String>| {
        if field.as_deref().unwrap_or("").is_empty() {
            field.clone_from(from);
        }
    };
    workload.kind = workload.kind.or(before.kind);
    fill(&mut workload.pod_uid, &before.pod_uid);
    fill(&mut workload.container_id, &before.container_id);
    fill(&mut workload.runtime, &before.runtime);
    fill(&mut workload.source, &before.source);
    fill(&mut workload.node, &node.map(str::to_owned));
    for (key, value) in &before.extra {
        workload
            .extra
            .entry(key.clone())
            .or_insert_with(|| value.clone());
    }
}

/// The new manifest and files, with the pod's own limits applied.
fn amended(
    mut manifest: Manifest,
    answer: Answer,
    decision: &Decision,
    entry: &Path,
) -> (Manifest, Vec<(EntryKind, Vec<u8>)>) {
    let mut files = answer.files;
    if let Some(node) = &answer.workload.node {
        // An older handler did not record it.
        manifest.node = RawText::from(node.as_str());
    }
    manifest.workload = Some(answer.workload);
    manifest.image = answer.image.or(manifest.image);
    manifest.gaps.extend(answer.gaps);
    limit(&mut manifest, decision);
    if let Some(info) = dump_info(&manifest, entry) {
        files.push((EntryKind::DumpInfo, info));
    }
    (manifest, files)
}

/// The decision of the node's policy and the pod's settings, now that the pod is known.
fn decide(policy: &PolicyConfig, manifest: &Manifest, answer: &Answer) -> Decision {
    let process = &manifest.process;
    let crash = Crash {
        exe: process.exe_path(),
        uid: process.uid,
        signal: Some(manifest.signal.number),
        dumpable: process.dumpable,
    };
    let mut settings = answer.settings.clone();
    let workload = &answer.workload;
    let asks_for_labels = policy.rules.iter().any(|rule| !rule.labels.is_empty());
    if settings.namespace.is_none() && !asks_for_labels {
        settings.namespace.clone_from(&workload.namespace);
    }
    let pod = match workload.kind {
        Some(WorkloadKind::Pod) => Pod::Known(&settings),
        _ => Pod::Outside(&settings),
    };
    policy.decide(&crash, pod).unwrap_or_default()
}

/// Removes what must not be stored.
fn limit(manifest: &mut Manifest, decision: &Decision) {
    let too_long = decision.core_limit.is_some_and(|limit| {
        let core = manifest.core.as_ref().map(|core| core.entry.as_str());
        let mut entries = manifest.entries.iter();
        let record = core.and_then(|core| entries.find(|entry| entry.name == core));
        record.is_some_and(|record| record.stored_size.unwrap_or(record.size) > limit)
    });
    let said = decision.reason.as_ref().map(|(_, why)| why.as_str());
    let (cause, why) = match decision.action {
        Action::Full if too_long => (
            Cause::Limit,
            "it is longer than the pod or the policy allows",
        ),
        Action::Full => return,
        _ => (Cause::Policy, said.unwrap_or("by policy")),
    };
    if let Some(core) = manifest.core.take() {
        manifest.entries.retain(|entry| entry.name != core.entry);
        manifest.verdict = Verdict::Empty {
            cause,
            evidence: Some(why.to_owned()),
        };
        let what = "core".to_owned();
        let why = why.to_owned();
        manifest.gaps.push(Gap { what, why });
    }
    if decision.action == Action::Metadata {
        let minicore = EntryKind::Minicore.bundle_name(&manifest.stem);
        let before = manifest.entries.len();
        manifest.entries.retain(|entry| entry.name != minicore);
        if manifest.entries.len() < before {
            manifest.gaps.push(gap("minicore", why));
        }
    }
}

/// IBM's summary with namespace and pod.
fn dump_info(manifest: &Manifest, entry: &Path) -> Option<Vec<u8>> {
    let workload = manifest.workload.as_ref()?;
    let name = EntryKind::DumpInfo.bundle_name(&manifest.stem);
    manifest.entries.iter().find(|entry| entry.name == name)?;
    let path = entry.join(EntryKind::DumpInfo.file_name());
    let json = super::files::read(&path, 1, JSON_LIMIT).ok()?;
    let mut info: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&json).ok()?;
    info.insert("namespace".to_owned(), workload.namespace.clone()?.into());
    info.insert("podname".to_owned(), workload.pod.clone()?.into());
    serde_json::to_vec_pretty(&info).ok()
}

#[cfg(test)]
#[path = "enrich_tests.rs"]
mod tests;
