//! Stores the ELF files that a crashed process had mapped beside the dumps, once per build-id and SHA-256
//! (`modules/<build-id>-<SHA-256>`): dumps of host processes, and of images that are gone from their
//! registry, stay debuggable.
//!
//! The process's root directory is opened as soon as its entry appears in the spool. It can be read after the
//! process, and after its container's mounts, are gone. If that came too late, the files of this root directory
//! are read instead, but only for a process that was in this mount namespace and had the same root: the
//! files of another root are not those of the process.
//!
//! Any process can map a file that claims the build-id of another one. So the digest of each file is recorded
//! in the dump's manifest before the dump is shipped, and is part of the key: what one process stores, no
//! other dump names. A module that cannot be stored is reported, and holds up nothing.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use cdh_bundle::{Digests, DumpId, Manifest, ModuleRecord, Sha256, SpoolEntry, SpoolState};
use cdh_elfcore::{ElfObject, ModuleKind};
use cdh_store::{ObjectKey, ObjectStat, Store, StoreError, StoredModule};
use jiff::Timestamp;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use super::sweep::explain;
use crate::handler::ProcFacts;

/// Roots that are held at once; a storm of crashes must not take all descriptors.
const MAX_ROOTS: usize = 256;
/// Modules of one dump.
const MAX_MODULES: usize = 4096;
/// No module is larger.
const MAX_FILE: u64 = 4 << 30;
/// All files of one dump together are not larger.
const MAX_FILES: u64 = 8 << 30;
/// A file takes at least this part of its size on disk. Linkers write no holes; file systems that compress
/// ELF files save less.
const LEAST_ALLOCATED: u64 = 8;
/// A file up to this size may be sparse.
const MAY_BE_SPARSE: u64 = 1 << 20;
/// Bytes of a block in `st_blocks` (`stat(2)`).
const BLOCK: u64 = 512;
/// Digests of files that are remembered.
const MAX_DIGESTS: usize = 20_000;
/// `proc.json` is not larger.
const MAX_FACTS: u64 = 16 << 20;
/// The build-id's note stands behind the program headers.
const HEAD: usize = 64 << 10;
/// Modules that are remembered to be in the store.
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

/// Keeps modules; does nothing unless it was asked to.
#[derive(Default)]
pub(super) struct ModuleKeeper {
    enabled: bool,
    roots: BTreeMap<DumpId, OwnedFd>,
    /// Until when each is surely there.
    known: BTreeMap<ObjectKey, Instant>,
    /// Of files as they were when they were read.
    digests: BTreeMap<FileVersion, Sha256>,
}

/// Device, inode, size, and times of the last change of contents and inode: a file that was written to has
/// another one.
type FileVersion = (u64, u64, u64, (i64, i64), (i64, i64));

/// A module's file under a root directory.
struct ModuleFile {
    file: File,
    size: u64,
    version: FileVersion,
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

    /// The manifest of the sealed entry at `path` with the digests of its modules' files; `None` if there is
    /// nothing to add. Reads all of the files that were not read before.
    pub(super) fn identify(&mut self, path: &Path, manifest: &Manifest) -> Option<Manifest> {
        let is_known = manifest
            .modules
            .iter()
            .any(|module| module.sha256.is_some());
        if !self.enabled || is_known {
            return None;
        }
        let mut manifest = manifest.clone();
        let node = self.own_root(path);
        let mut left = MAX_FILES;
        let mut found = false;
        for module in manifest.modules.iter_mut().take(MAX_MODULES) {
            let root = self.roots.get(&manifest.id).or(node.as_ref());
            let Some(file) = root.and_then(|root| open_module(root, module)) else {
                continue;
            };
            if file.size > left {
                continue;
            }
            left -= file.size;
            module.sha256 = self.digest(&file);
            found |= module.sha256.is_some();
        }
        found.then_some(manifest)
    }

    /// This root directory, if the process of the entry at `path` had the same.
    fn own_root(&self, path: &Path) -> Option<OwnedFd> {
        let json = read_small(&path.join("proc.json"), MAX_FACTS)?;
        let facts: ProcFacts = serde_json::from_slice(&json).ok()?;
        let own = std::fs::read_link("/proc/self/ns/mnt").ok()?;
        let mut namespaces = facts.namespaces.iter();
        let is_same = facts.root?.as_bytes() == b"/"
            && namespaces.any(|namespace| namespace.id.as_bytes() == own.as_os_str().as_bytes());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = || openat(CWD, "/", flags, Mode::empty()).ok();
        is_same.then(root).flatten()
    }

    fn digest(&mut self, file: &ModuleFile) -> Option<Sha256> {
        if let Some(known) = self.digests.get(&file.version) {
            return Some(*known);
        }
        let found = Digests::of_reader((&file.file).take(file.size)).ok()?;
        if self.digests.len() >= MAX_DIGESTS {
            self.digests.clear();
        }
        // A file that changed while it was read is that of no process.
        let is_same = version(&file.file)? == file.version && found.size == file.size;
        let digest = is_same.then_some(found.sha256)?;
        self.digests.insert(file.version, digest);
        Some(digest)
    }

