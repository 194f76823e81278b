//! Checks that a bundle's zip directory, local headers and manifest agree, as far as possible
//! without reading the entries.
//!
//! The directory and the local headers of a zip have no checksum. A flipped bit in them moves an
//! entry, renames it or changes how it is read. The manifest has a checksum and lists name, size
//! and CRC of each entry. Zips of IBM's agent have no manifest; only their own headers are
//! compared.

use std::collections::BTreeMap;

use super::{BundleEntry, BundleReader};
use crate::{BundleError, CoreEncoding, EntryKind, EntryRecord, RawText};

/// Whether our agent wrote the bundle. IBM's agent writes neither of these entries; ours always
/// writes a manifest, last.
pub(super) fn is_ours(bundle: &BundleReader) -> bool {
    let kinds = bundle.entries.iter().map(|entry| &entry.kind);
    let mut kinds = kinds.flatten();
    kinds.any(|kind| {
        matches!(
            kind,
            EntryKind::Core(CoreEncoding::ZstdSeekable) | EntryKind::Minicore
        )
    })
}

/// Largest entry that is read only to check whether it is damaged.
const LARGEST_FACT: u64 = 1 << 20;

/// Describes what is damaged.
pub(super) fn damage_of(bundle: &BundleReader) -> Vec<String> {
    let Some(manifest) = &bundle.manifest else {
        let missing = is_ours(bundle) && bundle.damage.is_empty();
        let how = match &bundle.salvaged {
            Some(_) => "the bundle is cut: its manifest and its directory are missing",
            None => "the bundle is damaged: its manifest is missing",
        };
        let how = missing.then(|| how.to_owned());
        return how.into_iter().chain(unreadable_facts(bundle)).collect();
    };
    let mut damage = Vec::new();
    if let Some(note) = &bundle.salvaged {
        damage.push(note.clone());
    }
    let mut found: BTreeMap<&[u8], usize> = BTreeMap::new();
    for entry in &bundle.entries {
        let count = found.entry(entry.name.as_bytes()).or_default();
        *count = count.saturating_add(1);
    }
    for record in &manifest.entries {
        let name = RawText::from(record.name.as_str());
        match found.get(record.name.as_bytes()) {
            None => damage.push(format!("entry `{name}` is missing")),
            Some(1) => {}
            Some(_) => damage.push(format!("entry `{name}` exists twice")),
        }
    }
    damage.extend(bundle.entries.iter().filter_map(|entry| {
        let error = compare_with_manifest(bundle, entry).err()?;
        Some(error.to_string())
    }));
    damage
}

/// Entries that supply facts for a bundle without a manifest, and that cannot be read. Truncated or
/// missing entries are not damage: the agent was stopped before it wrote them.
fn unreadable_facts(bundle: &BundleReader) -> Vec<String> {
    let facts = bundle.entries.iter().filter(|entry| {
        matches!(
            entry.kind,
            Some(
                EntryKind::DumpInfo
                    | EntryKind::PodInfo
                    | EntryKind::RuntimeInfo
                    | EntryKind::PsInfo
                    | EntryKind::ImageInfo(_)
                    | EntryKind::ProcFile(_)
            )
        )
    });
    let whole = facts.filter(|entry| !entry.cut && entry.size <= LARGEST_FACT);
    // A damaged name hides the kind of the entry: the local header has a second copy of the name.
    let unknown = bundle.entries.iter().filter(|entry| entry.kind.is_none());
    let renamed = unknown.filter_map(|entry| match bundle.content(entry) {
        Err(error @ BundleError::Mismatch { .. }) => Some(error.to_string()),
        _ => None,
    });
    let problem = |entry: &BundleEntry| {
        let error = bundle.inflated(entry, LARGEST_FACT).err()?;
        match &error {
            BundleError::Io { source, .. } => Some(format!("{error}: {source}")),
            _ => Some(error.to_string()),
        }
    };
    whole.filter_map(problem).chain(renamed).collect()
}

/// Compares an entry's directory record with its record in the manifest.
///
/// # Errors
/// [`BundleError::Mismatch`] if they disagree.
pub(super) fn compare_with_manifest(
    bundle: &BundleReader,
    entry: &BundleEntry,
) -> Result<(), BundleError> {
    let Some(record) = record_of(bundle, entry) else {
        return Ok(());
    };
    let mismatch = |expected: String, found: String| {
        Err(BundleError::Mismatch {
            entry: entry.name.to_string(),
            expected,
            found,
        })
    };
    let stored = record.stored_size.unwrap_or(record.size);
    if entry.cut {
        // The reader reports this; the bytes that exist are still useful.
        return Ok(());
    }
    if entry.encrypted {
        return mismatch("plain bytes".to_owned(), "encrypted ones".to_owned());
    }
    if (entry.size, entry.stored_size) != (record.size, stored) {
        return mismatch(
            format!("{stored} bytes of {}", record.size),
            format!("{} bytes of {}", entry.stored_size, entry.size),
        );
    }
    match entry.crc32 {
        Some(found) if found != record.crc32 => mismatch(
            format!("CRC-32 {:08x}", record.crc32),
            format!("{found:08x}"),
        ),
        _ => Ok(()),
    }
}

fn record_of<'b>(bundle: &'b BundleReader, entry: &BundleEntry) -> Option<&'b EntryRecord> {
    let records = &bundle.manifest.as_ref()?.entries;
    records
        .iter()
        .find(|record| record.name.as_bytes() == entry.name.as_bytes())
}

/// Returns where the content of `entry` begins; the local header says `at`.
///
/// # Errors
/// [`BundleError::Mismatch`] if the content would overlap the next entry. In our own bundles, which
/// have no gaps, also if it would end before the next entry.
pub(super) fn content_at(
    bundle: &BundleReader,
    entry: &BundleEntry,
    at: Option<u64>,
) -> Result<u64, BundleError> {
    let mismatch = |expected: &str, found: String| BundleError::Mismatch {
        entry: entry.name.to_string(),
        expected: expected.to_owned(),
        found,
    };
    let at = at.ok_or_else(|| {
        let found = format!("none at byte {}", entry.header_at);
        mismatch("a local header of this name", found)
    })?;
    let end = at.saturating_add(entry.stored_size);
    let headers = bundle.entries.iter().map(|other| other.header_at);
    let Some(next) = headers.filter(|&other| other > entry.header_at).min() else {
        return Ok(at);
    };
    let is_ours = record_of(bundle, entry).is_some();
    if end > next || (is_ours && end != next && !entry.cut) {
        let found = format!("{at} to {end}");
        return Err(mismatch(&format!("an end at byte {next}"), found));
    }
    Ok(at)
}
