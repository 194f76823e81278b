//! Questions, asked on the terminal and nowhere else.

use anyhow::Result;

use crate::report::{ExitStatus, Failure};

/// Asks before something is deleted. Without a terminal nothing is deleted and the user is told how.
///
/// # Errors
/// When there is no terminal to ask on.
pub fn confirm(question: &str, interactive: bool) -> Result<bool> {
    if !interactive {
        return Err(Failure::new(
            ExitStatus::Failure,
            format!("{question} cannot be asked: there is no terminal"),
        )
        .hint("pass `--yes` to go on without being asked, or `--dry-run` to see what would happen")
        .into());
    }
    Ok(dialoguer::Confirm::new()
        .with_prompt(question)
        .default(false)
        .interact()?)
}
