//! The stream that the kernel writes a core to, read with patience that ends.
//!
//! The kernel writes nothing while it waits for a page of the process itself, and that may be for ever.
//! Invariant: after one silence that was too long, nothing more is read; a silence of any length that
//! matters gives up the place among the handlers that copy.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use super::slots::SlotRelease;
use crate::handler::os::poll::is_ready;

/// How long the kernel may write nothing where the memory can be read instead.
pub(crate) const BRIEF_PATIENCE: Duration = Duration::from_secs(5);
/// How long a silence may last before others may copy.
pub(crate) const BRIEF: Duration = Duration::from_millis(200);

/// The kernel's pipe or socket.
#[derive(Debug)]
pub(crate) struct CoreStream {
    file: File,
    patience: Duration,
    slot: Option<SlotRelease>,
    was_silent: bool,
}

impl CoreStream {
    /// Over what the kernel opened for us; it may write nothing for as long as `patience`.
    #[must_use]
    pub(crate) fn new(file: File, patience: Duration) -> Self {
        Self {
            file,
            patience,
            slot: None,
            was_silent: false,
        }
    }

    /// Waits only so long from now on, and gives up `slot` while it waits.
    pub(crate) fn wait_for(&mut self, patience: Duration, slot: Option<SlotRelease>) {
        self.patience = patience;
        self.slot = slot;
    }

    /// Whether the kernel was silent for too long.
    #[must_use]
    pub(crate) fn was_silent(&self) -> bool {
        self.was_silent
    }

    fn silence(&self) -> io::Error {
        let seconds = self.patience.as_secs();
        let what = format!("the kernel wrote nothing for {seconds} s");
        io::Error::new(io::ErrorKind::TimedOut, what)
    }
}

impl Read for CoreStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.was_silent {
            return Err(self.silence());
        }
        if !is_ready(&self.file, BRIEF.min(self.patience))? {
            if let Some(slot) = &self.slot {
                slot.release();
            }
            if !is_ready(&self.file, self.patience.saturating_sub(BRIEF))? {
                self.was_silent = true;
                return Err(self.silence());
            }
        }
        self.file.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn silent_stream_ends_and_stays_ended() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut stream =
            CoreStream::new(File::from(OwnedFd::from(reader)), Duration::from_secs(60));
        stream.wait_for(Duration::from_millis(20), None);
        writer.write_all(b"core").unwrap();
        let mut buffer = [0; 16];
        assert_eq!(stream.read(&mut buffer).unwrap(), 4);
        assert!(!stream.was_silent());
        for _ in 0..2 {
            let error = stream.read(&mut buffer).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            writer.write_all(b"late").unwrap();
        }
        assert!(stream.was_silent());
    }
}
