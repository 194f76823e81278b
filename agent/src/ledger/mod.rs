//! The ledger: one line for each crash, whatever became of it, and sums over all of them.
//!
//! ```text
//! <state>/ledger/records.jsonl     one line for each crash, the newest last
//! <state>/ledger/records.1.jsonl   those before
//! <state>/ledger/begun.jsonl       one line for each capture that has begun
//! <state>/ledger/totals.json       counters and histograms, never begun anew
//! <state>/ledger/lock              held while any of these is changed
//! ```
//!
//! Handlers append, side by side; the daemon reads: metrics ([`Ledger::totals`], [`Ledger::since`])
//! and what goes into the store about crashes of which there is no dump. Where the state directory
//! cannot be written (full, read-only, gone), the ledger below `/run` takes the line, and the daemon
//! brings it home ([`Ledger::absorb`]). Invariants: each file has an upper bound; a line that was cut
//! by a full disk or a SIGKILL costs that line only; nothing that somebody else planted is followed.

mod begun;
mod record;
mod totals;

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::OFlags;

use crate::private_file::{PrivateDirectory, PrivateLock};
pub(crate) use record::workload_name;
pub use record::{DropReason, LedgerRecord, Outcome};
pub use totals::{BYTES, Histogram, SECONDS, Totals};

const DIRECTORY: &str = "ledger";
const RECORDS: &str = "records.jsonl";
const OLDER: &str = "records.1.jsonl";
const TOTALS: &str = "totals.json";

/// Bytes of a file of records, of which there are two: some 10,000 crashes.
const RECORDS_LIMIT: u64 = 4 << 20;
/// Bytes of the sums at most.
const TOTALS_LIMIT: u64 = 256 << 10;

/// A ledger.
#[derive(Clone, Debug)]
pub struct Ledger {
    directory: PathBuf,
}

impl Ledger {
    /// The ledger in this directory for state. It is made when the first line is appended.
    #[must_use]
    pub fn of(state: &Path) -> Self {
        Self {
            directory: state.join(DIRECTORY),
        }
    }

    /// Appends a record and gives it its number.
    ///
    /// # Errors
    /// When it cannot be written; then nothing of it is there.
    pub fn append(&self, record: &LedgerRecord) -> io::Result<u64> {
        let open = self.open(Access::Write)?;
        let mut totals = open.totals().unwrap_or_else(|| open.begin());
        let seq = open.append(&mut totals, record, RECORDS_LIMIT)?;
        open.write_totals(&totals)?;
        Ok(seq)
    }

    /// The sums; all zero where there is no ledger.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let open = self.open(Access::Read).ok();
        open.and_then(|open| open.totals()).unwrap_or_default()
    }

    /// The records after the one with this number, as far as they are still there, in their order.
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

    /// Takes over what stands in another ledger, which is empty afterwards.
    ///
    /// # Errors
    /// When this one cannot be written, or the other one cannot be emptied.
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

/// A ledger that nobody else changes meanwhile.
struct Open {
    directory: PrivateDirectory,
    _lock: PrivateLock,
}

impl Open {
    fn totals(&self) -> Option<Totals> {
        serde_json::from_slice(&self.directory.read(TOTALS, TOTALS_LIMIT)?).ok()
    }

    /// Sums where there are none, or none that can be read: numbers go on after the last record.
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
        // A line that was not finished must not swallow this one.
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
