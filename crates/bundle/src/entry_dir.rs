//! A spool entry: a directory with one file per future bundle entry.
//!
//! ```text
//! <spool>/.new-<id>/       created and locked, invisible
//! <spool>/<id>.partial/    being written; its lock is held as long as the handler lives
//! <spool>/<id>/            sealed: complete, with a manifest, synced
//! <spool>/.removed-<id>/   shipped, being deleted
//! ```
//!
//! Every step is a rename. If the handler, the daemon or the node crashes, the entry has one of
//! these four names, and the name says what to do. The first and the last are swept, an unlocked
//! partial entry is salvaged, and a sealed entry is shipped.
//!
//! The lock is an flock on the directory itself, so no lock file can end up in a bundle. The kernel
//! releases it when the holder exits. Files are opened relative to the directory's descriptor
//! without following symlinks, so planted links lead nowhere.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags};

use crate::digest::Digests;
use crate::{BundleError, DigestWriter, DumpId, EntryKind, EntryRecord, Gap, Manifest};

/// Suffix of an entry that is being written.
pub(crate) const PARTIAL: &str = ".partial";
const NEW: &str = ".new-";
const REMOVED: &str = ".removed-";

/// Only root may read cores.
const DIRECTORY_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A spool entry that is being written, with the lock on it.
pub struct EntryDir {
    id: DumpId,
    spool: PathBuf,
    path: PathBuf,
    directory: OwnedFd,
    known: Vec<(EntryKind, Digests)>,
}

impl EntryDir {
    /// Creates `<id>.partial` in `spool` and locks it.
    ///
    /// # Errors
    /// Fails if an entry with this id exists, or if a system call fails.
    pub fn create(spool: &Path, id: DumpId) -> Result<Self, BundleError> {
        let hidden = spool.join(format!("{NEW}{id}"));
        let path = spool.join(format!("{id}{PARTIAL}"));
        let failed = || BundleError::io(format!("create `{}`", path.display()));
        rustix::fs::mkdir(&hidden, DIRECTORY_MODE)
            .map_err(io::Error::from)
            .map_err(failed())?;
        let made = (|| {
            let directory = open_directory(&hidden)?;
            // Lock it before the rename makes it visible: otherwise it looks like the entry of a
            // dead handler.
            rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
            rustix::fs::renameat_with(CWD, &hidden, CWD, &path, RenameFlags::NOREPLACE)?;
            Ok(directory)
        })();
        match made {
            Ok(directory) => Ok(Self {
                id,
                spool: spool.to_owned(),
                path,
                directory,
                known: Vec::new(),
            }),
            Err(error) => {
                let _ = fs::remove_dir(&hidden);
                Err(failed()(error))
            }
        }
    }

