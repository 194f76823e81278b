//! Uploads counts of crashes without a dump: their number, kind and reason.
//!
//! ```text
//! <state>/drops/state.json                             last record read; objects to upload
//! drops/<YYYY-MM-DD>/<HHMMSS>Z_<node>_<random>.jsonl   in the store; one line for each kind
//! {"outcome":"dropped","reason":"rate_fingerprint","count":412,"first":…,"last":…,"exe":…}
//! ```
//!
//! Objects are small, and the shipper uploads maximum one per minute. An object in a store is never
//! rewritten, so each one contains the counts since the previous one. Invariants: each ledger
//! record is counted in exactly one object, even if the process is interrupted. Records that the
//! ledger evicted before they were read are still counted, from its totals.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cdh_bundle::{DumpId, RawText};
use cdh_store::{ObjectKey, Store, StoreError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ledger::{Ledger, LedgerRecord, workload_name};
use crate::outcome::{DropReason, Outcome};
use crate::private_file::PrivateDirectory;
use crate::workload::Enricher;

const STATE: &str = "state.json";
/// Maximum size of the state, in bytes.
const STATE_LIMIT: u64 = 32 << 20;
/// Minimum time between two objects.
const PAUSE: Duration = Duration::from_secs(60);
/// Minimum time between two reads of the ledger: a read blocks handlers.
const LOOK: Duration = Duration::from_secs(1);
/// Maximum kinds of crashes in one object; further ones are counted by reason only.
const KINDS: usize = 512;
/// Maximum number of objects that wait for the store. The ledger keeps the rest.
const WAITING: usize = 64;

/// One line of an object: crashes or dumps with the same properties.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DropLine {
    /// Name of the node, as in its dumps.
    pub node: RawText,
    /// A crash that was dropped, or a dump that was removed from the spool.
    pub outcome: Outcome,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<DropReason>,
    /// How many.
    pub count: u64,
    /// Time of the first one; absent if only their number is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "schema",
        schemars(with = "Option<cdh_bundle::schema::Time>")
    )]
    pub first: Option<Timestamp>,
    /// Time of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "schema",
        schemars(with = "Option<cdh_bundle::schema::Time>")
    )]
    pub last: Option<Timestamp>,
    /// The program, otherwise the name of the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<RawText>,
    /// Namespace, pod and container, or unit; the pod's UID if nothing else is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Fingerprint of the crashing thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The reason of the last one, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What was read, and what waits for the store.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct State {
    /// Number of the last record that was read.
    seq: u64,
    /// When the ledger that this state refers to was created.
    since: Timestamp,
    /// Counts so far, by outcome and reason.
    counted: BTreeMap<String, u64>,
    waiting: Vec<Waiting>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Waiting {
    key: String,
    text: String,
}

/// Reads a ledger and writes objects.
#[derive(Debug)]
pub(super) struct DropsKeeper {
    ledger: Ledger,
    directory: PathBuf,
    node: RawText,
    last: Option<Instant>,
    looked: Option<Instant>,
}

/// Finds the workload of a record that contains only ids.
pub(super) type NameWorkload<'a> = dyn Fn(&LedgerRecord) -> Option<String> + 'a;

/// Looks names up in the runtimes and in the kubelet's directories.
pub(super) fn named_by(enricher: &Enricher) -> impl Fn(&LedgerRecord) -> Option<String> + '_ {
    |record| {
        let container = record.container_id.as_deref()?;
        workload_name(&enricher.names_of(record.pod_uid.as_deref(), container)?)
    }
}

impl DropsKeeper {
    /// Opens the state in this directory. Without `node`, uses the kernel's hostname.
    pub(super) fn new(state: &Path, node: Option<&str>) -> Self {
        let own = || RawText::new(rustix::system::uname().nodename().to_bytes().to_vec());
        Self {
            ledger: Ledger::of(state),
            directory: state.join("drops"),
            node: node.map_or_else(own, RawText::from),
            last: None,
            looked: None,
        }
    }

