//! Progress on standard error, and only on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::pipeline::Observer;
use crate::render::terminal_line;

/// A bar for each piece of long work.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar that shows nothing unless `interactive`.
    #[must_use]
    pub fn new(interactive: bool) -> Self {
        let target = if interactive {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Self(ProgressBar::with_draw_target(None, target))
    }
}

impl Observer for Bar {
    fn started(&self, what: &str, total: Option<u64>) {
        self.0.reset();
        let template = if let Some(total) = total {
            self.0.set_length(total);
            "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}"
        } else {
            "{spinner} {msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
        self.0.set_message(terminal_line(what));
        self.0.enable_steady_tick(Duration::from_millis(120));
    }

    fn advanced(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn finished(&self) {
        self.0.finish_and_clear();
    }
}
