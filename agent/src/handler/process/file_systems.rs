//! Which file systems a page can be read from without waiting for a server.
//!
//! A page of a FUSE, NFS or 9p file that is not in memory comes from a server, and its reader sleeps until the
//! server answers, even after a SIGKILL. The kernel's own tables show a file system's type by
//! the device number that `maps` shows; asking the file system itself (`statfs`) could block as well.
//! A device that is in no table is foreign. An overlay is trusted only where the node's own table has it:
//! any user may mount one over FUSE in a user namespace, but not there.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{MemfdFlags, fstat, memfd_create};

use super::handles::ProcessHandles;
use super::maps::Device;

/// Types whose files come from the node's own disks or memory.
const LOCAL: [&str; 25] = [
    "bcachefs",
    "btrfs",
    "cramfs",
    "devtmpfs",
    "erofs",
    "exfat",
    "ext2",
    "ext3",
    "ext4",
    "f2fs",
    "hfsplus",
    "hugetlbfs",
    "iso9660",
    "jfs",
    "ntfs3",
    "ramfs",
    "reiserfs",
    "rootfs",
    "squashfs",
    "tmpfs",
    "udf",
    "vfat",
    "xfs",
    "zfs",
    "zonefs",
];
/// Local if all its layers are.
const OVERLAY: &str = "overlay";

/// The file systems that a process's mappings can be on.
#[derive(Debug, Default)]
pub(crate) struct FileSystems {
    local: BTreeSet<Device>,
    types: BTreeMap<Device, String>,
}

impl FileSystems {
    /// Reads the tables of the node and of the process.
    #[must_use]
    pub(crate) fn of(process: &ProcessHandles) -> Self {
        let mut found = Self::default();
        // A table takes the kernel a while: the same one is not read twice.
        let namespace = |whose: &str| {
            let link = std::fs::read_link(format!("/proc/{whose}/ns/mnt")).ok()?;
            Some(link.into_os_string().into_encoded_bytes())
        };
        let mut known = Vec::new();
        for whose in ["1", "self"] {
            let namespace = namespace(whose);
            if namespace.is_none() || !known.contains(&namespace) {
                let table = std::fs::read(format!("/proc/{whose}/mountinfo"));
                found.add(&table.unwrap_or_default(), Table::Node);
                known.push(namespace);
            }
        }
        let own = process.read_link("ns/mnt").ok();
        let own = own.map(|link| link.as_bytes().to_vec());
        if own.is_none() || !known.contains(&own) {
            let table = process.read("mountinfo");
            found.add(&table.unwrap_or_default(), Table::Process);
        }
        found.local.extend(internal_devices());
        found
    }

    /// Whether a page of this device's files can be asked for.
    #[must_use]
    pub(crate) fn is_local(&self, device: Device) -> bool {
        self.local.contains(&device)
    }

    /// Type of the device's file system, for a message.
    #[must_use]
    pub(crate) fn name(&self, device: Device) -> &str {
        let found = self.types.get(&device);
        found.map_or("an unknown file system", String::as_str)
    }

