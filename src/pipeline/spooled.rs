//! Dumps that are still in the spool of this node: waiting for upload, or retained by the policy.
//!
//! A sealed entry is read like the bundle that it will become; nothing is copied or changed. Only root
//! can read the spool; other users get a hint.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use cdh_bundle::{BundleReader, BundleWriter, EntryKind, IdPrefix};

use super::dump::bundle_failure;
use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};

/// Minimum length of an id prefix: a word such as `latest` is not an id.
const SHORTEST: usize = 4;

/// The result of looking for a reference in the spool.
pub(super) enum Spooled {
    /// A sealed entry: its directory and its bundle.
    Entry(PathBuf, Box<BundleReader>),
    /// Nothing that this user can see.
    Nothing {
        /// The spool exists but is not readable.
        hidden: bool,
    },
}

/// Looks for a dump by its id or a unique start of it.
///
/// # Errors
/// If it exists and cannot be read, or if the prefix is ambiguous.
pub(super) fn find(spool: &Path, reference: &str) -> Result<Spooled> {
    let wanted = match reference.parse::<IdPrefix>() {
        Ok(wanted) if reference.len() >= SHORTEST => wanted,
        _ => return Ok(Spooled::Nothing { hidden: false }),
    };
    let items = match fs::read_dir(spool) {
        Ok(items) => items,
        Err(error) => {
            let hidden = error.kind() == io::ErrorKind::PermissionDenied;
            return Ok(Spooled::Nothing { hidden });
        }
    };
    let quarantine = fs::read_dir(spool.join(cdh_agent::spool::QUARANTINE));
    let items = items
        .flatten()
        .chain(quarantine.into_iter().flatten().flatten());
    let matches = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        let id = name.and_then(|name| name.trim_end_matches(".partial").parse().ok());
        id.is_some_and(|id| wanted.matches(&id))
    };
    let found: Vec<PathBuf> = items.map(|item| item.path()).filter(matches).collect();
    match found.as_slice() {
        [] => Ok(Spooled::Nothing { hidden: false }),
        [path] => open(path),
        several => {
            let shown = terminal_line(reference);
            let message = format!(
                "`{shown}` is ambiguous: several ids in {} start with it",
                spool.display()
            );
            let failure = Failure::new(ExitStatus::Failure, message);
            let names = several.iter().take(10).filter_map(|path| path.file_name());
            let names: Vec<String> = names
                .map(|name| name.to_string_lossy().into_owned())
                .collect();
            Err(failure
                .hint(format!(
                    "type more of the id: {}",
                    terminal_line(&names.join(", "))
                ))
                .into())
        }
    }
}

fn open(path: &Path) -> Result<Spooled> {
    let shown = terminal_line(&path.display().to_string());
    if path.extension().is_some_and(|end| end == "partial") {
        return Err(Failure::new(
            ExitStatus::Failure,
            format!("this dump is still being written: {shown}"),
        )
        .hint(
            "try again when its handler has finished; the agent salvages what a dead handler left",
        )
        .into());
    }
    // From a quarantined entry, only files that its manifest lists are read.
    let bundle = BundleWriter::from_entry(path)
        .and_then(|bundle| BundleReader::open(Arc::new(bundle.source())));
    match bundle {
        Ok(bundle) => Ok(Spooled::Entry(path.to_owned(), Box::new(bundle))),
        Err(error) => {
            let reason = fs::read_to_string(path.join("reason.txt")).ok();
            let failure = bundle_failure(error, &shown);
            Err(match reason {
                Some(reason) => {
                    let why = terminal_line(reason.trim());
                    let manifest = path.join(EntryKind::Manifest.file_name());
                    Failure::new(
                        ExitStatus::Failure,
                        format!("this dump is in quarantine: {why}"),
                    )
                    .hint(format!(
                        "its files are as they were: {}",
                        manifest.with_file_name("").display()
                    ))
                    .cause(failure)
                    .into()
                }
                None => failure,
            })
        }
    }
}
