//! The user's own directory for cases and caches. Cases hold cores, and cached contents are trusted: no other user
//! may create, replace or write to anything in it.
//!
//! The first of `$XDG_CACHE_HOME/cdh`, `$HOME/.cache/cdh` and `$XDG_RUNTIME_DIR/cdh` whose variable is set. A
//! directory that another user could have prepared is refused, as is a fixed name in a shared directory such as
//! `/tmp`. Then there is no cache.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};

/// Write permission of group and others.
const OTHERS_WRITE: u32 = 0o022;
/// Write permission of others alone.
const WORLD_WRITE: u32 = 0o002;
/// The sticky bit: in such a directory, users can only rename and delete their own files.
const STICKY: u32 = 0o1000;
/// Permissions of group and others.
const OTHERS: u32 = 0o077;

const SET_VARIABLE: &str = "set HOME, or set XDG_CACHE_HOME to a directory of your own";

/// The directory; it is checked at each use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheDirectory(Option<PathBuf>);

impl CacheDirectory {
    /// What the environment names.
    #[must_use]
    pub fn from_environment() -> Self {
        let directory =
            super::base_directory("XDG_CACHE_HOME", ".cache").or_else(runtime_directory);
        Self(directory.map(|base| base.join("cdh")))
    }

    /// This directory.
    #[cfg(test)]
    pub fn at(path: PathBuf) -> Self {
        Self(Some(path))
    }

    /// A directory in it for data that can be computed again; `None` if the cache is refused.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<PathBuf> {
        self.open().ok().map(|path| path.join(name))
    }

    /// A directory in it for data that has no other place.
    ///
    /// # Errors
    /// If no directory is private to this user; the error names the next step.
    pub fn require(&self, name: &str) -> Result<PathBuf, Failure> {
        self.open().map(|path| path.join(name))
    }

    /// The directory itself if it exists.
    ///
    /// # Errors
    /// As [`require`](Self::require).
    pub fn existing(&self) -> Result<Option<PathBuf>, Failure> {
        let path = self.path()?;
        check(path)?;
        Ok(path.exists().then(|| path.to_owned()))
    }

    fn path(&self) -> Result<&Path, Failure> {
        self.0.as_deref().ok_or_else(|| {
            let what = "no private directory for cases and caches: HOME, XDG_CACHE_HOME and XDG_RUNTIME_DIR are not set";
            Failure::new(ExitStatus::Failure, what).hint(SET_VARIABLE)
        })
    }

    /// Creates the directory if it is missing, and then checks it, because another user may have
    /// created it first.
    fn open(&self) -> Result<&Path, Failure> {
        let path = self.path()?;
        check(path)?;
        let mut private = DirBuilder::new();
        if let Err(error) = private.recursive(true).mode(0o700).create(path) {
            let shown = terminal_line(&path.display().to_string());
            let failure = Failure::new(ExitStatus::Failure, format!("cannot create `{shown}`"));
            return Err(failure.cause(error).hint(SET_VARIABLE));
        }
        check(path)?;
        Ok(path)
    }
}

/// `$XDG_RUNTIME_DIR` if it conforms to its specification: it belongs to the user, and no other user can enter
/// it.
fn runtime_directory() -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os("XDG_RUNTIME_DIR")?);
    let found = fs::symlink_metadata(&path)
        .ok()
        .filter(|_| path.is_absolute())?;
    let own = rustix::process::geteuid().as_raw();
    (found.is_dir() && found.uid() == own && found.mode() & OTHERS == 0).then_some(path)
}

/// Checks `path`, all directories above it, and the targets of links on the way. Missing directories are
/// accepted.
fn check(path: &Path) -> Result<(), Failure> {
    let mut places = vec![path.to_owned()];
    let existing = path
        .ancestors()
        .find(|place| place.symlink_metadata().is_ok());
    if let Some(existing) = existing {
        match existing.canonicalize() {
            Ok(real) => places.push(real),
            Err(error) => return Err(unusable(existing, &format!("cannot be checked: {error}"))),
        }
    }
    for place in &places {
        for directory in place.ancestors() {
            let is_cache = directory == path || (existing == Some(path) && directory == place);
            let found = match fs::symlink_metadata(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(unusable(directory, &format!("cannot be checked: {error}")));
                }
                Ok(found) => found,
            };
            if let Some(problem) = problem(&found, is_cache) {
                return Err(unusable(directory, &problem));
            }
        }
    }
    Ok(())
}

