//! The handler: what the kernel starts for each crash.
//!
//! Synchronous, no network, no symbols, bounded memory whatever the core's size. It reads the core
//! from standard input and leaves a sealed entry in the spool; shipping is not its job.

mod capture;
mod chain;
mod collected;
pub(crate) mod copy;
mod memory;
pub(crate) mod os;
mod outcome_log;
pub(crate) mod process;
mod receiver;
pub(crate) mod record;
pub(crate) mod startup;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

pub use capture::capture;
pub use capture::state::Captured;
pub use process::proc_facts::{Credentials, Namespace, OpenFile, ProcFacts};
pub use record::backtrace::{RawBacktrace, RawFrame, RawModule, RawThread};
pub use startup::arguments::HandlerArguments;
pub use startup::log::HandlerLog;
pub use startup::settings;

use crate::paths::HANDLER_NAME;
pub(crate) use receiver::is_held;
pub use receiver::{is_receiving, stop_receiving};

use chain::Chain;
use outcome_log::report;
use startup::log::{Level, kernel_log};
use startup::settings::HandlerSettings;

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
    startup::priority::raise();
    let protected = startup::protect::protect();
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
    // The process waits while the pipe is open: the previous handler may look at it.
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

/// Standard input as the only descriptor of it: closing it ends the dump for the kernel.
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
