//! The directories into which the kernel writes cores: one for each root directory that processes of this
//! node have.
//!
//! ```text
//! /proc/<pid>/cgroup ─▶ owner      /proc/<pid>/root + pattern's directory ─▶ descriptor, by device and inode
//! ```
//!
//! A descriptor is opened while a process of the container lives. It outlasts the container, whose mounts disappear.
//! Invariants: an owner comes from the cgroup and from the user who created it, never from a file. A directory that
//! several pods share has no owner. A path is resolved inside the container's root, without links, and only on local
//! file systems, because others could block us for ever.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};

use crate::handler::os::proc_status::status_field;
use crate::handler::process::cgroups::NodeCgroups;
use crate::handler::process::file_systems::is_local_path;
use crate::owner::{MadeBy, Owner};

/// Maximum bytes read of a file in `/proc`.
const PROC_FILE: u64 = 1 << 20;
/// Maximum directories of one container: a process can change its root.
const ROOTS: usize = 4;
/// How long a process outside of containers is watched, because its runtime may still move it into
/// one.
const YOUNG: Duration = Duration::from_secs(5);
/// Number of scans between two checks of processes whose root has no such directory.
const LATER: u32 = 25;

/// Returns who created the directories of a cgroup's path, in the hierarchy with these controllers.
type MadeByOf<'a> = &'a dyn Fn(&str, &str) -> MadeBy;

/// Whether a process must be checked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Done,
    /// It is not in a container. A runtime starts a container's first process outside and then
    /// moves it.
    Outside,
    /// The runtime is starting it.
    Soon,
    /// Its directory may be created later.
    Later,
}

/// The owner of the cores in a directory. Two values for the same container can differ in the text of their
/// cgroups, because a container can create cgroups of its own: compare their [`DirectoryOwner::key`].
#[derive(Clone, Debug)]
pub(super) enum DirectoryOwner {
    /// A container, with the `/proc/<pid>/cgroup` of one of its processes.
    Container {
        id: String,
        pod: Option<String>,
        cgroup: Vec<u8>,
    },
    /// A pod whose containers share the directory, or used it one after the other.
    Pod { uid: String, cgroup: Vec<u8> },
    /// Processes of the host.
    Host,
    /// Several pods share it, such as a volume or a directory of the node.
    Shared,
}

/// Identity of an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OwnerKey {
    /// By the container's id.
    Container(String),
    /// By the pod's UID.
    Pod(String),
    /// The host.
    Host,
    /// All directories that several pods share.
    Shared,
}

impl DirectoryOwner {
    /// Identifies the container, or the other kind of owner.
    fn key(&self) -> OwnerKey {
        match self {
            Self::Container { id, .. } => OwnerKey::Container(id.clone()),
            Self::Pod { uid, .. } => OwnerKey::Pod(uid.clone()),
            Self::Host => OwnerKey::Host,
            Self::Shared => OwnerKey::Shared,
        }
    }

    /// Who is charged for its dumps: the pod of a container.
    pub(super) fn account(&self) -> OwnerKey {
        match self.pod() {
            Some(uid) => OwnerKey::Pod(uid.to_owned()),
            None => self.key(),
        }
    }

    /// The container's id.
    pub(super) fn container(&self) -> Option<&str> {
        match self {
            Self::Container { id, .. } => Some(id),
            _ => None,
        }
    }

    fn pod(&self) -> Option<&str> {
        match self {
            Self::Container { pod, .. } => pod.as_deref(),
            Self::Pod { uid, .. } => Some(uid),
            Self::Host | Self::Shared => None,
        }
    }
}

/// Device and inode of a directory.
pub(super) type DirectoryKey = (u64, u64);

