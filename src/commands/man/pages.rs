//! The sections of each page.

use anyhow::{Context, Result};
use clap::{Arg, Command};

use super::roff;
use crate::args::manual_of;

/// The settings of the agent and of the workstation, in tables.
const CONFIGURATION: &str = include_str!("../../../docs/configuration.md");

/// The date in the pages' footer: `mandoc` wants one, and the day of the build would change the committed pages.
const DATE: &str = "2026-11-29";

const CONFIG_FILE: (&str, &str) = (
    "$XDG_CONFIG_HOME/cdh/config.toml",
    "Configuration of a workstation; without the variable `~/.config/cdh/config.toml`.",
);
const AGENT_FILE: (&str, &str) = (
    "/etc/cdh/agent.toml",
    "Configuration of the agent, see `cdh-agent.toml`(5).",
);

const WORKSTATION_FILES: &[(&str, &str)] = &[
    CONFIG_FILE,
    (
        "$XDG_CACHE_HOME/cdh",
        "Unpacked dumps, cached files of images and listings of stores; without the variable `~/.cache/cdh`.",
    ),
    (
        "/var/lib/cdh/store",
        "The store of a node, used if no store is configured.",
    ),
];

const AGENT_FILES: &[(&str, &str)] = &[
    AGENT_FILE,
    (
        "/etc/cdh/agent.env",
        "Credentials for the agent, read by the systemd unit.",
    ),
    (
        "/usr/local/lib/cdh/cdh-handler",
        "The handler that the kernel starts for each crash.",
    ),
    ("/var/lib/cdh/spool", "Dumps that are not shipped yet."),
    (
        "/var/lib/cdh/backup.json",
        "The kernel's settings before the installation.",
    ),
    (
        "/var/lib/cdh/store",
        "The store, if no other is configured.",
    ),
];

const STORE_VARIABLES: &[(&str, &str)] = &[
    (
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE",
        "Credentials for an S3 store, as for other S3 clients.",
    ),
    (
        "HTTPS_PROXY, HTTP_PROXY, NO_PROXY",
        "Proxies for network connections.",
    ),
];

const MODULE_VARIABLES: &[(&str, &str)] = &[
    (
        "DEBUGINFOD_URLS",
        "Servers that provide debug information by build-id.",
    ),
    (
        "DOCKER_CONFIG, REGISTRY_AUTH_FILE",
        "Files with credentials for image registries.",
    ),
];

const STATUSES: [(&str, &str); 6] = [
    ("0", "The command is done."),
    ("1", "Nothing was found."),
    ("2", "Wrong usage, or a failure."),
    ("3", "The store is unreachable; a retry may help."),
    ("4", "A digest, a build-id or a checksum does not match."),
    ("130", "The user interrupted the command."),
];

/// The page of a command; `name` has its words, joined with hyphens.
pub(super) fn of_command(command: &Command, name: &str) -> Result<String> {
    let words = name.replace('-', " ");
    let words = words.strip_prefix("cdh").unwrap_or(&words).trim();
    // `check-config` is one word.
    let words = words.replace("check config", "check-config");
    let page = manual_of(&words).with_context(|| format!("`cdh {words}` has no manual"))?;
    let mut out = head(name, 1);
    let about = command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    let about = about.trim_end_matches('.');
    out.push_str(&roff::section("NAME"));
    out.push_str(&format!(
        "{} \\- {}\n",
        roff::text(name),
        roff::text(&lower_first(about))
    ));
    let man = clap_mangen::Man::new(command.clone().bin_name(format!("cdh {words}").trim()));
    let mut generated = Vec::new();
    man.render_synopsis_section(&mut generated)?;
    let description = command.get_long_about().or_else(|| command.get_about());
    let description = description.map(ToString::to_string).unwrap_or_default();
    let mut generated_options = Vec::new();
    man.render_options_section(&mut generated_options)?;
    if command.get_subcommands().any(|sub| !sub.is_hide_set()) {
        man.render_subcommands_section(&mut generated_options)?;
    }
    out.push_str(&without_preamble(&String::from_utf8(generated)?));
    out.push_str(&roff::section("DESCRIPTION"));
    out.push_str(&roff::paragraphs(&format!(
        "{}.",
        description.trim_end_matches('.')
    )));
    if !page.notes.is_empty() {
        out.push_str(".PP\n");
        out.push_str(&roff::paragraphs(page.notes));
    }
    out.push_str(&without_preamble(&String::from_utf8(generated_options)?));
    out.push_str(&roff::section("FILES"));
    let files = if words.starts_with("agent") {
        AGENT_FILES
    } else {
        WORKSTATION_FILES
    };
    out.push_str(&described(files));
    out.push_str(&roff::section("ENVIRONMENT"));
    out.push_str(&roff::terms(variables(command)));
    if words.starts_with("agent") {
        out.push_str(&described(&[(
            "CDH_*",
            "Every key of the configuration, see `cdh-agent.toml`(5).",
        )]));
    }
    out.push_str(&described(STORE_VARIABLES));
    if command
        .get_arguments()
        .any(|arg| arg.get_id() == "registry_ca")
    {
        out.push_str(&described(MODULE_VARIABLES));
    }
    out.push_str(&described(&[(
        "NO_COLOR",
        "Turns off colour, like `--color never`.",
    )]));
    out.push_str(&roff::section("EXIT STATUS"));
    out.push_str(&described(&STATUSES));
    if words == "debug" {
        out.push_str(".PP\nOnce the debugger runs, its status is passed on.\n");
    }
    out.push_str(&roff::section("EXAMPLES"));
    for (line, does) in page.examples {
        out.push_str(&example(line, does));
    }
    out.push_str(&see_also(name, command));
    Ok(roff::tidied(&out))
}

