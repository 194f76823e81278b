//! What dies first, taken first: handles, a hold on the memory, its mappings, the facts of `/proc`.
//!
//! A process that is killed in the middle of its dump leaves its cgroup, and then `/proc`, within
//! milliseconds; what is held stays.

use std::fs::File;
use std::os::fd::OwnedFd;

use cdh_bundle::{Gap, RawText};

use super::arguments::HandlerArguments;
use super::capture::gap;
use super::death::DeathWatch;
use super::log::HandlerLog;
use super::maps::lowest_private;
use super::pin::{MemoryPin, PinError};
use super::proc_facts::ProcFacts;
use super::process::ProcessHandles;
use super::process_memory::ProcessMemory;
use super::settings::{HandlerSettings, Source};

/// Everything that was taken before the first byte of the core was read.
pub(super) struct Prepared {
    pub(super) process: Option<ProcessHandles>,
    /// Its `mem`.
    pub(super) memory: Option<File>,
    pub(super) pin: Option<MemoryPin>,
    pub(super) cgroup: Option<RawText>,
    /// The memory, or why it cannot be read.
    pub(super) space: Result<ProcessMemory, String>,
    pub(super) watch: Option<DeathWatch>,
    /// Of a process that was gone before anything could be opened.
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) facts: Option<(ProcFacts, Vec<Gap>)>,
    pub(super) gaps: Vec<Gap>,
    pub(super) log: HandlerLog,
}

impl Prepared {
    /// Takes it of the process that the arguments name, and that `pidfd` refers to, where the kernel
    /// has given one.
    pub(super) fn take(
        arguments: &HandlerArguments,
        settings: &HandlerSettings,
        pidfd: Option<OwnedFd>,
        mut log: HandlerLog,
    ) -> Self {
        let mut gaps = Vec::new();
        let own = pidfd.as_ref().and_then(|pidfd| pidfd.try_clone().ok());
        let process = match ProcessHandles::open_with(arguments.pid, arguments.tid, own) {
            Ok(process) => Some(process),
            Err(error) => {
                gaps.push(gap("/proc/<pid>", &error));
                None
            }
        };
        let memory = process
            .as_ref()
            .and_then(|process| process.open_file("mem").ok());
        let pin = match (&process, &memory) {
            (Some(process), Some(memory)) if wants_hold(settings) => pin_memory(process, memory)
                .inspect(|_| log.note("memory held"))
                .inspect_err(|error| gaps.push(gap("hold on the memory", error)))
                .ok(),
            _ => None,
        };
        let cgroup = process
            .as_ref()
            .and_then(|process| process.read("cgroup").ok())
            .map(RawText::new);
        let space = match (&process, &memory) {
            (Some(process), Some(memory)) => ProcessMemory::open(process, memory),
            _ => Err("its memory cannot be opened".to_owned()),
        };
        let watch = process.as_ref().map(|process| {
            let cgroup = cgroup.as_ref().map_or(&b""[..], RawText::as_bytes);
            DeathWatch::open(process, cgroup, settings.kill_trace.as_deref())
        });
        let facts = process
            .as_ref()
            .map(|process| ProcFacts::read(process, cgroup.clone(), &settings.policy));
        log.note("facts of /proc read");
        let pidfd = pidfd.filter(|_| process.is_none());
        Self {
            process,
            memory,
            pin,
            cgroup,
            space,
            watch,
            pidfd,
            facts,
            gaps,
            log,
        }
    }

    /// Holds the memory a second time, from this process, where the settings want it held. The first
    /// hold may go then.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(super) fn hold_again(&mut self, settings: &HandlerSettings) -> Result<(), PinError> {
        if !wants_hold(settings) {
            return Ok(());
        }
        let missing = |what: &str| PinError::Unreadable {
            address: 0,
            source: std::io::Error::other(what.to_owned()),
        };
        let memory = self.memory.as_ref().ok_or_else(|| missing("no memory"))?;
        let space = self.space.as_ref().map_err(|why| missing(why))?;
        let address = space
            .readable_address()
            .ok_or_else(|| missing("no address"))?;
        self.pin = Some(MemoryPin::take(memory, address)?);
        Ok(())
    }
}

fn wants_hold(settings: &HandlerSettings) -> bool {
    settings.pin && settings.source == Source::Direct
}

/// Holds the memory against the process's end.
fn pin_memory(process: &ProcessHandles, memory: &File) -> Result<MemoryPin, PinError> {
    let nothing = |source| PinError::Unreadable { address: 0, source };
    let maps = process.open_file("maps").map_err(nothing)?;
    let mut result = Err(nothing(std::io::Error::other("it has no mappings")));
    for address in lowest_private(maps) {
        result = MemoryPin::take(memory, address);
        if !matches!(result, Err(PinError::Unreadable { .. })) {
            break;
        }
    }
    result
}
