//! `cdh agent status`: shows whether cores are captured on this node, whether the store works, and why
//! dumps wait.

use std::fmt::Write;

use anyhow::Result;
use cdh_agent::config::AgentConfig;
use cdh_agent::shipper::{WaitReason, WaitingDump};
use cdh_agent::{PatternOwner, ShipperRecord, Status};
use cdh_store::{DirectoryStore, StoreError, StoreUrl};
use jiff::Timestamp;

use super::config::{self, Flags, gather};
use super::documents::{
    BootReport, KernelSettings, RuntimeReport, SpoolCounts, SpoolState, StatusDocument,
    StoreHealth, StoreReport, WaitingReport,
};
use crate::args::{StatusArgs, TextFormat};
use crate::pipeline;
use crate::render::{self, age, bytes, terminal_line};
use crate::report::ExitStatus;
use crate::settings::Settings;

/// Maximum number of listed dumps; further ones are only counted.
const LISTED: usize = 20;

pub(super) fn run(settings: &Settings, args: &StatusArgs) -> Result<ExitStatus> {
    let config = gather(settings, Flags::default().paths(&args.paths))?.config;
    let paths = config::paths(&config);
    let status = cdh_agent::status(&paths)?;
    let stores = match args.no_store {
        true => Vec::new(),
        false => StoreState::all(settings, &status),
    };
    super::super::print(&match args.output.format() {
        TextFormat::Text => text(&config, &status, &stores),
        TextFormat::Json => render::json_text(&document(&config, &status, &stores))?,
    })?;
    Ok(match (exit(&stores), status.pattern) {
        (Some(exit), _) => exit,
        (None, PatternOwner::Ours) => ExitStatus::Done,
        (None, _) => ExitStatus::Nothing,
    })
}

/// The status of a store that fails, if any does.
fn exit(stores: &[StoreState]) -> Option<ExitStatus> {
    stores.iter().find_map(StoreState::exit)
}

/// What is known of the store.
#[derive(Clone, Debug)]
enum StoreState {
    /// Only root can see which store the agent uses.
    Unknown(String),
    Works {
        store: String,
        remark: String,
    },
    Fails {
        store: String,
        why: String,
        hint: Option<String>,
        unreachable: bool,
        next_try: Option<Timestamp>,
    },
}

impl StoreState {
    /// The store of the running agent, and the store of this command's settings if that is a different one.
    fn all(settings: &Settings, status: &Status) -> Vec<Self> {
        if settings.store_is_default && status.hidden.is_some() {
            let why = "only root can see which one the agent uses";
            return vec![Self::Unknown(why.to_owned())];
        }
        let named = settings.store_name();
        let running = super::running_store(status);
        match running.as_ref().and(status.record.as_ref()) {
            None => vec![Self::of_settings(settings, status)],
            Some(record) if record.store == named => vec![Self::of_both(settings, status, record)],
            Some(record) if settings.store_is_default => vec![Self::of_agent(record)],
            Some(record) => vec![
                Self::of_agent(record),
                Self::of_settings(settings, status).not_the_agents(),
            ],
        }
    }

    /// What the running agent reports of its store.
    fn of_agent(record: &ShipperRecord) -> Self {
        let store = format!(
            "{} (used by the running agent)",
            terminal_line(&record.store)
        );
        match &record.store_trouble {
            Some(trouble) => Self::Fails {
                store,
                why: format!(
                    "{} (the agent reports this since {})",
                    terminal_line(&trouble.why),
                    shown(trouble.since)
                ),
                hint: trouble.hint.clone(),
                unreachable: trouble.unreachable,
                next_try: trouble.next_try,
            },
            None => Self::Works {
                store,
                remark: match record.store_worked_at {
                    Some(_) => "works, as the running agent reports".to_owned(),
                    None => "not used yet".to_owned(),
                },
            },
        }
    }

    /// The agent uses the store in question: its own results count too, because it has its own credentials.
    fn of_both(settings: &Settings, status: &Status, record: &ShipperRecord) -> Self {
        let is_bucket = matches!(settings.store, StoreUrl::S3 { .. });
        let only_we_fail = || probe(settings).is_err_and(|error| is_about_us(&error));
        match record.store_trouble {
            Some(_) => Self::of_agent(record),
            None if is_bucket && record.store_worked_at.is_some() && only_we_fail() => {
                Self::of_agent(record)
            }
            None => Self::of_settings(settings, status),
        }
    }

