//! `cdh agent doctor`: diagnoses why cores are not captured or shipped on this node, and how to fix it.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use cdh_agent::AgentPaths;
use cdh_agent::diagnose::doctor::{
    Examined, Finding, State, examine, examine_events, examine_store,
};
use cdh_store::StoreUrl;

use super::config::{Flags, gather, paths};
use super::given::Given;
use super::running;
use crate::args::{DoctorArgs, TextFormat};
use crate::pipeline;
use crate::render::{self, shell_word, terminal_line};
use crate::report::ExitStatus;
use crate::settings::Settings;

/// Root of the node's first process. A privileged container in the node's pid namespace can read
/// it.
const OF_INIT: &str = "/proc/1/root";

/// The node's own file system, if this container can look into it.
fn node_root(of_init: &Path) -> Option<&Path> {
    use std::os::unix::fs::MetadataExt;
    let id = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino()));
    let theirs = id(of_init).ok()?;
    // Without `hostPID` the first process is our own.
    (of_init.join("etc").is_dir() && id(Path::new("/")).ok()? != theirs).then_some(of_init)
}

pub(super) fn run(settings: &Settings, args: &DoctorArgs) -> Result<ExitStatus> {
    let effective = gather(settings, Flags::default().paths(&args.paths))?;
    let config = &effective.config;
    let paths = paths(config);
    let given = Given::of(settings, &effective, None);
    let in_pod = super::is_in_pod();
    let root = Path::new("/");
    let mut findings = examine(&Examined {
        manages: config.node.manage,
        in_pod,
        node_root: match in_pod {
            true => node_root(Path::new(OF_INIT)),
            false => Some(root),
        },
        program: &given.program(&super::program_name()),
        flags: &given.flags(),
        ..Examined::host(&paths, root)
    });
    if config.notify.kubernetes_events {
        findings.push(examine_events(running::kubernetes_events().as_ref()));
    }
    if !args.no_store {
        findings.extend(store(settings, &paths)?);
    }
    let text = match args.output.format() {
        TextFormat::Json => render::json_text(&findings)?,
        TextFormat::Text => text(&findings),
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

/// Directories that a directory store would create, the innermost first.
fn missing_directories(store: &StoreUrl) -> Vec<&Path> {
    let StoreUrl::Directory(path) = store else {
        return Vec::new();
    };
    let missing = path.ancestors().take_while(|path| !path.exists());
    missing
        .filter(|path| !path.as_os_str().is_empty())
        .collect()
}

/// Tests the store that the settings name. Without such a store, tests the one that the running agent uses.
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
    let created = missing_directories(&tested.store);
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
    // A diagnosis must not create anything, such as the directory of a store that nothing was
    // shipped to.
    for directory in created {
        let _ = std::fs::remove_dir(directory);
    }
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
            State::Unknown => "unknown",
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
            let word = match finding.state {
                State::Unknown => "to see it",
                _ => "fix",
            };
            let _ = writeln!(text, "         {word}: {}", terminal_line(way));
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
