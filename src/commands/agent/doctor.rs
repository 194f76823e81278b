//! `cdh agent doctor`: what keeps cores from being captured or shipped on this node, and the way around.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use cdh_agent::node::doctor::{Finding, State, examine, examine_store};

use super::config::{Flags, gather, paths};
use crate::args::DoctorArgs;
use crate::pipeline;
use crate::render::terminal_line;
use crate::report::ExitStatus;
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &DoctorArgs) -> Result<ExitStatus> {
    let config = gather(settings, Flags::default().paths(&args.paths))?.config;
    let mut findings = examine(&paths(&config), Path::new("/"));
    if !args.no_store {
        findings.push(match pipeline::open_node_store(settings) {
            Ok(store) => examine_store(store.as_ref()),
            Err(error) => Finding {
                check: "store",
                state: State::Problem,
                what: format!("{}: {error}", settings.store),
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
            let _ = writeln!(text, "         {}", terminal_line(way));
        }
    }
    let count = |state| {
        findings
            .iter()
            .filter(|finding| finding.state == state)
            .count()
    };
    let _ = writeln!(
        text,
        "{} problems, {} warnings",
        count(State::Problem),
        count(State::Warning)
    );
    text
}
