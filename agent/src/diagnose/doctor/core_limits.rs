//! Core limits of containers (`RLIMIT_CORE`): those of the runtime, or of the pod where the kubelet sets ulimits for each
//! container (KEP-5758).
//!
//! With a pipe or a socket, the kernel ignores the limit, except for the value 1, which prevents any
//! dump (`coredump_pipe` in `fs/coredump.c`). With files, a core ends at the limit, and a limit of 0
//! prevents it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::finding::Finding;
use crate::collect::file_pattern;
use crate::owner::Owner;
use crate::paths::AgentPaths;

const CHECK: &str = "core limits";
/// Maximum containers named in a finding.
const NAMED: usize = 3;

/// The lowest soft limit of each container, by id; `None` is unlimited.
fn limits_of_containers(root: &Path) -> BTreeMap<String, Option<u64>> {
    let mut found = BTreeMap::new();
    let processes = fs::read_dir(root.join("proc"))
        .into_iter()
        .flatten()
        .flatten();
    for process in processes {
        let is_process = process
            .file_name()
            .to_str()
            .is_some_and(|name| name.parse::<u32>().is_ok());
        if !is_process {
            continue;
        }
        let read = |name: &str| fs::read(process.path().join(name)).ok();
        let Some(owner) = read("cgroup").and_then(|cgroup| Owner::from_cgroup(&cgroup)) else {
            continue;
        };
        let (Some(container), Some(limits)) = (owner.container(), read("limits")) else {
            continue;
        };
        let Some(limit) = soft_limit(&String::from_utf8_lossy(&limits)) else {
            continue;
        };
        let lowest = found.entry(container.id.clone()).or_insert(limit);
        // `None` is unlimited, which is the highest limit.
        *lowest = [*lowest, limit].into_iter().flatten().min();
    }
    found
}

/// The soft limit in `/proc/<pid>/limits`: `Some(None)` is unlimited.
fn soft_limit(limits: &str) -> Option<Option<u64>> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

/// Containers whose limit loses cores with the present pattern.
pub(crate) fn core_limits(paths: &AgentPaths, root: &Path) -> Vec<Finding> {
    let containers = limits_of_containers(root);
    if containers.is_empty() {
        return Vec::new();
    }
    let names = |wanted: &dyn Fn(u64) -> bool| -> Vec<&str> {
        let named = containers
            .iter()
            .filter(|(_, limit)| limit.is_some_and(wanted));
        named.map(|(id, _)| id.get(..12).unwrap_or(id)).collect()
    };
    let list = |names: &[&str]| {
        let shown = names
            .get(..names.len().min(NAMED))
            .unwrap_or_default()
            .join(", ");
        match names.len() > NAMED {
            true => format!("{} containers ({shown}, …)", names.len()),
            false => format!(
                "{} of {} containers ({shown})",
                names.len(),
                containers.len()
            ),
        }
    };
    let mut found = Vec::new();
    if file_pattern(paths).is_ok() {
        let none = names(&|limit| limit == 0);
        if !none.is_empty() {
            found.push(Finding::warning(
                CHECK,
                format!("0 in {}: the kernel writes no core file for them", list(&none)),
                "set the `core` ulimit of the container (KEP-5758), or the runtime's default: `LimitCORE=infinity` in containerd's unit",
            ));
        }
        let some = names(&|limit| limit > 0);
        if !some.is_empty() {
            found.push(Finding::warning(
                CHECK,
                format!("set in {}: their core files end there", list(&some)),
                "raise the `core` ulimit of the container (KEP-5758) or of the runtime",
            ));
        }
    } else {
        let one = names(&|limit| limit == 1);
        if !one.is_empty() {
            found.push(Finding::warning(
                CHECK,
                format!("1 in {}: with this value the kernel starts no handler", list(&one)),
                "set the `core` ulimit of the container to 0 or more than 1: a handler ignores every other value",
            ));
        }
    }
    if found.is_empty() {
        found.push(Finding::good(
            CHECK,
            format!("those of {} containers cut no cores", containers.len()),
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::paths::SettingsFiles;

    const POD: &str = "12345678-1234-1234-1234-123456789abc";

    fn findings(pattern: &str, limits: &[&str]) -> Vec<(State, String)> {
        let place = tempfile::tempdir().unwrap();
        let mut paths = AgentPaths::below(place.path());
        paths.settings = SettingsFiles::in_directory(place.path());
        fs::write(&paths.settings.core_pattern, pattern).unwrap();
        for (number, limit) in limits.iter().enumerate() {
            let process = place.path().join(format!("proc/{}", number + 100));
            fs::create_dir_all(&process).unwrap();
            let id = format!("{number:x}").repeat(64);
            fs::write(
                process.join("cgroup"),
                format!("0::/kubepods/pod{POD}/{id}\n"),
            )
            .unwrap();
            let text = format!(
                "Limit   Soft Limit  Hard Limit  Units\nMax core file size        {limit}   unlimited   bytes\n"
            );
            fs::write(process.join("limits"), text).unwrap();
        }
        let found = core_limits(&paths, place.path());
        found.into_iter().map(|one| (one.state, one.what)).collect()
    }

    #[test]
    fn core_limits_of_one_are_reported_for_a_handler() {
        let found = findings("|/x/cdh-handler P%P", &["0", "1", "unlimited"]);
        let what =
            "1 in 1 of 3 containers (111111111111): with this value the kernel starts no handler";
        assert_eq!(found, [(State::Warning, what.to_owned())]);
        let found = findings("|/x/cdh-handler P%P", &["0", "4096"]);
        assert_eq!(
            found,
            [(State::Good, "those of 2 containers cut no cores".to_owned())]
        );
    }

    #[test]
    fn core_limits_of_zero_and_sizes_are_reported_for_files() {
        let found = findings("/tmp/core.%p", &["0", "0", "0", "0", "4096", "unlimited"]);
        let texts: Vec<&str> = found.iter().map(|(_, what)| what.as_str()).collect();
        assert_eq!(
            texts,
            [
                "0 in 4 containers (000000000000, 111111111111, 222222222222, …): the kernel writes no core file for them",
                "set in 1 of 6 containers (444444444444): their core files end there",
            ]
        );
        assert_eq!(findings("/tmp/core.%p", &["unlimited"])[0].0, State::Good);
        assert_eq!(findings("/tmp/core.%p", &[]), []);
    }
}
