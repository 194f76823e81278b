//! Shows progress on standard error, only on a terminal, and handles Ctrl-C, which ends a command
//! with status 130.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::pipeline::Observer;
use crate::render::terminal_line;
use crate::report::ExitStatus;

/// Whether SIGINT ends the program at once; set by [`end_on_interrupt`].
static ENDS_AT_ONCE: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on, SIGINT ends the program with status 130, whatever it waits for, until [`Interrupt::catch`]
/// or [`keep_on_interrupt`]. If the program was started with SIGINT ignored, it remains ignored.
pub fn end_on_interrupt() {
    if is_interrupt_ignored() {
        return;
    }
    if let Some(ends) = ENDS_AT_ONCE.get() {
        ends.store(true, Ordering::SeqCst);
        return;
    }
    let ends = ENDS_AT_ONCE.get_or_init(|| Arc::new(AtomicBool::new(true)));
    let status = i32::from(ExitStatus::Interrupted.code());
    // If the handler cannot be installed, the signal still ends the program.
    let _ = signal_hook::flag::register_conditional_shutdown(SIGINT, status, Arc::clone(ends));
}

/// From now on, another part of the program handles SIGINT.
pub fn keep_on_interrupt() {
    if let Some(ends) = ENDS_AT_ONCE.get() {
        ends.store(false, Ordering::SeqCst);
    }
}

/// Whether SIGINT is ignored, as in a job that a shell without job control put into the background (`proc(5)`,
/// `SigIgn`).
pub fn is_interrupt_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (SIGINT - 1)) != 0)
}

/// Set by the first SIGINT or SIGTERM; the second one ends the program.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on, signals only request a stop.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn catch() -> io::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            let status = i32::from(ExitStatus::Interrupted.code());
            // The order matters: the second signal must find the flag set.
            signal_hook::flag::register_conditional_shutdown(signal, status, Arc::clone(&flag))?;
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        keep_on_interrupt();
        Ok(Self(flag))
    }

    /// Whether one came.
    #[must_use]
    pub fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Several bars, for parallel work.
#[derive(Debug)]
pub struct Bars {
    bars: MultiProgress,
    interrupt: Option<Interrupt>,
}

impl Bars {
    /// Bars that show nothing unless `interactive`; `interrupt` cancels their work.
    #[must_use]
    pub fn new(interactive: bool, interrupt: Option<Interrupt>) -> Self {
        let bars = MultiProgress::with_draw_target(target(interactive));
        Self { bars, interrupt }
    }

    /// One more.
    #[must_use]
    pub fn bar(&self) -> Bar {
        Bar {
            bar: self.bars.add(ProgressBar::no_length()),
            interrupt: self.interrupt.clone(),
        }
    }
}

fn target(interactive: bool) -> ProgressDrawTarget {
    if interactive {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    }
}

/// A bar for each step of long work.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
    interrupt: Option<Interrupt>,
}

impl Bar {
    /// A bar that shows nothing unless `interactive`.
    #[must_use]
    pub fn new(interactive: bool) -> Self {
        Self {
            bar: ProgressBar::with_draw_target(None, target(interactive)),
            interrupt: None,
        }
    }
}

impl Observer for Bar {
    fn started(&self, what: &str, total: Option<u64>) {
        self.bar.reset();
        let template = if let Some(total) = total {
            self.bar.set_length(total);
            "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}"
        } else {
            "{spinner} {msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_message(terminal_line(what));
        self.bar.enable_steady_tick(Duration::from_millis(120));
    }

    fn resumed(&self, bytes: u64) {
        self.bar.inc(bytes);
        // Bytes of an earlier run must not count towards the rate.
        self.bar.reset_eta();
    }

    fn advanced(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn finished(&self) {
        self.bar.finish_and_clear();
    }

    fn is_cancelled(&self) -> bool {
        self.interrupt.as_ref().is_some_and(Interrupt::came)
    }
}
