//! Collects cores that the kernel wrote into files, on nodes whose `core_pattern` cannot be a pipe.
//!
//! ```text
//! kernel ─▶ <root of the container>/<pattern> ─▶ handler, as a child ─▶ spool ─▶ shipper ─▶ store
//!                        ▲                                                                     │
//!                        └──────────────── deleted after the upload ◀────────────────────────┘
//! ```
//!
//! The agent finds a core by its place (`directories`), waits until it is complete (`core_file`) and starts the
//! handler with the file as standard input. So quotas, rates, policy and verdict are those of every other crash.
//! Invariants: the owner is known before the file is opened and does not depend on what is in it; one owner has one
//! handler at a time; a file is deleted only after its dump left the spool for the store, and only if it is still the
//! same file. It does not install anything, and knows neither stores nor container runtimes.

mod core_file;
mod directories;
mod pattern;
mod starts;
mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cdh_bundle::{DumpId, RawText};
use rustix::fs::{Dir, Mode, OFlags, openat};

use crate::handler::COLLECT;
use crate::paths::AgentPaths;
use core_file::{CandidateFile, Extent, FileIdentity};
use directories::{CoreDirectory, Directories, DirectoryKey, DirectoryOwner};
pub use pattern::FilePattern;
use starts::ContainerStarts;
use stored::StoredFiles;

/// Between two passes.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two looks at new processes while a container starts. The runtime changes its root some 20 ms before the
/// first program runs.
const BRIEF: Duration = Duration::from_millis(10);
/// How long a core that is not complete must not have grown, if no process of its container is being dumped.
const SETTLED: Duration = Duration::from_secs(3);
/// The same if one is: another process than that of this core, perhaps.
const STUCK: Duration = Duration::from_secs(120);
/// How long the directory of a container that is gone remains open for cores that are not uploaded. It keeps the
/// volume busy that it is on.
const HELD: Duration = Duration::from_secs(120);
/// Names that are looked at in one directory.
const NAMES: usize = 4096;
/// Handlers at once.
const HANDLERS: usize = 4;
/// When a file whose handler failed is tried again: the spool may have had no room.
const RETRY: Duration = Duration::from_secs(300);
/// Records of files that are in no directory are kept for so many seconds.
const REMEMBERED: i64 = 86_400;
/// How long one may take: longer than the copy of a core.
const DEADLINE: Duration = Duration::from_secs(2 * 3600);

/// Where the record of collected files is.
const RECORD: &str = "collected";

/// What a collector needs to know.
#[derive(Clone, Debug)]
pub struct CollectOptions {
    /// The agent's own directories.
    pub paths: AgentPaths,
    /// `/proc`, in which the node's processes are visible.
    pub proc: PathBuf,
    /// Program and first arguments that run the handler.
    pub handler: Vec<OsString>,
    /// File with the handler's settings.
    pub settings: PathBuf,
}

/// What happened to a core file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CollectEvent {
    /// Its dump is in the spool; `None` if the policy wants none.
    Collected {
        /// Name of the file.
        name: RawText,
        /// The container's id; `None` for the host and for shared directories.
        container: Option<String>,
        /// The dump.
        dump: Option<DumpId>,
    },
    /// Its dump is uploaded and the file deleted.
    Deleted {
        /// Name of the file.
        name: RawText,
        /// The dump.
        dump: DumpId,
    },
    /// It could not be collected or deleted.
    Failed {
        /// Name of the file.
        name: RawText,
        /// Why.
        why: String,
    },
}

/// Why cores cannot be collected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// The kernel does not write cores to an absolute path.
    #[error("core_pattern is `{pattern}`, not an absolute path whose directory has no `%`")]
    Pattern {
        /// The pattern.
        pattern: String,
    },
    /// A file or directory cannot be used.
    #[error("cannot use {path}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// The pattern that the kernel uses now.
///
/// # Errors
/// If it is no absolute path.
pub fn file_pattern(paths: &AgentPaths) -> Result<FilePattern, CollectError> {
    let path = &paths.settings.core_pattern;
    let text = fs::read(path).map_err(|source| CollectError::Io {
        path: path.clone(),
        source,
    })?;
    let uses_pid = fs::read(path.with_file_name("core_uses_pid"));
    let uses_pid = uses_pid.is_ok_and(|text| text.trim_ascii() == b"1");
    FilePattern::parse(&text, uses_pid).ok_or_else(|| CollectError::Pattern {
        pattern: RawText::from(text.trim_ascii_end()).to_string(),
    })
}

