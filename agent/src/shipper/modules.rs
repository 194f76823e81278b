//! Keeps the ELF files that a crashed process had mapped, once per build-id, under
//! `modules/<build-id>` in the store: dumps of host processes, and of images that are gone from their
//! registry, stay debuggable.
//!
//! The handler passes the files while the process is held (see [`ModuleFiles`]), so that those of a container
//! that goes away are there when its dump is shipped. Other files are looked up under the node's root. Either
//! is verified by its build-id. A module that cannot be stored is reported, and the dump is shipped.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use cdh_bundle::{Manifest, ModuleRecord, SpoolEntry};
use cdh_elfcore::{BuildId, ElfObject, ModuleKind};
use cdh_store::{ObjectKey, ObjectStat, Store, StoreError};
use jiff::Timestamp;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use super::sweep::explain;
use crate::spool::ModuleFiles;

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
    /// What handlers have passed.
    files: ModuleFiles,
    /// Until when each is surely there.
    known: BTreeMap<BuildId, Instant>,
}

impl ModuleKeeper {
    /// Handlers pass files through a socket in `spool` from now on, if modules are to be stored.
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
            known: BTreeMap::new(),
        }
    }

    /// Takes over what handlers have passed, and closes files of dumps that have left the spool.
    pub(super) fn notice(&mut self, entries: &[SpoolEntry]) {
        if self.enabled {
            self.files
                .update(|id| entries.iter().any(|entry| entry.id == *id));
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
        // A handler passes files before it seals the entry.
        self.files.receive();
        let now = Instant::now();
        let node = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok();
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
                    let held = self.files.get(manifest.id, module.start);
                    let held = held.and_then(|file| file.try_clone().ok());
                    let held = held.and_then(|file| verified(file, id));
                    let file = held.or_else(|| {
                        let file = open_module(node.as_ref()?, module)?;
                        verified(file, id)
                    });
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

/// The file at a module's path under `root`.
fn open_module(root: &OwnedFd, module: &ModuleRecord) -> Option<File> {
    let path = Path::new(OsStr::from_bytes(module.path.as_bytes()));
    let relative = path.strip_prefix("/").ok()?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(root.as_fd(), relative, flags, Mode::empty(), resolve).ok()?;
    Some(file.into())
}

/// The file, from its beginning, and its size, if it is the one that was mapped.
fn verified(mut file: File, id: &BuildId) -> Option<(File, u64)> {
    // A file that was passed for two modules has one position.
    file.rewind().ok()?;
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
    use cdh_bundle::{DumpId, RawText};
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
        assert_eq!(
            ModuleKeeper::new(false, dir.path())
                .keep(&store, &dump)
                .unwrap(),
            KeptModules::default()
        );
        let mut keeper = ModuleKeeper::new(true, dir.path());
        let kept = keeper.keep(&store, &dump).unwrap();
        assert_eq!((kept.uploaded, kept.missing.len()), (1, 3), "{kept:?}");
        let file = dir.path().join(format!("modules/{id}"));
        assert!(std::fs::read(file).unwrap() == std::fs::read(&exe).unwrap());
        assert_eq!(keeper.keep(&store, &dump).unwrap().uploaded, 0);
        assert_eq!(
            ModuleKeeper::new(true, dir.path())
                .keep(&store, &dump)
                .unwrap()
                .uploaded,
            0
        );
    }

    #[test]
    fn module_that_was_collected_while_its_dump_was_sent_is_brought_again() {
        let Some(id) = own_build_id() else {
            cdh_testkit::skip("this program was linked without a build-id");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::create(dir.path()).unwrap();
        let exe = std::env::current_exe().unwrap().display().to_string();
        let dump = manifest(vec![module(&exe, Some(id.clone()))]);
        let mut keeper = ModuleKeeper::new(true, dir.path());
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
    fn module_whose_file_is_gone_is_stored_from_what_the_handler_passed() {
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
        let kept = keeper.keep(&store, &dump).unwrap();
        assert_eq!((kept.uploaded, kept.missing.len()), (1, 0), "{kept:?}");
        let stored = std::fs::read(dir.path().join(format!("store/modules/{id}"))).unwrap();
        assert!(stored == std::fs::read("/proc/self/exe").unwrap());
    }

    #[test]
    fn handler_is_offered_no_socket_where_modules_are_not_stored() {
        let dir = tempfile::tempdir().unwrap();
        let id = DumpId::random();
        // As an agent that was killed leaves it.
        std::mem::forget(ModuleKeeper::new(true, dir.path()));
        let _keeper = ModuleKeeper::new(false, dir.path());
        assert!(ModuleFilesSender::connect(dir.path(), id).is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
