//! A core that the kernel wrote into a file: the collector starts the handler with it as standard input.
//!
//! The process is gone, so there is nothing to hold and nothing to read besides the file. What a pipe would have given is
//! recorded as gaps. The path of the sealed entry is printed on standard output.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use cdh_bundle::{Gap, RawText};

use super::capture::capture_owned;
use super::capture::prepared::Prepared;
use super::capture::state::Captured;
use super::startup::arguments::HandlerArguments;
use super::startup::log::HandlerLog;
use super::startup::settings::{HandlerSettings, Release, Source, Strategy};
use crate::owner::Owner;
use crate::spool::SpoolError;

/// What a file does not contain, for `info`.
const MISSING: [(&str, &str); 4] = [
    (
        "/proc/<pid>",
        "the process was gone: command line, environment, open files, limits and mappings are not known",
    ),
    (
        "minicore",
        "it is taken from the memory of a process; there is no fingerprint either",
    ),
    (
        "verdict",
        "who killed the process, and whether its core limit cut the core, is not known",
    ),
    (
        "process id",
        "it is the one in the process's own namespace, unless core_pattern has `%P`",
    ),
];

/// Stores the core in `stream`. `cgroup` is that of the owner, empty if it is not known, and was checked by the collector;
/// `origin` says where the file was; `facts` are the values of the pattern's specifiers.
///
/// # Errors
/// As [`super::capture`].
pub(super) fn collect(
    settings: &HandlerSettings,
    cgroup: &OsStr,
    origin: &OsStr,
    facts: &[OsString],
    stream: File,
    log: HandlerLog,
) -> Result<Captured, SpoolError> {
    // Of two values of one specifier the first one counts, and the collector's own come first.
    let mut arguments = HandlerArguments::parse(facts.iter().cloned());
    // A pattern has the specifiers that the operator chose.
    arguments.problems.clear();
    let settings = HandlerSettings {
        release: Release::Hold,
        pin: false,
        source: Source::Pipe,
        strategy: Strategy::Zstd,
        kill_trace: None,
        chain: None,
        ..settings.clone()
    };
    let origin = RawText::from(origin.as_bytes());
    let mut gaps = vec![Gap {
        what: "core".to_owned(),
        why: format!("the kernel wrote it to {origin}, where the container could change it"),
    }];
    gaps.extend(MISSING.map(|(what, why)| Gap {
        what: what.to_owned(),
        why: why.to_owned(),
    }));
    let cgroup = Some(cgroup.as_bytes()).filter(|cgroup| !cgroup.is_empty());
    let owner = cgroup.and_then(Owner::from_cgroup);
    let prepared = Prepared::without_process(cgroup.map(RawText::from), gaps, log);
    capture_owned(&arguments, &settings, stream, prepared, owner)
}

/// Prints where the entry is.
///
/// # Errors
/// If standard output is closed.
pub(super) fn print(captured: &Captured) -> std::io::Result<()> {
    let path = captured
        .path
        .as_deref()
        .map(|path| path.as_os_str().as_bytes());
    let mut output = std::io::stdout();
    output.write_all(path.unwrap_or_default())?;
    output.flush()
}
