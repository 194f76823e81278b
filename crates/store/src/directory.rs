//! A store in a directory: the same layout as in a bucket, so that `rsync` and `aws s3 sync` move
//! dumps between them.
//!
//! An object is written under a hidden name beside its final one, synced, and renamed without
//! replacing anything. A crash at any point leaves either the complete object or a hidden file. All
//! files are opened relative to the root's descriptor, so a link in the store cannot lead out of
//! it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cdh_bundle::{DigestWriter, Digests, SourceReader, Window};
use cdh_elfcore::{ByteSource, FileSource};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};

use crate::draft::{Draft, sweep_drafts};
use crate::{
    Depth, Listed, ListedObject, Listing, ObjectKey, ObjectStat, Receipt, Store, StoreError,
};

/// Cores hold secrets.
const DIRECTORY_MODE: Mode = Mode::RWXU;

/// Maximum depth of the listing.
const DEEPEST: usize = 32;

/// A store in a directory.
#[derive(Debug)]
pub struct DirectoryStore {
    path: PathBuf,
    root: OwnedFd,
}

/// The file system's facts about an object. A replaced file has another inode; a modified one has
/// another time or size.
fn stat_of(stat: &rustix::fs::Stat) -> ObjectStat {
    let (seconds, nanoseconds) = (stat.st_mtime, stat.st_mtime_nsec);
    let size = u64::try_from(stat.st_size).unwrap_or_default();
    let nanosecond = i32::try_from(nanoseconds).unwrap_or_default();
    ObjectStat {
        size,
        etag: Some(format!(
            "{:x}-{seconds:x}.{nanoseconds:x}-{size:x}",
            stat.st_ino
        )),
        modified: jiff::Timestamp::new(seconds, nanosecond).ok(),
    }
}

fn failed(path: impl Into<String>, error: impl Into<io::Error>) -> StoreError {
    StoreError::from_io(path, error.into())
}

