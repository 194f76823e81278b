//! What a capture holds from the start of the handler to the sealed entry, and the steps that several of
//! its stages share.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use cdh_bundle::{CoreEncoding, EntryKind, Gap, Manifest, Verdict};
use serde::Serialize;

use super::facts_job::{FactsJob, ProcessView, RestJob};
use crate::handler::copy::core_copy::LEVEL;
use crate::handler::copy::core_file::CoreFile;
use crate::handler::copy::disk_guard::DiskGuard;
use crate::handler::copy::slots::SlotRelease;
use crate::handler::memory::pin::MemoryPin;
use crate::handler::process::death::DeathWatch;
use crate::handler::process::handles::ProcessHandles;
use crate::handler::record::gap::{gap, io_error};
use crate::handler::record::identity::program_of_loader;
use crate::handler::record::plan::Plan;
use crate::handler::startup::log::HandlerLog;
use crate::handler::startup::settings::HandlerSettings;
use crate::spool::PartialEntry;

/// How the core is stored.
pub(crate) const CORE: EntryKind = EntryKind::Core(CoreEncoding::ZstdSeekable);

/// The outcome of a crash.
#[derive(Debug)]
pub struct Captured {
    /// The sealed entry; `None` where the policy wants none.
    pub path: Option<PathBuf>,
    /// What was taken, and what not.
    pub summary: String,
    /// Whether the core is whole.
    pub verdict: Verdict,
}

pub(crate) struct Capture<'a> {
    pub(crate) entry: PartialEntry,
    pub(crate) manifest: Manifest,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) log: &'a mut HandlerLog,
    pub(crate) settings: &'a HandlerSettings,
    pub(crate) process: Option<ProcessHandles>,
    /// Its `mem` and its `pagemap`. Only children read them.
    pub(crate) memory: Option<[File; 2]>,
    pub(crate) pin: Option<MemoryPin>,
    /// The core is not in the kernel's order.
    pub(crate) rearranged: bool,
    pub(crate) watch: Option<DeathWatch>,
    /// Of a process that was gone before anything could be opened.
    pub(crate) pidfd: Option<OwnedFd>,
    pub(crate) facts: Option<FactsJob>,
    /// Reads the rest of the facts while the minicore is taken.
    pub(crate) rest: Option<RestJob>,
    /// What the child that reads the facts has found.
    pub(crate) view: Option<ProcessView>,
    /// Pages of foreign files are dumped that are not in memory.
    pub(crate) lacks_foreign_pages: bool,
    /// Ends the right to copy.
    pub(crate) slot: Option<SlotRelease>,
    pub(crate) plan: Plan,
    /// How long the process had to wait for its end.
    pub(crate) blocked: Option<Duration>,
}

impl Capture<'_> {
    pub(crate) fn note_gap_of<E: std::error::Error>(
        &mut self,
        what: &str,
        step: impl FnOnce(&mut Self) -> Result<(), E>,
    ) {
        if let Err(error) = step(self) {
            self.gaps.push(gap(what, &error));
        }
    }

    /// Creates the core's file and puts the head into it, before anything takes time.
    pub(crate) fn begin_core<'g>(
        &mut self,
        head: &[u8],
        guard: &'g DiskGuard,
    ) -> std::io::Result<CoreFile<'g>> {
        let file = self.entry.create_file(&CORE).map_err(io_error)?;
        let mut core = CoreFile::new(file.finish().0, self.settings.level.unwrap_or(LEVEL), guard)?;
        core.append_now(head).map(|()| core)
    }

    pub(crate) fn write_json(&mut self, kind: EntryKind, what: &str, value: &impl Serialize) {
        self.note_gap_of(what, |this| {
            let bytes = serde_json::to_vec_pretty(value).map_err(std::io::Error::other)?;
            this.entry.write_file(&kind, &bytes).map_err(io_error)
        });
    }

    /// Names a program that was started as an argument of the dynamic loader (`ld.so prog`): the kernel calls it by
    /// the loader's name, and so would rules and listings. Whether it was.
    pub(crate) fn name_program(&mut self) -> bool {
        let process = &mut self.manifest.process;
        let program = program_of_loader(&self.manifest.modules, process.exe.as_ref());
        let is_loader = program.is_some();
        process.exe = program.or_else(|| process.exe.take());
        is_loader
    }

    pub(crate) fn write_facts(&mut self) {
        let Some(view) = &mut self.view else {
            return;
        };
        let facts = std::mem::take(&mut view.facts);
        self.gaps.append(&mut view.gaps);
        self.manifest.process.arguments.clone_from(&facts.arguments);
        if facts.exe.is_some() {
            self.manifest.process.exe.clone_from(&facts.exe);
            self.name_program();
        }
        self.write_json(EntryKind::Proc, "proc.json", &facts);
        self.note_gap_of("identity", |this| this.entry.write_identity(&this.manifest));
    }
}
