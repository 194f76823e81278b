//! Keeps the spool within its quota: who needs room makes it.
//!
//! ```text
//! <spool>/.room/lock              held while somebody counts and makes room
//! <id>.partial/.need-<bytes>      what its handler may still write
//! ```
//!
//! The oldest cores are given up first, then the oldest minicores, then the oldest dumps as a whole;
//! an entry that is being sent, or of which a part may be in the store already, is left alone. What was
//! given up stands in the entry's manifest and in the ledger. Invariants: an entry is the old one or
//! the smaller one, wherever this is interrupted; two who need room at the same time do not count on
//! the same room.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cdh_bundle::{
    Cause, CoreEncoding, DumpId, EntryKind, Gap, Manifest, SpoolEntry, SpoolState, Verdict, amend,
    settle,
};

use super::entry_lock::EntryLock;
use crate::ledger::{DropReason, LedgerRecord, Outcome};
use crate::policy::{Action, LimitsConfig};
use crate::private_file::PrivateDirectory;

/// Directory of the lock in the spool.
const ROOM: &str = ".room";
/// Note of what a handler may still write.
const NEED: &str = ".need-";
/// Bytes for which cores are given up because the disk is at its floor; a new core that needs more is
/// cut rather than that more of the old ones go.
const FLOOR_NEED: u64 = 32 << 20;
/// Bytes that every dump needs: minicore, facts, log.
const SURE_NEED: u64 = 2 << 20;
/// Bytes of a manifest at most.
const MANIFEST: u64 = 64 << 20;

/// What the spool may take, on its file system as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Bytes of all entries.
    pub(crate) quota: u64,
    /// Bytes that stay free.
    pub(crate) floor: u64,
    /// Bytes that are free.
    pub(crate) free: u64,
}

impl Bounds {
    /// Of this spool; `floor` is what the settings say where the limits say nothing.
    pub(crate) fn of(spool: &Path, limits: &LimitsConfig, floor: u64) -> io::Result<Self> {
        let found = rustix::fs::statvfs(spool)?;
        let size = found.f_blocks.saturating_mul(found.f_frsize);
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let quota = match (limits.spool_quota.0, limits.spool_quota_percent) {
            (0, 0) => u64::MAX,
            (bytes, 0) => bytes,
            (0, percent) => part(size, percent),
            (bytes, percent) => bytes.min(part(size, percent)),
        };
        Ok(Self {
            quota,
            floor: floor_of(limits, floor, size),
            free,
        })
    }
}

/// Bytes that these limits let the spool take on its file system as it is now; `None` without a quota.
///
/// # Errors
/// When the file system cannot be looked at.
pub fn quota_of(spool: &Path, limits: &LimitsConfig) -> io::Result<Option<u64>> {
    let bounds = Bounds::of(spool, limits, 0)?;
    Ok((bounds.quota != u64::MAX).then_some(bounds.quota))
}

/// Bytes that stay free on a file system of this size.
pub(crate) fn floor_of(limits: &LimitsConfig, usual: u64, size: u64) -> u64 {
    /// The usual floor is never more than this part of the file system.
    const SMALLEST_PART: u64 = 20;
    let bytes = match limits.disk_floor {
        Some(bytes) => bytes.0,
        None => usual.min(size / SMALLEST_PART),
    };
    bytes.max(part(size, limits.disk_floor_percent))
}

fn part(size: u64, percent: u8) -> u64 {
    (size / 100).saturating_mul(u64::from(percent))
}

/// What making room came to.
#[derive(Debug, Default)]
pub(crate) struct Made {
    /// Bytes that may be written; `u64::MAX` where there is no quota.
    pub(crate) room: u64,
    /// What was given up for it.
    pub(crate) given_up: Vec<LedgerRecord>,
}

/// Where room is needed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// The spool.
    pub(crate) spool: &'a Path,
    /// Directory of the journals of uploads.
    pub(crate) uploads: &'a Path,
    /// The entry that needs room; `None` where nobody does, and the spool shall be within its bounds.
    pub(crate) id: Option<DumpId>,
    /// Bytes that it may take at most.
    pub(crate) need: u64,
}

/// One entry as it stands.
#[derive(Clone, Debug)]
struct Item {
    id: DumpId,
    path: PathBuf,
    sealed: bool,
    born: SystemTime,
    bytes: u64,
    core: u64,
    minicore: u64,
    need: u64,
}

