//! The words after the name of a task: `--name value`, and flags without a value. `--help` among them
//! is answered with the usage, whatever else is there.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};

/// The usage, if the user asked for it: it ends the task, and is not a failure.
#[derive(Debug)]
pub(crate) struct Help(String);

impl fmt::Display for Help {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Help {}

/// Whether the words ask how they are to be used. What follows `--` belongs to another program.
pub(crate) fn asks_for_help(words: &[String]) -> bool {
    let ours = words.iter().take_while(|word| *word != "--");
    ours.into_iter()
        .any(|word| word == "--help" || word == "-h")
}

/// Ends the task with its usage where the words ask for it.
pub(crate) fn offer_help(words: &[String], usage: &str) -> Result<()> {
    match asks_for_help(words) {
        true => Err(Help(usage.to_owned()).into()),
        false => Ok(()),
    }
}

/// Options as they were given.
#[derive(Debug)]
pub(crate) struct Options {
    given: Vec<(String, String)>,
}

impl Options {
    /// Reads the words. `named` are the options that have a value, `flags` those that have none.
    pub(crate) fn parse(
        words: &[String],
        named: &[&str],
        flags: &[&str],
        usage: &str,
    ) -> Result<Self> {
        offer_help(words, usage)?;
        let mut given = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = if flags.contains(&word.as_str()) {
                String::new()
            } else if named.contains(&word.as_str()) {
                let value = words.next();
                value
                    .with_context(|| format!("`{word}` needs a value\n{usage}"))?
                    .clone()
            } else {
                bail!("`{word}` is not known\n{usage}");
            };
            given.push((word.clone(), value));
        }
        Ok(Self { given })
    }

    /// All values of an option, in their order.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let named = self.given.iter().filter(|(known, _)| known == name);
        named.map(|(_, value)| value.clone()).collect()
    }

    /// The last value of an option.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let named = |(known, value): &'_ (String, String)| known == name && !value.is_empty();
        let found = self.given.iter().rev().find(|pair| named(pair));
        found.map(|(_, value)| value.as_str())
    }

    /// The last value of an option, or what is usual.
    pub(crate) fn or<T: FromStr>(&self, name: &str, usual: T) -> Result<T>
    where
        Error: From<T::Err>,
    {
        match self.text(name) {
            Some(value) => {
                let parsed = value.parse().map_err(Error::from);
                parsed.with_context(|| format!("`{value}` is not a value of `{name}`"))
            }
            None => Ok(usual),
        }
    }

    /// Whether a flag was given.
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.given.iter().any(|(known, _)| known == flag)
    }
}

/// Whether a row is one of those that were asked for, by parts of their names; none means all.
pub(crate) fn is_wanted(name: &str, only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|part| name.contains(part.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        Options::parse(&words, &["--runs", "--only"], &["--warm"], "usage")
    }

    #[test]
    fn options_have_values_and_flags_none() {
        let options = parse(&["--runs", "3", "--only", "a", "--warm", "--only", "b"]).unwrap();
        assert_eq!(options.or("--runs", 7).unwrap(), 3);
        assert_eq!(options.all("--only"), ["a", "b"]);
        assert_eq!(
            (options.has("--warm"), options.text("--runs")),
            (true, Some("3"))
        );
        assert_eq!(parse(&[]).unwrap().or("--runs", 7).unwrap(), 7);
        assert!(parse(&["--runs", "x"]).unwrap().or("--runs", 7).is_err());
    }

    #[test]
    fn unknown_options_and_missing_values_tell_the_usage() {
        for words in [&["--runs"][..], &["--cold"], &["3"]] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.contains("usage"), "{error}");
        }
    }

    #[test]
    fn who_asks_for_help_gets_the_usage_alone_and_no_failure() {
        for words in [
            &["--help"][..],
            &["--runs", "3", "-h"],
            &["--cold", "--help"],
        ] {
            let error = parse(words).unwrap_err();
            let help = error.downcast_ref::<Help>();
            assert_eq!(
                help.map(ToString::to_string).as_deref(),
                Some("usage"),
                "{error}"
            );
        }
        assert!(
            parse(&["--cold"])
                .unwrap_err()
                .downcast_ref::<Help>()
                .is_none()
        );
    }
}
