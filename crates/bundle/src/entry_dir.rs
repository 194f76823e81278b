//! A spool entry: a directory with one file per future bundle entry.
//!
//! ```text
//! <spool>/.new-<id>/       made and locked, invisible
//! <spool>/<id>.partial/    being written; its lock is held as long as the handler lives
//! <spool>/<id>/            sealed: whole, with a manifest, on disk
//! <spool>/.removed-<id>/   shipped, being deleted
//! ```
//!
//! Every step is a rename. A crash of the handler, the daemon or the node at any point leaves one of
//! these four, and each says what to do: sweep the first and the last, salvage a partial entry that
//! nobody holds, ship a sealed one.
//!
//! The lock is an flock on the directory itself: it is no file that could end up in a bundle, and the
//! kernel drops it with its holder. Files are opened beneath the directory's descriptor without
//! following links, so that nothing which another process puts there leads elsewhere.

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

/// Only root reads cores.
const DIRECTORY_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A spool entry that is being written, and the lock on it.
pub struct EntryDir {
    id: DumpId,
    spool: PathBuf,
    path: PathBuf,
    directory: OwnedFd,
    known: Vec<(EntryKind, Digests)>,
}

impl EntryDir {
    /// Makes `<id>.partial` in `spool` and locks it.
    ///
    /// # Errors
    /// When there is an entry of this id, or the system says no.
    pub fn create(spool: &Path, id: DumpId) -> Result<Self, BundleError> {
        let hidden = spool.join(format!("{NEW}{id}"));
        let path = spool.join(format!("{id}{PARTIAL}"));
        let failed = || BundleError::io(format!("create `{}`", path.display()));
        rustix::fs::mkdir(&hidden, DIRECTORY_MODE)
            .map_err(io::Error::from)
            .map_err(failed())?;
        let made = (|| {
            let directory = open_directory(&hidden)?;
            // Locked before it can be seen: nobody takes it for one whose handler died.
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

    /// Takes over `<id>.partial`, whose handler died.
    ///
    /// # Errors
    /// `Busy` while its handler, or somebody else, holds it; when there is none.
    pub fn adopt(spool: &Path, id: DumpId) -> Result<Self, BundleError> {
        let path = spool.join(format!("{id}{PARTIAL}"));
        let failed = || BundleError::io(format!("take over `{}`", path.display()));
        let directory = open_directory(&path).map_err(failed())?;
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(BundleError::Busy { path }),
            Err(error) => return Err(failed()(error.into())),
        }
        // Between opening and locking it may have been sealed: then there is nothing left to salvage.
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

    /// Where the entry is now.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Descriptor of the directory, for `openat(2)`.
    #[must_use]
    pub fn descriptor(&self) -> &OwnedFd {
        &self.directory
    }

    /// Writes a whole file.
    ///
    /// # Errors
    /// When it is there already, or the system says no.
    pub fn write_file(&mut self, kind: &EntryKind, bytes: &[u8]) -> Result<(), BundleError> {
        let mut file = self.create_file(kind)?;
        file.write_all(bytes).map_err(self.failed("write", kind))?;
        let (_, digests) = file.finish();
        self.record(kind, digests);
        Ok(())
    }

    /// Starts a file that grows, such as the core. Tell what [`EntryFile::finish`] returns to
    /// [`EntryDir::record`], else `seal` reads the file again.
    ///
    /// # Errors
    /// When it is there already, or the system says no.
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

    /// Tells what is in a file, so that `seal` need not read it. Wrong digests make a bundle that
    /// cannot be shipped: its bytes are compared with them on the way.
    pub fn record(&mut self, kind: &EntryKind, digests: Digests) {
        self.known.retain(|(known, _)| known != kind);
        self.known.push((kind.clone(), digests));
    }

    /// Opens a file of the entry for reading.
    ///
    /// # Errors
    /// When there is none, or it is no regular file.
    pub fn open_file(&self, kind: &EntryKind) -> Result<File, BundleError> {
        open_regular(&self.directory, &self.path, &kind.file_name())
    }

    /// The kinds of files that are there, in the order of a bundle, the manifest excepted.
    ///
    /// # Errors
    /// When the directory cannot be read.
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

    /// Fills in `manifest.entries`, writes the manifest, brings everything to disk and renames the
    /// entry to `<id>`, whose path it returns. What is no regular file becomes a gap.
    ///
    /// # Errors
    /// When the manifest is of another dump or has an unsafe stem, or the system says no. The entry
    /// then stays partial.
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
            // The digests are those of what a reader of the zip sees, not of the deflated stream.
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
            // A draft may be left from a handler that died while sealing.
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

/// A file of a spool entry that is being written; digests what goes through.
pub struct EntryFile {
    out: DigestWriter<File>,
}

impl EntryFile {
    /// The file, for those who write past the digests or ask for its size.
    #[must_use]
    pub fn file(&self) -> &File {
        self.out.get_ref()
    }

    /// The file and the digests of what was written. The bytes are on disk only once the entry is sealed.
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

/// Whether an entry in the spool is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpoolState {
    /// Whole, with a manifest.
    Sealed,
    /// Its handler is at work.
    Live,
    /// Its handler is gone: salvage it with [`EntryDir::adopt`].
    Abandoned,
}

/// An entry in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolEntry {
    /// The dump's id.
    pub id: DumpId,
    /// The entry's directory.
    pub path: PathBuf,
    /// Whether it is whole.
    pub state: SpoolState,
}

impl SpoolEntry {
    /// Deletes the entry. From the first step on it is none any more.
    ///
    /// # Errors
    /// When the system says no.
    pub fn remove(self) -> Result<(), BundleError> {
        let failed = || BundleError::io(format!("delete `{}`", self.path.display()));
        let spool = self.path.parent().unwrap_or(Path::new("."));
        let gone = spool.join(format!("{REMOVED}{}", self.id));
        fs::rename(&self.path, &gone).map_err(failed())?;
        // Does not follow links.
        fs::remove_dir_all(&gone).map_err(failed())
    }
}

/// The entries in `spool`, sealed and partial, by id. Everything else there is left alone.
///
/// # Errors
/// When the directory cannot be read.
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
                // Sealed or removed since the directory was read.
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

/// Deletes what is left of entries that were never begun, or were not deleted to the end.
///
/// # Errors
/// When the directory cannot be read; leftovers that resist are skipped.
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
                // Only while it is empty: it may have been made a moment ago, and not be locked yet.
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
        // Of the item itself: a link to a directory is none.
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

/// Opens a directory that is one, and no link to one.
pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens a regular file in `directory`; links, FIFOs and devices are refused without waiting on them.
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
