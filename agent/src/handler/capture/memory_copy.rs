//! What the child does that copies the memory of a process, and what it reports.
//!
//! Invariant: it reports as soon as nothing of the process is needed any more; what follows takes only the
//! disk.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::handler::copy::core_copy::{CopyOutcome, LATER_LEVEL, LEVEL, copy_frames};
use crate::handler::copy::core_file::{CoreFile, FinishedFile};
use crate::handler::copy::core_source::{CoreSource, Until};
use crate::handler::copy::plain_file::{PlainCore, PlainSource};
use crate::handler::copy::supervised::{Reporter, SentError};
use crate::handler::memory::layout::Layout;
use crate::handler::memory::memory_source::MemorySource;
use crate::handler::memory::oom_snapshot::{OomSnapshot, Watch, watched};
use crate::handler::memory::process_memory::{MemoryParts, ProcessMemory};
use crate::handler::memory::saved_memory::{Keeper, SavedMemory};
use crate::handler::process::death::DeathWatch;
use crate::handler::process::memory_headroom::own_headroom;

/// What the child reads of the memory, and how.
pub(crate) struct MemoryJob<'j> {
    /// Which memory belongs where in the core.
    pub layout: &'j Layout,
    /// The memory.
    pub parts: &'j MemoryParts,
    /// Whether the end of the process is watched.
    pub is_watched: bool,
    /// What befalls the process.
    pub watch: Option<&'j DeathWatch>,
    /// How long the copy may take.
    pub patience: Duration,
    /// Threads that copy.
    pub workers: usize,
}

impl MemoryJob<'_> {
    /// In the child: has `copy` read the memory, and reports. Whether it was copied.
    ///
    /// # Errors
    /// When the parent is gone.
    pub(crate) fn run(
        &self,
        reporter: &mut Reporter,
        copy: impl FnOnce(&dyn CoreSource) -> CopyOutcome,
    ) -> io::Result<bool> {
        let parts = self.parts;
        let memory = match ProcessMemory::of(parts) {
            Ok(memory) => memory,
            Err(why) => {
                reporter.tell(&CopyReport::Refused(why))?;
                return Ok(false);
            }
        };
        let saved = SavedMemory::new(self.layout, &memory);
        let pieces = MemorySource::new(self.layout, &memory, &saved);
        let source = reporter.watch(&pieces);
        let rescue = OomSnapshot::new(&source, &own_headroom);
        let until = Until::new(&rescue, self.patience);
        let is_out_of_memory = || self.watch.is_some_and(DeathWatch::is_out_of_memory);
        let pinned = AtomicU64::new(0);
        let exit = parts.exit.as_ref().filter(|_| self.is_watched);
        let keep_while = |wait: &dyn Fn() -> bool| {
            // Where nothing limits its memory, the OOM killer comes only if the node has none left.
            let limited = self.watch.filter(|watch| watch.memory_left().is_some());
            let Some((watch, exit)) = limited.zip(exit) else {
                return wait();
            };
            let position = || pieces.position();
            let keeper = Keeper {
                ids: watch.threads(),
                exit,
                room: &own_headroom,
                position: &position,
                threads: self.workers,
            };
            let (is_out_of_memory, bytes) = saved.keep_while(&keeper, wait);
            pinned.store(bytes, Ordering::Relaxed);
            is_out_of_memory
        };
        let watch = exit.map(|pidfd| Watch {
            pidfd,
            is_out_of_memory: &is_out_of_memory,
            keep_while: &keep_while,
            threads: self.workers,
        });
        let outcome = watched(&rescue, watch.as_ref(), || copy(&until));
        let copied = ReportedCopy {
            plain: outcome.plain,
            read_error: outcome.read_error.as_ref().map(SentError::from),
            write_error: outcome.write_error.as_ref().map(SentError::from),
            missing: MissingPages {
                lost: memory.lost_pages(),
                unreached: memory.unreached_pages(),
                pinned: pinned.load(Ordering::Relaxed),
                rescued: rescue.saved(),
            },
        };
        reporter.tell(&CopyReport::Copied(copied))?;
        Ok(true)
    }
}

/// What the child says when it needs nothing of the process any more.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum CopyReport {
    /// Why the memory cannot be read instead of the stream.
    Refused(String),
    /// How it went.
    Copied(ReportedCopy),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ReportedCopy {
    plain: u64,
    read_error: Option<SentError>,
    write_error: Option<SentError>,
    missing: MissingPages,
}

impl ReportedCopy {
    /// How the copy went, and what is not in it.
    pub(crate) fn into_parts(self) -> (CopyOutcome, MissingPages) {
        let outcome = CopyOutcome {
            plain: self.plain,
            read_error: self.read_error.map(io::Error::from),
            write_error: self.write_error.map(io::Error::from),
        };
        (outcome, self.missing)
    }
}

/// Pages that are not in the copy: how many, and the address of the first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MissingPages {
    /// The kernel has them, but they could not be read.
    pub lost: Option<(u64, u64)>,
    /// They are of foreign files, and were not in memory.
    pub unreached: Option<(u64, u64)>,
    /// Bytes that were pinned when the OOM killer struck.
    pub pinned: u64,
    /// Bytes that were read before the kernel took the memory away.
    pub rescued: u64,
}

/// In the child: compresses what was written as it is. The process is gone by then. Why it does not fit,
/// otherwise.
pub(crate) fn pack(
    mut core: CoreFile<'_>,
    written: &PlainCore,
    length: u64,
    level: Option<i32>,
    workers: usize,
) -> Result<FinishedFile, String> {
    let source = PlainSource::new(written);
    // Better than in haste, where processors are free for it.
    let level = match busy() {
        Some(true) => level.unwrap_or(LEVEL),
        _ => level.unwrap_or(LEVEL).max(LATER_LEVEL),
    };
    let packed = copy_frames(&source, &mut core, level, workers);
    if let Some(error) = packed.write_error.or(packed.read_error) {
        return Err(error.to_string());
    }
    if packed.plain != length {
        return Err("not all of it could be read".to_owned());
    }
    core.finish().map_err(|error| error.to_string())
}

/// Whether more wants to run than there are processors (`proc_loadavg(5)`: running/all).
fn busy() -> Option<bool> {
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    let running = load.split(' ').nth(3)?.split_once('/')?.0;
    let running: usize = running.parse().ok()?;
    let processors = std::thread::available_parallelism().ok()?.get();
    Some(running > processors)
}
