//! Fetches dumps, for their own sake or for a debugger, and tells how far it is.

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

/// Milliseconds between two messages about the same transfer.
const OFTEN: u64 = 100;

/// Turns progress into messages.
pub(super) struct Telling {
    id: TransferId,
    cancelled: Arc<AtomicBool>,
    messages: Sender<Msg>,
    done: AtomicU64,
    told: AtomicU64,
    begun: Instant,
}

impl Telling {
    pub(super) fn new(id: TransferId, cancelled: Arc<AtomicBool>, messages: Sender<Msg>) -> Self {
        Self {
            id,
            cancelled,
            messages,
            done: AtomicU64::new(0),
            told: AtomicU64::new(0),
            begun: Instant::now(),
        }
    }

    fn tell(&self, msg: Msg) {
        // Nobody listens any more at the end of the session.
        let _ = self.messages.send(msg);
    }
}

impl Observer for Telling {
    fn started(&self, what: &str, total: Option<u64>) {
        self.done.store(0, Ordering::SeqCst);
        self.tell(Msg::Began(self.id, what.to_owned(), total));
    }

    fn advanced(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::SeqCst) + bytes;
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let told = self.told.load(Ordering::SeqCst);
        let due = now >= told.saturating_add(OFTEN);
        // Of several threads one tells.
        let mine = || {
            self.told
                .compare_exchange(told, now, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
        };
        if due && mine() {
            self.tell(Msg::Advanced(self.id, done));
        }
    }

    fn finished(&self) {
        self.tell(Msg::Advanced(self.id, self.done.load(Ordering::SeqCst)));
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
    observer: &Telling,
) {
    let outcome = guarded(|| fetch(session, summary, purpose, debugger, observer));
    observer.tell(Msg::Ended(observer.id, outcome));
}

fn fetch(
    session: &Session,
    summary: &DumpSummary,
    purpose: Purpose,
    debugger: &str,
    observer: &Telling,
) -> Result<Fetched> {
    if purpose == Purpose::Debug {
        // Before the download, not after it.
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
            // Its greeting would scroll the crash off a small screen.
            let quiet = Invocation::is_gdb(debugger).then(|| "-q".into());
            let invocation = Invocation::new(debugger, &view, quiet.as_slice());
            Ok(Fetched::Ready(Box::new(invocation)))
        }
    }
}

fn stop_if_cancelled(observer: &Telling) -> Result<()> {
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
