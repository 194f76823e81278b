//! Inputs of the checks, and the result of one check.

use std::path::Path;

use serde::Serialize;

use crate::paths::AgentPaths;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Good,
    /// It is not visible from here: a container sees only a part of its node.
    Unknown,
    /// It works, but something is lost under some conditions.
    Warning,
    /// Cores are lost or do not reach the store.
    Problem,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Finding {
    /// Which thing: `handler directory`.
    pub check: &'static str,
    /// How bad it is.
    pub state: State,
    /// What was found.
    pub what: String,
    /// How to fix it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way: Option<String>,
}

impl Finding {
    pub(super) fn good(check: &'static str, what: impl Into<String>) -> Self {
        Self {
            check,
            state: State::Good,
            what: what.into(),
            way: None,
        }
    }

    pub(super) fn unknown(
        check: &'static str,
        what: impl Into<String>,
        way: impl Into<String>,
    ) -> Self {
        Self {
            check,
            state: State::Unknown,
            what: what.into(),
            way: Some(way.into()),
        }
    }

    pub(super) fn warning(
        check: &'static str,
        what: impl Into<String>,
        way: impl Into<String>,
    ) -> Self {
        Self {
            check,
            state: State::Warning,
            what: what.into(),
            way: Some(way.into()),
        }
    }

    pub(super) fn problem(
        check: &'static str,
        what: impl Into<String>,
        way: impl Into<String>,
    ) -> Self {
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
    /// The agent's paths on the node.
    pub paths: &'a AgentPaths,
    /// `/`, or its replacement in a test.
    pub root: &'a Path,
    /// Whether the configuration lets `cdh agent run` install the handler (`node.manage`).
    pub manages: bool,
    /// Whether this is a pod, which Kubernetes starts again after a reboot.
    pub in_pod: bool,
    /// Root of the node's own file system; `None` if this container cannot see it.
    pub node_root: Option<&'a Path>,
    /// How to call this program: `cdh`, or its path.
    pub program: &'a str,
    /// Flags that this installation needs, quoted for a shell: `--state /srv/cdh`.
    pub flags: &'a str,
}

impl<'a> Examined<'a> {
    /// A host without any configuration.
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
