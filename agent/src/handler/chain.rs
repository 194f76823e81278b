//! Hands the core on to the previous owner of the core pattern.
//!
//! ```text
//! kernel ─▶ capture ─▶ sealed entry ─▶ previous handler's standard input, or a file
//!                         (the stored core, decompressed)
//! ```
//!
//! Only when the dump is sealed: whatever the other one does, hangs or fails, the dump is not touched.
//! The process is kept until the other one is done, as the kernel would, for it may look at
//! `/proc/<pid>`; but not for longer than [`TIME_LIMIT`]. Specifiers are expanded as `fs/coredump.c` does
//! it, after the pattern was split into words: no shell sees them, and a name with spaces is one word. A
//! file is opened with the rights of the user whose process it was, as the kernel opens it: a link or a
//! directory that this user could not have written to is useless.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cdh_bundle::{CoreEncoding, EntryKind, Manifest, RawText};
use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{Gid, Uid};

use super::capture::state::Captured;
use super::os::isolated;
use super::os::proc_status::{innermost_id, status_field};
use super::process::file_systems::{is_local_path, root_of};
use super::startup::arguments::HandlerArguments;
use super::startup::log::{Level, kernel_log};
use super::startup::settings::HandlerSettings;

/// systemd-coredump gets five minutes by its unit; a crashed process cannot wait for ever.
const TIME_LIMIT: Duration = Duration::from_secs(600);
/// Bytes that are moved at once.
const PIECE: usize = 256 << 10;

/// What is known of the process when its dump begins, and gone when it ends.
#[derive(Debug, Default)]
pub(super) struct ChainFacts {
    /// Path of its program.
    exe: RawText,
    /// Soft limit of its core, as `%c` shows it.
    limit: String,
    /// Its working directory, for patterns that begin there.
    directory: Option<File>,
    /// Whether it sees the node's own files.
    is_of_the_node: bool,
}

impl ChainFacts {
    /// Looks at the process while it is there. Its working directory is opened only for a pattern that
    /// begins there, and never on a file system whose server may not answer; its root is judged by the
    /// kernel's table of mounts, for the same reason.
    pub(super) fn of(arguments: &HandlerArguments, pattern: &RawText) -> Self {
        let Some(pid) = arguments.pid else {
            return Self::default();
        };
        let process = Path::new("/proc").join(pid.to_string());
        let exe = std::fs::read_link(process.join("exe")).unwrap_or_default();
        let mounts = |path: &Path| std::fs::read(path.join("mountinfo")).unwrap_or_default();
        let mounts = [mounts(&process), mounts(Path::new("/proc/self"))];
        let [root, own_root] = mounts.each_ref().map(|mounts| root_of(mounts));
        let begins_there = !matches!(pattern.as_bytes().first(), None | Some(b'|' | b'@' | b'/'));
        let directory = Some(process.join("cwd")).filter(|link| {
            let path = std::fs::read_link(link).unwrap_or_default();
            begins_there && is_local_path(&mounts[0], &path)
        });
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            directory.and_then(|link| rustix::fs::open(link, flags, Mode::empty()).ok());
        let limits = std::fs::read_to_string(process.join("limits")).unwrap_or_default();
        let limit = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max core file size"));
        let limit = limit
            .and_then(|rest| rest.split_whitespace().next())
            .unwrap_or("0");
        Self {
            exe: RawText::from(exe.as_os_str().as_bytes()),
            limit: match limit {
                "unlimited" => u64::MAX.to_string(),
                number => number.to_owned(),
            },
            directory: directory.map(File::from),
            is_of_the_node: root.is_some() && root == own_root,
        }
    }
}

