//! What `--help` and the man pages say about a command beside its options: notes and examples.

/// The texts of one command.
#[derive(Debug)]
pub struct Manual {
    /// Its words, without `cdh`; empty for `cdh` itself.
    pub command: &'static str,
    /// Paragraphs below the options, separated by empty lines; may be empty.
    pub notes: &'static str,
    /// Command lines, and what each of them does.
    pub examples: &'static [(&'static str, &'static str)],
}

/// The texts of a command; none if it is hidden.
#[must_use]
pub fn of(command: &str) -> Option<&'static Manual> {
    PAGES.iter().find(|page| page.command == command)
}

/// The end of `--help`: examples, then notes.
pub(super) fn after_help(command: &str) -> String {
    let Some(page) = of(command) else {
        return String::new();
    };
    let widest = page.examples.iter().map(|(line, _)| line.chars().count());
    let width = widest.max().unwrap_or(0);
    let lines = page
        .examples
        .iter()
        .map(|(line, does)| format!("  {line:width$}  # {does}"));
    let mut text = format!("Examples:\n{}", lines.collect::<Vec<_>>().join("\n"));
    if !page.notes.is_empty() {
        text.push_str("\n\n");
        text.push_str(page.notes);
    }
    text
}

const PAGES: &[Manual] = &[
    Manual {
        command: "",
        notes: "A <DUMP> is an id or any unique prefix of one, `latest`, or `@N` (the N-th before the latest). \
                It can also be the path of a bundle or of a core, or a match: a process id, a program (name or \
                path), a unit, a command line, or terms such as `pid:4242`. A match selects its newest dump.\n\n\
                Exit status: 0 done, 1 nothing found, 2 usage or failure, 3 store unreachable (a retry may \
                help), 4 evidence does not match, 130 interrupted. `cdh debug` exits with the debugger's status.",
        examples: &[
            ("cdh ls since:2d", "list the dumps of the last two days"),
            ("cdh bt latest", "print the newest backtrace"),
            ("cdh debug 6e22", "start gdb on a dump"),
            ("cdh bt ./core", "print the backtrace of a file"),
        ],
    },
    Manual {
        command: "tui",
        notes: "",
        examples: &[
            ("cdh", "browse the default store"),
            (
                "cdh tui --filter 'signal:SEGV since:2d'",
                "show some dumps only",
            ),
        ],
    },
    Manual {
        command: "ls",
        notes: "",
        examples: &[
            (
                "cdh ls namespace:payments signal:SEGV since:2d",
                "combine terms",
            ),
            ("cdh ls --group", "print one line for each crash"),
            ("cdh ls -o id --truncated", "print ids, for a script"),
        ],
    },
    Manual {
        command: "info",
        notes: "",
        examples: &[
            ("cdh info latest", "show the newest dump"),
            ("cdh info 6e22 -o json", "print the same for a script"),
        ],
    },
    Manual {
        command: "fetch",
        notes: "A case directory holds the unpacked core, the manifest and the logs of one dump.",
        examples: &[
            ("cdh fetch latest", "unpack the newest dump into the cache"),
            ("cdh fetch 6e22 -d ./case", "unpack a dump into ./case"),
        ],
    },
    Manual {
        command: "why",
        notes: "The sentence says only what the core proves. Up to five facts follow it, each with an address, a \
                register, an instruction or a source line where it can be checked. If the core does not show the \
                cause, the sentence only explains the signal.",
        examples: &[("cdh why latest", "explain the newest crash")],
    },
    Manual {
        command: "bt",
        notes: "",
        examples: &[
            ("cdh bt latest", "print the crashed thread"),
            (
                "cdh bt 6e22 --all-threads --group",
                "merge threads with equal stacks",
            ),
            (
                "cdh bt ./core --exe ./app --locals",
                "open a file, print variables",
            ),
            ("cdh bt latest -o json", "print JSON, for a script"),
        ],
    },
    Manual {
        command: "groups",
        notes: "FIRST is when the store first received the crash, whatever the terms select. NEW marks crashes \
                that it first received within the last 24 hours, or since `--new-since`. A crash without a \
                fingerprint is never new.\n\n\
                With the fingerprint of one crash, the output lists each image and workload with its first and \
                last dump. This shows in which version the crash started.",
        examples: &[
            (
                "cdh groups --new-since 1d",
                "list crashes that started today",
            ),
            (
                "cdh groups namespace:payments",
                "list the crashes of a namespace",
            ),
            (
                "cdh groups --fingerprint 8c583e2b",
                "show the images of one crash",
            ),
        ],
    },
    Manual {
        command: "drops",
        notes: "Policy, limits or a full spool can prevent a dump.",
        examples: &[("cdh drops --since 1d", "list what was dropped today")],
    },
    Manual {
        command: "diff",
        notes: "",
        examples: &[("cdh diff latest @1", "compare the two newest dumps")],
    },
    Manual {
        command: "debug",
        notes: "",
        examples: &[
            ("cdh debug latest", "start gdb on the newest dump"),
            ("cdh debug 6e22 --debugger lldb", "start LLDB"),
            ("cdh debug 6e22 -- -batch -ex bt", "pass arguments to gdb"),
        ],
    },
    Manual {
        command: "dump",
        notes: "",
        examples: &[
            ("cdh dump latest -o core", "write the core to ./core"),
            ("cdh dump 6e22 | zstd > core.zst", "compress the core"),
        ],
    },
    Manual {
        command: "sysroot",
        notes: "The directory holds the program and the libraries that the core maps, each verified by its \
                build-id.",
        examples: &[("cdh sysroot latest", "fetch the files, print the directory")],
    },
    Manual {
        command: "cache",
        notes: "",
        examples: &[
            ("cdh cache ls", "list what is cached"),
            ("cdh cache clear", "delete what no other run uses"),
        ],
    },
    Manual {
        command: "cache ls",
        notes: "",
        examples: &[("cdh cache ls", "list what is cached, with sizes")],
    },
    Manual {
        command: "cache clear",
        notes: "",
        examples: &[("cdh cache clear --cases", "delete unpacked dumps only")],
    },
    Manual {
        command: "import",
        notes: "",
        examples: &[
            ("cdh import ./core", "store one core"),
            (
                "cdh import /var/lib/systemd/coredump",
                "store systemd's cores",
            ),
            (
                "cdh import core --namespace shop --pod api-0",
                "record where it ran",
            ),
        ],
    },
    Manual {
        command: "rm",
        notes: "",
        examples: &[
            ("cdh rm 6e22 --dry-run", "show what would be deleted"),
            ("cdh rm 6e22", "delete a dump, after a question"),
        ],
    },
    Manual {
        command: "gc",
        notes: "",
        examples: &[
            (
                "cdh gc --older-than 30d --dry-run",
                "show what would be deleted",
            ),
            (
                "cdh gc --keep-per-fingerprint 5 --yes",
                "keep 5 dumps of each crash",
            ),
            (
                "cdh gc --modules-older-than 7d",
                "delete unused modules only",
            ),
        ],
    },
    Manual {
        command: "share",
        notes: "",
        examples: &[(
            "cdh share 6e22 --expires 2h",
            "print a URL that works for two hours",
        )],
    },
    Manual {
        command: "completions",
        notes: "",
        examples: &[
            (
                "cdh completions bash > ~/.local/share/bash-completion/completions/cdh",
                "bash",
            ),
            (
                "cdh completions fish > ~/.config/fish/completions/cdh.fish",
                "fish",
            ),
        ],
    },
    Manual {
        command: "agent",
        notes: "",
        examples: &[
            ("cdh agent install", "capture the cores of this node"),
            ("cdh agent run", "ship dumps until stopped"),
            ("cdh agent doctor", "find out why cores are missing"),
        ],
    },
    Manual {
        command: "agent install",
        notes: "",
        examples: &[
            ("cdh agent install", "set core_pattern, save the old value"),
            (
                "cdh agent install --chain",
                "also pass cores to the previous handler",
            ),
        ],
    },
    Manual {
        command: "agent run",
        notes: "",
        examples: &[
            ("cdh agent run --store s3://dumps/prod", "ship to a bucket"),
            (
                "cdh agent run --manage-node --metrics 127.0.0.1:9464",
                "install, ship, serve metrics",
            ),
        ],
    },
    Manual {
        command: "agent sweep",
        notes: "",
        examples: &[
            ("cdh agent sweep", "ship everything that waits"),
            (
                "cdh agent sweep 6e22cd7b-1f0e-4d53-9d0c-1a2b3c4d5e6f",
                "ship one dump",
            ),
        ],
    },
    Manual {
        command: "agent status",
        notes: "",
        examples: &[("cdh agent status", "show settings, spool and store")],
    },
    Manual {
        command: "agent doctor",
        notes: "",
        examples: &[
            ("cdh agent doctor", "check everything, also the store"),
            ("cdh agent doctor --no-store", "check the node only"),
        ],
    },
    Manual {
        command: "agent check-config",
        notes: "",
        examples: &[
            (
                "cdh agent check-config",
                "check the agent's file and variables",
            ),
            (
                "cdh agent check-config --print ./agent.toml",
                "show every value and its origin",
            ),
        ],
    },
    Manual {
        command: "agent uninstall",
        notes: "Dumps in the spool and in a directory store are not deleted.",
        examples: &[
            ("cdh agent uninstall", "restore the kernel's settings"),
            (
                "cdh agent uninstall --wait-for-agent 30",
                "wait for a running agent first",
            ),
        ],
    },
    Manual {
        command: "agent unit",
        notes: "The unit starts the agent with the options given here, the CDH_* variables that are set, and the \
                options of the present installation. Secrets are left out: put them into /etc/cdh/agent.env.",
        examples: &[(
            "cdh agent unit --store s3://dumps/prod > /etc/systemd/system/cdh-agent.service",
            "write the unit",
        )],
    },
];

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::args::Cli;

    fn commands(command: &clap::Command, words: &str, all: &mut Vec<String>) {
        all.push(words.to_owned());
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            commands(sub, format!("{words} {}", sub.get_name()).trim(), all);
        }
    }

    #[test]
    fn every_command_has_an_example_and_ends_its_help_with_it() {
        let mut all = Vec::new();
        commands(&Cli::command(), "", &mut all);
        for words in &all {
            let page = of(words).unwrap_or_else(|| panic!("`cdh {words}` has no page"));
            assert!(!page.examples.is_empty(), "{words}");
            let line = format!("cdh {words} --help");
            let help = Cli::try_parse_from(line.split_whitespace())
                .unwrap_err()
                .to_string();
            assert!(help.contains("\nExamples:\n  cdh"), "{words}: {help}");
        }
        assert_eq!(all.len(), PAGES.len(), "a page has no command");
    }

    #[test]
    fn every_help_starts_with_a_verb() {
        let verbs = [
            "Apply", "Browse", "Capture", "Check", "Delete", "Diagnose", "Download", "Explain",
            "Import", "Install", "List", "Print", "Restore", "Ship", "Show", "Start", "Write",
        ];
        let mut all = Vec::new();
        commands(&Cli::command(), "", &mut all);
        for words in &all {
            let line = format!("cdh {words} --help");
            let help = Cli::try_parse_from(line.split_whitespace())
                .unwrap_err()
                .to_string();
            let first = help.split_whitespace().next().unwrap_or_default();
            assert!(verbs.contains(&first), "`cdh {words}`: {first}");
        }
    }

    #[test]
    fn examples_parse() {
        for (line, _) in PAGES.iter().flat_map(|page| page.examples) {
            let alone = line.split(['|', '>']).next().unwrap_or_default();
            let words = shlex(alone);
            assert!(Cli::try_parse_from(&words).is_ok(), "{line}: {words:?}");
        }
    }

    /// Words, with single quotes around some of them.
    fn shlex(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut is_quoted = false;
        for c in line.trim().chars() {
            match c {
                '\'' => is_quoted = !is_quoted,
                ' ' if !is_quoted => words.push(String::new()),
                _ => words.last_mut().unwrap().push(c),
            }
        }
        words
    }
}
