//! Queries runtimes in the background, starting when an entry appears in the spool.
//!
//! One thread watches the spool, another runs the queries concurrently. An answer is stored until its entry is
//! sealed and enriched. A lookup has [`DEADLINE`] in total, from its request. A runtime that recently missed a
//! deadline gets less time, so a hung runtime does not delay the upload of a storm of crashes.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cdh_bundle::{DumpId, EntryKind, Manifest, SpoolState, list_spool};
use cdh_cri::{Client, CriError};
use inotify::{Inotify, WatchMask};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::cri_lookup::{Runtimes, no_answer};
use super::lookup_cache::LookupCache;
use super::options::WorkloadOptions;
use super::pod_logs::read_logs;
use super::{Answer, PodTable};
use crate::error_chain::explain;
use crate::owner::ContainerIdentity;

/// Total time of a runtime for one dump.
const DEADLINE: Duration = Duration::from_secs(2);
/// Time limit while it is known to hang.
const SHORT_DEADLINE: Duration = Duration::from_millis(100);
/// How long a runtime counts as hung after a query without an answer.
const HUNG: Duration = Duration::from_secs(30);
/// Time between two lists of all containers; as often as the kubelet.
const REFRESH: Duration = Duration::from_secs(1);
/// How long an entry may take to name its owner, which the handler writes first.
const IDENTITY: Duration = Duration::from_secs(3);
/// Consecutive lists that a runtime must miss before it is reported as not answering: one may be late on a
/// busy node.
const MISSED: u32 = 2;
/// Maximum number of stored answers.
const MOST: usize = 4096;

/// Queries in progress, and their answers.
pub(super) struct Lookups {
    shared: Arc<Shared>,
    sender: Option<UnboundedSender<Wanted>>,
    spool: PathBuf,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    answers: Mutex<HashMap<DumpId, State>>,
    changed: Condvar,
    known: Mutex<LookupCache>,
    hung: Mutex<Option<Instant>>,
    /// `None` until the runtimes were queried for the first time.
    runtimes: Mutex<Option<BTreeMap<PathBuf, Answering>>>,
    listed: Condvar,
}

/// A runtime's answers to the last list queries.
#[derive(Debug, Default)]
struct Answering {
    /// Number of consecutive missing lists.
    failures: u32,
    /// Why the last of them failed.
    why: String,
}

enum State {
    Asking { until: Instant },
    Done(Box<Result<Answer, String>>),
}

