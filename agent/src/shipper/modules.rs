//! Stores the ELF files that a crashed process had mapped beside the dumps, once per build-id and
//! SHA-256 (`modules/<build-id>-<SHA-256>`). Dumps of host processes, and of images that are gone
//! from their registry, remain debuggable.
//!
//! The handler passes open files while the process is held (see [`ModuleFiles`]), so the files of a
//! short-lived container are available when its dump is shipped. Other files are looked up below
//! the shipper's root directory. This is only done for a process in the same mount namespace with
//! the same root: files of another root are not those of the process.
//!
//! Any process can map a file that claims another file's build-id. The digest of each file is
//! therefore recorded in the dump's manifest before the dump is shipped, and is part of the key. A
//! file stored for one process is never used for another dump, unless its digest matches. A module
//! that cannot be stored is reported and delays nothing; neither does a file on a disk or mount
//! that no longer answers (see [`Patience`]).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cdh_bundle::{Digests, Manifest, ModuleRecord, Sha256, SpoolEntry};
use cdh_elfcore::{ElfObject, ModuleKind};
use cdh_store::{ObjectKey, ObjectStat, Store, StoreError, StoredModule};
use jiff::Timestamp;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use super::patient::Patience;
use crate::error_chain::explain;
use crate::handler::ProcFacts;
use crate::handler::process::file_systems::is_local_path;
use crate::spool::ModuleFiles;

/// Maximum number of modules of one dump.
const MAX_MODULES: usize = 4096;
/// Maximum size of a module, in bytes.
const MAX_FILE: u64 = 4 << 30;
/// Maximum total size of the files of one dump, in bytes.
const MAX_FILES: u64 = 8 << 30;
/// Minimum part of a file's size that must be allocated on disk: one eighth. Linkers write no
/// holes, and file systems that compress ELF files save less.
const LEAST_ALLOCATED: u64 = 8;
/// Files up to this size may be sparse.
const MAY_BE_SPARSE: u64 = 1 << 20;
/// Size of a block in `st_blocks`, in bytes (`stat(2)`).
const BLOCK: u64 = 512;
/// Maximum number of cached file digests.
const MAX_DIGESTS: usize = 20_000;
/// Maximum size of `proc.json`, in bytes.
const MAX_FACTS: u64 = 16 << 20;
/// Bytes read to find the build-id's note, which follows the program headers.
const HEAD: usize = 64 << 10;
/// Maximum number of cached modules that are known to be in the store.
const MAX_KNOWN: usize = 100_000;
/// `cdh gc` deletes no module younger than a day. For half a day after its upload a module is
/// certainly in the store, and a dump that needs it has another half day to arrive.
const YOUNG: Duration = Duration::from_secs(12 * 3600);
/// An older module may be deleted as soon as no dump in the store needs it.
const SEEN: Duration = Duration::from_secs(60);

/// Result of storing the modules of one dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeptModules {
    /// Number of files that the store did not have.
    pub(super) uploaded: usize,
    /// Paths of modules that are not in the store.
    pub(super) missing: Vec<String>,
}

/// A root directory with the mounts below it at the time of opening. Files on a file system whose
/// server may not answer are not opened: a read could block forever.
struct Root {
    directory: OwnedFd,
    mounts: Vec<u8>,
}

impl Root {
    /// The root of the process with this id in `/proc`.
    fn of(process: &str) -> Option<Self> {
        let place = Path::new("/proc").join(process);
        // Read the mount table first: opening the directory itself accesses its file system.
        let mounts = std::fs::read(place.join("mountinfo")).ok()?;
        if !is_local_path(&mounts, Path::new("/")) {
            return None;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, place.join("root"), flags, Mode::empty()).ok()?;
        Some(Self { directory, mounts })
    }
}

/// Stores modules; does nothing unless enabled.
#[derive(Default)]
pub(super) struct ModuleKeeper {
    enabled: bool,
    /// Files passed by handlers.
    files: ModuleFiles,
    /// Modules in the store, and until when they are certainly there.
    known: BTreeMap<ObjectKey, Instant>,
    /// Digests of files, by the version of the file that was read.
    digests: BTreeMap<FileVersion, Sha256>,
    patience: Patience,
}

