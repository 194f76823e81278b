//! One entry of the spool with its size and the owner who is charged for it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cdh_bundle::{DumpId, EntryKind};

use crate::outcome::Action;
use crate::policy::Account;

/// Prefix of the note with the bytes that a handler may still write.
pub(super) const NEED: &str = ".need-";

/// Prefix of the note with the owner of an entry.
const SHARE: &str = ".share-";

/// The same for the dump of a setuid program.
const SETUID: &str = ".setuid-";

/// Name of the note with the owner of an entry.
#[must_use]
pub(crate) fn share_note(account: &Account) -> String {
    let prefix = if account.is_setuid() { SETUID } else { SHARE };
    format!("{prefix}{}", account.share())
}

/// One entry of the spool.
#[derive(Clone, Debug)]
pub(super) struct ChargedEntry {
    pub(super) id: DumpId,
    pub(super) path: PathBuf,
    pub(super) sealed: bool,
    pub(super) born: SystemTime,
    pub(super) bytes: u64,
    pub(super) core: u64,
    pub(super) minicore: u64,
    /// Bytes that its handler may still write; 0 before room was made for it, and after it is
    /// sealed.
    pub(super) need: u64,
    /// The owner that is charged for it; empty for entries of older handlers.
    pub(super) share: String,
    pub(super) is_setuid: bool,
    /// It cannot be reduced now.
    pub(super) fixed: bool,
}

impl ChargedEntry {
    /// Bytes that it uses or may still use.
    pub(super) fn weight(&self) -> u64 {
        self.bytes.max(self.need)
    }

    /// Whether it belongs to this owner and can be reduced to this stage.
    pub(super) fn can_become(&self, share: &str, stage: Action) -> bool {
        self.share == share && !self.fixed && self.worth(stage) > 0
    }

    /// Bytes that become free if it is reduced to this stage.
    pub(super) fn worth(&self, stage: Action) -> u64 {
        match stage {
            Action::Minicore => self.core,
            Action::Metadata => self.minicore,
            _ => self.bytes,
        }
    }
}

/// The entries with their sizes on disk. Opens only directories.
pub(super) fn charged_entries(spool: &Path) -> io::Result<Vec<ChargedEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(spool)?.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let id = name.strip_suffix(".partial").unwrap_or(name);
        let Ok(id) = id.parse() else { continue };
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        entries.push(charged_entry(id, entry.path(), !name.ends_with(".partial")));
    }
    Ok(entries)
}

fn charged_entry(id: DumpId, path: PathBuf, sealed: bool) -> ChargedEntry {
    use std::os::unix::fs::MetadataExt;
    let mut item = ChargedEntry {
        id,
        sealed,
        born: SystemTime::now(),
        bytes: 0,
        core: 0,
        minicore: 0,
        need: 0,
        share: String::new(),
        is_setuid: false,
        fixed: false,
        path,
    };
    // Entries may vanish during the scan, which is not an error.
    for file in fs::read_dir(&item.path).into_iter().flatten().flatten() {
        let name = file.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(need) = name.strip_prefix(NEED) {
            // The note is left over from a handler that was killed while it sealed the entry.
            item.need = if sealed { 0 } else { need.parse().unwrap_or(0) };
            continue;
        }
        let share = name.strip_prefix(SHARE).map(|share| (share, false));
        if let Some((share, is_setuid)) = share.or_else(|| Some((name.strip_prefix(SETUID)?, true)))
        {
            item.share = share.to_owned();
            item.is_setuid = is_setuid;
            continue;
        }
        let Ok(metadata) = file.metadata() else {
            continue;
        };
        let bytes = metadata.blocks().saturating_mul(512);
        item.bytes = item.bytes.saturating_add(bytes);
        match EntryKind::from_file_name(name) {
            Some(EntryKind::Core(_)) => item.core = item.core.saturating_add(bytes),
            Some(EntryKind::Minicore) => item.minicore = bytes,
            _ => {}
        }
        if let Ok(written) = metadata.modified() {
            item.born = item.born.min(written);
        }
    }
    item
}
