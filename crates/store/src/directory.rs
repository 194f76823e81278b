//! A store in a directory, with the layout of a bucket: `rsync` and `aws s3 sync` move dumps between them.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cdh_bundle::{DigestWriter, Digests, SourceReader, Window};
use cdh_elfcore::{ByteSource, FileSource};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{ListedObject, ObjectKey, ObjectStat, Store, StoreError};

/// Where objects are written before they get their name; invisible to listings.
const STAGING: &str = ".staging";
/// Deeper trees are not ours.
const MAX_DEPTH: usize = 16;

/// A store in a directory.
#[derive(Debug)]
pub struct DirectoryStore {
    root: PathBuf,
}

impl DirectoryStore {
    /// Opens a store that is there.
    ///
    /// # Errors
    /// When it is not, or may not be listed.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = path.into();
        fs::read_dir(&root).map_err(|error| failed(&root, error))?;
        Ok(Self { root })
    }

    /// Opens a store, and makes the directory where it is missing, for its owner only.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = path.into();
        make_directory(&root)?;
        Self::open(root)
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// A new file that nobody else writes.
    fn stage(&self) -> Result<(PathBuf, File), StoreError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let directory = self.root.join(STAGING);
        make_directory(&directory)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let time = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        let path = directory.join(format!("{}-{time}-{number}", std::process::id()));
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|error| failed(&path, error))?;
        Ok((path, file))
    }

    /// Gives a staged file its name, unless something else has it.
    fn publish(&self, staged: &Path, key: &ObjectKey, sent: &Digests) -> Result<(), StoreError> {
        let path = self.path(key);
        let parent = path.parent().unwrap_or(&self.root);
        make_directory(parent)?;
        let io_failed = |error: io::Error| failed(&path, error);
        match renameat_with(CWD, staged, CWD, &path, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => {
                fs::remove_file(staged).map_err(io_failed)?;
                let found = Digests::of_reader(SourceReader::new(Window::whole(self.read(key)?)));
                if found.map_err(io_failed)? != *sent {
                    return Err(StoreError::Conflict { key: key.to_string() });
                }
            }
            // Some network file systems know no flags: a hard link does not replace either.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                fs::hard_link(staged, &path).map_err(io_failed)?;
                fs::remove_file(staged).map_err(io_failed)?;
            }
            Err(error) => return Err(io_failed(error.into())),
        }
        let sync = |directory: &Path| File::open(directory).and_then(|file| file.sync_all());
        sync(parent).map_err(|error| failed(parent, error))
    }
}

fn failed(path: &Path, error: io::Error) -> StoreError {
    StoreError::from_io(path.display().to_string(), error)
}

fn make_directory(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| failed(path, error))
}

/// Copies until the end, and one byte further than announced at most.
fn copy(body: &mut dyn Read, len: u64, file: File) -> io::Result<(File, Digests)> {
    let mut out = DigestWriter::new(file);
    io::copy(&mut body.take(len.saturating_add(1)), &mut out)?;
    out.flush()?;
    let (file, digests) = out.finish();
    file.sync_all()?;
    Ok((file, digests))
}

impl Store for DirectoryStore {
    fn describe(&self) -> String {
        format!("directory {}", self.root.display())
    }

    fn put(
        &self,
        key: &ObjectKey,
        body: &mut dyn Read,
        len: u64,
    ) -> Result<Digests, StoreError> {
        let (staged, file) = self.stage()?;
        let outcome = match copy(body, len, file) {
            Ok((_, sent)) if sent.size == len => {
                return self.publish(&staged, key, &sent).map(|()| sent);
            }
            Ok((_, sent)) => {
                Err(StoreError::Length { key: key.to_string(), expected: len, found: sent.size })
            }
            Err(error) => Err(failed(&self.path(key), error)),
        };
        // Best effort: what stays behind is invisible.
        let _ = fs::remove_file(&staged);
        outcome
    }

    fn stat(&self, key: &ObjectKey) -> Result<Option<ObjectStat>, StoreError> {
        let path = self.path(key);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(ObjectStat { size: metadata.len() })),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&path, error)),
        }
    }

    fn read(&self, key: &ObjectKey) -> Result<Arc<dyn ByteSource>, StoreError> {
        let path = self.path(key);
        let open = || FileSource::new(File::open(&path)?);
        Ok(Arc::new(open().map_err(|error| failed(&path, error))?))
    }

    fn list(
        &self,
        under: &str,
        visit: &mut dyn FnMut(ListedObject) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        walk(&self.root, "", under, 0, visit).map(|_| ())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&path, error)),
            _ => Ok(()),
        }
    }
}

/// Visits the files below `directory` in the order of their keys. Hidden files, links and names that
/// are no keys are not objects.
fn walk(
    directory: &Path,
    prefix: &str,
    under: &str,
    depth: usize,
    visit: &mut dyn FnMut(ListedObject) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StoreError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        // Removed while we were on our way.
        Err(error) if error.kind() == io::ErrorKind::NotFound && depth > 0 => {
            return Ok(ControlFlow::Continue(()));
        }
        Err(error) => return Err(failed(directory, error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| failed(directory, error))?;
        let Ok(kind) = entry.file_type() else { continue };
        let Ok(mut name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') || !(kind.is_dir() || kind.is_file()) {
            continue;
        }
        if kind.is_dir() {
            name.push('/');
        }
        found.push((name, entry));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, entry) in found {
        let key = format!("{prefix}{name}");
        if key.ends_with('/') {
            let wanted = key.starts_with(under) || under.starts_with(&key);
            if wanted && depth < MAX_DEPTH {
                let flow = walk(&entry.path(), &key, under, depth + 1, visit)?;
                if flow.is_break() {
                    return Ok(flow);
                }
            }
        } else if key.starts_with(under)
            && let (Ok(key), Ok(metadata)) = (ObjectKey::parse(&key), entry.metadata())
            && visit(ListedObject { key, size: metadata.len() }).is_break()
        {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
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
        assert!(matches!(short, Err(StoreError::Length { expected: 4, found: 3, .. })));
        let long = store.put(&key("a/b"), &mut b"abcdef".as_slice(), 4);
        assert!(matches!(long, Err(StoreError::Length { expected: 4, .. })));
        assert_eq!(store.stat(&key("a/b")).unwrap(), None);
        store.put(&key("a/b"), &mut b"abcd".as_slice(), 4).unwrap();
        store.put(&key("a/b"), &mut b"abcd".as_slice(), 4).unwrap();
        let other = store.put(&key("a/b"), &mut b"xxxx".as_slice(), 4);
        assert!(matches!(other, Err(StoreError::Conflict { .. })));
        let mut names = Vec::new();
        let mut visit = |object: ListedObject| {
            names.push((object.key.to_string(), object.size));
            ControlFlow::Continue(())
        };
        store.list("", &mut visit).unwrap();
        assert_eq!(names, [("a/b".to_owned(), 4)]);
        store.delete(&key("a/b")).unwrap();
        store.delete(&key("a/b")).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("store").join(STAGING)).unwrap().count(), 0);
    }

    #[test]
    fn missing_store_is_not_made_by_opening_it() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("nope");
        assert!(matches!(DirectoryStore::open(&missing), Err(StoreError::NotFound { .. })));
        assert!(!missing.exists());
    }
}
