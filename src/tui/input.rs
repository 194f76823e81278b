//! Keys, mouse and sizes, read by a thread that can be made to leave the terminal to another program.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event};

use super::msg::Msg;

/// How often the thread looks whether it should rest: as long a debugger waits for the terminal at most.
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

/// The thread that reads.
#[derive(Debug)]
pub struct Input(Arc<Shared>);

impl Input {
    /// Starts it.
    #[must_use]
    pub fn start(messages: Sender<Msg>) -> Self {
        let shared = Arc::new(Shared::default());
        let mine = Arc::clone(&shared);
        std::thread::spawn(move || read(&mine, &messages));
        Self(shared)
    }

    /// Returns when nothing is read any more: the terminal can be given away.
    pub fn rest(&self) {
        let mut state = self.0.state();
        state.wanted_at_rest = true;
        while !state.at_rest {
            state = self.0.wait(state);
        }
    }

    /// Reads again.
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
            // Whoever waits for the rest must not wait for ever.
            shared.state().at_rest = true;
            shared.changed.notify_all();
            return;
        }
    }
}
