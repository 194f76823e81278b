//! Measurements against peers, in the same run.

mod capture;
mod peers;

use anyhow::{Result, bail};

/// Runs the measurement that the words name.
pub(crate) fn run(words: &[String]) -> Result<()> {
    match words.split_first() {
        Some((what, rest)) if what == "capture" => capture::run(rest),
        Some((what, rest)) if ["upload", "fetch", "listing"].contains(&what.as_str()) => {
            crate::s3::bench(what, rest)
        }
        _ => bail!(
            "usage: cargo xtask bench upload|fetch|listing [--gib N] [--mib N] [--dumps N], or \
              cargo xtask bench capture [--mib N] [--runs N] [--only NAME]… [--peer NAME=COMMAND]…"
        ),
    }
}