/// Hands on the core of a sealed entry. Returns the outcome.
///
/// # Errors
/// A sentence for the log: the other one got nothing, or not all.
pub(super) fn hand_on(
    pattern: &RawText,
    arguments: &HandlerArguments,
    facts: &ChainFacts,
    entry: &Path,
) -> Result<String, String> {
    let arguments = &completed(arguments, entry);
    let pattern = pattern.as_bytes();
    match pattern.first() {
        None => Err("the previous pattern is empty: no program wanted cores".to_owned()),
        Some(b'@') => Err(
            "the one from before listens at a socket, which only the kernel can serve".to_owned(),
        ),
        Some(b'|') => {
            let words = words(pattern.get(1..).unwrap_or_default(), arguments, facts);
            to_program(&words, stored_core(entry)?.as_mut(), TIME_LIMIT)
        }
        Some(_) => {
            // In a child: a directory of a user's may be on a file system that does not answer.
            let directory: Vec<_> = facts.directory.iter().map(AsFd::as_fd).collect();
            let write = || -> Result<String, String> {
                to_file(pattern, arguments, facts, stored_core(entry)?.as_mut())
            };
            isolated::run(TIME_LIMIT, &directory, write).map_err(|error| error.to_string())?
        }
    }
}

/// Through the socket the kernel passes neither the signal nor the thread: both are in the core, and by
/// now in the manifest. The process is still there. What was found to be privileged remains so.
fn completed(arguments: &HandlerArguments, entry: &Path) -> HandlerArguments {
    let mut arguments = arguments.clone();
    let json = std::fs::read(entry.join(EntryKind::Manifest.file_name())).unwrap_or_default();
    let Ok(manifest) = Manifest::from_json(&json) else {
        return arguments;
    };
    arguments.dumpable = manifest.process.dumpable.or(arguments.dumpable);
    if arguments.signal.is_some() {
        return arguments;
    }
    arguments.signal = Some(manifest.signal.number).filter(|number| *number > 0);
    let tid = manifest.process.tid.and_then(|tid| u32::try_from(tid).ok());
    if let (Some(pid), Some(tid)) = (arguments.pid, tid)
        && arguments.tid != Some(tid)
    {
        arguments.tid = Some(tid);
        let status = std::fs::read(format!("/proc/{pid}/task/{tid}/status")).unwrap_or_default();
        arguments.namespace_tid = innermost_id(&status, "NSpid");
        if let Some(name) = status_field(&status, "Name") {
            arguments.name = RawText::from(name);
        }
    }
    arguments
}

/// The stored core, as the kernel wrote it.
fn stored_core(entry: &Path) -> Result<Box<dyn Read + Send>, String> {
    let open = |encoding| {
        let path = entry.join(EntryKind::Core(encoding).file_name());
        rustix::fs::open(
            path,
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
    };
    if let Ok(file) = open(CoreEncoding::ZstdSeekable) {
        let decoder = zstd::Decoder::new(File::from(file)).map_err(|error| error.to_string())?;
        return Ok(Box::new(decoder));
    }
    match open(CoreEncoding::None) {
        Ok(file) => Ok(Box::new(File::from(file))),
        Err(_) => Err("no core was kept of it".to_owned()),
    }
}

/// The words of a pattern with its specifiers expanded, each in its word.
fn words(command: &[u8], arguments: &HandlerArguments, facts: &ChainFacts) -> Vec<OsString> {
    let words = command
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty());
    words
        .map(|word| OsStr::from_bytes(&expand(word, arguments, facts)).to_owned())
        .collect()
}

