//! Seals the entry of a dead handler.
//!
//! Invariant: the sealed entry contains every file that the handler completed and no incomplete
//! one, and the verdict says that the handler died. An entry whose handler is running is not
//! touched. An interrupted salvage can be repeated.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use cdh_bundle::{
    BundleError, Cause, CoreEncoding, DumpId, EntryKind, Gap, Manifest, Verdict, is_safe_stem,
};
use cdh_elfcore::{CoreHead, FileSource};
use jiff::Timestamp;

use crate::handler::HandlerArguments;
use crate::handler::copy::plain_file::PROGRESS;
use crate::handler::record::identity::{add_head, core_record, first_manifest};
use crate::spool::{IDENTITY, PartialEntry, SpoolError, salvage_core};

/// Maximum size of one of our JSON files in bytes; the list of modules is the largest part.
const JSON_LIMIT: u64 = 64 << 20;

/// A core that was written uncompressed.
const PLAIN: EntryKind = EntryKind::Core(CoreEncoding::None);

/// Why an entry could not be salvaged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SalvageError {
    /// The entry cannot be read or written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Its core cannot be read or written.
    #[error("cannot repair the core of the entry {path}")]
    Core {
        /// The entry.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// Result of salvaging an entry.
#[derive(Debug)]
pub enum Salvaged {
    /// It is sealed now.
    Sealed {
        /// Path of the sealed entry.
        path: PathBuf,
        /// Its verdict.
        verdict: Verdict,
    },
    /// Its handler is running.
    Alive,
    /// The entry no longer exists.
    Gone,
}

/// Seals the `.partial` entry of a dead handler.
///
/// # Errors
/// Fails if the disk fails or is full.
pub fn salvage(spool: &Path, id: DumpId) -> Result<Salvaged, SalvageError> {
    let mut entry = match PartialEntry::take_over(spool, id) {
        Ok(entry) => entry,
        Err(SpoolError::Entry(BundleError::Busy { .. })) => return Ok(Salvaged::Alive),
        Err(SpoolError::Entry(BundleError::Io { source, .. }))
            if source.kind() == io::ErrorKind::NotFound =>
        {
            return Ok(Salvaged::Gone);
        }
        Err(error) => return Err(error.into()),
    };
    // It has a manifest, so the handler died between its last write and the rename: everything is
    // complete.
    let manifest = match read_manifest(&entry, &EntryKind::Manifest.file_name(), id)? {
        Some(manifest) => manifest,
        None => mend(&mut entry)?,
    };
    let verdict = manifest.verdict.clone();
    Ok(Salvaged::Sealed {
        path: entry.seal(manifest)?,
        verdict,
    })
}

/// Removes incomplete files, and describes the rest in a manifest.
fn mend(entry: &mut PartialEntry) -> Result<Manifest, SalvageError> {
    let mut manifest = match read_manifest(entry, IDENTITY, entry.id())? {
        Some(manifest) => manifest,
        None => unknown(entry),
    };
    entry.release_reserve();
    for kind in entry.kinds()? {
        let name = kind.file_name();
        let whole = match (&kind, entry.open_file(&name)?) {
            (_, None) => false,
            (EntryKind::Core(_) | EntryKind::HandlerLog, _) => true,
            (EntryKind::Minicore, Some(file)) => is_whole_core(file),
            _ => is_json(entry.read_file(&name, JSON_LIMIT)?.as_deref()),
        };
        if !whole {
            entry.remove_file(&name);
        }
    }
    mend_core(entry, &mut manifest)?;
    manifest.finished_at = Some(Timestamp::now());
    manifest.gaps.push(Gap {
        what: "handler".to_owned(),
        why: "it died before it was done; the shipper sealed its complete files".to_owned(),
    });
    Ok(manifest)
}

fn mend_core(entry: &mut PartialEntry, manifest: &mut Manifest) -> Result<(), SalvageError> {
    let kind = EntryKind::Core(CoreEncoding::ZstdSeekable);
    let name = kind.file_name();
    let promised = manifest.core.take().map(|core| core.expected);
    let evidence = Some("its entry was unlocked but not sealed".to_owned());
    manifest.verdict = Verdict::Empty {
        cause: Cause::HandlerDied,
        evidence: evidence.clone(),
    };
    let path = entry.path().to_owned();
    let failed = move |source| SalvageError::Core {
        path: path.clone(),
        source,
    };
    let file = entry.open_file(&name)?;
    let frames = match &file {
        Some(file) => salvage_core(file.try_clone().map_err(&failed)?).map_err(&failed)?,
        None => None,
    };
    let plain = salvage_plain(entry)?.filter(|(_, length)| {
        // An uncompressed core waits for its compression: use the file that is more complete.
        *length > frames.as_ref().map_or(0, |core| core.plain)
    });
    let (file, encoding, size) = match (plain, &frames, file) {
        (Some((file, length)), _, _) => {
            file.set_len(length).map_err(&failed)?;
            entry.remove_file(&name);
            (file, CoreEncoding::None, length)
        }
        (None, Some(core), Some(file)) => {
            entry.remove_file(&PLAIN.file_name());
            entry.record(&kind, core.stored);
            (file, CoreEncoding::ZstdSeekable, core.plain)
        }
        _ => {
            entry.remove_file(&name);
            entry.remove_file(&PLAIN.file_name());
            entry.remove_file(PROGRESS);
            return Ok(());
        }
    };
    entry.remove_file(PROGRESS);
    if manifest.machine.is_empty() {
        read_head(&file, encoding).inspect(|head| add_head(manifest, head));
    }
    let promised = promised.or(manifest.core.take().map(|core| core.expected));
    let expected = promised.unwrap_or(size);
    let mut record = core_record(&manifest.stem, encoding, size, expected);
    if encoding == CoreEncoding::ZstdSeekable {
        record.sha256 = frames.map(|core| core.sha256);
    }
    manifest.core = Some(record);
    // The verdict depends on the size, as for every core: the handler may have died after the last
    // byte.
    manifest.verdict = match promised {
        Some(expected) if size >= expected => Verdict::Complete,
        _ => Verdict::Truncated {
            expected,
            got: size,
            cause: Cause::HandlerDied,
            evidence,
        },
    };
    Ok(())
}

/// An uncompressed core, and the number of bytes that are certainly on disk; `None` if not even its
/// head is complete.
fn salvage_plain(entry: &PartialEntry) -> Result<Option<(File, u64)>, SalvageError> {
    let Some(file) = entry.open_file(&PLAIN.file_name())? else {
        return Ok(None);
    };
    let progress = entry.read_file(PROGRESS, 64)?.unwrap_or_default();
    let written = std::str::from_utf8(&progress)
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    Ok(written
        .filter(|written| *written > 0)
        .map(|written| (file, written)))
}

/// Reads the head of the repaired core.
fn read_head(core: &File, encoding: CoreEncoding) -> Option<CoreHead> {
    use std::io::{Seek, SeekFrom};
    let mut core = core.try_clone().ok()?;
    core.seek(SeekFrom::Start(0)).ok()?;
    match encoding {
        CoreEncoding::None => CoreHead::from_reader(&mut core).ok(),
        _ => CoreHead::from_reader(&mut zstd::stream::Decoder::new(core).ok()?).ok(),
    }
}

/// The manifest in a file; `None` if there is none, or if it belongs to another dump.
fn read_manifest(
    entry: &PartialEntry,
    name: &str,
    id: DumpId,
) -> Result<Option<Manifest>, SpoolError> {
    let Some(bytes) = entry.read_file(name, JSON_LIMIT)? else {
        return Ok(None);
    };
    let manifest = Manifest::from_json(&bytes).ok();
    Ok(manifest.filter(|manifest| manifest.id == id && is_safe_stem(&manifest.stem)))
}

/// A manifest for an entry without any facts.
fn unknown(entry: &PartialEntry) -> Manifest {
    let modified = std::fs::metadata(entry.path()).and_then(|metadata| metadata.modified());
    let modified = modified
        .ok()
        .and_then(|time| Timestamp::try_from(time).ok());
    let arguments = HandlerArguments {
        time: modified.map(Timestamp::as_second),
        ..HandlerArguments::default()
    };
    let mut manifest = first_manifest(entry.id(), &arguments, None);
    manifest.gaps.push(Gap {
        what: "identity".to_owned(),
        why: "the handler died before it recorded the process".to_owned(),
    });
    manifest
}

fn is_json(bytes: Option<&[u8]>) -> bool {
    bytes.is_some_and(|bytes| serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok())
}

fn is_whole_core(file: File) -> bool {
    let Ok(source) = FileSource::new(file) else {
        return false;
    };
    let length = cdh_elfcore::ByteSource::len(&source);
    CoreHead::from_source(&source).is_ok_and(|head| length >= head.expected_len())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use cdh_bundle::BundleWriter;

    use super::*;

    fn sealed(salvaged: Salvaged) -> (PathBuf, Verdict) {
        match salvaged {
            Salvaged::Sealed { path, verdict } => (path, verdict),
            other => panic!("{other:?}"),
        }
    }

    fn arguments() -> HandlerArguments {
        HandlerArguments {
            pid: Some(4711),
            signal: Some(11),
            name: "victim".into(),
            ..HandlerArguments::default()
        }
    }

    #[test]
    fn salvage_does_not_touch_the_entry_of_a_running_handler() {
        let spool = tempfile::tempdir().unwrap();
        let id = DumpId::random();
        let entry = PartialEntry::create(&spool.path().join("s"), id).unwrap();
        let spool = spool.path().join("s");
        assert!(matches!(salvage(&spool, id).unwrap(), Salvaged::Alive));
        drop(entry);
        assert!(matches!(
            salvage(&spool, id).unwrap(),
            Salvaged::Sealed { .. }
        ));
        assert!(matches!(salvage(&spool, id).unwrap(), Salvaged::Gone));
    }

    #[test]
    fn salvage_seals_an_entry_without_identity() {
        let root = tempfile::tempdir().unwrap();
        let spool = root.path().join("s");
        let id = DumpId::random();
        drop(PartialEntry::create(&spool, id).unwrap());
        let (path, verdict) = sealed(salvage(&spool, id).unwrap());
        assert_eq!(verdict.word(), "empty");
        let bundle = BundleWriter::from_entry(&path).unwrap();
        assert_eq!(bundle.manifest().id, id);
    }

    #[test]
    fn salvage_preserves_complete_files_and_removes_torn_ones() {
        let root = tempfile::tempdir().unwrap();
        let spool = root.path().join("s");
        let id = DumpId::random();
        let entry = PartialEntry::create(&spool, id).unwrap();
        entry
            .write_identity(&first_manifest(id, &arguments(), None))
            .unwrap();
        let path = entry.path().to_owned();
        fs::write(path.join(EntryKind::Proc.file_name()), b"{\"schema\": 1}").unwrap();
        fs::write(path.join(EntryKind::DumpInfo.file_name()), b"{\"uuid\": \"").unwrap();
        fs::write(
            path.join(EntryKind::Minicore.file_name()),
            b"\x7fELF\x02\x01",
        )
        .unwrap();
        let plain = vec![5; 300_000];
        let mut core = zstd::bulk::compress(&plain, 1).unwrap();
        core.extend_from_slice(&zstd::bulk::compress(&plain, 1).unwrap()[..20]);
        let kind = EntryKind::Core(CoreEncoding::ZstdSeekable);
        fs::write(path.join(kind.file_name()), core).unwrap();
        drop(entry);
        let (path, verdict) = sealed(salvage(&spool, id).unwrap());
        assert!(
            matches!(
                verdict,
                Verdict::Truncated {
                    got: 300_000,
                    cause: Cause::HandlerDied,
                    ..
                }
            ),
            "{verdict:?}"
        );
        let bundle = BundleWriter::from_entry(&path).unwrap();
        let manifest = bundle.manifest();
        assert_eq!(manifest.process.name, "victim".into());
        let names: Vec<_> = manifest
            .entries
            .iter()
            .map(|entry| entry.name.as_str())
            .collect();
        let expected = [EntryKind::Proc, kind].map(|kind| kind.bundle_name(&manifest.stem));
        assert_eq!(names, expected);
        bundle.write_to(&mut io::sink()).unwrap();
    }

    #[test]
    fn salvage_uses_the_more_complete_core_file() {
        let head = zstd::bulk::compress(&vec![5; 1000], 1).unwrap();
        let whole = zstd::bulk::compress(&vec![5; 900_000], 1).unwrap();
        let cases: [(&[u8], Option<&str>, CoreEncoding, u64); 4] = [
            (
                &head,
                Some("00000000000000300000"),
                CoreEncoding::None,
                300_000,
            ),
            (
                &whole,
                Some("00000000000000300000"),
                CoreEncoding::ZstdSeekable,
                900_000,
            ),
            (&head, None, CoreEncoding::ZstdSeekable, 1000),
            (&head, Some("rubbish"), CoreEncoding::ZstdSeekable, 1000),
        ];
        for (frames, progress, encoding, expected) in cases {
            let root = tempfile::tempdir().unwrap();
            let spool = root.path().join("s");
            let id = DumpId::random();
            let entry = PartialEntry::create(&spool, id).unwrap();
            let path = entry.path().to_owned();
            let compressed = EntryKind::Core(CoreEncoding::ZstdSeekable).file_name();
            fs::write(path.join(compressed), frames).unwrap();
            fs::write(path.join(PLAIN.file_name()), vec![5; 800_000]).unwrap();
            if let Some(progress) = progress {
                fs::write(path.join(PROGRESS), progress).unwrap();
            }
            drop(entry);
            let (path, verdict) = sealed(salvage(&spool, id).unwrap());
            let bundle = BundleWriter::from_entry(&path).unwrap();
            let core = bundle.manifest().core.clone().unwrap();
            assert_eq!((core.encoding, core.size), (encoding, expected));
            assert!(
                matches!(verdict, Verdict::Truncated { got, .. } if got == expected),
                "{verdict:?}"
            );
            let names = fs::read_dir(&path).unwrap();
            let cores = names.filter(|name| {
                let name = name.as_ref().unwrap().file_name();
                name.to_str().unwrap().starts_with("core")
            });
            assert_eq!(cores.count(), 1);
            bundle.write_to(&mut io::sink()).unwrap();
        }
    }

    #[test]
    fn salvage_does_not_follow_planted_links_and_pipes() {
        let root = tempfile::tempdir().unwrap();
        let (spool, secret) = (root.path().join("s"), root.path().join("secret"));
        fs::write(&secret, "{}").unwrap();
        let id = DumpId::random();
        let entry = PartialEntry::create(&spool, id).unwrap();
        let path = entry.path().to_owned();
        std::os::unix::fs::symlink(&secret, path.join(EntryKind::Proc.file_name())).unwrap();
        fs::hard_link(&secret, path.join(EntryKind::DumpInfo.file_name())).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path.join(EntryKind::Backtrace.file_name()),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        drop(entry);
        let (path, _) = sealed(salvage(&spool, id).unwrap());
        let bundle = BundleWriter::from_entry(&path).unwrap();
        assert!(
            bundle.manifest().entries.is_empty(),
            "{:?}",
            bundle.manifest().entries
        );
        assert_eq!(fs::read(&secret).unwrap(), b"{}");
    }
}
