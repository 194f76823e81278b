//! The handler: what the kernel starts for each crash.
//!
//! Synchronous, no network, no symbols, bounded memory whatever the core's size. It reads the core
//! from standard input and leaves a sealed entry in the spool; shipping is not its job.

mod account;
mod arguments;
mod backtrace;
mod capture;
pub(crate) mod cgroups;
mod chain;
mod collected;
mod copying;
mod core_copy;
mod core_file;
mod core_source;
mod core_stream;
mod death;
mod descriptors;
mod disk_guard;
mod dump_info;
mod facts_job;
mod fault_pages;
mod file_systems;
mod footprint;
mod held;
pub(crate) mod identity;
mod importance;
mod isolated;
mod layout;
mod live_memory;
mod log;
mod maps;
mod memory_copy;
mod memory_source;
mod minicore;
mod page_pins;
mod past_cache;
mod pidfd;
mod pin;
pub(crate) mod plain_file;
mod plan;
mod prepared;
mod priority;
mod privileges;
mod proc_facts;
mod process;
mod process_memory;
mod protect;
mod receiver;
mod recorder;
mod rescue;
mod room;
mod saved_memory;
mod sealing;
mod self_check;
mod sender;
pub mod settings;
mod slots;
mod supervised;
mod verdict;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

pub use arguments::HandlerArguments;
pub use backtrace::{RawBacktrace, RawFrame, RawModule, RawThread};
pub use capture::{Captured, capture};
pub use log::HandlerLog;
pub use proc_facts::{Credentials, Namespace, OpenFile, ProcFacts};

use cdh_bundle::RawText;

use crate::paths::HANDLER_NAME;
use crate::spool::SpoolError;
pub(crate) use file_systems::is_local_path;
pub(crate) use process::status_field;
pub(crate) use receiver::is_held;
pub use receiver::{is_receiving, stop_receiving};

use log::{Level, kernel_log};
use settings::HandlerSettings;

/// Name of the file beside the handler that holds its settings.
pub const SETTINGS_NAME: &str = "cdh-handler.json";

/// Option with which the installation tries whether the handler runs on this node.
pub const SELF_TEST: &str = "--self-test";

/// Option with which the handler serves the kernel's coredump socket at the path that follows; behind it
/// may stand that of its settings, for one that runs from memory and is beside nothing.
pub const RECEIVE: &str = "--receive";

/// Option with which the handler stores a core file: behind it are its settings, the owner's cgroup, where the file was,
/// and values as the kernel passes them. The file is standard input.
pub const COLLECT: &str = "--collect";

/// Option with which the handler crashes, for the installation's self-test.
pub const SELF_TEST_CRASH: &str = "--self-test-crash";

/// Whether the program was started under the handler's name. A program that can also be installed
/// as the handler asks this before it looks at its command line.
#[must_use]
pub fn invoked_as_handler(program: Option<&OsString>) -> bool {
    program
        .and_then(|program| Path::new(program).file_name())
        .is_some_and(|name| {
            name.to_str().is_some_and(|name| {
                // The self-test runs the binary under a temporary name.
                name == HANDLER_NAME || name.strip_prefix('.').is_some_and(is_temporary_name)
            })
        })
}

