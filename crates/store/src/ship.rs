//! The order in which a dump enters and leaves a store.

use std::io::{self, Read};
use std::path::Path;

use cdh_bundle::{BundleError, BundleReader, BundleWriter, Digests, SourceReader, Window};

use crate::{DumpSummary, FirstSeenWriter, ObjectKey, Receipt, ShipError, Store, StoreError};

/// A dump that is in the store, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// Key of the bundle.
    pub key: ObjectKey,
    /// Digests of the bundle.
    pub digests: Digests,
}

/// Puts the bundle, compares what the store holds with what was sent, and only then puts the
/// manifest that makes it a dump. Doing it twice is the same as doing it once. What turns out to be
/// something else is removed, so that the next try can begin anew: a dump's keys hold its id, and its bytes do not
/// depend on the sender.
///
/// # Errors
/// When the store fails, the spool entry is broken, or the store holds something else afterwards.
pub fn ship(store: &dyn Store, bundle: &BundleWriter) -> Result<Shipped, ShipError> {
    ship_by(store, bundle, &FirstSeenWriter::default(), |key| {
        store.put(key, &mut bundle.reader(), bundle.len())
    })
}

/// How a dump is shipped by an agent that ships many.
pub struct ShipOptions<'o> {
    /// File that notes what an earlier try has brought into the store: it is not sent again.
    pub journal: &'o Path,
    /// Called with the number of bytes that were sent; may wait, or end the upload.
    pub flow: &'o dyn Fn(usize) -> Flow,
    /// Records when each crash was first seen.
    pub first_seen: &'o FirstSeenWriter,
}

/// As [`ship`], continuing an earlier try. Ends with [`StoreError::Stopped`] soon after
/// [`flow`](ShipOptions::flow) says so.
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

/// Whether an upload goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    Go,
    /// It is no longer wanted.
    Stop,
}

/// A body that reports how many bytes were read from it. The observer may make it wait, and ends it with an error
/// when it is no longer wanted.
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
        // Without a manifest it is no dump, but the rest of an upload that went wrong.
        store.delete(&key)?;
    }
    let sent = sent?;
    // Before the manifest, so that no committed dump is missing in the index. A store that refuses the
    // entry keeps the dump all the same; the writer tries again with the next one.
    let _ = first_seen.record(store, bundle.manifest(), &key);
    // The very bytes that the bundle ends with: a newer agent's fields are not lost on the way.
    let mut json = bundle.manifest_json();
    let size = json.len() as u64;
    let put = store.put(&manifest_key, &mut json, size);
    let put = put.map_err(ShipError::from);
    let put = put.and_then(|manifest| store.verify(&manifest_key, &manifest));
    if let Err(error) = &put
        && is_something_else(error)
    {
        // The bundle, which holds the manifest too, is the one that it has to be.
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
/// A zip that only looks like one of IBM's by its name is opened before: a foreign file is not ours to delete.
///
/// # Errors
/// When the store fails, or it is no dump.
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
