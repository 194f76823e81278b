//! Everything known about a dump.

use anyhow::Result;
use cdh_bundle::{Manifest, Verdict, Workload, WorkloadKind, meaning_of_sender};
use cdh_cause::Cause;
use cdh_elfcore::{Completeness, StackOverflow};
use cdh_symbolize::Explanation;
use serde::Serialize;
use serde_json::Value;

use super::backtrace::handler_end;
use super::table::aligned;
use super::{Style, Tone, bytes, percent, terminal_line};

/// Maximum labels shown without `--all`.
const SHORT_LABELS: usize = 12;

/// What `cdh info` shows.
pub struct InfoView<'a> {
    /// The manifest of the dump.
    pub manifest: &'a Manifest,
    /// Where it is.
    pub origin: String,
    /// The overflowed stack, if that was the cause.
    pub overflow: Option<StackOverflow>,
    /// Which parts of the core exist, according to its own headers; `None` if they cannot be read.
    pub completeness: Option<&'a Completeness>,
    /// How far a damaged bundle could be read.
    pub salvaged: Option<&'a str>,
    /// The message with which glibc aborted the process.
    pub abort_message: Option<&'a str>,
    /// Why the process crashed.
    pub cause: Option<&'a Cause>,
    /// The inputs of the fingerprint, if the stack can be symbolized here.
    pub explanation: Option<&'a Explanation>,
    /// Whether to list every module, entry and thread.
    pub all: bool,
}

/// For people.
#[must_use]
pub fn info_text(view: &InfoView, style: Style) -> String {
    let mut page = Page {
        style,
        text: String::new(),
    };
    page.dump(view);
    page.process(view.manifest, view.overflow);
    if let Some(cause) = view.cause.filter(|cause| cause.is_known()) {
        page.toned("cause", Tone::Bad, &cause.sentence);
    }
    if let Some(message) = view.abort_message {
        page.line("message", message);
    }
    page.fingerprint(view);
    page.core(view);
    page.workload(view.manifest, view.all);
    page.lists(view);
    page.text
}

struct Page {
    style: Style,
    text: String,
}

impl Page {
    fn line(&mut self, name: &str, value: impl AsRef<str>) {
        let name = self.style.paint(Tone::Strong, format!("{name:<12}"));
        self.text
            .push_str(&format!("{name} {}\n", terminal_line(value.as_ref())));
    }

    fn toned(&mut self, name: &str, tone: Tone, value: &str) {
        let name = self.style.paint(Tone::Strong, format!("{name:<12}"));
        let value = self.style.paint(tone, terminal_line(value));
        self.text.push_str(&format!("{name} {value}\n"));
    }

    fn dump(&mut self, view: &InfoView) {
        let manifest = view.manifest;
        self.line("dump", manifest.id.to_string());
        self.line("from", &view.origin);
        if let Some(salvaged) = view.salvaged {
            self.toned("damaged", Tone::Bad, salvaged);
        }
        let captured = match manifest.captured() {
            Some(time) => time.to_string(),
            None => "unknown".to_owned(),
        };
        let node = manifest.node_name();
        match node.is_empty() {
            true => self.line("captured", captured),
            false => self.line("captured", format!("{captured} on {node}")),
        }
        if let Some(imported) = &manifest.imported {
            let file = &imported.file;
            self.line("imported", format!("{} from {file}", imported.at));
        }
        if manifest.hostname.as_bytes() != manifest.node.as_bytes() && !manifest.hostname.is_empty()
        {
            self.line("hostname", manifest.hostname.to_string());
        }
    }

    fn process(&mut self, manifest: &Manifest, overflow: Option<StackOverflow>) {
        let process = &manifest.process;
        let program = process.exe_name();
        let mut name = format!("{program} (pid {}", process.pid);
        if let Some(inner) = process.namespace_pid.filter(|inner| *inner != process.pid) {
            name.push_str(&format!(", {inner} inside its container"));
        }
        if let Some(uid) = process.uid {
            name.push_str(&format!(", uid {uid}"));
        }
        // Threads and interpreters use other names than that of their program.
        if process.name != program && !process.name.is_empty() {
            name.push_str(&format!(", comm {}", process.name));
        }
        self.line("process", name + ")");
        if let Some(exe) = &process.exe {
            self.line("executable", exe.to_string());
        }
        if let Some(arguments) = &process.arguments {
            let shown: Vec<String> = arguments
                .iter()
                .map(|part| quoted(&part.to_string()))
                .collect();
            self.line("command", shown.join(" "));
        }
        self.toned("signal", Tone::Bad, &manifest.crash_signal().description);
        if manifest.original_signal.is_some() {
            self.line("signal handler", handler_end(&manifest.signal));
        }
        if let Some(overflow) = overflow {
            self.toned("", Tone::Bad, &overflow.to_string());
        }
        if !manifest.machine.is_empty() {
            self.line("machine", &manifest.machine);
        }
        if let Some(count) = manifest.thread_count {
            self.line("threads", count.to_string());
        }
    }

