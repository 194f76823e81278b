//! Keeps the ELF files that a crashed process had mapped, once per build-id, under
//! `modules/<build-id>` in the store: dumps of host processes, and of images that are gone from their
//! registry, stay debuggable.
//!
//! The process's root directory is taken hold of as soon as its entry appears in the spool. A directory
//! that is held can be read after the process, and after its container's mounts, are gone. What is read
//! through it, or through the node's own root where that came too late, is believed by its build-id
//! alone. A module that cannot be kept is told and stands in nobody's way.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use cdh_bundle::{DumpId, Manifest, ModuleRecord, SpoolEntry, SpoolState};
use cdh_elfcore::{BuildId, ElfObject, ModuleKind};
use cdh_store::{ObjectKey, ObjectStat, Store, StoreError};
use jiff::Timestamp;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use super::sweep::explain;
use crate::handler::is_local_path;

/// Roots that are held at once; a storm of crashes must not take all descriptors.
const MAX_ROOTS: usize = 256;
/// Modules of one dump.
const MAX_MODULES: usize = 4096;
/// No module is larger.
const MAX_FILE: u64 = 4 << 30;
/// The build-id's note stands behind the program headers.
const HEAD: usize = 64 << 10;
/// Build-ids that are remembered to be in the store.
const MAX_KNOWN: usize = 100_000;
/// `cdh gc` deletes no module that is younger than a day: so long after it was written one is there surely,
/// and a dump that needs it has as long again to arrive.
const YOUNG: Duration = Duration::from_secs(12 * 3600);
/// An older one may go as soon as no dump in the store needs it.
const SEEN: Duration = Duration::from_secs(60);
/// The handler writes who crashed within a millisecond of making the entry.
const IDENTITY_TRIES: u32 = 10;
const IDENTITY_PAUSE: Duration = Duration::from_millis(1);
/// No identity is larger.
const MAX_IDENTITY: u64 = 4 << 20;

/// What was kept of one dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeptModules {
    /// Files that the store did not have.
    pub(super) uploaded: usize,
    /// Modules that are not in the store now, by path.
    pub(super) missing: Vec<String>,
}

/// A root directory, and the mounts below it as they were when it was opened. A file on a file system
/// whose server may not answer is not opened: whoever reads it could sleep for ever.
struct Root {
    directory: OwnedFd,
    mounts: Vec<u8>,
}

impl Root {
    /// Of the process with this id in `/proc`.
    fn of(process: &str) -> Option<Self> {
        let place = Path::new("/proc").join(process);
        // The table first: opening the directory itself asks its file system.
        let mounts = std::fs::read(place.join("mountinfo")).ok()?;
        if !is_local_path(&mounts, Path::new("/")) {
            return None;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, place.join("root"), flags, Mode::empty()).ok()?;
        Some(Self { directory, mounts })
    }
}

/// Keeps modules; does nothing unless it was asked to.
#[derive(Default)]
pub(super) struct ModuleKeeper {
    enabled: bool,
    roots: BTreeMap<DumpId, Root>,
    /// Until when each is surely there.
    known: BTreeMap<BuildId, Instant>,
}