impl DirectoryStore {
    /// Opens an existing directory.
    ///
    /// # Errors
    /// If it does not exist, is not a directory, or is not readable.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| failed(path.display().to_string(), error))?;
        Ok(Self {
            path: path.to_owned(),
            root,
        })
    }

    /// Whether [`create`](Self::create) could create the directory. Creates and removes a directory of another
    /// name beside it, because permissions alone do not show what a file system accepts.
    ///
    /// # Errors
    /// As `create`.
    pub fn can_create(path: &Path) -> Result<(), StoreError> {
        let path = std::path::absolute(path)
            .map_err(|error| StoreError::from_io(path.display().to_string(), error))?;
        let mut above = path.ancestors().skip(1);
        let above = above.find(|above| above.exists()).unwrap_or(&path);
        let probe = above.join(format!(".cdh-probe-{}", std::process::id()));
        let made = fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe));
        let shown = path.display().to_string();
        made.map_err(|source| match source.kind() {
            // A pseudo file system reports this for every name.
            io::ErrorKind::NotFound => StoreError::Io {
                path: shown,
                source,
            },
            io::ErrorKind::NotADirectory => StoreError::NotADirectory {
                path: above.display().to_string(),
            },
            _ => StoreError::from_io(shown, source),
        })
    }

    /// Opens a directory, and creates it and its parents if necessary, accessible only to the
    /// owner.
    ///
    /// # Errors
    /// If it cannot be created or opened.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        use std::os::unix::fs::DirBuilderExt;
        let path = path.as_ref();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| failed(path.display().to_string(), error))?;
        Self::open(path)
    }

    /// Opens the file `name`, without leaving the root.
    fn open_beneath(&self, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        loop {
            match rustix::fs::openat2(&self.root, name, flags, Mode::empty(), resolve) {
                // A rename elsewhere raced with the path walk.
                Err(rustix::io::Errno::AGAIN) => {}
                result => return result,
            }
        }
    }

    /// The directory that contains `key`, created if necessary, and the last part of the key.
    fn parent_of<'k>(&self, key: &'k ObjectKey) -> io::Result<(OwnedFd, &'k str)> {
        let (above, name) = key.as_str().rsplit_once('/').unwrap_or((".", key.as_str()));
        let mut at = self.open_beneath(".", OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut so_far = String::new();
        for part in above.split('/').filter(|part| *part != ".") {
            if !so_far.is_empty() {
                so_far.push('/');
            }
            so_far.push_str(part);
            match rustix::fs::mkdirat(&at, part, DIRECTORY_MODE) {
                Ok(()) => rustix::fs::fsync(&at)?,
                Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            at = self.open_beneath(&so_far, OFlags::RDONLY | OFlags::DIRECTORY)?;
        }
        Ok((at, name))
    }

    fn open_object(&self, key: &ObjectKey) -> Result<Option<File>, StoreError> {
        use rustix::io::Errno;
        let file = match self.open_beneath(key.as_str(), OFlags::RDONLY) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(failed(key.as_str(), error)),
        };
        let metadata = file
            .metadata()
            .map_err(|error| failed(key.as_str(), error))?;
        Ok(metadata.is_file().then_some(file))
    }

    /// Checks that the open directory still has its path: a deleted one would look empty.
    fn check_root(&self) -> Result<(), StoreError> {
        let shown = || self.path.display().to_string();
        let open = rustix::fs::fstat(&self.root).map_err(|error| failed(shown(), error))?;
        match rustix::fs::stat(&self.path) {
            Ok(found) if (found.st_dev, found.st_ino) == (open.st_dev, open.st_ino) => Ok(()),
            Ok(_) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
                Err(StoreError::Removed { path: shown() })
            }
            Err(error) => Err(failed(shown(), error)),
        }
    }

    /// Whether the object has these bytes.
    fn holds(&self, key: &ObjectKey, digests: &Digests) -> Result<bool, StoreError> {
        let source = SourceReader::new(Window::whole(self.read(key)?));
        let found = Digests::of_reader(source).map_err(|error| failed(key.as_str(), error))?;
        Ok(found == *digests)
    }

    fn list_in(
        &self,
        directory: &OwnedFd,
        above: &str,
        listing: &Listing<'_>,
        depth: usize,
        visit: &mut dyn FnMut(Listed) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let failed_here = |error| failed(self.path.join(above).display().to_string(), error);
        let mut names = Vec::new();
        for item in rustix::fs::Dir::read_from(directory).map_err(failed_here)? {
            let item = item.map_err(failed_here)?;
            if let Ok(name) = item.file_name().to_str()
                && !name.starts_with('.')
            {
                names.push(name.to_owned());
            }
        }
        let under = listing.under;
        let after = listing.start_after.unwrap_or_default();
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            let path = format!("{above}{name}");
            // Links are not followed: a link to a parent directory would cause an endless loop.
            let stat = match rustix::fs::statat(directory, name.as_str(), AtFlags::SYMLINK_NOFOLLOW)
            {
                Ok(stat) => stat,
                // Deleted since it was listed.
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(failed(path, error)),
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => found.push((format!("{path}/"), name, stat)),
                FileType::RegularFile => found.push((path, name, stat)),
                _ => {}
            }
        }
        // Keys sort by bytes, as in a bucket: `a-b` comes before `a/b`.
        found.sort_by(|a, b| a.0.cmp(&b.0));
        for (path, name, stat) in found {
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let inside = path;
                    let wanted = inside.starts_with(under) || under.starts_with(&inside);
                    // Everything in it sorts before the start key.
                    let is_over = after > inside.as_str() && !after.starts_with(&inside);
                    if !wanted || is_over || depth >= DEEPEST {
                        continue;
                    }
                    if listing.depth == Depth::Level && inside.len() > under.len() {
                        // Both are prefixes of the same keys, so a key inside it is not skipped.
                        if visit(Listed::Prefix(inside)).is_break() {
                            return Ok(ControlFlow::Break(()));
                        }
                        continue;
                    }
                    let flags =
                        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let child =
                        match rustix::fs::openat(directory, name.as_str(), flags, Mode::empty()) {
                            Ok(child) => child,
                            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => continue,
                            Err(error) => return Err(failed(inside, error)),
                        };
                    let flow =
                        self.list_in(&child, &inside, listing, depth.saturating_add(1), visit)?;
                    if flow.is_break() {
                        return Ok(flow);
                    }
                }
                _ if path.starts_with(under) && path.as_str() > after => {
                    // A file whose name we would not write is foreign.
                    let Ok(key) = ObjectKey::parse(&path) else {
                        continue;
                    };
                    let ObjectStat {
                        size,
                        etag,
                        modified,
                    } = stat_of(&stat);
                    let object = ListedObject {
                        key,
                        size,
                        etag,
                        modified,
                    };
                    let flow = visit(Listed::Object(object));
                    if flow.is_break() {
                        return Ok(flow);
                    }
                }
                _ => {}
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Store for DirectoryStore {
    fn describe(&self) -> String {
        format!("directory {}", self.path.display())
    }

    fn check(&self) -> Result<(), StoreError> {
        let shown = self.path.display().to_string();
        // The open directory may have been removed, or its file system remounted read-only.
        fs::metadata(&self.path).map_err(|error| failed(shown.as_str(), error))?;
        rustix::fs::access(&self.path, rustix::fs::Access::WRITE_OK)
            .map_err(|error| failed(shown.as_str(), error))
    }

    fn put(&self, key: &ObjectKey, body: &mut dyn Read, len: u64) -> Result<Receipt, StoreError> {
        let failed_here =
            |error: io::Error| failed(self.path.join(key.as_str()).display().to_string(), error);
        let (directory, name) = self.parent_of(key).map_err(failed_here)?;
        sweep_drafts(&directory);
        let (mut draft, file) = Draft::create(&directory).map_err(failed_here)?;
        let mut out = DigestWriter::new(file);
        // One byte more than announced shows that the body is too long.
        let mut body = body.take(len.saturating_add(1));
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(StoreError::Io {
                        path: key.to_string(),
                        source,
                    });
                }
            };
            out.write_all(buffer.get(..count).unwrap_or_default())
                .map_err(failed_here)?;
        }
        let (file, digests) = out.finish();
        if digests.size != len {
            let (key, found) = (key.to_string(), digests.size);
            return Err(StoreError::Length {
                key,
                expected: len,
                found,
            });
        }
        file.sync_all().map_err(failed_here)?;
        let published = draft
            .publish(name)
            .map_err(io::Error::from)
            .map_err(failed_here)?;
        if !published && !self.holds(key, &digests)? {
            return Err(StoreError::Conflict {
                key: key.to_string(),
            });
        }
        drop(draft);
        rustix::fs::fsync(&directory)
            .map_err(io::Error::from)
            .map_err(failed_here)?;
        Ok(Receipt::new(digests))
    }

    fn stat(&self, key: &ObjectKey) -> Result<Option<ObjectStat>, StoreError> {
        let Some(file) = self.open_object(key)? else {
            return Ok(None);
        };
        let stat = rustix::fs::fstat(&file).map_err(|error| failed(key.as_str(), error))?;
        Ok(Some(stat_of(&stat)))
    }

    fn read_pinned(
        &self,
        key: &ObjectKey,
        stat: &ObjectStat,
    ) -> Result<Arc<dyn ByteSource>, StoreError> {
        let not_found = || StoreError::NotFound {
            path: key.to_string(),
        };
        let file = self.open_object(key)?.ok_or_else(not_found)?;
        let found = rustix::fs::fstat(&file).map_err(|error| failed(key.as_str(), error))?;
        // Objects are replaced by renames, so the open file never changes.
        if stat.etag.is_some() && stat_of(&found).etag != stat.etag {
            return Err(StoreError::Changed {
                key: key.to_string(),
            });
        }
        let source = FileSource::new(file).map_err(|error| failed(key.as_str(), error))?;
        Ok(Arc::new(source))
    }

    fn list(
        &self,
        listing: &Listing<'_>,
        visit: &mut dyn FnMut(Listed) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.check_root()?;
        let shown = self.path.display().to_string();
        let root = self
            .open_beneath(".", OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|error| failed(shown, error))?;
        self.list_in(&root, "", listing, 0, visit).map(drop)
    }

    fn share(&self, key: &ObjectKey, _expires: Duration) -> Result<String, StoreError> {
        Err(StoreError::Unsupported {
            what: format!("a link to {key} in a directory"),
        })
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let failed_here = |error| failed(self.path.join(key.as_str()).display().to_string(), error);
        let (above, name) = key.as_str().rsplit_once('/').unwrap_or((".", key.as_str()));
        let directory = match self.open_beneath(above, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(directory) => directory,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(()),
            Err(error) => return Err(failed_here(error)),
        };
        match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
            Ok(()) => rustix::fs::fsync(&directory).map_err(failed_here),
            Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(failed_here(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ObjectKey {
        ObjectKey::parse(text).unwrap()
    }

    #[test]
    fn object_is_sealed_or_invisible() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::create(dir.path().join("store")).unwrap();
        let short = store.put(&key("a/b"), &mut b"abc".as_slice(), 4);
        assert!(matches!(
            short,
            Err(StoreError::Length {
                expected: 4,
                found: 3,
                ..
            })
        ));
        let long = store.put(&key("a/b"), &mut b"abcdef".as_slice(), 4);
        assert!(matches!(long, Err(StoreError::Length { expected: 4, .. })));
        assert_eq!(store.stat(&key("a/b")).unwrap(), None);
        store.put(&key("a/b"), &mut b"abcd".as_slice(), 4).unwrap();
        store.put(&key("a/b"), &mut b"abcd".as_slice(), 4).unwrap();
        let other = store.put(&key("a/b"), &mut b"xxxx".as_slice(), 4);
        assert!(matches!(other, Err(StoreError::Conflict { .. })));
        let mut names = Vec::new();
        let mut visit = |listed: Listed| {
            if let Listed::Object(object) = listed {
                names.push((object.key.to_string(), object.size));
            }
            ControlFlow::Continue(())
        };
        store.list(&Listing::default(), &mut visit).unwrap();
        assert_eq!(names, [("a/b".to_owned(), 4)]);
        store.delete(&key("a/b")).unwrap();
        store.delete(&key("a/b")).unwrap();
        let left = fs::read_dir(dir.path().join("store/a")).unwrap().count();
        assert_eq!(left, 0);
    }

    #[test]
    fn missing_store_is_not_made_by_opening_it() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("nope");
        assert!(matches!(
            DirectoryStore::open(&missing),
            Err(StoreError::NotFound { .. })
        ));
        assert!(!missing.exists());
    }
}
