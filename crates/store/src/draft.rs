//! A file of a directory store before it gets its final name.
//!
//! Drafts are hidden, and their writers lock them. A draft without a lock is from a killed process; the next
//! `put` into the same directory deletes it, so that retries of a big upload do not fill the disk.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use cdh_bundle::DumpId;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};

/// Keys never have parts that begin with a dot.
const PREFIX: &str = ".put-";

/// Cores hold secrets.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A younger draft may be new and not locked yet.
const SETTLED: Duration = Duration::from_secs(60);

/// Deletes drafts of processes that have ended. Best effort, because drafts are invisible.
pub(crate) fn sweep_drafts(directory: &OwnedFd) {
    let Ok(items) = rustix::fs::Dir::read_from(directory) else {
        return;
    };
    for item in items.flatten() {
        let Some(name) = item
            .file_name()
            .to_str()
            .ok()
            .filter(|name| name.starts_with(PREFIX))
        else {
            continue;
        };
        if is_abandoned(directory, name).unwrap_or(false) {
            let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
        }
    }
}

fn is_abandoned(directory: &OwnedFd, name: &str) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    let age = metadata.modified()?.elapsed().unwrap_or_default();
    let settled = metadata.is_file() && age > SETTLED;
    Ok(settled && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok())
}

/// A file without its final name; removed unless it gets one.
pub(crate) struct Draft<'d> {
    directory: &'d OwnedFd,
    name: String,
    kept: bool,
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.kept {
            let _ = rustix::fs::unlinkat(self.directory, self.name.as_str(), AtFlags::empty());
        }
    }
}

impl<'d> Draft<'d> {
    /// Creates a file that only this process writes, and locks it while it is open.
    pub(crate) fn create(directory: &'d OwnedFd) -> io::Result<(Self, File)> {
        let name = format!("{PREFIX}{}", DumpId::random());
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, name.as_str(), flags, FILE_MODE)?;
        let draft = Self {
            directory,
            name,
            kept: false,
        };
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok((draft, File::from(file)))
    }

    /// Gives the file its name; `false` if the name exists already.
    pub(crate) fn publish(&mut self, name: &str) -> rustix::io::Result<bool> {
        use rustix::io::Errno;
        let (at, draft) = (self.directory.as_fd(), self.name.as_str());
        match rustix::fs::renameat_with(at, draft, at, name, RenameFlags::NOREPLACE) {
            Ok(()) => self.kept = true,
            Err(Errno::EXIST) => return Ok(false),
            // File systems without RENAME_NOREPLACE (NFS): a hard link does not replace either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                match rustix::fs::linkat(at, draft, at, name, AtFlags::empty()) {
                    Ok(()) => {}
                    Err(Errno::EXIST) => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn sweep_deletes_only_unlocked_drafts() {
        let dir = tempfile::tempdir().unwrap();
        let handle = OwnedFd::from(File::open(dir.path()).unwrap());
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        let (live, file) = Draft::create(&handle).unwrap();
        file.set_modified(hour_ago).unwrap();
        for name in [".put-old", ".put-young", "object", ".other"] {
            let file = File::create(dir.path().join(name)).unwrap();
            if name != ".put-young" {
                file.set_modified(hour_ago).unwrap();
            }
        }
        sweep_drafts(&handle);
        let live_name = live.name.clone();
        for name in [".put-young", "object", ".other", &live_name] {
            assert!(dir.path().join(name).exists(), "{name}");
        }
        assert!(!dir.path().join(".put-old").exists());
        drop((live, file));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