    /// Collects new ledger records. Runs without a store, because names are forgotten while it is
    /// unreachable.
    pub(super) fn note(&mut self, name: &NameWorkload<'_>) {
        let is_recent = |at: Option<Instant>, pause| at.is_some_and(|at| at.elapsed() < pause);
        if is_recent(self.last, PAUSE) || is_recent(self.looked, LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        let Ok(directory) = PrivateDirectory::create(&self.directory) else {
            return;
        };
        let mut state = read(&directory);
        // A record counts as read only when the state is on disk.
        if state.waiting.len() < WAITING
            && self.collect(&mut state, name)
            && write(&directory, &state).is_ok()
        {
            self.last = Some(Instant::now());
        }
    }

    /// Collects new ledger records and uploads waiting objects. Returns the number of uploaded
    /// objects.
    ///
    /// # Errors
    /// Fails if the store does not accept an object; the object remains queued.
    pub(super) fn ship(
        &mut self,
        store: &dyn Store,
        name: &NameWorkload<'_>,
    ) -> Result<usize, StoreError> {
        self.note(name);
        let Ok(directory) = PrivateDirectory::open(&self.directory) else {
            return Ok(0);
        };
        let mut state = read(&directory);
        let mut shipped = 0;
        while let Some(first) = state.waiting.first() {
            let key = ObjectKey::parse(&first.key)?;
            let bytes = first.text.as_bytes();
            match store.put(&key, &mut &*bytes, bytes.len() as u64) {
                // Another object is stored under this key; it cannot be the same record.
                Ok(_) | Err(StoreError::Conflict { .. }) => shipped += 1,
                Err(error) => return Err(error),
            }
            state.waiting.remove(0);
            let _ = write(&directory, &state);
        }
        Ok(shipped)
    }

    /// Returns whether there were new records.
    fn collect(&self, state: &mut State, name: &NameWorkload<'_>) -> bool {
        let totals = self.ledger.totals();
        if state.since != totals.since {
            // The ledger was recreated since the last read.
            *state = State {
                since: totals.since,
                waiting: std::mem::take(&mut state.waiting),
                ..State::default()
            };
        }
        if totals.seq <= state.seq {
            return false;
        }
        let node = &self.node;
        let mut lines: BTreeMap<String, DropLine> = BTreeMap::new();
        // Handlers keep writing: records after these totals are read next time.
        let records = self.ledger.since(state.seq);
        for record in records.iter().filter(|record| record.seq <= totals.seq) {
            if !matches!(record.outcome, Outcome::Dropped | Outcome::Removed) {
                continue;
            }
            let count = state.counted.entry(record.key()).or_default();
            *count = count.saturating_add(1);
            let workload = name(record).or_else(|| record.workload.clone());
            add(&mut lines, record, workload, node);
        }
        for (key, total) in &totals.by_outcome {
            let counted = state.counted.entry(key.clone()).or_default();
            let missing = total.saturating_sub(*counted);
            *counted = *total;
            let Some((outcome, reason)) = parse_key(key).filter(|_| missing > 0) else {
                continue;
            };
            let line = DropLine {
                count: missing,
                detail: Some("too many to list one by one".to_owned()),
                ..bare(node.clone(), outcome, reason)
            };
            lines.insert(format!("missing {key}"), line);
        }
        state.seq = totals.seq;
        if !lines.is_empty() {
            let text = lines
                .values()
                .filter_map(|line| serde_json::to_string(line).ok());
            let text: String = text.flat_map(|line| [line, "\n".to_owned()]).collect();
            let key = key(node);
            state.waiting.push(Waiting { key, text });
        }
        true
    }
}

/// Whether every crash without a dump in this state is in the store, or there never was one.
pub(crate) fn all_uploaded(state: &Path) -> bool {
    let ledger = Ledger::of(state);
    let saved = PrivateDirectory::open(&state.join("drops"))
        .map_or_else(|_| State::default(), |directory| read(&directory));
    let seq = match saved.since == ledger.totals().since {
        true => saved.seq,
        false => 0,
    };
    let mut since = ledger.since(seq).into_iter();
    saved.waiting.is_empty()
        && !since.any(|record| matches!(record.outcome, Outcome::Dropped | Outcome::Removed))
}

/// Counts a record under its kind.
fn add(
    lines: &mut BTreeMap<String, DropLine>,
    record: &LedgerRecord,
    workload: Option<String>,
    node: &RawText,
) {
    let exe = record.exe.as_ref().unwrap_or(&record.name);
    let kind = format!(
        "{} {exe} {:?} {:?} {}",
        record.key(),
        workload,
        record.fingerprint,
        record.signal
    );
    let full = lines.len() >= KINDS && !lines.contains_key(&kind);
    let kind = if full { record.key() } else { kind };
    let line = lines.entry(kind).or_insert_with(|| {
        let bare = bare(node.clone(), record.outcome, record.reason);
        if full {
            return bare;
        }
        DropLine {
            exe: Some(exe.clone()),
            workload,
            fingerprint: record.fingerprint.clone(),
            signal: Some(record.signal.clone()),
            ..bare
        }
    });
    line.count = line.count.saturating_add(1);
    line.first = Some(line.first.map_or(record.at, |first| first.min(record.at)));
    line.last = Some(line.last.map_or(record.at, |last| last.max(record.at)));
    line.detail.clone_from(&record.detail);
}

fn bare(node: RawText, outcome: Outcome, reason: Option<DropReason>) -> DropLine {
    DropLine {
        node,
        outcome,
        reason,
        count: 0,
        first: None,
        last: None,
        exe: None,
        workload: None,
        fingerprint: None,
        signal: None,
        detail: None,
    }
}

/// Parses a key such as `dropped/policy`; `None` if the outcome is not a drop.
fn parse_key(key: &str) -> Option<(Outcome, Option<DropReason>)> {
    let (outcome, reason) = match key.split_once('/') {
        Some((outcome, reason)) => (outcome, Some(reason)),
        None => (key, None),
    };
    let outcome = match outcome {
        "dropped" => Outcome::Dropped,
        "removed" => Outcome::Removed,
        _ => return None,
    };
    let reason = reason.map(|reason| serde_json::from_value(reason.into()));
    Some((outcome, reason.transpose().ok()?))
}

fn key(node: &RawText) -> String {
    let plain = |byte: &u8| match byte {
        byte if byte.is_ascii_alphanumeric() || *byte == b'-' => char::from(*byte),
        _ => '-',
    };
    let node: String = node.as_bytes().iter().take(64).map(plain).collect();
    let time = Timestamp::now().strftime("%Y-%m-%d/%H%M%SZ");
    let random = DumpId::random().to_string();
    let random = random.get(..8).unwrap_or(&random);
    format!("drops/{time}_{node}_{random}.jsonl")
}

fn read(directory: &PrivateDirectory) -> State {
    let text = directory.read(STATE, STATE_LIMIT).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn write(directory: &PrivateDirectory, state: &State) -> io::Result<()> {
    directory.replace(STATE, &serde_json::to_vec(state)?)
}

#[cfg(test)]
mod tests {
    use cdh_store::DirectoryStore;

    use super::*;
    use crate::handler::HandlerArguments;
    use crate::handler::record::identity::first_manifest;

    struct Node {
        root: tempfile::TempDir,
    }

    impl Node {
        fn new() -> Self {
            Self {
                root: tempfile::tempdir().unwrap(),
            }
        }

        fn drop(&self, name: &str, reason: DropReason) {
            let arguments = HandlerArguments {
                name: RawText::from(name),
                ..HandlerArguments::default()
            };
            let manifest = first_manifest(DumpId::random(), &arguments, None);
            let record = LedgerRecord::of(&manifest, Outcome::Dropped).because(reason, "a test");
            Ledger::of(self.root.path()).append(&record).unwrap();
        }

        fn ship(&self) -> usize {
            let store = DirectoryStore::create(self.root.path().join("store")).unwrap();
            DropsKeeper::new(self.root.path(), Some("node1"))
                .ship(&store, &|_| None)
                .unwrap()
        }

        /// All lines in the store, in order.
        fn lines(&self) -> Vec<DropLine> {
            let mut lines = Vec::new();
            for day in std::fs::read_dir(self.root.path().join("store/drops"))
                .into_iter()
                .flatten()
            {
                for object in std::fs::read_dir(day.unwrap().path()).unwrap() {
                    let text = std::fs::read_to_string(object.unwrap().path()).unwrap();
                    lines.extend(
                        text.lines()
                            .map(|line| serde_json::from_str::<DropLine>(line).unwrap()),
                    );
                }
            }
            lines
        }
    }

    #[test]
    fn drops_are_uploaded_once_by_kind() {
        let node = Node::new();
        assert_eq!(node.ship(), 0);
        for _ in 0..5 {
            node.drop("api\n\"", DropReason::RateFingerprint);
        }
        node.drop("db", DropReason::Policy);
        assert_eq!((node.ship(), node.ship()), (1, 0));
        let lines = node.lines();
        let counts: Vec<_> = lines
            .iter()
            .map(|line| (line.reason.unwrap(), line.count))
            .collect();
        assert_eq!(
            counts,
            [(DropReason::Policy, 1), (DropReason::RateFingerprint, 5)]
        );
        node.drop("db", DropReason::Policy);
        assert_eq!(node.ship(), 1);
        assert_eq!(node.lines().iter().map(|line| line.count).sum::<u64>(), 7);
    }

    #[test]
    fn drops_count_records_that_the_ledger_evicted() {
        let node = Node::new();
        for _ in 0..9 {
            node.drop("api", DropReason::Policy);
        }
        std::fs::write(node.root.path().join("ledger/records.jsonl"), "").unwrap();
        node.drop("api", DropReason::Policy);
        node.ship();
        let mut counts: Vec<_> = node.lines().iter().map(|line| line.count).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 9]);
    }

