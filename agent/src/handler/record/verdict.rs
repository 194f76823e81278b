//! Whether the core is whole, and if not, who cut it: judged by sizes, explained by `/proc`.
//!
//! The size that the core's own headers promise decides; neither the exit status nor the kernel log
//! is evidence of completeness. The cause is what was seen, with what was seen; where nothing was,
//! it is unknown.

use std::io;

use cdh_bundle::{Cause, Verdict};

use crate::handler::process::death::Death;

/// What is known when the stream has ended.
#[derive(Debug)]
pub(crate) struct StreamEnd<'a> {
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
    /// Whether that is because the stream ended inside it.
    pub head_cut: bool,
    /// What happened to the process.
    pub death: &'a Death,
}

impl StreamEnd<'_> {
    /// The verdict.
    #[must_use]
    pub(crate) fn verdict(&self) -> Verdict {
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
            // Our own quota, not one of the file system's.
            let ours =
                error.kind() == io::ErrorKind::QuotaExceeded && error.raw_os_error().is_none();
            let cause = match (full, limit) {
                _ if ours => Cause::Quota,
                (true, _) => Cause::NoSpace,
                (_, true) => Cause::Limit,
                _ => Cause::Unknown,
            };
            return (cause, Some(format!("the spool said: {error}")));
        }
        if let Some(error) = self.read_error.filter(|error| error.kind() == TAKEN_AWAY) {
            return (Cause::OomKilled, Some(error.to_string()));
        }
        if let Some(error) = self.read_error
            && error.kind() == io::ErrorKind::TimedOut
        {
            return (Cause::Deadline, Some(error.to_string()));
        }
        if let Some(evidence) = self.death.evidence() {
            let kernel = self
                .death
                .kill
                .as_ref()
                .is_some_and(|(kill, _)| kill.by_kernel);
            return match self.death.out_of_memory || kernel {
                true => (Cause::OomKilled, Some(evidence)),
                false => (Cause::Killed, Some(evidence)),
            };
        }
        if self.death.frozen {
            return (Cause::Frozen, Some("its cgroup is frozen".to_owned()));
        }
        if let Some(error) = self.read_error {
            return (Cause::Unknown, Some(format!("reading it failed: {error}")));
        }
        // The kernel believes that it has written the core: something else ended the stream, and
        // besides the freezer only work for the process does (`dump_interrupted` in fs/coredump.c).
        let believes = self.death.exit_code.is_some_and(|code| code & 0x80 != 0);
        if believes && (self.head_problem.is_none() || self.head_cut) {
            let evidence = match self.death.uses_io_uring {
                true => "it uses io_uring, whose completions end a dump",
                false => {
                    "the kernel ended the dump too soon, as completions of io_uring make it do"
                }
            };
            return (Cause::Interrupted, Some(evidence.to_owned()));
        }
        (Cause::Unknown, self.head_problem.clone())
    }
}

/// Kind of the error of a memory that the OOM killer takes apart.
const TAKEN_AWAY: io::ErrorKind = io::ErrorKind::OutOfMemory;
#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: &Death = &Death {
        pending: None,
        ended_early: false,
        exit_code: None,
        out_of_memory: false,
        frozen: false,
        uses_io_uring: false,
        kill: None,
    };
    const KILLED: &Death = &Death {
        pending: Some("ShdPnd"),
        ended_early: false,
        exit_code: None,
        out_of_memory: false,
        frozen: false,
        uses_io_uring: false,
        kill: None,
    };

    fn end() -> StreamEnd<'static> {
        StreamEnd {
            expected: Some(100),
            got: 100,
            write_error: None,
            read_error: None,
            head_problem: None,
            head_cut: false,
            death: NOTHING,
        }
    }

    #[test]
    fn a_core_that_is_as_long_as_promised_is_complete_even_if_somebody_killed_it_afterwards() {
        let end = StreamEnd {
            death: KILLED,
            ..end()
        };
        assert_eq!(end.verdict(), Verdict::Complete);
    }

    #[test]
    fn a_short_core_is_truncated_with_the_cause_that_was_seen() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let cut = || StreamEnd { got: 60, ..end() };
        let killed = StreamEnd {
            death: KILLED,
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
    fn a_copy_that_ran_out_of_time_says_so() {
        let late = io::Error::from(io::ErrorKind::TimedOut);
        let end = StreamEnd {
            got: 60,
            read_error: Some(&late),
            ..end()
        };
        assert!(end.verdict().describe().contains("time limit"));
    }

    #[test]
    fn causes_other_than_a_kill_are_told_apart() {
        let cause = |death: &Death| {
            let end = StreamEnd {
                got: 60,
                death,
                ..end()
            };
            match end.verdict() {
                Verdict::Truncated { cause, .. } => cause,
                other => panic!("{other:?}"),
            }
        };
        let mut death = NOTHING.clone();
        death.uses_io_uring = true;
        death.exit_code = Some(0x8b);
        assert_eq!(cause(&death), Cause::Interrupted);
        death.frozen = true;
        assert_eq!(cause(&death), Cause::Frozen);
        death.exit_code = Some(9);
        assert_eq!(cause(&death), Cause::Killed);
        death.out_of_memory = true;
        assert_eq!(cause(&death), Cause::OomKilled);
    }

    #[test]
    fn a_stream_that_ended_at_once_was_interrupted_if_the_kernel_thinks_it_wrote_a_core() {
        let death = Death {
            exit_code: Some(0x8b),
            ..NOTHING.clone()
        };
        let cause = |head_cut| {
            let end = StreamEnd {
                expected: None,
                got: 0,
                head_problem: Some("the core is empty".to_owned()),
                head_cut,
                death: &death,
                ..end()
            };
            match end.verdict() {
                Verdict::Empty { cause, .. } => cause,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(cause(true), Cause::Interrupted);
        // It came, and was no core.
        assert_eq!(cause(false), Cause::Unknown);
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
