//! Modules that the agent kept in the store, by build-id: `modules/<build-id>`.

use std::io::Read;

use cdh_bundle::{SourceReader, Window};
use cdh_elfcore::{BuildId, ModuleKind};
use cdh_store::{ObjectKey, Store, StoreUrl};
use cdh_sysroot::{KeptModule, Part};

use super::modules::{Candidate, FileSource};
use super::sources::image_cache;
use super::{Dump, Gathered, Observer, Origin, stores};
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;

/// The agent keeps all modules of a dump or none: after so many that are not there, nobody asks for the
/// rest.
const MISSES: usize = 3;

/// Takes what the store has of the modules that are still missing.
pub(super) fn take(
    settings: &Settings,
    dump: &Dump,
    gathered: &mut Gathered,
    observer: &dyn Observer,
) {
    // A store that nobody named is asked only about its own dumps.
    if settings.store_is_default && !matches!(dump.origin, Origin::Store(_)) {
        return;
    }
    let cache = image_cache(settings);
    let name = format!("store {}", settings.store);
    let remote = matches!(settings.store, StoreUrl::S3 { .. });
    let mut store: Option<Box<dyn Store>> = None;
    let mut misses = 0;
    // The program first: where it is not kept, the rest seldom is.
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
        let mut file = cache.module(&name, Part::File, &id);
        let may_ask = misses < MISSES && !(remote && settings.images.offline);
        if file.is_none() && may_ask {
            if store.is_none() {
                // What is wrong with it is told where the dump itself is read.
                let Ok(opened) = stores::open_store(settings) else {
                    return;
                };
                store = Some(opened);
            }
            let fetched = store
                .as_deref()
                .map_or(Ok(None), |store| object(store, &id));
            match fetched {
                Ok(None) => misses += 1,
                Ok(Some((mut reader, size))) => {
                    observer.started(
                        &format!("fetching {}", found.module.display_path()),
                        Some(size),
                    );
                    let kept = cache.keep_module(&name, Part::File, &id, &mut reader);
                    observer.finished();
                    match kept {
                        Ok(KeptModule::Kept(kept)) => file = Some(kept),
                        // Shown, unless a better source has the right one.
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
            found.try_files(vec![Candidate::proven(file)], FileSource::Store);
        }
    }
}

fn object(store: &dyn Store, id: &BuildId) -> anyhow::Result<Option<(impl Read + use<>, u64)>> {
    let key = ObjectKey::parse(&format!("modules/{id}"))?;
    let failed = |error| stores::store_failure(error, "read");
    let Some(stat) = store.stat(&key).map_err(failed)? else {
        return Ok(None);
    };
    let source = store.read_pinned(&key, &stat).map_err(failed)?;
    Ok(Some((SourceReader::new(Window::whole(source)), stat.size)))
}
