//! Uses modules that the agent stored beside the dumps: `modules/<build-id>-<SHA-256>`, with the digest from
//! the dump's manifest; earlier agents wrote `modules/<build-id>`. A file with another digest is not used.

use std::io::{self, Read, Sink, Write};

use cdh_bundle::{DigestWriter, ModuleRecord, Sha256, SourceReader, Window};
use cdh_elfcore::{BuildId, CoreFile, Module, ModuleKind};
use cdh_store::{Store, StoreUrl, StoredModule};
use cdh_sysroot::{Cache, FileRole, KeptModule};

use super::modules::{Candidate, FileSource};
use super::{Dump, Gathered, Observer, Origin, stores};
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;

/// The agent stores either all modules of a dump or none: after this many missing ones, the rest is not
/// requested.
const MISSES: usize = 3;

/// Downloads those missing modules that the store has.
pub(super) fn take(
    settings: &Settings,
    cache: &Cache,
    dump: &Dump,
    evidence: &[CoreFile],
    gathered: &mut Gathered,
    observer: &dyn Observer,
) {
    // A store that the user did not name is only used for its own dumps.
    if settings.store_is_default && !matches!(dump.origin, Origin::Store(_)) {
        return;
    }
    let remote = matches!(settings.store, StoreUrl::S3 { .. });
    let mut store: Option<Box<dyn Store>> = None;
    let mut misses = 0;
    // The program first: if it is not stored, the others rarely are.
    let mut order: Vec<usize> = (0..gathered.modules.len()).collect();
    order.sort_by_key(|number| {
        let found = gathered.modules.get(*number);
        found.is_none_or(|found| found.module.kind != ModuleKind::Executable)
    });
    for number in order {
        let Some(found) = gathered.modules.get_mut(number) else {
            continue;
        };
        let Some(id) = found.module.build_id.clone().filter(|_| found.is_missing()) else {
            continue;
        };
        let digest = digest_of(dump, &found.module);
        let name = match &digest {
            Some(digest) => format!("store {} {digest}", settings.store),
            None => format!("store {}", settings.store),
        };
        let mut file = cache.module(&name, FileRole::File, &id);
        // Another run may be downloading it.
        let lock = match file {
            Some(_) => None,
            None => cache.lock_module(&name, FileRole::File, &id),
        };
        if lock.is_some() {
            file = cache.module(&name, FileRole::File, &id);
        }
        let may_ask = misses < MISSES && !(remote && settings.images.offline);
        if file.is_none() && may_ask {
            if store.is_none() {
                // The command that reads the dump itself reports errors of the dump.
                let Ok(opened) = stores::open_store(settings) else {
                    return;
                };
                store = Some(opened);
            }
            let fetched = store
                .as_deref()
                .map_or(Ok(None), |store| object(store, &id, digest.as_ref()));
            match fetched {
                Ok(None) => misses += 1,
                Ok(Some((reader, size))) => {
                    let mut reader = VerifiedReader::new(reader, digest);
                    observer.started(
                        &format!("fetching {}", found.module.display_path()),
                        Some(size),
                    );
                    let kept = cache.keep_module(&name, FileRole::File, &id, &mut reader);
                    observer.finished();
                    match kept {
                        Ok(KeptModule::Kept(kept)) => file = Some(kept),
                        // Shown, unless another source has the right file.
                        Ok(KeptModule::Other(other)) => found.mismatch(id.clone(), other),
                        Err(error) => {
                            let what = format!("cannot use module {id} of the store");
                            let failure = Failure::new(ExitStatus::Failure, what).cause(error);
                            gathered.remarks.push(failure.into());
                        }
                    }
                }
                Err(error) => {
                    gathered.remarks.push(error);
                    return;
                }
            }
        }
        if let Some(file) = file {
            found.try_files(vec![Candidate::proven(file)], FileSource::Store, evidence);
        }
    }
}

/// What the agent recorded of this module's file.
fn digest_of(dump: &Dump, module: &Module) -> Option<Sha256> {
    let mut records = dump.manifest.modules.iter();
    let is_it = |record: &&ModuleRecord| {
        record.start == module.start().0 && record.build_id == module.build_id
    };
    records.find(is_it)?.sha256
}

fn object(
    store: &dyn Store,
    id: &BuildId,
    digest: Option<&Sha256>,
) -> anyhow::Result<Option<(impl Read + use<>, u64)>> {
    let key = StoredModule::key_of(id, digest)?;
    let failed = |error| stores::store_failure(error, "read");
    let Some(stat) = store.stat(&key).map_err(failed)? else {
        return Ok(None);
    };
    let source = store.read_pinned(&key, &stat).map_err(failed)?;
    Ok(Some((SourceReader::new(Window::whole(source)), stat.size)))
}

/// A reader that ends with an error if its data does not have the expected digest.
struct VerifiedReader<R> {
    inner: R,
    digests: Option<DigestWriter<Sink>>,
    expected: Option<Sha256>,
}

impl<R: Read> VerifiedReader<R> {
    fn new(inner: R, expected: Option<Sha256>) -> Self {
        let digests = expected.is_some().then(|| DigestWriter::new(io::sink()));
        Self {
            inner,
            digests,
            expected,
        }
    }
}

impl<R: Read> Read for VerifiedReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        if count > 0 {
            if let Some(digests) = &mut self.digests {
                digests.write_all(buf.get(..count).unwrap_or_default())?;
            }
            return Ok(count);
        }
        let found = self.digests.take().map(|digests| digests.finish().1.sha256);
        match (found, self.expected) {
            (Some(found), Some(expected)) if found != expected && !buf.is_empty() => {
                let problem = format!("it has SHA-256 {found}, the manifest says {expected}");
                Err(io::Error::new(io::ErrorKind::InvalidData, problem))
            }
            _ => Ok(0),
        }
    }
}
