//! Reports each crash that is new on this node: to webhooks, and as an Event on the pod.
//!
//! A crash is new if its fingerprint is new in its workload. Each receiver has its own thread,
//! bounded queue, retries and time limits. A receiver that hangs delays neither other receivers,
//! nor captures, nor uploads. Failed deliveries are counted and logged. Our messages never contain
//! URLs, header fields or tokens.

mod api_server;
mod crash;
mod delivery;
mod kubernetes;
mod seen;
mod webhook;
mod webhook_config;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cdh_bundle::Manifest;

pub(crate) use api_server::is_name;
pub use api_server::{AccountError, ApiServer};
pub use crash::{Crash, CrashKey};
pub use delivery::{Attempt, Deliver};
pub use kubernetes::KubernetesEvents;
pub use webhook::Webhook;
pub use webhook_config::{Secret, WebhookConfig, WebhookFormat};

use seen::Seen;

/// Queue length of one receiver. Further crashes in a storm are dropped and counted.
const QUEUE: usize = 64;
/// Maximum attempts for one message.
const TRIES: u32 = 6;
/// Time before the second attempt; doubles after each.
const PAUSE: Duration = Duration::from_secs(2);
/// How long shutdown waits for messages in progress.
const FAREWELL: Duration = Duration::from_secs(3);

/// Result of a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryReport {
    /// `webhook` or `kubernetes`.
    pub target: &'static str,
    /// The receiver's name in the configuration.
    pub name: String,
    /// Id of the dump.
    pub id: String,
    /// The result.
    pub outcome: Outcome,
}

/// Result of a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver accepted it.
    Sent,
    /// Delivery failed, with the reason.
    Failed(String),
    /// The queue was full.
    Dropped,
}

impl Outcome {
    /// The value of the metric's label.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed(_) => "failed",
            Self::Dropped => "dropped",
        }
    }
}

/// Receives the result of each message, from several threads.
pub type Report = Arc<dyn Fn(&DeliveryReport) + Send + Sync>;

/// Sends notifications to all configured receivers.
pub struct Notifier {
    receivers: Vec<Receiver>,
    seen: Seen,
    stop: Arc<AtomicBool>,
    report: Report,
}

struct Receiver {
    target: &'static str,
    name: String,
    sender: Option<SyncSender<Arc<Crash>>>,
    thread: JoinHandle<()>,
}

impl Notifier {
    /// Starts a thread for each receiver. Crashes reported earlier are remembered below `state`.
    #[must_use]
    pub fn begin(receivers: Vec<Box<dyn Deliver>>, state: &Path, report: Report) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let begin = |deliver: Box<dyn Deliver>| {
            let (target, name) = (deliver.target(), deliver.name());
            let (sender, queue) = sync_channel::<Arc<Crash>>(QUEUE);
            let (stop, report, own) = (Arc::clone(&stop), Arc::clone(&report), name.clone());
            let work = move || {
                while let Ok(crash) = queue.recv() {
                    let outcome = deliver_patiently(deliver.as_ref(), &crash, &stop);
                    let id = crash.id.clone();
                    report(&DeliveryReport {
                        target,
                        name: own.clone(),
                        id,
                        outcome,
                    });
                }
            };
            let thread = std::thread::Builder::new().name(format!("cdh-{target}"));
            let thread = thread.spawn(work).ok()?;
            Some(Receiver {
                target,
                name,
                sender: Some(sender),
                thread,
            })
        };
        Self {
            receivers: receivers.into_iter().filter_map(begin).collect(),
            seen: Seen::read(state),
            stop,
            report,
        }
    }

    /// Queues a notification about a dump if its crash is new on this node. Does not block.
    pub fn notice(&mut self, manifest: &Manifest) {
        if self.receivers.is_empty() {
            return;
        }
        let crash = Arc::new(Crash::of(manifest));
        if !self.seen.is_new(&crash.key) {
            return;
        }
        for receiver in &self.receivers {
            let Some(sender) = &receiver.sender else {
                continue;
            };
            if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
                sender.try_send(Arc::clone(&crash))
            {
                (self.report)(&DeliveryReport {
                    target: receiver.target,
                    name: receiver.name.clone(),
                    id: crash.id.clone(),
                    outcome: Outcome::Dropped,
                });
            }
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        for receiver in &mut self.receivers {
            receiver.sender = None;
        }
        let deadline = Instant::now() + FAREWELL;
        let busy = |receivers: &[Receiver]| receivers.iter().any(|one| !one.thread.is_finished());
        while busy(&self.receivers) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.stop.store(true, Ordering::Relaxed);
        for receiver in self.receivers.drain(..) {
            // A thread in the middle of a request ends with the process.
            if receiver.thread.is_finished() {
                let _ = receiver.thread.join();
            }
        }
    }
}

fn deliver_patiently(deliver: &dyn Deliver, crash: &Crash, stop: &AtomicBool) -> Outcome {
    let mut pause = deliver.pause().unwrap_or(PAUSE);
    let mut tries = 0;
    loop {
        tries += 1;
        let why = match deliver.deliver(crash) {
            Attempt::Done => return Outcome::Sent,
            Attempt::Refused(why) => return Outcome::Failed(why),
            Attempt::Later(why) => why,
        };
        if tries >= TRIES || stop.load(Ordering::Relaxed) {
            return Outcome::Failed(format!("{why}, {tries} tries"));
        }
        let until = Instant::now() + pause;
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            let left = until.saturating_duration_since(Instant::now());
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
        pause = pause.saturating_mul(2);
    }
}

#[cfg(test)]
#[path = "notify_tests.rs"]
mod tests;