/// One file in one directory.
type FileKey = (DirectoryKey, OsString);

#[derive(Debug)]
enum FileState {
    /// It may still grow.
    Growing {
        identity: FileIdentity,
        since: Instant,
    },
    /// A handler reads it.
    Running {
        identity: FileIdentity,
        child: Child,
        since: Instant,
    },
    /// Its dump is in the spool or the store.
    Stored {
        identity: FileIdentity,
        dump: Option<DumpId>,
    },
    /// It is no core, or its handler failed.
    LeftAlone {
        identity: FileIdentity,
        /// When it is tried again.
        retry_at: Option<Instant>,
    },
}

/// Finds, stores and deletes core files.
#[derive(Debug)]
pub struct Collector {
    options: CollectOptions,
    pattern: FilePattern,
    directories: Directories,
    files: BTreeMap<FileKey, FileState>,
    stored: StoredFiles,
}

impl Collector {
    /// Begins with the pattern that the kernel uses now.
    ///
    /// # Errors
    /// If the pattern is no absolute path, or the agent's directory cannot be used.
    pub fn new(options: CollectOptions) -> Result<Self, CollectError> {
        let pattern = file_pattern(&options.paths)?;
        let place = options.paths.state.join(RECORD);
        let stored = StoredFiles::open(&place).map_err(|source| CollectError::Io {
            path: place,
            source,
        })?;
        Ok(Self {
            directories: Directories::new(&options.proc, pattern.directory()),
            pattern,
            options,
            files: BTreeMap::new(),
            stored,
        })
    }

