//! Counts the shipper's events, and combines them with ledger and spool on request.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cdh_bundle::{Manifest, SpoolEntry, SpoolState, WorkloadKind, list_spool};
use jiff::Timestamp;

use super::exposition::Exposition;
use super::textfile;
use crate::diagnose::status::PatternOwner;
use crate::ledger::{BYTES, Histogram, Ledger, SECONDS};
use crate::node::settings::NodeSettings;
use crate::paths::AgentPaths;
use crate::policy::SetuidPolicy;
use crate::shipper::{ShipperEvent, ShipperRecord};
use crate::spool::{SpoolCount, count};

/// Maximum time between two events of the shipper. It scans the spool every ten seconds, and an
/// upload reports its progress.
const SILENCE: Duration = Duration::from_secs(600);
/// Minimum time between two counts of the spool, even if requests come more often.
const COUNT_PAUSE: Duration = Duration::from_secs(2);
/// Minimum time between two writes of the file.
const FILE_PAUSE: Duration = Duration::from_secs(5);

/// Whether the agent captures crashes on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It captures crashes.
    Ready,
    /// It does not, for this reason.
    Lost(String),
}

/// State of a running agent, collected for metrics and health checks.
pub struct Watcher {
    paths: AgentPaths,
    textfile: Option<PathBuf>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    heard: Option<Instant>,
    readiness: Option<Readiness>,
    passes: u64,
    passed_at: Option<SystemTime>,
    shipped: u64,
    shipped_bytes: u64,
    shipped_at: Option<SystemTime>,
    upload_seconds: Histogram,
    store_failures: u64,
    entry_failures: u64,
    store_down: Option<SystemTime>,
    quarantined: u64,
    salvaged: u64,
    kept: u64,
    unwanted: u64,
    without_workload: u64,
    /// Whether each runtime answers, by socket.
    runtimes: BTreeMap<PathBuf, bool>,
    notified: BTreeMap<(&'static str, &'static str), u64>,
    spool: Option<(Instant, Spool)>,
    written: Option<Instant>,
    write_failures: u64,
}

#[derive(Clone, Default)]
struct Spool {
    count: Option<SpoolCount>,
    /// Sealed dumps that stay on the node; `count` counts them as sealed.
    kept: u64,
    /// When the oldest dump that waits for the store was sealed, in seconds since the epoch.
    oldest: Option<i64>,
    /// The same for dumps that stay on the node.
    oldest_kept: Option<i64>,
    free: Option<u64>,
    size: Option<u64>,
}

