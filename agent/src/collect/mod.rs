//! Collects cores that the kernel wrote into files, on nodes whose `core_pattern` cannot be a pipe.
//!
//! ```text
//! kernel ─▶ <root of the container>/<pattern> ─▶ handler, as a child ─▶ spool ─▶ shipper ─▶ store
//!                        ▲                                                                     │
//!                        └──────────────── deleted after the upload ◀────────────────────────┘
//! ```
//!
//! The agent finds a core by its directory (`directories`), waits until it is complete (`core_file`) and starts the
//! handler with the file as standard input. Quotas, rates, policy and verdict are therefore the same as for every
//! other crash. Invariants: the owner is known before the file is opened and does not depend on its content. Each
//! owner has one handler at a time. A file is deleted only if the shipper confirmed that the store has its complete
//! core, and only if it is still the same file. This module installs nothing, and knows neither stores nor container
//! runtimes.

mod core_file;
mod directories;
mod event;
mod pattern;
mod running;
mod starts;
mod stored;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cdh_bundle::{DumpId, RawText};
use rustix::fs::{Dir, Mode, OFlags, openat};

use crate::handler::COLLECT;
use crate::paths::AgentPaths;
use crate::shipper::UploadReceipts;
use core_file::{CandidateFile, Extent, FileIdentity};
use directories::{CoreDirectory, Directories, DirectoryKey, DirectoryOwner, OwnerKey};
pub use event::{CollectError, CollectEvent, CollectOptions, file_pattern};
pub use pattern::FilePattern;
use running::{HandlerResult, RunningHandler};
use starts::ContainerStarts;
use stored::StoredFiles;

/// Between two passes.
const PAUSE: Duration = Duration::from_millis(200);
/// Time between two scans for new processes while a container starts. The runtime changes its root some 20 ms
/// before the first program runs.
const BRIEF: Duration = Duration::from_millis(10);
/// How long an incomplete core must not have grown, if no process of its container is being dumped.
const SETTLED: Duration = Duration::from_secs(3);
/// The same if one is being dumped, which may be another process.
const STUCK: Duration = Duration::from_secs(120);
/// How long the directory of a removed container remains open for cores that are not uploaded. The open
/// directory keeps its volume busy.
const HELD: Duration = Duration::from_secs(120);
/// Maximum files per directory that are collected at once.
const NAMES: usize = 4096;
/// Maximum names of any kind that are read from one directory.
const ALL_NAMES: usize = 65_536;
/// Maximum files per directory whose headers are read in one pass.
const OPENED: usize = 16;
/// Handlers at once.
const HANDLERS: usize = 4;
/// Time before a file whose handler failed is tried again: the spool may have been full.
const RETRY: Duration = Duration::from_secs(300);
/// Seconds for which records of files that are in no known directory are stored.
const REMEMBERED: i64 = 86_400;
/// Time between two searches for obsolete receipts.
const TIDY: Duration = Duration::from_secs(3600);

/// Directory of the record of collected files.
const RECORD: &str = "collected";

/// Removes the collector's files on a node.
pub(crate) fn forget_all(paths: &AgentPaths) {
    let _ = fs::remove_dir_all(paths.state.join(RECORD));
    UploadReceipts::of(&paths.uploads()).end();
}

/// One file in one directory.
type FileKey = (DirectoryKey, OsString);

#[derive(Debug)]
enum FileState {
    /// It may still grow, or waits for a free handler.
    Growing {
        identity: FileIdentity,
        since: Instant,
        /// `None` until its headers are read.
        extent: Option<Extent>,
    },
    /// A handler reads it.
    Running {
        identity: FileIdentity,
        handler: RunningHandler,
    },
    /// Its dump is in the spool or the store.
    Stored {
        identity: FileIdentity,
        dump: Option<DumpId>,
        /// Whether the store does not have the complete core, so the file remains.
        is_kept: bool,
    },
    /// It is not a core, or its handler failed.
    LeftAlone {
        identity: FileIdentity,
        /// Time of the next try.
        retry_at: Option<Instant>,
    },
}