    /// Takes over `<id>.partial` after its handler died.
    ///
    /// # Errors
    /// `Busy` while its handler or another process holds the lock. Also fails if there is no such
    /// entry.
    pub fn adopt(spool: &Path, id: DumpId) -> Result<Self, BundleError> {
        let path = spool.join(format!("{id}{PARTIAL}"));
        let failed = || BundleError::io(format!("take over `{}`", path.display()));
        let directory = open_directory(&path).map_err(failed())?;
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(BundleError::Busy { path }),
            Err(error) => return Err(failed()(error.into())),
        }
        // The entry may have been sealed between open and lock: then there is nothing to salvage.
        fs::metadata(&path).map_err(failed())?;
        Ok(Self {
            id,
            spool: spool.to_owned(),
            path,
            directory,
            known: Vec::new(),
        })
    }

    /// The dump's id.
    #[must_use]
    pub fn id(&self) -> DumpId {
        self.id
    }

    /// Current path of the entry.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Descriptor of the directory, for `openat(2)`.
    #[must_use]
    pub fn descriptor(&self) -> &OwnedFd {
        &self.directory
    }

    /// Writes a complete file.
    ///
    /// # Errors
    /// Fails if the file exists, or if a system call fails.
    pub fn write_file(&mut self, kind: &EntryKind, bytes: &[u8]) -> Result<(), BundleError> {
        let mut file = self.create_file(kind)?;
        file.write_all(bytes).map_err(self.failed("write", kind))?;
        let (_, digests) = file.finish();
        self.record(kind, digests);
        Ok(())
    }

    /// Creates a file that grows, such as the core. Pass the result of [`EntryFile::finish`] to
    /// [`EntryDir::record`], otherwise `seal` reads the file again.
    ///
    /// # Errors
    /// Fails if the file exists, or if a system call fails.
    pub fn create_file(&self, kind: &EntryKind) -> Result<EntryFile, BundleError> {
        let name = kind.file_name();
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, name.as_str(), flags, FILE_MODE)
            .map_err(io::Error::from)
            .map_err(self.failed("create", kind))?;
        Ok(EntryFile {
            out: DigestWriter::new(File::from(file)),
        })
    }

    /// Records the digests of a file, so that `seal` need not read it. With wrong digests the
    /// bundle cannot be shipped: the upload compares the bytes with them.
    pub fn record(&mut self, kind: &EntryKind, digests: Digests) {
        self.known.retain(|(known, _)| known != kind);
        self.known.push((kind.clone(), digests));
    }

    /// Opens a file of the entry for reading.
    ///
    /// # Errors
    /// Fails if there is no such file, or if it is not a regular file.
    pub fn open_file(&self, kind: &EntryKind) -> Result<File, BundleError> {
        open_regular(&self.directory, &self.path, &kind.file_name())
    }

    /// The kinds of the files in this entry in bundle order, without the manifest.
    ///
    /// # Errors
    /// Fails if the directory cannot be read.
    pub fn kinds(&self) -> Result<Vec<EntryKind>, BundleError> {
        let failed = || BundleError::io(format!("list `{}`", self.path.display()));
        let mut kinds = Vec::new();
        for item in rustix::fs::Dir::read_from(&self.directory)
            .map_err(io::Error::from)
            .map_err(failed())?
        {
            let item = item.map_err(io::Error::from).map_err(failed())?;
            let name = item.file_name().to_str().ok();
            kinds.extend(name.and_then(EntryKind::from_file_name));
        }
        kinds.retain(|kind| *kind != EntryKind::Manifest);
        kinds.sort();
        Ok(kinds)
    }

    /// Fills in `manifest.entries`, writes the manifest, syncs everything and renames the entry to
    /// `<id>`. Returns the new path. A file that is not a regular file is recorded as a gap.
    ///
    /// # Errors
    /// Fails if the manifest belongs to another dump or has an unsafe stem, or if a system call
    /// fails. The entry then remains partial.
    pub fn seal(self, mut manifest: Manifest) -> Result<PathBuf, BundleError> {
        if manifest.id != self.id || !crate::is_safe_stem(&manifest.stem) {
            let name = crate::RawText::from(manifest.stem.as_str()).to_string();
            return Err(BundleError::Name { name });
        }
        manifest.entries.clear();
        for kind in self.kinds()? {
            match self.sync_and_record(&kind, &manifest.stem) {
                Ok(record) => manifest.entries.push(record),
                Err(BundleError::NotRegular { .. }) => manifest.gaps.push(Gap {
                    what: kind.file_name(),
                    why: "no regular file in the spool".to_owned(),
                }),
                Err(error) => return Err(error),
            }
        }
        self.write_manifest(&manifest)?;
        let sealed = self.spool.join(self.id.to_string());
        let failed = || BundleError::io(format!("seal `{}`", self.path.display()));
        let renamed = (|| {
            rustix::fs::fsync(&self.directory)?;
            rustix::fs::renameat_with(CWD, &self.path, CWD, &sealed, RenameFlags::NOREPLACE)?;
            rustix::fs::fsync(open_directory(&self.spool)?)?;
            Ok(())
        })();
        renamed.map_err(failed())?;
        Ok(sealed)
    }

    fn sync_and_record(&self, kind: &EntryKind, stem: &str) -> Result<EntryRecord, BundleError> {
        let file = self.open_file(kind)?;
        file.sync_data().map_err(self.failed("sync", kind))?;
        let len = file.metadata().map_err(self.failed("stat", kind))?.len();
        let deflated = *kind == EntryKind::Core(crate::CoreEncoding::Deflate);
        let known = self
            .known
            .iter()
            .find(|(known, _)| known == kind)
            .map(|(_, digests)| *digests);
        let digests = match known {
            // The digests cover what a zip reader sees, not the deflated stream.
            Some(digests) if digests.size == len && !deflated => digests,
            _ if deflated => Digests::of_reader(flate2::read::DeflateDecoder::new(file))
                .map_err(self.failed("read", kind))?,
            _ => Digests::of_reader(file).map_err(self.failed("read", kind))?,
        };
        Ok(EntryRecord {
            name: kind.bundle_name(stem),
            size: digests.size,
            crc32: digests.crc32,
            sha256: digests.sha256,
            stored_size: deflated.then_some(len),
        })
    }

    fn write_manifest(&self, manifest: &Manifest) -> Result<(), BundleError> {
        const DRAFT: &str = "manifest.json.new";
        let json = manifest.to_json()?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let written = (|| {
            // A handler that died while sealing may have left a draft.
            match rustix::fs::unlinkat(&self.directory, DRAFT, rustix::fs::AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
            let mut file = File::from(rustix::fs::openat(
                &self.directory,
                DRAFT,
                flags,
                FILE_MODE,
            )?);
            file.write_all(&json)?;
            file.sync_all()?;
            let name = EntryKind::Manifest.file_name();
            rustix::fs::renameat(&self.directory, DRAFT, &self.directory, name.as_str())?;
            Ok(())
        })();
        written.map_err(self.failed("write", &EntryKind::Manifest))
    }

    fn failed(
        &self,
        verb: &str,
        kind: &EntryKind,
    ) -> impl FnOnce(io::Error) -> BundleError + use<> {
        BundleError::io(format!(
            "{verb} `{}`",
            self.path.join(kind.file_name()).display()
        ))
    }
}

