//! The handler's log: one line per dump in the kernel log, the details inside the dump.
//!
//! The handler has no terminal and no syslog; the kernel log is the one place an operator surely
//! finds. Texts from outside enter a line only in escaped form.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Instant;

/// Bytes of the log kept in a dump at most.
const LOG_LIMIT: usize = 256 << 10;
/// Bytes of one kernel log record; the kernel takes about 1000.
const KMSG_LIMIT: usize = 900;

/// Urgency in the kernel log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// A core could not be kept.
    Error = 3,
    /// Something is missing.
    Warning = 4,
    /// A dump was taken.
    Info = 6,
}

/// Gathers the lines of one run.
#[derive(Debug)]
pub struct HandlerLog {
    begun: Instant,
    lines: String,
}

impl Default for HandlerLog {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            lines: String::new(),
        }
    }
}

impl HandlerLog {
    /// Adds a line to the log inside the dump, with the milliseconds since the start.
    pub fn note(&mut self, line: &str) {
        if self.lines.len() + line.len() < LOG_LIMIT {
            let elapsed = self.begun.elapsed().as_secs_f64() * 1e3;
            let _ = writeln!(self.lines, "{elapsed:10.3} ms  {}", one_line(line));
        }
    }

    /// All lines.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.lines
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> std::time::Duration {
        self.begun.elapsed()
    }
}

/// Writes a line to the kernel log, if that can be done.
pub(crate) fn kernel_log(level: Level, line: &str) {
    let mut record = format!("<{}>cdh: {}", level as u8, one_line(line));
    if record.len() > KMSG_LIMIT {
        let mut end = KMSG_LIMIT;
        while !record.is_char_boundary(end) {
            end -= 1;
        }
        record.truncate(end);
    }
    record.push('\n');
    if let Ok(mut kmsg) = OpenOptions::new().write(true).open("/dev/kmsg") {
        // One write is one record.
        let _ = kmsg.write(record.as_bytes());
    }
}

/// The text without line breaks and other control characters, whatever the caller forgot to escape.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// Size for people: `2.0 GiB`.
#[must_use]
#[allow(clippy::cast_precision_loss)]
pub(crate) fn readable_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", UNITS.get(unit).unwrap_or(&"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line() {
        let mut log = HandlerLog::default();
        log.note("a\nb\x1b[31m");
        assert_eq!(log.text().lines().count(), 1);
        assert!(log.text().ends_with("a?b?[31m\n"));
    }

    #[test]
    fn sizes_read_well() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (2 << 30, "2.0 GiB"),
            (1536, "1.5 KiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(readable_size(bytes), text);
        }
    }
}
