//! Combines flags, environment and file into the agent's configuration, and converts it to the
//! types of the agent's library.

use anyhow::Result;
use cdh_agent::WorkloadOptions;
use cdh_agent::config::{AgentConfig, Effective, Layers, Pods, Problem};
use cdh_agent::handler::settings::HandlerSettings;
use cdh_agent::policy::Selection;
use cdh_agent::{AgentPaths, ShipperOptions};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::args::{
    AgentOptions, CaptureArgs, NodeArgs, ObservabilityArgs, PathArgs, ShippingArgs, WorkloadArgs,
};
use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};
use crate::settings::{Settings, environment};

/// The values of the command line, key by key.
#[derive(Default)]
pub(super) struct Flags(Vec<(&'static str, Value, &'static str)>);

impl Flags {
    fn put(mut self, key: &'static str, flag: &'static str, value: Option<Value>) -> Self {
        self.0.extend(value.map(|value| (key, value, flag)));
        self
    }

    /// All options of `cdh agent run` and of the unit that starts it.
    pub(super) fn of_agent(args: &AgentOptions) -> Self {
        Self::default()
            .paths(&args.paths)
            .node(&args.node)
            .capture(&args.capture)
            .shipping(&args.shipping)
            .workloads(&args.workloads)
            .observability(&args.observability)
    }

    pub(super) fn paths(self, args: &PathArgs) -> Self {
        self.put("node.state", "--state", args.state.as_ref().map(absolute))
            .put(
                "node.libexec",
                "--libexec",
                args.libexec.as_ref().map(absolute),
            )
    }

    pub(super) fn node(self, args: &NodeArgs) -> Self {
        self.put(
            "node.core_pipe_limit",
            "--core-pipe-limit",
            args.core_pipe_limit.map(Value::from),
        )
        .put(
            "node.suid_dumpable",
            "--suid-dumpable",
            args.suid_dumpable.map(Value::from),
        )
        .put("node.mode", "--mode", name(args.mode))
        .put("node.chain", "--chain", yes(args.chain))
    }

    pub(super) fn manage(self, yes_or_no: bool) -> Self {
        self.put("node.manage", "--manage-node", yes(yes_or_no))
    }

    pub(super) fn capture(self, args: &CaptureArgs) -> Self {
        self.put("capture.release", "--release", name(args.release))
            .put("capture.strategy", "--strategy", name(args.strategy))
            .put(
                "limits.core_limit",
                "--core-limit",
                args.core_limit.map(Value::from),
            )
            .put(
                "limits.copy_time",
                "--copy-limit",
                args.copy_limit.map(Value::from),
            )
            .put("limits.disk_floor", "--floor", args.floor.map(Value::from))
            .put("limits.handlers", "--slots", args.slots.map(Value::from))
    }

    pub(super) fn shipping(self, args: &ShippingArgs) -> Self {
        let text = |text: &Option<String>| text.clone().map(Value::from);
        self.put("shipping.mode", "--ship", name(args.ship))
            .put("shipping.interval", "--interval", text(&args.interval))
            .put("shipping.schedule", "--schedule", text(&args.schedule))
            .put(
                "shipping.bandwidth",
                "--bandwidth",
                args.bandwidth.map(Value::from),
            )
            .put(
                "shipping.parallel",
                "--parallel",
                args.parallel.map(Value::from),
            )
            .put(
                "shipping.keep_modules",
                "--keep-modules",
                yes(args.keep_modules),
            )
    }

    pub(super) fn workloads(self, args: &WorkloadArgs) -> Self {
        let sockets = (!args.sockets.is_empty()).then(|| json!(args.sockets));
        self.put("workloads.sockets", "--cri-socket", sockets)
            .put(
                "workloads.node",
                "--node-name",
                args.node.clone().map(Value::from),
            )
            .put(
                "workloads.log_lines",
                "--log-lines",
                args.log_lines.map(Value::from),
            )
            .put("workloads.pods", "--pods", name(args.pods))
            .put(
                "workloads.opt_in_label",
                "--opt-in-label",
                args.opt_in_label.clone().map(Value::from),
            )
    }