    #[test]
    fn drops_wait_while_the_store_fails() {
        let node = Node::new();
        node.drop("api", DropReason::Policy);
        let directory = node.root.path().join("store");
        let store = DirectoryStore::create(directory.clone()).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        std::fs::write(&directory, "in the way").unwrap();
        let mut keeper = DropsKeeper::new(node.root.path(), None);
        assert!(keeper.ship(&store, &|_| None).is_err());
        std::fs::remove_file(&directory).unwrap();
        assert_eq!(node.ship(), 1);
        assert_eq!(node.lines().len(), 1);
    }

    #[test]
    fn drops_have_the_same_node_and_workload_as_dumps() {
        let node = Node::new();
        for (name, container) in [("api", "c1"), ("api", "c2"), ("db", "c3")] {
            let arguments = HandlerArguments {
                name: RawText::from(name),
                ..HandlerArguments::default()
            };
            let mut manifest = first_manifest(DumpId::random(), &arguments, None);
            manifest.workload = Some(cdh_bundle::Workload {
                pod_uid: Some(format!("uid of {container}")),
                container_id: Some(container.to_owned()),
                ..cdh_bundle::Workload::default()
            });
            let record = LedgerRecord::of(&manifest, Outcome::Dropped);
            let record = record.because(DropReason::RateWorkload, "a test");
            Ledger::of(node.root.path()).append(&record).unwrap();
        }
        // The pod of the third is not known to any source.
        let name = |record: &LedgerRecord| {
            let container = record.container_id.as_deref()?;
            (container != "c3").then(|| "shop/api-0/main".to_owned())
        };
        let store = DirectoryStore::create(node.root.path().join("store")).unwrap();
        let mut keeper = DropsKeeper::new(node.root.path(), Some("node1"));
        keeper.note(&name);
        // Names that were forgotten while the store was unreachable had already been collected.
        assert_eq!(keeper.ship(&store, &|_| None).unwrap(), 1);
        let lines = node.lines();
        let shown: Vec<_> = lines
            .iter()
            .map(|line| (line.node.to_string(), line.workload.as_deref(), line.count))
            .collect();
        assert_eq!(
            shown,
            [
                ("node1".to_owned(), Some("shop/api-0/main"), 2),
                ("node1".to_owned(), Some("uid of c3"), 1),
            ]
        );
        let day = std::fs::read_dir(node.root.path().join("store/drops")).unwrap();
        let day = day.flatten().next().unwrap().path();
        let object = std::fs::read_dir(day).unwrap().flatten().next().unwrap();
        let key = object.file_name().into_string().unwrap();
        assert!(key.contains("Z_node1_"), "{key}");
    }
}
