//! Opens stores and resolves references to dumps, with errors that include advice.

use anyhow::Result;
use cdh_store::{
    Catalog, DirectoryStore, DumpSummary, ManifestCache, Query, ResolveError, S3Keys, Store,
    StoreError, StoreUrl, nearest,
};

use crate::render::{shell_word, terminal_line};
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;

/// Opens the store of `settings`. The default directory store is created if it does not exist.
///
/// # Errors
/// If there is no such store, or it is not readable.
pub fn open_store(settings: &Settings) -> Result<Box<dyn Store>> {
    if settings.store_is_default {
        return open_or_create_store(settings);
    }
    cdh_store::open_store(&settings.store).map_err(|error| {
        let is_missing = matches!(error, StoreError::NotFound { .. });
        match settings.unknown_store_name().filter(|_| is_missing) {
            Some(name) => unknown_store(settings, name).into(),
            None if is_missing && matches!(settings.store, StoreUrl::Directory(_)) => {
                let failure = Failure::new(ExitStatus::Failure, "cannot open the store");
                let failure = with_hints(failure, &hints_elsewhere(&settings.store));
                failure.hint(MISSING_STORE).cause(error).into()
            }
            None => store_failure(error, "open"),
        }
    })
}

const MISSING_STORE: &str = "check `--store` and CDH_STORE; the first dump creates a directory store (`cdh agent sweep`, `cdh import --store <DIR> <CORE>`)";

/// Refuses a store given by a plain name that the config file does not have. Otherwise the agent would create a
/// directory with the misspelt name and ship into it.
///
/// # Errors
/// If the store is such a name.
pub fn require_known_store(settings: &Settings) -> Result<()> {
    match settings.plain_store_name() {
        Some(name) => {
            let hint = format!(
                "if a directory is meant, write it as a path: `./{}`",
                terminal_line(name)
            );
            Err(unknown_store(settings, name).hint(hint).into())
        }
        None => Ok(()),
    }
}

/// A name that is neither a directory nor in the config file.
fn unknown_store(settings: &Settings, name: &str) -> Failure {
    let place = settings.store_place();
    let place = place.map_or_else(String::new, |place| format!(" in {place}"));
    let what = match settings.unknown_store_name() {
        Some(_) => "neither a directory nor a store in the config file",
        None => "not a store in the config file",
    };
    let message = format!("unknown store `{}`{place}: {what}", terminal_line(name));
    let mut failure = Failure::new(ExitStatus::Failure, message);
    if let Some(similar) = settings.similar_store(name) {
        failure = failure.hint(format!("did you mean `{similar}`?"));
    }
    let found = cdh_store::find_elsewhere(&settings.store);
    let similar = found.iter().filter(|url| is_similar_name(name, url));
    failure = similar.fold(failure, |failure, url| failure.hint(hint_for(url)));
    let names = &settings.store_names;
    let file = settings
        .file
        .as_ref()
        .map(|(path, _)| path.display().to_string());
    match (names.is_empty(), file) {
        (false, Some(file)) => failure.hint(format!("stores in `{file}`: {}", names.join(", "))),
        (true, Some(file)) => failure.hint(format!(
            "`{file}` has no `[stores.NAME]`; give a directory or `s3://bucket/prefix`"
        )),
        (_, None) => {
            failure.hint("there is no config file; give a directory or `s3://bucket/prefix`")
        }
    }
}

fn with_hints(failure: Failure, hints: &[String]) -> Failure {
    hints
        .iter()
        .fold(failure, |failure, hint| failure.hint(hint.as_str()))
}

/// Advice for a store without dumps: where other dumps are, if a few requests find them.
#[must_use]
pub fn hints_elsewhere(url: &StoreUrl) -> Vec<String> {
    cdh_store::find_elsewhere(url)
        .iter()
        .map(hint_for)
        .collect()
}

fn hint_for(found: &StoreUrl) -> String {
    format!(
        "dumps exist elsewhere: `--store {}`",
        shell_word(found.to_string())
    )
}

/// Whether `name` may mean this directory.
fn is_similar_name(name: &str, url: &StoreUrl) -> bool {
    let StoreUrl::Directory(path) = url else {
        return false;
    };
    let last = path.file_name().and_then(|last| last.to_str());
    last.is_some_and(|last| nearest(name, [last]).is_some())
}

/// Advice if nothing was found in an open store: where dumps are, or that only the filter hides them.
#[must_use]
pub fn hints_for_nothing(settings: &Settings, store: &dyn Store, is_filtered: bool) -> Vec<String> {
    if is_filtered && !is_empty(store) {
        return vec!["list all dumps of the store with `cdh ls`".to_owned()];
    }
    if settings.store_is_default {
        return vec![
            "capture crashes here with `cdh agent install`, import a core with `cdh import <CORE>`, \
             or name another store with `--store` or CDH_STORE"
                .to_owned(),
        ];
    }
    let elsewhere = hints_elsewhere(&settings.store);
    match elsewhere.is_empty() {
        true => vec![
            "check `--store` and CDH_STORE, or import a core with `cdh import <CORE>`".to_owned(),
        ],
        false => elsewhere,
    }
}