enum Wanted {
    /// A new entry, which names the owner.
    Entry(DumpId),
    /// A container, and whether to wait for its end.
    Container {
        id: DumpId,
        container: ContainerIdentity,
        until: Instant,
        exit: bool,
    },
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lookups {
    /// Starts the lookups. The runtimes are queried for all their containers immediately, and then
    /// periodically.
    pub(super) fn begin(options: Arc<WorkloadOptions>, spool: &Path, table: PodTable) -> Self {
        let (sender, receiver) = unbounded_channel();
        let mut this = Self {
            shared: Arc::default(),
            sender: Some(sender),
            spool: spool.to_owned(),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        let shared = Arc::clone(&this.shared);
        let spool = spool.to_owned();
        this.spawn("cdh-cri", move || {
            serve(receiver, &shared, &options, &spool, table);
        });
        this
    }

    /// Looks up the containers of entries as soon as these appear.
    pub(super) fn watch(&mut self) {
        let Some(sender) = self.sender.clone() else {
            return;
        };
        let (spool, stop) = (self.spool.clone(), Arc::clone(&self.stop));
        self.spawn("cdh-spool", move || {
            // Without the watch, entries are looked up when they are sealed.
            let _ = watch_spool(&spool, &stop, &sender);
        });
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) {
        let thread = std::thread::Builder::new().name(name.to_owned());
        self.threads.extend(thread.spawn(run));
    }

    /// The answer about an entry's container: an existing one, one in progress, or a new one.
    pub(super) fn answer(
        &self,
        id: DumpId,
        container: &ContainerIdentity,
    ) -> Result<Answer, String> {
        if !locked(&self.shared.answers).contains_key(&id) {
            self.want(id, container, self.shared.time(), false);
        }
        self.wait(id)
    }

    /// Queries once more, until the container has ended or `limit` is over.
    pub(super) fn answer_after_exit(
        &self,
        id: DumpId,
        container: &ContainerIdentity,
        limit: Duration,
    ) -> Option<Answer> {
        self.want(id, container, limit, true);
        self.wait(id).ok()
    }

    /// Which runtimes answer, and why others do not; unknown ones are omitted.
    pub(super) fn runtimes(&self) -> BTreeMap<PathBuf, Result<(), String>> {
        let runtimes = locked(&self.shared.runtimes);
        let known = runtimes.iter().flatten().filter_map(|(socket, answering)| {
            let answer = match answering.failures {
                0 => Ok(()),
                failures if failures < MISSED => return None,
                _ => Err(answering.why.clone()),
            };
            Some((socket.clone(), answer))
        });
        known.collect()
    }

    /// The facts in a list about the container. For a new process, waits for the first list.
    pub(super) fn known_after_list(&self, container: &str) -> Option<Answer> {
        let runtimes = locked(&self.shared.runtimes);
        let is_unknown = |runtimes: &mut Option<_>| runtimes.is_none();
        let waited = self
            .shared
            .listed
            .wait_timeout_while(runtimes, DEADLINE, is_unknown);
        drop(waited);
        self.known(container)
    }

    /// The facts in a list about the container.
    pub(super) fn known(&self, container: &str) -> Option<Answer> {
        locked(&self.shared.known).get(container)
    }

    /// The container whose first process had this pid.
    pub(super) fn by_pid(&self, pid: u64) -> Option<String> {
        locked(&self.shared.known).by_pid(pid)
    }

    fn want(&self, id: DumpId, container: &ContainerIdentity, time: Duration, exit: bool) {
        let until = Instant::now() + time;
        locked(&self.shared.answers).insert(id, State::Asking { until });
        let container = container.clone();
        let wanted = Wanted::Container {
            id,
            container,
            until,
            exit,
        };
        if let Some(sender) = &self.sender {
            let _ = sender.send(wanted);
        }
    }

    fn wait(&self, id: DumpId) -> Result<Answer, String> {
        let mut answers = locked(&self.shared.answers);
        loop {
            let until = match answers.remove(&id) {
                Some(State::Done(answer)) => return *answer,
                Some(State::Asking { until }) => {
                    answers.insert(id, State::Asking { until });
                    until
                }
                None => return Err("nobody asked".to_owned()),
            };
            // Slightly more time than the lookup itself has.
            let limit = until + Duration::from_millis(50);
            let left = limit.saturating_duration_since(Instant::now());
            if left.is_zero() {
                answers.remove(&id);
                return Err(no_answer(DEADLINE));
            }
            let waited = self.shared.changed.wait_timeout(answers, left);
            answers = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Lookups {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.sender = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Time limit of the next query.
    fn time(&self) -> Duration {
        let hung = *locked(&self.hung);
        match hung.is_some_and(|since| since.elapsed() < HUNG) {
            true => SHORT_DEADLINE,
            false => DEADLINE,
        }
    }

    /// Records which runtimes answered; one whose socket no longer exists is removed.
    fn note_answers(&self, answered: Vec<(PathBuf, Result<(), String>)>) {
        let mut runtimes = locked(&self.runtimes);
        let mut before = runtimes.take().unwrap_or_default();
        let now = answered.into_iter().map(|(socket, answer)| {
            let mut answering = before.remove(&socket).unwrap_or_default();
            match answer {
                Ok(()) => answering.failures = 0,
                Err(why) => {
                    answering.failures = answering.failures.saturating_add(1);
                    answering.why = why;
                }
            }
            (socket, answering)
        });
        *runtimes = Some(now.collect());
        self.listed.notify_all();
    }

    fn put(&self, id: DumpId, answer: Result<Answer, String>) {
        let mut answers = locked(&self.answers);
        if answers.len() >= MOST {
            // Of entries that were never enriched: removed by hand, or in quarantine.
            answers.retain(|_, state| !matches!(state, State::Done(_)));
        }
        answers.insert(id, State::Done(Box::new(answer)));
        self.changed.notify_all();
    }
}

fn watch_spool(
    spool: &Path,
    stop: &AtomicBool,
    sender: &UnboundedSender<Wanted>,
) -> std::io::Result<()> {
    let mut inotify = Inotify::init()?;
    let mask = WatchMask::MOVED_TO | WatchMask::ONLYDIR;
    inotify.watches().add(spool, mask)?;
    for entry in list_spool(spool).unwrap_or_default() {
        if entry.state == SpoolState::Live {
            let _ = sender.send(Wanted::Entry(entry.id));
        }
    }
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: 200_000_000,
    };
    let mut buffer = [0; 16 << 10];
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::from_borrowed_fd(inotify.as_fd(), PollFlags::IN)];
        match poll(&mut ready, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        for event in inotify.read_events(&mut buffer)? {
            let name = event.name.and_then(|name| name.to_str());
            let id = name.and_then(|name| name.strip_suffix(".partial")?.parse().ok());
            if let Some(id) = id {
                let _ = sender.send(Wanted::Entry(id));
            }
        }
    }
    Ok(())
}

fn serve(
    mut receiver: UnboundedReceiver<Wanted>,
    shared: &Arc<Shared>,
    options: &Arc<WorkloadOptions>,
    spool: &Path,
    table: PodTable,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        // Every waiting caller gets this answer at the deadline.
        return;
    };
    runtime.block_on(async {
        let runtimes = Runtimes::new(Arc::clone(options));
        let refreshed = Arc::clone(shared);
        let (listing, writing) = (runtimes.clone(), table.clone());
        tokio::spawn(async move {
            loop {
                let with_pid = locked(&refreshed.known).with_pid();
                let listed = listing.list(&with_pid, DEADLINE).await;
                if !(listed.containers.is_empty() && listed.settings.is_empty()) {
                    locked(&refreshed.known).listed(listed.containers);
                    writing.keep(&listed.settings);
                }
                refreshed.note_answers(listed.answered);
                tokio::time::sleep(REFRESH).await;
            }
        });
        while let Some(wanted) = receiver.recv().await {
            let (shared, runtimes) = (Arc::clone(shared), runtimes.clone());
            let lines = options.log_lines;
            let (spool, table) = (spool.to_owned(), table.clone());
            tokio::spawn(async move {
                let (id, container, until, exit) = match wanted {
                    Wanted::Container {
                        id,
                        container,
                        until,
                        exit,
                    } => (id, container, until, exit),
                    Wanted::Entry(id) => {
                        let Some(container) = container_of(&spool, id, &shared.known).await else {
                            return;
                        };
                        let until = Instant::now() + shared.time();
                        let asking = State::Asking { until };
                        if let std::collections::hash_map::Entry::Vacant(place) =
                            locked(&shared.answers).entry(id)
                        {
                            place.insert(asking);
                        } else {
                            return;
                        }
                        (id, container, until, false)
                    }
                };
                let asked = ask(&runtimes, &container.id, lines, until, exit).await;
                // The container's end did not come in time, which says nothing about the runtime.
                if asked.is_some() {
                    *locked(&shared.hung) = None;
                } else if !exit {
                    *locked(&shared.hung) = Some(Instant::now());
                }
                let answer = asked.unwrap_or_else(|| Err(no_answer(DEADLINE)));
                if let Ok(answer) = &answer {
                    locked(&shared.known).seen(container.id, answer.clone());
                    if let Some(uid) = &answer.workload.pod_uid {
                        let _ = table.set(uid, &answer.settings);
                    }
                }
                shared.put(id, answer);
            });
        }
    });
}

/// Queries until the deadline; with `exit`, repeatedly until the container has ended. `None` if no
/// runtime answered.
async fn ask(
    runtimes: &Runtimes,
    container: &str,
    lines: usize,
    until: Instant,
    exit: bool,
) -> Option<Result<Answer, String>> {
    let mut last = None;
    loop {
        let asked = tokio::time::timeout_at(until.into(), runtimes.ask(container)).await;
        let Ok(answer) = asked else { return last };
        let answer = answer.map(|mut answer| {
            read_logs(&mut answer, lines);
            answer
        });
        let again = exit && answer.as_ref().is_ok_and(|answer| !answer.exited);
        // An answer from before the container's end is better than none from after it.
        if answer.is_ok() || last.is_none() {
            last = Some(answer);
        }
        if !again || Instant::now() + Duration::from_millis(20) > until {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The owner of an entry that has just appeared.
async fn container_of(
    spool: &Path,
    id: DumpId,
    known: &Mutex<LookupCache>,
) -> Option<ContainerIdentity> {
    let partial = spool.join(format!("{id}.partial/identity.json"));
    let sealed = spool
        .join(id.to_string())
        .join(EntryKind::Manifest.file_name());
    let deadline = Instant::now() + IDENTITY;
    while Instant::now() < deadline {
        for path in [&partial, &sealed] {
            let json = std::fs::read(path).ok();
            let manifest = json.and_then(|json| Manifest::from_json(&json).ok());
            if let Some(manifest) = manifest {
                return match &manifest.workload {
                    Some(_) => ContainerIdentity::of_manifest(&manifest)
                        .filter(ContainerIdentity::is_of_root),
                    None => locked(known)
                        .by_pid(manifest.process.pid)
                        .map(ContainerIdentity::of_id),
                };
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    None
}

/// The type of the runtime at this socket.
///
/// # Errors
/// Why none does.
pub(crate) fn runtime_at(socket: &Path) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let asked = async {
            let version = Client::connect(socket).await?.version().await?;
            Ok(format!(
                "{} {}",
                version.runtime_name, version.runtime_version
            ))
        };
        let answer: Result<String, CriError> = tokio::time::timeout(DEADLINE, asked)
            .await
            .map_err(|_| no_answer(DEADLINE))?;
        answer.map_err(|error| explain(&error))
    })
}