impl Item {
    /// What it takes, or may still take.
    fn weight(&self) -> u64 {
        self.bytes.max(self.need)
    }
}

/// Makes as much room as is needed and can be made, and notes that it is taken.
///
/// # Errors
/// When the spool cannot be read.
pub(crate) fn make_room(
    wanted: &Wanted<'_>,
    limits: &LimitsConfig,
    floor: u64,
) -> io::Result<Made> {
    let bounds = Bounds::of(wanted.spool, limits, floor)?;
    let near = bounds.free < bounds.floor.saturating_add(wanted.need.min(FLOOR_NEED));
    if bounds.quota == u64::MAX && !near {
        return Ok(Made {
            room: u64::MAX,
            ..Made::default()
        });
    }
    // Without the lock two may count on the same room, which the floor bounds too.
    let _lock =
        PrivateDirectory::make(&wanted.spool.join(ROOM)).and_then(|directory| directory.lock());
    let mut items = items(wanted.spool)?;
    items.retain(|item| Some(item.id) != wanted.id);
    items.sort_by_key(|item| item.born);
    let mut state = State {
        used: items.iter().map(Item::weight).fold(0, u64::saturating_add),
        stored: items.iter().map(|item| item.bytes).sum(),
        free: bounds.free,
        given_up: Vec::new(),
    };
    // One core is not worth more than half of all the others.
    let need = wanted.need.min(bounds.quota / 2);
    // Cores make room for a core, however much of it there will be; minicores and dumps only for what
    // is surely there.
    let fits = |state: &State, stage: Action| match stage {
        Action::Minicore => {
            state.used.saturating_add(need) <= bounds.quota
                && state.free >= bounds.floor.saturating_add(wanted.need.min(FLOOR_NEED))
        }
        _ => {
            let sure = need.min(SURE_NEED);
            state.stored.saturating_add(sure) <= bounds.quota
                && state.free >= bounds.floor.saturating_add(sure)
        }
    };
    for stage in [Action::Minicore, Action::Metadata, Action::Ignore] {
        for item in items.iter_mut().filter(|item| item.sealed) {
            if fits(&state, stage) {
                break;
            }
            let worth = match stage {
                Action::Minicore => item.core,
                Action::Metadata => item.minicore,
                _ => item.bytes,
            };
            let upload = wanted.uploads.join(format!("{}.journal", item.id));
            if worth == 0 || upload.exists() {
                continue;
            }
            // One that is being sent, or cannot be changed: the next one, then.
            if let Ok(record) = give_up(item, stage) {
                state.used = state.used.saturating_sub(worth);
                state.stored = state.stored.saturating_sub(worth);
                state.free = state.free.saturating_add(worth);
                state.given_up.extend(record);
                item.bytes = item.bytes.saturating_sub(worth);
                match stage {
                    Action::Minicore => item.core = 0,
                    _ => item.minicore = 0,
                }
            }
        }
    }
    let room = match bounds.quota {
        u64::MAX => u64::MAX,
        quota => quota.saturating_sub(state.used),
    };
    if let Some(id) = wanted.id {
        let partial = wanted.spool.join(format!("{id}.partial"));
        let note = partial.join(format!("{NEED}{}", wanted.need.min(room)));
        let mut options = fs::OpenOptions::new();
        let _ = options.write(true).create_new(true).open(note);
    }
    Ok(Made {
        room,
        given_up: state.given_up,
    })
}

/// How the spool stands while room is made.
struct State {
    /// What is there, or may still come.
    used: u64,
    /// What is there.
    stored: u64,
    free: u64,
    given_up: Vec<LedgerRecord>,
}

/// Bytes that all entries take, what is still to be written included.
///
/// # Errors
/// When the spool cannot be read.
pub fn used(spool: &Path) -> io::Result<u64> {
    // Else an old core counts that goes while we look, and the new one that takes its place as well.
    let _lock = PrivateDirectory::make(&spool.join(ROOM)).and_then(|directory| directory.lock());
    let items = items(spool)?;
    Ok(items.iter().map(Item::weight).fold(0, u64::saturating_add))
}

/// Removes the note of what a handler needs.
pub(crate) fn forget_need(partial: &Path) {
    for file in fs::read_dir(partial).into_iter().flatten().flatten() {
        if file
            .file_name()
            .as_encoded_bytes()
            .starts_with(NEED.as_bytes())
        {
            let _ = fs::remove_file(file.path());
        }
    }
}

