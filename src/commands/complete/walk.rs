//! Finds the position of the cursor in the command line, using the declarations of the command
//! line.

use std::collections::BTreeMap;

use clap::builder::ValueHint;
use clap::{Arg, Command};

use super::values::Values;
use super::{Addition, Candidate};

/// The position of the current word.
pub(super) struct Position<'c> {
    command: &'c Command,
    /// The argument whose value the word is.
    argument: Option<&'c Arg>,
    /// The part of the word before the value: `--store=`.
    before: String,
    /// Whether options may follow.
    takes_options: bool,
    /// Whether no positional argument precedes it.
    is_first: bool,
    current: String,
    /// Values of preceding options, by the argument's name.
    pub(super) given: BTreeMap<String, String>,
}

impl<'c> Position<'c> {
    /// Interprets the words before the current one.
    pub(super) fn find(root: &'c Command, words: &[String], current: &str) -> Self {
        let mut found = Self {
            command: root,
            argument: None,
            before: String::new(),
            takes_options: true,
            is_first: true,
            current: current.to_owned(),
            given: BTreeMap::new(),
        };
        let mut positional = 0;
        let mut pending: Option<&Arg> = None;
        for word in words {
            if let Some(argument) = pending.take() {
                found
                    .given
                    .insert(argument.get_id().to_string(), word.clone());
            } else if found.takes_options && word == "--" {
                found.takes_options = false;
            } else if found.takes_options && word.starts_with('-') && word.len() > 1 {
                pending = found.option(word);
            } else if let Some(command) = found.subcommand(word).filter(|_| positional == 0) {
                found.command = command;
            } else {
                positional += 1;
            }
        }
        found.is_first = positional == 0;
        found.argument = match pending {
            Some(argument) => Some(argument),
            None => found.current_argument(positional),
        };
        found
    }

    fn subcommand(&self, word: &str) -> Option<&'c Command> {
        self.command.find_subcommand(word)
    }

    /// The option that still needs its value after this word.
    fn option(&mut self, word: &str) -> Option<&'c Arg> {
        if let Some(long) = word.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            let argument = self.long(name).filter(|argument| takes_value(argument))?;
            let Some(value) = value else {
                return Some(argument);
            };
            self.given
                .insert(argument.get_id().to_string(), value.to_owned());
            return None;
        }
        let mut letters = word.strip_prefix('-').unwrap_or(word).chars();
        while let Some(letter) = letters.next() {
            let argument = self.short(letter)?;
            if takes_value(argument) {
                let value = letters.as_str();
                if value.is_empty() {
                    return Some(argument);
                }
                self.given
                    .insert(argument.get_id().to_string(), value.to_owned());
                return None;
            }
        }
        None
    }

    fn long(&self, name: &str) -> Option<&'c Arg> {
        self.command.get_arguments().find(|argument| {
            argument.get_long() == Some(name)
                || argument
                    .get_all_aliases()
                    .is_some_and(|aliases| aliases.contains(&name))
        })
    }

    fn short(&self, letter: char) -> Option<&'c Arg> {
        let mut arguments = self.command.get_arguments();
        arguments.find(|argument| argument.get_short() == Some(letter))
    }

    /// The positional argument whose value the current word is, if no option expects one.
    fn current_argument(&mut self, positional: usize) -> Option<&'c Arg> {
        if self.takes_options && self.current.starts_with('-') {
            let (name, _) = self.current.split_once('=')?;
            let argument = self.long(name.strip_prefix("--")?)?;
            self.before = format!("{name}=");
            return Some(argument);
        }
        let all: Vec<&Arg> = self.command.get_positionals().collect();
        let last_takes_many = all.last().filter(|last| {
            last.get_num_args()
                .is_some_and(|count| count.max_values() > 1)
                || matches!(last.get_action(), clap::ArgAction::Append)
        });
        all.get(positional).or(last_takes_many).copied()
    }

    /// The possible values at this position, and what the shell adds.
    pub(super) fn candidates(&self, values: &Values) -> (Vec<Candidate>, Addition) {
        let mut found = Vec::new();
        let is_option = self.takes_options && self.current.starts_with('-');
        if is_option && self.argument.is_none() {
            return (self.options(), Addition::None);
        }
        let is_value = !self.before.is_empty()
            || self
                .argument
                .is_some_and(|argument| !argument.is_positional());
        if !is_value && self.is_first {
            let commands = self.command.get_subcommands();
            found.extend(
                commands
                    .filter(|command| !command.is_hide_set())
                    .map(described),
            );
        }
        let Some(argument) = self.argument else {
            return (found, Addition::None);
        };
        let start = self.current.get(self.before.len()..).unwrap_or_default();
        let own = values.of(argument.get_id().as_str(), start);
        let possible = argument.get_possible_values().into_iter();
        let possible = possible.filter(|value| !value.is_hide_set()).map(|value| {
            let help = value.get_help().map(ToString::to_string);
            Candidate::new(value.get_name(), help.unwrap_or_default())
        });
        let own = own.unwrap_or_default().into_iter().chain(possible);
        found.extend(own.map(|mut candidate| {
            candidate.value.insert_str(0, &self.before);
            candidate
        }));
        let addition = match argument.get_value_hint() {
            ValueHint::FilePath | ValueHint::AnyPath => Addition::Files,
            ValueHint::DirPath => Addition::Directories,
            ValueHint::CommandName => Addition::Commands,
            // A store is a name or a directory.
            _ if argument.get_id() == "store" => Addition::Directories,
            _ => Addition::None,
        };
        (found, addition)
    }

    fn options(&self) -> Vec<Candidate> {
        let arguments = self.command.get_arguments();
        let shown = arguments.filter(|argument| !argument.is_hide_set());
        shown
            .filter_map(|argument| {
                let help = argument
                    .get_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let name = match (argument.get_long(), argument.get_short()) {
                    (Some(long), _) => format!("--{long}"),
                    (None, Some(short)) => format!("-{short}"),
                    (None, None) => return None,
                };
                Some(Candidate::new(name, help))
            })
            .collect()
    }
}