    /// The fingerprint of the dump, and its inputs. A stack that is computed here may have another fingerprint,
    /// by another version of the rules.
    fn fingerprint(&mut self, view: &InfoView) {
        let stated = view.manifest.fingerprint.as_deref();
        let made = view.explanation;
        let made_here = made.map(|made| made.fingerprint.as_str());
        if let Some(stated) = stated {
            self.line("fingerprint", stated);
            if made_here != Some(stated) {
                self.line(
                    "",
                    "made by another version of cdh, which did not store its inputs",
                );
            }
        }
        let Some(made) = made else {
            return;
        };
        match stated {
            None => self.line("fingerprint", made.fingerprint.as_str()),
            Some(stated) if made.fingerprint.as_str() == stated => {}
            Some(_) => {
                let note = "of the stack here, by this version of cdh";
                self.line("fingerprint", format!("{} ({note})", made.fingerprint));
            }
        }
        self.line("", format!("made of {}", made.counted.join(" < ")));
        if !made.skipped.is_empty() {
            self.line("", format!("left out: {}", made.skipped.join(", ")));
        }
    }

    fn core(&mut self, view: &InfoView) {
        let verdict = &view.manifest.verdict;
        let tone = if matches!(verdict, Verdict::Complete) {
            Tone::Good
        } else {
            Tone::Bad
        };
        self.toned("verdict", tone, &verdict.describe());
        if let Some(killed) = &view.manifest.killed {
            self.line("", format!("killed while it was captured: {killed}"));
        }
        let killed = view.manifest.killed.as_deref();
        let advice = verdict.advice().or_else(|| meaning_of_sender(killed?));
        if let Some(advice) = advice {
            self.line("", advice);
        }
        if let Some(core) = &view.manifest.core {
            self.line(
                "core",
                format!("{} stored as {}", bytes(core.size), core.entry),
            );
        }
        let Some(found) = view.completeness else {
            return;
        };
        if found.is_complete() {
            return;
        }
        let part = percent(found.found, found.expected);
        let sizes = format!(
            "{} of {} ({part})",
            bytes(found.found),
            bytes(found.expected)
        );
        self.toned("core is cut", Tone::Bad, &sizes);
        let whole = found
            .segments
            .iter()
            .filter(|segment| segment.found == segment.expected)
            .count();
        self.line(
            "segments",
            format!("{whole} of {} whole", found.segments.len()),
        );
        let stacks = found
            .stacks
            .iter()
            .filter(|s| s.found == s.expected && s.expected > 0)
            .count();
        self.line(
            "stacks",
            format!("{stacks} of {} whole", found.stacks.len()),
        );
    }

    fn workload(&mut self, manifest: &Manifest, all: bool) {
        if let Some(workload) = &manifest.workload {
            if workload.kind == Some(WorkloadKind::Host) {
                let unit = workload.extra.get("unit").and_then(|unit| unit.as_str());
                let unit = unit.map(|unit| format!(" ({unit})")).unwrap_or_default();
                self.line("workload", format!("none: a process of the host{unit}"));
            }
            let named = [
                ("namespace", &workload.namespace),
                ("pod", &workload.pod),
                ("owner", &workload.owner.as_ref().map(ToString::to_string)),
                ("pod uid", &workload.pod_uid),
                ("container", &workload.container),
                ("container id", &workload.container_id),
                ("runtime", &workload.runtime),
                ("node", &workload.node),
            ];
            for (name, value) in named {
                if let Some(value) = value {
                    self.line(name, value);
                }
            }
        }
        if let Some(workload) = &manifest.workload {
            let number = |key: &str| workload.extra.get(key).and_then(Value::as_i64);
            if let Some(restarts) = number("restart_count") {
                self.line("restarts", restarts.to_string());
            }
            if let Some(code) = number("exit_code") {
                let reason = workload.extra.get("exit_reason").and_then(Value::as_str);
                let reason = reason.map(|reason| format!(" ({reason})"));
                self.line("exit code", format!("{code}{}", reason.unwrap_or_default()));
            }
        }
        self.image(manifest);
        if let Some(workload) = &manifest.workload {
            for (number, log) in workload.logs.iter().enumerate() {
                let title = if number == 0 { "logs" } else { "" };
                self.line(title, format!("{}: {log}", log.file));
            }
            self.labels(workload, all);
        }
    }

