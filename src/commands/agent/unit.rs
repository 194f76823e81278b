//! `cdh agent unit`: prints a systemd unit that runs this agent and installs the handler at its start.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::Result;

use super::config::{Flags, gather};
use super::given::Given;
use crate::args::UnitArgs;
use crate::report::ExitStatus;
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &UnitArgs) -> Result<ExitStatus> {
    let effective = gather(settings, Flags::of_agent(&args.agent))?;
    let given = Given::of(settings, &effective, args.agent.handler.as_deref());
    let program = std::env::current_exe()?;
    let mut words: Vec<String> = Vec::new();
    // The agent finds its own file without `--config`.
    if let Some((path, _)) = &settings.file
        && path != Path::new("/etc/cdh/agent.toml")
    {
        let path = std::path::absolute(path)?;
        words.extend(["--config".to_owned(), path.display().to_string()]);
    }
    words.extend(["agent", "run", "--manage-node"].map(str::to_owned));
    words.extend(given.words);
    super::super::print(&unit(&program, &words, &given.variables))?;
    for name in &given.secrets {
        eprintln!(
            "warning: {name} may hold a secret and is not in the unit: put it into /etc/cdh/agent.env"
        );
    }
    if settings.store_keys.is_some() {
        eprintln!(
            "warning: the store's keys are not in the unit: put them into /etc/cdh/agent.env"
        );
    }
    Ok(ExitStatus::Done)
}

fn unit(program: &Path, words: &[String], variables: &BTreeMap<String, String>) -> String {
    let mut command = quoted(&program.display().to_string());
    for word in words {
        let _ = write!(command, " {}", quoted(word));
    }
    let mut environment = String::new();
    for (name, text) in variables {
        let assigned = format!("{name}={text}").replace('%', "%%");
        let escaped = assigned.replace('\\', "\\\\").replace('"', "\\\"");
        let _ = writeln!(environment, "Environment=\"{escaped}\"");
    }
    format!(
        "[Unit]\n\
         Description=Core dump agent (cdh)\n\
         Documentation=man:cdh-agent(1) man:cdh-agent-run(1)\n\
         # systemd-sysctl may set core_pattern too: the agent has to come after it.\n\
         After=systemd-sysctl.service network-online.target\n\
         Wants=network-online.target\n\
         \n\
         [Service]\n\
         {environment}ExecStart={command}\n\
         # Credentials of the store, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; the file is optional.\n\
         EnvironmentFile=-/etc/cdh/agent.env\n\
         Restart=on-failure\n\
         RestartSec=5\n\
         # Captures in progress outlive a restart of the agent.\n\
         KillMode=process\n\
         TimeoutStopSec=90\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}

/// A word of `ExecStart=`: systemd expands `%` and `$`, and splits at spaces.
fn quoted(word: &str) -> String {
    let escaped = word.replace('%', "%%").replace('$', "$$");
    let is_plain =
        |letter: char| letter.is_ascii_alphanumeric() || "-_./:=@,+%$?&".contains(letter);
    match !escaped.is_empty() && escaped.chars().all(is_plain) {
        true => escaped,
        false => format!("\"{}\"", escaped.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_sets_variables_without_a_flag() {
        let variables = [("CDH_POLICY_DEFAULT", "a \"b\" 50%")];
        let variables = variables.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let text = unit(
            Path::new("/usr/bin/cdh"),
            &["agent".to_owned()],
            &variables.into(),
        );
        assert!(
            text.contains("\nEnvironment=\"CDH_POLICY_DEFAULT=a \\\"b\\\" 50%%\"\nExecStart=/usr/bin/cdh agent\n"),
            "{text}"
        );
    }

    #[test]
    fn unit_of_the_packages_is_the_one_that_is_printed() {
        let words = ["agent", "run", "--manage-node"].map(str::to_owned);
        let text = unit(Path::new("/usr/bin/cdh"), &words, &BTreeMap::new());
        let packaged = include_str!("../../../packaging/cdh-agent.service");
        assert_eq!(packaged, text);
    }

    #[test]
    fn words_are_quoted_as_systemd_reads_them() {
        for (word, expected) in [
            ("/usr/local/bin/cdh", "/usr/local/bin/cdh"),
            ("s3://b/p?region=eu&x=y", "s3://b/p?region=eu&x=y"),
            ("/srv/my dumps", "\"/srv/my dumps\""),
            ("100%", "100%%"),
            ("a$b", "a$$b"),
            ("a\"b\\c", "\"a\\\"b\\\\c\""),
            ("", "\"\""),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