    /// Checks the store that the settings of this command name.
    fn of_settings(settings: &Settings, status: &Status) -> Self {
        let named = terminal_line(&settings.store_name());
        let store = format!("{named} (from {})", terminal_line(&settings.store_origin));
        match probe(settings) {
            Ok(remark) => Self::Works {
                store,
                remark: remark.to_owned(),
            },
            Err(error) if status.hidden.is_some() && is_about_us(&error) => Self::Unknown(format!(
                "this user cannot use {named}: {}; the agent may be allowed to",
                terminal_line(&super::doctor::explain(&error))
            )),
            Err(error) => Self::Fails {
                store,
                why: terminal_line(&super::doctor::explain(&error)),
                hint: hint(&error),
                unreachable: matches!(error, StoreError::Unreachable { .. }),
                next_try: None,
            },
        }
    }

    /// Reports that the running agent does not use this store.
    fn not_the_agents(mut self) -> Self {
        if let Self::Works { store, .. } | Self::Fails { store, .. } = &mut self {
            store.push_str(" (not used by the running agent)");
        }
        self
    }

    fn report(&self) -> StoreReport {
        let (store, state, detail) = match self {
            Self::Unknown(why) => (None, StoreHealth::Unknown, why),
            Self::Works { store, remark } => (Some(store), StoreHealth::Works, remark),
            Self::Fails {
                store,
                why,
                unreachable,
                ..
            } => {
                let state = match unreachable {
                    true => StoreHealth::Unreachable,
                    false => StoreHealth::Fails,
                };
                (Some(store), state, why)
            }
        };
        let (hint, next_try) = match self {
            Self::Fails { hint, next_try, .. } => (hint.clone(), *next_try),
            _ => (None, None),
        };
        StoreReport {
            store: store.cloned(),
            state,
            detail: detail.clone(),
            hint,
            next_try,
        }
    }

    fn exit(&self) -> Option<ExitStatus> {
        match self {
            Self::Fails {
                unreachable: true, ..
            } => Some(ExitStatus::Unreachable),
            Self::Fails { .. } => Some(ExitStatus::Failure),
            _ => None,
        }
    }
}

/// Whether the failure may only concern this user: the agent has other credentials.
fn is_about_us(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Denied { .. }
            | StoreError::NoCredentials { .. }
            | StoreError::Credentials { .. }
    )
}

/// Checks the store of the settings without creating or writing anything.
fn probe(settings: &Settings) -> Result<&'static str, StoreError> {
    if let StoreUrl::Directory(path) = &settings.store
        && matches!(path.try_exists(), Ok(false))
    {
        DirectoryStore::can_create(path)?;
        return Ok("created with the first dump");
    }
    pipeline::open_existing_store(settings)?.check()?;
    Ok("works")
}

fn hint(error: &StoreError) -> Option<String> {
    match error {
        // Credentials that may only write cause this error.
        StoreError::Denied { said: Some(_), .. } => Some(format!(
            "{}; `cdh agent doctor` writes a test object, which shows whether dumps can be shipped nevertheless",
            error.hint().unwrap_or_default()
        )),
        StoreError::Denied { .. } | StoreError::Io { .. } => Some(
            "check the directory's owner and mount, or choose another store with `--store`"
                .to_owned(),
        ),
        _ => error.hint().map(Into::into),
    }
}