/// Whether a store has no dump. A store that cannot be listed now does not count as empty.
#[must_use]
pub fn is_empty(store: &dyn Store) -> bool {
    let query = Query {
        limit: Some(1),
        ..Query::default()
    };
    Catalog::new(store)
        .find(&query)
        .is_ok_and(|dumps| dumps.is_empty())
}

/// The dumps of a store. Manifests that are read over a network are cached.
#[must_use]
pub fn catalog<'s>(settings: &Settings, store: &'s dyn Store) -> Catalog<'s> {
    let catalog = Catalog::new(store);
    let cache = match settings.store {
        StoreUrl::S3 { .. } => settings.cache.get("manifests"),
        _ => None,
    };
    match cache {
        Some(directory) => catalog.with_cache(ManifestCache::in_directory(&directory)),
        None => catalog,
    }
}

/// Opens the store of `settings`; a directory that does not exist is created, unless its name is a misspelt
/// name of the config file.
///
/// # Errors
/// When it cannot be opened or created.
pub fn open_or_create_store(settings: &Settings) -> Result<Box<dyn Store>> {
    if let Some(name) = settings.unknown_store_name()
        && settings.similar_store(name).is_some()
    {
        let hint = format!("to create a directory of this name, pass `--store ./{name}`");
        return Err(unknown_store(settings, name).hint(hint).into());
    }
    open_node_store(settings).map_err(|error| store_failure(error, "open"))
}

/// Like [`open_or_create_store`], for callers that retry. The agent's own credentials are used.
///
/// # Errors
/// If it cannot be opened or created.
pub fn open_node_store(settings: &Settings) -> Result<Box<dyn Store>, StoreError> {
    match &settings.store {
        StoreUrl::Directory(path) => Ok(Box::new(DirectoryStore::create(path)?)),
        _ => open_existing_store(settings),
    }
}

/// Like [`open_node_store`], but never creates a directory.
///
/// # Errors
/// If it does not exist, or cannot be opened.
pub fn open_existing_store(settings: &Settings) -> Result<Box<dyn Store>, StoreError> {
    let keys = settings.store_keys.as_ref();
    let keys = keys.map(|(access, secret)| S3Keys {
        access: access.clone(),
        secret: secret.reveal().to_owned(),
    });
    cdh_store::open_store_as(&settings.store, keys)
}

/// Turns a store's error into a failure with status and advice; `verb` is the attempted operation.
#[must_use]
pub fn store_failure(error: StoreError, verb: &str) -> anyhow::Error {
    let status = match &error {
        StoreError::Unreachable { .. } => ExitStatus::Unreachable,
        StoreError::Stopped => ExitStatus::Interrupted,
        _ => ExitStatus::Failure,
    };
    let failure = Failure::new(status, format!("cannot {verb} the store"));
    let failure = match &error {
        StoreError::NotFound { .. } => failure.hint(MISSING_STORE),
        StoreError::NotADirectory { .. } => {
            failure.hint("pass a core or bundle as `<DUMP>`: `cdh bt <FILE>`; `--store` takes a directory")
        }
        StoreError::Denied { said: None, .. } => failure.hint(
            "run as the user who owns the store (root, for the agent's), or copy it with `rsync` and pass the copy as `--store`",
        ),
        StoreError::Unsupported { .. } => {
            failure.hint("copy the bucket into a directory and pass that as `--store`")
        }
        _ => failure,
    };
    let failure = match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    };
    failure.cause(error).into()
}

/// The dump that `reference` (id, unique prefix, `latest`, `~N`) means.
///
/// # Errors
/// If there is none, if there are several, or if the store fails.
pub fn resolve(settings: &Settings, store: &dyn Store, reference: &str) -> Result<DumpSummary> {
    let place = store.describe();
    catalog(settings, store).resolve(reference).map_err(|error| match error {
        ResolveError::NotFound { .. } => {
            let shown = terminal_line(reference);
            let failure = Failure::new(ExitStatus::Nothing, format!("no dump `{shown}` in {place}"));
            // In `cdh groups`, the columns of ids and of fingerprints look alike.
            let is_hex = (8..=16).contains(&reference.len()) && reference.bytes().all(|byte| byte.is_ascii_hexdigit());
            let failure = match is_hex {
                true => failure.hint(format!("if it is a fingerprint: `cdh groups {shown}`, `cdh ls fingerprint:{shown}`")),
                false => failure,
            };
            match is_empty(store) {
                true => with_hints(failure, &hints_for_nothing(settings, store, false)),
                false if settings.store_is_default => failure
                    .hint("list the dumps with `cdh ls`, or name another store with `--store` or CDH_STORE"),
                false => failure.hint("list the dumps with `cdh ls`"),
            }
            .into()
        }
        ResolveError::Ambiguous { count, candidates, .. } => {
            let shown = terminal_line(reference);
            let message = format!("`{shown}` is ambiguous: {count} dumps have ids that start with it");
            let mut failure = Failure::new(ExitStatus::Failure, message);
            let more = count.saturating_sub(candidates.len());
            for candidate in candidates {
                failure = failure.hint(format!("{} {} {}", candidate.id, candidate.exe, candidate.captured_at));
            }
            if more > 0 {
                failure = failure.hint(format!("and {more} more: list them with `cdh ls`"));
            }
            failure.hint("type more characters of the id").into()
        }
        ResolveError::Store(error) => store_failure(error, "search"),
        error => anyhow::Error::from(error),
    })
}
