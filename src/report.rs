//! Reports failures to the user: `error:`, `caused by:`, `hint:` on standard error, and an exit status.
//!
//! Only data goes to standard output. A closed pipe is success: `cdh ls | head`.

use std::fmt;
use std::io::{self, Write};

use crate::render::terminal_line;

/// The exit status of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// 0: done.
    Done,
    /// 1: nothing found.
    Nothing,
    /// 2: wrong usage, or a failure.
    Failure,
    /// 3: the store could not be reached; a retry may help.
    Unreachable,
    /// 4: a digest, a build-id or a checksum does not match.
    Mismatch,
    /// 130: interrupted by the user.
    Interrupted,
    /// The debugger's own status.
    Debugger(u8),
}

impl ExitStatus {
    /// The number for `exit(2)`.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Nothing => 1,
            Self::Failure => 2,
            Self::Unreachable => 3,
            Self::Mismatch => 4,
            Self::Interrupted => 130,
            Self::Debugger(code) => code,
        }
    }
}

/// A failure with a status and advice. It is passed inside `anyhow::Error`.
#[derive(Debug)]
pub struct Failure {
    message: String,
    status: ExitStatus,
    hints: Vec<String>,
    source: Option<anyhow::Error>,
}

impl Failure {
    /// A failure that ends the command with `status`.
    pub fn new(status: ExitStatus, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            status,
            hints: Vec::new(),
            source: None,
        }
    }

    /// The exit status for it.
    #[must_use]
    pub fn status(&self) -> ExitStatus {
        self.status
    }

    /// Adds a line of advice: imperative and runnable.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<anyhow::Error>) -> Self {
        self.source = Some(cause.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(AsRef::as_ref)
    }
}

/// Prints `error` and returns its exit status.
pub fn report(error: &anyhow::Error) -> ExitStatus {
    if is_broken_pipe(error) {
        return ExitStatus::Done;
    }
    let mut out = io::stderr().lock();
    // If standard error is closed, nothing can be done.
    let _ = write_report(error, &mut out);
    status_of(error)
}

/// Prints an error that has no type: its text, which may have several lines, and advice.
pub fn print_error(text: &str, hints: &[String]) {
    let mut out = io::stderr().lock();
    let mut lines = text.lines();
    // If standard error is closed, nothing can be done.
    let _ = writeln!(
        out,
        "error: {}",
        terminal_line(lines.next().unwrap_or_default())
    );
    for line in lines {
        let _ = writeln!(out, "  {}", terminal_line(line));
    }
    for hint in hints {
        let _ = writeln!(out, "hint: {}", terminal_line(hint));
    }
}

/// Prints errors on the way to a result that exists nevertheless.
pub fn remark(remarks: &[anyhow::Error]) {
    let mut out = io::stderr().lock();
    for error in remarks {
        // If standard error is closed, nothing can be done.
        let _ = write_lines("warning", error, &mut out);
    }
}

fn write_report(error: &anyhow::Error, out: &mut dyn Write) -> io::Result<()> {
    write_lines("error", error, out)
}

fn write_lines(level: &str, error: &anyhow::Error, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{level}: {}", terminal_line(&error.to_string()))?;
    for cause in error.chain().skip(1) {
        writeln!(out, "caused by: {}", terminal_line(&cause.to_string()))?;
    }
    for failure in error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<Failure>())
    {
        for hint in &failure.hints {
            writeln!(out, "hint: {}", terminal_line(hint))?;
        }
    }
    Ok(())
}

/// An error as text, for callers that show it themselves: what failed, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedError {
    /// The error and its causes, one line each, escaped.
    pub lines: Vec<String>,
    /// Advice, harmless.
    pub hints: Vec<String>,
    /// The exit status for it.
    pub status: ExitStatus,
}

/// The text of `error`, not printed.
#[must_use]
pub fn rendered(error: &anyhow::Error) -> RenderedError {
    let lines = error.chain().map(|cause| terminal_line(&cause.to_string()));
    let failures = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<Failure>());
    let hints = failures.flat_map(|failure| failure.hints.iter().map(|hint| terminal_line(hint)));
    RenderedError {
        lines: lines.collect(),
        hints: hints.collect(),
        status: status_of(error),
    }
}

/// The exit status that goes with `error`.
#[must_use]
pub fn status_of(error: &anyhow::Error) -> ExitStatus {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Failure>())
        .map_or(ExitStatus::Failure, |failure| failure.status)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_statuses_are_those_of_the_manual() {
        let table = [
            (ExitStatus::Done, 0),
            (ExitStatus::Nothing, 1),
            (ExitStatus::Failure, 2),
            (ExitStatus::Unreachable, 3),
            (ExitStatus::Mismatch, 4),
            (ExitStatus::Interrupted, 130),
            (ExitStatus::Debugger(7), 7),
        ];
        for (status, code) in table {
            assert_eq!(status.code(), code);
        }
    }

    #[test]
    fn report_names_error_cause_and_hint_in_this_order() {
        let cause = io::Error::new(io::ErrorKind::PermissionDenied, "denied");
        let failure = Failure::new(ExitStatus::Failure, "cannot read `a\nb`")
            .cause(cause)
            .hint("run `x`");
        let mut out = Vec::new();
        write_report(&failure.into(), &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "error: cannot read `a\\nb`\ncaused by: denied\nhint: run `x`\n"
        );
    }

    #[test]
    fn closed_pipe_is_success() {
        let error = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(report(&error), ExitStatus::Done);
    }
}
