//! Crashes whose capture has begun: one line each, written before anything that may block.
//!
//! ```text
//! <state>/ledger/begun.jsonl      captures that have begun, the newest last
//! <state>/ledger/begun.1.jsonl    those before; no handler writes there any more
//! ```
//!
//! Each line is the record that the crash gets if its handler leaves nothing else: neither a record nor
//! an entry in the spool. Invariant: a handler never waits here. It takes no lock; a line is one write
//! in append mode, and begins with a line break, so that one that was cut costs itself only.

use std::io::{self, Write};
use std::time::Duration;

use cdh_bundle::DumpId;
use rustix::fs::OFlags;

use super::{Access, Ledger, LedgerRecord, RECORDS_LIMIT};
use crate::private_file::PrivateDirectory;

const BEGUN: &str = "begun.jsonl";
const EARLIER: &str = "begun.1.jsonl";
/// Bytes of a file, of which there are two: some 1,000 captures.
const LIMIT: u64 = 512 << 10;
/// A handler that has opened the file has written its line after this time.
const SETTLED: Duration = Duration::from_secs(10);
/// Records that are looked through for the one that a handler has left.
const RECENT: u64 = 5000;

impl Ledger {
    /// Notes that a capture has begun. `record` is what its end would be if its handler left nothing else.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(&self, record: &LedgerRecord) -> io::Result<()> {
        let directory = PrivateDirectory::create(&self.directory)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND;
        let mut file = directory.open_file(BEGUN, flags)?;
        if file.metadata()?.len() > LIMIT {
            // Without an agent they are never read: the oldest go.
            directory.rename(BEGUN, EARLIER)?;
            file = directory.open_file(BEGUN, flags)?;
        }
        let mut line = b"\n".to_vec();
        serde_json::to_writer(&mut line, record)?;
        line.push(b'\n');
        file.write_all(&line)
    }

    /// Appends the records of captures that have left neither a record nor an entry, which `has_entry` tells.
    /// Returns how many.
    ///
    /// # Errors
    /// When the ledger cannot be written.
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
                // No dump will come of it.
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
    /// Whether this is the end of a capture that has begun. A crash without a dump has no id.
    fn ends(&self, begun: &Self) -> bool {
        match self.id {
            Some(id) => begun.id == Some(id),
            None => self.pid == begun.pid && self.at >= begun.at,
        }
    }
}