fn is_temporary_name(name: &str) -> bool {
    name.strip_prefix(HANDLER_NAME)
        .and_then(|rest| rest.strip_prefix('.'))
        .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Runs the handler with the arguments that follow the program's name: the core comes from standard
/// input, the settings from the file beside the program. Returns the exit code.
#[must_use]
pub fn handle(arguments: Vec<OsString>) -> u8 {
    let mut log = HandlerLog::default();
    priority::raise();
    let protected = protect::protect();
    if HandlerArguments::is_only(&arguments, SELF_TEST) {
        return u8::from(protected.is_err());
    }
    if let Err(error) = protected {
        log.note(&format!("standard descriptors: {error}"));
    }
    match arguments.as_slice() {
        [only] if only == SELF_TEST_CRASH => return receiver::crash_on_purpose(),
        [option, socket] if option == RECEIVE => {
            return receiver::run(Path::new(socket), settings_path());
        }
        [option, socket, settings] if option == RECEIVE => {
            return receiver::run(Path::new(socket), settings.into());
        }
        [option, settings, cgroup, origin, facts @ ..] if option == COLLECT => {
            return collect(Path::new(settings), cgroup, origin, facts, log);
        }
        _ => {}
    }
    let (settings, problem) = HandlerSettings::read(&settings_path());
    let arguments = HandlerArguments::parse(arguments);
    if let Some(problem) = problem {
        log.note(&format!("settings: {problem}; the defaults hold"));
    }
    let stream = match take_stdin() {
        Ok(stream) => stream,
        Err(error) => {
            kernel_log(Level::Error, &format!("no core on standard input: {error}"));
            return 1;
        }
    };
    // The process waits as long as somebody has the pipe: the previous handler may look at it.
    let held = settings.chain.as_ref().map(|_| stream.try_clone());
    let chain = Chain::begin(&settings, &arguments);
    let captured = capture(&arguments, &settings, stream, log);
    chain.hand_on(&arguments, captured.as_ref().ok());
    drop(held);
    report(&arguments, captured)
}

/// Stores the core file on standard input; the exit code.
fn collect(
    settings: &Path,
    cgroup: &OsStr,
    origin: &OsStr,
    facts: &[OsString],
    mut log: HandlerLog,
) -> u8 {
    let (settings, problem) = HandlerSettings::read(settings);
    if let Some(problem) = problem {
        log.note(&format!("settings: {problem}; the defaults hold"));
    }
    let stored =
        take_stdin().map(|file| collected::collect(&settings, cgroup, origin, facts, file, log));
    match stored {
        Ok(Ok(captured)) => u8::from(collected::print(&captured).is_err()),
        Ok(Err(error)) => {
            kernel_log(Level::Error, &format!("no dump of a core file: {error}"));
            1
        }
        Err(error) => {
            kernel_log(Level::Error, &format!("no core on standard input: {error}"));
            1
        }
    }
}

/// The one who had the core pattern before, where cores are handed on to it.
struct Chain {
    previous: Option<(RawText, chain::ChainFacts)>,
}

impl Chain {
    fn begin(settings: &HandlerSettings, arguments: &HandlerArguments) -> Self {
        let previous = settings.chain.clone();
        Self {
            previous: previous.map(|pattern| {
                let facts = chain::ChainFacts::of(arguments, &pattern);
                (pattern, facts)
            }),
        }
    }

    /// Hands the core on and tells the kernel's log what became of it.
    fn hand_on(self, arguments: &HandlerArguments, captured: Option<&Captured>) {
        let entry = captured.and_then(|captured| captured.path.as_ref());
        let (Some((pattern, facts)), Some(entry)) = (self.previous, entry) else {
            return;
        };
        let pid = arguments.pid.unwrap_or(0);
        match chain::hand_on(&pattern, arguments, &facts, entry) {
            Ok(what) => kernel_log(Level::Info, &format!("pid {pid}: {what}")),
            Err(why) => kernel_log(Level::Warning, &format!("pid {pid}: not handed on: {why}")),
        }
    }
}

/// Tells the kernel log what became of a crash; the exit code.
fn report(arguments: &HandlerArguments, captured: Result<Captured, SpoolError>) -> u8 {
    match captured {
        Ok(captured) => {
            let level = match captured.verdict {
                // Whoever wants no dump is not to be warned of it.
                _ if captured.path.is_none() => Level::Info,
                cdh_bundle::Verdict::Complete => Level::Info,
                _ => Level::Warning,
            };
            kernel_log(level, &captured.summary);
            0
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            let name = &arguments.name;
            let pid = arguments.pid.unwrap_or(0);
            let cause = cause.unwrap_or_default();
            kernel_log(
                Level::Error,
                &format!("no dump of {name} (pid {pid}): {error}{cause}"),
            );
            1
        }
    }
}

/// Standard input as the only descriptor of it: closing it tells the kernel that we are done.
fn take_stdin() -> io::Result<File> {
    let stream = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(stream.into())
}

fn settings_path() -> PathBuf {
    std::env::current_exe()
        .unwrap_or_default()
        .with_file_name(SETTINGS_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handler_knows_its_own_names() {
        let known = |name: &str| invoked_as_handler(Some(&OsString::from(name)));
        assert!(known("/usr/local/lib/cdh/cdh-handler") && known("cdh-handler"));
        assert!(known("/x/.cdh-handler.4711"));
        assert!(!known("cdh") && !known("cdh-handler.4711") && !known(".cdh-handler.x"));
        assert!(!invoked_as_handler(None));
    }
}
