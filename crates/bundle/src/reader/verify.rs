//! Compares a bundle's content with its manifest, or with the zip's CRCs.

use std::collections::BTreeMap;

use super::{BundleEntry, BundleReader};
use crate::{BundleError, Digests, EntryKind, EntryRecord, RawText};

/// Result of the check of each entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// Every entry in the manifest, then the entries that the manifest does not list.
    pub entries: Vec<(RawText, EntryCheck)>,
}

/// Result of the check of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryCheck {
    /// The bytes match the manifest.
    Good,
    /// The manifest does not list it; its bytes match the zip.
    Unlisted,
    /// The manifest lists it, but it is missing.
    Missing,
    /// Different or too few bytes.
    Mismatch {
        /// Describes the mismatch.
        what: String,
    },
}

impl Verification {
    /// Whether nothing is missing or different.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problems().next().is_none()
    }

    /// The entries that are missing or different.
    pub fn problems(&self) -> impl Iterator<Item = (&RawText, &EntryCheck)> {
        let bad =
            |check: &EntryCheck| matches!(check, EntryCheck::Missing | EntryCheck::Mismatch { .. });
        self.entries
            .iter()
            .map(|(name, check)| (name, check))
            .filter(move |(_, check)| bad(check))
    }
}

pub(super) fn verify(bundle: &BundleReader) -> Result<Verification, BundleError> {
    let mut records: BTreeMap<&[u8], &EntryRecord> = BTreeMap::new();
    let mut order = Vec::new();
    for record in bundle
        .manifest
        .iter()
        .flat_map(|manifest| &manifest.entries)
    {
        if records.insert(record.name.as_bytes(), record).is_none() {
            order.push(record);
        }
    }
    let mut found: BTreeMap<&[u8], EntryCheck> = BTreeMap::new();
    let mut unlisted = Vec::new();
    for entry in &bundle.entries {
        let record = records.get(entry.name.as_bytes()).copied();
        let mut check = check(bundle, entry, record)?;
        // Two entries with the same name: tools differ in which one they read.
        if found.contains_key(entry.name.as_bytes()) {
            check = EntryCheck::Mismatch {
                what: "there are two of this name".to_owned(),
            };
        }
        if record.is_none() {
            unlisted.push(entry.name.clone());
        }
        found.insert(entry.name.as_bytes(), check);
    }
    let mut entries = Vec::new();
    for record in order {
        let check = found
            .get(record.name.as_bytes())
            .cloned()
            .unwrap_or(EntryCheck::Missing);
        entries.push((RawText::from(record.name.as_str()), check));
    }
    for name in unlisted {
        let check = found
            .get(name.as_bytes())
            .cloned()
            .unwrap_or(EntryCheck::Unlisted);
        entries.push((name, check));
    }
    // If the zip was cut between two entries, each entry is complete, but the ones after it are
    // missing.
    if let (Some(note), None) = (&bundle.salvaged, &bundle.manifest) {
        let check = EntryCheck::Mismatch { what: note.clone() };
        entries.push((RawText::from("bundle"), check));
    }
    if let Some(check) = check_plain_core(bundle)? {
        entries.push((RawText::from("core"), check));
    }
    Ok(Verification { entries })
}

fn check(
    bundle: &BundleReader,
    entry: &BundleEntry,
    record: Option<&EntryRecord>,
) -> Result<EntryCheck, BundleError> {
    let mismatch = |what: String| Ok(EntryCheck::Mismatch { what });
    if entry.cut {
        return mismatch(format!("it is cut after {} bytes", entry.stored_size));
    }
    let read = bundle.entry_reader(entry).and_then(|reader| {
        let action = format!("read entry `{}`", entry.name);
        Digests::of_reader(reader).map_err(|error| BundleError::from_io(action, error))
    });
    let found = match read {
        Ok(found) => found,
        Err(error) => return damage(error),
    };
    let Some(record) = record else {
        return Ok(match entry.kind {
            // The manifest cannot list itself.
            Some(EntryKind::Manifest) => EntryCheck::Good,
            _ => EntryCheck::Unlisted,
        });
    };
    if found.size != record.size {
        return mismatch(format!("{} bytes instead of {}", found.size, record.size));
    }
    if found.crc32 != record.crc32 || found.sha256 != record.sha256 {
        return mismatch(format!(
            "SHA-256 {} instead of {}",
            found.sha256, record.sha256
        ));
    }
    Ok(EntryCheck::Good)
}

/// Checks the plain core against the manifest if its entry is compressed beyond the zip's own
/// method.
fn check_plain_core(bundle: &BundleReader) -> Result<Option<EntryCheck>, BundleError> {
    let core = bundle
        .manifest
        .as_ref()
        .and_then(|manifest| manifest.core.as_ref());
    let Some((core, expected)) = core.and_then(|core| Some((core, core.sha256?))) else {
        return Ok(None);
    };
    let read = bundle.core_reader().and_then(|reader| {
        let failed = |error| BundleError::from_io("read the core".to_owned(), error);
        reader.map(Digests::of_reader).transpose().map_err(failed)
    });
    Ok(Some(match read {
        Ok(Some(found)) if found.size == core.size && found.sha256 == expected => EntryCheck::Good,
        Ok(Some(found)) => {
            let what = format!("SHA-256 {} instead of {expected}", found.sha256);
            EntryCheck::Mismatch { what }
        }
        Ok(None) => EntryCheck::Missing,
        Err(error) => damage(error)?,
    }))
}

/// Turns damage into a result; a failing disk or network remains an error.
fn damage(error: BundleError) -> Result<EntryCheck, BundleError> {
    match error {
        BundleError::Io { source, action } if source.raw_os_error().is_some() => {
            Err(BundleError::Io { action, source })
        }
        BundleError::Io { source, .. } => Ok(EntryCheck::Mismatch {
            what: source.to_string(),
        }),
        error => Ok(EntryCheck::Mismatch {
            what: error.to_string(),
        }),
    }
}
