//! `cdh agent run`: the shipper, and around it metrics, notifications and the log.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use cdh_agent::config::AgentConfig;
use cdh_agent::notify::{ApiServer, Deliver, KubernetesEvents, Notifier, Report, Webhook};
use cdh_agent::observe::{Listener, Readiness, Watcher};
use cdh_agent::{ShipperError, ShipperEvent, StopSignals};
use serde_json::{Value, json};

use super::collecting::Collecting;
use super::config;
use super::log::{Level, Log};
use super::started::Started;
use crate::pipeline;
use crate::report::{ExitStatus, Failure};
use crate::settings::{Settings, environment};

pub(super) fn run(settings: &Settings, config: &AgentConfig, log: Log) -> Result<ExitStatus> {
    // This must run before any other thread exists: see its documentation.
    let _signals = StopSignals::catch().context("cannot wait for signals")?;
    let paths = config::paths(config);
    Started::of(settings, config, &paths).log(log);
    let watcher = Arc::new(Watcher::new(paths.clone(), config.metrics.textfile.clone()));
    let _listener = listen(config, &watcher, log)?;
    let _collecting = Collecting::begin(config, &paths, log)?;
    let reporting = Arc::clone(&watcher);
    let report: Report = Arc::new(move |report| {
        reporting.notified(report.target, report.outcome.word());
        log.delivery(report);
    });
    let receivers = receivers(config, log);
    let notifier = Mutex::new(Notifier::begin(receivers, &paths.state, report));
    let mut observer = |event: &ShipperEvent| {
        if let Some(why) = watcher.notice(event) {
            log.line(Level::Error, "metrics", &why, Value::Null);
        }
        log.event(event);
        if matches!(event, ShipperEvent::Pass) {
            log_readiness(&watcher, log);
        }
        if let ShipperEvent::Sealed { manifest } = event
            && let Ok(mut notifier) = notifier.lock()
        {
            notifier.notice(manifest);
        }
    };
    let open = || pipeline::open_node_store(settings);
    let mut options = config::shipper_options(config);
    options.store = settings.store_name();
    options.manages_node = config.manages_node();
    cdh_agent::run(&paths, &open, options, &mut observer).map_err(refused)?;
    let left = cdh_agent::spool::count(&paths.spool).unwrap_or_default();
    let left = left.sealed + left.partial;
    let text = match left {
        0 => "stopped: the spool is empty".to_owned(),
        left => format!(
            "stopped: {} in the spool {}",
            super::dumps(left),
            paths.spool.display()
        ),
    };
    log.line(Level::Info, "stopped", &text, json!({"waiting": left}));
    Ok(ExitStatus::Done)
}

/// Why the shipper does not run, and how to fix it.
fn refused(error: ShipperError) -> anyhow::Error {
    let failure = Failure::new(ExitStatus::Failure, "the agent cannot run");
    match &error {
        ShipperError::AlreadyRunning { .. } => {
            failure.hint("only one agent can use a spool: `cdh agent status` shows what runs; another one needs its own `--state`")
        }
        ShipperError::Unusable { .. } | ShipperError::Spool(_) => {
            failure.hint("run it as root, or choose a directory of your own with `--state <DIR>`")
        }
        _ => failure,
    }
    .cause(error)
    .into()
}

fn listen(config: &AgentConfig, watcher: &Arc<Watcher>, log: Log) -> Result<Option<Listener>> {
    let Some(address) = &config.metrics.listen else {
        return Ok(None);
    };
    let address: SocketAddr = address
        .parse()
        .context("`metrics.listen` is not an address")?;
    let listener = Listener::begin(address, Arc::clone(watcher)).map_err(|error| {
        Failure::new(ExitStatus::Failure, "cannot serve metrics")
            .cause(error)
            .hint("choose another port with `--metrics` or `metrics.listen`")
    })?;
    let address = listener.address().to_string();
    let text = format!("metrics at http://{address}/metrics");
    log.line(Level::Info, "listening", &text, json!({"address": address}));
    Ok(Some(listener))
}

fn receivers(config: &AgentConfig, log: Log) -> Vec<Box<dyn Deliver>> {
    let hooks = config.notify.webhooks.iter().enumerate();
    let hooks = hooks
        .map(|(number, hook)| -> Box<dyn Deliver> { Box::new(Webhook::new(hook.clone(), number)) });
    let mut receivers: Vec<Box<dyn Deliver>> = hooks.collect();
    if config.notify.kubernetes_events {
        match kubernetes_events() {
            Some(events) => {
                check_permission(events.clone(), log);
                receivers.push(Box::new(events));
            }
            None => {
                let text = "no events on pods: this process does not run in a cluster (KUBERNETES_SERVICE_HOST is not set)";
                log.line(Level::Warning, "notification", text, Value::Null);
            }
        }
    }
    receivers
}

/// Events in the cluster that this process is in.
pub(super) fn kubernetes_events() -> Option<KubernetesEvents> {
    let environment = environment();
    let get = |name: &str| environment.get(name).map(String::as_str);
    let host = get("KUBERNETES_SERVICE_HOST");
    ApiServer::in_cluster(host, get("KUBERNETES_SERVICE_PORT")).map(KubernetesEvents::new)
}

/// Logs when crashes are no longer captured, and when they are again, even if `/readyz` is never
/// requested.
fn log_readiness(watcher: &Watcher, log: Log) {
    match watcher.readiness_changed() {
        None => {}
        Some(Readiness::Ready) => log.line(
            Level::Info,
            "ready",
            "ready: cores are captured",
            Value::Null,
        ),
        Some(Readiness::Lost(why)) => {
            let text = format!("no longer ready: {why}");
            log.line(Level::Error, "not_ready", &text, json!({"why": why}));
        }
    }
}

/// Logs the consequence if the service account may not create Events. A slow API server does not delay
/// anything else.
fn check_permission(events: KubernetesEvents, log: Log) {
    let check = move || {
        if let Err(why) = events.check() {
            let text =
                format!("cannot create Events for new crashes: {why}; dumps are not affected");
            log.line(Level::Warning, "notification", &text, json!({"why": why}));
        }
    };
    // Without the thread, each failed Event is still logged.
    let _ = std::thread::Builder::new()
        .name("cdh-events".to_owned())
        .spawn(check);
}
