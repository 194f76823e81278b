//! How much memory this process may use: the machine's, or that of its cgroup.

use std::fs;
use std::path::Path;

use cdh_symbolize::SectionArena;

/// Share of the memory that decompressed sections of hostile files may use.
const SHARE: u64 = 4;

/// An arena for the sections of one backtrace.
pub(super) fn section_arena() -> SectionArena {
    let memory = memory_limit(Path::new("/")).unwrap_or(SectionArena::DEFAULT_LIMIT);
    SectionArena::with_limit((memory / SHARE).min(SectionArena::DEFAULT_LIMIT))
}

/// Memory of the machine in bytes, or the limit of this process's cgroup or a parent if it is lower:
/// `memory.max` of cgroup v2, `memory.limit_in_bytes` of v1.
fn memory_limit(root: &Path) -> Option<u64> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = meminfo.lines().find_map(|line| {
        let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?;
        kib.trim().parse::<u64>().ok()?.checked_mul(1024)
    })?;
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut limit = total;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            names if names.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container, the cgroup path may be that of the host: then only the mount's root
        // exists here.
        for group in Path::new(group.trim_start_matches('/')).ancestors() {
            let text = fs::read_to_string(root.join(mount).join(group).join(file));
            let found = text.ok().and_then(|text| text.trim().parse::<u64>().ok());
            limit = found.map_or(limit, |found| limit.min(found));
        }
    }
    Some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_limit_is_the_least_of_machine_and_groups() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/meminfo", "MemTotal:       16384 kB\nMemFree: 1 kB\n");
        assert_eq!(memory_limit(dir.path()), Some(16 << 20));
        write(
            "proc/self/cgroup",
            "5:memory:/a/b\n1:cpu:/a\n0::/user.slice/x\n",
        );
        write(
            "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        write("sys/fs/cgroup/user.slice/x/memory.max", "max\n");
        assert_eq!(memory_limit(dir.path()), Some(16 << 20));
        write("sys/fs/cgroup/user.slice/memory.max", "8388608\n");
        assert_eq!(memory_limit(dir.path()), Some(8 << 20));
        write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "4096\n");
        assert_eq!(memory_limit(dir.path()), Some(4096));
    }
}
