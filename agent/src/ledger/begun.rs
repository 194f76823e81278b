//! Captures in progress: one line each, written before any step that may block.
//!
//! ```text
//! <state>/ledger/begun.jsonl      captures that have started, newest last
//! <state>/ledger/begun.1.jsonl    older ones; no handler writes here any more
//! ```
//!
//! If the handler leaves neither a ledger record nor a spool entry, its line becomes the record of
//! the crash. Invariant: a handler never waits here. It takes no lock. A line is one write in
//! append mode and starts with a line break, so a torn line damages only itself.

use std::io::{self, Write};
use std::time::Duration;

use cdh_bundle::DumpId;
use rustix::fs::OFlags;

use super::{Access, Ledger, LedgerRecord, RECORDS_LIMIT};
use crate::private_file::PrivateDirectory;

const BEGUN: &str = "begun.jsonl";
const EARLIER: &str = "begun.1.jsonl";
/// Maximum size of a file in bytes, about 1,000 captures. There are two files.
const LIMIT: u64 = 512 << 10;
/// After this time, a handler that opened the file has written its line.
const SETTLED: Duration = Duration::from_secs(10);
/// Number of recent ledger records searched for the record of a handler.
const RECENT: u64 = 5000;

impl Ledger {
    /// Records that a capture has started. `record` is its outcome if the handler leaves nothing
    /// else.
    ///
    /// # Errors
    /// Fails if the line cannot be written.
    pub fn begin(&self, record: &LedgerRecord) -> io::Result<()> {
        let directory = PrivateDirectory::create(&self.directory)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND;
        let mut file = directory.open_file(BEGUN, flags)?;
        if file.metadata()?.len() > LIMIT {
            // Without an agent these are never read, so the oldest are dropped.
            directory.rename(BEGUN, EARLIER)?;
            file = directory.open_file(BEGUN, flags)?;
        }
        let mut line = b"\n".to_vec();
        serde_json::to_writer(&mut line, record)?;
        line.push(b'\n');
        file.write_all(&line)
    }

    /// Appends the records of captures that left neither a record nor an entry; `has_entry` checks
    /// for the entry. Returns the number of records.
    ///
    /// # Errors
    /// Fails if the ledger cannot be written.
    pub fn end_lost(&self, has_entry: impl Fn(&DumpId) -> bool) -> io::Result<usize> {
        if !self.directory.join(BEGUN).exists() && !self.directory.join(EARLIER).exists() {
            return Ok(0);
        }
        let open = self.open(Access::Write)?;
        let mut lost = 0;
        if let Ok(file) = open.directory.open_file(EARLIER, OFlags::RDONLY) {
            let age = file.metadata()?.modified()?.elapsed().unwrap_or(SETTLED);
            if age < SETTLED {
                return Ok(0);
            }
            let mut totals = open.totals().unwrap_or_else(|| open.begin());
            let mut records = open.records(super::OLDER);
            records.extend(open.records(super::RECORDS));
            let oldest = totals.seq.saturating_sub(RECENT);
            records.retain(|record| record.seq > oldest);
            let mut waiting = Vec::new();
            for begun in open.records(EARLIER) {
                let has_ended = records.iter().any(|record| record.ends(&begun));
                if has_ended {
                    continue;
                }
                if begun.id.as_ref().is_some_and(&has_entry) {
                    waiting.extend(serde_json::to_vec(&begun)?);
                    waiting.push(b'\n');
                    continue;
                }
                // There will be no dump.
                let record = LedgerRecord { id: None, ..begun };
                open.append(&mut totals, &record, RECORDS_LIMIT)?;
                lost += 1;
            }
            if lost > 0 {
                open.write_totals(&totals)?;
            }
            match waiting.is_empty() {
                true => open.directory.remove(EARLIER)?,
                false => return open.directory.replace(EARLIER, &waiting).map(|()| lost),
            }
        }
        if self.directory.join(BEGUN).exists() {
            open.directory.rename(BEGUN, EARLIER)?;
        }
        Ok(lost)
    }
}

impl LedgerRecord {
    /// Whether this record ends the started capture. A crash without a dump has no id.
    fn ends(&self, begun: &Self) -> bool {
        match self.id {
            Some(id) => begun.id == Some(id),
            None => self.pid == begun.pid && self.at >= begun.at,
        }
    }
}
