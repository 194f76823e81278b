//! Measurements against peers, in the same run.

mod backtrace;
mod capture;
mod peers;

use anyhow::{Result, bail};

/// Runs the measurement that the words name.
pub(crate) fn run(words: &[String]) -> Result<()> {
    match words.split_first() {
        Some((what, rest)) if what == "capture" => capture::run(rest),
        Some((what, rest)) if what == "backtrace" => backtrace::run(rest),
        _ => bail!(
            "usage: cargo xtask bench backtrace [--help] | capture [--mib N] [--runs N] [--only NAME]… [--peer NAME=COMMAND]…"
        ),
    }
}
