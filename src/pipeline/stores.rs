//! Opens stores and resolves references in them, with errors that say what to do.

use anyhow::Result;
use cdh_store::{
    Catalog, DirectoryStore, DumpSummary, ManifestCache, ResolveError, S3Keys, Store, StoreError,
    StoreUrl,
};

use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;

/// Opens the store of `settings`. The embedded directory store is made when it is not there yet.
///
/// # Errors
/// When there is no such store, or it may not be read.
pub fn open_store(settings: &Settings) -> Result<Box<dyn Store>> {
    if settings.store_is_default {
        return open_or_create_store(settings);
    }
    cdh_store::open_store(&settings.store).map_err(|error| store_failure(error, "open"))
}

/// The dumps of a store. Manifests that are read over a network are kept for the next time.
#[must_use]
pub fn catalog<'s>(settings: &Settings, store: &'s dyn Store) -> Catalog<'s> {
    let catalog = Catalog::new(store);
    match settings.store {
        StoreUrl::S3 { .. } => {
            let directory = settings.cache.join("manifests");
            catalog.with_cache(ManifestCache::in_directory(&directory))
        }
        _ => catalog,
    }
}

/// Opens the store of `settings`; a directory that is not there is made.
///
/// # Errors
/// When it cannot be opened or made.
pub fn open_or_create_store(settings: &Settings) -> Result<Box<dyn Store>> {
    open_node_store(settings).map_err(|error| store_failure(error, "open"))
}

/// As [`open_or_create_store`], for who asks again and again. Credentials of the agent's own count.
///
/// # Errors
/// When it cannot be opened or made.
pub fn open_node_store(settings: &Settings) -> Result<Box<dyn Store>, StoreError> {
    match &settings.store {
        StoreUrl::Directory(path) => Ok(Box::new(DirectoryStore::create(path)?)),
        _ => open_existing_store(settings),
    }
}

/// As [`open_node_store`], and never creates a directory.
///
/// # Errors
/// When it does not exist, or cannot be opened.
pub fn open_existing_store(settings: &Settings) -> Result<Box<dyn Store>, StoreError> {
    let keys = settings.store_keys.as_ref();
    let keys = keys.map(|(access, secret)| S3Keys {
        access: access.clone(),
        secret: secret.reveal().to_owned(),
    });
    cdh_store::open_store_as(&settings.store, keys)
}

/// Turns a store's error into a failure with status and advice; `verb` says what was tried.
#[must_use]
pub fn store_failure(error: StoreError, verb: &str) -> anyhow::Error {
    let message = format!("cannot {verb} the store");
    let failure = match &error {
        StoreError::NoBucket { .. } => Failure::new(ExitStatus::Failure, message),
        StoreError::NotFound { .. } => Failure::new(ExitStatus::Failure, message)
            .hint("check `--store` and `CDH_STORE`; a directory store is made by `cdh import --store <DIR> <CORE>`"),
        StoreError::Denied { said: None, .. } => Failure::new(ExitStatus::Failure, message)
            .hint("run as the user who owns the store (the agent's is root's), or copy it with `rsync` and pass the copy as `--store`"),
        StoreError::Unreachable { .. } => Failure::new(ExitStatus::Unreachable, message)
            .hint("check the network, `?endpoint=URL` and HTTPS_PROXY, then try again"),
        StoreError::Unsupported { .. } => Failure::new(ExitStatus::Failure, message)
            .hint("copy the bucket into a directory and pass that as `--store`"),
        _ => Failure::new(ExitStatus::Failure, message),
    };
    let failure = match error.hint().filter(|_| has_own_hint(&error)) {
        Some(hint) => failure.hint(hint),
        None => failure,
    };
    failure.cause(error).into()
}

/// Whether the error knows better than this page what to do.
fn has_own_hint(error: &StoreError) -> bool {
    !matches!(error, StoreError::Unreachable { .. })
}

/// The dump that `reference` (id, unique prefix, `latest`, `~N`) means.
///
/// # Errors
/// When there is none, when there are several, or when the store fails.
pub fn resolve(settings: &Settings, store: &dyn Store, reference: &str) -> Result<DumpSummary> {
    let place = store.describe();
    catalog(settings, store).resolve(reference).map_err(|error| match error {
        ResolveError::NotFound { .. } => {
            let shown = terminal_line(reference);
            let failure = Failure::new(ExitStatus::Nothing, format!("no dump `{shown}` in {place}"));
            if settings.store_is_default {
                failure.hint("list what there is with `cdh ls`, or name another store with `--store` or `CDH_STORE`")
            } else {
                failure.hint("list what there is with `cdh ls`")
            }
            .into()
        }
        ResolveError::Ambiguous { candidates, .. } => {
            let mut failure = Failure::new(
                ExitStatus::Failure,
                format!("`{}` is the start of several dumps' ids", terminal_line(reference)),
            );
            for candidate in candidates {
                failure = failure.hint(format!("{} {} {}", candidate.id, candidate.exe, candidate.captured_at));
            }
            failure.hint("type more of the id").into()
        }
        ResolveError::Store(error) => store_failure(error, "search"),
        error => anyhow::Error::from(error),
    })
}