/// `%p` and its like, as `format_corename` puts them.
fn expand(text: &[u8], arguments: &HandlerArguments, facts: &ChainFacts) -> Vec<u8> {
    let number = |number: Option<u32>| {
        number
            .map(|number| number.to_string())
            .unwrap_or_default()
            .into_bytes()
    };
    let mut out = Vec::new();
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            // A single one at the end is dropped.
            None => break,
            Some(b'%') => out.push(b'%'),
            Some(b'p') => out.extend(number(arguments.namespace_pid.or(arguments.pid))),
            Some(b'P') => out.extend(number(arguments.pid)),
            Some(b'i') => out.extend(number(arguments.namespace_tid.or(arguments.tid))),
            Some(b'I') => out.extend(number(arguments.tid)),
            Some(b'u') => out.extend(number(arguments.uid)),
            Some(b'g') => out.extend(number(arguments.gid)),
            Some(b'd') => out.extend(number(arguments.dumpable)),
            Some(b's') => out.extend(
                arguments
                    .signal
                    .map(|signal| signal.to_string())
                    .unwrap_or_default()
                    .into_bytes(),
            ),
            Some(b't') => out.extend(
                arguments
                    .time
                    .map(|time| time.to_string())
                    .unwrap_or_default()
                    .into_bytes(),
            ),
            Some(b'h') => out.extend(escaped(arguments.hostname.as_bytes())),
            Some(b'e') => out.extend(escaped(arguments.name.as_bytes())),
            Some(b'f') => {
                let name = facts.exe.as_bytes().rsplit(|byte| *byte == b'/').next();
                let name = name.filter(|name| !name.is_empty());
                out.extend(escaped(name.unwrap_or(arguments.name.as_bytes())));
            }
            Some(b'E') => out.extend(facts.exe.as_bytes().iter().map(|byte| match byte {
                b'/' => b'!',
                byte => *byte,
            })),
            Some(b'c') => out.extend(facts.limit.as_bytes()),
            // `%C` and `%F` are the kernel's alone; what it does not know it drops too.
            Some(_) => {}
        }
    }
    out
}

/// `cn_esc_printf`: no slash, and neither `.` nor `..` alone.
fn escaped(text: &[u8]) -> Vec<u8> {
    let mut text: Vec<u8> = text
        .iter()
        .map(|byte| match byte {
            b'/' => b'!',
            byte => *byte,
        })
        .collect();
    if matches!(text.as_slice(), b"." | b"..")
        && let Some(first) = text.first_mut()
    {
        *first = b'!';
    }
    if text.is_empty() {
        text.push(b'!');
    }
    text
}

/// Starts the previous handler as the kernel would: absolute path, `/`, nothing in its environment.
fn to_program(
    words: &[OsString],
    core: &mut (dyn Read + Send),
    limit: Duration,
) -> Result<String, String> {
    let Some((program, arguments)) = words.split_first() else {
        return Err("the pattern from before names no program".to_owned());
    };
    let shown = RawText::from(program.as_bytes());
    if !Path::new(program).is_absolute() {
        return Err(format!("`{shown}` from before is no absolute path"));
    }
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start `{shown}`: {error}"))?;
    // A receiver is spared when memory is short; what another program starts is not to be.
    let _ = std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), "0");
    let Some(mut input) = child.stdin.take() else {
        return Err(format!("`{shown}` has no standard input"));
    };
    let deadline = Instant::now() + limit;
    let (written, status) = std::thread::scope(|scope| {
        let writer = scope.spawn(move || copy(core, &mut input));
        let mut killed = false;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) if Instant::now() > deadline && !killed => {
                    killed = true;
                    // The writer then gets a broken pipe.
                    let _ = child.kill();
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Err(error) => break Err(error),
            }
        };
        (writer.join(), status)
    });
    let written = written.unwrap_or_else(|_| Err(io::Error::other("the copy panicked")));
    let status = status.map_err(|error| format!("lost `{shown}`: {error}"))?;
    match (written, status.success()) {
        (Ok(bytes), true) => Ok(format!("{bytes} bytes handed on to {shown}")),
        (Err(error), true) if error.kind() == io::ErrorKind::BrokenPipe => Ok(format!(
            "handed on to {shown}, which did not want all of it"
        )),
        (Err(error), true) => Err(format!("{shown} did not get all of the core: {error}")),
        (_, false) => Err(format!("{shown} ended with {status}")),
    }
}

fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<u64> {
    let mut buffer = vec![0; PIECE];
    let mut all = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(all),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(buffer.get(..count).unwrap_or_default())?;
        all += count as u64;
    }
}

