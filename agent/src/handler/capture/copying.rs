//! The copy of the core, from the memory or from the pipe, and how long the process has to wait for it.
//!
//! Invariants: the process is let go as soon as nothing of it is needed any more, and before anything
//! is compressed that could be compressed later. A copy from memory that differs from what the kernel would
//! write is discarded. It is made again from the pipe while the pipe exists.
//! Memory is read by a child, which is given up when a read does not return; the pipe is read here, with
//! patience that ends. Pages that only a file server has come from the pipe where the kernel gets them.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use cdh_bundle::{CoreEncoding, EntryKind, Gap};
use cdh_elfcore::{CoreHead, FileSource};

use super::memory_copy::{CopyReport, MemoryJob, MissingPages, pack};
use super::state::{CORE, Capture};
use crate::handler::copy::core_copy::{
    CopyOutcome, HASTY_LEVEL, LEVEL, copy_at_offsets, copy_frames,
};
use crate::handler::copy::core_file::{CoreFile, FinishedFile};
use crate::handler::copy::core_source::{CoreSource, PipeSource, Until};
use crate::handler::copy::core_stream::{BRIEF_PATIENCE, CoreStream};
use crate::handler::copy::direct_io::Writing;
use crate::handler::copy::disk_guard::DiskGuard;
use crate::handler::copy::plain_file::{PROGRESS, PlainFile};
use crate::handler::copy::self_check::{Comparison, compare, plain};
use crate::handler::copy::supervised::{self, SentError, Supervised, SupervisedError};
use crate::handler::memory::held_memory::HeldMemory;
use crate::handler::memory::importance::by_importance;
use crate::handler::memory::layout::Layout;
use crate::handler::memory::pin::MemoryPin;
use crate::handler::memory::process_memory::MemoryParts;
use crate::handler::os::proc_status::kib;
use crate::handler::process::death::{Death, DeathWatch};
use crate::handler::process::handles::ProcessHandles;
use crate::handler::process::memory_headroom::{MemoryHeadroom, headroom_for};
use crate::handler::record::gap::{gap, io_error};
use crate::handler::startup::log::readable_size;
use crate::handler::startup::priority;
use crate::handler::startup::settings::{Release, Source, Strategy};
use crate::spool::salvage_core;

/// The core as it is.
const PLAIN: EntryKind = EntryKind::Core(CoreEncoding::None);
/// Resident bytes from which on it matters that writing is quicker than compressing.
const LARGE: u64 = 64 << 20;
/// Bytes per second that a worker compresses, about: a disk that is slower holds the process up.
const COMPRESSED_EACH: u64 = 250 << 20;

/// What keeps the process, or its memory.
pub(crate) struct Hold {
    /// The process waits for as long as this is open.
    pub stream: Option<CoreStream>,
    /// The memory stays for as long as this is there.
    pub pin: Option<MemoryPin>,
    /// Shows other handlers how much of the node's memory this one holds.
    pub held: Option<HeldMemory>,
}

/// A core that can be read from memory, by a child.
pub(crate) struct Direct {
    layout: Layout,
    parts: MemoryParts,
    /// Bytes that the process really has.
    resident: u64,
}

impl Direct {
    /// Bytes that the process really has.
    #[must_use]
    pub(crate) fn resident(&self) -> u64 {
        self.resident
    }

    /// Bytes of the whole core.
    #[must_use]
    pub(crate) fn end(&self) -> u64 {
        self.layout.end
    }
}

/// A file of frames that holds a core.
pub(crate) enum StoredCore<'g> {
    /// It was written here, and lacks its seek table.
    Here(Box<CoreFile<'g>>),
    /// A child wrote it, and adds the seek table when it may go on.
    InChild(Supervised),
    /// It is on disk.
    Finished(FinishedFile),
}