    pub(super) fn observability(self, args: &ObservabilityArgs) -> Self {
        self.put(
            "metrics.listen",
            "--metrics",
            args.metrics.clone().map(Value::from),
        )
        .put(
            "metrics.textfile",
            "--metrics-file",
            args.metrics_file.as_ref().map(|path| json!(path)),
        )
        .put("log.format", "--log-format", name(args.log_format))
    }
}

/// A path on the command line is relative to the current directory.
fn absolute(path: &std::path::PathBuf) -> Value {
    json!(std::path::absolute(path).unwrap_or_else(|_| path.clone()))
}

fn yes(given: bool) -> Option<Value> {
    given.then_some(Value::Bool(true))
}

fn name<T: ValueEnum>(value: Option<T>) -> Option<Value> {
    let value = value?.to_possible_value()?;
    Some(Value::from(value.get_name()))
}

/// The agent's configuration.
pub(super) fn effective(settings: &Settings, flags: Flags) -> Result<Effective, Vec<Problem>> {
    let mut layers = Layers::default();
    if let Some((path, text)) = &settings.file {
        layers.file(path, text);
    }
    layers.environment(&environment());
    for (key, value, flag) in flags.0 {
        layers.flag(key, value, flag);
    }
    layers.effective()
}

/// The same for a command that needs a valid configuration; notes go to standard error.
///
/// # Errors
/// If the configuration is not valid; the error has one line per mistake.
pub(super) fn gather(settings: &Settings, flags: Flags) -> Result<Effective> {
    effective(settings, flags).map_err(|problems| not_valid(&problems).into())
}

pub(super) fn not_valid(problems: &[Problem]) -> Failure {
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| terminal_line(&problem.to_string()))
        .collect();
    let (first, others) = lines
        .split_first()
        .map_or((String::new(), &[][..]), |(first, others)| {
            (first.clone(), others)
        });
    let mut failure = Failure::new(
        ExitStatus::Failure,
        "the agent's configuration is not valid",
    );
    let mut cause = anyhow::anyhow!("{first}");
    for line in others.iter().rev() {
        failure = failure.hint(format!("also wrong: {line}"));
    }
    for hint in problems.iter().filter_map(|problem| problem.hint.as_ref()) {
        failure = failure.hint(hint.clone());
    }
    if problems.len() > 1 {
        cause = cause.context(format!("{} mistakes", problems.len()));
    }
    failure.cause(cause)
}

/// The agent's directories, and the shipper's options for them.
pub(super) fn paths(config: &AgentConfig) -> AgentPaths {
    let workloads = &config.workloads;
    let selection = match workloads.pods {
        Pods::OptOut => Selection::OptOut,
        Pods::OptIn => Selection::OptIn {
            label: workloads.opt_in_label.clone(),
        },
    };
    AgentPaths {
        handler: config.node.libexec.join(cdh_agent::HANDLER_NAME),
        state: config.node.state.clone(),
        spool: config.node.state.join("spool"),
        workloads: WorkloadOptions {
            sockets: workloads.sockets.clone(),
            node: workloads.node.clone(),
            log_lines: workloads.log_lines,
            selection,
            policy: config.policy.clone(),
            ..WorkloadOptions::default()
        },
        keep_modules: config.shipping.keep_modules,
        collects_files: config.collect.files,
        ..AgentPaths::default()
    }
}

/// The handler's settings.
pub(super) fn apply_to_handler(config: &AgentConfig, handler: &mut HandlerSettings) {
    handler.release = config.capture.release;
    handler.strategy = config.capture.strategy;
    handler.policy = config.policy.clone();
    handler.set_limits(&config.limits);
    if let Some(floor) = config.limits.disk_floor {
        handler.floor = floor.0;
    }
}

/// The shipper's settings.
pub(super) fn shipper_options(config: &AgentConfig) -> ShipperOptions {
    ShipperOptions {
        setuid: config.policy.setuid.into(),
        // The validation of the whole configuration has checked it.
        plan: config.shipping.plan().unwrap_or_default(),
        bandwidth: config.shipping.bandwidth.0,
        parallel: config.shipping.parallel,
        ..ShipperOptions::default()
    }
}
