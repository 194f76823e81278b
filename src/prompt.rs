//! Asks questions on the terminal.

use std::fs;
use std::io::{self, IsTerminal};
use std::thread::JoinHandle;

use anyhow::Result;

use rustix::termios::OptionalActions;
use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;

use crate::progress::{end_on_interrupt, is_interrupt_ignored, keep_on_interrupt};
use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};

/// Asks before something is deleted. Without a terminal, nothing is deleted, and the error explains how to
/// continue.
///
/// # Errors
/// If there is no terminal, or the user interrupts.
pub fn confirm(question: &str, interactive: bool) -> Result<bool> {
    // With redirected input (`xargs`), the controlling terminal is still available; a job without one
    // has none.
    let can_answer = io::stdin().is_terminal() || fs::File::open("/dev/tty").is_ok();
    if !interactive || !can_answer {
        let message = "cannot ask before deleting: there is no terminal";
        return Err(Failure::new(ExitStatus::Failure, message)
            .hint("pass `--yes` to delete without a question, or `--dry-run` to see what would be deleted")
            .into());
    }
    let watch = InterruptWatch::begin();
    let answer = dialoguer::Confirm::new()
        .with_prompt(terminal_line(question))
        .default(false)
        .wait_for_newline(true)
        .interact();
    watch.end();
    let dialoguer::Error::IO(error) = match answer {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    let _ = dialoguer::console::Term::stderr().show_cursor();
    match error.kind() {
        io::ErrorKind::Interrupted => {
            Err(Failure::new(ExitStatus::Interrupted, INTERRUPTED).into())
        }
        _ => Err(error.into()),
    }
}

/// What is printed when the user interrupts a question.
const INTERRUPTED: &str = "interrupted: nothing was deleted";

/// Ends the program on SIGINT during a question, after the terminal is restored. Until dialoguer reads in raw mode,
/// Ctrl-C is a signal, and such an early one must not be lost.
struct InterruptWatch {
    watching: Option<(signal_hook::iterator::Handle, JoinHandle<()>)>,
}

impl InterruptWatch {
    fn begin() -> Self {
        let terminal = fs::File::open("/dev/tty");
        let mode = terminal.and_then(|terminal| {
            let mode = rustix::termios::tcgetattr(&terminal)?;
            Ok((terminal, mode))
        });
        let signals = match is_interrupt_ignored() {
            true => None,
            false => Signals::new([SIGINT]).ok(),
        };
        let Some(mut signals) = signals else {
            return Self { watching: None };
        };
        // Ending immediately would leave the terminal without a cursor.
        keep_on_interrupt();
        let handle = signals.handle();
        let thread = std::thread::spawn(move || {
            if signals.forever().next().is_none() {
                return;
            }
            if let Ok((terminal, mode)) = mode {
                let _ = rustix::termios::tcsetattr(&terminal, OptionalActions::Now, &mode);
            }
            let _ = dialoguer::console::Term::stderr().show_cursor();
            eprintln!("\nerror: {INTERRUPTED}");
            std::process::exit(i32::from(ExitStatus::Interrupted.code()));
        });
        Self {
            watching: Some((handle, thread)),
        }
    }

    /// Waits for the thread, which ends the program if a signal arrived.
    fn end(self) {
        if let Some((signals, thread)) = self.watching {
            signals.close();
            let _ = thread.join();
            end_on_interrupt();
        }
    }
}