    fn image(&mut self, manifest: &Manifest) {
        let Some(image) = &manifest.image else {
            let workload = manifest.workload.as_ref();
            let name = workload.and_then(|workload| workload.extra.get("image_name")?.as_str());
            if let Some(name) = name {
                self.line("image", format!("{name} (digest unknown)"));
            }
            return;
        };
        self.line("image", &image.reference);
        if let Some(name) = &image.name {
            self.line("image name", name);
        }
        let release = image.release();
        if let Some(release) = release {
            self.line("release", release);
        }
        if let Some(version) = image.version.as_deref()
            && Some(version) != release
        {
            self.line("version", version);
        }
        if let Some(revision) = &image.revision {
            self.line("revision", revision);
        }
    }

    fn labels(&mut self, workload: &Workload, all: bool) {
        let shown = if all { usize::MAX } else { SHORT_LABELS };
        for (number, (name, value)) in workload.labels.iter().take(shown).enumerate() {
            let title = if number == 0 { "labels" } else { "" };
            self.line(title, format!("{name}={value}"));
        }
        let more = workload.labels.len().saturating_sub(shown);
        if more > 0 {
            self.line("", format!("{more} more: `cdh info --all`"));
        }
    }

    fn lists(&mut self, view: &InfoView) {
        let manifest = view.manifest;
        if view.all {
            let rows: Vec<_> = manifest
                .modules
                .iter()
                .map(|module| {
                    let id = module
                        .build_id
                        .as_ref()
                        .map_or_else(|| "-".to_owned(), |id| id.to_string());
                    vec![format!("{:#x}", module.start), id, module.path.to_string()]
                })
                .collect();
            self.table("modules", &["START", "BUILD-ID", "PATH"], &rows);
            let rows: Vec<_> = manifest
                .entries
                .iter()
                .map(|entry| {
                    vec![
                        bytes(entry.size),
                        entry.sha256.to_string(),
                        entry.name.clone(),
                    ]
                })
                .collect();
            self.table("entries", &["SIZE", "SHA-256", "NAME"], &rows);
            let stacks = view
                .completeness
                .map(|found| found.stacks.as_slice())
                .unwrap_or_default();
            let rows: Vec<_> = stacks
                .iter()
                .map(|stack| {
                    vec![
                        stack.tid.to_string(),
                        bytes(stack.found),
                        bytes(stack.expected),
                    ]
                })
                .collect();
            self.table("threads", &["TID", "STACK FOUND", "STACK"], &rows);
        } else {
            let named = manifest
                .modules
                .iter()
                .filter(|module| module.build_id.is_some())
                .count();
            if !manifest.modules.is_empty() {
                self.line(
                    "modules",
                    format!("{} ({named} with build-id)", manifest.modules.len()),
                );
            }
        }
        self.recorded(manifest, view.all);
        for gap in &manifest.gaps {
            self.toned("gap", Tone::Bad, &format!("{}: {}", gap.what, gap.why));
        }
        if !manifest.agent_version.is_empty() {
            self.line("agent", &manifest.agent_version);
        }
    }

    /// What another handler recorded about the crash.
    fn recorded(&mut self, manifest: &Manifest, all: bool) {
        let Some(imported) = &manifest.imported else {
            return;
        };
        let shown = if all { usize::MAX } else { SHORT_LABELS };
        for (number, (name, value)) in imported.fields.iter().take(shown).enumerate() {
            let title = if number == 0 { "recorded" } else { "" };
            self.line(title, format!("{name}={value}"));
        }
        let more = imported.fields.len().saturating_sub(shown);
        if more > 0 {
            self.line("", format!("{more} more: `cdh info --all`"));
        }
    }

    fn table(&mut self, title: &str, header: &[&str], rows: &[Vec<String>]) {
        if rows.is_empty() {
            return;
        }
        self.text
            .push_str(&format!("\n{}\n", self.style.paint(Tone::Strong, title)));
        for line in aligned(header, rows) {
            self.text.push_str(&format!("  {line}\n"));
        }
    }
}

/// An argument, quoted for a shell.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', "'\\''"))
    }
}

/// What `cdh info` shows.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InfoDocument<'a> {
    /// Where the dump is: store and key, spool, bundle, case or core.
    origin: &'a str,
    /// How far a damaged bundle could be read; `null` if it is not damaged.
    salvaged: Option<&'a str>,
    /// Tag or version label of the image.
    release: Option<&'a str>,
    /// The manifest.
    manifest: &'a Manifest,
    /// The stack that was full, if the process crashed because of that.
    stack_overflow: Option<StackOverflow>,
    /// The message with which glibc aborted the process: a failed assertion, a corrupted heap.
    abort_message: Option<&'a str>,
    /// Why the process crashed; `null` if the crashed thread is not known.
    cause: Option<&'a Cause>,
    /// How much of the core is stored, by its own headers; `null` if they cannot be read.
    found: Option<FoundCore>,
    /// The inputs of the fingerprint, if the stack can be symbolized on this machine.
    fingerprint: Option<&'a Explanation>,
}