impl Watcher {
    /// Watches the agent with these paths. Metrics are also written to `textfile`.
    #[must_use]
    pub fn new(paths: AgentPaths, textfile: Option<PathBuf>) -> Self {
        let counts = Counts {
            heard: Some(Instant::now()),
            ..Counts::default()
        };
        Self {
            paths,
            textfile,
            counts: Mutex::new(counts),
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records an event of the shipper. Returns the first error in writing the file.
    pub fn notice(&self, event: &ShipperEvent) -> Option<String> {
        let mut counts = self.counts();
        let counts = &mut *counts;
        counts.heard = Some(Instant::now());
        match event {
            ShipperEvent::Shipped { bytes, took, .. } => {
                counts.shipped += 1;
                counts.shipped_bytes = counts.shipped_bytes.saturating_add(*bytes);
                counts.shipped_at = Some(SystemTime::now());
                counts.upload_seconds.add(&SECONDS, took.as_secs_f64());
            }
            ShipperEvent::StoreFailed { .. } => {
                counts.store_failures += 1;
                counts.store_down.get_or_insert_with(SystemTime::now);
            }
            ShipperEvent::StoreBack => counts.store_down = None,
            ShipperEvent::Failed { .. } => counts.entry_failures += 1,
            ShipperEvent::Quarantined { .. } => counts.quarantined += 1,
            ShipperEvent::Salvaged { .. } => counts.salvaged += 1,
            ShipperEvent::Kept { .. } => counts.kept += 1,
            ShipperEvent::Unwanted { .. } => counts.unwanted += 1,
            ShipperEvent::NotEnriched { .. } => counts.without_workload += 1,
            ShipperEvent::Sealed { manifest } if !is_described(manifest) => {
                counts.without_workload += 1;
            }
            ShipperEvent::Runtime { socket, trouble } => {
                counts.runtimes.insert(socket.clone(), trouble.is_none());
            }
            ShipperEvent::Pass => {
                counts.passes += 1;
                counts.passed_at = Some(SystemTime::now());
            }
            _ => {}
        }
        if !matches!(event, ShipperEvent::Pass) {
            return None;
        }
        let path = self.textfile.as_ref()?;
        if counts.written.is_some_and(|at| at.elapsed() < FILE_PAUSE) {
            return None;
        }
        counts.written = Some(Instant::now());
        let text = self.text(counts);
        let error = textfile::write(path, &text).err()?;
        counts.write_failures += 1;
        (counts.write_failures == 1).then(|| format!("cannot write {}: {error}", path.display()))
    }

    /// Records the result of a notification.
    pub fn notified(&self, target: &'static str, result: &'static str) {
        *self.counts().notified.entry((target, result)).or_default() += 1;
    }

    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.text(&mut self.counts())
    }

    /// Why this process should be restarted, if it should.
    #[must_use]
    pub fn unhealthy(&self) -> Option<String> {
        let counts = self.counts();
        let silent = counts.heard.map(|at| at.elapsed()).unwrap_or_default();
        (silent > SILENCE)
            .then(|| format!("the shipper has been silent for {} s", silent.as_secs()))
    }

    /// Why crashes on this node are not captured, if they are not. An unreachable store is not a
    /// reason: dumps wait in the spool.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        if let Some(why) = self.unhealthy() {
            return Some(why);
        }
        if self.counts().passes == 0 {
            return Some("the spool has not been scanned yet".to_owned());
        }
        match crate::diagnose::status::pattern_owner(&self.paths) {
            Ok(PatternOwner::Ours) => None,
            Ok(_) => {
                let now = NodeSettings::read(&self.paths.settings);
                let now = now.map_or_else(|_| String::new(), |now| now.core_pattern.to_string());
                let what = "the kernel's core_pattern is not this agent's";
                Some(format!("{what}: `{now}`"))
            }
            Err(error) => Some(error.to_string()),
        }
    }

    /// Whether readiness changed since the last call. The first call returns `None`: the agent
    /// reports its initial state at start.
    #[must_use]
    pub fn readiness_changed(&self) -> Option<Readiness> {
        let now = match self.unready() {
            None => Readiness::Ready,
            Some(why) => Readiness::Lost(why),
        };
        let before = self.counts().readiness.replace(now.clone());
        before.filter(|before| *before != now).map(|_| now)
    }

    fn spool(&self, counts: &mut Counts) -> Spool {
        if let Some((at, spool)) = &counts.spool
            && at.elapsed() < COUNT_PAUSE
        {
            return spool.clone();
        }
        let entries = list_spool(&self.paths.spool).unwrap_or_default();
        let kept = match self.paths.workloads.policy.setuid {
            SetuidPolicy::Ship => BTreeSet::new(),
            _ => ShipperRecord::read(&self.paths.state)
                .map(|record| record.kept)
                .unwrap_or_default(),
        };
        let sealed_at = |entry: &SpoolEntry| {
            let manifest = entry.path.join("manifest.json").metadata().ok()?;
            let since = manifest.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            i64::try_from(since.as_secs()).ok()
        };
        let sealed = entries
            .iter()
            .filter(|entry| entry.state == SpoolState::Sealed);
        let (stay, wait): (Vec<_>, Vec<_>) = sealed.partition(|entry| kept.contains(&entry.id));
        let disk = rustix::fs::statvfs(&self.paths.spool).ok();
        let spool = Spool {
            count: count(&self.paths.spool).ok(),
            kept: stay.len() as u64,
            oldest: wait.into_iter().filter_map(sealed_at).min(),
            oldest_kept: stay.into_iter().filter_map(sealed_at).min(),
            free: disk
                .as_ref()
                .map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
            size: disk.map(|disk| disk.f_blocks.saturating_mul(disk.f_frsize)),
        };
        counts.spool = Some((Instant::now(), spool.clone()));
        spool
    }

    fn text(&self, counts: &mut Counts) -> String {
        let spool = self.spool(counts);
        let mut out = Exposition::default();
        out.family("cdh_build_info", "gauge", "Version of the agent.");
        out.sample(
            "cdh_build_info",
            &[("version", env!("CARGO_PKG_VERSION"))],
            1,
        );
        self.node(&mut out);
        self.ledger(&mut out);
        waiting(&spool, &mut out);
        shipping(counts, &mut out);
        out.into_text()
    }

    fn node(&self, out: &mut Exposition) {
        let owner = crate::diagnose::status::pattern_owner(&self.paths);
        let ours = u8::from(matches!(owner, Ok(PatternOwner::Ours)));
        let help = "Whether the kernel passes cores to this agent: 1 or 0.";
        out.single("cdh_handler_installed", "gauge", help, ours);
    }

    fn ledger(&self, out: &mut Exposition) {
        let totals = Ledger::of(&self.paths.state).totals();
        let name = "cdh_crashes_total";
        out.family(
            name,
            "counter",
            "Crashes by outcome (kept, reduced: less than a core, dropped: no dump) and reason.",
        );
        let later = "cdh_spool_given_up_total";
        let mut given_up = Vec::new();
        for outcome in ["kept", "reduced", "dropped"] {
            if !totals
                .by_outcome
                .keys()
                .any(|key| key.split('/').next() == Some(outcome))
            {
                out.sample(name, &[("outcome", outcome), ("reason", "")], 0);
            }
        }
        for (key, count) in &totals.by_outcome {
            let (outcome, reason) = key.split_once('/').unwrap_or((key, ""));
            match outcome {
                "degraded" | "removed" => given_up.push((outcome, reason, *count)),
                _ => out.sample(name, &[("outcome", outcome), ("reason", reason)], count),
            }
        }
        out.family(later, "counter", "Dumps in the spool that lost their core (degraded) or were removed before upload, by reason.");
        for (outcome, reason, count) in given_up {
            out.sample(later, &[("outcome", outcome), ("reason", reason)], count);
        }
        let name = "cdh_truncated_total";
        out.family(name, "counter", "Truncated or missing cores, by cause.");
        for (cause, count) in &totals.by_cause {
            out.sample(name, &[("cause", cause)], count);
        }
        let help = "Bytes of cores that were captured, uncompressed.";
        out.single(
            "cdh_captured_bytes_total",
            "counter",
            help,
            totals.core_bytes,
        );
        let help = "Bytes that dumps occupied in the spool when they were sealed.";
        out.single(
            "cdh_stored_bytes_total",
            "counter",
            help,
            totals.stored_bytes,
        );
        let histograms = [
            (
                "cdh_capture_seconds",
                "Time from the handler's start to the sealed dump.",
                &totals.seconds,
                &SECONDS[..],
            ),
            (
                "cdh_process_blocked_seconds",
                "How long the exit of crashed processes was delayed.",
                &totals.blocked_seconds,
                &SECONDS[..],
            ),
            (
                "cdh_core_bytes",
                "Sizes of captured cores, uncompressed.",
                &totals.core_sizes,
                &BYTES[..],
            ),
        ];
        for (name, help, histogram, bounds) in histograms {
            out.histogram(
                name,
                help,
                &histogram.cumulative(bounds),
                histogram.count(),
                histogram.sum,
            );
        }
    }
}