/// Writes the file that the kernel would have written.
fn to_file(
    pattern: &[u8],
    arguments: &HandlerArguments,
    facts: &ChainFacts,
    core: &mut dyn Read,
) -> Result<String, String> {
    if !facts.is_of_the_node {
        return Err(
            "a file pattern names a place in the container, which is left alone".to_owned(),
        );
    }
    let mut path = expand(pattern, arguments, facts);
    let names_pid = pattern.windows(2).any(|two| two == b"%p" || two == b"%P");
    let uses_pid = std::fs::read("/proc/sys/kernel/core_uses_pid")
        .is_ok_and(|text| text.first() == Some(&b'1'));
    if uses_pid
        && !names_pid
        && let Some(pid) = arguments.namespace_pid.or(arguments.pid)
    {
        path.extend(format!(".{pid}").into_bytes());
    }
    let path = OsStr::from_bytes(&path).to_owned();
    let shown = RawText::from(path.as_bytes());
    let privileged = arguments.dumpable != Some(1);
    let (uid, gid) = match (privileged, arguments.uid, arguments.gid) {
        (false, Some(uid), Some(gid)) => (uid, gid),
        (true, ..) if Path::new(&path).is_absolute() => (0, 0),
        _ => {
            return Err(
                "a program with privileges leaves no core at a place that its user chose"
                    .to_owned(),
            );
        }
    };
    if facts.limit == "0" && !privileged {
        return Err("the process's limit for cores is 0, which counts for files".to_owned());
    }
    let file = open_as(&path, facts.directory.as_ref(), uid, gid);
    let mut file = file.map_err(|error| format!("cannot write {shown}: {error}"))?;
    let limit = facts.limit.parse().unwrap_or(u64::MAX);
    let bytes = copy(&mut core.take(limit), &mut file);
    let bytes = bytes.map_err(|error| format!("{shown} is not complete: {error}"))?;
    Ok(format!("{bytes} bytes written to {shown}"))
}

/// Opens the file in a thread that has the rights of this user and no others: credentials are a
/// thread's own, as long as they are changed by the system calls themselves.
fn open_as(path: &OsStr, directory: Option<&File>, uid: u32, gid: u32) -> io::Result<File> {
    let open = || -> io::Result<File> {
        if uid != 0 || gid != 0 {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::thread::set_thread_groups(&[])?;
            rustix::thread::set_thread_res_gid(gid, gid, gid)?;
            rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = match directory.filter(|_| !Path::new(path).is_absolute()) {
            Some(directory) => openat(directory, path, flags, mode)?,
            None if Path::new(path).is_absolute() => rustix::fs::open(path, flags, mode)?,
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        let file = File::from(file);
        let metadata = file.metadata()?;
        // As the kernel: no pipe, no second name, owned by this user.
        if !metadata.is_file() || metadata.nlink() != 1 || metadata.uid() != uid {
            return Err(io::Error::other(
                "what is there is no plain file of this user's",
            ));
        }
        file.set_len(0)?;
        Ok(file)
    };
    let thread = std::thread::scope(|scope| scope.spawn(open).join());
    thread.unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}

/// The previous owner of the core pattern, if cores are handed on to it.
pub(super) struct Chain {
    previous: Option<(RawText, ChainFacts)>,
}

impl Chain {
    /// Reads what is needed of the process while it exists.
    pub(super) fn begin(settings: &HandlerSettings, arguments: &HandlerArguments) -> Self {
        let previous = settings.chain.clone();
        Self {
            previous: previous.map(|pattern| {
                let facts = ChainFacts::of(arguments, &pattern);
                (pattern, facts)
            }),
        }
    }

    /// Hands the core on and writes the result to the kernel log.
    pub(super) fn hand_on(self, arguments: &HandlerArguments, captured: Option<&Captured>) {
        let entry = captured.and_then(|captured| captured.path.as_ref());
        let (Some((pattern, facts)), Some(entry)) = (self.previous, entry) else {
            return;
        };
        let pid = arguments.pid.unwrap_or(0);
        match hand_on(&pattern, arguments, &facts, entry) {
            Ok(what) => kernel_log(Level::Info, &format!("pid {pid}: {what}")),
            Err(why) => kernel_log(Level::Warning, &format!("pid {pid}: not handed on: {why}")),
        }
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
