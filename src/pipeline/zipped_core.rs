//! A core in a zip that is not a bundle: packed by a user, a bug tracker or a CI server.
//!
//! Names in the zip are only shown, and never become paths. Only the first bytes of each entry are read to
//! find the core.

use std::io::Read;
use std::sync::Arc;

use cdh_bundle::{BundleEntry, BundleError, BundleReader, DumpId, EntryKind};
use cdh_elfcore::ByteSource;

use super::compressed::{Compression, Peeked, cannot_decompress};
use super::dump::bundle_failure;
use crate::render::{shell_word, terminal_line};
use crate::report::{ExitStatus, Failure};

/// Maximum entries whose first bytes are read.
const EXAMINED: usize = 256;
/// Maximum names in a message.
const SHOWN: usize = 5;
/// `e_type` of cores (`elf.h`), little-endian.
const ET_CORE: [u8; 2] = [4, 0];

/// Opens a zip as a bundle; `None` if it is another zip, which may contain a core under any name.
///
/// # Errors
/// If it is a bundle that cannot be read.
pub(super) fn bundle_in(
    source: &Arc<dyn ByteSource>,
    shown: &str,
) -> anyhow::Result<Option<BundleReader>> {
    match BundleReader::open(Arc::clone(source)) {
        Ok(bundle) => Ok(has_dump(&bundle).then_some(bundle)),
        Err(BundleError::ForeignZip) => Ok(None),
        Err(error) => Err(bundle_failure(error, shown)),
    }
}

/// Whether more than a suffix suggests a core: users name cores `app.core` too. Names of dumps begin with their
/// id, also in a bundle that is truncated before its facts.
fn has_dump(bundle: &BundleReader) -> bool {
    /// Letters of a UUID.
    const ID: usize = 36;
    let is_named = |entry: &BundleEntry| {
        let name = entry.name.to_string();
        name.get(..ID)
            .is_some_and(|id| id.parse::<DumpId>().is_ok())
    };
    let is_fact = |entry: &BundleEntry| {
        let kind = entry.kind.as_ref();
        kind.is_some_and(|kind| !matches!(kind, EntryKind::Core(_)) || is_named(entry))
    };
    bundle.manifest().is_some() || bundle.entries().iter().any(is_fact)
}

/// The one core in a zip, decompressed.
///
/// # Errors
/// If there is none, if there are several, or if its storage method is not supported; the error names the command
/// that extracts it.
pub(super) fn open(
    source: Arc<dyn ByteSource>,
    shown: &str,
) -> anyhow::Result<Box<dyn Read + Send>> {
    let zip = BundleReader::open_foreign(source).map_err(|error| bundle_failure(error, shown))?;
    let mut cores = Vec::new();
    let mut zips = Vec::new();
    let mut unreadable = None;
    for entry in zip.entries().iter().take(EXAMINED) {
        let opened = zip.entry_reader(entry).map_err(anyhow::Error::from);
        let peeked = opened.and_then(|reader| Ok(Peeked::new(reader, 18)?));
        match peeked {
            Ok(peeked) => match peeked.start.as_slice() {
                start if is_core(start) => cores.push((entry, None, peeked)),
                start if start.starts_with(b"PK\x03\x04") => zips.push(entry),
                start => {
                    let compression = Compression::from_magic(start);
                    cores.extend(compression.map(|it| (entry, Some(it), peeked)));
                }
            },
            Err(error) => unreadable = unreadable.or(Some(error)),
        }
    }
    let failed = |cause: String| {
        let message = format!("cannot find a core in the zip `{shown}`");
        Failure::new(ExitStatus::Failure, message).cause(anyhow::anyhow!(cause))
    };
    let word = shell_word(shown);
    // Compressed files beside a core are logs and symbols.
    if cores
        .iter()
        .any(|(_, compression, _)| compression.is_none())
    {
        cores.retain(|(_, compression, _)| compression.is_none());
    }
    if let [(entry, ..), _, ..] = cores.as_slice() {
        let found = names(cores.iter().map(|(entry, ..)| *entry));
        let first = shell_word(entry.name.to_string());
        return Err(failed(format!("it holds several: {found}"))
            .hint(format!(
                "unpack one with `unzip -p {word} {first} > core`, then pass `core`"
            ))
            .into());
    }
    // An entry that cannot be read may be the core, and the compressed file beside it a log.
    if unreadable.is_some() {
        cores.retain(|(_, compression, _)| compression.is_none());
    }
    match (cores.pop(), zips.first(), unreadable) {
        (Some((_, None, peeked)), ..) => Ok(Box::new(peeked)),
        (Some((_, Some(compression), peeked)), ..) => compression
            .reader(peeked)
            .map_err(|error| cannot_decompress(error.into(), shown)),
        (None, Some(inner), _) => {
            let name = inner.name.to_string();
            let inner = shell_word(&name);
            let message = format!("it holds another zip: `{}`", terminal_line(&name));
            let hint = format!("unpack it with `unzip {word} {inner}`, then pass `{inner}`");
            Err(failed(message).hint(hint).into())
        }
        (None, None, Some(error)) => Err(failed(format!("{error:#}"))
            .hint(format!(
                "unpack it with `7z x {word}`, then pass the core that was in it"
            ))
            .into()),
        (None, None, None) if zip.entries().len() > EXAMINED => Err(failed(format!(
            "none of its first {EXAMINED} entries is a core"
        ))
        .hint(format!("unpack it with `unzip {word}`, then pass the core"))
        .into()),
        (None, None, None) => {
            let found = names(zip.entries().iter());
            Err(failed(format!("none of its entries is a core: {found}"))
                .hint("pass a core, or a bundle (zip) of cdh or of IBM's core-dump-handler")
                .into())
        }
    }
}

fn is_core(start: &[u8]) -> bool {
    start.starts_with(b"\x7fELF") && start.get(16..18) == Some(ET_CORE.as_slice())
}

fn names<'e>(entries: impl Iterator<Item = &'e BundleEntry>) -> String {
    let all: Vec<_> = entries
        .map(|entry| terminal_line(&entry.name.to_string()))
        .collect();
    let more = all.len().saturating_sub(SHOWN);
    let shown = all
        .get(..all.len().min(SHOWN))
        .unwrap_or_default()
        .join(", ");
    match more {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
