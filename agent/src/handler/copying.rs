//! The copy of the core, from the memory or from the pipe, and how long the process has to wait for it.
//!
//! Invariants: the process is let go as soon as nothing of it is needed any more, and before anything
//! is compressed that could be compressed later. A copy from memory that turns out not to be what
//! the kernel would write is thrown away and made again from the pipe, as long as the pipe is there.

use std::fs::File;
use std::io;
use std::time::Duration;

use cdh_bundle::{CoreEncoding, EntryKind, Gap};
use cdh_elfcore::{CoreHead, FileSource};

use super::capture::{CORE, Capture, gap, io_error};
use super::core_copy::{CopyOutcome, copy_frames, copy_places};
use super::core_file::CoreFile;
use super::core_source::{PipeSource, Until};
use super::death::{Death, DeathWatch};
use super::disk_guard::DiskGuard;
use super::held::Held;
use super::importance::by_importance;
use super::layout::Layout;
use super::log::readable_size;
use super::memory_source::MemorySource;
use super::past_cache::Writing;
use super::pin::MemoryPin;
use super::plain_file::{PROGRESS, PlainCore, PlainFile, PlainSource};
use super::priority;
use super::process::ProcessHandles;
use super::process_memory::ProcessMemory;
use super::rescue::{Rescue, watched};
use super::room::{Room, kib, own_room, room_for};
use super::self_check::{Comparison, compare, plain};
use super::settings::{Release, Source, Strategy};

/// The core as it is.
const PLAIN: EntryKind = EntryKind::Core(CoreEncoding::None);
/// Resident bytes from which on it matters that writing is quicker than compressing.
const LARGE: u64 = 64 << 20;
/// Bytes per second that a worker compresses, about: a disk that is slower holds the process up.
const COMPRESSED_EACH: u64 = 250 << 20;
/// zstd level where nothing else is said.
pub(super) const LEVEL: i32 = 1;
/// zstd level for a large process that waits. At -8 the search moves in the steps in which the words of a
/// heap lie: a heap takes a seventh less time than at -3.
const HASTY_LEVEL: i32 = -8;
/// zstd level of what is compressed while nobody waits.
const LATER_LEVEL: i32 = 3;

/// What keeps the process, or its memory.
pub(super) struct Hold {
    /// The process waits for as long as this is open.
    pub stream: Option<File>,
    /// The memory stays for as long as this is there.
    pub pin: Option<MemoryPin>,
    /// Tells other handlers how much of the node's memory stays with this one.
    pub held: Option<Held>,
}

/// A core that can be read from memory.
pub(super) struct Direct {
    layout: Layout,
    memory: ProcessMemory,
    /// Bytes that the process really has.
    resident: u64,
}

impl Direct {
    /// Bytes that the process really has.
    #[must_use]
    pub(super) fn resident(&self) -> u64 {
        self.resident
    }

    /// Bytes of the whole core.
    #[must_use]
    pub(super) fn end(&self) -> u64 {
        self.layout.end
    }
}

/// A copy that was made.
pub(super) struct Copied<'g> {
    /// The file of frames, where it holds the core.
    pub core: Option<CoreFile<'g>>,
    /// How the core is stored.
    pub encoding: CoreEncoding,
    /// How it went.
    pub outcome: CopyOutcome,
    /// What befell the process while it was copied.
    pub death: Death,
}

impl<'g> Copied<'g> {
    fn frames(core: CoreFile<'g>, outcome: CopyOutcome) -> Self {
        Self {
            core: Some(core),
            encoding: CoreEncoding::ZstdSeekable,
            outcome,
            death: Death::default(),
        }
    }
}

