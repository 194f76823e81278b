//! `cdh agent doctor`: diagnoses why cores are not captured or shipped on this node, and how to fix it.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use cdh_agent::node::doctor::{Examined, Finding, State, examine, examine_store};

use super::config::{Flags, gather, paths};
use super::install::given_flags;
use crate::args::DoctorArgs;
use crate::pipeline;
use crate::render::{self, terminal_line};
use crate::report::ExitStatus;
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &DoctorArgs) -> Result<ExitStatus> {
    let config = gather(settings, Flags::default().paths(&args.paths))?.config;
    let mut findings = examine(&Examined {
        manages: config.node.manage,
        in_pod: super::is_in_pod(),
        program: &super::program_name(),
        flags: &given_flags(settings, None, &args.paths),
        ..Examined::host(&paths(&config), Path::new("/"))
    });
    if !args.no_store {
        findings.push(match pipeline::open_node_store(settings) {
            Ok(store) => examine_store(store.as_ref()),
            Err(error) => Finding {
                check: "store",
                state: State::Problem,
                what: format!("{}: {}", settings.store, explain(&error)),
                way: Some(
                    error
                        .hint()
                        .unwrap_or("check `--store`, CDH_STORE and the network".into())
                        .into_owned(),
                ),
            },
        });
    }
    let text = match args.json {
        true => render::json_text(&findings)?,
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
