//! Deletes a part of a sealed entry to keep the spool within its quota.
//!
//! Invariant: the amended manifest is on disk before the file is deleted, so an interruption leaves
//! either the old entry or the smaller one, and both are complete.

use std::fs;
use std::io;
use std::path::Path;

use cdh_bundle::{
    Cause, CoreEncoding, EntryKind, Gap, Manifest, SpoolEntry, SpoolState, Verdict, amend, settle,
};

use super::charged_entry::ChargedEntry;
use super::entry_lock::EntryLock;
use crate::ledger::LedgerRecord;
use crate::outcome::Action;
use crate::outcome::{DropReason, Outcome};

/// Maximum bytes of a manifest.
const MANIFEST: u64 = 64 << 20;

/// Deletes the core, the minicore or all of a sealed entry, for the same owner or for another one.
/// Returns the ledger record; `None` if only a leftover file was deleted.
pub(super) fn give_up(
    item: &ChargedEntry,
    stage: Action,
    is_own: bool,
) -> io::Result<Option<LedgerRecord>> {
    let _lock = EntryLock::try_take(&item.path)?;
    settle(&item.path).map_err(io::Error::other)?;
    let json = read_manifest(&item.path)?;
    let mut manifest = Manifest::from_json(&json).map_err(io::Error::other)?;
    let outcome = match stage {
        Action::Ignore => Outcome::Removed,
        _ => Outcome::Degraded,
    };
    let whose = if is_own {
        "the same owner"
    } else {
        "another owner"
    };
    let bounds = format!(
        "was deleted for newer dumps of {whose}: the spool had reached its quota, or the disk its \
         floor"
    );
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
            let why = format!("the core ({before}, {core_bytes} bytes) {bounds}");
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
            let why = &format!("the minicore {bounds}");
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
            let why = &format!("the dump {bounds}");
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

/// Removes the file from the manifest; this is committed before the file is deleted.
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