impl ModuleKeeper {
    pub(super) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            ..Self::default()
        }
    }

    /// Takes hold of the roots of processes whose handlers are at work, and lets go of others'.
    pub(super) fn notice(&mut self, entries: &[SpoolEntry]) {
        if !self.enabled {
            return;
        }
        self.roots
            .retain(|id, _| entries.iter().any(|entry| entry.id == *id));
        for entry in entries {
            let is_new = entry.state == SpoolState::Live && !self.roots.contains_key(&entry.id);
            if is_new
                && self.roots.len() < MAX_ROOTS
                && let Some(root) = root_of(entry)
            {
                self.roots.insert(entry.id, root);
            }
        }
    }

    /// Brings the modules of a dump into the store. Called again after the dump was sent, it asks only about
    /// those that somebody may have removed meanwhile.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(super) fn keep(
        &mut self,
        store: &dyn Store,
        manifest: &Manifest,
    ) -> Result<KeptModules, StoreError> {
        let mut kept = KeptModules::default();
        if !self.enabled {
            return Ok(kept);
        }
        let now = Instant::now();
        let node = Root::of("self");
        let wanted = manifest
            .modules
            .iter()
            .filter(|module| module.kind != ModuleKind::Vdso);
        for module in wanted.take(MAX_MODULES) {
            let Some(id) = &module.build_id else {
                kept.missing.push(module.path.to_string());
                continue;
            };
            if self.known.get(id).is_some_and(|until| *until > now) {
                continue;
            }
            let key = ObjectKey::parse(&format!("modules/{id}"))?;
            let surely = match store.stat(&key)? {
                Some(stat) => surely_there(&stat),
                None => {
                    let roots = self.roots.get(&manifest.id).into_iter().chain(&node);
                    let file = roots
                        .filter_map(|root| open_module(root, module, id))
                        .next();
                    let Some((mut file, size)) = file else {
                        kept.missing.push(module.path.to_string());
                        continue;
                    };
                    match store.put(&key, &mut file, size) {
                        Ok(_) => kept.uploaded += 1,
                        // Another node was faster, or the file changed under our hands.
                        Err(StoreError::Conflict { .. }) => {}
                        Err(StoreError::Length { .. }) => {
                            kept.missing.push(module.path.to_string());
                            continue;
                        }
                        Err(error) => return Err(error),
                    }
                    YOUNG
                }
            };
            if self.known.len() >= MAX_KNOWN {
                self.known.retain(|_, until| *until > now);
            }
            if self.known.len() < MAX_KNOWN {
                self.known.insert(id.clone(), now + surely);
            }
        }
        Ok(kept)
    }

    /// What `keep` has to tell of a dump, if anything.
    pub(super) fn remark(outcome: &Result<KeptModules, StoreError>) -> Option<String> {
        match outcome {
            Ok(kept) if kept.missing.is_empty() => None,
            Ok(kept) => {
                let shown: Vec<&str> = kept.missing.iter().take(3).map(String::as_str).collect();
                let more = kept.missing.len().saturating_sub(shown.len());
                let more = match more {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                Some(format!("{}{more}", shown.join(", ")))
            }
            Err(error) => Some(explain(error)),
        }
    }
}

/// How long an object that stands in the store will be there.
fn surely_there(stat: &ObjectStat) -> Duration {
    let age = stat
        .modified
        .and_then(|written| Duration::try_from(Timestamp::now().duration_since(written)).ok());
    let young = age.and_then(|age| YOUNG.checked_sub(age));
    young.unwrap_or_default().max(SEEN)
}

/// The root of the process that an entry is about, as long as there is one.
fn root_of(entry: &SpoolEntry) -> Option<Root> {
    for _ in 0..IDENTITY_TRIES {
        if let Some(identity) = identity_of(&entry.path) {
            // Another process may have got the number: what it shows proves itself by its build-id.
            return Root::of(&identity.process.pid.to_string());
        }
        std::thread::sleep(IDENTITY_PAUSE);
    }
    None
}

fn identity_of(entry: &Path) -> Option<Manifest> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let path = entry.join(crate::spool::IDENTITY);
    let file = File::from(openat(CWD, path, flags, Mode::empty()).ok()?);
    let mut json = Vec::new();
    file.take(MAX_IDENTITY).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

/// The file of a module under `root`, if it is the one that was mapped.
fn open_module(root: &Root, module: &ModuleRecord, id: &BuildId) -> Option<(File, u64)> {
    let path = Path::new(OsStr::from_bytes(module.path.as_bytes()));
    if !is_local_path(&root.mounts, path) {
        return None;
    }
    let relative = path.strip_prefix("/").ok()?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(
        root.directory.as_fd(),
        relative,
        flags,
        Mode::empty(),
        resolve,
    )
    .ok()?;
    let file = File::from(file);
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return None;
    }
    let mut head = vec![0; HEAD];
    let count = read_at(&file, &mut head).ok()?;
    let found = ElfObject::parse(head.get(..count)?).ok()?.build_id()?;
    (found == *id).then_some((file, metadata.len()))
}

