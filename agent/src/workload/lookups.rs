//! Asks runtimes in the background, from the moment in which an entry appears in the spool.
//!
//! One thread watches the spool, one runs the questions, side by side. An answer is kept until its
//! entry is sealed and enriched. A lookup has [`DEADLINE`] in all, from the moment it is wanted. A runtime that
//! has just missed one gets less. So a hung runtime does not delay the upload of a storm of crashes.

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

/// All that a runtime gets for one dump.
const DEADLINE: Duration = Duration::from_secs(2);
/// What it gets while it is known to hang.
const SHORT_DEADLINE: Duration = Duration::from_millis(100);
/// How long a runtime counts as hung after a question that it did not answer.
const HUNG: Duration = Duration::from_secs(30);
/// Between two lists of all containers; as often as the kubelet.
const REFRESH: Duration = Duration::from_secs(1);
/// How long an entry may take to name its owner: the handler writes that first.
const IDENTITY: Duration = Duration::from_secs(3);
/// Lists in a row that a runtime has to miss before it is said not to answer: one may be late on a busy node.
const MISSED: u32 = 2;
/// Answers that are kept at most.
const MOST: usize = 4096;

/// Questions that are under way, and their answers.
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
    /// `None` until the runtimes were asked for the first time.
    runtimes: Mutex<Option<BTreeMap<PathBuf, Answering>>>,
    listed: Condvar,
}

/// How a runtime answered the last lists that it was asked for.
#[derive(Debug, Default)]
struct Answering {
    /// Lists in a row that did not come.
    failures: u32,
    /// Why the last of them did not.
    why: String,
}

enum State {
    Asking { until: Instant },
    Done(Box<Result<Answer, String>>),
}

enum Wanted {
    /// An entry that appeared: it names the owner.
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
    /// Is ready to be asked. The runtimes are asked for all their containers at once, and again and
    /// again.
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

    /// Looks up the containers of entries from the moment in which these appear.
    pub(super) fn watch(&mut self) {
        let Some(sender) = self.sender.clone() else {
            return;
        };
        let (spool, stop) = (self.spool.clone(), Arc::clone(&self.stop));
        self.spawn("cdh-spool", move || {
            // Without it entries are looked up when they are sealed.
            let _ = watch_spool(&spool, &stop, &sender);
        });
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) {
        let thread = std::thread::Builder::new().name(name.to_owned());
        self.threads.extend(thread.spawn(run));
    }

    /// The answer about an entry's container: the one that is there, or under way, or a new one.
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

    /// Asks once more, until the container has ended or `limit` is over.
    pub(super) fn answer_after_exit(
        &self,
        id: DumpId,
        container: &ContainerIdentity,
        limit: Duration,
    ) -> Option<Answer> {
        self.want(id, container, limit, true);
        self.wait(id).ok()
    }

    /// Which runtimes answer, and why others do not; those that nothing is known of yet are left out.
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

    /// What a list showed about the container. Waits for the first list of a process that has just begun.
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

    /// What a list showed about the container.
    pub(super) fn known(&self, container: &str) -> Option<Answer> {
        locked(&self.shared.known).get(container)
    }

    /// The container whose first process this was.
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
            // A little more than the lookup itself has.
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
    /// How long the next question may take.
    fn time(&self) -> Duration {
        let hung = *locked(&self.hung);
        match hung.is_some_and(|since| since.elapsed() < HUNG) {
            true => SHORT_DEADLINE,
            false => DEADLINE,
        }
    }

    /// Notes which runtimes answered; one whose socket is no longer there is forgotten.
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
        // Every waiting caller gets this answer when the time is over.
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
                // Waiting for an end that does not come says nothing about the runtime.
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

/// Asks until the time is over; with `exit`, again and again until the container has ended. `None`
/// if no runtime answered.
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
        // An answer from before it went is better than none from after.
        if answer.is_ok() || last.is_none() {
            last = Some(answer);
        }
        if !again || Instant::now() + Duration::from_millis(20) > until {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whose an entry is that has just appeared.
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

/// Which runtime answers at this socket.
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