/// Why another user could change the contents of a directory, or of those below it.
fn problem(found: &fs::Metadata, is_cache: bool) -> Option<String> {
    let own = rustix::process::geteuid().as_raw();
    if found.uid() != own && (is_cache || found.uid() != 0) {
        return Some(format!("belongs to user {}", found.uid()));
    }
    // A link's mode has no meaning: the directory that contains it decides who may replace it.
    if found.is_symlink() {
        return None;
    }
    if !found.is_dir() {
        return Some("is not a directory".to_owned());
    }
    let mode = found.mode();
    // Above, a directory that the user's own group can write to is common: each user has a group of
    // their own.
    let is_own_group = !is_cache && found.gid() == rustix::process::getegid().as_raw();
    let others = if is_own_group {
        WORLD_WRITE
    } else {
        OTHERS_WRITE
    };
    let is_open = mode & others != 0 && (is_cache || mode & STICKY == 0);
    is_open.then(|| {
        format!(
            "can be written to by other users (mode {:04o})",
            mode & 0o7777
        )
    })
}

fn unusable(path: &Path, problem: &str) -> Failure {
    let shown = terminal_line(&path.display().to_string());
    let what = format!("cannot keep cases and caches: `{shown}` {problem}");
    Failure::new(ExitStatus::Failure, what)
        .hint("set XDG_CACHE_HOME to a directory that only you can write to")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn refusal(path: &Path) -> String {
        let cache = CacheDirectory::at(path.to_owned());
        assert!(cache.get("symbols").is_none(), "{}", path.display());
        cache.require("cases").unwrap_err().to_string()
    }

    #[test]
    fn cache_directory_is_created_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/cdh");
        let cache = CacheDirectory::at(path.clone());
        assert!(cache.existing().unwrap().is_none());
        assert_eq!(cache.require("cases").unwrap(), path.join("cases"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert_eq!(cache.existing().unwrap(), Some(path));
    }

    #[test]
    fn cache_directory_of_a_link_of_this_user_is_used() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("disk")).unwrap();
        symlink("disk", dir.path().join("cdh")).unwrap();
        let cache = CacheDirectory::at(dir.path().join("cdh"));
        assert!(cache.get("cases").is_some());
    }

    #[test]
    fn cache_directory_that_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, sticky) in [(0o770, "0770"), (0o777, "0777"), (0o1777, "1777")] {
            let path = dir.path().join("cdh");
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let reason = refusal(&path);
            assert!(reason.contains(sticky), "{reason}");
        }
        // A user who can write to a directory above can replace the cache.
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(refusal(&open.join("cdh")).contains("0777"));
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
        let shared = CacheDirectory::at(open.join("cdh"));
        assert!(shared.get("cases").is_some());
    }

    #[test]
    fn cache_directory_that_another_user_prepared_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let shared = dir.path().join("tmp");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
        let path = shared.join("cdh");
        fs::create_dir(&path).unwrap();
        chown(&path, Some(65_534), None).unwrap();
        assert!(refusal(&path).contains("belongs to user 65534"));
        // A directory of root, behind another user's link.
        let link = shared.join("link");
        symlink(dir.path(), &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(65_534), None).unwrap();
        assert!(refusal(&link).contains("belongs to user 65534"));
        assert!(refusal(&link.join("cdh")).contains("belongs to user 65534"));
        assert!(!dir.path().join("cdh").exists());
        // A link of root to another user's directory.
        let own_link = dir.path().join("cdh");
        symlink(&path, &own_link).unwrap();
        assert!(refusal(&own_link).contains("belongs to user 65534"));
    }
}
