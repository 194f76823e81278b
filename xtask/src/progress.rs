//! What a task shows while it works: numbered steps, the output of the commands it runs, and a line at least
//! every [`SILENCE`], so that nothing that takes long looks as if it hangs.
//!
//! Steps and signs of life go to stderr, as cargo's own lines do.

use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// After so long without output a task says that it still works.
const SILENCE: Duration = Duration::from_secs(8);

/// Numbered steps of a task.
pub(crate) struct Steps {
    count: usize,
    done: usize,
}

impl Steps {
    /// For a task of so many steps. From now on a step that prints nothing for too long is named again.
    pub(crate) fn new(count: usize) -> Self {
        std::thread::spawn(|| {
            let begun = Instant::now();
            loop {
                std::thread::sleep(SILENCE / 8);
                still("working", begun);
            }
        });
        Self { count, done: 0 }
    }

    /// Begins the next step.
    pub(crate) fn begin(&mut self, what: &str) {
        self.done += 1;
        eprintln!("\n[{}/{}] {what}", self.done, self.count);
        LAST_LINE.note();
    }
}

/// A duration as people write it: `9 s`, `4 min 7 s`.
pub(crate) fn spoken(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// Where the lines of a command go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streams {
    /// Each to where the command sent it.
    Apart,
    /// All to standard output, in the order in which they were written.
    Merged,
}

/// Runs a command and insists on success. Its output passes through; `what` names it in signs of life.
pub(crate) fn succeed(command: &mut Command, what: &str) -> Result<()> {
    let status = watch(command, what, Streams::Apart, |_| ())?;
    insist(command, status)
}

/// As [`succeed`], for cargo: on a terminal it draws its own progress, which only it can.
pub(crate) fn cargo(command: &mut Command, what: &str) -> Result<()> {
    if !io::stderr().is_terminal() {
        return succeed(command, what);
    }
    LAST_LINE.is_drawn_over.store(true, Ordering::Relaxed);
    let status = command.status();
    LAST_LINE.is_drawn_over.store(false, Ordering::Relaxed);
    LAST_LINE.note();
    insist(
        command,
        status.with_context(|| format!("cannot run {command:?}"))?,
    )
}

fn insist(command: &Command, status: ExitStatus) -> Result<()> {
    match status.success() {
        true => Ok(()),
        false => bail!("{command:?} failed: {status}"),
    }
}

/// Runs a command to its end. Each line is passed on as it comes and shown to `see`.
pub(crate) fn watch(
    command: &mut Command,
    what: &str,
    streams: Streams,
    mut see: impl FnMut(&str),
) -> Result<ExitStatus> {
    let (out, to_out) = io::pipe()?;
    let mut pipes = vec![(Target::Out, out)];
    let to_err = match streams {
        Streams::Merged => to_out.try_clone()?,
        Streams::Apart => {
            let (err, to_err) = io::pipe()?;
            pipes.push((Target::Err, err));
            to_err
        }
    };
    let child = command.stdout(to_out).stderr(to_err).spawn();
    let mut child = child.with_context(|| format!("cannot run {command:?}"))?;
    // Our own ends of the pipes would keep them open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (sender, lines) = channel();
    for (target, pipe) in pipes {
        let sender = sender.clone();
        std::thread::spawn(move || send_lines(target, pipe, &sender));
    }
    drop(sender);
    let begun = Instant::now();
    loop {
        match lines.recv_timeout(SILENCE / 8) {
            Ok((target, line)) => {
                let _ = match target {
                    Target::Out => io::stdout().write_all(&line),
                    Target::Err => io::stderr().write_all(&line),
                };
                LAST_LINE.note();
                see(String::from_utf8_lossy(&line).trim_end());
            }
            Err(RecvTimeoutError::Timeout) => {
                // A process that it left behind may hold the pipes open.
                if let Some(status) = child.try_wait()? {
                    return Ok(status);
                }
                still(what, begun);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(child.wait()?),
        }
    }
}

/// Our own stream that a line goes to.
#[derive(Clone, Copy)]
enum Target {
    Out,
    Err,
}

fn send_lines(target: Target, pipe: impl Read, to: &Sender<(Target, Vec<u8>)>) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while pipe
        .read_until(b'\n', &mut line)
        .is_ok_and(|count| count > 0)
    {
        if to.send((target, std::mem::take(&mut line))).is_err() {
            return;
        }
    }
}

/// Does something that prints nothing for long, and says so meanwhile.
pub(crate) fn during<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (done, waiter) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let begun = Instant::now();
            while waiter.recv_timeout(SILENCE / 8) == Err(RecvTimeoutError::Timeout) {
                still(what, begun);
            }
        });
        // Dropped when the work is done, by a panic too.
        let _done = done;
        work()
    })
}

/// Says that it still works, if nothing else was printed for long enough.
fn still(what: &str, begun: Instant) {
    if LAST_LINE.is_old() {
        eprintln!("  … still {what}, {}", spoken(begun.elapsed()));
        LAST_LINE.note();
    }
}

static LAST_LINE: LastLine = LastLine {
    at: Mutex::new(None),
    is_drawn_over: AtomicBool::new(false),
};

/// When a line was printed last.
struct LastLine {
    at: Mutex<Option<Instant>>,
    /// cargo draws its progress on the terminal: a line in between would spoil it.
    is_drawn_over: AtomicBool,
}

impl LastLine {
    fn note(&self) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_old(&self) -> bool {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        // Silence begins with the first question.
        let at = *at.get_or_insert_with(Instant::now);
        // A little earlier, so that who waits for exactly this long does not miss it.
        let long = SILENCE - Duration::from_millis(200);
        !self.is_drawn_over.load(Ordering::Relaxed) && at.elapsed() >= long
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spoken_duration_has_minutes_only_from_one_on() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (247, "4 min 7 s"),
        ] {
            assert_eq!(spoken(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn watch_shows_lines_of_both_streams_in_order_and_the_exit_status() {
        let mut seen = Vec::new();
        let mut sh = Command::new("sh");
        sh.args(["-c", "echo out; echo err >&2; printf last; exit 3"]);
        let status = watch(&mut sh, "a test", Streams::Merged, |line| {
            seen.push(line.to_owned());
        });
        assert_eq!(status.unwrap().code(), Some(3));
        assert_eq!(seen, ["out", "err", "last"]);
    }

    #[test]
    fn watch_does_not_wait_for_what_a_command_leaves_behind() {
        let begun = Instant::now();
        let mut sh = Command::new("sh");
        sh.args(["-c", "sleep 30 & exit 0"]);
        let status = watch(&mut sh, "a test", Streams::Apart, |_| ());
        assert!(status.unwrap().success() && begun.elapsed() < Duration::from_secs(25));
    }
}