impl StoredCore<'_> {
    /// Adds the seek table and syncs the file.
    ///
    /// # Errors
    /// When the table cannot be stored.
    pub(crate) fn finish(self) -> io::Result<FinishedFile> {
        match self {
            Self::Here(core) => core.finish(),
            Self::InChild(mut child) => {
                child.go_on()?;
                let finished: Result<FinishedFile, SentError> =
                    child.next(None).map_err(io::Error::other)?;
                finished.map_err(io::Error::from)
            }
            Self::Finished(file) => Ok(file),
        }
    }
}

/// A copy that was made.
pub(crate) struct Copied<'g> {
    /// The file of frames, where it holds the core.
    pub core: Option<StoredCore<'g>>,
    /// How the core is stored.
    pub encoding: CoreEncoding,
    /// How it went.
    pub outcome: CopyOutcome,
    /// What happened to the process during the copy.
    pub death: Death,
}

impl<'g> Copied<'g> {
    fn frames(core: StoredCore<'g>, outcome: CopyOutcome) -> Self {
        Self {
            core: Some(core),
            encoding: CoreEncoding::ZstdSeekable,
            outcome,
            death: Death::default(),
        }
    }

    fn nothing(outcome: CopyOutcome) -> Self {
        Self {
            core: None,
            encoding: CoreEncoding::ZstdSeekable,
            outcome,
            death: Death::default(),
        }
    }
}

