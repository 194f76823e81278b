//! Checks whether a root program may safely use a path.
//!
//! A directory is trusted if no other user can change it or a directory above it: each belongs to root,
//! or to the current user, and is not writable by others. For parents, a sticky bit is enough (`/tmp`),
//! because no other user can rename what is below. The same rules apply to the targets of symbolic
//! links. On a read-only file system, modes do not matter.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, StatVfsMountFlags};

/// Why a path is not trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// It belongs to a user who could replace its contents.
    #[error("{path} belongs to user {owner}")]
    Owner {
        /// Which file or directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Others can write to it.
    #[error("{path} is writable by users other than its owner (mode {mode:04o})")]
    Writable {
        /// Which file or directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is a link, a device, or has a second hard link.
    #[error("{path} is not a regular file with one hard link")]
    NotRegular {
        /// Which file.
        path: PathBuf,
    },
    /// It cannot be examined.
    #[error("cannot check {path}")]
    Unreadable {
        /// Which file or directory.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

impl TrustError {
    /// The command that fixes it, if there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Owner { path, .. } => Some(format!(
                "its owner could change what root runs: choose another path, or `chown root {}`",
                path.display()
            )),
            Self::Writable { path, .. } => Some(format!(
                "choose another path, or `chmod go-w {}`",
                path.display()
            )),
            _ => None,
        }
    }
}

/// Checks an existing directory and all its parents.
///
/// # Errors
/// If another user could change its contents.
pub(crate) fn check_directory(path: &Path) -> Result<(), TrustError> {
    let unreadable = |source| TrustError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    let real = absolute.canonicalize().map_err(unreadable)?;
    for place in [&absolute, &real] {
        for directory in place.ancestors() {
            let is_last = directory == real;
            check_one(directory, if is_last { 0 } else { STICKY })?;
        }
    }
    Ok(())
}

const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o022;

/// Checks one directory, or a link on the way. Bits of `excuse` make a mode acceptable.
fn check_one(path: &Path, excuse: u32) -> Result<(), TrustError> {
    let found = std::fs::symlink_metadata(path).map_err(|source| TrustError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    check_owner(path, &found)?;
    // A link's mode is always 0777; the directory that contains it decides who may replace it.
    let is_open = !found.is_symlink() && found.mode() & OTHERS_WRITE != 0;
    if is_open && found.mode() & excuse == 0 && !is_read_only(path) {
        return Err(TrustError::Writable {
            path: path.to_owned(),
            mode: found.mode() & 0o7777,
        });
    }
    Ok(())
}

fn check_owner(path: &Path, found: &Metadata) -> Result<(), TrustError> {
    let own = rustix::process::geteuid().as_raw();
    match found.uid() {
        0 => Ok(()),
        owner if owner == own => Ok(()),
        owner => Err(TrustError::Owner {
            path: path.to_owned(),
            owner,
        }),
    }
}

fn is_read_only(path: &Path) -> bool {
    let found = rustix::fs::statvfs(path);
    found.is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Reads a file that only root can have written; `None` if there is none.
///
/// # Errors
/// If it is a link, belongs to another user, is writable by others, or cannot be read.
pub(crate) fn read_file(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, TrustError> {
    let unreadable = |source| TrustError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = File::options();
    let options = options.read(true).custom_flags(flags.bits().cast_signed());
    let not_regular = || TrustError::NotRegular {
        path: path.to_owned(),
    };
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(not_regular()),
        file => file.map_err(unreadable)?,
    };
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() || found.nlink() != 1 {
        return Err(not_regular());
    }
    check_owner(path, &found)?;
    if found.mode() & OTHERS_WRITE != 0 {
        return Err(TrustError::Writable {
            path: path.to_owned(),
            mode: found.mode() & 0o7777,
        });
    }
    let mut bytes = Vec::new();
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(Some(bytes))
}

/// Checks a configuration file that root is about to obey. Links are followed, because a Kubernetes
/// ConfigMap consists of links; each directory on the way is checked.
///
/// # Errors
/// If another user could have written it.
pub fn check_config_file(path: &Path) -> Result<(), TrustError> {
    let unreadable = |source| TrustError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let real = path.canonicalize().map_err(unreadable)?;
    for place in [path, &real] {
        if let Some(directory) = std::path::absolute(place).map_err(unreadable)?.parent() {
            check_directory(directory)?;
        }
    }
    check_one(&real, 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    const NOBODY: u32 = 65534;

    fn is_root() -> bool {
        let is_root = rustix::process::geteuid().is_root();
        if !is_root {
            eprintln!("SKIPPED: only root can give files away");
        }
        is_root
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn directory_is_trusted_only_if_root_owns_it_and_all_above() {
        let root = tempfile::tempdir().unwrap();
        let above = root.path().join("above");
        let state = above.join("state");
        fs::create_dir_all(&state).unwrap();
        check_directory(&state).unwrap();
        mode(&above, 0o777);
        assert!(matches!(
            check_directory(&state),
            Err(TrustError::Writable { .. })
        ));
        mode(&above, 0o1777);
        check_directory(&state).unwrap();
        assert!(matches!(
            check_directory(&above),
            Err(TrustError::Writable { .. })
        ));
        mode(&above, 0o755);
        if !is_root() {
            return;
        }
        for (of, path) in [(&above, &state), (&state, &state)] {
            chown(of, Some(NOBODY), None).unwrap();
            let error = check_directory(path).unwrap_err();
            assert!(
                matches!(error, TrustError::Owner { owner: NOBODY, .. }),
                "{error}"
            );
            chown(of, Some(0), None).unwrap();
        }
        // A link of another user, and one into that user's directory.
        let link = root.path().join("link");
        symlink(&state, &link).unwrap();
        check_directory(&link).unwrap();
        std::os::unix::fs::lchown(&link, Some(NOBODY), None).unwrap();
        assert!(check_directory(&link).is_err());
        std::os::unix::fs::lchown(&link, Some(0), None).unwrap();
        chown(&above, Some(NOBODY), None).unwrap();
        assert!(check_directory(&link).is_err());
    }

    #[test]
    fn file_of_another_user_a_link_and_a_second_name_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("backup.json");
        assert!(read_file(&file, 10).unwrap().is_none());
        fs::write(&file, "{}").unwrap();
        assert_eq!(read_file(&file, 10).unwrap().unwrap(), b"{}");
        check_config_file(&file).unwrap();
        let link = root.path().join("link");
        symlink(&file, &link).unwrap();
        assert!(matches!(
            read_file(&link, 10),
            Err(TrustError::NotRegular { .. })
        ));
        check_config_file(&link).unwrap();
        mode(&file, 0o666);
        assert!(matches!(
            read_file(&file, 10),
            Err(TrustError::Writable { .. })
        ));
        assert!(check_config_file(&link).is_err());
        mode(&file, 0o600);
        let second = root.path().join("second");
        fs::hard_link(&file, &second).unwrap();
        assert!(matches!(
            read_file(&file, 10),
            Err(TrustError::NotRegular { .. })
        ));
        fs::remove_file(&second).unwrap();
        if is_root() {
            chown(&file, Some(NOBODY), None).unwrap();
            assert!(matches!(
                read_file(&file, 10),
                Err(TrustError::Owner { .. })
            ));
            assert!(check_config_file(&file).is_err());
        }
    }
}
