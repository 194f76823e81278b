//! Handles signals that end the program, stop and continue it, or belong to the debugger on the
//! terminal.
//!
//! A signal that ends a program by default first ends the debugger, then the TUI, and the terminal
//! is restored. While a debugger runs, SIGINT and SIGQUIT belong to it: `ctrl-c` in gdb must not
//! end the TUI. On SIGTSTP, the terminal is restored before the process stops. On SIGCONT, it is
//! taken again: after SIGSTOP, which cannot be caught, a shell may have changed it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_current_process_group, kill_process};
use signal_hook::consts::{
    SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2,
    SIGVTALRM, SIGXCPU, SIGXFSZ,
};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::msg::Msg;
use super::terminal;
use crate::progress::keep_on_interrupt;
use crate::report::ExitStatus;

/// All signals that end a program by default (signal(7)), without those that report a fault in the
/// program itself.
const ENDING: [i32; 12] = [
    SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO,
    SIGXCPU, SIGXFSZ,
];

/// Time for the debugger and the main loop to end. Afterwards, the debugger is killed and the
/// process ends.
const PATIENCE: Duration = Duration::from_secs(2);

/// State shared between the signal thread and the main loop.
#[derive(Debug, Default)]
pub struct Shared {
    /// Process id of the program on the terminal; 0 if the TUI has it.
    child: AtomicI32,
    /// The signal that ends the process; 0 if none arrived.
    ending: AtomicI32,
    /// SIGTSTP arrived from another process, and no SIGCONT since.
    stop_wanted: AtomicBool,
    /// Number of SIGTSTPs that we sent to our own process group and that have not arrived yet.
    own_stops: AtomicU32,
}

/// What a stop request stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The process group, like `ctrl-z`.
    Group,
    /// Only this process, because another process sent SIGTSTP to it.
    Process,
}

impl Shared {
    /// Records that another program has the terminal.
    pub fn given_to(&self, child: u32) {
        self.child
            .store(i32::try_from(child).unwrap_or(0), Ordering::SeqCst);
        // The signal arrived between the decision to start the program and its start.
        if self.ending.load(Ordering::SeqCst) != 0 {
            self.end_child(Signal::TERM);
        }
    }

    /// Records that the TUI has the terminal again.
    pub fn came_back(&self) {
        self.child.store(0, Ordering::SeqCst);
    }

    /// Ends the process as the received signal would have, after the terminal is restored. SIGINT
    /// gives status 130, as in every command.
    pub fn finish(&self) {
        match self.ending.load(Ordering::SeqCst) {
            0 => {}
            SIGINT => signal_hook::low_level::exit(i32::from(ExitStatus::Interrupted.code())),
            signal => drop(emulate_default_handler(signal)),
        }
    }

    /// Stops and returns on SIGCONT. The caller must restore the terminal before.
    ///
    /// # Errors
    /// Fails if the signal cannot be sent.
    pub fn stop(&self, stop: Stop) -> io::Result<()> {
        match stop {
            // Like the kernel: no shell could continue an orphaned process group.
            Stop::Group if is_orphaned() => Ok(()),
            Stop::Group => {
                self.own_stops.fetch_add(1, Ordering::SeqCst);
                kill_current_process_group(Signal::TSTP)?;
                emulate_default_handler(SIGTSTP)
            }
            Stop::Process if self.stop_wanted.swap(false, Ordering::SeqCst) => {
                emulate_default_handler(SIGTSTP)
            }
            // SIGCONT arrived first.
            Stop::Process => Ok(()),
        }
    }

    /// Whether this SIGTSTP is the one that [`stop`](Self::stop) sent to the group.
    fn is_own_stop(&self) -> bool {
        let less = |count: u32| count.checked_sub(1);
        self.own_stops
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
            .is_ok()
    }

    fn end_child(&self, signal: Signal) {
        if let Some(child) = Pid::from_raw(self.child.load(Ordering::SeqCst)) {
            let _ = kill_process(child, signal);
        }
    }
}

/// Starts the thread that handles signals.
///
/// # Errors
/// Fails if the kernel refuses.
pub fn watch(messages: Sender<Msg>) -> io::Result<Arc<Shared>> {
    let shared = Arc::new(Shared::default());
    let mine = Arc::clone(&shared);
    let mut signals = Signals::new(ENDING.into_iter().chain([SIGTSTP, SIGCONT]))?;
    keep_on_interrupt();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let given = mine.child.load(Ordering::SeqCst) != 0;
            match signal {
                SIGINT | SIGQUIT if given => continue,
                SIGTSTP if mine.is_own_stop() => continue,
                // `ctrl-z` in the debugger: the terminal remains as the debugger left it.
                SIGTSTP if given => {
                    let _ = emulate_default_handler(SIGTSTP);
                    continue;
                }
                SIGTSTP => {
                    mine.stop_wanted.store(true, Ordering::SeqCst);
                    let _ = messages.send(Msg::Stop);
                    continue;
                }
                SIGCONT => {
                    mine.stop_wanted.store(false, Ordering::SeqCst);
                    let _ = messages.send(Msg::Continued);
                    continue;
                }
                _ => {}
            }
            mine.ending.store(signal, Ordering::SeqCst);
            mine.end_child(Signal::TERM);
            let _ = messages.send(Msg::Terminate);
            std::thread::sleep(PATIENCE);
            mine.end_child(Signal::KILL);
            terminal::give_back();
            mine.finish();
        }
    });
    Ok(shared)
}

/// Whether the process group is orphaned: no process in it has a parent in the same session but
/// another group (`setpgid(2)`). Then there is no shell with job control.
fn is_orphaned() -> bool {
    let Some(own) = Ids::of("self") else {
        return false;
    };
    let mut parent = own.parent;
    loop {
        match Ids::of(&parent.to_string()) {
            Some(ids) if ids.session != own.session => return true,
            Some(ids) if ids.group != own.group => return false,
            Some(ids) => parent = ids.parent,
            None => return true,
        }
    }
}

/// Ids from `/proc/<pid>/stat`.
struct Ids {
    parent: i32,
    group: i32,
    session: i32,
}

impl Ids {
    fn of(process: &str) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name in parentheses may contain anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut numbers = rest.split_whitespace().skip(1).map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self {
            parent: next()?,
            group: next()?,
            session: next()?,
        })
    }
}