/// Whether a runtime identified the container of the dump, if the process was in one.
fn is_described(manifest: &Manifest) -> bool {
    let Some(workload) = &manifest.workload else {
        return true;
    };
    let source = workload.source.as_deref();
    match workload.kind {
        Some(WorkloadKind::Pod | WorkloadKind::Container) => {
            matches!(source, Some("cri" | "cri-cache" | "engine"))
        }
        _ => true,
    }
}

fn waiting(spool: &Spool, out: &mut Exposition) {
    let readable = u8::from(spool.count.is_some() && spool.free.is_some());
    out.single(
        "cdh_spool_up",
        "gauge",
        "Whether the spool can be read: 1 or 0.",
        readable,
    );
    let count = spool.count.unwrap_or_default();
    let name = "cdh_spool_entries";
    out.family(name, "gauge", "Dumps on this node: sealed ones wait for the store; kept ones are of setuid programs and remain (policy.setuid); partial ones are being written or were left by dead handlers; quarantined ones need an operator.");
    for (state, count) in [
        ("sealed", count.sealed.saturating_sub(spool.kept)),
        ("kept", spool.kept),
        ("partial", count.partial),
        ("quarantined", count.quarantined),
    ] {
        out.sample(name, &[("state", state)], count);
    }
    out.single(
        "cdh_spool_bytes",
        "gauge",
        "Bytes that they occupy on disk.",
        count.bytes,
    );
    if let (Some(free), Some(size)) = (spool.free, spool.size) {
        out.single(
            "cdh_spool_free_bytes",
            "gauge",
            "Bytes that are free on the spool's file system.",
            free,
        );
        out.single(
            "cdh_spool_filesystem_bytes",
            "gauge",
            "Bytes of the spool's file system.",
            size,
        );
    }
    let now = Timestamp::now().as_second();
    let age = |at: Option<i64>| at.map_or(0, |at| now.saturating_sub(at).max(0));
    out.single(
        "cdh_oldest_unshipped_seconds",
        "gauge",
        "Age of the oldest dump that waits for the store, without kept ones; 0 when none does.",
        age(spool.oldest),
    );
    out.single(
        "cdh_oldest_kept_seconds",
        "gauge",
        "Age of the oldest dump of a setuid program that is kept on this node; 0 when there is none.",
        age(spool.oldest_kept),
    );
}

