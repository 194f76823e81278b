//! Where a process's cgroups stand in the file system, for both versions and their mixture.

use std::path::{Component, Path, PathBuf};

use crate::owner::MadeBy;

/// The directory of a process's cgroup in the hierarchy of this controller, of version 1 or 2 (with
/// the empty name: of version 2), from its `/proc/<pid>/cgroup` and our `mountinfo`.
#[must_use]
pub(crate) fn directory(cgroup: &[u8], mounts: &[u8], controller: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let path_in = |wanted: &str| {
        cgroup.split(|&byte| byte == b'\n').find_map(|line| {
            // hierarchy:controllers:path
            let mut parts = line.splitn(3, |&byte| byte == b':');
            let (_, found, path) = (parts.next()?, parts.next()?, parts.next()?);
            let mut names = found.split(|&byte| byte == b',');
            names
                .any(|name| name == wanted.as_bytes())
                .then(|| path.to_vec())
        })
    };
    // No hierarchy of version 1 has the empty name.
    let first = match controller {
        "" => None,
        _ => path_in(controller).zip(mount_of(mounts, "cgroup", Some(controller))),
    };
    let second = || path_in("").zip(mount_of(mounts, "cgroup2", None));
    let (path, mount) = first.or_else(second)?;
    let path = path.strip_prefix(b"/").unwrap_or(&path);
    // A cgroup outside of our own root, or a hostile name, is no path to follow.
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    plain.then(|| mount.join(path))
}

/// The cgroup hierarchies as the node's first process sees them: a handler may run in a container.
pub(crate) struct NodeCgroups {
    root: PathBuf,
    mounts: Vec<u8>,
}

impl NodeCgroups {
    /// Those of the node, or our own where its first process cannot be looked at.
    #[must_use]
    pub(crate) fn open() -> Self {
        let of = |process: &str| {
            let mounts = std::fs::read(format!("/proc/{process}/mountinfo")).ok()?;
            let root = PathBuf::from(format!("/proc/{process}/root"));
            root.join("proc").exists().then_some(Self { root, mounts })
        };
        of("1").or_else(|| of("self")).unwrap_or(Self {
            root: PathBuf::from("/"),
            mounts: Vec::new(),
        })
    }

    /// Who made the directories of a path in the hierarchy with these controllers.
    #[must_use]
    pub(crate) fn made_by(&self, controllers: &str, path: &str) -> MadeBy {
        use std::os::unix::fs::MetadataExt;
        let controller = controllers.split(',').next().unwrap_or_default();
        let mount = match controller {
            "" => mount_of(&self.mounts, "cgroup2", None),
            _ => mount_of(&self.mounts, "cgroup", Some(controller)),
        };
        let path = Path::new(path.trim_start_matches('/'));
        let plain = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let Some(mount) = mount.filter(|_| plain) else {
            return MadeBy::Unknown;
        };
        let mut directory = self.root.join(mount.strip_prefix("/").unwrap_or(&mount));
        for part in path.components() {
            directory.push(part);
            match std::fs::symlink_metadata(&directory).map(|found| found.uid()) {
                Ok(0) => {}
                Ok(uid) => return MadeBy::User(uid),
                Err(_) => return MadeBy::Missing,
            }
        }
        MadeBy::Root
    }
}

/// The directory of the cgroup of version 2 at this path below its root.
///
/// # Errors
/// In words, why no process can enter it.
pub(crate) fn of_handlers(cgroup: &str) -> Result<PathBuf, String> {
    let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let line = format!("0::/{}", cgroup.trim_start_matches('/'));
    let directory = directory(line.as_bytes(), &mounts, "")
        .ok_or("no cgroups of version 2 are mounted here")?;
    match directory.join("cgroup.procs").exists() {
        true => Ok(directory),
        false => Err(format!("{} is not there", directory.display())),
    }
}

/// Enters the cgroup that handlers are to run in: what a node's operator grants to them holds for this
/// one then. A capture outside of it is better than none.
///
/// # Errors
/// In words, why this handler runs outside.
pub(crate) fn enter(cgroup: &str) -> Result<(), String> {
    let procs = of_handlers(cgroup)?.join("cgroup.procs");
    std::fs::write(&procs, b"0").map_err(|error| format!("{}: {error}", procs.display()))
}

/// Mount point of the file system of this type whose options name the controller.
fn mount_of(mounts: &[u8], kind: &str, controller: Option<&str>) -> Option<PathBuf> {
    String::from_utf8_lossy(mounts).lines().find_map(|line| {
        // 36 35 98:0 /root /mount options … - type source options
        let (mount, rest) = line.split_once(" - ")?;
        let mut rest = rest.split(' ');
        let found = rest.next()?;
        let options = rest.nth(1)?;
        let named = controller.is_none_or(|name| options.split(',').any(|option| option == name));
        let mut fields = mount.split(' ');
        let (root, point) = (fields.nth(3)?, fields.next()?);
        (found == kind && named && root == "/").then(|| point.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "25 20 0:22 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
        26 20 0:23 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    #[test]
    fn cgroups_are_found_in_v1_v2_and_hybrid() {
        let find = |cgroup: &str, mounts: &str, controller| {
            directory(cgroup.as_bytes(), mounts.as_bytes(), controller)
                .map(|path| path.display().to_string())
        };
        let hybrid = "5:cpu,cpuacct:/x\n4:memory:/kubepods/pod1/c2\n0::/y\n";
        let expected = Some("/sys/fs/cgroup/memory/kubepods/pod1/c2".to_owned());
        assert_eq!(find(hybrid, HYBRID, "memory"), expected);
        let unified = Some("/sys/fs/cgroup/unified/y".to_owned());
        assert_eq!(find(hybrid, HYBRID, "freezer"), unified);
        let v2 = "30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw\n";
        let expected = Some("/sys/fs/cgroup/kubepods.slice/c2".to_owned());
        assert_eq!(find("0::/kubepods.slice/c2\n", v2, "memory"), expected);
        assert_eq!(find("0::/../../etc\n", v2, "memory"), None);
        assert_eq!(find("", v2, "memory"), None);
    }

    #[test]
    fn node_cgroups_name_the_outermost_user_that_made_a_directory() {
        let root = tempfile::tempdir().unwrap();
        let node = NodeCgroups {
            root: root.path().to_owned(),
            mounts: HYBRID.into(),
        };
        let path = root.path().join("sys/fs/cgroup/memory/own/pod/c");
        std::fs::create_dir_all(&path).unwrap();
        let own = rustix::process::geteuid();
        if !own.is_root() {
            return;
        }
        assert_eq!(node.made_by("memory", "/own/pod/c"), MadeBy::Root);
        assert_eq!(node.made_by("memory", "/own/gone/c"), MadeBy::Missing);
        assert_eq!(node.made_by("cpuset", "/own/pod/c"), MadeBy::Unknown);
        assert_eq!(node.made_by("memory", "/../own"), MadeBy::Unknown);
        std::os::unix::fs::chown(path.parent().unwrap(), Some(65534), None).unwrap();
        assert_eq!(node.made_by("memory", "/own/pod/c"), MadeBy::User(65534));
        assert_eq!(node.made_by("memory", "/own"), MadeBy::Root);
    }

    #[test]
    fn a_cgroup_that_is_not_there_is_named() {
        let why = enter("cdh-no-such.slice/deeper").unwrap_err();
        let is_mounted = !why.contains("no cgroups of version 2");
        assert!(
            !is_mounted || why.ends_with("cdh-no-such.slice/deeper is not there"),
            "{why}"
        );
    }
}
