//! Questions, asked on the terminal and nowhere else.

use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};

use anyhow::Result;

use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};

/// Bytes of an answer; more is not one.
const LONGEST: u64 = 1024;

/// Asks before something is deleted; only `y` and `yes` agree. Without a terminal nothing is deleted, and the error
/// says how to go on. Ctrl-C ends the program, as everywhere.
///
/// # Errors
/// When there is no terminal to ask on.
pub fn confirm(question: &str, interactive: bool) -> Result<bool> {
    // Input that is redirected (`xargs`) leaves the controlling terminal; a job without one has none.
    let terminal: Box<dyn Read> = match (io::stdin().is_terminal(), fs::File::open("/dev/tty")) {
        (true, _) if interactive => Box::new(io::stdin()),
        (false, Ok(terminal)) if interactive => Box::new(terminal),
        _ => {
            let message = "cannot ask before deleting: there is no terminal";
            return Err(Failure::new(ExitStatus::Failure, message)
                .hint("pass `--yes` to delete without a question, or `--dry-run` to see what would be deleted")
                .into());
        }
    };
    eprint!("{} [y/N] ", terminal_line(question));
    let mut answer = String::new();
    BufReader::new(terminal.take(LONGEST)).read_line(&mut answer)?;
    Ok(is_yes(&answer))
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::is_yes;

    #[test]
    fn only_y_and_yes_agree() {
        assert!(is_yes("y\n") && is_yes("Yes \n"));
        for no in ["", "\n", "n\n", "yy\n", "sure\n"] {
            assert!(!is_yes(no), "{no}");
        }
    }
}
