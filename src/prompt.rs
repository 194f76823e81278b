//! Questions, asked on the terminal and nowhere else.

use std::fs;
use std::io::{self, IsTerminal};

use anyhow::Result;

use crate::progress::{end_on_interrupt, keep_on_interrupt};
use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};

/// Asks before something is deleted. Without a terminal nothing is deleted, and the error says how to go on.
///
/// # Errors
/// When there is no terminal to ask on, or the user interrupts.
pub fn confirm(question: &str, interactive: bool) -> Result<bool> {
    // Input that is redirected (`xargs`) leaves the controlling terminal; a job without one has none.
    let can_answer = io::stdin().is_terminal() || fs::File::open("/dev/tty").is_ok();
    if !interactive || !can_answer {
        let message = "cannot ask before deleting: there is no terminal";
        return Err(Failure::new(ExitStatus::Failure, message)
            .hint("pass `--yes` to delete without a question, or `--dry-run` to see what would be deleted")
            .into());
    }
    // To end in the middle of the question would leave the terminal without a cursor.
    keep_on_interrupt();
    let answer = dialoguer::Confirm::new()
        .with_prompt(terminal_line(question))
        .default(false)
        .wait_for_newline(true)
        .interact();
    end_on_interrupt();
    let dialoguer::Error::IO(error) = match answer {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    let _ = dialoguer::console::Term::stderr().show_cursor();
    match error.kind() {
        io::ErrorKind::Interrupted => {
            Err(Failure::new(ExitStatus::Interrupted, "interrupted: nothing was deleted").into())
        }
        _ => Err(error.into()),
    }
}
