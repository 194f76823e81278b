//! Diagnoses why cores are not captured, stored or shipped on this node, and how to fix it.
//!
//! Looks only, but for one object in the store that is written, read and deleted when that is wanted.

mod core_limits;
mod kernel;
mod peers;
mod places;

use std::path::Path;

use serde::Serialize;

use crate::paths::AgentPaths;
#[cfg(feature = "daemon")]
pub use peers::examine_events;
pub use peers::{examine_store, missing_at_boot};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Good,
    /// It cannot be seen from here: a container sees a part of its node.
    Unknown,
    /// It works, and something is lost under circumstances.
    Warning,
    /// Cores are lost or do not arrive.
    Problem,
}

/// What was found about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Finding {
    /// Which thing: `handler directory`.
    pub check: &'static str,
    /// How bad it is.
    pub state: State,
    /// What was found.
    pub what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way: Option<String>,
}

impl Finding {
    fn good(check: &'static str, what: impl Into<String>) -> Self {
        Self {
            check,
            state: State::Good,
            what: what.into(),
            way: None,
        }
    }

    fn unknown(check: &'static str, what: impl Into<String>, way: impl Into<String>) -> Self {
        Self {
            check,
            state: State::Unknown,
            what: what.into(),
            way: Some(way.into()),
        }
    }

    fn warning(check: &'static str, what: impl Into<String>, way: impl Into<String>) -> Self {
        Self {
            check,
            state: State::Warning,
            what: what.into(),
            way: Some(way.into()),
        }
    }

    fn problem(check: &'static str, what: impl Into<String>, way: impl Into<String>) -> Self {
        Self {
            check,
            state: State::Problem,
            what: what.into(),
            way: Some(way.into()),
        }
    }
}

/// What is examined.
#[derive(Clone, Copy, Debug)]
pub struct Examined<'a> {
    /// Where the agent lives on the node.
    pub paths: &'a AgentPaths,
    /// `/`, or what stands for it in a test.
    pub root: &'a Path,
    /// Whether the configuration lets `cdh agent run` install by itself (`node.manage`).
    pub manages: bool,
    /// Whether this is a pod, which Kubernetes starts again after a reboot.
    pub in_pod: bool,
    /// Root of the node's own file system; `None` where this container cannot see it.
    pub node_root: Option<&'a Path>,
    /// How to call this program: `cdh`, or its path.
    pub program: &'a str,
    /// Flags that this installation needs, as a shell reads them: `--state /srv/cdh`.
    pub flags: &'a str,
}

impl<'a> Examined<'a> {
    /// A host, whose configuration says nothing.
    #[must_use]
    pub fn host(paths: &'a AgentPaths, root: &'a Path) -> Self {
        Self {
            paths,
            root,
            manages: false,
            in_pod: false,
            node_root: Some(root),
            program: "cdh",
            flags: "",
        }
    }
}

/// Looks at the node.
#[must_use]
pub fn examine(node: &Examined<'_>) -> Vec<Finding> {
    let Examined { paths, root, .. } = *node;
    // In a cluster the container that ships need not be the one that installs.
    let installs = !node.in_pod || node.manages;
    let mut found = vec![
        kernel::privileges(paths, installs),
        kernel::pid_namespace(root),
        kernel::pattern(paths),
    ];
    // Files need neither a handler on the node nor the process's memory.
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
