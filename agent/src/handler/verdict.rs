//! Whether the core is whole, and if not, who cut it: judged by sizes, explained by `/proc`.
//!
//! The size that the core's own headers promise decides; neither the exit status nor the kernel log
//! is evidence of completeness. The cause is what was seen, with what was seen; where nothing was,
//! it is unknown.

use std::io;

use cdh_bundle::{Cause, Verdict};

use super::process::{ProcessHandles, status_field};

/// What is known when the stream has ended.
#[derive(Debug)]
pub(super) struct StreamEnd<'a> {
    /// Bytes that the headers promise; `None` where they could not be read.
    pub expected: Option<u64>,
    /// Bytes that are stored.
    pub got: u64,
    /// Why nothing more could be stored.
    pub write_error: Option<&'a io::Error>,
    /// Why nothing more could be read.
    pub read_error: Option<&'a io::Error>,
    /// Why the head is no head.
    pub head_problem: Option<String>,
    /// What says that the process was killed.
    pub killed: Option<String>,
}

impl StreamEnd<'_> {
    /// The verdict.
    #[must_use]
    pub(super) fn verdict(&self) -> Verdict {
        if self.write_error.is_none() && self.expected.is_some_and(|expected| self.got >= expected)
        {
            return Verdict::Complete;
        }
        let (cause, evidence) = self.cause();
        match self.got {
            0 => Verdict::Empty { cause, evidence },
            got => Verdict::Truncated {
                expected: self.expected.unwrap_or(got),
                got,
                cause,
                evidence,
            },
        }
    }

    fn cause(&self) -> (Cause, Option<String>) {
        if let Some(error) = self.write_error {
            let full = matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            );
            let limit = error.kind() == io::ErrorKind::FileTooLarge;
            let cause = match (full, limit) {
                (true, _) => Cause::NoSpace,
                (_, true) => Cause::Limit,
                _ => Cause::Unknown,
            };
            return (cause, Some(format!("the spool said: {error}")));
        }
        if let Some(error) = self.read_error.filter(|error| error.kind() == TAKEN_AWAY) {
            return (Cause::OomKilled, Some(error.to_string()));
        }
        if let Some(evidence) = &self.killed {
            return (Cause::Killed, Some(evidence.clone()));
        }
        if let Some(error) = self.read_error {
            return (Cause::Unknown, Some(format!("reading it failed: {error}")));
        }
        (Cause::Unknown, self.head_problem.clone())
    }
}

/// Kind of the error of a memory that the OOM killer takes apart.
const TAKEN_AWAY: io::ErrorKind = io::ErrorKind::OutOfMemory;
/// Bit of SIGKILL in the masks of `status`.
const KILL_BIT: u64 = 1 << (libc::SIGKILL - 1);

/// What `/proc` says about a SIGKILL that is pending, or was delivered.
///
/// The kernel ends the stream at a SIGKILL. Where `core_pipe_limit` makes it wait for the handler,
/// only a SIGKILL lets the process go before the handler does; until then the bit stands in `ShdPnd`.
/// A thread that was killed alone has it in `SigPnd`.
#[must_use]
pub(super) fn kill_evidence(process: &ProcessHandles) -> Option<String> {
    if process.has_exited() == Some(true) {
        let limit = std::fs::read_to_string("/proc/sys/kernel/core_pipe_limit").ok()?;
        let waits = limit.trim() != "0";
        return waits.then(|| "the process ended while its core was read".to_owned());
    }
    let status = process.read("status").ok()?;
    ["ShdPnd", "SigPnd"].into_iter().find_map(|name| {
        let mask = std::str::from_utf8(status_field(&status, name)?).ok()?;
        let mask = u64::from_str_radix(mask, 16).ok()?;
        (mask & KILL_BIT != 0).then(|| format!("{name} has SIGKILL"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> StreamEnd<'static> {
        StreamEnd {
            expected: Some(100),
            got: 100,
            write_error: None,
            read_error: None,
            head_problem: None,
            killed: None,
        }
    }

    #[test]
    fn a_core_that_is_as_long_as_promised_is_complete_even_if_somebody_killed_it_afterwards() {
        let end = StreamEnd {
            killed: Some("ShdPnd has SIGKILL".to_owned()),
            ..end()
        };
        assert_eq!(end.verdict(), Verdict::Complete);
    }

    #[test]
    fn a_short_core_is_truncated_with_the_cause_that_was_seen() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let cut = || StreamEnd { got: 60, ..end() };
        let killed = StreamEnd {
            killed: Some("ShdPnd has SIGKILL".to_owned()),
            ..cut()
        };
        let cause = |end: &StreamEnd<'_>| match end.verdict() {
            Verdict::Truncated {
                expected: 100,
                got: 60,
                cause,
                ..
            } => cause,
            other => panic!("{other:?}"),
        };
        assert_eq!(cause(&cut()), Cause::Unknown);
        assert_eq!(cause(&killed), Cause::Killed);
        assert_eq!(
            cause(&StreamEnd {
                write_error: Some(&full),
                ..killed
            }),
            Cause::NoSpace
        );
    }

    #[test]
    fn without_a_head_nothing_is_called_complete() {
        let unknown = StreamEnd {
            expected: None,
            got: 7,
            ..end()
        };
        assert_eq!(unknown.verdict().word(), "truncated");
        assert_eq!(StreamEnd { got: 0, ..unknown }.verdict().word(), "empty");
    }
}
