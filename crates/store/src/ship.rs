//! The order of operations when a dump is stored and removed.

use std::io::{self, Read};
use std::path::Path;

use cdh_bundle::{BundleError, BundleReader, BundleWriter, Digests, SourceReader, Window};

use crate::{DumpSummary, FirstSeenWriter, ObjectKey, Receipt, ShipError, Store, StoreError};

/// A dump in the store, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// Key of the bundle.
    pub key: ObjectKey,
    /// Digests of the bundle.
    pub digests: Digests,
}

/// Puts the bundle, compares the stored object with what was sent, and only then puts the manifest that commits
/// the dump. The operation is idempotent. A stored object that differs is removed, so that the next attempt can
/// start over: a dump's keys contain its id, and its bytes do not depend on the sender.
///
/// # Errors
/// If the store fails, the spool entry is damaged, or the stored object differs.
pub fn ship(store: &dyn Store, bundle: &BundleWriter) -> Result<Shipped, ShipError> {
    ship_by(store, bundle, &FirstSeenWriter::default(), |key| {
        store.put(key, &mut bundle.reader(), bundle.len())
    })
}

/// Options for an agent that ships many dumps.
pub struct ShipOptions<'o> {
    /// File that records the progress of an earlier attempt, which is not sent again.
    pub journal: &'o Path,
    /// Called with the number of sent bytes; may wait, or end the upload.
    pub flow: &'o dyn Fn(usize) -> Flow,
    /// Records when the store first received each crash.
    pub first_seen: &'o FirstSeenWriter,
}

/// Like [`ship`], resuming an earlier attempt. Ends with [`StoreError::Stopped`] soon after
/// [`flow`](ShipOptions::flow) requests it.
///
/// # Errors
/// As [`ship`].
pub fn ship_resumable(
    store: &dyn Store,
    bundle: &BundleWriter,
    options: &ShipOptions<'_>,
) -> Result<Shipped, ShipError> {
    ship_by(store, bundle, options.first_seen, |key| {
        let inner = bundle.reader();
        let flow = options.flow;
        let mut body = Steered { inner, flow };
        store.put_resumable(key, &mut body, bundle.len(), options.journal)
    })
}

/// Whether an upload continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    Go,
    /// The upload must stop.
    Stop,
}

/// A body that reports how many bytes were read from it. The observer can delay it, and end it with an error.
struct Steered<'s, R> {
    inner: R,
    flow: &'s dyn Fn(usize) -> Flow,
}

impl<R: Read> Read for Steered<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let stopped = || Err(io::Error::other(StoreError::Stopped));
        if (self.flow)(0) == Flow::Stop {
            return stopped();
        }
        let count = self.inner.read(buf)?;
        match (self.flow)(count) {
            Flow::Go => Ok(count),
            Flow::Stop => stopped(),
        }
    }
}

fn ship_by(
    store: &dyn Store,
    bundle: &BundleWriter,
    first_seen: &FirstSeenWriter,
    put: impl FnOnce(&ObjectKey) -> Result<Receipt, StoreError>,
) -> Result<Shipped, ShipError> {
    let (key, manifest_key) = ObjectKey::for_manifest(bundle.manifest());
    let sent = put(&key).map_err(blame);
    let sent = sent.and_then(|sent| store.verify(&key, &sent).map(|()| sent));
    if let Err(error) = &sent
        && is_something_else(error)
        && store.stat(&manifest_key)?.is_none()
    {
        // Without a manifest it is not a dump, but the rest of a failed upload.
        store.delete(&key)?;
    }
    let sent = sent?;
    // This precedes the manifest, so that no committed dump is missing in the index. If a store
    // refuses the entry, the dump is stored nevertheless; the writer retries with the next one.
    let _ = first_seen.record(store, bundle.manifest(), &key);
    // Exactly the bytes at the end of the bundle, so that a newer agent's fields are not lost.
    let mut json = bundle.manifest_json();
    let size = json.len() as u64;
    let put = store.put(&manifest_key, &mut json, size);
    let put = put.map_err(ShipError::from);
    let put = put.and_then(|manifest| store.verify(&manifest_key, &manifest));
    if let Err(error) = &put
        && is_something_else(error)
    {
        // The bundle, which contains the manifest, was verified.
        store.delete(&manifest_key)?;
    }
    put?;
    Ok(Shipped {
        key,
        digests: sent.digests,
    })
}

fn is_something_else(error: &ShipError) -> bool {
    matches!(
        error,
        ShipError::Verify { .. } | ShipError::Store(StoreError::Conflict { .. })
    )
}

/// A spool entry that contradicts its manifest fails in the middle of the upload. The store is not
/// at fault, and a retry does not help.
fn blame(error: StoreError) -> ShipError {
    match error {
        StoreError::Io { path, source } => match source.downcast::<BundleError>() {
            Ok(error) => ShipError::Bundle(error),
            Err(source) => StoreError::Io { path, source }.into(),
        },
        error => error.into(),
    }
}

/// The stored bytes differ from those that were sent.
pub(crate) fn differs(key: &ObjectKey, expected: String, found: String) -> ShipError {
    ShipError::Verify {
        key: key.to_string(),
        expected,
        found,
    }
}

/// Compares the size, and then all bytes by their SHA-256.
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

/// Removes a dump: the manifest first, so that an interrupted removal leaves no unreadable dump.
///
/// A zip that only looks like IBM's by its name is opened first, because a foreign file must not be deleted.
///
/// # Errors
/// If the store fails, or it is not a dump.
pub fn remove_dump(store: &dyn Store, dump: &DumpSummary) -> Result<(), StoreError> {
    if !dump.is_certain() {
        let opened = match store.read(&dump.key) {
            Ok(source) => BundleReader::open(source),
            Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        opened.map_err(|source| StoreError::Bundle {
            key: dump.key.to_string(),
            source,
        })?;
    }
    if let Some(manifest) = dump.key.manifest().filter(|_| !dump.legacy) {
        store.delete(&manifest)?;
    }
    store.delete(&dump.key)
}
