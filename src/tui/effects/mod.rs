//! The only code of the TUI that performs I/O. Everything that may wait for a disk or a network
//! runs on threads and answers with a message.
//!
//! A panic in an effect becomes an error answer: it must not end the session.

mod explain;
mod listing;
mod transfer;

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use cdh_store::{Store, StoreUrl};

use super::model::{RequestId, StoreLocation, TransferId, arrange};
use super::msg::{Effect, Msg};
use crate::pipeline;
use crate::render::terminal_line;
use crate::report::{ExitStatus, RenderedError, rendered};
use crate::settings::Settings;

/// Dumps read in parallel: the second continues while the first waits for the network.
const EXPLAINERS: usize = 2;
/// Dumps fetched in parallel.
const FETCHERS: usize = 2;

/// The store that is shown. Switching the store creates a new session; answers of the old one are
/// ignored.
pub(crate) struct Session {
    settings: Settings,
    store: Mutex<Option<Arc<dyn Store>>>,
    over: AtomicBool,
}

impl Session {
    fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            settings,
            store: Mutex::new(None),
            over: AtomicBool::new(false),
        })
    }

    /// The store; opened on first use.
    fn store(&self) -> Result<Arc<dyn Store>> {
        let mut store = lock(&self.store);
        if let Some(store) = &*store {
            return Ok(Arc::clone(store));
        }
        let opened: Arc<dyn Store> = pipeline::open_store(&self.settings)?.into();
        *store = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Makes the next use open the store again: a deleted store may exist again.
    fn forget_store(&self, error: &RenderedError) {
        if error.status != ExitStatus::Unreachable {
            *lock(&self.store) = None;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Job = Box<dyn FnOnce() + Send>;

/// A pool of threads that runs the newest job first: it is what the user looks at now.
struct Lane(Arc<(Mutex<VecDeque<Job>>, Condvar)>);

impl Lane {
    fn new(name: &str, threads: usize) -> Self {
        let shared: Arc<(Mutex<VecDeque<Job>>, Condvar)> = Arc::default();
        for _ in 0..threads {
            let mine = Arc::clone(&shared);
            let work = move || {
                loop {
                    let (queue, added) = &*mine;
                    let mut jobs = lock(queue);
                    let job = loop {
                        match jobs.pop_front() {
                            Some(job) => break job,
                            None => jobs = added.wait(jobs).unwrap_or_else(PoisonError::into_inner),
                        }
                    };
                    drop(jobs);
                    let _ = std::panic::catch_unwind(AssertUnwindSafe(job));
                }
            };
            // If no thread can be created, the jobs are not run.
            let _ = std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(work);
        }
        Self(shared)
    }

    fn push(&self, job: Job) {
        lock(&self.0.0).push_front(job);
        self.0.1.notify_one();
    }

    fn push_last(&self, job: Job) {
        lock(&self.0.0).push_back(job);
        self.0.1.notify_one();
    }
}

/// Runs work and turns a panic into an error.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T, RenderedError> {
    match std::panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(|error| rendered(&error)),
        Err(payload) => {
            let said = payload
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| payload.downcast_ref::<&str>().copied())
                .unwrap_or("no reason was given");
            Err(RenderedError {
                lines: vec![format!("cdh made a mistake: {}", terminal_line(said))],
                hints: vec!["report it; the other dumps can still be looked at".to_owned()],
                status: ExitStatus::Failure,
            })
        }
    }
}

/// Performs the effects that `update` returns.
pub struct Effects {
    session: Arc<Session>,
    messages: Sender<Msg>,
    debugger: String,
    /// The current listing; pages of older ones are dropped.
    listing: Arc<AtomicU64>,
    cancels: HashMap<TransferId, Arc<AtomicBool>>,
    explainers: Lane,
    names: Lane,
    fetchers: Lane,
    errands: Lane,
    arrangers: Lane,
    groupers: Lane,
    /// The current arrangement and grouping.
    wanted: [Arc<AtomicU64>; 2],
}

impl Effects {
    /// Creates the effects for this store.
    #[must_use]
    pub fn new(settings: Settings, debugger: String, messages: Sender<Msg>) -> Self {
        Self {
            session: Session::new(settings),
            messages,
            debugger,
            listing: Arc::default(),
            cancels: HashMap::new(),
            explainers: Lane::new("explain", EXPLAINERS),
            names: Lane::new("names", 1),
            fetchers: Lane::new("fetch", FETCHERS),
            errands: Lane::new("errands", 2),
            arrangers: Lane::new("arrange", 1),
            groupers: Lane::new("group", 1),
            wanted: Default::default(),
        }
    }