/// The entries with their sizes on disk. Nothing is opened but directories.
fn items(spool: &Path) -> io::Result<Vec<Item>> {
    let mut items = Vec::new();
    for entry in fs::read_dir(spool)?.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let id = name.strip_suffix(".partial").unwrap_or(name);
        let Ok(id) = id.parse() else { continue };
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        items.push(item(id, entry.path(), !name.ends_with(".partial")));
    }
    Ok(items)
}

fn item(id: DumpId, path: PathBuf, sealed: bool) -> Item {
    use std::os::unix::fs::MetadataExt;
    let mut item = Item {
        id,
        sealed,
        born: SystemTime::now(),
        bytes: 0,
        core: 0,
        minicore: 0,
        need: 0,
        path,
    };
    // Entries vanish while we look, which is no error.
    for file in fs::read_dir(&item.path).into_iter().flatten().flatten() {
        let name = file.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(need) = name.strip_prefix(NEED) {
            item.need = need.parse().unwrap_or(0);
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

/// Gives up the core, the minicore or all of a sealed entry. The record of it; `None` where only a
/// leftover went.
fn give_up(item: &Item, stage: Action) -> io::Result<Option<LedgerRecord>> {
    let _lock = EntryLock::try_take(&item.path)?;
    settle(&item.path).map_err(io::Error::other)?;
    let json = read_manifest(&item.path)?;
    let mut manifest = Manifest::from_json(&json).map_err(io::Error::other)?;
    let outcome = match stage {
        Action::Ignore => Outcome::Removed,
        _ => Outcome::Degraded,
    };
    let record = |manifest: &Manifest, bytes, why: &str| LedgerRecord {
        stored_bytes: bytes,
        action: stage,
        ..LedgerRecord::of(manifest, outcome).because(DropReason::Quota, why)
    };
    match stage {
        Action::Minicore => {
            let before = manifest.verdict.word();
            let core = manifest.core.take();
            let was_listed = core.is_some();
            let core_bytes = core.as_ref().map_or(0, |core| core.size);
            let why = format!(
                "the core ({before}, {core_bytes} bytes) was given up for newer dumps: the spool \
                 had reached its bounds"
            );
            if let Some(core) = core {
                manifest.entries.retain(|entry| entry.name != core.entry);
                manifest.verdict = Verdict::Empty {
                    cause: Cause::Quota,
                    evidence: Some(why.clone()),
                };
                leave(&mut manifest, &item.path, "core", &why)?;
            }
            for encoding in [
                CoreEncoding::ZstdSeekable,
                CoreEncoding::None,
                CoreEncoding::Deflate,
            ] {
                remove(&item.path, &EntryKind::Core(encoding))?;
            }
            Ok(was_listed.then(|| record(&manifest, item.core, &why)))
        }
        Action::Metadata => {
            let why = "the minicore was given up for newer dumps: the spool had reached its bounds";
            let name = EntryKind::Minicore.bundle_name(&manifest.stem);
            let before = manifest.entries.len();
            manifest.entries.retain(|entry| entry.name != name);
            let was_listed = manifest.entries.len() < before;
            if was_listed {
                leave(&mut manifest, &item.path, "minicore", why)?;
            }
            remove(&item.path, &EntryKind::Minicore)?;
            Ok(was_listed.then(|| record(&manifest, item.minicore, why)))
        }
        _ => {
            let why = "the dump was removed for newer ones: the spool had reached its bounds";
            let entry = SpoolEntry {
                id: item.id,
                path: item.path.clone(),
                state: SpoolState::Sealed,
            };
            entry.remove().map_err(io::Error::other)?;
            Ok(Some(record(&manifest, item.bytes, why)))
        }
    }
}

/// The manifest without it, committed before the file goes.
fn leave(manifest: &mut Manifest, entry: &Path, what: &str, why: &str) -> io::Result<()> {
    manifest.gaps.push(Gap {
        what: what.to_owned(),
        why: why.to_owned(),
    });
    amend(entry, manifest.clone(), &[]).map_err(io::Error::other)
}

fn remove(entry: &Path, kind: &EntryKind) -> io::Result<()> {
    match fs::remove_file(entry.join(kind.file_name())) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read_manifest(entry: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let mut options = fs::OpenOptions::new();
    let options = options.read(true).custom_flags(flags.bits().cast_signed());
    let file = options.open(entry.join(EntryKind::Manifest.file_name()))?;
    let mut json = Vec::new();
    file.take(MANIFEST).read_to_end(&mut json)?;
    Ok(json)
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
