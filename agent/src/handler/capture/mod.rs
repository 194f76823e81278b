//! One capture, from the start of the handler to the sealed entry.
//!
//! What dies first is captured first: handles, the pin on the memory, facts of `/proc`, head of the core,
//! minicore, memory, verdict. A killed process loses its facts of `/proc` within milliseconds; pinned memory
//! remains. Invariants: a step that fails becomes a gap, and the next steps still run. Only without a spool
//! there is no dump. This process never reads memory or files of the crashed process, and its waits are
//! limited. Children do everything that may block, and do not hold the kernel's pipe.

pub(crate) mod copying;
pub(crate) mod facts_job;
pub(crate) mod memory_copy;
pub(crate) mod prepared;
pub(crate) mod sealing;
pub(crate) mod state;

use std::fs::File;
use std::time::Duration;

use cdh_bundle::{CoreEncoding, DumpId, EntryKind, Gap, RawText, SignalFacts, Verdict};
use cdh_elfcore::{CoreError, CoreHead, ForeignCore, Memory};

use super::copy::core_stream::CoreStream;
use super::copy::disk_guard::DiskGuard;
use super::copy::recorder::Recorder;
use super::copy::slots::Slot;
use super::os::isolated;
use super::os::pidfd;
use super::process::cgroups::{self, NodeCgroups};
use super::process::death::{self, Death};
use super::record::account;
use super::record::gap::gap;
use super::record::identity::{add_facts_of_notes, add_head, first_manifest, name_signal};
use super::record::minicore::{MinicoreReport, module_records, take_minicore};
use super::record::plan::{self, Plan};
use super::record::subject::Subject;
use super::record::verdict::StreamEnd;
use super::startup::arguments::HandlerArguments;
use super::startup::log::HandlerLog;
use super::startup::priority;
use super::startup::settings::HandlerSettings;
use crate::outcome::Action;
use crate::owner::Owner;
use crate::spool::{ModuleFilesSender, SpoolError};
use crate::workload::engine;
use copying::{Direct, Hold};
use prepared::Prepared;
use sealing::{LostEntry, begin_entry, nothing, reason_of};
use state::{CORE, Capture, Captured};

/// How long the files of a container engine may take.
const ENGINE: Duration = Duration::from_secs(1);
/// Threads among which the one that crashed is looked for.
const THREADS: usize = 4096;

/// Takes the core from `stream`, and everything around it, into a sealed entry of the spool.
///
/// # Errors
/// When the spool cannot be used, or the entry cannot be sealed. What was written stays for the
/// shipper to salvage.
pub fn capture(
    arguments: &HandlerArguments,
    settings: &HandlerSettings,
    stream: File,
    log: HandlerLog,
) -> Result<Captured, SpoolError> {
    let pidfd = arguments.pidfd.zip(arguments.pid);
    let pidfd = pidfd.and_then(|(number, pid)| pidfd::adopt(number, pid));
    let prepared = Prepared::take(arguments, settings, pidfd, log);
    capture_prepared(arguments, settings, stream, prepared)
}

/// As [`capture`], for a process whose volatile facts were captured already.
pub(crate) fn capture_prepared(
    arguments: &HandlerArguments,
    settings: &HandlerSettings,
    stream: File,
    prepared: Prepared,
) -> Result<Captured, SpoolError> {
    let owner = prepared.cgroup.as_ref().and_then(|cgroup| {
        let node = NodeCgroups::open();
        Owner::of_process(cgroup.as_bytes(), |controllers, path| {
            node.made_by(controllers, path)
        })
    });
    capture_owned(arguments, settings, stream, prepared, owner)
}

