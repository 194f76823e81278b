//! Questions, asked on the terminal and nowhere else.

use std::fs;
use std::io::{self, IsTerminal};

use anyhow::Result;

use crate::report::{ExitStatus, Failure};

/// Asks before something is deleted. Without a terminal nothing is deleted, and the error says how to go on.
///
/// # Errors
/// When there is no terminal to ask on.
pub fn confirm(question: &str, interactive: bool) -> Result<bool> {
    // Input that is redirected (`xargs`) leaves the controlling terminal; a job without one has none.
    let can_answer = io::stdin().is_terminal() || fs::File::open("/dev/tty").is_ok();
    if !interactive || !can_answer {
        let message = "cannot ask before deleting: there is no terminal";
        return Err(Failure::new(ExitStatus::Failure, message)
            .hint("pass `--yes` to delete without a question, or `--dry-run` to see what would be deleted")
            .into());
    }
    Ok(dialoguer::Confirm::new()
        .with_prompt(question)
        .default(false)
        .interact()?)
}
