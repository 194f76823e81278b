//! Takes over the terminal and restores it exactly.
//!
//! Invariant: whatever happens (exit, error, panic, SIGTERM, a debugger that dies), the settings
//! that `stty -a` shows are the initial ones, and the shell's screen is shown again. `give_back`
//! can be called from anywhere, any number of times; it neither allocates nor locks.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Alternate screen, hidden cursor, bracketed paste.
const TAKE: &str = "\x1b[?1049h\x1b[?25l\x1b[?2004h\x1b[2J\x1b[H";
/// The reverse, plus plain text and mouse events off.
const GIVE_BACK: &str = "\x1b[?1006l\x1b[?1000l\x1b[?2004l\x1b[0m\x1b[?25h\x1b[?1049l";
/// Mouse presses and the wheel, but no moves; SGR mode, for columns above 223.
const MOUSE_ON: &str = "\x1b[?1000h\x1b[?1006h";
const MOUSE_OFF: &str = "\x1b[?1006l\x1b[?1000l";

static BEFORE: OnceLock<Termios> = OnceLock::new();
static TAKEN: AtomicBool = AtomicBool::new(false);
static MOUSE: AtomicBool = AtomicBool::new(false);

/// The TUI has the terminal while this exists.
#[derive(Debug)]
pub struct TerminalGuard(());

impl TerminalGuard {
    /// Takes the terminal.
    ///
    /// # Errors
    /// Fails if standard input is not a terminal.
    pub fn take(mouse: bool) -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let _ = BEFORE.set(before);
        MOUSE.store(mouse, Ordering::SeqCst);
        take()?;
        Ok(Self(()))
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        give_back();
    }
}

/// Takes the terminal, possibly again after another program used it.
///
/// # Errors
/// Fails if the terminal is gone.
pub fn take() -> io::Result<()> {
    if let Some(before) = BEFORE.get() {
        let mut raw = before.clone();
        raw.make_raw();
        TAKEN.store(true, Ordering::SeqCst);
        tcsetattr(stdin(), OptionalActions::Drain, &raw)?;
        write(stdout(), TAKE)?;
        set_mouse(MOUSE.load(Ordering::SeqCst))?;
    }
    Ok(())
}

/// Restores the terminal.
pub fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    // Errors are ignored: the terminal may be gone.
    let _ = write(stdout(), GIVE_BACK);
    if let Some(before) = BEFORE.get() {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, before);
    }
}

/// Repairs settings that a crashed debugger may have left behind.
pub fn mend() {
    if let Some(before) = BEFORE.get() {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, before);
    }
}

/// Enables or disables mouse events.
///
/// # Errors
/// Fails if the terminal is gone.
pub fn set_mouse(mouse: bool) -> io::Result<()> {
    MOUSE.store(mouse, Ordering::SeqCst);
    write(stdout(), if mouse { MOUSE_ON } else { MOUSE_OFF })
}

/// Copies text to the terminal's clipboard (OSC 52), if the terminal allows it.
///
/// # Errors
/// Fails if the terminal is gone.
pub fn copy(text: &str) -> io::Result<()> {
    let encoded = base64_simd::STANDARD.encode_to_string(text);
    write(stdout(), &format!("\x1b]52;c;{encoded}\x07"))
}

/// Bypasses all buffers: after a panic while drawing, they may be locked.
fn write(to: BorrowedFd<'_>, text: &str) -> io::Result<()> {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