fn read_at(file: &File, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use cdh_bundle::{EntryDir, RawText};
    use cdh_store::DirectoryStore;

    use super::*;

    fn own_build_id() -> Option<BuildId> {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        ElfObject::parse(&bytes).unwrap().build_id()
    }

    fn module(path: &str, build_id: Option<BuildId>) -> ModuleRecord {
        ModuleRecord {
            path: RawText::from(path),
            build_id,
            start: 0,
            end: 4096,
            kind: ModuleKind::Library,
        }
    }

    fn manifest(modules: Vec<ModuleRecord>) -> Manifest {
        let json = serde_json::json!({
            "schema": 1, "id": DumpId::random(), "stem": "s", "captured_at": "2026-01-01T00:00:00Z",
            "process": {"pid": std::process::id()}, "signal": {"number": 11},
            "verdict": cdh_bundle::Verdict::Complete,
        });
        let mut manifest: Manifest = serde_json::from_value(json).unwrap();
        manifest.modules = modules;
        manifest
    }

    #[test]
    fn modules_are_kept_once_and_only_the_ones_that_were_mapped() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::create(dir.path()).unwrap();
        let exe = std::env::current_exe().unwrap().display().to_string();
        let Some(id) = own_build_id() else {
            eprintln!("SKIPPED: this program was linked without a build-id");
            return;
        };
        let other = BuildId::from_bytes(&[9; 20]);
        let dump = manifest(vec![
            module(&exe, Some(id.clone())),
            module(&exe, other),
            module("/dev/null", Some(id.clone())),
            module("/no/such/file", BuildId::from_bytes(&[8; 20])),
            module("/lib/unknown.so", None),
        ]);
        assert_eq!(
            ModuleKeeper::new(false).keep(&store, &dump).unwrap(),
            KeptModules::default()
        );
        let mut keeper = ModuleKeeper::new(true);
        let kept = keeper.keep(&store, &dump).unwrap();
        assert_eq!((kept.uploaded, kept.missing.len()), (1, 3), "{kept:?}");
        let file = dir.path().join(format!("modules/{id}"));
        assert!(std::fs::read(file).unwrap() == std::fs::read(&exe).unwrap());
        assert_eq!(keeper.keep(&store, &dump).unwrap().uploaded, 0);
        assert_eq!(
            ModuleKeeper::new(true)
                .keep(&store, &dump)
                .unwrap()
                .uploaded,
            0
        );
    }

    #[test]
    fn module_that_was_collected_while_its_dump_was_sent_is_brought_again() {
        let Some(id) = own_build_id() else {
            eprintln!("SKIPPED: this program was linked without a build-id");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::create(dir.path()).unwrap();
        let exe = std::env::current_exe().unwrap().display().to_string();
        let dump = manifest(vec![module(&exe, Some(id.clone()))]);
        let mut keeper = ModuleKeeper::new(true);
        assert_eq!(keeper.keep(&store, &dump).unwrap().uploaded, 1);
        let file = dir.path().join(format!("modules/{id}"));
        // Nobody removes a young one, so nobody asks about it.
        std::fs::remove_file(&file).unwrap();
        assert_eq!(keeper.keep(&store, &dump).unwrap().uploaded, 0);
        keeper.known.clear();
        assert_eq!(keeper.keep(&store, &dump).unwrap().uploaded, 1);
        let week = std::time::SystemTime::now() - 14 * YOUNG;
        let old = File::options().write(true).open(&file).unwrap();
        old.set_modified(week).unwrap();
        keeper.known.clear();
        assert_eq!(keeper.keep(&store, &dump).unwrap().uploaded, 0);
        let until = *keeper.known.get(&id).unwrap();
        assert!(until <= Instant::now() + SEEN);
        std::fs::remove_file(&file).unwrap();
        keeper.known.insert(id, Instant::now());
        assert_eq!(keeper.keep(&store, &dump).unwrap().uploaded, 1);
    }

    #[test]
    fn modules_on_file_servers_are_not_opened() {
        let exe = std::env::current_exe().unwrap().display().to_string();
        let Some(id) = own_build_id() else {
            eprintln!("SKIPPED: this program was linked without a build-id");
            return;
        };
        let mut root = Root::of("self").unwrap();
        assert!(open_module(&root, &module(&exe, Some(id.clone())), &id).is_some());
        let directory = exe.rsplit_once('/').unwrap().0.to_owned();
        let mount = format!("9999 1 0:99 / {directory} rw - nfs4 server:/x rw\n");
        root.mounts.extend_from_slice(mount.as_bytes());
        assert!(open_module(&root, &module(&exe, Some(id.clone())), &id).is_none());
    }

    #[test]
    fn root_is_held_after_its_process_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("spool");
        crate::spool::prepare_spool(&spool).unwrap();
        let mut child = Command::new("sleep")
            .arg("100")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut dump = manifest(Vec::new());
        dump.process.pid = child.id().into();
        let entry = EntryDir::create(&spool, dump.id).unwrap();
        let identity = entry.path().join(crate::spool::IDENTITY);
        std::fs::write(identity, serde_json::to_vec(&dump).unwrap()).unwrap();
        let mut keeper = ModuleKeeper::new(true);
        keeper.notice(&cdh_bundle::list_spool(&spool).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        let exe = std::env::current_exe().unwrap().display().to_string();
        let root = keeper.roots.get(&dump.id).expect("it was alive");
        if let Some(id) = own_build_id() {
            assert!(open_module(root, &module(&exe, Some(id.clone())), &id).is_some());
        }
        keeper.notice(&[]);
        assert!(keeper.roots.is_empty());
    }
}