impl Capture<'_> {
    /// Whether the memory itself can be read; if not, the log says why.
    pub(super) fn direct(&mut self, head: &CoreHead) -> Option<Direct> {
        if self.settings.source == Source::Pipe {
            return None;
        }
        let space = self.space.take();
        let open = || -> Result<Direct, String> {
            let layout = Layout::of(head)?;
            let memory = space.ok_or("it cannot be opened")??;
            let status = self
                .facts
                .as_ref()
                .and_then(|(facts, _)| facts.status.as_ref());
            let status = status.map_or(&b""[..], |status| status.as_bytes());
            let bytes = |field| kib(status, field).unwrap_or(0).saturating_mul(1024);
            let resident = bytes("VmRSS").saturating_add(bytes("VmSwap"));
            Ok(Direct {
                resident: resident.min(layout.memory_bytes()),
                layout,
                memory,
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
    pub(super) fn may_go_early(&mut self, direct: &Direct, hold: &mut Hold, cgroup: &[u8]) -> bool {
        let policy = self.settings.release;
        if policy == Release::Hold || hold.pin.is_none() || self.settings.self_check {
            return false;
        }
        let id = self.entry.id().to_string();
        let held = Held::note(&self.settings.spool, &id, direct.resident);
        let (held, others) = held.map_or((None, 0), |(held, others)| (Some(held), others));
        let room = room_for(direct.resident, others, Some(cgroup));
        let may = match room {
            Room::Enough => true,
            Room::Unknown => policy == Release::Early,
            Room::Missing(_) => false,
        };
        if let Room::Missing(bytes) = room {
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
    pub(super) fn rearrange(
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
    pub(super) fn copy<'g>(
        &mut self,
        core: io::Result<CoreFile<'g>>,
        head: &[u8],
        direct: Option<&Direct>,
        hold: &mut Hold,
        guard: &'g DiskGuard,
    ) -> Copied<'g> {
        let core = match core {
            Ok(core) => core,
            Err(error) => {
                self.release(hold);
                return Copied {
                    core: None,
                    encoding: CoreEncoding::ZstdSeekable,
                    outcome: CopyOutcome {
                        write_error: Some(error),
                        ..CopyOutcome::default()
                    },
                    death: Death::default(),
                };
            }
        };
        let Some(direct) = direct else {
            return self.copy_stream(core, head, hold);
        };
        let plain = match self.writes_plain(direct, hold, guard) {
            true => self.copy_plain(direct, head, hold, guard),
            false => None,
        };
        if let Some((file, outcome)) = plain {
            if !self.must_be_streamed(direct, &outcome, hold) {
                return self.compress_later(core, head, (file, outcome), hold);
            }
            self.forget_plain();
            return self.copy_stream(core, head, hold);
        }
        self.copy_memory(core, head, direct, hold, guard)
    }

    /// Reads the memory and compresses it at once.
    fn copy_memory<'g>(
        &mut self,
        mut core: CoreFile<'g>,
        head: &[u8],
        direct: &Direct,
        hold: &mut Hold,
        guard: &'g DiskGuard,
    ) -> Copied<'g> {
        let memory = MemorySource::new(&direct.layout, &direct.memory);
        let rescue = Rescue::new(&memory, &own_room);
        let source = Until::new(&rescue, self.patience());
        let in_haste = self.in_haste(direct, hold, guard);
        let chosen = if in_haste { HASTY_LEVEL } else { LEVEL };
        let level = self.settings.level.unwrap_or(chosen);
        let workers = self.settings.worker_threads();
        if in_haste {
            core.write_so(Writing::of(
                direct.resident,
                COMPRESSED_EACH * workers as u64,
            ));
        }
        let outcome = self.watched(&rescue, direct, hold, || {
            copy_frames(&source, &mut core, level, workers)
        });
        if self.must_be_streamed(direct, &outcome, hold) {
            drop(core);
            self.entry.remove_file(&CORE.file_name());
            return match self.begin_core(head, guard) {
                Ok(core) => self.copy_stream(core, head, hold),
                Err(error) => {
                    self.release(hold);
                    self.gaps.push(gap("core", &error));
                    Copied {
                        core: None,
                        encoding: CoreEncoding::ZstdSeekable,
                        outcome,
                        death: Death::default(),
                    }
                }
            };
        }
        self.note_copied(head, &outcome, "memory");
        self.note_rescued(rescue.saved());
        let death = self.end_of_copy(head, &CORE, hold);
        Copied {
            death,
            ..Copied::frames(core, outcome)
        }
    }

    fn copy_stream<'g>(
        &mut self,
        mut core: CoreFile<'g>,
        head: &[u8],
        hold: &mut Hold,
    ) -> Copied<'g> {
        let Some(stream) = hold.stream.take() else {
            let error = io::Error::other("the pipe was closed before");
            let outcome = CopyOutcome {
                read_error: Some(error),
                ..CopyOutcome::default()
            };
            return Copied::frames(core, outcome);
        };
        let pipe = PipeSource::new(stream, head.len() as u64);
        let source = Until::new(&pipe, self.patience());
        let level = self.settings.level.unwrap_or(LEVEL);
        let workers = self.settings.worker_threads();
        let outcome = copy_frames(&source, &mut core, level, workers);
        self.note_copied(head, &outcome, "the pipe");
        let death = self.last_look();
        drop(pipe);
        self.release(hold);
        Copied {
            death,
            ..Copied::frames(core, outcome)
        }
    }

    /// Writes the core as it is; `None` when that does not work out, and nothing of it is left then.
    fn copy_plain(
        &mut self,
        direct: &Direct,
        head: &[u8],
        hold: &Hold,
        guard: &DiskGuard,
    ) -> Option<(PlainCore, CopyOutcome)> {
        let create = || -> io::Result<PlainFile<'_>> {
            let file = self.entry.create_file(&PLAIN).map_err(io_error)?.finish().0;
            let progress = self.entry.create_beside(PROGRESS).map_err(io_error)?;
            let slowest = match self.settings.strategy {
                Strategy::Auto => COMPRESSED_EACH * self.settings.worker_threads() as u64,
                _ => 0,
            };
            let writing = Writing::of(direct.resident, slowest);
            PlainFile::begin(file, progress, head, guard, writing)
        };
        let memory = MemorySource::new(&direct.layout, &direct.memory);
        let rescue = Rescue::new(&memory, &own_room);
        let copied = create().and_then(|plain| {
            let source = Until::new(&rescue, self.patience());
            let mut outcome = self.watched(&rescue, direct, hold, || {
                copy_places(&source, &plain, self.settings.worker_threads())
            });
            match outcome.write_error.take() {
                // Compressed, it may fit.
                Some(error) => Err(error),
                None => Ok((plain.finish(outcome.plain)?, outcome)),
            }
        });
        match copied {
            Ok(copied) => {
                self.note_copied(head, &copied.1, "memory, uncompressed");
                self.note_rescued(rescue.saved());
                Some(copied)
            }
            Err(error) => {
                self.log
                    .note(&format!("the core is compressed at once: {error}"));
                self.forget_plain();
                None
            }
        }
    }

    /// Does `work`, which reads from `rescue`, and has a process watched that waits: what the OOM killer ends
    /// loses its memory soon.
    fn watched<T>(
        &self,
        rescue: &Rescue<'_>,
        direct: &Direct,
        hold: &Hold,
        work: impl FnOnce() -> T,
    ) -> T {
        let waits = hold.stream.is_some() && hold.pin.is_some() && direct.resident >= LARGE;
        let process = self.process.as_ref().filter(|_| waits);
        let watch = self.watch.as_ref();
        let is_out_of_memory = || watch.is_some_and(DeathWatch::is_out_of_memory);
        let pidfd = process.and_then(ProcessHandles::exit_watch);
        let threads = self.settings.worker_threads();
        watched(rescue, pidfd, &is_out_of_memory, threads, work)
    }

    /// Whether the OOM killer has ended a process that waits: what is held of it is soon gone.
    pub(super) fn loses_memory(&self, hold: &Hold) -> bool {
        let process = self.process.as_ref().filter(|_| hold.stream.is_some());
        process.and_then(ProcessHandles::has_exited) == Some(true)
            && self
                .watch
                .as_ref()
                .is_some_and(DeathWatch::is_out_of_memory)
    }

    fn note_rescued(&mut self, bytes: u64) {
        if bytes > 0 {
            let bytes = readable_size(bytes);
            self.log.note(&format!(
                "{bytes} of it were read at once: the OOM killer ended the process"
            ));
        }
    }

    /// Compresses what was written as it is. The process is gone by then.
    fn compress_later<'g>(
        &mut self,
        mut core: CoreFile<'g>,
        head: &[u8],
        (written, outcome): (PlainCore, CopyOutcome),
        hold: &mut Hold,
    ) -> Copied<'g> {
        let death = self.end_of_copy(head, &PLAIN, hold);
        let source = PlainSource::new(&written);
        // Better than in haste, where processors are free for it.
        let level = match busy() {
            Some(true) => self.settings.level.unwrap_or(LEVEL),
            _ => self.settings.level.unwrap_or(LEVEL).max(LATER_LEVEL),
        };
        let packed = copy_frames(&source, &mut core, level, self.settings.worker_threads());
        if packed.plain == outcome.plain {
            self.forget_plain();
            return Copied {
                death,
                ..Copied::frames(core, outcome)
            };
        }
        // It does not fit a second time, not even compressed: it stays as it is.
        for error in [packed.write_error, packed.read_error]
            .into_iter()
            .flatten()
        {
            self.log
                .note(&format!("the core stays uncompressed: {error}"));
        }
        drop(core);
        self.entry.remove_file(&CORE.file_name());
        self.entry.remove_file(PROGRESS);
        let _ = written.file.sync_all();
        Copied {
            core: None,
            encoding: CoreEncoding::None,
            outcome,
            death,
        }
    }

    fn forget_plain(&mut self) {
        self.entry.remove_file(&PLAIN.file_name());
        self.entry.remove_file(PROGRESS);
    }

    /// Whether what was read from memory is not what the kernel would write, and can still be had.
    fn must_be_streamed(&mut self, direct: &Direct, outcome: &CopyOutcome, hold: &Hold) -> bool {
        let lost = direct.memory.lost_pages();
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
    pub(super) fn release(&mut self, hold: &mut Hold) {
        let waited = hold.stream.take().is_some();
        hold.pin = None;
        hold.held = None;
        if waited {
            self.blocked = Some(self.log.elapsed());
            priority::lower();
            self.log.note("process released");
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
                hold.stream.is_some()
                    && direct.resident >= LARGE
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

/// Whether more wants to run than there are processors (`proc_loadavg(5)`: running/all).
fn busy() -> Option<bool> {
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    let running = load.split(' ').nth(3)?.split_once('/')?.0;
    let running: usize = running.parse().ok()?;
    let processors = std::thread::available_parallelism().ok()?.get();
    Some(running > processors)
}
