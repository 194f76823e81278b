//! The TUI: browse the dumps of a store, and start a debugger with one key.
//!
//! ```text
//! keys, signals, answers ─▶ Msg ─▶ update(&mut Model) ─▶ Effect ─▶ effects (threads) ─▶ Msg
//!                                        │
//!                                        ▼
//!                                 view(&Model) ─▶ terminal
//! ```
//!
//! Invariants: `update` is synchronous and performs no I/O. `view` only reads. Everything that may
//! block runs on another thread and has a request id, so that late answers are dropped. Keys are
//! processed before answers, so that a flood of answers does not delay a key.

mod commands;
mod details;
mod diff;
mod effects;
mod filter;
mod handoff;
mod help;
mod input;
mod keymap;
mod layout;
mod model;
mod msg;
mod pages;
mod signals;
mod styled;
mod terminal;
#[cfg(test)]
pub(crate) mod tests;
mod theme;
mod update;
mod view;

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use self::effects::Effects;
use self::handoff::{HandOff, suspend};
use self::input::Input;
use self::model::{Model, Start};
use self::msg::{Effect, Msg};
use self::theme::{Glyphs, Theme};
use crate::report::{ExitStatus, rendered};
use crate::settings::Settings;

/// Maximum time spent on answers before the screen is drawn again: half of a key's time budget.
const ANSWERS: Duration = Duration::from_millis(8);
/// The same after a key: it shows at once, and a user who holds a key down still sees arriving
/// answers.
const AFTER_A_KEY: Duration = Duration::from_millis(1);
/// Time between two ticks: while something is animated; until the selection is idle; otherwise.
const MOVING: Duration = Duration::from_millis(100);
const RESTING: Duration = Duration::from_millis(40);
const IDLE: Duration = Duration::from_millis(1000);

/// Options of the TUI.
#[derive(Clone, Debug)]
pub struct Options {
    /// Draw with ASCII only.
    pub ascii: bool,
    /// The initial filter.
    pub filter: String,
    /// Whether the TUI handles the mouse.
    pub mouse: bool,
    /// The debugger to start.
    pub debugger: String,
    /// Seconds between two automatic refreshes; 0 turns them off.
    pub refresh_seconds: u64,
}

/// Runs the TUI until the user quits.
///
/// # Errors
/// Fails if the terminal cannot be used.
pub fn run(settings: Settings, options: Options) -> Result<ExitStatus> {
    let (sender, receiver) = mpsc::channel();
    let signals = signals::watch(sender.clone()).context("cannot watch for signals")?;
    give_back_on_panic();
    let taken = terminal::TerminalGuard::take(options.mouse).context("cannot use the terminal")?;
    let input = Input::start(sender.clone());
    let size = ratatui::crossterm::terminal::size()?;
    let model = Model::new(Start {
        now: Timestamp::now(),
        size,
        theme: Theme::new(settings.terminal.colored),
        glyphs: Glyphs {
            ascii: options.ascii,
        },
        place: effects::place(&settings),
        mouse: options.mouse,
        refresh_seconds: options.refresh_seconds,
    });
    let mut session = Session {
        pager: settings.terminal.pager.clone(),
        effects: Effects::new(settings, options.debugger, sender),
        model,
        screen: Terminal::new(CrosstermBackend::new(io::stdout()))?,
        hand_off: HandOff {
            input: &input,
            signals: &signals,
        },
        begun: Instant::now(),
        ticked: Instant::now(),
        waiting: VecDeque::new(),
    };
    let effects = update::start(&mut session.model, &options.filter);
    let outcome = session
        .perform(effects)
        .and_then(|()| session.run(&receiver));
    drop(taken);
    signals.finish();
    outcome?;
    Ok(ExitStatus::Done)
}

/// Makes panics readable by restoring the terminal first. Panics in effect threads become answers
/// instead.
fn give_back_on_panic() {
    let main = std::thread::current().id();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == main {
            terminal::give_back();
            before(info);
        }
    }));
}

struct Session<'a> {
    model: Model,
    effects: Effects,
    screen: Terminal<CrosstermBackend<io::Stdout>>,
    hand_off: HandOff<'a>,
    pager: Vec<String>,
    begun: Instant,
    ticked: Instant,
    waiting: VecDeque<Msg>,
}

