//! The order in which a dump enters and leaves a store.

use std::path::Path;

use cdh_bundle::{BundleError, BundleWriter, Digests, SourceReader, Window};

use crate::{DumpSummary, ObjectKey, Receipt, ShipError, Store, StoreError};

/// A dump that is in the store, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// Key of the bundle.
    pub key: ObjectKey,
    /// Digests of the bundle.
    pub digests: Digests,
}

/// Puts the bundle, compares what the store holds with what was sent, and only then puts the
/// manifest that makes it a dump. Doing it twice is the same as doing it once.
///
/// # Errors
/// When the store fails, the spool entry is broken, or the store holds something else afterwards.
pub fn ship(store: &dyn Store, bundle: &BundleWriter) -> Result<Shipped, ShipError> {
    ship_by(store, bundle, |key| {
        store.put(key, &mut bundle.reader(), bundle.len())
    })
}

/// As [`ship`]; what an earlier try has brought into the store is told by the file `journal` and not
/// sent again.
///
/// # Errors
/// As [`ship`].
pub fn ship_resumable(
    store: &dyn Store,
    bundle: &BundleWriter,
    journal: &Path,
) -> Result<Shipped, ShipError> {
    ship_by(store, bundle, |key| {
        store.put_resumable(key, &mut bundle.reader(), bundle.len(), journal)
    })
}

fn ship_by(
    store: &dyn Store,
    bundle: &BundleWriter,
    put: impl FnOnce(&ObjectKey) -> Result<Receipt, StoreError>,
) -> Result<Shipped, ShipError> {
    let (key, manifest_key) = ObjectKey::for_manifest(bundle.manifest());
    let sent = put(&key).map_err(blame)?;
    store.verify(&key, &sent)?;
    // The very bytes that the bundle ends with: a newer agent's fields are not lost on the way.
    let mut json = bundle.manifest_json();
    let size = json.len() as u64;
    let manifest = store.put(&manifest_key, &mut json, size)?;
    store.verify(&manifest_key, &manifest)?;
    Ok(Shipped {
        key,
        digests: sent.digests,
    })
}

/// A spool entry that is not what its manifest says fails in the middle of the upload: that is not
/// the store's fault, and trying again does not help.
fn blame(error: StoreError) -> ShipError {
    match error {
        StoreError::Io { path, source } => match source.downcast::<BundleError>() {
            Ok(error) => ShipError::Bundle(error),
            Err(source) => StoreError::Io { path, source }.into(),
        },
        error => error.into(),
    }
}

/// What the store holds is not what was sent.
pub(crate) fn differs(key: &ObjectKey, expected: String, found: String) -> ShipError {
    ShipError::Verify {
        key: key.to_string(),
        expected,
        found,
    }
}

/// Compares the size, and then every byte by its SHA-256.
pub(crate) fn read_back(
    store: &(impl Store + ?Sized),
    key: &ObjectKey,
    sent: &Receipt,
) -> Result<(), ShipError> {
    let sent = &sent.digests;
    let bytes = |size| format!("{size} bytes");
    let Some(stat) = store.stat(key)? else {
        return Err(differs(key, bytes(sent.size), "nothing".to_owned()));
    };
    if stat.size != sent.size {
        return Err(differs(key, bytes(sent.size), bytes(stat.size)));
    }
    let source = store.read_pinned(key, &stat)?;
    let found = Digests::of_reader(SourceReader::new(Window::whole(source)))
        .map_err(|error| StoreError::from_io(key.as_str(), error))?;
    if found == *sent {
        return Ok(());
    }
    let shown = |digests: &Digests| format!("SHA-256 {}", digests.sha256);
    Err(differs(key, shown(sent), shown(&found)))
}

/// Removes a dump: the manifest first, so that a removal cut short leaves none that cannot be read.
///
/// # Errors
/// When the store fails.
pub fn remove_dump(store: &dyn Store, dump: &DumpSummary) -> Result<(), StoreError> {
    if let Some(manifest) = dump.key.manifest().filter(|_| !dump.legacy) {
        store.delete(&manifest)?;
    }
    store.delete(&dump.key)
}
