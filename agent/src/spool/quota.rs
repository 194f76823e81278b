//! Keeps the spool within its quota: a handler that needs room makes it.
//!
//! ```text
//! <spool>/.room/lock              held while a handler counts and makes room
//! <id>.partial/.need-<bytes>      what its handler may still write, until the entry is sealed
//! <id>/.share-<owner>             who is charged for the entry
//! <id>/.setuid-<owner>            the same, for the dump of a setuid program
//! ```
//!
//! Cores are deleted first, then minicores, then complete dumps. [`super::shares`] selects the
//! owner: the one that uses the most goes first. Dumps of setuid programs have a quarter of the
//! quota to themselves and are never deleted for other programs. An entry is not touched while it
//! is written or uploaded, or if the store may already have a part of it. One owner's dumps of
//! these kinds never take the complete quota. The entry's manifest and the ledger record what was
//! deleted. Invariants: an interruption leaves either the old entry or the smaller one; two
//! handlers that need room at the same time do not count on the same room.

use std::fs;
use std::io;
use std::path::Path;

use cdh_bundle::DumpId;

use super::charged_entry::{ChargedEntry, NEED, charged_entries};
use super::shares::{GiveUp, Need, Pool, SURE_NEED};
use crate::ledger::LedgerRecord;
use crate::policy::{Account, LimitsConfig};
use crate::private_file::PrivateDirectory;

/// Directory of the lock in the spool.
const ROOM: &str = ".room";
/// Maximum bytes for which cores are deleted because the disk is at its floor. A larger new core is
/// truncated instead.
const FLOOR_NEED: u64 = 32 << 20;

/// Limits of the spool on its file system at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Maximum bytes of all entries.
    pub(crate) quota: u64,
    /// Bytes that must stay free.
    pub(crate) floor: u64,
    /// Bytes that are free.
    pub(crate) free: u64,
}

