//! Accesses the kernel's tracefs from any mount namespace.
//!
//! The kernel has one tracefs, which all mounts show. A mount made here is attached to no directory,
//! so no other process sees it, and it ends with its descriptor. If that is not possible, the usual
//! mount points of this namespace and of process 1 are tried. Agent and handler therefore share only
//! the name of an instance: the agent may run in a container whose mounts the handler does not have.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstatfs, mkdirat, openat, statat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// Where nearly every host mounts tracefs. Those of process 1 are for a container that shares the
/// host's processes, on kernels before 5.2.
const USUAL: [&str; 4] = [
    "/sys/kernel/tracing",
    "/sys/kernel/debug/tracing",
    "/proc/1/root/sys/kernel/tracing",
    "/proc/1/root/sys/kernel/debug/tracing",
];
/// `TRACEFS_MAGIC` (`include/uapi/linux/magic.h`).
const MAGIC: u64 = 0x7472_6163;
const INSTANCES: &str = "instances";

/// The root directory of tracefs.
pub(crate) struct Tracefs(OwnedFd);

impl Tracefs {
    /// Mounts it for this process only (Linux 5.2), or finds a mount.
    ///
    /// # Errors
    /// `Unsupported` if the kernel has no tracefs, otherwise why it cannot be mounted.
    pub(crate) fn open() -> io::Result<Self> {
        match mounted() {
            Ok(root) => Ok(Self(root)),
            Err(Errno::NODEV) => Err(io::ErrorKind::Unsupported.into()),
            Err(error) => USUAL
                .iter()
                .find_map(|path| directory(CWD, path).ok().filter(is_tracefs))
                .map(Self)
                .ok_or_else(|| error.into()),
        }
    }

    /// Opens an instance, and creates it if it is missing.
    ///
    /// # Errors
    /// If the kernel refuses, or the name is not a plain one.
    pub(crate) fn create(&self, name: &str) -> io::Result<Instance> {
        match mkdirat(&self.0, path_of(name)?, Mode::RWXU) {
            Err(error) if error != Errno::EXIST => Err(error.into()),
            _ => self.instance(name),
        }
    }

    /// Opens an existing instance.
    ///
    /// # Errors
    /// If there is none with that name.
    pub(crate) fn instance(&self, name: &str) -> io::Result<Instance> {
        Ok(Instance(directory(&self.0, &path_of(name)?)?))
    }

    /// Whether there is an instance with that name.
    ///
    /// # Errors
    /// If that cannot be determined.
    pub(crate) fn has(&self, name: &str) -> io::Result<bool> {
        match statat(&self.0, path_of(name)?, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes an instance. The kernel refuses (`ResourceBusy`) while one of its files is open.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.0, path_of(name)?, AtFlags::REMOVEDIR)?)
    }
}

/// The directory of one instance.
pub(crate) struct Instance(OwnedFd);

impl Instance {
    /// Opens one of its files for reading.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) fn read(&self, file: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.0, file, flags, Mode::empty())?))
    }

    /// Writes one of its settings.
    ///
    /// # Errors
    /// If the kernel refuses the file or the value.
    pub(crate) fn write(&self, file: &str, value: &str) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = openat(&self.0, file, flags, Mode::empty())?;
        let written = rustix::io::write(&file, value.as_bytes())?;
        match written == value.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

fn mounted() -> Result<OwnedFd, Errno> {
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn directory(at: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, path, flags, Mode::empty())
}

fn is_tracefs(directory: &OwnedFd) -> bool {
    fstatfs(directory).is_ok_and(|found| found.f_type.cast_unsigned() == MAGIC)
}

/// `instances/<name>`. The name comes from a settings file and must not lead to another directory.
fn path_of(name: &str) -> io::Result<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    match !name.is_empty() && name.bytes().all(is_plain) {
        true => Ok(format!("{INSTANCES}/{name}")),
        false => Err(io::ErrorKind::InvalidInput.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_names_do_not_lead_out_of_the_instances() {
        assert_eq!(path_of("cdh-01ab").unwrap(), "instances/cdh-01ab");
        for name in ["", ".", "..", "../x", "/x", "a/b", "a\0b"] {
            assert!(path_of(name).is_err(), "{name}");
        }
    }
}