/// A file of a spool entry that is being written; computes digests of the written bytes.
pub struct EntryFile {
    out: DigestWriter<File>,
}

impl EntryFile {
    /// The file, for callers that bypass the digests or need its size.
    #[must_use]
    pub fn file(&self) -> &File {
        self.out.get_ref()
    }

    /// The file and the digests of what was written. The bytes are synced only when the entry is
    /// sealed.
    #[must_use]
    pub fn finish(self) -> (File, Digests) {
        self.out.finish()
    }
}

impl Write for EntryFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.out.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// State of an entry in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpoolState {
    /// Complete, with a manifest.
    Sealed,
    /// Its handler is running.
    Live,
    /// Its handler died: salvage it with [`EntryDir::adopt`].
    Abandoned,
}

/// An entry in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolEntry {
    /// The dump's id.
    pub id: DumpId,
    /// The entry's directory.
    pub path: PathBuf,
    /// Whether it is sealed.
    pub state: SpoolState,
}

impl SpoolEntry {
    /// Deletes the entry. It stops being an entry with the first step, a rename.
    ///
    /// # Errors
    /// Fails if a system call fails.
    pub fn remove(self) -> Result<(), BundleError> {
        let failed = || BundleError::io(format!("delete `{}`", self.path.display()));
        let spool = self.path.parent().unwrap_or(Path::new("."));
        let gone = spool.join(format!("{REMOVED}{}", self.id));
        fs::rename(&self.path, &gone).map_err(failed())?;
        // Does not follow symlinks.
        fs::remove_dir_all(&gone).map_err(failed())
    }
}

/// The entries in `spool`, sealed and partial, sorted by id. Ignores everything else in the
/// directory.
///
/// # Errors
/// Fails if the directory cannot be read.
pub fn list_spool(spool: &Path) -> Result<Vec<SpoolEntry>, BundleError> {
    let mut entries = Vec::new();
    for (name, path) in directories(spool)? {
        let (id, partial) = match name.strip_suffix(PARTIAL) {
            Some(id) => (id, true),
            None => (name.as_str(), false),
        };
        let Ok(id) = id.parse() else { continue };
        let state = match partial {
            false => SpoolState::Sealed,
            true => match is_held(&path) {
                Ok(true) => SpoolState::Live,
                Ok(false) => SpoolState::Abandoned,
                // Sealed or removed since the directory was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(BundleError::io(format!("lock `{}`", path.display()))(error));
                }
            },
        };
        entries.push(SpoolEntry { id, path, state });
    }
    entries.sort_by_key(|entry| entry.id);
    Ok(entries)
}

/// Deletes leftovers: entries whose creation or deletion was interrupted.
///
/// # Errors
/// Fails if the directory cannot be read. Leftovers that cannot be deleted are skipped.
pub fn sweep_spool(spool: &Path) -> Result<(), BundleError> {
    for (name, path) in directories(spool)? {
        let Some(id) = name
            .strip_prefix(NEW)
            .or_else(|| name.strip_prefix(REMOVED))
        else {
            continue;
        };
        if id.parse::<DumpId>().is_ok() && matches!(is_held(&path), Ok(false)) {
            if name.starts_with(NEW) {
                // Only while it is empty: another process may have created it a moment ago and not
                // locked it yet.
                let old = fs::metadata(&path)
                    .and_then(|metadata| metadata.modified())
                    .ok();
                let age = old
                    .and_then(|modified| modified.elapsed().ok())
                    .unwrap_or_default();
                if age.as_secs() > 60 {
                    let _ = fs::remove_dir(&path);
                }
            } else {
                let _ = fs::remove_dir_all(&path);
            }
        }
    }
    Ok(())
}

fn directories(spool: &Path) -> Result<Vec<(String, PathBuf)>, BundleError> {
    let failed = || BundleError::io(format!("list `{}`", spool.display()));
    let mut found = Vec::new();
    for item in fs::read_dir(spool).map_err(failed())? {
        let item = item.map_err(failed())?;
        // The type of the item itself: a symlink to a directory does not count.
        if item.file_type().map_err(failed())?.is_dir()
            && let Ok(name) = item.file_name().into_string()
        {
            found.push((name, item.path()));
        }
    }
    Ok(found)
}

fn is_held(path: &Path) -> io::Result<bool> {
    let directory = open_directory(path)?;
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory; refuses a symlink to one.
pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens a regular file in `directory`. Refuses links, FIFOs and devices without blocking on them.
pub(crate) fn open_regular(
    directory: &OwnedFd,
    path: &Path,
    name: &str,
) -> Result<File, BundleError> {
    let path = path.join(OsStr::from_bytes(name.as_bytes()));
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => {
            return Err(BundleError::NotRegular { path });
        }
        Err(error) => {
            return Err(BundleError::io(format!("open `{}`", path.display()))(
                error.into(),
            ));
        }
    };
    let metadata = file
        .metadata()
        .map_err(BundleError::io(format!("stat `{}`", path.display())))?;
    if metadata.is_file() {
        Ok(file)
    } else {
        Err(BundleError::NotRegular { path })
    }
}
