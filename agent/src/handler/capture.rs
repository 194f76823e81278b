//! One capture, from the start of the handler to the sealed entry.
//!
//! The order is that of what dies first: handles and identity, head of the core, minicore, facts of
//! `/proc`, then the memory, then the verdict. Invariant: a step that fails becomes a gap, and the
//! steps after it are still taken; only without a spool there is no dump.

use std::fs::File;
use std::path::PathBuf;

use cdh_bundle::{CoreEncoding, DumpId, EntryKind, Gap, Manifest, RawText, Verdict};
use cdh_elfcore::{CoreHead, Memory};
use jiff::Timestamp;
use serde::Serialize;

use super::arguments::HandlerArguments;
use super::core_copy::{CopyOutcome, copy_core};
use super::core_file::CoreFile;
use super::core_source::PipeSource;
use super::dump_info::DumpInfo;
use super::identity::{add_head, core_record, first_manifest};
use super::log::{HandlerLog, readable_size};
use super::minicore::{MinicoreReport, module_records, take_minicore};
use super::proc_facts::ProcFacts;
use super::process::ProcessHandles;
use super::recorder::Recorder;
use super::settings::HandlerSettings;
use super::verdict::{StreamEnd, kill_evidence};
use crate::spool::{PartialEntry, SpoolError};

/// How the core is stored.
const CORE: EntryKind = EntryKind::Core(CoreEncoding::ZstdSeekable);

/// A dump that was taken.
#[derive(Debug)]
pub struct Captured {
    /// The sealed entry.
    pub path: PathBuf,
    /// What was taken, and what not.
    pub summary: String,
    /// Whether the core is whole.
    pub verdict: Verdict,
}

/// Takes the core from `stream`, and everything around it, into a sealed entry of the spool.
///
/// # Errors
/// When the spool cannot be used, or the entry cannot be sealed. What was written stays for the
/// shipper to salvage.
pub fn capture(
    arguments: &HandlerArguments,
    settings: &HandlerSettings,
    stream: File,
    mut log: HandlerLog,
) -> Result<Captured, SpoolError> {
    let mut gaps = Vec::new();
    let process = match ProcessHandles::open(arguments.pid, arguments.tid) {
        Ok(process) => Some(process),
        Err(error) => {
            gaps.push(gap("/proc/<pid>", &error));
            None
        }
    };
    // A killed process leaves its cgroup within milliseconds.
    let cgroup = process
        .as_ref()
        .and_then(|process| process.read("cgroup").ok())
        .map(RawText::new);
    let id = DumpId::random();
    let entry = PartialEntry::create(&settings.spool, id)?;
    let manifest = first_manifest(id, arguments, process.as_ref());
    let mut capture = Capture {
        entry,
        manifest,
        gaps,
        log: &mut log,
        settings,
        process,
    };
    capture.note_gap_of("identity", |capture| {
        capture.entry.write_identity(&capture.manifest)
    });
    capture.note_gap_of("reserve", |capture| capture.entry.reserve(settings.reserve));
    for problem in &arguments.problems {
        capture.gaps.push(Gap {
            what: "core_pattern".to_owned(),
            why: problem.clone(),
        });
    }
    capture.log.note("entry created");
    capture.run(stream, cgroup)
}

fn gap(what: &str, error: &dyn std::error::Error) -> Gap {
    let mut why = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        why = format!("{why}: {error}");
        source = error.source();
    }
    Gap {
        what: what.to_owned(),
        why,
    }
}

/// The error as one of the operating system's, whose kind tells a full disk from others.
fn io_error(error: SpoolError) -> std::io::Error {
    let mut source: Option<&dyn std::error::Error> = Some(&error);
    let mut kind = std::io::ErrorKind::Other;
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<std::io::Error>() {
            kind = cause.kind();
        }
        source = cause.source();
    }
    std::io::Error::new(kind, gap("", &error).why)
}

/// The handler's greatest use of memory so far, as the kernel tells it.
fn peak_memory() -> Option<String> {
    let status = std::fs::read("/proc/self/status").ok()?;
    let peak = super::process::status_field(&status, "VmHWM")?;
    Some(RawText::from(peak).to_string())
}

/// No page is known.
struct NoMemory;

impl Memory for NoMemory {
    fn read(&self, _at: cdh_elfcore::Avma, _buf: &mut [u8]) -> usize {
        0
    }
}

/// Whether the stacks are unwound.
#[derive(Clone, Copy)]
enum Unwinding {
    Wanted,
    Left,
}