/// A directory of cores.
#[derive(Debug)]
pub(super) struct CoreDirectory {
    pub(super) descriptor: OwnedFd,
    pub(super) owner: DirectoryOwner,
    /// The first owner, for whose limit `ROOTS` it counts, even if others share it later.
    first: OwnerKey,
    /// Processes with this root.
    pub(super) processes: BTreeSet<u32>,
    /// Since when there are none.
    pub(super) left_at: Option<Instant>,
}

/// All directories; each scan updates them.
#[derive(Debug)]
pub(super) struct Directories {
    proc: PathBuf,
    path: PathBuf,
    pub(super) known: BTreeMap<DirectoryKey, CoreDirectory>,
    /// Processes that need no second check.
    seen: BTreeSet<u32>,
    later: BTreeSet<u32>,
    /// Processes outside of containers, and since when.
    young: BTreeMap<u32, Instant>,
    scans: u32,
}

impl Directories {
    /// None yet; `path` is the directory of the pattern.
    pub(super) fn new(proc: &Path, path: &Path) -> Self {
        Self {
            proc: proc.to_owned(),
            path: path.to_owned(),
            known: BTreeMap::new(),
            seen: BTreeSet::new(),
            later: BTreeSet::new(),
            young: BTreeMap::new(),
            scans: 0,
        }
    }