impl Session<'_> {
    fn run(&mut self, receiver: &Receiver<Msg>) -> Result<()> {
        while !self.model.quit {
            if std::mem::take(&mut self.model.redraw) {
                // The screen is empty now. `Terminal::clear` would query the cursor position, which
                // not every terminal answers.
                self.screen = Terminal::new(CrosstermBackend::new(io::stdout()))?;
            }
            // The resize event may arrive after the size changed.
            let size = self.screen.size()?;
            if self.model.size != (size.width, size.height) {
                self.take(Msg::Resize(size.width, size.height))?;
            }
            let model = &self.model;
            self.screen.draw(|frame| view::view(model, frame))?;
            self.wait(receiver)?;
        }
        Ok(())
    }

    /// Processes messages until the screen must be drawn again.
    fn wait(&mut self, receiver: &Receiver<Msg>) -> Result<()> {
        let pause = self.pause();
        let since = self.ticked.elapsed();
        if self.waiting.is_empty() {
            match receiver.recv_timeout(pause.saturating_sub(since)) {
                Ok(msg) => self.waiting.push_back(msg),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.model.quit = true,
            }
        }
        self.waiting.extend(receiver.try_iter());
        self.time();
        let (keys, answers): (VecDeque<Msg>, VecDeque<Msg>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(is_input);
        self.waiting = answers;
        let room = if keys.is_empty() {
            ANSWERS
        } else {
            AFTER_A_KEY
        };
        for msg in keys {
            self.take(msg)?;
        }
        let start = Instant::now();
        while start.elapsed() < room
            && let Some(msg) = self.waiting.pop_front()
        {
            self.take(msg)?;
            let come: Vec<Msg> = receiver.try_iter().collect();
            let pressed = come.iter().any(is_input);
            self.waiting.extend(come);
            if pressed {
                break;
            }
        }
        if self.ticked.elapsed() >= self.pause() {
            self.ticked = Instant::now();
            let (now, clock) = (self.model.now, self.model.clock);
            self.take(Msg::Tick { now, clock })?;
        }
        Ok(())
    }

    fn pause(&self) -> Duration {
        match (self.model.rest.done, self.model.is_busy()) {
            (false, _) => RESTING,
            (true, true) => MOVING,
            (true, false) => IDLE,
        }
    }

    fn time(&mut self) {
        self.model.now = Timestamp::now();
        self.model.clock = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    }

    fn take(&mut self, msg: Msg) -> Result<()> {
        let effects = update::update(&mut self.model, msg);
        self.perform(effects)
    }

    fn perform(&mut self, effects: Vec<Effect>) -> Result<()> {
        for effect in effects {
            let Some(effect) = self.effects.perform(effect) else {
                continue;
            };
            match effect {
                Effect::Debug(invocation, title) => {
                    let outcome = self.hand_off.debug(&invocation, &title);
                    self.returned(outcome)?;
                }
                Effect::Pager(text) => {
                    let outcome = self.hand_off.page(&self.pager, &text);
                    self.returned(outcome)?;
                }
                Effect::Suspend(stop) => {
                    let outcome = suspend(&self.hand_off, stop);
                    self.returned(
                        outcome
                            .map(|()| None)
                            .map_err(|error| rendered(&error.into())),
                    )?;
                }
                Effect::TakeTerminal => {
                    let outcome = terminal::take();
                    self.returned(
                        outcome
                            .map(|()| None)
                            .map_err(|error| rendered(&error.into())),
                    )?;
                }
                Effect::Copy(text) => terminal::copy(&text)?,
                Effect::Mouse(mouse) => terminal::set_mouse(mouse)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The terminal is ours again; its size may have changed.
    fn returned(
        &mut self,
        outcome: Result<Option<String>, crate::report::RenderedError>,
    ) -> Result<()> {
        let (width, height) = ratatui::crossterm::terminal::size()?;
        self.time();
        self.take(Msg::Resize(width, height))?;
        self.take(Msg::Returned(outcome))
    }
}

fn is_input(msg: &Msg) -> bool {
    matches!(
        msg,
        Msg::Key(_)
            | Msg::Mouse(_)
            | Msg::Paste(_)
            | Msg::Resize(..)
            | Msg::Terminate
            | Msg::Stop
            | Msg::Continued
    )
}
