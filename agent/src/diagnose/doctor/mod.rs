//! Diagnoses why cores are not captured, stored or shipped on this node, and how to fix it.
//!
//! Read-only, except for one test object in the store that is written, read and deleted on request.

mod core_limits;
mod finding;
mod kernel;
mod peers;
mod places;

pub use finding::{Examined, Finding, State};
#[cfg(feature = "daemon")]
pub use peers::examine_events;
pub use peers::{examine_store, missing_at_boot};

/// Looks at the node.
#[must_use]
pub fn examine(node: &Examined<'_>) -> Vec<Finding> {
    let Examined { paths, root, .. } = *node;
    // In a cluster, the container that ships may differ from the one that installs.
    let installs = !node.in_pod || node.manages;
    let mut found = vec![
        kernel::privileges(paths, installs),
        kernel::pid_namespace(root),
        kernel::pattern(paths),
    ];
    // Core files need neither a handler on the node nor the process's memory.
    if !paths.collects_files {
        found.extend([
            places::handler_place(paths, node.node_root.unwrap_or(root), installs),
            places::handler_file(paths),
            kernel::userfaultfd(root),
            kernel::yama(root),
        ]);
    }
    found.extend([places::state_place(paths), places::room(paths)]);
    found.extend(kernel::limits(paths));
    found.extend(core_limits::core_limits(paths, root));
    found.extend(kernel::cgroup(paths, node.in_pod));
    match node.node_root {
        Some(root) => {
            found.extend(kernel::selinux(paths, root));
            found.extend(kernel::boot(paths, root));
            found.extend(kernel::others(root));
        }
        None => found.push(Finding::unknown(
            "files of the node",
            "not visible in this container: sysctl.d, other crash handlers, SELinux and its audit log",
            "run `cdh agent doctor` on the node to check them",
        )),
    }
    found.extend(peers::at_boot(node));
    found.extend(peers::runtimes(node));
    found.extend(peers::spool(paths));
    found
}

#[cfg(test)]
mod tests;