/// Device, inode, size, and times of the last content and inode change: changes when the file is
/// written.
type FileVersion = (u64, u64, u64, (i64, i64), (i64, i64));

/// A module's file after validation.
struct ModuleFile {
    file: File,
    size: u64,
    version: FileVersion,
}

impl ModuleKeeper {
    /// If `enabled`, opens a socket in `spool` through which handlers pass files.
    pub(super) fn new(enabled: bool, spool: &Path) -> Self {
        let files = match enabled {
            true => ModuleFiles::offer(spool),
            false => {
                ModuleFiles::withdraw(spool);
                ModuleFiles::default()
            }
        };
        Self {
            enabled,
            files,
            ..Self::default()
        }
    }

    /// Receives files from handlers, and closes files of dumps that left the spool.
    pub(super) fn notice(&mut self, entries: &[SpoolEntry]) {
        if self.enabled {
            self.files
                .update(|id| entries.iter().any(|entry| entry.id == *id));
        }
    }

    /// The file of a module: the one that the handler passed, otherwise the one below `root`.
    fn find(
        &self,
        manifest: &Manifest,
        module: &ModuleRecord,
        root: Option<&Arc<Root>>,
    ) -> Option<ModuleFile> {
        let held = self.files.get(manifest.id, module.start);
        let held = held.and_then(|file| file.try_clone().ok());
        let (module, root) = (module.clone(), root.map(Arc::clone));
        let find = move || {
            held.and_then(|file| checked(file, &module))
                .or_else(|| checked(open_module(root.as_deref()?, &module)?, &module))
        };
        self.patience.run(find).flatten()
    }

    /// Returns the manifest of the sealed entry at `path` with the digests of its modules' files;
    /// `None` if there is nothing to add. Reads all files whose digests are not cached.
    pub(super) fn identify(&mut self, path: &Path, manifest: &Manifest) -> Option<Manifest> {
        let is_known = manifest
            .modules
            .iter()
            .any(|module| module.sha256.is_some());
        if !self.enabled || is_known {
            return None;
        }
        // Handlers pass files before they seal the entry.
        self.files.receive();
        let node = self.own_root(path);
        let mut left = MAX_FILES;
        let mut digests = Vec::new();
        for module in manifest.modules.iter().take(MAX_MODULES) {
            let file = self.find(manifest, module, node.as_ref());
            let file = file.filter(|file| file.size <= left);
            left = left.saturating_sub(file.as_ref().map_or(0, |file| file.size));
            digests.push(file.and_then(|file| self.digest(&file)));
        }
        let mut manifest = manifest.clone();
        for (module, digest) in manifest.modules.iter_mut().zip(&digests) {
            module.sha256 = *digest;
        }
        digests.iter().any(Option::is_some).then_some(manifest)
    }

    /// The shipper's root directory, if the process of the entry at `path` had the same root.
    fn own_root(&self, path: &Path) -> Option<Arc<Root>> {
        let json = read_small(&path.join("proc.json"), MAX_FACTS)?;
        let facts: ProcFacts = serde_json::from_slice(&json).ok()?;
        let own = std::fs::read_link("/proc/self/ns/mnt").ok()?;
        let mut namespaces = facts.namespaces.iter();
        let is_same = facts.root?.as_bytes() == b"/"
            && namespaces.any(|namespace| namespace.id.as_bytes() == own.as_os_str().as_bytes());
        is_same.then(|| Root::of("self")).flatten().map(Arc::new)
    }

    fn digest(&mut self, file: &ModuleFile) -> Option<Sha256> {
        if let Some(known) = self.digests.get(&file.version) {
            return Some(*known);
        }
        let copy = file.file.try_clone().ok()?;
        let found = Digests::of_reader(self.patience.read(copy, file.size).ok()?).ok()?;
        if self.digests.len() >= MAX_DIGESTS {
            self.digests.clear();
        }
        // A file that changed during the read is not the one that the process mapped.
        let is_same = version(&file.file)? == file.version && found.size == file.size;
        let digest = is_same.then_some(found.sha256)?;
        self.digests.insert(file.version, digest);
        Some(digest)
    }

