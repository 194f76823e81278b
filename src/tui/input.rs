//! Reads keys, mouse and resize events in a thread that can be paused while another program has the
//! terminal.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event};

use super::msg::Msg;

/// How often the thread checks whether to pause. This is the maximum delay before a debugger gets
/// the terminal.
const LOOK: Duration = Duration::from_millis(30);

#[derive(Debug, Default)]
struct State {
    wanted_at_rest: bool,
    at_rest: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reader thread.
#[derive(Debug)]
pub struct Input(Arc<Shared>);

impl Input {
    /// Starts the thread.
    #[must_use]
    pub fn start(messages: Sender<Msg>) -> Self {
        let shared = Arc::new(Shared::default());
        let mine = Arc::clone(&shared);
        std::thread::spawn(move || read(&mine, &messages));
        Self(shared)
    }

    /// Pauses reading. Returns when the thread no longer reads, so the terminal can be handed over.
    pub fn rest(&self) {
        let mut state = self.0.state();
        state.wanted_at_rest = true;
        while !state.at_rest {
            state = self.0.wait(state);
        }
    }

    /// Resumes reading.
    pub fn go_on(&self) {
        self.0.state().wanted_at_rest = false;
        self.0.changed.notify_all();
    }
}

fn read(shared: &Shared, messages: &Sender<Msg>) {
    loop {
        let mut state = shared.state();
        while state.wanted_at_rest {
            state.at_rest = true;
            shared.changed.notify_all();
            state = shared.wait(state);
        }
        state.at_rest = false;
        drop(state);
        let found = match event::poll(LOOK) {
            Ok(false) => continue,
            Ok(true) => event::read(),
            Err(error) => Err(error),
        };
        let message = match found {
            Ok(Event::Key(key)) => Msg::Key(key),
            Ok(Event::Mouse(mouse)) => Msg::Mouse(mouse),
            Ok(Event::Paste(text)) => Msg::Paste(text),
            Ok(Event::Resize(width, height)) => Msg::Resize(width, height),
            Ok(Event::FocusGained | Event::FocusLost) => continue,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            // The terminal is gone.
            Err(_) => Msg::Terminate,
        };
        let gone = matches!(message, Msg::Terminate);
        if messages.send(message).is_err() || gone {
            // A caller that waits for the pause must not wait forever.
            shared.state().at_rest = true;
            shared.changed.notify_all();
            return;
        }
    }
}