impl FileState {
    fn stored(identity: FileIdentity, dump: Option<DumpId>) -> Self {
        Self::Stored {
            identity,
            dump,
            is_kept: false,
        }
    }

    fn identity(&self) -> FileIdentity {
        match self {
            Self::Growing { identity, .. }
            | Self::Running { identity, .. }
            | Self::Stored { identity, .. }
            | Self::LeftAlone { identity, .. } => *identity,
        }
    }
}

/// The state of one directory in one pass.
#[derive(Debug, Default)]
struct Turn {
    /// Whether one of its processes is being dumped.
    is_dumping: OnceCell<bool>,
    /// Files whose headers were read.
    opened: usize,
}

/// Why a file could not be collected, and which file it was.
type Refusal = (FileIdentity, io::Error);

/// Finds, stores and deletes core files.
#[derive(Debug)]
pub struct Collector {
    options: CollectOptions,
    pattern: FilePattern,
    directories: Directories,
    files: BTreeMap<FileKey, FileState>,
    stored: StoredFiles,
    receipts: UploadReceipts,
    /// Time of the last search for obsolete receipts.
    tidied_at: Option<Instant>,
    /// Directories that were reported to have too many names.
    overfull: BTreeSet<DirectoryKey>,
}

impl Collector {
    /// Starts with the pattern that the kernel uses now.
    ///
    /// # Errors
    /// If the pattern is not an absolute path, or the agent's directories cannot be used.
    pub fn new(options: CollectOptions) -> Result<Self, CollectError> {
        let pattern = file_pattern(&options.paths)?;
        let place = options.paths.state.join(RECORD);
        let stored = StoredFiles::open(&place, NAMES).map_err(|source| CollectError::Io {
            path: place,
            source,
        })?;
        let uploads = options.paths.uploads();
        let receipts = UploadReceipts::of(&uploads);
        receipts.begin().map_err(|source| CollectError::Io {
            path: uploads,
            source,
        })?;
        Ok(Self {
            directories: Directories::new(&options.proc, pattern.directory()),
            pattern,
            options,
            files: BTreeMap::new(),
            stored,
            receipts,
            tidied_at: None,
            overfull: BTreeSet::new(),
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
            if let FileState::Running { handler, .. } = state {
                handler.stop();
            }
        }
    }

    /// Scans all processes and files once.
    pub fn pass(&mut self, observer: &mut dyn FnMut(&CollectEvent)) {
        let _ = self.directories.scan();
        // This precedes the scan of names: a file can vanish while its handler runs.
        self.poll_handlers(observer);
        let mut there = BTreeSet::new();
        let keys: Vec<DirectoryKey> = self.directories.known.keys().copied().collect();
        for key in keys {
            let mut turn = Turn::default();
            for name in self.names(key, observer) {
                let file = (key, name);
                there.insert(file.clone());
                if let Err((identity, error)) = self.advance(&file, &mut turn, observer) {
                    let retry_at = Some(Instant::now() + RETRY);
                    self.fail(&file, identity, retry_at, error.to_string(), observer);
                }
            }
        }
        self.forget(&there);
    }

    /// Names in this directory that match the kernel's pattern.
    fn names(
        &mut self,
        key: DirectoryKey,
        observer: &mut dyn FnMut(&CollectEvent),
    ) -> Vec<OsString> {
        let Some(directory) = self.directories.known.get(&key) else {
            return Vec::new();
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listing = openat(&directory.descriptor, ".", flags, Mode::empty()).and_then(Dir::new);
        let mut names = Vec::new();
        let mut limit = None;
        for (read, item) in listing
            .into_iter()
            .flatten()
            .map_while(Result::ok)
            .enumerate()
        {
            let name = item.file_name().to_bytes();
            if read >= ALL_NAMES {
                limit = Some(ALL_NAMES);
                break;
            }
            if self.pattern.matches(name).is_none() {
                continue;
            }
            if names.len() >= NAMES {
                limit = Some(NAMES);
                break;
            }
            names.push(OsStr::from_bytes(name).to_owned());
        }
        if let Some(limit) = limit
            && self.overfull.insert(key)
        {
            let container = directory.owner.container().map(str::to_owned);
            observer(&CollectEvent::Overfull { container, limit });
        }
        names
    }

    /// Advances a file by one step.
    fn advance(
        &mut self,
        file: &FileKey,
        turn: &mut Turn,
        observer: &mut dyn FnMut(&CollectEvent),
    ) -> Result<(), Refusal> {
        if let Some(FileState::Running { .. }) = self.files.get(file) {
            return Ok(());
        }
        let Some(directory) = self.directories.known.get(&file.0) else {
            return Ok(());
        };
        let account = directory.owner.account();
        let found = core_file::identify(&directory.descriptor, &file.1);
        let Some(candidate) = found.map_err(|error| (FileIdentity::default(), error))? else {
            self.files.remove(file);
            return Ok(());
        };
        let identity = candidate.identity;
        // The name may belong to another file by now.
        let before = { self.files.get(file) }.filter(|state| state.identity() == identity);
        let (since, extent) = match before {
            Some(FileState::Stored { is_kept: true, .. }) => return Ok(()),
            Some(FileState::Stored { dump, .. }) => {
                let dump = *dump;
                let deleted = self.delete_if_uploaded(file, identity, dump, observer);
                return deleted.map_err(|error| (identity, error));
            }
            Some(FileState::LeftAlone { retry_at, .. })
                if retry_at.is_none_or(|at| Instant::now() < at) =>
            {
                return Ok(());
            }
            Some(FileState::Growing { since, extent, .. }) => (*since, *extent),
            _ => (Instant::now(), None),
        };
        let state = match self.stored.get(file.0, identity) {
            Some(dump) => FileState::stored(identity, dump),
            None => {
                let begun = self.begin(file, &account, &candidate, (since, extent), turn);
                begun.map_err(|error| (identity, error))?
            }
        };
        self.files.insert(file.clone(), state);
        Ok(())
    }

    /// Starts the handler if the file is complete and the owner's handler is free.
    fn begin(
        &self,
        file: &FileKey,
        account: &OwnerKey,
        candidate: &CandidateFile,
        (since, extent): (Instant, Option<Extent>),
        turn: &mut Turn,
    ) -> io::Result<FileState> {
        let identity = candidate.identity;
        let growing = |extent| FileState::Growing {
            identity,
            since,
            extent,
        };
        // Waits for a free handler.
        if !self.may_start(account) {
            return Ok(growing(extent));
        }
        let extent = match extent {
            Some(extent) => extent,
            None if turn.opened >= OPENED => return Ok(growing(None)),
            None => {
                turn.opened = turn.opened.saturating_add(1);
                core_file::extent(candidate)?
            }
        };
        Ok(match extent {
            Extent::Foreign => FileState::LeftAlone {
                identity,
                retry_at: None,
            },
            Extent::Partial if !self.has_settled(file.0, since, turn) => growing(Some(extent)),
            Extent::Complete | Extent::Partial => self.start(file, candidate)?,
        })
    }

    fn has_settled(&self, key: DirectoryKey, since: Instant, turn: &Turn) -> bool {
        let unchanged = since.elapsed();
        let is_dumping = || {
            turn.is_dumping
                .get_or_init(|| self.directories.is_dumping(key))
        };
        unchanged >= STUCK || (unchanged >= SETTLED && !is_dumping())
    }

    /// One handler per owner, and a limit in total: an owner with many files only delays its own.
    fn may_start(&self, account: &OwnerKey) -> bool {
        let mut count = 0_usize;
        for state in self.files.values() {
            if let FileState::Running { handler, .. } = state {
                count = count.saturating_add(1);
                if handler.account == *account {
                    return false;
                }
            }
        }
        count < HANDLERS
    }

    fn start(&self, file: &FileKey, candidate: &CandidateFile) -> io::Result<FileState> {
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
            .stdin(candidate.open()?)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        Ok(FileState::Running {
            identity,
            handler: RunningHandler::start(&mut command, &directory.owner)?,
        })
    }

    /// The original path of the file, for the dump.
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

    /// Checks which handlers have ended.
    fn poll_handlers(&mut self, observer: &mut dyn FnMut(&CollectEvent)) {
        let mut ended = Vec::new();
        for (file, state) in &mut self.files {
            if let FileState::Running { identity, handler } = state
                && let Some(result) = handler.poll()
            {
                ended.push((file.clone(), *identity, handler.container.take(), result));
            }
        }
        for (file, identity, container, result) in ended {
            match result {
                HandlerResult::Stored(dump) => {
                    self.files
                        .insert(file.clone(), FileState::stored(identity, dump));
                    observer(&CollectEvent::Collected {
                        name: RawText::from(file.1.as_bytes()),
                        container,
                        dump,
                    });
                    if let Err(error) = self.stored.insert(file.0, identity, dump) {
                        let why = format!("cannot record that it is stored: {error}");
                        observer(&CollectEvent::Failed {
                            name: RawText::from(file.1.as_bytes()),
                            why,
                        });
                    }
                }
                HandlerResult::Failed { why, is_final } => {
                    let retry_at = (!is_final).then(|| Instant::now() + RETRY);
                    self.fail(&file, identity, retry_at, why, observer);
                }
            }
        }
    }

    /// Deletes a file whose dump has left the spool if the store confirmed it. The shipper writes the receipt before
    /// it removes the entry, so check the spool first.
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
        let name = RawText::from(file.1.as_bytes());
        if !self.receipts.has(dump) {
            let kept = FileState::Stored {
                identity,
                dump: Some(dump),
                is_kept: true,
            };
            self.files.insert(file.clone(), kept);
            observer(&CollectEvent::Kept { name, dump });
            return Ok(());
        }
        if core_file::remove(&directory.descriptor, &file.1, identity)? {
            observer(&CollectEvent::Deleted { name, dump });
            let _ = self.stored.remove(file.0, identity);
            self.receipts.remove(dump);
        }
        self.files.remove(file);
        Ok(())
    }

    /// Whether the dump is still in the spool; also true if that cannot be read.
    fn is_in_spool(&self, dump: DumpId) -> bool {
        let spool = &self.options.paths.spool;
        let names = [dump.to_string(), format!("{dump}.partial")];
        !spool.is_dir()
            || names
                .iter()
                .any(|name| !matches!(spool.join(name).try_exists(), Ok(false)))
    }

    /// Ignores a file from now on, and reports that once.
    fn fail(
        &mut self,
        file: &FileKey,
        identity: FileIdentity,
        retry_at: Option<Instant>,
        why: String,
        observer: &mut dyn FnMut(&CollectEvent),
    ) {
        let before = self
            .files
            .insert(file.clone(), FileState::LeftAlone { identity, retry_at });
        if !matches!(before, Some(FileState::LeftAlone { .. })) {
            observer(&CollectEvent::Failed {
                name: RawText::from(file.1.as_bytes()),
                why,
            });
        }
    }

    /// Forgets files that vanished, and directories of removed containers without pending files.
    fn forget(&mut self, there: &BTreeSet<FileKey>) {
        self.files
            .retain(|key, state| there.contains(key) || matches!(state, FileState::Running { .. }));
        let waits = |key: &DirectoryKey| {
            self.files.iter().any(|((of, _), state)| {
                of == key
                    && match state {
                        FileState::Growing { .. } | FileState::Running { .. } => true,
                        FileState::Stored { dump, is_kept, .. } => dump.is_some() && !is_kept,
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
        let known = &self.directories.known;
        self.overfull.retain(|key| known.contains_key(key));
        let of_files = { self.files.iter() }.map(|((key, _), state)| (*key, state.identity()));
        let there: BTreeSet<(DirectoryKey, FileIdentity)> = of_files.collect();
        let now = jiff::Timestamp::now().as_second();
        let is_recent = |file: &FileIdentity| {
            let age = now.saturating_sub(file.modified_at());
            (0..REMEMBERED).contains(&age)
        };
        let _ = self
            .stored
            .retain(|key, file| is_recent(file) || there.contains(&(key, *file)));
        if self.tidied_at.is_none_or(|at| at.elapsed() >= TIDY) {
            self.tidied_at = Some(Instant::now());
            self.receipts.retain(|dump| self.stored.has_dump(dump));
        }
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