fn takes_value(argument: &Arg) -> bool {
    argument.get_action().takes_values()
}

fn described(command: &Command) -> Candidate {
    let about = command.get_about().map(ToString::to_string);
    Candidate::new(command.get_name(), about.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::args::Cli;

    fn found(line: &str) -> (Vec<String>, Addition) {
        let mut command = Cli::command();
        command.build();
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let current = words.pop().unwrap();
        let position = Position::find(&command, &words, &current);
        let (candidates, addition) = position.candidates(&Values::empty());
        let names = candidates.into_iter().map(|candidate| candidate.value);
        (
            names.filter(|name| name.starts_with(&current)).collect(),
            addition,
        )
    }

    #[test]
    fn commands_options_and_values_follow_the_declarations() {
        let (commands, _) = found("");
        assert!(commands.contains(&"groups".to_owned()) && commands.contains(&"import".to_owned()));
        for hidden in ["man", "complete", "help"] {
            assert!(!commands.contains(&hidden.to_owned()), "{hidden}");
        }
        let (options, _) = found("ls --so");
        assert_eq!(options, ["--sort"]);
        assert_eq!(found("ls --sort s").0, ["size", "signal"]);
        assert_eq!(found("ls --sort=s").0, ["--sort=size", "--sort=signal"]);
        assert_eq!(found("ls -o j").0, ["json", "jsonl"]);
        assert_eq!(found("--color al").0, ["always"]);
        assert_eq!(found("cache ").0, ["ls", "clear"]);
        assert!(found("cache ls --").0.contains(&"--output".to_owned()));
        assert_eq!(found("fetch x -d ").1, Addition::Directories);
        assert_eq!(found("import ").1, Addition::Files);
        assert_eq!(found("debug x --debugger ").1, Addition::Commands);
        assert_eq!(found("--store ").1, Addition::Directories);
        assert!(found("info x -- --").0.is_empty());
        let agent = found("agent ").0;
        assert!(agent.contains(&"install".to_owned()), "{agent:?}");
    }

    #[test]
    fn options_that_were_given_are_known() {
        let mut command = Cli::command();
        command.build();
        let words = ["--store=/a", "ls", "--config", "/b", "-nshop"].map(str::to_owned);
        let position = Position::find(&command, &words, "");
        assert_eq!(position.given["store"], "/a");
        assert_eq!(position.given["config"], "/b");
        assert_eq!(position.given["namespace_or_count"], "shop");
    }
}