    /// Examines processes that are new since the last scan, and removes those that ended.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub(super) fn scan(&mut self) -> io::Result<()> {
        let cgroups = OnceCell::new();
        self.scan_with(&|controllers, path| {
            let cgroups = cgroups.get_or_init(NodeCgroups::open);
            cgroups.made_by(controllers, path)
        })
    }

    pub(super) fn scan_with(&mut self, made_by: MadeByOf<'_>) -> io::Result<()> {
        let now: BTreeSet<u32> = fs::read_dir(&self.proc)?
            .filter_map(|item| item.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        self.scans = self.scans.wrapping_add(1);
        if self.scans.is_multiple_of(LATER) {
            self.later.clear();
        }
        self.seen.retain(|pid| now.contains(pid));
        self.young
            .retain(|pid, _| now.contains(pid) && !self.seen.contains(pid));
        let is_new = |pid: &&u32| !self.seen.contains(pid) && !self.later.contains(pid);
        let new: Vec<u32> = now.iter().filter(is_new).copied().collect();
        // On a host, the first process may be hidden from root; our own root is then the node's.
        let roots = ["1/root/.", "self/root/."].map(|root| identity(&self.proc.join(root)));
        let node_roots: Vec<DirectoryKey> = roots.into_iter().flatten().collect();
        for pid in new {
            match self.look_at(pid, made_by, &node_roots) {
                Look::Done => self.seen.insert(pid),
                Look::Outside => {
                    let since = *self.young.entry(pid).or_insert_with(Instant::now);
                    since.elapsed() >= YOUNG && self.seen.insert(pid)
                }
                Look::Later => self.later.insert(pid),
                Look::Soon => false,
            };
        }
        for directory in self.known.values_mut() {
            directory.processes.retain(|pid| now.contains(pid));
            match directory.processes.is_empty() {
                true => directory.left_at = directory.left_at.or_else(|| Some(Instant::now())),
                false => directory.left_at = None,
            }
        }
        Ok(())
    }

    /// Whether the kernel is writing a core of one of this directory's processes.
    pub(super) fn is_dumping(&self, key: DirectoryKey) -> bool {
        let Some(directory) = self.known.get(&key) else {
            return false;
        };
        directory.processes.iter().any(|pid| {
            let status = self.read(*pid, "status").unwrap_or_default();
            status_field(&status, "CoreDumping") == Some(b"1")
        })
    }

    /// Adds the directory that this process writes its core to.
    fn look_at(&mut self, pid: u32, made_by: MadeByOf<'_>, node_roots: &[DirectoryKey]) -> Look {
        let Some(cgroup) = self.read(pid, "cgroup") else {
            return Look::Done;
        };
        let Some(owner) = owner_of(&cgroup, made_by) else {
            return Look::Outside;
        };
        // A root on a dead file server would block us for ever.
        let mounts = self.read(pid, "mountinfo").unwrap_or_default();
        if !is_local_path(&mounts, Path::new("/")) {
            return match owner {
                DirectoryOwner::Host => Look::Outside,
                _ => Look::Later,
            };
        }
        let root = self.proc.join(format!("{pid}/root/."));
        let Some(of_root) = identity(&root) else {
            return Look::Done;
        };
        match (&owner, node_roots.contains(&of_root)) {
            (DirectoryOwner::Host, false) => return Look::Outside,
            (DirectoryOwner::Host, true) | (_, false) => {}
            // The runtime has not changed the root yet.
            (_, true) => return Look::Soon,
        }
        if node_roots.is_empty() {
            return Look::Soon;
        }
        // All processes of the host share one directory, which is opened once.
        let of_host = self
            .known
            .values_mut()
            .find(|known| matches!(known.owner, DirectoryOwner::Host));
        if let (DirectoryOwner::Host, Some(known)) = (&owner, of_host) {
            known.processes.insert(pid);
            return Look::Outside;
        }
        if !is_local_path(&mounts, &self.path) {
            return Look::Done;
        }
        let Ok(descriptor) = open_directory(&root, &self.path) else {
            return Look::Later;
        };
        // The process id may have been reused.
        let is_same = self
            .read(pid, "cgroup")
            .is_some_and(|again| again == cgroup);
        let Some(key) = descriptor_identity(&descriptor).filter(|_| is_same) else {
            return Look::Soon;
        };
        let look = match owner {
            DirectoryOwner::Host => Look::Outside,
            _ => Look::Done,
        };
        self.add(key, descriptor, owner, pid);
        look
    }

    fn add(&mut self, key: DirectoryKey, descriptor: OwnedFd, owner: DirectoryOwner, pid: u32) {
        for directory in self.known.values_mut() {
            directory.processes.remove(&pid);
        }
        let first = owner.key();
        let same = |directory: &&CoreDirectory| directory.first == first;
        let roots = self.known.values().filter(same).count();
        if let Some(directory) = self.known.get_mut(&key) {
            if let Some(owner) = shared_owner(&directory.owner, owner) {
                directory.owner = owner;
            }
            directory.processes.insert(pid);
        } else if roots < ROOTS {
            let directory = CoreDirectory {
                descriptor,
                owner,
                first,
                processes: BTreeSet::from([pid]),
                left_at: None,
            };
            self.known.insert(key, directory);
        }
    }

    fn read(&self, pid: u32, name: &str) -> Option<Vec<u8>> {
        use std::io::Read;
        let file = fs::File::open(self.proc.join(format!("{pid}/{name}"))).ok()?;
        let mut bytes = Vec::new();
        file.take(PROC_FILE).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}

/// The owner after another owner used the directory; `None` if it has not changed.
fn shared_owner(first: &DirectoryOwner, second: DirectoryOwner) -> Option<DirectoryOwner> {
    if first.key() == second.key() {
        return None;
    }
    match (first, second) {
        (
            _,
            DirectoryOwner::Container {
                id,
                pod: Some(uid),
                cgroup,
            },
        ) if first.pod() == Some(uid.as_str()) => {
            let cgroup = pod_cgroup(&cgroup, &id);
            Some(DirectoryOwner::Pod { uid, cgroup })
        }
        _ => Some(DirectoryOwner::Shared),
    }
}

/// The cgroups of the pod: each path up to the container's directory.
fn pod_cgroup(cgroup: &[u8], container: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(cgroup);
    let lines = text.lines().map(|line| {
        let end = line.find(container).unwrap_or(line.len());
        let (before, _) = line.split_at_checked(end).unwrap_or((line, ""));
        let pod = match end < line.len() {
            true => before.rsplit_once('/').map_or(before, |(pod, _)| pod),
            false => before,
        };
        format!("{pod}\n")
    });
    lines.collect::<String>().into_bytes()
}

/// The owner of a process, if root created its cgroup; `None` for others, such as rootless
/// containers.
fn owner_of(cgroup: &[u8], made_by: MadeByOf<'_>) -> Option<DirectoryOwner> {
    let owner = Owner::of_process(cgroup, made_by)?;
    match &owner {
        Owner::Container(container) => {
            // The handler uses only the text, because the container no longer exists then.
            let is_certain =
                container.is_of_root() && Owner::from_cgroup(cgroup).as_ref() == Some(&owner);
            is_certain.then(|| DirectoryOwner::Container {
                id: container.id.clone(),
                pod: container.pod_uid.clone(),
                cgroup: cgroup.to_vec(),
            })
        }
        Owner::Pod { .. } => None,
        Owner::Host { .. } => Some(DirectoryOwner::Host),
    }
}

/// Opens the pattern's directory in a root, as the kernel resolves it there.
fn open_directory(root: &Path, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, path, flags, Mode::empty(), resolve)?)
}