/// As [`capture_prepared`], of a process whose owner is known.
pub(crate) fn capture_owned(
    arguments: &HandlerArguments,
    settings: &HandlerSettings,
    stream: File,
    prepared: Prepared,
    owner: Option<Owner>,
) -> Result<Captured, SpoolError> {
    let Prepared {
        process,
        memory,
        mut pin,
        pending_pin,
        cgroup,
        watch,
        pidfd,
        facts,
        privileged,
        mut gaps,
        mut log,
    } = prepared;
    let arguments = &as_privileged(arguments, privileged.as_deref(), &mut log);
    let stream = CoreStream::new(stream, Duration::from_secs(settings.silence_seconds));
    priority::restore();
    if let Some(cgroup) = &settings.limits.cgroup
        && let Err(why) = cgroups::enter(cgroup)
    {
        log.note(&format!("not in the cgroup `{cgroup}`: {why}"));
    }
    let id = DumpId::random();
    let mut manifest = first_manifest(id, arguments, process.as_ref());
    if let Some(node) = &settings.node {
        manifest.node = RawText::from(node.as_str());
    }
    manifest.workload = owner.as_ref().map(Owner::workload);
    let user = plan::user_of(process.as_ref(), arguments.uid);
    let plan = Plan::make(settings, arguments, &manifest, owner.as_ref(), user);
    if plan.action() == Action::Ignore {
        return Ok(nothing(settings, &manifest, &plan, &log));
    }
    let settings = &*plan.settings(settings);
    let begun = begin_entry(settings, &manifest, plan.account());
    let entry = begun.inspect_err(|error| {
        let why = gap("", error).why;
        let record = account::of_nothing(&manifest, reason_of(error), &why);
        account::append(settings, &record);
    })?;
    account::begin(settings, &manifest);
    if let Some(pending) = pending_pin {
        pin = pending
            .finish()
            .inspect(|_| log.note("memory held"))
            .inspect_err(|error| gaps.push(gap("hold on the memory", error)))
            .ok();
    }
    let lost = LostEntry::new(&manifest, settings);
    let mut capture = Capture {
        entry,
        manifest,
        gaps,
        log: &mut log,
        settings,
        process,
        memory,
        pin,
        rearranged: false,
        watch,
        pidfd,
        facts,
        rest: None,
        view: None,
        lacks_foreign_pages: false,
        slot: None,
        plan,
        blocked: None,
    };
    capture.note_gap_of("reserve", |capture| capture.entry.reserve(settings.reserve));
    for problem in &arguments.problems {
        capture.gaps.push(Gap {
            what: "core_pattern".to_owned(),
            why: problem.clone(),
        });
    }
    capture.log.note("entry created");
    let captured = capture.run(stream, cgroup.as_ref(), owner.as_ref());
    lost.tell(&captured);
    captured
}

