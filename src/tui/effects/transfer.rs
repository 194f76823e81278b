//! Fetches dumps, for the user or for a debugger, and reports progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Instant;

use anyhow::Result;
use cdh_store::DumpSummary;

use super::{Session, guarded};
use crate::debugger::Invocation;
use crate::pipeline::{self, FetchOptions, Observer};
use crate::report::{ExitStatus, Failure};
use crate::settings::DebuggerChoice;
use crate::tui::model::{Purpose, TransferId};
use crate::tui::msg::{Fetched, Msg};

/// Minimum milliseconds between two messages about the same transfer.
const OFTEN: u64 = 100;

/// Converts progress into messages.
pub(super) struct ProgressSender {
    id: TransferId,
    cancelled: Arc<AtomicBool>,
    messages: Sender<Msg>,
    done: AtomicU64,
    last_sent: AtomicU64,
    begun: Instant,
}

impl ProgressSender {
    pub(super) fn new(id: TransferId, cancelled: Arc<AtomicBool>, messages: Sender<Msg>) -> Self {
        Self {
            id,
            cancelled,
            messages,
            done: AtomicU64::new(0),
            last_sent: AtomicU64::new(0),
            begun: Instant::now(),
        }
    }

    fn send(&self, msg: Msg) {
        // At the end of the session, the receiver is gone.
        let _ = self.messages.send(msg);
    }
}

impl Observer for ProgressSender {
    fn started(&self, what: &str, total: Option<u64>) {
        self.done.store(0, Ordering::SeqCst);
        self.send(Msg::Began(self.id, what.to_owned(), total));
    }

    fn advanced(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::SeqCst) + bytes;
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last_sent = self.last_sent.load(Ordering::SeqCst);
        let due = now >= last_sent.saturating_add(OFTEN);
        // Only one of several threads reports.
        let mine = || {
            self.last_sent
                .compare_exchange(last_sent, now, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
        };
        if due && mine() {
            self.send(Msg::Advanced(self.id, done));
        }
    }

    fn finished(&self) {
        self.send(Msg::Advanced(self.id, self.done.load(Ordering::SeqCst)));
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }
}

/// Fetches a dump.
pub(super) fn transfer(
    session: &Session,
    summary: &DumpSummary,
    purpose: Purpose,
    debugger: &str,
    observer: &ProgressSender,
) {
    let outcome = guarded(|| fetch(session, summary, purpose, debugger, observer));
    observer.send(Msg::Ended(observer.id, outcome));
}

fn fetch(
    session: &Session,
    summary: &DumpSummary,
    purpose: Purpose,
    debugger: &str,
    observer: &ProgressSender,
) -> Result<Fetched> {
    if purpose == Purpose::Debug {
        // Check this before the download.
        require(debugger)?;
    }
    stop_if_cancelled(observer)?;
    observer.started("opening the dump", None);
    let dump = pipeline::open_summary(&session.settings, &session.store()?, summary.clone())?;
    stop_if_cancelled(observer)?;
    match purpose {
        Purpose::Fetch => {
            let case =
                pipeline::fetch_with(&session.settings, &dump, &FetchOptions::default(), observer)?;
            Ok(Fetched::Here(case.path.display().to_string()))
        }
        Purpose::Debug => {
            let (view, _) = pipeline::debug_view(&session.settings, &dump, observer)?;
            stop_if_cancelled(observer)?;
            // gdb's greeting would scroll the crash off a small screen.
            let quiet = Invocation::is_gdb(debugger).then(|| "-q".into());
            let invocation = Invocation::new(debugger, &view, quiet.as_slice());
            Ok(Fetched::Ready(Box::new(invocation)))
        }
    }
}

fn stop_if_cancelled(observer: &ProgressSender) -> Result<()> {
    match observer.is_cancelled() {
        true => Err(Failure::new(ExitStatus::Interrupted, "cancelled").into()),
        false => Ok(()),
    }
}

fn require(debugger: &str) -> Result<()> {
    let choice = DebuggerChoice {
        program: debugger.to_owned(),
        origin: None,
    };
    let missing =
        |failure: Failure| failure.hint("the backtrace, registers and modules need no debugger");
    Ok(crate::debugger::require(&choice).map_err(missing)?)
}