/// Device and inode as the node sees them, without contacting a file server.
fn identity(path: &Path) -> Option<DirectoryKey> {
    let found = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::INO).ok()?;
    let device = rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor);
    Some((device, found.stx_ino))
}

fn descriptor_identity(descriptor: &OwnedFd) -> Option<DirectoryKey> {
    let found = rustix::fs::fstat(descriptor).ok()?;
    Some((found.st_dev, found.st_ino))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const POD: &str = "12345678-1234-1234-1234-123456789abc";

    fn cgroup_of(container: char) -> String {
        cgroup_in(POD, container)
    }

    fn cgroup_in(pod: &str, container: char) -> String {
        let id = container.to_string().repeat(64);
        format!("0::/kubepods/burstable/pod{pod}/{id}\n")
    }

    /// A `/proc` of plain files.
    struct Node {
        place: tempfile::TempDir,
    }

    impl Node {
        fn new() -> Self {
            let node = Self {
                place: tempfile::tempdir().unwrap(),
            };
            node.process(1, "0::/init.scope\n", "node");
            node
        }

        /// A process in this cgroup whose root is the directory of this name.
        fn process(&self, pid: u32, cgroup: &str, root: &str) {
            let process = self.proc().join(pid.to_string());
            fs::create_dir_all(&process).unwrap();
            let root = self.place.path().join(root);
            fs::create_dir_all(root.join("cores")).unwrap();
            fs::write(process.join("cgroup"), cgroup).unwrap();
            fs::write(process.join("status"), "Name:\tx\nCoreDumping:\t0\n").unwrap();
            fs::write(
                process.join("mountinfo"),
                "5 1 0:50 / / rw - overlay overlay rw\n",
            )
            .unwrap();
            let _ = fs::remove_file(process.join("root"));
            symlink(root, process.join("root")).unwrap();
        }

        fn proc(&self) -> PathBuf {
            self.place.path().join("proc")
        }

        fn directories(&self) -> Directories {
            Directories::new(&self.proc(), Path::new("/cores"))
        }
    }

    fn owners(directories: &Directories) -> Vec<String> {
        let word = |directory: &CoreDirectory| match &directory.owner {
            DirectoryOwner::Container { id, pod, .. } => {
                format!("{:.1} {}", id, pod.as_deref().unwrap_or("-"))
            }
            DirectoryOwner::Pod { uid, cgroup } => {
                let owner = Owner::from_cgroup(cgroup);
                assert_eq!(owner, Some(Owner::Pod { uid: uid.clone() }));
                format!("pod {uid}")
            }
            DirectoryOwner::Host => "host".to_owned(),
            DirectoryOwner::Shared => "shared".to_owned(),
        };
        let mut all: Vec<String> = directories.known.values().map(word).collect();
        all.sort();
        all
    }

    fn assert_container_and_host(directories: &Directories) {
        let expected = [format!("a {POD}"), "host".to_owned()];
        assert_eq!(owners(directories), expected);
    }

    #[test]
    fn directories_have_the_owner_of_the_processes_with_that_root() {
        let node = Node::new();
        node.process(10, &cgroup_of('a'), "a");
        node.process(11, &cgroup_of('a'), "a");
        node.process(20, &cgroup_of('b'), "b");
        let mut directories = node.directories();
        directories.scan_with(&|_, _| MadeBy::Root).unwrap();
        assert_eq!(
            owners(&directories),
            [format!("a {POD}"), format!("b {POD}"), "host".to_owned()]
        );
        for pid in [10, 11] {
            fs::remove_dir_all(node.proc().join(pid.to_string())).unwrap();
        }
        directories.scan_with(&|_, _| MadeBy::Root).unwrap();
        let left = directories
            .known
            .values()
            .filter(|one| one.left_at.is_some());
        assert_eq!(left.count(), 1, "the directory outlasts the container");
    }

    #[test]
    fn directory_of_a_container_that_is_starting_is_not_the_nodes() {
        let node = Node::new();
        node.process(10, &cgroup_of('a'), "node");
        let mut directories = node.directories();
        directories.scan_with(&|_, _| MadeBy::Root).unwrap();
        assert_eq!(owners(&directories), ["host"]);
        node.process(10, &cgroup_of('a'), "a");
        directories.scan_with(&|_, _| MadeBy::Root).unwrap();
        assert_container_and_host(&directories);
    }

    #[test]
    fn process_that_the_runtime_moves_into_its_container_is_found_there() {
        let node = Node::new();
        let mut directories = node.directories();
        directories.scan_with(&|_, _| MadeBy::Root).unwrap();
        node.process(10, "0::/system.slice/containerd.service\n", "node");
        directories.scan_with(&|_, _| MadeBy::Root).unwrap();
        assert_eq!(owners(&directories), ["host"]);
        node.process(10, &cgroup_of('a'), "a");
        directories.scan_with(&|_, _| MadeBy::Root).unwrap();
        assert_container_and_host(&directories);
        let of_10 = directories
            .known
            .values()
            .filter(|one| one.processes.contains(&10));
        assert_eq!(of_10.count(), 1);
    }

    #[test]
    fn process_that_is_being_started_when_the_agent_starts_is_found_in_its_container() {
        let node = Node::new();
        node.process(10, "0::/system.slice/containerd.service\n", "node");
        let mut directories = node.directories();
        directories.scan_with(&|_, _| MadeBy::Root).unwrap();
        node.process(10, &cgroup_of('a'), "a");
        directories.scan_with(&|_, _| MadeBy::Root).unwrap();
        assert_container_and_host(&directories);
    }

    #[test]
    fn cgroups_that_a_container_makes_do_not_make_it_another_owner() {
        let node = Node::new();
        let id = "a".repeat(64);
        let cgroup = |inner: &str| format!("0::/kubepods/burstable/pod{POD}/{id}{inner}\n");
        node.process(10, &cgroup(""), "a");
        for pid in 11..20 {
            // Some processes share the first root, the others have their own.
            let root = ["a".to_owned(), format!("a-{pid}")][usize::from(pid > 12)].clone();
            node.process(pid, &cgroup(&format!("/nested-{pid}")), &root);
        }
        let mut directories = node.directories();
        directories.scan_with(&|_, _| MadeBy::Root).unwrap();
        let mut expected = vec![format!("a {POD}"); ROOTS];
        expected.push("host".to_owned());
        assert_eq!(owners(&directories), expected);
    }

    #[test]
    fn containers_that_share_directories_get_no_more_of_them() {
        let node = Node::new();
        for (pid, root) in (0..20).map(|number| (10 + number, number / 2)) {
            let container = ['a', 'b'][usize::from(pid % 2 == 1)];
            node.process(pid, &cgroup_of(container), &format!("volume-{root}"));
        }
        let mut directories = node.directories();
        directories.scan_with(&|_, _| MadeBy::Root).unwrap();
        let found = owners(&directories).len();
        assert!(found <= 1 + 2 * ROOTS, "{found}");
    }

    #[test]
    fn root_on_a_file_server_is_not_touched() {
        let node = Node::new();
        node.process(10, &cgroup_of('a'), "a");
        let table = node.proc().join("10/mountinfo");
        let mounts = "5 1 0:50 / / rw - fuse evil rw\n6 5 0:51 / /cores rw - tmpfs x rw\n";
        fs::write(&table, mounts).unwrap();
        let mut directories = node.directories();
        directories.scan_with(&|_, _| MadeBy::Root).unwrap();
        assert_eq!(owners(&directories), ["host"]);
        // The runtime changes the root later, on a node whose own root is on a file server.
        fs::write(&table, "5 1 0:50 / / rw - overlay overlay rw\n").unwrap();
        for _ in 0..LATER {
            directories.scan_with(&|_, _| MadeBy::Root).unwrap();
        }
        assert_container_and_host(&directories);
    }

    #[test]
    fn directory_that_two_containers_see_has_their_pod_or_no_owner() {
        let node = Node::new();
        node.process(10, &cgroup_of('a'), "a");
        node.process(20, &cgroup_of('b'), "a");
        let mut directories = node.directories();
        directories.scan_with(&|_, _| MadeBy::Root).unwrap();
        assert_eq!(
            owners(&directories),
            ["host".to_owned(), format!("pod {POD}")]
        );
        let other = "99999999-1234-1234-1234-123456789abc";
        node.process(30, &cgroup_in(other, 'c'), "a");
        directories.scan_with(&|_, _| MadeBy::Root).unwrap();
        assert_eq!(owners(&directories), ["host", "shared"]);
    }

    #[test]
    fn directory_of_a_cgroup_that_a_user_made_is_not_collected() {
        let node = Node::new();
        node.process(10, &cgroup_of('a'), "a");
        let mut directories = node.directories();
        let made_by = |_: &str, path: &str| match path.contains("kubepods") {
            true => MadeBy::User(1000),
            false => MadeBy::Root,
        };
        directories.scan_with(&made_by).unwrap();
        assert_eq!(owners(&directories), ["host"]);
    }

    #[test]
    fn directory_is_not_reached_through_links_or_on_a_file_server() {
        let node = Node::new();
        node.process(10, &cgroup_of('a'), "a");
        let cores = node.place.path().join("a/cores");
        fs::remove_dir(&cores).unwrap();
        symlink(node.place.path().join("node/cores"), &cores).unwrap();
        node.process(20, &cgroup_of('b'), "b");
        let mounts = "5 1 0:50 / / rw - overlay overlay rw\n6 5 0:51 / /cores rw - fuse evil rw\n";
        fs::write(node.proc().join("20/mountinfo"), mounts).unwrap();
        let mut directories = node.directories();
        directories.scan_with(&|_, _| MadeBy::Root).unwrap();
        assert_eq!(owners(&directories), ["host"]);
    }

    #[test]
    fn dumping_process_is_seen_in_its_status() {
        let node = Node::new();
        node.process(10, &cgroup_of('a'), "a");
        let mut directories = node.directories();
        directories.scan_with(&|_, _| MadeBy::Root).unwrap();
        let keys: Vec<DirectoryKey> = directories.known.keys().copied().collect();
        let dumping = |directories: &Directories| {
            keys.iter()
                .filter(|key| directories.is_dumping(**key))
                .count()
        };
        assert_eq!(dumping(&directories), 0);
        fs::write(node.proc().join("10/status"), "CoreDumping:\t1\n").unwrap();
        assert_eq!(dumping(&directories), 1);
    }
}