/// The arguments, with the dumpability that the process really has.
fn as_privileged(
    arguments: &HandlerArguments,
    privileged: Option<&str>,
    log: &mut HandlerLog,
) -> HandlerArguments {
    /// As the kernel says it of setuid programs: for root only.
    const ROOT_ONLY: u32 = 2;
    let mut arguments = arguments.clone();
    if let Some(why) = privileged {
        log.note(&format!("treated as a privileged process: {why}"));
        arguments.dumpable = Some(ROOT_ONLY);
    }
    arguments
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

impl Capture<'_> {
    fn run(
        mut self,
        stream: CoreStream,
        cgroup: Option<&RawText>,
        owner: Option<&Owner>,
    ) -> Result<Captured, SpoolError> {
        let mut recorder = Recorder::new(stream);
        let head = CoreHead::from_reader(&mut recorder);
        let foreign = match &head {
            Err(CoreError::Unsupported { .. }) => {
                let begun = recorder.bytes().to_vec();
                ForeignCore::from_reader(&begun, &mut recorder)
            }
            _ => None,
        };
        let (stream, mut head_bytes) = recorder.into_parts();
        let head_cut = matches!(
            head,
            Err(CoreError::Empty | CoreError::HeadTruncated { .. })
        );
        let (head, mut head_problem) = match head {
            Ok(head) => (Some(head), None),
            Err(error) => {
                self.gaps.push(gap("head of the core", &error));
                (None, Some(error.to_string()))
            }
        };
        if let Some(head) = &head {
            self.find_thread(head);
            add_head(&mut self.manifest, head);
            self.note_gap_of("identity", |this| this.entry.write_identity(&this.manifest));
        } else if let Ok(cut) = CoreHead::from_source(&head_bytes) {
            // A kill cut the notes. Those in front of the cut still hold the signal and the ids.
            self.find_thread(&cut);
            add_facts_of_notes(&mut self.manifest, &cut);
        }
        self.log
            .note(&format!("head of {} bytes", head_bytes.len()));
        let signal = Some(self.manifest.signal.number).filter(|number| *number > 0);
        self.plan.decide(self.settings, &self.manifest, signal);
        if self.plan.action() == Action::Ignore {
            return Ok(self.discard());
        }
        let directory = self.entry.directory();
        let settings = self.settings;
        let guard = directory
            .map(|directory| DiskGuard::new(directory, settings))
            .map_err(|source| SpoolError::Io {
                path: self.entry.path().to_owned(),
                source,
            })?;
        let mut core = match self.plan.action() {
            Action::Full => self.begin_core(&head_bytes, &guard),
            _ => Err(std::io::ErrorKind::Unsupported.into()),
        };
        self.take_mappings();
        if let Some(head) = &head {
            self.minicore(head);
            if self.name_program() {
                self.plan
                    .decide_for_program(self.settings, &self.manifest, signal);
            }
        }
        self.take_rest(cgroup);
        self.add_container(cgroup, owner);
        self.plan.admit(self.manifest.fingerprint.as_deref());
        match self.plan.action() {
            Action::Full => {}
            Action::Ignore => return Ok(self.discard()),
            _ => return self.seal_without_core(stream),
        }
        let mut expected = head.as_ref().map(CoreHead::expected_len);
        if let Some(foreign) = foreign {
            self.manifest.machine = foreign.machine.to_owned();
            expected = Some(foreign.expected_len);
            head_problem = None;
        }
        let mut direct = head.as_ref().and_then(|head| self.direct(head));
        if let (Some(head), Some(direct)) = (&head, &mut direct)
            && let Some(bytes) = self.rearrange(head, direct, &guard)
        {
            expected = Some(direct.end());
            head_bytes = bytes;
            drop(core);
            self.entry.remove_file(&CORE.file_name());
            core = self.begin_core(&head_bytes, &guard);
            self.rearranged = true;
        }
        self.write_facts();
        drop(head);
        let need = direct.as_ref().map(Direct::resident).or(expected);
        if !self.has_room(need.unwrap_or(0), &guard) {
            drop(core);
            return match self.plan.action() {
                Action::Ignore => Ok(self.discard()),
                _ => self.seal_without_core(stream),
            };
        }
        let mut hold = Hold {
            stream: Some(stream),
            pin: self.pin.take(),
            held: None,
        };
        let cgroup = cgroup.map_or(&b""[..], RawText::as_bytes);
        if let Some(direct) = &direct
            && self.may_go_early(direct, &mut hold, cgroup)
        {
            hold.stream = None;
            self.blocked = Some(self.log.elapsed());
            priority::lower();
            self.log.note("process released, its memory is held");
        }
        let patience = Duration::from_secs(settings.slot_seconds);
        let slot = Slot::wait(&settings.spool, settings.slot_count(), patience, || {
            self.loses_memory(&hold)
        });
        self.slot = Some(slot.release_handle());
        if slot.waited > Duration::from_millis(100) {
            let seconds = slot.waited.as_secs_f64();
            self.log
                .note(&format!("waited {seconds:.1} s for other handlers"));
        }
        let copied = self.copy(core, &head_bytes, direct.as_ref(), &mut hold, &guard);
        drop(direct);
        // What could not be stored at all does not count, not even its head.
        let nothing = copied.core.is_none() && copied.encoding == CoreEncoding::ZstdSeekable;
        let head_bytes = if nothing { 0 } else { head_bytes.len() as u64 };
        self.release(&mut hold);
        let expected_all = expected.is_some_and(|all| head_bytes + copied.outcome.plain >= all);
        let death = match (&self.watch, &self.process) {
            (Some(watch), Some(process)) if !expected_all || copied.death != Death::default() => {
                watch.after_release(copied.death.clone(), process)
            }
            _ => Death {
                // If the process was gone before us, no other source has it.
                exit_code: self.pidfd.as_ref().and_then(|pidfd| match expected_all {
                    true => death::exit_code_of(pidfd),
                    false => death::exit_code(pidfd, None),
                }),
                ..copied.death.clone()
            },
        };
        name_signal(&mut self.manifest, &death);
        let end = StreamEnd {
            expected,
            got: head_bytes + copied.outcome.plain,
            write_error: copied.outcome.write_error.as_ref(),
            read_error: copied.outcome.read_error.as_ref(),
            head_problem,
            head_cut,
            death: &death,
        };
        self.manifest.verdict = end.verdict();
        if let (Verdict::Complete, Some(evidence)) = (&self.manifest.verdict, death.evidence()) {
            self.log
                .note(&format!("killed while its core was copied: {evidence}"));
            self.manifest.killed = Some(evidence);
        }
        let got = end.got;
        self.finish_core(copied, got, expected);
        drop(slot);
        self.seal()
    }

    /// Through the socket the kernel passes neither the signal nor the thread: of the core, that is the
    /// first thread.
    fn find_thread(&mut self, head: &CoreHead) {
        if self.manifest.signal.number > 0 {
            return;
        }
        let crashed = head.threads().first().map(|thread| thread.tid);
        let process = self.process.as_ref();
        let found = process.zip(crashed);
        let found = found.and_then(|(process, inner)| process.thread_called(inner, THREADS));
        if let Some(tid) = found {
            self.manifest.process.tid = Some(u64::from(tid));
        }
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
                let original = report.original_signal.as_ref();
                self.manifest.original_signal = original.map(SignalFacts::from);
                self.lacks_foreign_pages = report.lacks_foreign_pages;
                self.gaps.extend(report.gaps);
            }
            Err(error) => {
                self.gaps.push(gap("minicore", error.as_ref()));
                // Without memory there are no build-ids, but still paths and ranges.
                self.manifest.modules = module_records(&head.modules(&NoMemory));
            }
        }
        // From here on a power cut leaves a dump with a backtrace.
        self.note_gap_of("sync", |this| {
            this.entry
                .write_identity(&this.manifest)
                .and_then(|()| this.entry.sync())
        });
        self.log.note("what a backtrace needs is on disk");
    }

    /// Name and image of a container outside of Kubernetes, from the files of its engine. Now, because
    /// with `--rm` they are gone as soon as the process is; and in a child, because a file system that
    /// hangs must not cost the core.
    fn add_container(&mut self, cgroup: Option<&RawText>, owner: Option<&Owner>) {
        let cgroup = cgroup.map_or(&b""[..], RawText::as_bytes);
        let Some(Owner::Container(container)) = owner else {
            return;
        };
        if container.pod_uid.is_some() {
            return;
        }
        let users = engine::users_of(cgroup, self.manifest.process.uid);
        let data = &self.settings.engines;
        match isolated::run(ENGINE, &[], || engine::find(data, &users, container)) {
            Ok(Some(facts)) if !facts.is_of_pod() => {
                facts.add_to(&mut self.manifest);
                self.log.note("container engine's files read");
            }
            // The daemon looks again, and asks the runtimes.
            Ok(_) => {}
            Err(error) => self.gaps.push(gap("container engine's files", &error)),
        }
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
            let gone = "the process is gone";
            let process = self.process.as_ref().ok_or(gone)?;
            let [memory, pagemap] = self.memory.as_ref().ok_or(gone)?;
            let maps = self.view.as_ref().and_then(|view| view.maps.as_ref().ok());
            let [minicore, backtrace] = &kinds;
            let out = match self.plan.action() {
                Action::Metadata => None,
                _ => Some(self.entry.create_file(minicore)?.finish().0),
            };
            let backtrace = match unwinding {
                Unwinding::Wanted => Some(self.entry.create_file(backtrace)?.finish().0),
                Unwinding::Left => None,
            };
            let subject = Subject {
                process,
                memory,
                pagemap,
                maps,
            };
            let shipper = ModuleFilesSender::connect(&self.settings.spool, self.manifest.id);
            Ok(take_minicore(
                head,
                subject,
                out,
                backtrace,
                shipper,
                self.settings,
            )?)
        };
        take().inspect_err(|_| {
            for kind in &kinds {
                self.entry.remove_file(&kind.file_name());
            }
        })
    }

    /// Waits for the mappings, from the child that reads the facts.
    fn take_mappings(&mut self) {
        if let Some(job) = self.facts.take() {
            let (view, rest) = job.mappings();
            self.log.note("mappings read");
            self.view = Some(view);
            self.rest = Some(rest);
        }
    }

    /// Takes over what else that child has found.
    fn take_rest(&mut self, cgroup: Option<&RawText>) {
        if let (Some(rest), Some(view), Some(process)) =
            (self.rest.take(), &mut self.view, &self.process)
        {
            rest.finish(view, process, cgroup.cloned(), &self.settings.policy);
            self.log.note("facts of /proc read");
        }
    }
}