fn shipping(counts: &Counts, out: &mut Exposition) {
    let counter = |out: &mut Exposition, name: &str, help: &str, value: u64| {
        out.single(name, "counter", help, value);
    };
    counter(
        out,
        "cdh_shipped_total",
        "Dumps that this process uploaded.",
        counts.shipped,
    );
    counter(
        out,
        "cdh_shipped_bytes_total",
        "Bytes of the uploaded dumps.",
        counts.shipped_bytes,
    );
    let seconds = &counts.upload_seconds;
    out.histogram(
        "cdh_upload_seconds",
        "Duration of uploads.",
        &seconds.cumulative(&SECONDS),
        seconds.count(),
        seconds.sum,
    );
    let name = "cdh_upload_failures_total";
    out.family(
        name,
        "counter",
        "Failed uploads, because of the store or the dump.",
    );
    out.sample(name, &[("because", "store")], counts.store_failures);
    out.sample(name, &[("because", "dump")], counts.entry_failures);
    let up = u8::from(counts.store_down.is_none());
    out.single(
        "cdh_store_up",
        "gauge",
        "Whether the last attempt reached the store: 1 or 0.",
        up,
    );
    let times = [
        (
            "cdh_store_down_since_timestamp_seconds",
            "When the store started to fail; 0 if it works.",
            counts.store_down,
        ),
        (
            "cdh_last_shipped_timestamp_seconds",
            "When the last dump was uploaded; 0 if none was yet.",
            counts.shipped_at,
        ),
        (
            "cdh_last_pass_timestamp_seconds",
            "When the spool was last scanned.",
            counts.passed_at,
        ),
    ];
    for (name, help, time) in times {
        let seconds = time
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
            .unwrap_or_default();
        out.single(name, "gauge", help, seconds.as_secs());
    }
    counter(
        out,
        "cdh_quarantined_total",
        "Spool entries that could not be processed and were quarantined.",
        counts.quarantined,
    );
    counter(
        out,
        "cdh_salvaged_total",
        "Dumps of dead handlers that were salvaged.",
        counts.salvaged,
    );
    counter(
        out,
        "cdh_kept_on_node_total",
        "Dumps of setuid programs, which stay on the node.",
        counts.kept,
    );
    counter(
        out,
        "cdh_unwanted_total",
        "Dumps that were dropped because their pod asked for none.",
        counts.unwanted,
    );
    counter(
        out,
        "cdh_without_workload_total",
        "Dumps of containers that no runtime described: image and owner are unknown, names come from log directories at best.",
        counts.without_workload,
    );
    let name = "cdh_runtime_up";
    out.family(
        name,
        "gauge",
        "Whether a container runtime answers: 1 or 0. An empty socket: none was found.",
    );
    for (socket, is_up) in &counts.runtimes {
        let socket = socket.to_string_lossy();
        out.sample(name, &[("socket", &socket)], u8::from(*is_up));
    }
    let name = "cdh_notifications_total";
    out.family(
        name,
        "counter",
        "Notifications about new crashes, by target and result.",
    );
    for ((target, result), count) in &counts.notified {
        out.sample(name, &[("target", target), ("result", result)], count);
    }
}
