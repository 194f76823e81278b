//! `cdh complete <shell> …`: the scripts of `cdh completions` run this when the user presses TAB.
//!
//! The first line says what the shell adds: `none`, `nospace` (no space after the value), `files`, `dirs` or
//! `commands`. Each further line is a value and, after a tab, its description. Values that a shell would have to
//! quote are left out: names in a store are untrusted, and a completed line is executed.

mod line;
mod values;
mod walk;

use anyhow::Result;
use clap::CommandFactory;

use crate::args::{Cli, CompleteArgs, CompleteShell};
use crate::render::terminal_line;
use crate::report::ExitStatus;
use line::BashLine;
use values::Values;
use walk::Position;

/// Longest description, in characters.
const DESCRIPTION: usize = 60;

/// What can follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    value: String,
    description: String,
}

impl Candidate {
    fn new(value: impl Into<String>, description: impl AsRef<str>) -> Self {
        let description = terminal_line(description.as_ref());
        let first = description.split('\n').next().unwrap_or_default();
        Self {
            value: value.into(),
            description: first.chars().take(DESCRIPTION).collect(),
        }
    }

    /// Whether it contains no character that is special to any shell.
    fn is_plain(&self) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
        !self.value.is_empty() && self.value.chars().all(plain)
    }
}

/// What the shell adds to the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addition {
    None,
    Files,
    Directories,
    Commands,
}

pub(super) fn run(args: &CompleteArgs) -> Result<ExitStatus> {
    let bash = match args.shell {
        CompleteShell::Bash => BashLine::parse(&args.words),
        CompleteShell::Zsh | CompleteShell::Fish => None,
    };
    let (words, current) = match &bash {
        Some(line) => (line.words.clone(), line.current.clone()),
        None => {
            let mut words = args.words.clone();
            let current = words.pop().unwrap_or_default();
            (words, current)
        }
    };
    let mut command = Cli::command();
    command.build();
    let position = Position::find(&command, &words, &current);
    let (mut candidates, mut addition) = position.candidates(&Values::new(&position));
    candidates.retain(|found| found.value.starts_with(&current) && found.is_plain());
    if !candidates.is_empty() && addition != Addition::Commands {
        // Offers files only if nothing else can be meant: after `./`, or if no dump is known.
        addition = Addition::None;
    }
    super::print(&text(&candidates, addition, bash.as_ref()))?;
    Ok(ExitStatus::Done)
}

fn text(candidates: &[Candidate], addition: Addition, bash: Option<&BashLine>) -> String {
    let mut values = candidates.iter().map(|found| &found.value);
    let is_open = !candidates.is_empty() && values.all(|value| value.ends_with([':', '=']));
    let mut text = match addition {
        _ if is_open => "nospace\n",
        Addition::None => "none\n",
        Addition::Files => "files\n",
        Addition::Directories => "dirs\n",
        Addition::Commands => "commands\n",
    }
    .to_owned();
    for found in candidates {
        let line = match bash {
            Some(line) => line.shown(found, candidates.len()),
            None => format!("{}\t{}", found.value, found.description),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_shell_would_interpret_are_not_offered() {
        for value in ["a b", "$(id)", "a;b", "a'b", "a\nb", "`x`", "~x", "a*", ""] {
            assert!(!Candidate::new(value, "").is_plain(), "{value}");
        }
        assert!(Candidate::new("namespace:shop-1.2", "").is_plain());
        let described = Candidate::new("a", "one\x1b[2J\ttwo\nthree");
        assert!(
            !described.description.contains(['\x1b', '\n', '\t']),
            "{described:?}"
        );
    }
}
