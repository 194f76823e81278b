//! Replaces [`lookups`](super) in an agent without CRI: no runtime is queried.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cdh_bundle::DumpId;

use super::options::WorkloadOptions;
use super::{Answer, PodTable};
use crate::owner::ContainerIdentity;

pub(super) struct Lookups;

impl Lookups {
    pub(super) fn begin(_: Arc<WorkloadOptions>, _: &Path, _: PodTable) -> Self {
        Self
    }

    pub(super) fn watch(&mut self) {}

    pub(super) fn answer(&self, _: DumpId, _: &ContainerIdentity) -> Result<Answer, String> {
        Err("this agent was built without support for container runtimes".to_owned())
    }

    pub(super) fn answer_after_exit(
        &self,
        _: DumpId,
        _: &ContainerIdentity,
        _: Duration,
    ) -> Option<Answer> {
        None
    }

    pub(super) fn by_pid(&self, _: u64) -> Option<String> {
        None
    }

    pub(super) fn runtimes(&self) -> BTreeMap<PathBuf, Result<(), String>> {
        BTreeMap::new()
    }

    pub(super) fn known_after_list(&self, _: &str) -> Option<Answer> {
        None
    }

    pub(super) fn known(&self, _: &str) -> Option<Answer> {
        None
    }
}

pub(crate) fn runtime_at(socket: &Path) -> Result<String, String> {
    std::os::unix::net::UnixStream::connect(socket)
        .map(|_| "a runtime".to_owned())
        .map_err(|error| error.to_string())
}
