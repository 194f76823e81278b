//! Makes the process that the kernel started into a safe place: it starts with no environment, with
//! descriptors 1 and 2 closed, and with secrets of a stranger soon in its memory.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, set_dumpable_behavior, umask};

/// No other process may inspect this one, its files are its own, descriptors 0 to 2 are open.
///
/// # Errors
/// When a descriptor cannot be opened; the rest is done.
pub(crate) fn protect() -> io::Result<()> {
    // A handler that crashes must not be dumped by a handler; nor may a debugger attach.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    umask(Mode::RWXG | Mode::RWXO);
    // A file opened later must never become what the standard library takes for stderr.
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        if file.as_raw_fd() > 2 {
            return Ok(());
        }
        let _ = file.into_raw_fd();
    }
}