/// To the second.
fn shown(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn document(config: &AgentConfig, status: &Status, stores: &[StoreState]) -> StatusDocument {
    let settings = &status.settings;
    let running = status.shipper_running == Some(true);
    let record = status.record.as_ref().filter(|_| running);
    let runtimes = record.iter().flat_map(|record| &record.runtimes);
    let at_boot = status.at_boot.iter();
    let waiting = status.waiting.iter();
    StatusDocument {
        pattern: status.pattern,
        settings: KernelSettings {
            core_pattern: settings.core_pattern.to_string(),
            core_pipe_limit: settings.core_pipe_limit,
            suid_dumpable: settings.suid_dumpable,
        },
        handler: status.handler.display().to_string(),
        spool: SpoolState {
            path: status.spool.display().to_string(),
            quota: status.quota,
            count: status.count.map(|count| SpoolCounts {
                sealed: count.sealed,
                partial: count.partial,
                quarantined: count.quarantined,
                bytes: count.bytes,
            }),
        },
        shipper_running: status.shipper_running,
        stores: stores.iter().map(StoreState::report).collect(),
        runtimes: runtimes
            .map(|(socket, trouble)| RuntimeReport {
                socket: socket.display().to_string(),
                since: trouble.since,
                why: trouble.why.clone(),
            })
            .collect(),
        hidden: status
            .hidden
            .as_ref()
            .map(|path| path.display().to_string()),
        at_boot: at_boot
            .map(|setting| BootReport {
                file: setting.file.display().to_string(),
                name: setting.name.clone(),
                value: setting.value.clone(),
            })
            .collect(),
        problems: status.problems.clone(),
        dumps: waiting
            .map(|dump| WaitingReport {
                dump: dump.clone(),
                explanation: reason(dump, config, status, stores),
            })
            .collect(),
    }
}

fn line(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "{name:<16} {}", terminal_line(value));
}

fn text(config: &AgentConfig, status: &Status, stores: &[StoreState]) -> String {
    let owner = match status.pattern {
        PatternOwner::Ours => "installed",
        PatternOwner::OtherInstallation => "another installation of cdh captures the cores",
        PatternOwner::Foreign => "not installed",
    };
    let mut text = format!("{owner}\n");
    let settings = &status.settings;
    line(
        &mut text,
        "core_pattern",
        &settings.core_pattern.to_string(),
    );
    line(
        &mut text,
        "core_pipe_limit",
        &settings.core_pipe_limit.to_string(),
    );
    line(
        &mut text,
        "suid_dumpable",
        &settings.suid_dumpable.to_string(),
    );
    let spool = status.spool.display().to_string();
    let used = status.count.map(|count| bytes(count.bytes));
    let room = match (used, status.quota) {
        (Some(used), Some(quota)) => format!(" ({used} used of a quota of {})", bytes(quota)),
        (Some(used), None) => format!(" ({used} used, no quota)"),
        (None, _) => String::new(),
    };
    line(&mut text, "spool", &format!("{spool}{room}"));
    if let Some(count) = &status.count {
        let kept = status
            .waiting
            .iter()
            .filter(|dump| dump.why == WaitReason::Setuid)
            .count();
        let kept = match kept {
            0 => String::new(),
            kept => format!(" ({kept} of them kept here)"),
        };
        let (sealed, partial, quarantined) = (count.sealed, count.partial, count.quarantined);
        line(
            &mut text,
            "waiting",
            &format!("{sealed} sealed{kept}, {partial} partial, {quarantined} in quarantine"),
        );
    }
    let shipper = match status.shipper_running {
        Some(true) => Some("running"),
        Some(false) => {
            Some("not running: start `cdh agent run`, or ship by hand with `cdh agent sweep`")
        }
        None => None,
    };
    if let Some(shipper) = shipper {
        line(&mut text, "shipper", shipper);
    }
    for store in stores {
        store_lines(&mut text, store);
    }
    let running = status.shipper_running == Some(true);
    let record = status.record.as_ref().filter(|_| running);
    for (socket, trouble) in record.iter().flat_map(|record| &record.runtimes) {
        let named = match socket.as_os_str().is_empty() {
            true => String::new(),
            false => format!("{}: ", socket.display()),
        };
        let what = format!(
            "{named}DOES NOT ANSWER since {}: {}",
            shown(trouble.since),
            trouble.why
        );
        line(&mut text, "runtime", &what);
    }
    if let Some(hidden) = &status.hidden {
        let what = format!(
            "{}: waiting dumps, shipper and backup; run `cdh agent status` as root",
            hidden.display()
        );
        line(&mut text, "not visible", &what);
    }
    for setting in &status.at_boot {
        let file = setting.file.display();
        line(
            &mut text,
            "at boot",
            &format!("{file} sets {} to {}", setting.name, setting.value),
        );
    }
    for problem in &status.problems {
        line(&mut text, "problem", problem);
    }
    dumps(&mut text, config, status, stores);
    text
}

