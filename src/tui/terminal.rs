//! The terminal, taken and given back exactly as it was.
//!
//! The invariant: whatever happens (end, error, panic, SIGTERM, a debugger that dies), the settings that
//! `stty -a` shows are those of the start, and the shell's own screen is shown again. `give_back` can be
//! called from anywhere any number of times; it neither allocates nor takes a lock.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Other screen, no cursor, pasted text in brackets.
const TAKE: &str = "\x1b[?1049h\x1b[?25l\x1b[?2004h\x1b[2J\x1b[H";
/// The reverse, and plain text; the mouse is the terminal's.
const GIVE_BACK: &str = "\x1b[?1006l\x1b[?1000l\x1b[?2004l\x1b[0m\x1b[?25h\x1b[?1049l";
/// Presses and the wheel, not every move; places above column 223 too.
const MOUSE_ON: &str = "\x1b[?1000h\x1b[?1006h";
const MOUSE_OFF: &str = "\x1b[?1006l\x1b[?1000l";

static BEFORE: OnceLock<Termios> = OnceLock::new();
static TAKEN: AtomicBool = AtomicBool::new(false);
static MOUSE: AtomicBool = AtomicBool::new(false);

/// The terminal is ours as long as this lives.
#[derive(Debug)]
pub struct Taken(());

impl Taken {
    /// Takes it.
    ///
    /// # Errors
    /// When it is no terminal.
    pub fn take(mouse: bool) -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let _ = BEFORE.set(before);
        MOUSE.store(mouse, Ordering::SeqCst);
        take()?;
        Ok(Self(()))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        give_back();
    }
}

/// Takes it, again where it was given to another program meanwhile.
///
/// # Errors
/// When it is gone.
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

/// Gives it back.
pub fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    // A terminal that is gone needs nothing back.
    let _ = write(stdout(), GIVE_BACK);
    if let Some(before) = BEFORE.get() {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, before);
    }
}

/// Sets what a debugger that died may have left behind to what it was.
pub fn mend() {
    if let Some(before) = BEFORE.get() {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, before);
    }
}

/// Takes the mouse, or leaves it to the terminal.
///
/// # Errors
/// When the terminal is gone.
pub fn set_mouse(mouse: bool) -> io::Result<()> {
    MOUSE.store(mouse, Ordering::SeqCst);
    write(stdout(), if mouse { MOUSE_ON } else { MOUSE_OFF })
}

/// Puts text into the terminal's clipboard (OSC 52), where it allows that.
///
/// # Errors
/// When the terminal is gone.
pub fn copy(text: &str) -> io::Result<()> {
    let encoded = base64_simd::STANDARD.encode_to_string(text);
    write(stdout(), &format!("\x1b]52;c;{encoded}\x07"))
}

/// Past all buffers: after a panic in the middle of drawing they may be locked.
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