/// `cdh(7)`.
pub(super) fn concepts() -> String {
    let mut out = head("cdh", 7);
    out.push_str(include_str!("cdh.7"));
    roff::tidied(&out)
}

/// `cdh-agent.toml(5)`: every key in the tables of docs/configuration.md.
pub(super) fn configuration() -> Result<String> {
    let (_, agent) = CONFIGURATION
        .split_once("\n## The agent\n")
        .context("docs/configuration.md has no section `The agent`")?;
    let (agent, workstation) = agent
        .split_once("\n## The workstation\n")
        .context("docs/configuration.md has no section `The workstation`")?;
    let mut out = head("cdh-agent.toml", 5);
    out.push_str(&roff::section("NAME"));
    out.push_str("cdh\\-agent.toml \\- configuration of cdh\n");
    out.push_str(&roff::section("SYNOPSIS"));
    out.push_str(".I /etc/cdh/agent.toml\n.br\n.I $XDG_CONFIG_HOME/cdh/config.toml\n");
    out.push_str(&roff::section("DESCRIPTION"));
    out.push_str(&roff::paragraphs(
        "The agent reads the first file, all other commands read the second one. Both are TOML and may contain all \
         tables below. `--config` and CDH_CONFIG name another file.\n\n\
         Precedence, lowest to highest: defaults, file, variables of IBM's core-dump-handler, variables of cdh, \
         flags. An unknown key is an error.\n\n\
         The variable of the key `section.key` is `CDH_SECTION_KEY`. Commas separate the items of a list. \
         A size is a number with K, M, G or T (powers of 1024), a duration has s, m, h or d. Times of day are in \
         UTC.",
    ));
    out.push_str(&roff::section("\"KEYS OF THE AGENT\""));
    out.push_str(&keys(agent));
    out.push_str(&roff::section("\"KEYS OF A WORKSTATION\""));
    out.push_str(&keys(workstation));
    out.push_str(&roff::section("FILES"));
    out.push_str(&described(&[AGENT_FILE, CONFIG_FILE]));
    out.push_str(&roff::section("EXAMPLES"));
    out.push_str(
        ".nf\nstore = \"s3://dumps/prod?region=eu\\-central\\-1\"\n\n[policy]\ndefault = \"minicore\"\n\n\
         [limits]\nspool_quota = \"20G\"\n.fi\n",
    );
    out.push_str(&example(
        "cdh agent check-config --print",
        "print every effective value and its origin",
    ));
    out.push_str(&roff::section("\"SEE ALSO\""));
    out.push_str(".BR cdh\\-agent (1),\n.BR cdh\\-agent\\-check\\-config (1),\n.BR cdh (7)\n");
    Ok(roff::tidied(&out))
}

fn head(title: &str, section: u8) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let title = title.to_uppercase().replace('-', "\\-");
    format!(".TH {title} {section} {DATE} \"cdh {version}\" \"cdh manual\"\n")
}

/// The rows of the tables: keys with defaults and meanings.
fn keys(tables: &str) -> String {
    let rows = tables.lines().filter(|line| line.starts_with("| `"));
    let mut out = String::new();
    for row in rows {
        let mut cells = row.trim_matches('|').splitn(3, " | ").map(str::trim);
        let (key, default, meaning) = (cells.next(), cells.next(), cells.next());
        let key = key.unwrap_or_default().replace('`', "");
        let meaning = without_links(meaning.unwrap_or_default());
        let default = without_links(default.unwrap_or_default());
        let meaning = match default.is_empty() {
            true => meaning,
            false => format!("{meaning} [default: {default}]"),
        };
        out.push_str(&roff::terms([(key.as_str(), upper_first(&meaning))]));
    }
    out
}