fn store_lines(text: &mut String, store: &StoreState) {
    match store {
        StoreState::Unknown(why) => line(text, "store", &format!("unknown: {why}")),
        StoreState::Works { store, remark } => line(text, "store", &format!("{store}: {remark}")),
        StoreState::Fails {
            store,
            why,
            hint,
            next_try,
            ..
        } => {
            line(text, "store", &format!("{store}: FAILS"));
            line(text, "", why);
            if let Some(at) = next_try {
                line(text, "", &format!("next try at {}", shown(*at)));
            }
            if let Some(hint) = hint {
                line(text, "", &format!("hint: {hint}"));
            }
        }
    }
}

fn dumps(text: &mut String, config: &AgentConfig, status: &Status, stores: &[StoreState]) {
    if status.waiting.is_empty() {
        return;
    }
    let _ = writeln!(text, "\ndumps in the spool:");
    let now = Timestamp::now();
    // Only the newest dumps are checked.
    for dump in status.waiting.iter().rev().take(LISTED) {
        let program = dump.program.as_deref().unwrap_or("-");
        let signal = dump.signal.as_deref().unwrap_or("-");
        let age = dump
            .captured_at
            .map_or_else(|| "-".to_owned(), |at| age(at, now));
        let size = bytes(dump.bytes);
        let row = format!("{}  {age}  {program}  {signal}  {size}", dump.id.short());
        let _ = writeln!(text, "  {}", terminal_line(&row));
        let _ = writeln!(
            text,
            "    {}",
            terminal_line(&reason(dump, config, status, stores))
        );
    }
    let more = status.waiting.len().saturating_sub(LISTED);
    if more > 0 {
        let _ = writeln!(text, "  … and {more} older ones");
    }
}

/// Why a dump is in the spool, and what happens next.
fn reason(
    dump: &WaitingDump,
    config: &AgentConfig,
    status: &Status,
    stores: &[StoreState],
) -> String {
    let id = dump.id.short();
    let retry = |at: Option<Timestamp>| match at {
        Some(at) => format!("; next try at {}", shown(at)),
        None => String::new(),
    };
    match &dump.why {
        WaitReason::BeingWritten => "its handler is still writing it".to_owned(),
        WaitReason::HandlerDied => {
            "its handler died: the agent seals and ships what there is".to_owned()
        }
        WaitReason::Setuid => format!(
            "kept on this node: it is of a setuid program (`policy.setuid = \"keep\"`). Look at it with \
             `cdh info {id}`, ship it with `CDH_POLICY_SETUID=ship cdh agent sweep {}`",
            dump.id
        ),
        WaitReason::Failed { why, next_try } => {
            format!("could not be shipped: {why}{}", retry(*next_try))
        }
        WaitReason::Quarantined { why } => format!(
            "in quarantine, {}: {why}",
            status
                .spool
                .join("quarantine")
                .join(dump.id.to_string())
                .display()
        ),
        WaitReason::Unshipped => unshipped(config, status, stores),
        _ => "waits".to_owned(),
    }
}

fn unshipped(config: &AgentConfig, status: &Status, stores: &[StoreState]) -> String {
    if status.shipper_running != Some(true) {
        return "waits: no agent runs here".to_owned();
    }
    let record = status.record.clone().unwrap_or_default();
    let trouble = record.store_trouble.as_ref();
    if trouble.is_some() || exit(stores).is_some() {
        let next = trouble.and_then(|trouble| trouble.next_try);
        let next = next.map_or_else(String::new, |at| format!("; next try at {}", shown(at)));
        return format!("waits: the store fails{next}");
    }
    let plan = config.shipping.plan();
    let own = plan.as_ref().map_or("events", |plan| plan.word());
    let plan = match record.plan.as_str() {
        "" => own,
        plan => plan,
    };
    match (plan, record.next_shipment) {
        ("off", _) => "waits: `shipping.mode` is off; `cdh agent sweep` ships it".to_owned(),
        (plan, Some(at)) if plan != "events" => {
            format!(
                "waits for the shipment at {} (`shipping.mode` is {plan})",
                shown(at)
            )
        }
        _ => "waits for its turn to be uploaded".to_owned(),
    }
}
