//! What dies first, taken first: handles, a hold on the memory, its mappings, the facts of `/proc`.
//!
//! A process that is killed in the middle of its dump leaves its cgroup, and then `/proc`, within
//! milliseconds; what is held stays. Invariant: nothing here waits for longer than 5 ms, whatever the process's memory and files are made of.

use std::fs::File;
use std::os::fd::OwnedFd;

use cdh_bundle::{Gap, RawText};

use super::facts_job::FactsJob;
use crate::handler::memory::pin::{MemoryPin, PendingPin};
use crate::handler::process::death::DeathWatch;
use crate::handler::process::handles::ProcessHandles;
use crate::handler::process::privileges::privileges;
use crate::handler::record::gap::gap;
use crate::handler::startup::arguments::HandlerArguments;
use crate::handler::startup::log::HandlerLog;
use crate::handler::startup::settings::{HandlerSettings, Source};

/// Everything that was taken before the first byte of the core was read.
pub(crate) struct Prepared {
    pub(crate) process: Option<ProcessHandles>,
    /// Its `mem` and its `pagemap`.
    pub(crate) memory: Option<[File; 2]>,
    pub(crate) pin: Option<MemoryPin>,
    /// One that takes long: the entry comes first.
    pub(crate) pending_pin: Option<PendingPin>,
    pub(crate) cgroup: Option<RawText>,
    pub(crate) watch: Option<DeathWatch>,
    /// Of a process that was gone before anything could be opened.
    pub(crate) pidfd: Option<OwnedFd>,
    /// A child reads them.
    pub(crate) facts: Option<FactsJob>,
    /// Why the process is to be treated as one that gained privileges.
    pub(crate) privileged: Option<String>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) log: HandlerLog,
}

impl Prepared {
    /// Takes it of the process that the arguments name, and that `pidfd` refers to, where the kernel
    /// has given one.
    pub(crate) fn take(
        arguments: &HandlerArguments,
        settings: &HandlerSettings,
        pidfd: Option<OwnedFd>,
        mut log: HandlerLog,
    ) -> Self {
        let mut gaps = Vec::new();
        let own = pidfd.as_ref().and_then(|pidfd| pidfd.try_clone().ok());
        let is_certain = own.is_some();
        let mut process = match ProcessHandles::open(arguments.pid, arguments.tid, own) {
            Ok(process) => Some(process),
            Err(error) => {
                gaps.push(gap("/proc/<pid>", &error));
                None
            }
        };
        let verdict = process
            .as_ref()
            .map(|process| privileges(process, arguments, is_certain));
        let privileged = match verdict {
            Some(Err(replaced)) => {
                gaps.push(gap("/proc/<pid>", &replaced));
                process = None;
                Some(replaced.to_string())
            }
            Some(Ok(privileged)) => privileged,
            None => None,
        };
        let memory = process.as_ref().and_then(|process| {
            let open = |name| process.open_file(name).ok();
            Some([open("mem")?, open("pagemap")?])
        });
        let (mut pin, mut pending_pin) = (None, None);
        if let (Some(process), Some([memory, ..])) = (&process, &memory)
            && wants_hold(settings)
        {
            match MemoryPin::begin(process, memory).and_then(PendingPin::soon) {
                Ok(Ok(held)) => {
                    log.note("memory held");
                    pin = Some(held);
                }
                Ok(Err(pending)) => pending_pin = Some(pending),
                Err(error) => gaps.push(gap("hold on the memory", &error)),
            }
        }
        let cgroup = process
            .as_ref()
            .and_then(|process| process.read("cgroup").ok())
            .map(RawText::new);
        let facts = process
            .as_ref()
            .map(|process| FactsJob::start(process, cgroup.clone(), settings));
        let watch = process.as_ref().map(|process| {
            let cgroup = cgroup.as_ref().map_or(&b""[..], RawText::as_bytes);
            DeathWatch::open(process, cgroup, settings.kill_trace.as_deref())
        });
        let pidfd = pidfd.filter(|_| process.is_none());
        Self {
            process,
            memory,
            pin,
            pending_pin,
            cgroup,
            watch,
            pidfd,
            facts,
            privileged,
            gaps,
            log,
        }
    }
}

impl Prepared {
    /// Of a process that is gone.
    pub(crate) fn without_process(
        cgroup: Option<RawText>,
        gaps: Vec<Gap>,
        log: HandlerLog,
    ) -> Self {
        Self {
            process: None,
            memory: None,
            pin: None,
            pending_pin: None,
            cgroup,
            watch: None,
            pidfd: None,
            facts: None,
            privileged: None,
            gaps,
            log,
        }
    }
}

fn wants_hold(settings: &HandlerSettings) -> bool {
    settings.pin && settings.source == Source::Direct
}
