//! `cdh agent run`: the shipper, and around it those who are told what it does.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use cdh_agent::config::AgentConfig;
use cdh_agent::notify::{Deliver, KubernetesEvents, Notifier, Report, Webhook};
use cdh_agent::observe::{Listener, Watcher};
use cdh_agent::{ShipperEvent, StopSignals};
use serde_json::{Value, json};

use super::config;
use super::log::{Level, Log};
use crate::pipeline;
use crate::report::{ExitStatus, Failure};
use crate::settings::{Settings, environment};

pub(super) fn run(settings: &Settings, config: &AgentConfig, log: Log) -> Result<ExitStatus> {
    // Before there is any other thread: see there.
    let _signals = StopSignals::catch().context("cannot wait for signals")?;
    let paths = config::paths(config);
    let watcher = Arc::new(Watcher::new(paths.clone(), config.metrics.textfile.clone()));
    let _listener = listen(config, &watcher, log)?;
    let reporting = Arc::clone(&watcher);
    let report: Report = Arc::new(move |told| {
        reporting.notified(told.target, told.outcome.word());
        log.told(told);
    });
    let receivers = receivers(config, log);
    let notifier = Mutex::new(Notifier::begin(receivers, &paths.state, report));
    let mut observer = |event: &ShipperEvent| {
        if let Some(why) = watcher.notice(event) {
            log.line(Level::Error, "metrics", &why, Value::Null);
        }
        log.event(event);
        if let ShipperEvent::Sealed { manifest } = event
            && let Ok(mut notifier) = notifier.lock()
        {
            notifier.notice(manifest);
        }
    };
    let open = || pipeline::open_node_store(settings);
    let options = config::shipper_options(config);
    cdh_agent::run(&paths, &open, options, &mut observer)?;
    Ok(ExitStatus::Done)
}

fn listen(config: &AgentConfig, watcher: &Arc<Watcher>, log: Log) -> Result<Option<Listener>> {
    let Some(address) = &config.metrics.listen else {
        return Ok(None);
    };
    let address: SocketAddr = address.parse().context("`metrics.listen` is no address")?;
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
        let environment = environment();
        let get = |name: &str| environment.get(name).map(String::as_str);
        let host = get("KUBERNETES_SERVICE_HOST");
        match KubernetesEvents::in_cluster(host, get("KUBERNETES_SERVICE_PORT")) {
            Some(events) => receivers.push(Box::new(events)),
            None => {
                let text = "no events on pods: this process is in no pod of a cluster (KUBERNETES_SERVICE_HOST is not set)";
                log.line(Level::Warning, "notification", text, Value::Null);
            }
        }
    }
    receivers
}