impl Bounds {
    /// The bounds of this spool; `floor` is the default if the limits have none.
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

/// The quota in bytes that these limits allow on the spool's file system; `None` without a quota.
///
/// # Errors
/// Fails if the file system cannot be examined.
pub fn quota_of(spool: &Path, limits: &LimitsConfig) -> io::Result<Option<u64>> {
    let bounds = Bounds::of(spool, limits, 0)?;
    Ok((bounds.quota != u64::MAX).then_some(bounds.quota))
}

/// Bytes that must stay free on a file system of this size.
pub(crate) fn floor_of(limits: &LimitsConfig, usual: u64, size: u64) -> u64 {
    /// The default floor is never more than this fraction of the file system.
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

/// Result of making room.
#[derive(Debug, Default)]
pub(crate) struct Made {
    /// Bytes that may be written; `u64::MAX` without a quota.
    pub(crate) room: u64,
    /// Records of what was deleted.
    pub(crate) given_up: Vec<LedgerRecord>,
}

/// A request for room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// The spool.
    pub(crate) spool: &'a Path,
    /// Directory of the journals of uploads.
    pub(crate) uploads: &'a Path,
    /// The entry that needs room; `None` if it does not exist yet.
    pub(crate) id: Option<DumpId>,
    /// Maximum bytes that it may take.
    pub(crate) need: u64,
    /// The account that is charged for it.
    pub(crate) account: Option<&'a Account>,
}

/// Makes as much of the needed room as possible, and records that it is taken.
///
/// # Errors
/// Fails if the spool cannot be read.
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
    // Without the lock, two handlers may count on the same room; the floor still limits them.
    let _lock =
        PrivateDirectory::make(&wanted.spool.join(ROOM)).and_then(|directory| directory.lock());
    let mut all = charged_entries(wanted.spool)?;
    all.retain(|item| Some(item.id) != wanted.id);
    let (setuid, common): (Vec<ChargedEntry>, Vec<ChargedEntry>) =
        all.into_iter().partition(|item| item.is_setuid);
    let is_setuid = wanted.account.is_some_and(Account::is_setuid);
    let share = wanted.account.map(Account::share);
    let mut free = bounds.free;
    let mut given_up = Vec::new();
    let uploads = wanted.uploads;
    let mut setuid = Pool::new(setuid, is_setuid.then(|| share.clone()).flatten(), uploads);
    let mut common = Pool::new(common, share, uploads);
    let own_quota = setuid_quota(bounds.quota);
    let allowance = match is_setuid {
        true => setuid.allowance(own_quota),
        false => common.allowance(bounds.quota.saturating_sub(setuid.used)),
    };
    // Reserve the minimum of every dump first.
    let need = wanted.need.min(allowance.max(SURE_NEED));
    if is_setuid {
        // A user who attacks a setuid program must not erase its first dumps with more of them.
        let need = need.min(own_quota);
        let fits = |pool: &Pool, wants: Need| match wants {
            Need::Core => pool.used.saturating_add(need) <= own_quota,
            Need::Small => pool.stored.saturating_add(need.min(SURE_NEED)) <= own_quota,
        };
        given_up.extend(setuid.reduce(GiveUp::NewestOfOthers, need, fits));
        free = free.saturating_add(setuid.freed);
    }
    // One core may displace no more than half of the quota.
    let need = match is_setuid {
        true => need.min(own_quota.saturating_sub(setuid.used)),
        false => need.min(bounds.quota / 2),
    };
    let floor_need = wanted.need.min(FLOOR_NEED);
    // For a core, whose final size is unknown, only cores are deleted. Minicores and dumps are only
    // deleted for bytes that are certainly needed.
    let fits = |pool: &Pool, wants: Need| {
        let free = free.saturating_add(pool.freed);
        let (used, need, floor_need) = match wants {
            Need::Core => (pool.used.saturating_add(setuid.used), need, floor_need),
            Need::Small => {
                let sure = need.min(SURE_NEED);
                (pool.stored.saturating_add(setuid.stored), sure, sure)
            }
        };
        used.saturating_add(need) <= bounds.quota && free >= bounds.floor.saturating_add(floor_need)
    };
    given_up.extend(common.reduce(GiveUp::OldestOfLargest, need, fits));
    let room = match bounds.quota {
        u64::MAX => u64::MAX,
        quota => {
            let room = quota.saturating_sub(common.used.saturating_add(setuid.used));
            match is_setuid {
                true => room.min(own_quota.saturating_sub(setuid.used)),
                false => room,
            }
            .min(allowance)
        }
    };
    if let Some(id) = wanted.id {
        let partial = wanted.spool.join(format!("{id}.partial"));
        let note = partial.join(format!("{NEED}{}", wanted.need.min(room)));
        let mut options = fs::OpenOptions::new();
        let _ = options.write(true).create_new(true).open(note);
    }
    Ok(Made { room, given_up })
}

/// Bytes of a quota that dumps of setuid programs may use.
fn setuid_quota(quota: u64) -> u64 {
    match quota {
        u64::MAX => u64::MAX,
        quota => quota / 4,
    }
}

/// Bytes that all entries use, including bytes still to be written.
///
/// # Errors
/// Fails if the spool cannot be read.
pub fn used(spool: &Path) -> io::Result<u64> {
    // Otherwise an old core that is deleted during the scan counts, and so does its replacement.
    let _lock = PrivateDirectory::make(&spool.join(ROOM)).and_then(|directory| directory.lock());
    let items = charged_entries(spool)?;
    Ok(items
        .iter()
        .map(ChargedEntry::weight)
        .fold(0, u64::saturating_add))
}

/// Removes the note of a handler's need.
pub(crate) fn forget_need(entry: &Path) {
    for file in fs::read_dir(entry).into_iter().flatten().flatten() {
        if file
            .file_name()
            .as_encoded_bytes()
            .starts_with(NEED.as_bytes())
        {
            let _ = fs::remove_file(file.path());
        }
    }
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
