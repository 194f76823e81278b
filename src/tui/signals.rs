//! Signals that end the program, and those that are meant for the debugger that has the terminal.
//!
//! SIGTERM and SIGHUP end it: the debugger first, then the TUI, and the terminal is as it was. SIGINT and
//! SIGQUIT are the debugger's while it runs: `ctrl-c` in gdb must not end what waits for gdb.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::msg::Msg;
use super::terminal;
use crate::progress::keep_on_interrupt;
use crate::report::ExitStatus;

/// Whoever is still busy then is ended by force.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the thread for signals and the loop tell one another.
#[derive(Debug, Default)]
pub struct Shared {
    /// Process id of the program that has the terminal; 0 when we have it.
    child: AtomicI32,
    /// The signal that ends us; 0 when none has come.
    ending: AtomicI32,
}

impl Shared {
    /// Another program has the terminal.
    pub fn given_to(&self, child: u32) {
        self.child
            .store(i32::try_from(child).unwrap_or(0), Ordering::SeqCst);
        // It came between the decision to start the program and its start.
        if self.ending.load(Ordering::SeqCst) != 0 {
            self.end_child(Signal::TERM);
        }
    }

    /// We have it again.
    pub fn came_back(&self) {
        self.child.store(0, Ordering::SeqCst);
    }

    /// Ends the process as the signal that came would have, once the terminal is given back; SIGINT with status
    /// 130, as every command.
    pub fn finish(&self) {
        match self.ending.load(Ordering::SeqCst) {
            0 => {}
            SIGINT => signal_hook::low_level::exit(i32::from(ExitStatus::Interrupted.code())),
            signal => drop(emulate_default_handler(signal)),
        }
    }

    fn end_child(&self, signal: Signal) {
        if let Some(child) = Pid::from_raw(self.child.load(Ordering::SeqCst)) {
            let _ = kill_process(child, signal);
        }
    }
}

/// Watches for signals.
///
/// # Errors
/// When the kernel refuses.
pub fn watch(messages: Sender<Msg>) -> io::Result<Arc<Shared>> {
    let shared = Arc::new(Shared::default());
    let mine = Arc::clone(&shared);
    let mut signals = Signals::new([SIGTERM, SIGHUP, SIGINT, SIGQUIT])?;
    keep_on_interrupt();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let given = mine.child.load(Ordering::SeqCst) != 0;
            if given && matches!(signal, SIGINT | SIGQUIT) {
                continue;
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
