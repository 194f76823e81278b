//! Hands the terminal over to another program and restores it afterwards, however the program ends.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use super::input::Input;
use super::signals::{Shared, Stop};
use super::terminal;
use crate::debugger::Invocation;
use crate::render::terminal_line;
use crate::report::{self, Failure, RenderedError, rendered};

/// What a hand-off needs.
pub struct HandOff<'a> {
    /// The input thread, which must not read keys meanwhile.
    pub input: &'a Input,
    /// Receives the program's process id, to forward signals.
    pub signals: &'a Shared,
}

impl HandOff<'_> {
    /// Runs a debugger on the terminal until it ends. Returns a text about how it ended, if there
    /// is something to report.
    ///
    /// # Errors
    /// Fails if it cannot be started.
    pub fn debug(
        &self,
        invocation: &Invocation,
        title: &str,
    ) -> Result<Option<String>, RenderedError> {
        let name = terminal_line(&invocation.program().to_string_lossy());
        let title = terminal_line(title);
        let greeting = format!("{name} on {title}; quit {name} to come back\n\n");
        let status = self.run(&mut invocation.command(), &greeting, None);
        let status = status.map_err(|error| cannot_start(&name, error))?;
        Ok(match (status.code(), status.signal()) {
            (Some(0), _) => None,
            (Some(code), _) => Some(format!("{name} ended with status {code}")),
            (None, signal) => Some(format!(
                "{name} was ended by signal {}",
                signal.unwrap_or(0)
            )),
        })
    }

    /// Shows `text` in a pager.
    ///
    /// # Errors
    /// Fails if no pager can be started.
    pub fn page(&self, pager: &[String], text: &str) -> Result<Option<String>, RenderedError> {
        let fallback = ["less".to_owned()];
        let words = if pager.is_empty() { &fallback } else { pager };
        let [program, arguments @ ..] = words else {
            return Ok(None);
        };
        let mut command = Command::new(program);
        command.args(arguments);
        match self.run(&mut command, "", Some(text)) {
            Ok(_) => Ok(None),
            Err(error) => Err(cannot_start(&terminal_line(program), error)),
        }
    }

    fn run(
        &self,
        command: &mut Command,
        greeting: &str,
        text: Option<&str>,
    ) -> io::Result<ExitStatus> {
        self.input.rest();
        terminal::give_back();
        let outcome = self.run_with_terminal(command, greeting, text);
        self.signals.came_back();
        // A program that died may have left the terminal without echo.
        terminal::mend();
        let taken = terminal::take();
        self.input.go_on();
        taken.and(outcome)
    }

    fn run_with_terminal(
        &self,
        command: &mut Command,
        greeting: &str,
        text: Option<&str>,
    ) -> io::Result<ExitStatus> {
        if text.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn()?;
        self.signals.given_to(child.id());
        let mut out = io::stdout().lock();
        // Debugging works even if the greeting cannot be written.
        let _ = out
            .write_all(greeting.as_bytes())
            .and_then(|()| out.flush());
        drop(out);
        if let (Some(text), Some(mut stdin)) = (text, child.stdin.take()) {
            // A pager may be quit before it has read everything.
            let _ = stdin.write_all(text.as_bytes());
        }
        child.wait()
    }
}

fn cannot_start(name: &str, error: io::Error) -> RenderedError {
    let missing = error.kind() == io::ErrorKind::NotFound;
    let failure = Failure::new(report::ExitStatus::Failure, format!("cannot run `{name}`"));
    let failure = if missing {
        failure.hint(format!(
            "install it: `apt install {name}` or `dnf install {name}`"
        ))
    } else {
        failure
    };
    rendered(&failure.cause(error).into())
}

/// Restores the terminal and stops the process; takes the terminal again on SIGCONT.
///
/// # Errors
/// Fails if the terminal is gone.
pub fn suspend(hand_off: &HandOff<'_>, stop: Stop) -> io::Result<()> {
    hand_off.input.rest();
    terminal::give_back();
    let stopped = hand_off.signals.stop(stop);
    let taken = terminal::take();
    hand_off.input.go_on();
    stopped?;
    taken
}