    fn add(&mut self, mountinfo: &[u8], table: Table) {
        for line in String::from_utf8_lossy(mountinfo).lines() {
            let Some(mount) = Mount::parse(line) else {
                continue;
            };
            // Where the root itself hangs, nothing runs: a node may boot from a server.
            let is_root = table == Table::Node && mount.point == "/";
            let is_local = LOCAL.contains(&mount.kind)
                || (table == Table::Node && mount.kind == OVERLAY)
                || is_root;
            if is_local {
                self.local.insert(mount.device);
            }
            self.types
                .entry(mount.device)
                .or_insert_with(|| mount.kind.to_owned());
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    Node,
    Process,
}

/// One line of `mountinfo`: `36 35 98:0 /root /mount options … - type source options`.
struct Mount<'l> {
    device: Device,
    root: &'l str,
    point: &'l str,
    kind: &'l str,
}

impl<'l> Mount<'l> {
    fn parse(line: &'l str) -> Option<Self> {
        // Spaces in names are escaped, so the first ` - ` is the separator.
        let (mount, rest) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(2);
        let (major, minor) = fields.next()?.split_once(':')?;
        Some(Self {
            device: (major.parse().ok()?, minor.parse().ok()?),
            root: fields.next()?,
            point: fields.next()?,
            kind: rest.split(' ').next()?,
        })
    }
}

/// Device of the root directory in a table of mounts, and which directory of it that is.
#[must_use]
pub(crate) fn root_of(mountinfo: &[u8]) -> Option<(Device, String)> {
    let text = String::from_utf8_lossy(mountinfo);
    text.lines().rev().find_map(|line| {
        let mount = Mount::parse(line)?;
        (mount.point == "/").then(|| (mount.device, mount.root.to_owned()))
    })
}

/// Whether the path is on a local file system, by a table of mounts.
#[must_use]
pub(crate) fn is_local_path(mountinfo: &[u8], path: &Path) -> bool {
    let text = String::from_utf8_lossy(mountinfo);
    let mounts = text.lines().filter_map(Mount::parse);
    let holder = mounts
        .filter(|mount| path.starts_with(mount.point))
        // Of two at the same point the later one hides the other.
        .max_by_key(|mount| mount.point.len());
    holder.is_some_and(|mount| LOCAL.contains(&mount.kind) || mount.kind == OVERLAY)
}

/// Devices of the kernel's own mounts, which no table lists: shared memory (`memfd`, SysV, `/dev/zero`)
/// and huge pages of the usual size.
fn internal_devices() -> impl Iterator<Item = Device> {
    let of = |file: OwnedFd| {
        let device = fstat(&file).ok()?.st_dev;
        Some((rustix::fs::major(device), rustix::fs::minor(device)))
    };
    [
        MemfdFlags::CLOEXEC,
        MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB,
    ]
    .into_iter()
    .filter_map(move |flags| of(memfd_create(c"cdh", flags).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &[u8] = b"1 0 254:0 / / rw - ext4 /dev/vda rw\n\
        2 1 0:40 / /merged rw,relatime shared:7 master:1 - overlay overlay rw\n\
        3 1 0:41 / /mnt/a\\040-\\040b rw - fuse.s3fs s3fs rw\n\
        4 1 0:42 / /net rw - nfs4 server:/x rw\n";
    const PROCESS: &[u8] = b"5 1 0:50 / / rw - overlay overlay rw\n\
        6 5 0:51 / /dev/shm rw - fuse evil rw\n\
        7 5 0:52 / /tmp rw - tmpfs tmpfs rw\n";

    #[test]
    fn file_systems_that_need_a_server_are_foreign() {
        let mut found = FileSystems::default();
        found.add(NODE, Table::Node);
        found.add(PROCESS, Table::Process);
        let local = |minor| found.is_local((0, minor));
        assert!(found.is_local((254, 0)) && local(40) && local(52));
        for foreign in [41, 42, 51, 99] {
            assert!(!local(foreign), "{foreign}");
        }
        assert!(!local(50), "anybody's overlay may be over anything");
        assert_eq!(found.name((0, 41)), "fuse.s3fs");
        assert_eq!(found.name((0, 99)), "an unknown file system");
    }

    #[test]
    fn paths_and_roots_are_judged_by_the_table_of_mounts() {
        let local = |path: &str| is_local_path(NODE, Path::new(path));
        assert!(local("/") && local("/home/x") && local("/merged/x") && local("/network"));
        assert!(!local("/net") && !local("/net/x") && !is_local_path(b"", Path::new("/")));
        assert_eq!(root_of(NODE), Some(((254, 0), "/".to_owned())));
        let inside = b"1 0 254:0 /jail / rw - ext4 /dev/vda rw\n";
        assert_ne!(root_of(inside), root_of(NODE));
        assert_eq!(root_of(b""), None);
    }

    #[test]
    fn root_of_a_node_is_local_whatever_its_type() {
        let root = b"1 0 0:20 / / rw - nfs server:/root rw\n";
        let mut found = FileSystems::default();
        found.add(root, Table::Process);
        assert!(!found.is_local((0, 20)));
        found.add(root, Table::Node);
        assert!(found.is_local((0, 20)));
    }

    #[test]
    fn shared_memory_of_this_process_is_local() {
        let file = memfd_create(c"x", MemfdFlags::CLOEXEC).unwrap();
        let device = fstat(&file).unwrap().st_dev;
        let device = (rustix::fs::major(device), rustix::fs::minor(device));
        assert!(internal_devices().any(|found| found == device));
    }
}