impl Capture<'_> {
    /// Whether the memory itself can be read; if not, the log says why.
    pub(crate) fn direct(&mut self, head: &CoreHead) -> Option<Direct> {
        if self.settings.source == Source::Pipe {
            return None;
        }
        let memory = self.memory.take();
        let open = || -> Result<Direct, String> {
            let layout = Layout::of(head)?;
            let [memory, pagemap] = memory.ok_or("its memory cannot be opened")?;
            let view = self.view.as_mut().ok_or("its mappings are not known")?;
            if view.uses_userfaultfd {
                return Err("the process uses userfaultfd".to_owned());
            }
            let nothing = || Err("its mappings are not known".to_owned());
            let status = self.process.as_ref().map(ProcessHandles::status);
            let bytes = |field| kib(status.unwrap_or_default(), field).unwrap_or(0) * 1024;
            let resident = bytes("VmRSS").saturating_add(bytes("VmSwap"));
            Ok(Direct {
                resident: resident.min(layout.memory_bytes()),
                layout,
                parts: MemoryParts {
                    memory,
                    high: File::open("/proc/self/mem").map_err(|error| error.to_string())?,
                    pagemap,
                    maps: std::mem::replace(&mut view.maps, nothing())?,
                    shared: std::mem::take(&mut view.shared),
                    exit: self.process.as_ref().and_then(ProcessHandles::exit_watch),
                },
            })
        };
        open()
            .inspect_err(|why| {
                self.log
                    .note(&format!("the core is read from the pipe: {why}"));
            })
            .ok()
    }

    /// Whether the process may go before its memory is copied.
    pub(crate) fn may_go_early(&mut self, direct: &Direct, hold: &mut Hold, cgroup: &[u8]) -> bool {
        let policy = self.settings.release;
        // What only the kernel can read, it can read only while the process is there.
        let is_held = policy == Release::Hold || self.settings.self_check;
        if is_held || hold.pin.is_none() || self.lacks_foreign_pages {
            return false;
        }
        let id = self.entry.id().to_string();
        let held = HeldMemory::note(&self.settings.spool, &id, direct.resident);
        let (held, others) = held.map_or((None, 0), |(held, others)| (Some(held), others));
        let room = headroom_for(direct.resident, others, Some(cgroup));
        let may = match room {
            MemoryHeadroom::Enough => true,
            MemoryHeadroom::Unknown => policy == Release::Early,
            MemoryHeadroom::Missing(_) => false,
        };
        if let MemoryHeadroom::Missing(bytes) = room {
            let bytes = readable_size(bytes);
            self.log.note(&format!(
                "the process is held: {bytes} are missing for its memory and a new one's"
            ));
        }
        hold.held = held.filter(|_| may);
        may
    }

    /// A head that puts first what matters most, where the core may not fit into the room that there
    /// is, so that what is cut off is what matters least. What is never cut is byte for byte what the
    /// kernel writes, and so is what fits as it is.
    pub(crate) fn rearrange(
        &mut self,
        head: &CoreHead,
        direct: &mut Direct,
        guard: &DiskGuard,
    ) -> Option<Vec<u8>> {
        let room = guard.room();
        if room >= direct.resident.saturating_add(direct.resident / 16) {
            return None;
        }
        let minicore = self
            .entry
            .open_file(&EntryKind::Minicore.file_name())
            .ok()
            .flatten()
            .and_then(|file| CoreHead::from_source(&FileSource::new(file).ok()?).ok());
        let rearranged = head
            .rearranged(&by_importance(head, minicore.as_ref()))
            .inspect_err(|error| self.log.note(&format!("the order stays: {error}")))
            .ok()?;
        direct.layout = Layout::of_rearranged(&rearranged);
        let (size, room) = (readable_size(direct.resident), readable_size(room));
        self.log.note(&format!(
            "what matters most comes first: {size} of memory, room for {room}"
        ));
        Some(rearranged.bytes)
    }

    /// Copies the core and lets the process go.
    pub(crate) fn copy<'g>(
        &mut self,
        core: io::Result<CoreFile<'g>>,
        head: &[u8],
        direct: Option<&Direct>,
        hold: &mut Hold,
        guard: &'g DiskGuard,
    ) -> Copied<'g> {
        let core = match core {
            Ok(core) => core,
            Err(error) => return self.copied_nothing(error, hold),
        };
        if let Some(stream) = &mut hold.stream {
            let patience = Duration::from_secs(self.settings.silence_seconds);
            stream.wait_for(patience, self.slot.clone());
        }
        let Some(direct) = direct else {
            return self.copy_stream(core, head, hold);
        };
        let core = match self.lacks_foreign_pages && !self.rearranged {
            true => match self.copy_stream_first(core, head, direct, hold) {
                Ok(copied) => return copied,
                Err(()) => match self.begin_core(head, guard) {
                    Ok(core) => core,
                    Err(error) => return self.copied_nothing(error, hold),
                },
            },
            false => core,
        };
        let mut core = Some(core);
        if self.writes_plain(direct, hold, guard)
            && let Some(copied) = self.copy_plain(&mut core, head, direct, hold, guard)
        {
            return copied;
        }
        match core {
            Some(core) => self.copy_memory(core, head, direct, hold, guard),
            None => self.copied_nothing(io::ErrorKind::NotFound.into(), hold),
        }
    }

    fn copied_nothing<'g>(&mut self, error: io::Error, hold: &mut Hold) -> Copied<'g> {
        self.release(hold);
        Copied::nothing(CopyOutcome {
            write_error: Some(error),
            ..CopyOutcome::default()
        })
    }

    /// Has a child read the memory and compress it at once.
    fn copy_memory<'g>(
        &mut self,
        core: CoreFile<'g>,
        head: &[u8],
        direct: &Direct,
        hold: &mut Hold,
        guard: &'g DiskGuard,
    ) -> Copied<'g> {
        let mut core = Some(core);
        let in_haste = self.in_haste(direct, hold, guard);
        let chosen = if in_haste { HASTY_LEVEL } else { LEVEL };
        let level = self.settings.level.unwrap_or(chosen);
        let workers = self.settings.worker_threads();
        let speed = COMPRESSED_EACH * workers as u64;
        let mut keep = self.descriptors(direct, guard);
        keep.extend(core.iter().map(|core| core.descriptor().as_raw_fd()));
        let job = self.memory_job(direct, hold);
        let begun = supervised::start(&keep, |reporter| {
            let mut core = core.take().ok_or(io::ErrorKind::NotFound)?;
            if in_haste {
                core.write_so(Writing::of(direct.resident, speed));
            }
            let copy = |source: &dyn CoreSource| copy_frames(source, &mut core, level, workers);
            if job.run(reporter, copy)? {
                reporter.wait()?;
                // The process has gone; the node has other work.
                priority::lower();
                let finished = core.finish();
                reporter.tell(&finished.map_err(|error| SentError::from(&error)))?;
            }
            Ok(())
        });
        let (child, report) = match self.first_report(begun) {
            Ok(reported) => reported,
            Err(error) => return self.copied_in_part(head, core, error, hold),
        };
        let (outcome, missing) = match report {
            CopyReport::Refused(why) => {
                self.log
                    .note(&format!("the core is read from the pipe: {why}"));
                return match core {
                    Some(core) => self.copy_stream(core, head, hold),
                    None => self.copied_nothing(io::ErrorKind::NotFound.into(), hold),
                };
            }
            CopyReport::Copied(copied) => copied.into_parts(),
        };
        drop(core);
        if self.must_be_streamed(&missing, &outcome, hold) {
            drop(child);
            return self.stream_anew(head, outcome, hold, guard);
        }
        self.note_copied(head, &outcome, "memory");
        self.note_rescued(&missing);
        let death = self.end_of_copy(head, &CORE, hold);
        Copied {
            death,
            ..Copied::frames(StoredCore::InChild(child), outcome)
        }
    }

    /// Waits until the child needs nothing of the process any more.
    fn first_report(
        &mut self,
        begun: io::Result<Supervised>,
    ) -> Result<(Supervised, CopyReport), SupervisedError> {
        let mut child = begun.map_err(|source| SupervisedError::Failed { source })?;
        let report = child.next(self.slot.as_ref())?;
        Ok((child, report))
    }

    /// What a child has written that was given up, or died.
    fn copied_in_part<'g>(
        &mut self,
        head: &[u8],
        core: Option<CoreFile<'g>>,
        error: SupervisedError,
        hold: &mut Hold,
    ) -> Copied<'g> {
        let kind = match error {
            SupervisedError::Stuck => io::ErrorKind::TimedOut,
            SupervisedError::Failed { .. } => io::ErrorKind::Other,
        };
        let why = gap("", &error).why;
        self.log.note(&format!("the copy was given up: {why}"));
        drop(core);
        let file = self.entry.open_file(&CORE.file_name());
        let salvaged = file.map_err(io_error).and_then(|file| match file {
            Some(file) => salvage_core(file),
            None => Ok(None),
        });
        let death = self.last_look();
        self.release(hold);
        let mut outcome = CopyOutcome {
            read_error: Some(io::Error::new(kind, why)),
            ..CopyOutcome::default()
        };
        match salvaged {
            Ok(Some(core)) => {
                outcome.plain = core.plain.saturating_sub(head.len() as u64);
                let finished = FinishedFile {
                    size: core.stored.size,
                    digests: Some(core.stored),
                };
                Copied {
                    death,
                    ..Copied::frames(StoredCore::Finished(finished), outcome)
                }
            }
            Ok(None) => Copied::nothing(outcome),
            Err(error) => Copied::nothing(CopyOutcome {
                write_error: Some(error),
                ..outcome
            }),
        }
    }

    /// Throws away what was copied, and copies from the pipe.
    fn stream_anew<'g>(
        &mut self,
        head: &[u8],
        outcome: CopyOutcome,
        hold: &mut Hold,
        guard: &'g DiskGuard,
    ) -> Copied<'g> {
        self.entry.remove_file(&CORE.file_name());
        match self.begin_core(head, guard) {
            Ok(core) => self.copy_stream(core, head, hold),
            Err(error) => {
                self.release(hold);
                self.gaps.push(gap("core", &error));
                Copied::nothing(outcome)
            }
        }
    }

    fn copy_stream<'g>(
        &mut self,
        mut core: CoreFile<'g>,
        head: &[u8],
        hold: &mut Hold,
    ) -> Copied<'g> {
        let outcome = self.read_stream(&mut core, head, hold);
        let death = self.last_look();
        self.release(hold);
        Copied {
            death,
            ..Copied::frames(StoredCore::Here(Box::new(core)), outcome)
        }
    }

    /// Copies from the pipe what only the kernel can read, as long as it writes.
    ///
    /// # Errors
    /// When it does not write everything; nothing of the core is stored then.
    fn copy_stream_first<'g>(
        &mut self,
        mut core: CoreFile<'g>,
        head: &[u8],
        direct: &Direct,
        hold: &mut Hold,
    ) -> Result<Copied<'g>, ()> {
        let kinds = self.view.as_ref().map_or("", |view| view.foreign.as_str());
        let note = format!("the core is read from the pipe: it has files on {kinds}");
        self.log.note(&note);
        if let Some(stream) = &mut hold.stream {
            let patience = Duration::from_secs(self.settings.silence_seconds);
            stream.wait_for(patience.min(BRIEF_PATIENCE), self.slot.clone());
        }
        let outcome = self.read_stream(&mut core, head, hold);
        let all = head.len() as u64 + outcome.plain >= direct.end();
        if all || outcome.write_error.is_some() {
            let death = self.last_look();
            self.release(hold);
            return Ok(Copied {
                death,
                ..Copied::frames(StoredCore::Here(Box::new(core)), outcome)
            });
        }
        let why = outcome.read_error.as_ref();
        let why = why.map_or_else(|| "it ended too soon".to_owned(), ToString::to_string);
        self.log
            .note(&format!("the core is read from memory after all: {why}"));
        drop(core);
        self.entry.remove_file(&CORE.file_name());
        Err(())
    }

    /// Copies from the pipe, which stays where it is.
    fn read_stream(
        &mut self,
        core: &mut CoreFile<'_>,
        head: &[u8],
        hold: &mut Hold,
    ) -> CopyOutcome {
        let Some(stream) = hold.stream.take() else {
            return CopyOutcome {
                read_error: Some(io::Error::other("the pipe was closed before")),
                ..CopyOutcome::default()
            };
        };
        let pipe = PipeSource::new(stream, head.len() as u64);
        let source = Until::new(&pipe, self.patience());
        let level = self.settings.level.unwrap_or(LEVEL);
        let workers = self.settings.worker_threads();
        let outcome = copy_frames(&source, core, level, workers);
        self.note_copied(head, &outcome, "the pipe");
        hold.stream = Some(pipe.into_stream());
        outcome
    }

    /// Has a child write the core as it is, and compress it when the process has gone. `None` when that
    /// does not work out, and nothing of it is left then.
    fn copy_plain<'g>(
        &mut self,
        core: &mut Option<CoreFile<'g>>,
        head: &[u8],
        direct: &Direct,
        hold: &mut Hold,
        guard: &'g DiskGuard,
    ) -> Option<Copied<'g>> {
        let workers = self.settings.worker_threads();
        let create = || -> io::Result<PlainFile<'_>> {
            let file = self.entry.create_file(&PLAIN).map_err(io_error)?.finish().0;
            let progress = self.entry.create_beside(PROGRESS).map_err(io_error)?;
            let slowest = match self.settings.strategy {
                Strategy::Auto => COMPRESSED_EACH * workers as u64,
                _ => 0,
            };
            let writing = Writing::of(direct.resident, slowest);
            PlainFile::begin(file, progress, head, guard, writing)
        };
        let mut plain = match create() {
            Ok(plain) => Some(plain),
            Err(error) => {
                self.leave_plain(&error.to_string());
                return None;
            }
        };
        let mut keep = self.descriptors(direct, guard);
        keep.extend(core.iter().map(|core| core.descriptor().as_raw_fd()));
        keep.extend(plain.iter().flat_map(PlainFile::descriptors));
        let chosen = self.settings.level;
        let job = self.memory_job(direct, hold);
        let begun = supervised::start(&keep, |reporter| {
            let (plain, core) = (plain.take(), core.take());
            let (plain, core) = plain.zip(core).ok_or(io::ErrorKind::NotFound)?;
            let mut written = None;
            let copied = job.run(reporter, |source| {
                let mut outcome = copy_at_offsets(source, &plain, workers);
                if outcome.write_error.is_none() {
                    match plain.finish(outcome.plain) {
                        Ok(core) => written = Some((core, outcome.plain)),
                        Err(error) => outcome.write_error = Some(error),
                    }
                }
                outcome
            })?;
            if let Some((written, length)) = written.filter(|_| copied) {
                reporter.wait()?;
                // The process has gone; the node has other work.
                priority::lower();
                reporter.tell(&pack(core, &written, length, chosen, workers))?;
            }
            Ok(())
        });
        drop(plain);
        let (mut child, report) = match self.first_report(begun) {
            Ok(reported) => reported,
            Err(error) => return self.plain_in_part(head, error, hold),
        };
        let (outcome, missing) = match report {
            CopyReport::Refused(why) => {
                self.leave_plain(&why);
                return None;
            }
            CopyReport::Copied(copied) => copied.into_parts(),
        };
        if let Some(error) = &outcome.write_error {
            // Compressed, it may fit.
            self.leave_plain(&error.to_string());
            return None;
        }
        self.note_copied(head, &outcome, "memory, uncompressed");
        self.note_rescued(&missing);
        if self.must_be_streamed(&missing, &outcome, hold) {
            drop(child);
            self.forget_plain();
            return Some(self.copy_stream(core.take()?, head, hold));
        }
        let death = self.end_of_copy(head, &PLAIN, hold);
        *core = None;
        let packed = child.go_on().map_err(|error| error.to_string());
        let packed = packed.and_then(|()| {
            let packed: Result<Result<FinishedFile, String>, _> = child.next(None);
            packed.map_err(|error| gap("", &error).why)?
        });
        Some(match packed {
            Ok(file) => {
                self.forget_plain();
                Copied {
                    death,
                    ..Copied::frames(StoredCore::Finished(file), outcome)
                }
            }
            Err(why) => {
                // It does not fit a second time, not even compressed: it stays as it is.
                self.log
                    .note(&format!("the core stays uncompressed: {why}"));
                drop(child);
                self.entry.remove_file(&CORE.file_name());
                self.entry.remove_file(PROGRESS);
                if let Ok(Some(file)) = self.entry.open_file(&PLAIN.file_name()) {
                    let _ = file.sync_all();
                }
                Copied {
                    encoding: CoreEncoding::None,
                    death,
                    ..Copied::nothing(outcome)
                }
            }
        })
    }

    /// What a child has written uncompressed that was given up, or died; `None` when it is compressed at
    /// once instead.
    fn plain_in_part<'g>(
        &mut self,
        head: &[u8],
        error: SupervisedError,
        hold: &mut Hold,
    ) -> Option<Copied<'g>> {
        let why = gap("", &error).why;
        if !matches!(error, SupervisedError::Stuck) {
            self.leave_plain(&why);
            return None;
        }
        self.log.note(&format!("the copy was given up: {why}"));
        let told = self.entry.open_file(PROGRESS).ok().flatten();
        let told = told.and_then(|file| std::io::read_to_string(file).ok());
        let length: u64 = told.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let file = self.entry.open_file(&PLAIN.file_name()).ok().flatten();
        let cut = file.map(|file| file.set_len(length).and_then(|()| file.sync_all()));
        self.entry.remove_file(&CORE.file_name());
        self.entry.remove_file(PROGRESS);
        let death = self.last_look();
        self.release(hold);
        Some(Copied {
            encoding: CoreEncoding::None,
            death,
            ..Copied::nothing(CopyOutcome {
                plain: length.saturating_sub(head.len() as u64),
                read_error: Some(io::Error::new(io::ErrorKind::TimedOut, why)),
                write_error: cut.and_then(Result::err),
            })
        })
    }

    fn leave_plain(&mut self, why: &str) {
        self.log
            .note(&format!("the core is compressed at once: {why}"));
        self.forget_plain();
    }

    /// Numbers of the descriptors that a child needs that reads the memory.
    fn descriptors(&self, direct: &Direct, guard: &DiskGuard) -> Vec<RawFd> {
        let watch = self.watch.as_ref().and_then(DeathWatch::descriptor);
        let parts = direct.parts.descriptors();
        let all = parts.iter().chain(watch.as_ref());
        all.map(AsRawFd::as_raw_fd)
            .chain([guard.descriptor().as_raw_fd()])
            .collect()
    }

    /// What a child has to know that reads the memory of a process. One that waits is watched: what the
    /// OOM killer ends loses its memory soon.
    fn memory_job<'j>(&'j self, direct: &'j Direct, hold: &Hold) -> MemoryJob<'j> {
        let waits = hold.stream.is_some() && hold.pin.is_some() && direct.resident >= LARGE;
        MemoryJob {
            layout: &direct.layout,
            parts: &direct.parts,
            is_watched: waits,
            watch: self.watch.as_ref(),
            patience: self.patience(),
            workers: self.settings.worker_threads(),
        }
    }

    /// Whether the OOM killer has ended a process that waits: what is held of it is soon gone.
    pub(crate) fn loses_memory(&self, hold: &Hold) -> bool {
        let process = self.process.as_ref().filter(|_| hold.stream.is_some());
        process.and_then(ProcessHandles::has_exited) == Some(true)
            && self
                .watch
                .as_ref()
                .is_some_and(DeathWatch::is_out_of_memory)
    }

    fn note_rescued(&mut self, missing: &MissingPages) {
        let (pinned, read) = (missing.pinned, missing.rescued);
        if pinned.max(read) > 0 {
            let [pinned, read] = [pinned, read].map(readable_size);
            self.log.note(&format!(
                "the OOM killer struck in its cgroup: {pinned} of the process were pinned, {read} were read at once"
            ));
        }
    }

    fn forget_plain(&mut self) {
        self.entry.remove_file(&PLAIN.file_name());
        self.entry.remove_file(PROGRESS);
    }

    /// Whether what was read from memory is not what the kernel would write, and can still be had.
    fn must_be_streamed(
        &mut self,
        missing: &MissingPages,
        outcome: &CopyOutcome,
        hold: &Hold,
    ) -> bool {
        let lost = missing.lost;
        if let Some((pages, first)) = missing.unreached {
            let kinds = self.view.as_ref().map_or("", |view| view.foreign.as_str());
            self.gaps.push(Gap {
                what: "core".to_owned(),
                why: format!(
                    "{pages} pages of files on {kinds} from {first:#x} on were not in memory; they are \
                     zero in it"
                ),
            });
        }
        let why = match (&lost, &outcome.read_error) {
            (Some((pages, first)), _) => {
                format!("{pages} pages from {first:#x} on cannot be read")
            }
            (None, Some(error)) if stands(error) => return false,
            (None, Some(error)) => error.to_string(),
            (None, None) => return false,
        };
        let alive = self
            .process
            .as_ref()
            .and_then(|process| process.has_exited())
            == Some(false);
        let can = hold.stream.is_some()
            && alive
            && outcome.write_error.is_none()
            && !outcome.read_error.as_ref().is_some_and(stands)
            && !self.rearranged;
        if can {
            let note = format!("the core is read from the pipe after all: {why}");
            self.log.note(&note);
        } else if lost.is_some() {
            self.gaps.push(Gap {
                what: "core".to_owned(),
                why: format!("{why}; they are zero in it"),
            });
        }
        can
    }

    /// Everything that needs the process is done: looks at it a last time and lets it go.
    fn end_of_copy(&mut self, head: &[u8], stored: &EntryKind, hold: &mut Hold) -> Death {
        if let Some(stream) = hold
            .stream
            .as_mut()
            .filter(|_| self.settings.self_check && !self.rearranged)
        {
            let compressed = *stored == CORE;
            let compared = self
                .entry
                .open_file(&stored.file_name())
                .map_err(io_error)
                .and_then(|file| file.ok_or_else(|| io::ErrorKind::NotFound.into()))
                .and_then(|file| plain(file, compressed))
                .and_then(|mut ours| compare(&mut ours, head.len() as u64, stream));
            let line = match compared {
                Ok(Comparison::Equal(bytes)) => format!("self-check: equal, {bytes} bytes"),
                Ok(Comparison::DiffersAt(at)) => format!("self-check: differs at {at}"),
                Err(error) => format!("self-check: {error}"),
            };
            self.log.note(&line);
            if !line.contains("equal") {
                self.gaps.push(Gap {
                    what: "self-check".to_owned(),
                    why: line,
                });
            }
        }
        // A process that was released early has ended as it should.
        let death = match hold.stream {
            Some(_) => self.last_look(),
            None => Death::default(),
        };
        self.release(hold);
        death
    }

    fn last_look(&self) -> Death {
        match (&self.watch, &self.process) {
            (Some(watch), Some(process)) => watch.while_it_waits(process),
            _ => Death::default(),
        }
    }

    /// Lets the process and its memory go.
    pub(crate) fn release(&mut self, hold: &mut Hold) {
        let stream = hold.stream.take();
        let (waited, was_silent) = (
            stream.is_some(),
            stream.as_ref().is_some_and(CoreStream::was_silent),
        );
        drop(stream);
        hold.pin = None;
        hold.held = None;
        if was_silent || (waited && self.lacks_foreign_pages && self.settings.chain.is_none()) {
            self.end_dump();
        }
        if waited {
            self.blocked = Some(self.log.elapsed());
            priority::lower();
            self.log.note("process released");
        }
    }

    /// Ends a dump that the kernel does not end by itself, because it waits for a page of the process. It uses
    /// one of the concurrent dumps (`core_pipe_limit`).
    fn end_dump(&mut self) {
        /// How long the process may take to end by itself.
        const ENDING: Duration = Duration::from_secs(1);
        if let Some(process) = &self.process
            && process.end_if_it_stays(ENDING)
        {
            self.log
                .note("the process was killed: the kernel waited for a page of it");
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.settings.copy_seconds)
    }

    fn writes_plain(&self, direct: &Direct, hold: &Hold, guard: &DiskGuard) -> bool {
        match self.settings.strategy {
            Strategy::Zstd => false,
            Strategy::Raw => true,
            Strategy::Auto => {
                let room = guard.room();
                // A second child, after a slow disk ended the first one, would have to pin the pages again. Not where
                // the OOM killer may come in between.
                let left = self.watch.as_ref().and_then(DeathWatch::memory_left);
                hold.stream.is_some()
                    && direct.resident >= LARGE
                    && left.is_none_or(|left| left >= direct.resident)
                    && room >= direct.resident.saturating_mul(2)
            }
        }
    }

    /// Whether a large process waits while its core is compressed, and the disk has room for haste.
    fn in_haste(&self, direct: &Direct, hold: &Hold, guard: &DiskGuard) -> bool {
        hold.stream.is_some() && direct.resident >= LARGE && guard.room() >= direct.resident
    }

    fn note_copied(&mut self, head: &[u8], outcome: &CopyOutcome, from: &str) {
        let size = readable_size(head.len() as u64 + outcome.plain);
        self.log.note(&format!("core of {size} copied from {from}"));
    }
}

/// Whether a copy that ended so is all that can be had. The pipe would not be quicker than a copy that took
/// too long; and whose memory is gone or was taken away ([`ProcessMemory::check`]) is being killed, though
/// on a busy node it may not have ended yet: its pipe gives nothing any more.
fn stands(error: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, OutOfMemory, TimedOut};
    matches!(error.kind(), TimedOut | NotFound | OutOfMemory)
}