    /// Collects until `stop` is set.
    pub fn run_until(&mut self, stop: &AtomicBool, observer: &mut dyn FnMut(&CollectEvent)) {
        let mut starts = ContainerStarts::open(&self.options.proc);
        while !stop.load(Ordering::Relaxed) {
            self.pass(observer);
            let next = Instant::now() + PAUSE;
            loop {
                let left = next.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                if starts.may_start() {
                    let _ = self.directories.scan();
                    starts.wait(left.min(BRIEF));
                } else {
                    starts.wait(left);
                }
            }
        }
        for state in self.files.values_mut() {
            if let FileState::Running { child, .. } = state {
                // What it wrote is salvaged by the shipper.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    /// Looks once at all processes and files.
    pub fn pass(&mut self, observer: &mut dyn FnMut(&CollectEvent)) {
        let _ = self.directories.scan();
        let mut there = BTreeSet::new();
        let keys: Vec<DirectoryKey> = self.directories.known.keys().copied().collect();
        for key in keys {
            for name in self.names(key) {
                let file = (key, name);
                there.insert(file.clone());
                if let Err(why) = self.advance(&file, observer) {
                    self.fail(&file, why.to_string(), observer);
                }
            }
        }
        self.forget(&there);
    }

    /// Names in this directory that the kernel may have made.
    fn names(&self, key: DirectoryKey) -> Vec<OsString> {
        let Some(directory) = self.directories.known.get(&key) else {
            return Vec::new();
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listing = openat(&directory.descriptor, ".", flags, Mode::empty()).and_then(Dir::new);
        let names = listing.into_iter().flatten().flatten().take(NAMES);
        let names = names.map(|item| OsStr::from_bytes(item.file_name().to_bytes()).to_owned());
        names
            .filter(|name| self.pattern.matches(name.as_bytes()).is_some())
            .collect()
    }

    /// Takes a file one step further.
    fn advance(
        &mut self,
        file: &FileKey,
        observer: &mut dyn FnMut(&CollectEvent),
    ) -> io::Result<()> {
        match self.files.get_mut(file) {
            Some(FileState::Running { .. }) => return self.wait_for(file, observer),
            Some(FileState::Stored { identity, dump }) => {
                let (identity, dump) = (*identity, *dump);
                return self.delete_if_uploaded(file, identity, dump, observer);
            }
            _ => {}
        }
        let Some(directory) = self.directories.known.get(&file.0) else {
            return Ok(());
        };
        let Some(candidate) = core_file::open(&directory.descriptor, &file.1)? else {
            return Ok(());
        };
        let identity = candidate.identity;
        if let Some(dump) = self.stored.get(identity) {
            self.files
                .insert(file.clone(), FileState::Stored { identity, dump });
            return Ok(());
        }
        let since = match self.files.get(file) {
            Some(FileState::LeftAlone {
                identity: before,
                retry_at,
            }) if *before == identity && retry_at.is_none_or(|at| Instant::now() < at) => {
                return Ok(());
            }
            Some(FileState::Growing {
                identity: before,
                since,
            }) if *before == identity => *since,
            _ => Instant::now(),
        };
        let state = match core_file::extent(&candidate)? {
            Extent::Foreign => FileState::LeftAlone {
                identity,
                retry_at: None,
            },
            Extent::Partial if !self.has_settled(file.0, since) => {
                FileState::Growing { identity, since }
            }
            Extent::Complete | Extent::Partial if self.may_start(file.0) => {
                self.start(file, candidate)?
            }
            // Its turn comes.
            Extent::Complete | Extent::Partial => FileState::Growing { identity, since },
        };
        self.files.insert(file.clone(), state);
        Ok(())
    }

    fn has_settled(&self, key: DirectoryKey, since: Instant) -> bool {
        let unchanged = since.elapsed();
        unchanged >= STUCK || (unchanged >= SETTLED && !self.directories.is_dumping(key))
    }

    /// One handler for each directory, and a few in all: an owner with many files waits for its own.
    fn may_start(&self, key: DirectoryKey) -> bool {
        let running = self
            .files
            .iter()
            .filter(|(_, state)| matches!(state, FileState::Running { .. }));
        let running: Vec<DirectoryKey> = running.map(|((key, _), _)| *key).collect();
        running.len() < HANDLERS && !running.contains(&key)
    }

    fn start(&self, file: &FileKey, candidate: CandidateFile) -> io::Result<FileState> {
        let (Some(directory), Some((program, words))) = (
            self.directories.known.get(&file.0),
            self.options.handler.split_first(),
        ) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let identity = candidate.identity;
        let mut command = Command::new(program);
        command.args(words).arg(COLLECT).arg(&self.options.settings);
        command
            .arg(cgroup_of(directory))
            .arg(self.origin(directory, &file.1));
        command
            .arg(format!("u{}", candidate.uid))
            .arg(format!("g{}", candidate.gid));
        command.arg(format!("t{}", identity.modified_at()));
        command.args(self.pattern.matches(file.1.as_bytes()).unwrap_or_default());
        command
            .stdin(candidate.file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        Ok(FileState::Running {
            identity,
            child: command.spawn()?,
            since: Instant::now(),
        })
    }

    /// Where the file was, for the dump.
    fn origin(&self, directory: &CoreDirectory, name: &OsStr) -> OsString {
        let mut text = self.pattern.directory().join(name).into_os_string();
        text.push(match &directory.owner {
            DirectoryOwner::Container { .. } => " in the container",
            DirectoryOwner::Pod { .. } => {
                " in a volume that containers of the pod share, so the container is not known"
            }
            DirectoryOwner::Host => " on the node",
            DirectoryOwner::Shared => {
                " in a directory that several pods share, so the owner is not known"
            }
        });
        text
    }

    fn wait_for(
        &mut self,
        file: &FileKey,
        observer: &mut dyn FnMut(&CollectEvent),
    ) -> io::Result<()> {
        let Some(FileState::Running {
            identity,
            child,
            since,
        }) = self.files.get_mut(file)
        else {
            return Ok(());
        };
        let identity = *identity;
        let Some(status) = child.try_wait()? else {
            if since.elapsed() > DEADLINE {
                child.kill()?;
            }
            return Ok(());
        };
        let mut text = String::new();
        if let Some(output) = child.stdout.take() {
            output.take(4096).read_to_string(&mut text)?;
        }
        if !status.success() {
            self.fail(file, format!("the handler failed: {status}"), observer);
            return Ok(());
        }
        // The handler prints the path of the sealed entry.
        let dump = Path::new(text.trim())
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        let container = self
            .directories
            .known
            .get(&file.0)
            .and_then(|directory| match &directory.owner {
                DirectoryOwner::Container { id, .. } => Some(id.clone()),
                _ => None,
            });
        self.files
            .insert(file.clone(), FileState::Stored { identity, dump });
        observer(&CollectEvent::Collected {
            name: RawText::from(file.1.as_bytes()),
            container,
            dump,
        });
        self.stored.insert(identity, dump)
    }

    /// Deletes a file whose dump has left the spool: the shipper removes an entry after the store has it.
    fn delete_if_uploaded(
        &mut self,
        file: &FileKey,
        identity: FileIdentity,
        dump: Option<DumpId>,
        observer: &mut dyn FnMut(&CollectEvent),
    ) -> io::Result<()> {
        let Some(directory) = self.directories.known.get(&file.0) else {
            return Ok(());
        };
        let Some(dump) = dump.filter(|dump| !self.is_in_spool(*dump)) else {
            return Ok(());
        };
        if core_file::remove(&directory.descriptor, &file.1, identity)? {
            observer(&CollectEvent::Deleted {
                name: RawText::from(file.1.as_bytes()),
                dump,
            });
        }
        self.files.remove(file);
        Ok(())
    }

    /// Whether the dump still waits; also if that cannot be read.
    fn is_in_spool(&self, dump: DumpId) -> bool {
        let spool = &self.options.paths.spool;
        let names = [dump.to_string(), format!("{dump}.partial")];
        !spool.is_dir()
            || names
                .iter()
                .any(|name| !matches!(spool.join(name).try_exists(), Ok(false)))
    }

    fn fail(&mut self, file: &FileKey, why: String, observer: &mut dyn FnMut(&CollectEvent)) {
        let identity = match self.files.get(file) {
            Some(
                FileState::Growing { identity, .. }
                | FileState::Running { identity, .. }
                | FileState::Stored { identity, .. },
            ) => *identity,
            Some(FileState::LeftAlone { .. }) => return,
            None => FileIdentity::default(),
        };
        let retry_at = Some(Instant::now() + RETRY);
        self.files
            .insert(file.clone(), FileState::LeftAlone { identity, retry_at });
        observer(&CollectEvent::Failed {
            name: RawText::from(file.1.as_bytes()),
            why,
        });
    }

    /// Forgets files that are gone, and directories whose containers are gone and that hold nothing to wait for.
    fn forget(&mut self, there: &BTreeSet<FileKey>) {
        self.files
            .retain(|key, state| there.contains(key) || matches!(state, FileState::Running { .. }));
        let waits = |key: &DirectoryKey| {
            self.files.iter().any(|((of, _), state)| {
                of == key
                    && match state {
                        FileState::Growing { .. } | FileState::Running { .. } => true,
                        FileState::Stored { dump, .. } => dump.is_some(),
                        FileState::LeftAlone { .. } => false,
                    }
            })
        };
        let is_over = |key: &DirectoryKey, directory: &CoreDirectory| {
            let left = directory.left_at.map(|at| at.elapsed());
            left.is_some_and(|left| left >= HELD || (left >= PAUSE && !waits(key)))
        };
        let over: BTreeSet<DirectoryKey> = { self.directories.known.iter() }
            .filter(|(key, directory)| is_over(key, directory))
            .map(|(key, _)| *key)
            .collect();
        self.directories.known.retain(|key, _| !over.contains(key));
        self.files.retain(|(key, _), state| {
            !over.contains(key) || matches!(state, FileState::Running { .. })
        });
        let known: BTreeSet<FileIdentity> = { self.files.values() }
            .filter_map(|state| match state {
                FileState::Stored { identity, .. } => Some(*identity),
                _ => None,
            })
            .collect();
        let now = jiff::Timestamp::now().as_second();
        let is_recent = |file: &FileIdentity| {
            let age = now.saturating_sub(file.modified_at());
            (0..REMEMBERED).contains(&age)
        };
        let _ = self
            .stored
            .retain(|file| known.contains(file) || is_recent(file));
    }
}

/// The cgroup by which the handler identifies the owner; empty if there is none.
fn cgroup_of(directory: &CoreDirectory) -> OsString {
    match &directory.owner {
        DirectoryOwner::Container { cgroup, .. } | DirectoryOwner::Pod { cgroup, .. } => {
            OsStr::from_bytes(cgroup).to_owned()
        }
        DirectoryOwner::Host => OsString::from("0::/\n"),
        DirectoryOwner::Shared => OsString::new(),
    }
}

#[cfg(test)]
mod tests;
