//! The ledger: one line for each crash with its outcome, and totals over all crashes.
//!
//! ```text
//! <state>/ledger/records.jsonl     one line for each crash, newest last
//! <state>/ledger/records.1.jsonl   older ones
//! <state>/ledger/begun.jsonl       one line for each started capture
//! <state>/ledger/totals.json       counters and histograms, never reset
//! <state>/ledger/lock              held while any of these changes
//! ```
//!
//! Handlers append concurrently. The daemon reads the ledger for metrics ([`Ledger::totals`],
//! [`Ledger::since`]) and for the counts of crashes without a dump that it uploads. If the state
//! directory cannot be written (full, read-only, missing), handlers append to the ledger below
//! `/run`. The daemon moves these records to the main ledger ([`Ledger::absorb`]).
//!
//! Invariants: each file has a maximum size. A line truncated by a full disk or a SIGKILL damages
//! only itself. Planted links are not followed.

mod begun;
mod record;
mod totals;

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::OFlags;

pub use crate::outcome::{DropReason, Outcome};
use crate::private_file::{PrivateDirectory, PrivateLock};
pub use record::LedgerRecord;
pub(crate) use record::workload_name;
pub use totals::{BYTES, Histogram, SECONDS, Totals};

const DIRECTORY: &str = "ledger";
const RECORDS: &str = "records.jsonl";
const OLDER: &str = "records.1.jsonl";
const TOTALS: &str = "totals.json";

/// Maximum size of a file of records in bytes, about 10,000 crashes. There are two files.
const RECORDS_LIMIT: u64 = 4 << 20;
/// Maximum size of the totals in bytes.
const TOTALS_LIMIT: u64 = 256 << 10;

/// A ledger.
#[derive(Clone, Debug)]
pub struct Ledger {
    directory: PathBuf,
}

impl Ledger {
    /// The ledger in this state directory. The first append creates it.
    #[must_use]
    pub fn of(state: &Path) -> Self {
        Self {
            directory: state.join(DIRECTORY),
        }
    }

    /// Appends a record and assigns its number.
    ///
    /// # Errors
    /// Fails if the record cannot be written; then nothing of it is stored.
    pub fn append(&self, record: &LedgerRecord) -> io::Result<u64> {
        let open = self.open(Access::Write)?;
        let mut totals = open.totals().unwrap_or_else(|| open.begin());
        let seq = open.append(&mut totals, record, RECORDS_LIMIT)?;
        open.write_totals(&totals)?;
        Ok(seq)
    }

    /// The totals; all zero if there is no ledger.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let open = self.open(Access::Read).ok();
        open.and_then(|open| open.totals()).unwrap_or_default()
    }

    /// The records after number `seq` that are still stored, in order.
    #[must_use]
    pub fn since(&self, seq: u64) -> Vec<LedgerRecord> {
        let Ok(open) = self.open(Access::Read) else {
            return Vec::new();
        };
        let mut records = open.records(RECORDS);
        if records
            .first()
            .is_none_or(|first| first.seq > seq.saturating_add(1))
        {
            let mut older = open.records(OLDER);
            older.append(&mut records);
            records = older;
        }
        records.retain(|record| record.seq > seq);
        records
    }

    /// Moves all records of another ledger into this one.
    ///
    /// # Errors
    /// Fails if this ledger cannot be written, or if the other one cannot be emptied.
    pub fn absorb(&self, other: &Self) -> io::Result<usize> {
        if !other.directory.join(TOTALS).exists() {
            return Ok(0);
        }
        let theirs = other.open(Access::Write)?;
        let mut records = theirs.records(OLDER);
        records.extend(theirs.records(RECORDS));
        let open = self.open(Access::Write)?;
        let mut totals = open.totals().unwrap_or_else(|| open.begin());
        for record in &records {
            open.append(&mut totals, record, RECORDS_LIMIT)?;
        }
        open.write_totals(&totals)?;
        for name in [TOTALS, OLDER, RECORDS] {
            theirs.directory.remove(name)?;
        }
        Ok(records.len())
    }

    fn open(&self, access: Access) -> io::Result<Open> {
        let directory = match access {
            Access::Write => PrivateDirectory::create(&self.directory)?,
            Access::Read => PrivateDirectory::open(&self.directory)?,
        };
        let lock = match access {
            Access::Write => directory.lock()?,
            Access::Read => directory.lock_shared()?,
        };
        Ok(Open {
            directory,
            _lock: lock,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// A locked ledger.
struct Open {
    directory: PrivateDirectory,
    _lock: PrivateLock,
}

impl Open {
    fn totals(&self) -> Option<Totals> {
        serde_json::from_slice(&self.directory.read(TOTALS, TOTALS_LIMIT)?).ok()
    }

    /// New totals if there are none, or if they are unreadable. Numbers continue after the last
    /// record.
    fn begin(&self) -> Totals {
        let records = self.records(RECORDS);
        Totals {
            since: Timestamp::now(),
            seq: records.last().map_or(0, |record| record.seq),
            ..Totals::default()
        }
    }

    fn records(&self, name: &str) -> Vec<LedgerRecord> {
        let text = self.directory.read(name, RECORDS_LIMIT.saturating_mul(2));
        let text = text.unwrap_or_default();
        let lines = text.split(|&byte| byte == b'\n');
        lines
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect()
    }

    fn append(&self, totals: &mut Totals, record: &LedgerRecord, limit: u64) -> io::Result<u64> {
        let record = LedgerRecord {
            seq: totals.seq.saturating_add(1),
            ..record.clone()
        };
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        let flags = OFlags::RDWR | OFlags::CREATE;
        let mut file = self.directory.open_file(RECORDS, flags)?;
        let mut end = file.metadata()?.len();
        if end > 0 && end.saturating_add(line.len() as u64) > limit {
            self.directory.rename(RECORDS, OLDER)?;
            file = self.directory.open_file(RECORDS, flags)?;
            end = 0;
        }
        // A torn line must not swallow this one.
        let mut last = [b'\n'];
        if end > 0 {
            file.read_exact_at(&mut last, end - 1)?;
        }
        if last != *b"\n" {
            line.insert(0, b'\n');
        }
        if let Err(error) = file.write_all_at(&line, end) {
            let _ = file.set_len(end);
            return Err(error);
        }
        totals.seq = record.seq;
        totals.add(&record);
        Ok(record.seq)
    }

    fn write_totals(&self, totals: &Totals) -> io::Result<()> {
        self.directory.replace(TOTALS, &serde_json::to_vec(totals)?)
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