    /// Uploads the modules of the dump whose entry is at `path`, which [`identify`](Self::identify) gave
    /// their digests. Called again after the dump was shipped, it asks only about those that `cdh gc` may have
    /// removed meanwhile.
    ///
    /// # Errors
    /// If the store fails.
    pub(super) fn keep(
        &mut self,
        store: &dyn Store,
        path: &Path,
        manifest: &Manifest,
    ) -> Result<KeptModules, StoreError> {
        let mut kept = KeptModules::default();
        if !self.enabled {
            return Ok(kept);
        }
        let now = Instant::now();
        let node = self.own_root(path);
        let wanted = manifest
            .modules
            .iter()
            .filter(|module| module.kind != ModuleKind::Vdso);
        for module in wanted.take(MAX_MODULES) {
            let (Some(id), Some(digest)) = (&module.build_id, &module.sha256) else {
                kept.missing.push(module.path.to_string());
                continue;
            };
            let key = StoredModule::key_of(id, Some(digest))?;
            if self.known.get(&key).is_some_and(|until| *until > now) {
                continue;
            }
            let surely = match store.stat(&key)? {
                Some(stat) => surely_there(&stat),
                None => {
                    let root = self.roots.get(&manifest.id).or(node.as_ref());
                    let file = root.and_then(|root| open_module(root, module));
                    let Some(file) = file.filter(|file| self.digest(file) == Some(*digest)) else {
                        kept.missing.push(module.path.to_string());
                        continue;
                    };
                    if (&file.file).rewind().is_err() {
                        kept.missing.push(module.path.to_string());
                        continue;
                    }
                    let mut body = (&file.file).take(file.size);
                    match store.put(&key, &mut body, file.size) {
                        Ok(_) => kept.uploaded += 1,
                        // Another node was faster.
                        Err(StoreError::Conflict { .. }) => {}
                        // The file changed meanwhile.
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
                self.known.insert(key, now + surely);
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
fn root_of(entry: &SpoolEntry) -> Option<OwnedFd> {
    for _ in 0..IDENTITY_TRIES {
        if let Some(identity) = identity_of(&entry.path) {
            // Another process may have got the number: a workstation compares its files with the core.
            let path = format!("/proc/{}/root", identity.process.pid);
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            return openat(CWD, path, flags, Mode::empty()).ok();
        }
        std::thread::sleep(IDENTITY_PAUSE);
    }
    None
}

fn identity_of(entry: &Path) -> Option<Manifest> {
    let json = read_small(&entry.join(crate::spool::IDENTITY), MAX_IDENTITY)?;
    serde_json::from_slice(&json).ok()
}

/// A file of an entry, up to `limit` bytes.
fn read_small(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(CWD, path, flags, Mode::empty()).ok()?);
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The file of a module under `root`, if it claims the build-id of the one that was mapped, and is not
/// larger than what it takes on disk allows.
fn open_module(root: &OwnedFd, module: &ModuleRecord) -> Option<ModuleFile> {
    let id = module.build_id.as_ref()?;
    let path = Path::new(OsStr::from_bytes(module.path.as_bytes()));
    let relative = path.strip_prefix("/").ok()?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(root.as_fd(), relative, flags, Mode::empty(), resolve).ok()?;
    let file = File::from(file);
    let metadata = file.metadata().ok()?;
    let size = metadata.len();
    let allocated = metadata.blocks().saturating_mul(BLOCK);
    let is_sparse = size > MAY_BE_SPARSE && allocated.saturating_mul(LEAST_ALLOCATED) < size;
    if !metadata.is_file() || size > MAX_FILE || is_sparse {
        return None;
    }
    let mut head = vec![0; HEAD];
    let count = read_at(&file, &mut head).ok()?;
    let found = ElfObject::parse(head.get(..count)?).ok()?.build_id()?;
    let version = version(&file)?;
    let right = found == *id;
    right.then_some(ModuleFile {
        file,
        size,
        version,
    })
}

fn version(file: &File) -> Option<FileVersion> {
    let found = file.metadata().ok()?;
    Some((
        found.dev(),
        found.ino(),
        found.size(),
        (found.mtime(), found.mtime_nsec()),
        (found.ctime(), found.ctime_nsec()),
    ))
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
    use cdh_elfcore::BuildId;
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
            sha256: None,
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

    /// An entry's directory of a process in this mount namespace, or in another one.
    fn entry(namespace: Option<&str>) -> tempfile::TempDir {
        let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
        let facts = serde_json::json!({
            "schema": 1, "pid": 1, "root": "/",
            "namespaces": [{"kind": "mnt", "id": namespace.unwrap_or(own.to_str().unwrap())}],
        });
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("proc.json"), facts.to_string()).unwrap();
        dir
    }

    /// Digests and upload, as a sweep does both.
    fn keep(
        keeper: &mut ModuleKeeper,
        store: &DirectoryStore,
        entry: &Path,
        dump: &Manifest,
    ) -> (KeptModules, Manifest) {
        let manifest = keeper.identify(entry, dump).unwrap_or(dump.clone());
        (keeper.keep(store, entry, &manifest).unwrap(), manifest)
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
        let here = entry(None);
        let mut off = ModuleKeeper::new(false);
        assert_eq!(
            keep(&mut off, &store, here.path(), &dump).0,
            KeptModules::default()
        );
        let mut keeper = ModuleKeeper::new(true);
        let (kept, named) = keep(&mut keeper, &store, here.path(), &dump);
        assert_eq!((kept.uploaded, kept.missing.len()), (1, 4), "{kept:?}");
        let bytes = std::fs::read(&exe).unwrap();
        assert_eq!(named.modules[0].sha256, Some(Sha256::of(&bytes)));
        assert!(
            named.modules[1..]
                .iter()
                .all(|module| module.sha256.is_none())
        );
        let file = dir
            .path()
            .join(format!("modules/{id}-{}", Sha256::of(&bytes)));
        assert!(std::fs::read(file).unwrap() == bytes);
        for keeper in [&mut keeper, &mut ModuleKeeper::new(true)] {
            assert_eq!(keep(keeper, &store, here.path(), &dump).0.uploaded, 0);
        }
    }

    #[test]
    fn files_of_this_root_are_not_those_of_a_process_in_another_namespace() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::create(dir.path()).unwrap();
        let exe = std::env::current_exe().unwrap().display().to_string();
        let dump = manifest(vec![module(&exe, own_build_id())]);
        let there = entry(Some("mnt:[7]"));
        let mut keeper = ModuleKeeper::new(true);
        assert_eq!(keeper.identify(there.path(), &dump), None);
        let (kept, _) = keep(&mut keeper, &store, there.path(), &dump);
        assert_eq!((kept.uploaded, kept.missing.len()), (0, 1));
    }

    #[test]
    fn sparse_files_are_not_uploaded_and_a_planted_build_id_has_a_key_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::create(dir.path().join("store")).unwrap();
        let source = dir.path().join("fl.c");
        std::fs::write(&source, "int evil(void) { return 1; }").unwrap();
        let id = BuildId::from_bytes(&[0xee; 20]).unwrap();
        let build = |name: &str, define: &str| {
            let path = dir.path().join(name);
            let mut cc = Command::new("cc");
            cc.args(["-shared", "-fPIC", define, "-o"]).arg(&path);
            cc.arg(&source).arg(format!("-Wl,--build-id=0x{id}"));
            assert!(cc.status().unwrap().success());
            path.display().to_string()
        };
        let (sparse, real, planted) = (
            build("sparse.so", "-DA"),
            build("real.so", "-DA"),
            build("planted.so", "-Devil=worse"),
        );
        let file = File::options().write(true).open(&sparse).unwrap();
        file.set_len(3 << 30).unwrap();
        let dump = manifest(vec![module(&sparse, Some(id.clone()))]);
        let here = entry(None);
        let mut keeper = ModuleKeeper::new(true);
        let (kept, named) = keep(&mut keeper, &store, here.path(), &dump);
        assert_eq!((kept.uploaded, kept.missing.len()), (0, 1));
        assert_eq!(named.modules[0].sha256, None);
        for (path, uploaded) in [(&planted, 1), (&real, 1), (&planted, 0)] {
            let dump = manifest(vec![module(path, Some(id.clone()))]);
            let (kept, named) = keep(&mut keeper, &store, here.path(), &dump);
            assert_eq!(kept.uploaded, uploaded, "{path}");
            let digest = named.modules[0].sha256.unwrap();
            let stored = dir.path().join(format!("store/modules/{id}-{digest}"));
            assert!(std::fs::read(stored).unwrap() == std::fs::read(path).unwrap());
        }
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
        let here = entry(None);
        let mut keeper = ModuleKeeper::new(true);
        let (kept, dump) = keep(&mut keeper, &store, here.path(), &dump);
        assert_eq!(kept.uploaded, 1);
        let uploaded = |keeper: &mut ModuleKeeper| {
            let kept = keeper.keep(&store, here.path(), &dump).unwrap();
            kept.uploaded
        };
        let key = StoredModule::key_of(&id, dump.modules[0].sha256.as_ref()).unwrap();
        let file = dir.path().join(key.as_str());
        // `cdh gc` removes no young one, so the keeper does not ask about it.
        std::fs::remove_file(&file).unwrap();
        assert_eq!(uploaded(&mut keeper), 0);
        keeper.known.clear();
        assert_eq!(uploaded(&mut keeper), 1);
        let week = std::time::SystemTime::now() - 14 * YOUNG;
        let old = File::options().write(true).open(&file).unwrap();
        old.set_modified(week).unwrap();
        keeper.known.clear();
        assert_eq!(uploaded(&mut keeper), 0);
        let until = *keeper.known.get(&key).unwrap();
        assert!(until <= Instant::now() + SEEN);
        std::fs::remove_file(&file).unwrap();
        keeper.known.insert(key, Instant::now());
        assert_eq!(uploaded(&mut keeper), 1);
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
            assert!(open_module(root, &module(&exe, Some(id))).is_some());
        }
        keeper.notice(&[]);
        assert!(keeper.roots.is_empty());
    }
}
