//! The collector of core files, as a thread of `cdh agent run`.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use cdh_agent::collect::{CollectEvent, CollectOptions, Collector};
use cdh_agent::config::AgentConfig;
use cdh_agent::{AgentPaths, InstallOptions};
use serde_json::json;

use super::config;
use super::log::{Level, Log};
use crate::report::{ExitStatus, Failure};

/// Collects core files until it is dropped.
pub(super) struct Collecting {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Collecting {
    /// Starts the collector if the configuration enables it.
    ///
    /// # Errors
    /// If `core_pattern` is not an absolute path, or the state directory cannot be used.
    pub(super) fn begin(
        config: &AgentConfig,
        paths: &AgentPaths,
        log: Log,
    ) -> Result<Option<Self>> {
        if !config.collect.files {
            return Ok(None);
        }
        let place = paths.state.join("collected");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&place)
            .with_context(|| format!("cannot create {}", place.display()))?;
        let settings = place.join("handler.json");
        write_settings(config, paths, &settings)?;
        let own = std::env::current_exe().context("the path of this program is not known")?;
        let options = CollectOptions {
            paths: paths.clone(),
            proc: "/proc".into(),
            handler: vec![own.into(), "agent".into(), "handle".into()],
            settings,
        };
        let mut collector = Collector::new(options).map_err(|error| {
            Failure::new(ExitStatus::Failure, "cannot collect core files")
                .cause(error)
                .hint("set kernel.core_pattern to a path such as `/tmp/core.%e.%p.%t`, or unset `collect.files`")
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("cdh-collect".to_owned());
        let thread = thread.spawn(move || {
            collector.run_until(&stopped, &mut |event| write_line(log, event));
        })?;
        Ok(Some(Self {
            stop,
            thread: Some(thread),
        }))
    }
}

impl Drop for Collecting {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The handler's settings that an installation would write beside the handler.
fn write_settings(config: &AgentConfig, paths: &AgentPaths, file: &Path) -> Result<()> {
    let mut settings = InstallOptions::new(paths.clone(), file.to_owned()).handler;
    config::apply_to_handler(config, &mut settings);
    settings.node = paths.workloads.node.clone();
    let text = serde_json::to_vec_pretty(&settings)?;
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn write_line(log: Log, event: &CollectEvent) {
    match event {
        CollectEvent::Collected {
            name,
            container,
            dump,
        } => {
            let place = match container {
                Some(id) => format!("of container {id}"),
                None => "of no container".to_owned(),
            };
            let (text, fields) = match dump {
                Some(dump) => (
                    format!("core file `{name}` {place} is dump {dump}"),
                    json!({"dump": dump.to_string()}),
                ),
                None => (
                    format!("core file `{name}` {place}: the policy stores no dump"),
                    json!({}),
                ),
            };
            log.line(Level::Info, "collected", &text, fields);
        }
        CollectEvent::Deleted { name, dump } => {
            let text = format!("core file `{name}` is deleted, dump {dump} is uploaded");
            log.line(
                Level::Info,
                "core_file_deleted",
                &text,
                json!({"dump": dump.to_string()}),
            );
        }
        CollectEvent::Kept { name, dump } => {
            let text = format!(
                "core file `{name}` is kept: dump {dump} is not in the spool any more, and the store did not confirm its complete core"
            );
            log.line(
                Level::Warning,
                "core_file_kept",
                &text,
                json!({"dump": dump.to_string()}),
            );
        }
        CollectEvent::Overfull { container, limit } => {
            let place = match container {
                Some(id) => format!("container {id}"),
                None => "the node or of several pods".to_owned(),
            };
            let text = format!(
                "the core directory of {place} has too many files: only {limit} are looked at, so cores may be missed"
            );
            let fields = json!({"container": container, "limit": limit});
            log.line(Level::Warning, "core_directory_overfull", &text, fields);
        }
        CollectEvent::Failed { name, why } => {
            let text = format!("cannot collect core file `{name}`: {why}");
            log.line(Level::Error, "not_collected", &text, json!({"why": why}));
        }
        _ => {}
    }
}