/// How much of a core is stored.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FoundCore {
    /// Bytes that the core's headers promise.
    expected: u64,
    /// Bytes that are stored.
    found: u64,
    /// Whether nothing is missing.
    complete: bool,
    /// The stacks of its threads.
    stacks: Vec<FoundStack>,
}

/// How much of a thread's stack is stored.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FoundStack {
    /// Thread id.
    tid: u32,
    /// Bytes that the core's headers promise.
    expected: u64,
    /// Bytes that are stored.
    found: u64,
}

/// One JSON document: the manifest, and under `found` how much of the core is stored.
///
/// # Errors
/// Never in practice: the parts are plain text and numbers.
pub fn info_json(view: &InfoView) -> Result<String> {
    let stack = |stack: &cdh_elfcore::StackState| FoundStack {
        tid: stack.tid,
        expected: stack.expected,
        found: stack.found,
    };
    super::sorted_json(&InfoDocument {
        origin: &view.origin,
        salvaged: view.salvaged,
        release: view
            .manifest
            .image
            .as_ref()
            .and_then(|image| image.release()),
        manifest: view.manifest,
        stack_overflow: view.overflow,
        abort_message: view.abort_message,
        cause: view.cause,
        found: view.completeness.map(|found| FoundCore {
            expected: found.expected,
            found: found.found,
            complete: found.is_complete(),
            stacks: found.stacks.iter().map(stack).collect(),
        }),
        fingerprint: view.explanation,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use cdh_bundle::{ContainerLog, ImageRef, WorkloadOwner};

    use super::*;

    fn manifest() -> Manifest {
        let json = json!({
            "schema": 1, "id": "6a4f4e4d-9c55-4f0b-8f38-8a8f7c5d4e3b", "stem": "s",
            "captured_at": "2026-01-01T00:00:00Z", "process": {"pid": 7},
            "signal": {"number": 11, "name": "SIGSEGV"},
            "verdict": {"state": "complete"},
        });
        Manifest::from_json(json.to_string().as_bytes()).unwrap()
    }

    fn view(manifest: &Manifest, all: bool) -> InfoView<'_> {
        InfoView {
            manifest,
            origin: "a store".to_owned(),
            completeness: None,
            salvaged: None,
            overflow: None,
            abort_message: None,
            cause: None,
            explanation: None,
            all,
        }
    }

    #[test]
    fn info_shows_owner_release_version_revision_and_labels() {
        let mut manifest = manifest();
        manifest.image = Some(ImageRef {
            name: Some("quay.io/shop/api:1.4.2".to_owned()),
            version: Some("1.4.2+build7".to_owned()),
            revision: Some("5f3c".to_owned()),
            ..ImageRef::by_digest("quay.io/shop/api@sha256:00ff")
        });
        manifest.workload = Some(Workload {
            pod: Some("api-7d4b9c6f5d-x2x9k".to_owned()),
            owner: Some(WorkloadOwner {
                kind: "Deployment".to_owned(),
                name: "api".to_owned(),
            }),
            logs: vec![ContainerLog {
                file: "0.log".to_owned(),
                container: "main".to_owned(),
                restart: 2,
            }],
            labels: (0..14)
                .map(|n| (format!("l{n:02}"), "\u{1b}v".to_owned()))
                .collect(),
            ..Workload::default()
        });
        let text = info_text(&view(&manifest, false), Style::Plain);
        for line in [
            "owner        Deployment api\n",
            "image        quay.io/shop/api@sha256:00ff\n",
            "image name   quay.io/shop/api:1.4.2\n",
            "release      1.4.2\n",
            "version      1.4.2+build7\n",
            "revision     5f3c\n",
            "logs         0.log: container main, restart 2\n",
            "2 more: `cdh info --all`\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!text.contains('\u{1b}') && !text.contains("l13"), "{text}");
        assert!(info_text(&view(&manifest, true), Style::Plain).contains("l13="));
        let document: Value =
            serde_json::from_str(&info_json(&view(&manifest, false)).unwrap()).unwrap();
        assert_eq!(document["release"], "1.4.2");
        assert_eq!(document["manifest"]["workload"]["owner"]["name"], "api");
        assert_eq!(document["manifest"]["workload"]["labels"]["l13"], "\u{1b}v");
        assert_eq!(document["manifest"]["image"]["revision"], "5f3c");
    }

    #[test]
    fn info_shows_an_image_without_digest_by_its_name() {
        let mut manifest = manifest();
        manifest.workload = Some(Workload {
            extra: [("image_name".to_owned(), json!("app:1"))].into(),
            ..Workload::default()
        });
        let text = info_text(&view(&manifest, false), Style::Plain);
        assert!(
            text.contains("image        app:1 (digest unknown)\n"),
            "{text}"
        );
    }
}