struct Capture<'a> {
    entry: PartialEntry,
    manifest: Manifest,
    gaps: Vec<Gap>,
    log: &'a mut HandlerLog,
    settings: &'a HandlerSettings,
    process: Option<ProcessHandles>,
}

impl Capture<'_> {
    fn run(mut self, stream: File, cgroup: Option<RawText>) -> Result<Captured, SpoolError> {
        let mut recorder = Recorder::new(stream);
        let head = CoreHead::from_reader(&mut recorder);
        let (stream, head_bytes) = recorder.into_parts();
        let (head, head_problem) = match head {
            Ok(head) => (Some(head), None),
            Err(error) => {
                self.gaps.push(gap("head of the core", &error));
                (None, Some(error.to_string()))
            }
        };
        if let Some(head) = &head {
            add_head(&mut self.manifest, head);
            self.note_gap_of("identity", |this| this.entry.write_identity(&this.manifest));
        }
        self.log
            .note(&format!("head of {} bytes", head_bytes.len()));
        let core = self.begin_core(&head_bytes);
        if let Some(head) = &head {
            self.minicore(head);
        }
        self.proc_facts(cgroup);
        let expected = head.as_ref().map(CoreHead::expected_len);
        drop(head);
        let mut source = PipeSource::new(stream);
        let (core, outcome) = self.copy(core, head_bytes, &mut source);
        let killed = self.process.as_ref().and_then(kill_evidence);
        // The kernel holds the process for as long as somebody can read the pipe. Nothing of it is
        // needed any more, so it does not have to wait for the disk.
        drop(source);
        let end = StreamEnd {
            expected,
            got: outcome.plain,
            write_error: outcome.write_error.as_ref(),
            read_error: outcome.read_error.as_ref(),
            head_problem,
            killed,
        };
        self.manifest.verdict = end.verdict();
        self.finish_core(core, &outcome, expected);
        self.seal()
    }

    fn note_gap_of<E: std::error::Error>(
        &mut self,
        what: &str,
        step: impl FnOnce(&mut Self) -> Result<(), E>,
    ) {
        if let Err(error) = step(self) {
            self.gaps.push(gap(what, &error));
        }
    }

    /// Creates the core's file and puts the head into it, before anything takes time.
    fn begin_core(&mut self, head: &[u8]) -> Result<CoreFile, std::io::Error> {
        let file = self.entry.create_file(&CORE).map_err(io_error)?;
        let mut core = CoreFile::new(file.finish().0, self.settings.level)?;
        core.append_now(head).map(|()| core)
    }

    /// Minicore and raw backtrace. Unwinding reads files that others may cut at any moment, which
    /// kills the child that does it: then the minicore is taken again without.
    fn minicore(&mut self, head: &CoreHead) {
        let taken = self
            .take_minicore(head, Unwinding::Wanted)
            .or_else(|error| {
                self.gaps.push(gap("backtrace", error.as_ref()));
                self.take_minicore(head, Unwinding::Left)
            });
        match taken {
            Ok(report) => {
                if report.written.is_none() {
                    self.entry.remove_file(&EntryKind::Minicore.file_name());
                }
                if !report.has_backtrace {
                    self.entry.remove_file(&EntryKind::Backtrace.file_name());
                }
                let bytes = report.written.unwrap_or(0);
                self.log.note(&format!("minicore of {bytes} bytes"));
                self.manifest.modules = report.modules;
                self.manifest.fingerprint = report.fingerprint;
                self.gaps.extend(report.gaps);
            }
            Err(error) => {
                self.gaps.push(gap("minicore", error.as_ref()));
                // Without memory there are no build-ids, but still paths and ranges.
                self.manifest.modules = module_records(&head.modules(&NoMemory));
            }
        }
        // From here on a power cut leaves a dump of which a backtrace can be had.
        self.note_gap_of("sync", |this| {
            this.entry
                .write_identity(&this.manifest)
                .and_then(|()| this.entry.sync())
        });
    }

    fn take_minicore(
        &mut self,
        head: &CoreHead,
        unwinding: Unwinding,
    ) -> Result<MinicoreReport, Box<dyn std::error::Error>> {
        let kinds = [EntryKind::Minicore, EntryKind::Backtrace];
        for kind in &kinds {
            self.entry.remove_file(&kind.file_name());
        }
        let take = || -> Result<_, Box<dyn std::error::Error>> {
            let process = self.process.as_ref().ok_or("the process is gone")?;
            let [minicore, backtrace] = &kinds;
            let out = self.entry.create_file(minicore)?.finish().0;
            let backtrace = match unwinding {
                Unwinding::Wanted => Some(self.entry.create_file(backtrace)?.finish().0),
                Unwinding::Left => None,
            };
            Ok(take_minicore(head, process, out, backtrace, self.settings)?)
        };
        take().inspect_err(|_| {
            for kind in &kinds {
                self.entry.remove_file(&kind.file_name());
            }
        })
    }

    fn proc_facts(&mut self, cgroup: Option<RawText>) {
        let Some(process) = &self.process else { return };
        let (facts, gaps) = ProcFacts::read(process, cgroup);
        self.gaps.extend(gaps);
        self.manifest.process.arguments.clone_from(&facts.arguments);
        self.manifest.process.exe.clone_from(&facts.exe);
        self.write_json(EntryKind::Proc, "proc.json", &facts);
        self.note_gap_of("identity", |this| this.entry.write_identity(&this.manifest));
        self.log.note("facts of /proc read");
    }

    fn write_json(&mut self, kind: EntryKind, what: &str, value: &impl Serialize) {
        self.note_gap_of(what, |this| {
            let bytes = serde_json::to_vec_pretty(value).map_err(std::io::Error::other)?;
            this.entry.write_file(&kind, &bytes).map_err(io_error)
        });
    }

    fn copy(
        &mut self,
        core: Result<CoreFile, std::io::Error>,
        head: Vec<u8>,
        source: &mut PipeSource,
    ) -> (Option<CoreFile>, CopyOutcome) {
        let mut core = match core {
            Ok(core) => core,
            Err(error) => return (None, CopyOutcome::nothing(error)),
        };
        let threads = self.settings.compressor_threads();
        let outcome = copy_core(head, source, &mut core, self.settings.level, threads);
        self.log
            .note(&format!("core of {} copied", readable_size(outcome.plain)));
        (Some(core), outcome)
    }

    fn finish_core(
        &mut self,
        core: Option<CoreFile>,
        outcome: &CopyOutcome,
        expected: Option<u64>,
    ) {
        for error in [&outcome.write_error, &outcome.read_error]
            .into_iter()
            .flatten()
        {
            self.gaps.push(gap("core", error));
        }
        self.entry.release_reserve();
        self.manifest.core = None;
        let stored = match core.filter(|_| outcome.plain > 0).map(CoreFile::finish) {
            Some(Ok(digests)) => digests,
            Some(Err(error)) => {
                // The frames are there; the shipper's salvage cannot do better than a gap here.
                self.gaps.push(gap("core", &error));
                self.entry.remove_file(&CORE.file_name());
                self.manifest.verdict = Verdict::Empty {
                    cause: cdh_bundle::Cause::NoSpace,
                    evidence: Some(error.to_string()),
                };
                return;
            }
            None => return self.entry.remove_file(&CORE.file_name()),
        };
        let expected = expected.unwrap_or(outcome.plain);
        let mut record = core_record(&self.manifest.stem, outcome.plain, expected);
        record.sha256 = outcome.sha256;
        self.manifest.core = Some(record);
        self.entry.record(&CORE, stored);
        self.log
            .note(&format!("core stored in {}", readable_size(stored.size)));
    }

    fn seal(mut self) -> Result<Captured, SpoolError> {
        let core = CORE.bundle_name(&self.manifest.stem);
        let info = DumpInfo::new(&self.manifest, &core);
        self.write_json(EntryKind::DumpInfo, "dump-info.json", &info);
        let verdict = self.manifest.verdict.clone();
        self.log.note(&verdict.describe());
        if let Some(peak) = peak_memory() {
            self.log
                .note(&format!("peak memory of the handler: {peak}"));
        }
        for gap in &self.gaps {
            self.log
                .note(&format!("missing: {}: {}", gap.what, gap.why));
        }
        let text = self.log.text().to_owned();
        self.note_gap_of("log", |this| {
            this.entry
                .write_file(&EntryKind::HandlerLog, text.as_bytes())
        });
        self.manifest.gaps = self.gaps;
        self.manifest.finished_at = Some(Timestamp::now());
        let summary = summary(&self.manifest, self.log.elapsed());
        let path = self.entry.seal(self.manifest)?;
        Ok(Captured {
            path,
            summary,
            verdict,
        })
    }
}

/// One line for the kernel log.
fn summary(manifest: &Manifest, elapsed: std::time::Duration) -> String {
    let process = &manifest.process;
    format!(
        "dump {} of {} (pid {}, {}): {} in {:.3} s, {} gaps",
        manifest.id,
        process.name,
        process.pid,
        manifest.signal.name,
        manifest.verdict.describe(),
        elapsed.as_secs_f64(),
        manifest.gaps.len(),
    )
}