    /// Uploads the modules of the dump at `path` that [`identify`](Self::identify) gave digests.
    /// Called again after the upload of the dump, it only checks modules that `cdh gc` may have
    /// deleted in the meantime.
    ///
    /// # Errors
    /// Fails if the store fails.
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
                    let file = self.find(manifest, module, node.as_ref());
                    let Some(file) = file.filter(|file| self.digest(file) == Some(*digest)) else {
                        kept.missing.push(module.path.to_string());
                        continue;
                    };
                    let Ok(mut body) = self.patience.read(file.file, file.size) else {
                        kept.missing.push(module.path.to_string());
                        continue;
                    };
                    match store.put(&key, &mut body, file.size) {
                        Ok(_) => kept.uploaded += 1,
                        // Another node uploaded it first.
                        Err(StoreError::Conflict { .. }) => {}
                        // The file changed during the upload.
                        Err(StoreError::Length { .. }) => {
                            kept.missing.push(module.path.to_string());
                            continue;
                        }
                        Err(_) if body.is_stuck() => {
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

    /// A note for the log about the result of `keep`, if there is something to report.
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

/// How long an object in the store will certainly remain there.
fn surely_there(stat: &ObjectStat) -> Duration {
    let age = stat
        .modified
        .and_then(|written| Duration::try_from(Timestamp::now().duration_since(written)).ok());
    let young = age.and_then(|age| YOUNG.checked_sub(age));
    young.unwrap_or_default().max(SEEN)
}

/// Reads a file of an entry, maximum `limit` bytes.
fn read_small(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(CWD, path, flags, Mode::empty()).ok()?);
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Opens the file at a module's path below `root`.
fn open_module(root: &Root, module: &ModuleRecord) -> Option<File> {
    let path = Path::new(OsStr::from_bytes(module.path.as_bytes()));
    if !is_local_path(&root.mounts, path) {
        return None;
    }
    let relative = path.strip_prefix("/").ok()?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let root = root.directory.as_fd();
    let file = openat2(root, relative, flags, Mode::empty(), resolve).ok()?;
    Some(file.into())
}

/// Accepts the file if it claims the build-id of the mapped file, and if its size is plausible for
/// its disk usage.
fn checked(file: File, module: &ModuleRecord) -> Option<ModuleFile> {
    let id = module.build_id.as_ref()?;
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
    use std::process::Command;

    use cdh_bundle::{DumpId, RawText};
    use cdh_elfcore::BuildId;
    use cdh_store::DirectoryStore;

    use super::*;
    use crate::spool::ModuleFilesSender;

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

    /// An entry directory of a process in this mount namespace (`None`) or in another one.
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

    /// Computes digests and uploads, like a sweep.
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
    fn module_keeper_stores_mapped_modules_once() {
        if cdh_testkit::or_skip(cdh_testkit::root_is_a_mount()).is_none() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::create(dir.path()).unwrap();
        let exe = std::env::current_exe().unwrap().display().to_string();
        let Some(id) = own_build_id() else {
            cdh_testkit::skip("this program was linked without a build-id");
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
        let mut off = ModuleKeeper::new(false, dir.path());
        assert_eq!(
            keep(&mut off, &store, here.path(), &dump).0,
            KeptModules::default()
        );
        let mut keeper = ModuleKeeper::new(true, dir.path());
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
        for keeper in [&mut keeper, &mut ModuleKeeper::new(true, dir.path())] {
            assert_eq!(keep(keeper, &store, here.path(), &dump).0.uploaded, 0);
        }
    }

    #[test]
    fn module_keeper_ignores_processes_in_other_mount_namespaces() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::create(dir.path()).unwrap();
        let exe = std::env::current_exe().unwrap().display().to_string();
        let dump = manifest(vec![module(&exe, own_build_id())]);
        let there = entry(Some("mnt:[7]"));
        let mut keeper = ModuleKeeper::new(true, dir.path());
        assert_eq!(keeper.identify(there.path(), &dump), None);
        let (kept, _) = keep(&mut keeper, &store, there.path(), &dump);
        assert_eq!((kept.uploaded, kept.missing.len()), (0, 1));
    }

    #[test]
    fn module_keeper_refuses_sparse_files_and_separates_equal_build_ids() {
        if cdh_testkit::or_skip(cdh_testkit::root_is_a_mount()).is_none() {
            return;
        }
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
        let mut keeper = ModuleKeeper::new(true, dir.path());
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
    fn module_keeper_restores_a_module_deleted_during_the_upload() {
        if cdh_testkit::or_skip(cdh_testkit::root_is_a_mount()).is_none() {
            return;
        }
        let Some(id) = own_build_id() else {
            cdh_testkit::skip("this program was linked without a build-id");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::create(dir.path()).unwrap();
        let exe = std::env::current_exe().unwrap().display().to_string();
        let dump = manifest(vec![module(&exe, Some(id.clone()))]);
        let here = entry(None);
        let mut keeper = ModuleKeeper::new(true, dir.path());
        let (kept, dump) = keep(&mut keeper, &store, here.path(), &dump);
        assert_eq!(kept.uploaded, 1);
        let uploaded = |keeper: &mut ModuleKeeper| {
            let kept = keeper.keep(&store, here.path(), &dump).unwrap();
            kept.uploaded
        };
        let key = StoredModule::key_of(&id, dump.modules[0].sha256.as_ref()).unwrap();
        let file = dir.path().join(key.as_str());
        // `cdh gc` never deletes a young module, so the keeper does not check it.
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
    fn module_keeper_does_not_open_files_on_network_mounts() {
        if cdh_testkit::or_skip(cdh_testkit::root_is_a_mount()).is_none() {
            return;
        }
        let exe = std::env::current_exe().unwrap().display().to_string();
        let module = module(&exe, None);
        let mut root = Root::of("self").unwrap();
        assert!(open_module(&root, &module).is_some());
        let directory = exe.rsplit_once('/').unwrap().0.to_owned();
        let mount = format!("9999 1 0:99 / {directory} rw - nfs4 server:/x rw\n");
        root.mounts.extend_from_slice(mount.as_bytes());
        assert!(open_module(&root, &module).is_none());
    }

    #[test]
    fn module_keeper_stores_a_deleted_file_from_the_handlers_descriptor() {
        let Some(id) = own_build_id() else {
            cdh_testkit::skip("this program was linked without a build-id");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::create(dir.path().join("store")).unwrap();
        let mut keeper = ModuleKeeper::new(true, dir.path());
        let program = dir.path().join("program");
        std::fs::copy("/proc/self/exe", &program).unwrap();
        let file = File::open(&program).unwrap();
        std::fs::remove_file(&program).unwrap();
        let dump = manifest(vec![module(program.to_str().unwrap(), Some(id.clone()))]);
        let sender = ModuleFilesSender::connect(dir.path(), dump.id).unwrap();
        sender.send([(0, file)].into_iter()).unwrap();
        let there = entry(Some("mnt:[7]"));
        let (kept, named) = keep(&mut keeper, &store, there.path(), &dump);
        assert_eq!((kept.uploaded, kept.missing.len()), (1, 0), "{kept:?}");
        let key = StoredModule::key_of(&id, named.modules[0].sha256.as_ref()).unwrap();
        let stored = std::fs::read(dir.path().join("store").join(key.as_str())).unwrap();
        assert!(stored == std::fs::read("/proc/self/exe").unwrap());
    }

    #[test]
    fn module_keeper_removes_its_socket_when_disabled() {
        let dir = tempfile::tempdir().unwrap();
        let id = DumpId::random();
        // As left behind by an agent that was killed.
        std::mem::forget(ModuleKeeper::new(true, dir.path()));
        let _keeper = ModuleKeeper::new(false, dir.path());
        assert!(ModuleFilesSender::connect(dir.path(), id).is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
