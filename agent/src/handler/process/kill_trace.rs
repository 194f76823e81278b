//! Who sent a SIGKILL: read from the trace of `signal:signal_generate` that the node's agent keeps.
//!
//! ```text
//!             kill-28559   [001] ....1 12345.678901: signal_generate: sig=9 errno=0 code=0 comm=big pid=27440 grp=1 res=0
//!             name-pid     cpu   flags seconds                                             whom      thread id
//! ```
//! (`include/trace/events/signal.h`; the clock is CLOCK_MONOTONIC). Reading `trace` consumes nothing,
//! so every handler sees all events that the ring still holds. Names are a stranger's, up to 15 bytes
//! of anything: the line is taken apart from its fixed parts outwards, and one that does not fit is no
//! event.

use std::io::{BufRead, BufReader, Read};

use cdh_bundle::RawText;

use crate::tracefs::Tracefs;

/// Bytes of the trace that are read at most.
const TRACE: u64 = 4 << 20;

/// A SIGKILL that was sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SentKill {
    /// Name of the sending thread.
    pub sender: RawText,
    /// Its id.
    pub sender_id: u32,
    /// When, in seconds of CLOCK_MONOTONIC.
    pub at: f64,
    /// Whether the kernel sent it itself (`SI_KERNEL`), as its OOM killer does.
    pub by_kernel: bool,
}

/// The first SIGKILL to one of these threads that was sent after `since`, seconds of
/// CLOCK_MONOTONIC. `instance` names the trace; older agents wrote the path of a mount in their
/// own namespace, which ends in that name.
pub(crate) fn find(instance: &str, threads: &[u32], since: f64) -> Option<SentKill> {
    let name = instance.rsplit('/').next()?;
    let file = Tracefs::open()
        .ok()?
        .instance(name)
        .ok()?
        .read("trace")
        .ok()?;
    first_in(&mut BufReader::new(file.take(TRACE)), threads, since)
}

fn first_in(trace: &mut impl BufRead, threads: &[u32], since: f64) -> Option<SentKill> {
    let mut line = Vec::new();
    let mut found: Option<SentKill> = None;
    loop {
        line.clear();
        if trace.read_until(b'\n', &mut line).ok()? == 0 {
            return found;
        }
        let Some((kill, whom)) = parse(&line) else {
            continue;
        };
        let earlier = found.as_ref().is_none_or(|found| kill.at < found.at);
        if threads.contains(&whom) && kill.at >= since && earlier {
            found = Some(kill);
        }
    }
}

fn parse(line: &[u8]) -> Option<(SentKill, u32)> {
    const MARK: &[u8] = b": signal_generate: sig=9 ";
    let mark = line.windows(MARK.len()).position(|bytes| bytes == MARK)?;
    let (left, right) = (line.get(..mark)?, line.get(mark..)?);
    let right = String::from_utf8_lossy(right);
    // From the end: the name before it may imitate a field.
    let whom = right.rsplit_once(" pid=")?.1;
    let whom = whom.split(' ').next()?.parse().ok()?;
    let by_kernel = right.contains(" code=128 ");
    // Name, id and processor stand left of `[`, the time is the last word.
    let bracket = left.iter().rposition(|&byte| byte == b'[')?;
    let (task, rest) = (left.get(..bracket)?.trim_ascii(), left.get(bracket..)?);
    let at = std::str::from_utf8(rest).ok()?.rsplit(' ').next()?;
    let dash = task.iter().rposition(|&byte| byte == b'-')?;
    let id = std::str::from_utf8(task.get(dash.checked_add(1)?..)?).ok()?;
    // With `record-tgid` the process id follows in parentheses.
    let id = id.split([' ', '(']).next()?;
    Some((
        SentKill {
            sender: RawText::from(task.get(..dash)?),
            sender_id: id.parse().ok()?,
            at: at.parse().ok().filter(|at: &f64| at.is_finite())?,
            by_kernel,
        },
        whom,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "# tracer: nop\n#\n\
        #           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION\n\
            kill-28559   [001] ....1   100.500000: signal_generate: sig=9 errno=0 code=0 comm=big pid=27440 grp=1 res=0\n\
          <...>-7       [000] d.... 101.250000: signal_generate: sig=9 errno=0 code=128 comm=a pid=5 b pid=27441 grp=1 res=0\n\
         a [b]-1 c-99    [000] d.... 102.000000: signal_generate: sig=9 errno=0 code=0 comm=x pid=27442 grp=0 res=0\n";

    fn find(thread: u32, since: f64) -> Option<SentKill> {
        first_in(&mut TRACE.as_bytes(), &[thread], since)
    }

    #[test]
    fn the_sender_is_found_by_the_thread_it_sent_to() {
        let kill = find(27440, 0.0).unwrap();
        assert_eq!((kill.sender, kill.sender_id), ("kill".into(), 28559));
        assert!((kill.at - 100.5).abs() < 1e-9 && !kill.by_kernel);
        assert_eq!(find(27440, 100.6), None);
        assert!(find(27441, 0.0).unwrap().by_kernel);
        assert_eq!(find(5, 0.0), None);
    }

    #[test]
    fn names_that_imitate_the_format_are_taken_whole() {
        let kill = find(27442, 0.0).unwrap();
        assert_eq!((kill.sender, kill.sender_id), ("a [b]-1 c".into(), 99));
    }

    #[test]
    fn lines_that_do_not_fit_are_no_events() {
        let lines: [&[u8]; 4] = [
            b": signal_generate: sig=9 ",
            b"x-1 [0] 1.0: signal_generate: sig=9 comm=a pid=x",
            b"x-y [0] . 1.0: signal_generate: sig=9 comm=a pid=1",
            b"\xff\xfe[: signal_generate: sig=9 comm=\xff pid=4",
        ];
        for line in lines {
            assert_eq!(parse(line), None);
        }
    }
}
