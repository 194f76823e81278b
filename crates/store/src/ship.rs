//! The order in which a dump enters and leaves a store.

use cdh_bundle::{BundleError, BundleWriter, Digests, SourceReader, Window};

use crate::{DumpSummary, ObjectKey, ShipError, Store, StoreError};

/// A dump that is in the store, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// Key of the bundle.
    pub key: ObjectKey,
    /// Digests of the bundle.
    pub digests: Digests,
}

/// Puts the bundle, reads it back and compares, and only then puts the manifest that makes it a dump.
/// Doing it twice is the same as doing it once.
///
/// # Errors
/// When the store fails, the spool entry is broken, or the store holds something else afterwards.
pub fn ship(store: &dyn Store, bundle: &BundleWriter) -> Result<Shipped, ShipError> {
    let (key, manifest_key) = ObjectKey::for_manifest(bundle.manifest());
    let sent = store
        .put(&key, &mut bundle.reader(), bundle.len())
        .map_err(blame)?;
    verify(store, &key, &sent)?;
    // The very bytes that the bundle ends with: a newer agent's fields are not lost on the way.
    let mut json = bundle.manifest_json();
    let expected = Digests::of(json);
    store.put(&manifest_key, &mut json, expected.size)?;
    verify(store, &manifest_key, &expected)?;
    Ok(Shipped { key, digests: sent })
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

fn verify(store: &dyn Store, key: &ObjectKey, sent: &Digests) -> Result<(), ShipError> {
    let differs = |found: String, expected: String| ShipError::Verify {
        key: key.to_string(),
        expected,
        found,
    };
    match store.stat(key)? {
        None => {
            return Err(differs(
                "nothing".to_owned(),
                format!("{} bytes", sent.size),
            ));
        }
        Some(stat) if stat.size != sent.size => {
            let bytes = |size| format!("{size} bytes");
            return Err(differs(bytes(stat.size), bytes(sent.size)));
        }
        Some(_) => {}
    }
    let found = Digests::of_reader(SourceReader::new(Window::whole(store.read(key)?)))
        .map_err(|error| StoreError::from_io(key.as_str(), error))?;
    if found == *sent {
        return Ok(());
    }
    Err(differs(
        format!("SHA-256 {}", found.sha256),
        format!("SHA-256 {}", sent.sha256),
    ))
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
