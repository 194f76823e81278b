//! Progress on standard error, and only on a terminal; Ctrl-C as a wish instead of an end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::pipeline::Observer;
use crate::render::terminal_line;
use crate::report::ExitStatus;

/// Set by the first SIGINT or SIGTERM; the second one ends the program.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on signals are wishes.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn catch() -> io::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            let status = i32::from(ExitStatus::Interrupted.code());
            // In this order: the second signal finds the flag set.
            signal_hook::flag::register_conditional_shutdown(signal, status, Arc::clone(&flag))?;
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Self(flag))
    }

    /// Whether one came.
    #[must_use]
    pub fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bars one below the other, for work that goes on at the same time.
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

/// A bar for each piece of long work.
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
        // What was done before says nothing about the rate.
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
