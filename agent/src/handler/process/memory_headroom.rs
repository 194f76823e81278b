//! Whether there is room for the memory of a process that is gone: on the node, and in the memory
//! cgroups that it is charged to.
//!
//! Memory that is held after its process has been released stays charged to its container until the
//! copy is done. The container that is started again then needs the same once more; without room for
//! both, the kernel kills it.

use std::fs;
use std::path::Path;

use super::cgroups::directory;
use crate::handler::os::proc_status::kib;

/// Bytes that must be left over, for the restarted process needs more than memory of its own.
const MARGIN: u64 = 32 << 20;
/// Directories above a cgroup that are looked at.
const DEPTH: usize = 32;
/// A `limit_in_bytes` at or above this means none (`PAGE_COUNTER_MAX` of 64-bit kernels is just
/// below 2^63).
const NO_LIMIT: u64 = 1 << 60;

/// What is known about room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemoryHeadroom {
    /// Enough.
    Enough,
    /// Not enough, so many bytes are missing.
    Missing(u64),
    /// The cgroup could not be read.
    Unknown,
}

/// Whether a second `size` bytes of memory fit beside those that the process has, and on the node also
/// `others`, which processes need that are started again like this one.
#[must_use]
pub(crate) fn headroom_for(size: u64, others: u64, cgroup: Option<&[u8]>) -> MemoryHeadroom {
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let in_cgroup = cgroup
        .and_then(|cgroup| directory(cgroup, &mounts, "memory"))
        .and_then(|found| free_in(&found));
    let missing = |wanted: u64, free: Option<u64>| {
        let missing = wanted.saturating_add(MARGIN).checked_sub(free?);
        missing.filter(|bytes| *bytes > 0)
    };
    let node = available_memory();
    let missing = missing(size.saturating_add(others), node).max(missing(size, in_cgroup));
    match (missing, node, in_cgroup) {
        (Some(bytes), ..) => MemoryHeadroom::Missing(bytes),
        (None, Some(_), Some(_)) => MemoryHeadroom::Enough,
        (None, ..) => MemoryHeadroom::Unknown,
    }
}

/// Bytes that we may take for a moment: an eighth of the node's memory stays free, and the limits of our
/// own cgroup hold.
#[must_use]
pub(crate) fn own_headroom() -> u64 {
    let meminfo = fs::read("/proc/meminfo").unwrap_or_default();
    let bytes = |field| kib(&meminfo, field).unwrap_or(0).saturating_mul(1024);
    let node = bytes("MemAvailable").saturating_sub(bytes("MemTotal") / 8);
    let cgroup = fs::read("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    node.min(limit_of(&cgroup, &mounts)).saturating_sub(MARGIN)
}

/// Bytes that a cgroup leaves free: all where nothing limits memory, none where the limit cannot be read.
fn limit_of(cgroup: &[u8], mounts: &[u8]) -> u64 {
    match directory(cgroup, mounts, "memory") {
        Some(directory) => free_in(&directory).unwrap_or(0),
        None => u64::MAX,
    }
}

/// Bytes that the node can give to new processes.
#[must_use]
fn available_memory() -> Option<u64> {
    let meminfo = fs::read("/proc/meminfo").ok()?;
    kib(&meminfo, "MemAvailable")?.checked_mul(1024)
}

/// Bytes that this cgroup, or the tightest one above it, leaves free. `None` if none limits memory.
#[must_use]
pub(crate) fn left_in(directory: &Path) -> Option<u64> {
    free_in(directory).filter(|free| *free < u64::MAX)
}

/// Least that is free in a cgroup and in all above it; `u64::MAX` where none has a limit.
fn free_in(directory: &Path) -> Option<u64> {
    let mut free = u64::MAX;
    if !directory.is_dir() {
        return None;
    }
    for directory in directory.ancestors().take(DEPTH) {
        let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        let (limit, usage) = match read("memory.max") {
            Some(limit) => (
                limit.trim().parse().unwrap_or(u64::MAX),
                number("memory.current"),
            ),
            None => match number("memory.limit_in_bytes") {
                Some(limit) => (limit, number("memory.usage_in_bytes")),
                None => continue,
            },
        };
        if limit < NO_LIMIT {
            // Cache of files goes when memory is asked for.
            let stat = read("memory.stat").unwrap_or_default();
            let cache = field(&stat, "total_inactive_file").or(field(&stat, "inactive_file"));
            let used = usage?.saturating_sub(cache.unwrap_or(0));
            free = free.min(limit.saturating_sub(used));
        }
    }
    Some(free)
}

fn field(stat: &str, name: &str) -> Option<u64> {
    stat.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_above_counts_and_cache_does_not() {
        let root = tempfile::tempdir().unwrap();
        let pod = root.path().join("pod");
        let container = pod.join("c");
        fs::create_dir_all(&container).unwrap();
        let write = |directory: &Path, files: &[(&str, &str)]| {
            for (name, text) in files {
                fs::write(directory.join(name), text).unwrap();
            }
        };
        write(
            &container,
            &[("memory.max", "max\n"), ("memory.current", "900\n")],
        );
        assert_eq!(free_in(&container), Some(u64::MAX));
        write(
            &pod,
            &[("memory.max", "1000\n"), ("memory.current", "900\n")],
        );
        write(&pod, &[("memory.stat", "anon 600\ninactive_file 300\n")]);
        assert_eq!(free_in(&container), Some(400));
        assert_eq!(
            (left_in(&container), left_in(root.path())),
            (Some(400), None)
        );
        assert_eq!(free_in(Path::new("/nonexistent/c")), None);
    }

    /// A node whose kernel limits no memory was once taken for one without room.
    #[test]
    fn without_a_memory_controller_nothing_limits_what_may_be_taken() {
        assert_eq!(limit_of(b"1:name=systemd:/\n", b""), u64::MAX);
        let gone = b"30 25 0:26 / /nonexistent rw - cgroup2 cgroup rw\n";
        assert_eq!(limit_of(b"0::/c\n", gone), 0);
    }

    #[test]
    fn without_a_known_cgroup_room_is_unknown() {
        assert_eq!(headroom_for(1, 0, None), MemoryHeadroom::Unknown);
        assert!(matches!(
            headroom_for(1, 1 << 60, None),
            MemoryHeadroom::Missing(_)
        ));
    }
}