/// `[text](target)` becomes its text.
fn without_links(markdown: &str) -> String {
    let mut out = String::new();
    let mut rest = markdown;
    while let Some((before, after)) = rest.split_once("](") {
        let (text, label) = before.rsplit_once('[').unwrap_or((before, ""));
        out.push_str(text);
        out.push_str(label);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    out + rest
}

/// The variables that options declare, with the options.
fn variables(command: &Command) -> Vec<(&str, String)> {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let declared = |arg: &Arg| {
        Some((
            arg.get_env()?.to_str()?.to_owned(),
            arg.get_long()?.to_owned(),
        ))
    };
    let mut found = Vec::new();
    for arg in shown {
        let Some((name, long)) = declared(arg) else {
            continue;
        };
        let name: &str = name.leak();
        found.push((
            name,
            format!("Value of `--{long}`; the option takes precedence."),
        ));
    }
    found
}

fn described(items: &[(&'static str, &str)]) -> String {
    roff::terms(
        items
            .iter()
            .map(|(term, meaning)| (*term, (*meaning).to_owned())),
    )
}

fn example(line: &str, does: &str) -> String {
    format!(
        ".TP\n{}:\n.B {}\n",
        roff::text(&upper_first(does)),
        roff::text(line)
    )
}

/// Parent, siblings below it, and the pages of other sections.
fn see_also(name: &str, command: &Command) -> String {
    let mut pages: Vec<String> = Vec::new();
    if let Some((parent, _)) = name
        .replace("check-config", "check_config")
        .rsplit_once('-')
    {
        pages.push(format!("{} (1)", parent.replace('-', "\\-")));
    }
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let page = format!("{name}-{}", sub.get_name());
        pages.push(format!("{} (1)", page.replace('-', "\\-")));
    }
    if name.starts_with("cdh-agent") {
        pages.push("cdh\\-agent.toml (5)".to_owned());
    }
    pages.push("cdh (7)".to_owned());
    let lines: Vec<_> = pages.iter().map(|page| format!(".BR {page}")).collect();
    format!("{}{}\n", roff::section("\"SEE ALSO\""), lines.join(",\n"))
}

/// Without the definitions at the start of every page of clap_mangen.
fn without_preamble(page: &str) -> String {
    let lines = page
        .lines()
        .filter(|line| !line.starts_with(".ie") && !line.starts_with(".el"));
    let page = lines.collect::<Vec<_>>().join("\n") + "\n";
    let quotes = page.replace("\\*(Aq", "\\(aq");
    // What is between backquotes is bold, as in the other sections.
    let parts = quotes.split('`').enumerate();
    let bold = parts.map(|(index, part)| match index % 2 {
        0 => part.to_owned(),
        _ => format!("\\fB{part}\\fR"),
    });
    bold.collect()
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_lowercase().to_string());
    first.unwrap_or_default() + chars.as_str()
}

fn upper_first(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string());
    first.unwrap_or_default() + chars.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_lists_every_key_of_the_page() {
        let page = configuration().unwrap();
        assert!(page.contains("limits.rate.fingerprint_full"), "{page}");
        assert!(page.contains("images.registries"), "{page}");
        let keys = CONFIGURATION
            .lines()
            .filter(|line| line.starts_with("| `"))
            .count();
        assert_eq!(
            page.matches(".TP\n").count(),
            keys + 3,
            "two files, one example"
        );
    }

    #[test]
    fn links_become_their_texts() {
        assert_eq!(without_links("see [a b](c.md#d), [e](f)"), "see a b, e");
    }

    #[test]
    fn every_page_has_all_sections() {
        use clap::CommandFactory;
        let mut command = crate::args::Cli::command();
        command.build();
        let bt = command.find_subcommand("bt").unwrap();
        for page in [
            of_command(&command, "cdh").unwrap(),
            of_command(bt, "cdh-bt").unwrap(),
        ] {
            let sections = [
                "NAME",
                "SYNOPSIS",
                "DESCRIPTION",
                "OPTIONS",
                "FILES",
                "ENVIRONMENT",
                "EXIT STATUS",
                "EXAMPLES",
                "\"SEE ALSO\"",
            ];
            for section in sections {
                assert!(
                    page.contains(&format!(".SH {section}\n")),
                    "{section}: {page}"
                );
            }
        }
    }
}