    /// Starts `effect`. An effect that needs the terminal is returned to the caller.
    #[must_use]
    pub fn perform(&mut self, effect: Effect) -> Option<Effect> {
        let session = Arc::clone(&self.session);
        let messages = self.messages.clone();
        match effect {
            Effect::List(request) => {
                self.listing.store(request.0, Ordering::SeqCst);
                let current = Arc::clone(&self.listing);
                let list = move || listing::list(&session, request, &current, &messages);
                std::thread::spawn(list);
            }
            Effect::Refresh(request, known) => {
                let work = move || listing::refresh(&session, request, &known, &messages);
                self.errands.push_last(Box::new(work));
            }
            Effect::Arrange(request, job) => {
                let is_wanted = self.wants(0, request);
                self.arrangers.push(Box::new(move || {
                    if is_wanted() {
                        let arranged = guarded(|| Ok(Box::new(arrange(&job))));
                        let _ = messages.send(Msg::Arranged(request, arranged));
                    }
                }));
            }
            Effect::Group(request, grouping) => {
                let is_wanted = self.wants(1, request);
                self.groupers.push(Box::new(move || {
                    if is_wanted() {
                        let groups = guarded(|| Ok(grouping.groups()));
                        let filter = grouping.filter.clone();
                        let _ = messages.send(Msg::Grouped(request, filter, groups));
                    }
                }));
            }
            Effect::Discard(rows, groups) => {
                self.errands
                    .push_last(Box::new(move || drop((rows, groups))));
            }
            Effect::Explain(request, dump, depth) => {
                let work = move || explain::explain(&session, request, &dump, depth, &messages);
                self.explainers.push(Box::new(work));
            }
            Effect::Name(request, dump) => {
                let work = move || explain::name(&session, request, dump, &messages);
                self.names.push_last(Box::new(work));
            }
            Effect::Facts(request, dumps) => {
                let work = move || listing::facts(&session, request, &dumps, &messages);
                self.errands.push(Box::new(work));
            }
            Effect::Source(request, wanted) => {
                let work = move || {
                    let source = explain::source(*wanted);
                    let _ = messages.send(Msg::Source(request, Box::new(source)));
                };
                self.errands.push(Box::new(work));
            }
            Effect::Transfer(id, dump, purpose) => {
                let cancelled = Arc::new(AtomicBool::new(false));
                self.cancels.insert(id, Arc::clone(&cancelled));
                let debugger = self.debugger.clone();
                let work = move || {
                    let observer = transfer::ProgressSender::new(id, cancelled, messages);
                    transfer::transfer(&session, &dump, purpose, &debugger, &observer);
                };
                self.fetchers.push_last(Box::new(work));
            }
            Effect::Cancel(id) => {
                if let Some(cancelled) = self.cancels.remove(&id) {
                    cancelled.store(true, Ordering::SeqCst);
                }
            }
            Effect::Delete(dump) => {
                let work = move || {
                    let outcome = guarded(|| {
                        let store = session.store()?;
                        cdh_store::remove_dump(store.as_ref(), &dump)
                            .map_err(|error| pipeline::store_failure(error, "delete from"))
                    });
                    let _ = messages.send(Msg::Deleted(dump, outcome));
                };
                self.errands.push_last(Box::new(work));
            }
            Effect::Switch(name) => self.switch(&name),
            Effect::Debug(..)
            | Effect::Pager(_)
            | Effect::Copy(_)
            | Effect::Mouse(_)
            | Effect::Suspend(_)
            | Effect::TakeTerminal => return Some(effect),
        }
        None
    }

    /// Whether this is still the newest request of its kind.
    fn wants(&self, kind: usize, request: RequestId) -> impl Fn() -> bool + Send + use<> {
        let newest = self.wanted.get(kind).cloned().unwrap_or_default();
        newest.store(request.0, Ordering::SeqCst);
        move || newest.load(Ordering::SeqCst) == request.0
    }

    fn switch(&mut self, name: &str) {
        let outcome = guarded(|| self.session.settings.with_store(name));
        let outcome = outcome.map(|settings| {
            self.session.over.store(true, Ordering::SeqCst);
            self.session = Session::new(settings);
            place(&self.session.settings)
        });
        let _ = self.messages.send(Msg::Switched(outcome));
    }
}

/// The location of the dumps, for display.
#[must_use]
pub fn place(settings: &Settings) -> StoreLocation {
    let mut stores: Vec<(String, String)> = settings
        .stores
        .iter()
        .map(|(name, url)| (name.clone(), shown(url)))
        .collect();
    let here = shown(&settings.store);
    if !stores.iter().any(|(_, url)| *url == here) {
        stores.insert(
            0,
            (
                settings.store.to_string(),
                "as named at the start".to_owned(),
            ),
        );
    }
    StoreLocation {
        store: here,
        is_default: settings.store_is_default,
        stores,
    }
}

/// Without options: they are long and do not help the user.
fn shown(url: &StoreUrl) -> String {
    let text = url.to_string();
    text.split('?').next().unwrap_or(&text).to_owned()
}
