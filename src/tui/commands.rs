//! `:` commands: the table, and the parser for a line.

/// A command that can be typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the table says what each does
pub enum Verb {
    Backtrace,
    Delete,
    Diff,
    Dump,
    Dumps,
    Fetch,
    Filter,
    Gdb,
    Groups,
    Help,
    Quit,
    Refresh,
    Sort,
    Store,
    Stores,
    Tab,
    Transfers,
    /// Panics, for the test that the terminal survives a panic.
    Panic,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct CommandSpec {
    /// The command's name.
    pub name: &'static str,
    /// Its arguments.
    pub arguments: &'static str,
    /// Its help text.
    pub help: &'static str,
    /// What it does.
    pub verb: Verb,
}

const fn command(
    name: &'static str,
    arguments: &'static str,
    help: &'static str,
    verb: Verb,
) -> CommandSpec {
    CommandSpec {
        name,
        arguments,
        help,
        verb,
    }
}

/// All commands.
pub const COMMANDS: [CommandSpec; 17] = [
    command(
        "backtrace",
        "",
        "show the backtrace of the selected dump",
        Verb::Backtrace,
    ),
    command(
        "delete",
        "",
        "delete the selected or marked dumps, after a question",
        Verb::Delete,
    ),
    command("diff", "", "compare the two marked dumps", Verb::Diff),
    command(
        "dump",
        "ID",
        "open a dump by the start of its id",
        Verb::Dump,
    ),
    command("dumps", "", "show the list of dumps", Verb::Dumps),
    command(
        "fetch",
        "",
        "download the selected or marked dumps",
        Verb::Fetch,
    ),
    command(
        "filter",
        "TERMS",
        "show only matching dumps; without terms, all",
        Verb::Filter,
    ),
    command("gdb", "", "start gdb on the selected dump", Verb::Gdb),
    command("groups", "", "group the same crashes", Verb::Groups),
    command("help", "", "show the keys", Verb::Help),
    command("quit", "", "quit", Verb::Quit),
    command(
        "refresh",
        "[SECONDS]",
        "list the store again, or set how often that is done while idle; 0 turns it off",
        Verb::Refresh,
    ),
    command(
        "sort",
        "COLUMN",
        "dumps: time, workload, exe, signal, verdict, size, top; groups: count, last, first, …; twice reverses",
        Verb::Sort,
    ),
    command(
        "store",
        "STORE",
        "switch to a directory, s3://bucket/prefix, or a configured name",
        Verb::Store,
    ),
    command("stores", "", "choose a store", Verb::Stores),
    command(
        "tab",
        "NAME",
        "show a tab of the dump: backtrace, info, workload, logs, modules, …",
        Verb::Tab,
    ),
    command(
        "transfers",
        "",
        "show downloads and image pulls",
        Verb::Transfers,
    ),
];

/// Parses a line: the command, by its name or a prefix of it, and the rest of the line.
///
/// # Errors
/// An error text if there is no such command, or if the prefix is ambiguous.
pub fn parse(line: &str) -> Result<(Verb, &str), String> {
    let line = line.trim();
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    // Debug builds only: an end-to-end test forces a panic with it.
    if cfg!(debug_assertions) && name == "panic" {
        return Ok((Verb::Panic, rest));
    }
    let exact = COMMANDS.iter().find(|known| known.name == name);
    let known: Vec<&CommandSpec> = match exact {
        Some(known) => vec![known],
        None => COMMANDS
            .iter()
            .filter(|known| known.name.starts_with(name))
            .collect(),
    };
    match known.as_slice() {
        _ if name.is_empty() => Err("nothing was typed".to_owned()),
        [known] => Ok((known.verb, rest.trim())),
        // Hint for users who type `:q`.
        [] => Err(format!("there is no command `{name}`; `?` lists them")),
        several => {
            let names: Vec<&str> = several.iter().map(|known| known.name).collect();
            Err(format!("`{name}` may be {}", names.join(" or ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_parse_accepts_unique_prefixes() {
        assert_eq!(parse("q"), Ok((Verb::Quit, "")));
        assert_eq!(parse(" sort  size "), Ok((Verb::Sort, "size")));
        assert_eq!(parse("dump ab12"), Ok((Verb::Dump, "ab12")));
        assert!(parse("d").unwrap_err().contains("delete or diff"));
        assert!(parse("launch").unwrap_err().contains("no command"));
        assert!(parse("").is_err());
    }
}
