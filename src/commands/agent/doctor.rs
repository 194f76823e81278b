//! `cdh agent doctor`: diagnoses why cores are not captured or shipped on this node, and how to fix it.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use cdh_agent::AgentPaths;
use cdh_agent::node::doctor::{Examined, Finding, State, examine, examine_store};

use super::config::{Flags, gather, paths};
use super::given::Given;
use crate::args::DoctorArgs;
use crate::pipeline;
use crate::render::{shell_word, terminal_line};
use crate::report::ExitStatus;
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &DoctorArgs) -> Result<ExitStatus> {
    let effective = gather(settings, Flags::default().paths(&args.paths))?;
    let config = &effective.config;
    let paths = paths(config);
    let given = Given::of(settings, &effective, None);
    let mut findings = examine(&Examined {
        manages: config.node.manage,
        in_pod: super::is_in_pod(),
        program: &given.program(&super::program_name()),
        flags: &given.flags(),
        ..Examined::host(&paths, Path::new("/"))
    });
    if !args.no_store {
        findings.extend(store(settings, &paths)?);
    }
    let text = match args.json {
        true => format!("{}\n", serde_json::to_string_pretty(&findings)?),
        false => text(&findings),
    };
    super::super::print(&text)?;
    Ok(
        match findings
            .iter()
            .any(|finding| finding.state == State::Problem)
        {
            true => ExitStatus::Failure,
            false => ExitStatus::Done,
        },
    )
}

/// Tests the store that the settings name. If they name none, that of the running agent is the one in question.
fn store(settings: &Settings, paths: &AgentPaths) -> Result<Vec<Finding>> {
    let running = super::running_store(&cdh_agent::status(paths)?);
    let other = running.filter(|running| *running != settings.store_name());
    let (tested, origin) = match &other {
        Some(running) if settings.store_is_default => (
            &settings.with_store(running)?,
            "used by the running agent".to_owned(),
        ),
        _ => (settings, format!("from {}", settings.store_origin)),
    };
    let mut finding = match pipeline::open_node_store(tested) {
        Ok(store) => examine_store(store.as_ref()),
        Err(error) => Finding {
            check: "store",
            state: State::Problem,
            what: format!("{}: {}", tested.store, explain(&error)),
            way: Some(
                error
                    .hint()
                    .unwrap_or("check `--store`, CDH_STORE and the network".into())
                    .into_owned(),
            ),
        },
    };
    finding.what = format!("{} ({origin})", finding.what);
    let mut findings = vec![finding];
    if let Some(running) = other.filter(|_| !settings.store_is_default) {
        findings.push(Finding {
            check: "store of the agent",
            state: State::Warning,
            what: format!("the running agent uses another store, which was not tested: {running}"),
            way: Some(format!(
                "test it with `cdh agent doctor --store {}`, or restart the agent with the options meant for it",
                shell_word(&running)
            )),
        });
    }
    Ok(findings)
}

/// The error with its causes, on one line.
pub(super) fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let word = match finding.state {
            State::Good => "ok     ",
            State::Warning => "warning",
            State::Problem => "PROBLEM",
        };
        let _ = writeln!(
            text,
            "{word}  {}: {}",
            finding.check,
            terminal_line(&finding.what)
        );
        if let Some(way) = &finding.way {
            let _ = writeln!(text, "         fix: {}", terminal_line(way));
        }
    }
    let count = |state| {
        findings
            .iter()
            .filter(|finding| finding.state == state)
            .count()
    };
    let counted = |count: usize, word: &str| match count {
        1 => format!("1 {word}"),
        count => format!("{count} {word}s"),
    };
    let _ = writeln!(
        text,
        "{}, {}",
        counted(count(State::Problem), "problem"),
        counted(count(State::Warning), "warning")
    );
    text
}
