//! Adds facts to a sealed entry that became known after it was sealed, such as the container
//! runtime's answers.
//!
//! ```text
//! pod-info.json.amended     written and synced: nothing of the entry has changed yet
//! manifest.json.new         the manifest that lists them, written and synced
//! manifest.json             renamed: from here on the entry is the amended one
//! pod-info.json             renamed
//! ```
//!
//! The manifest is the commit record. [`settle`] runs before an entry is read. If it finds
//! `.amended` files, it checks whether the manifest lists these exact bytes: if so, it finishes the
//! amendment, otherwise it undoes it. An interrupted amendment therefore leaves either the old
//! entry or the new one, on any file system that has `rename`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};

use crate::entry_dir::{PARTIAL, open_directory, open_regular};
use crate::{BundleError, Digests, EntryKind, EntryRecord, Manifest};

const AMENDED: &str = ".amended";
const DRAFT: &str = "manifest.json.new";

/// Replaces the manifest of the sealed entry in `directory` with `manifest`, and adds or replaces
/// `files`. Entries that `manifest` no longer lists are no longer part of the dump. The operation
/// is idempotent.
///
/// # Errors
/// Fails if the manifest belongs to another dump, or if a system call fails. After [`settle`], the
/// entry is then either unchanged or fully amended.
pub fn amend(
    directory: &Path,
    manifest: Manifest,
    files: &[(EntryKind, Vec<u8>)],
) -> Result<(), BundleError> {
    amend_by_steps(directory, manifest, files, &mut || Ok(()))
}

/// Like [`amend`]. `step` is called before every change; tests return an error from it to simulate
/// a power failure.
fn amend_by_steps(
    directory: &Path,
    mut manifest: Manifest,
    files: &[(EntryKind, Vec<u8>)],
    step: &mut dyn FnMut() -> io::Result<()>,
) -> Result<(), BundleError> {
    let failed = || BundleError::io(format!("amend `{}`", directory.display()));
    let name = directory.file_name().unwrap_or_default();
    let is_this = name.to_str() == Some(&manifest.id.to_string());
    if !is_this || !crate::is_safe_stem(&manifest.stem) {
        let name = crate::RawText::from(manifest.stem.as_str()).to_string();
        return Err(BundleError::Name { name });
    }
    let handle = open_directory(directory).map_err(failed())?;
    for (kind, bytes) in files {
        let digests = Digests::of_reader(bytes.as_slice()).map_err(failed())?;
        let record = EntryRecord {
            name: kind.bundle_name(&manifest.stem),
            size: digests.size,
            crc32: digests.crc32,
            sha256: digests.sha256,
            stored_size: None,
        };
        manifest.entries.retain(|entry| entry.name != record.name);
        manifest.entries.push(record);
    }
    let stem = manifest.stem.clone();
    manifest
        .entries
        .sort_by_key(|entry| EntryKind::parse(&entry.name, &stem));
    let json = manifest.to_json()?;
    let mut change = || -> io::Result<()> {
        for (kind, bytes) in files {
            step()?;
            write_whole(&handle, &format!("{}{AMENDED}", kind.file_name()), bytes)?;
        }
        step()?;
        write_whole(&handle, DRAFT, &json)?;
        step()?;
        rustix::fs::fsync(&handle)?;
        renameat(
            &handle,
            DRAFT,
            &handle,
            EntryKind::Manifest.file_name().as_str(),
        )?;
        step()?;
        rustix::fs::fsync(&handle)?;
        for (kind, _) in files {
            step()?;
            let name = kind.file_name();
            renameat(&handle, format!("{name}{AMENDED}"), &handle, name.as_str())?;
        }
        step()?;
        Ok(rustix::fs::fsync(&handle)?)
    };
    change().map_err(failed())
}

/// Finishes or undoes an interrupted amendment. Without one, it only reads the directory.
///
/// # Errors
/// Fails if a system call fails, or if the entry has no manifest.
pub fn settle(directory: &Path) -> Result<(), BundleError> {
    let failed = || BundleError::io(format!("settle `{}`", directory.display()));
    if directory
        .as_os_str()
        .as_encoded_bytes()
        .ends_with(PARTIAL.as_bytes())
    {
        let path = directory.to_owned();
        return Err(BundleError::NotSealed { path });
    }
    let handle = open_directory(directory).map_err(failed())?;
    let mut begun = Vec::new();
    for item in rustix::fs::Dir::read_from(&handle)
        .map_err(io::Error::from)
        .map_err(failed())?
    {
        let item = item.map_err(io::Error::from).map_err(failed())?;
        let Ok(name) = item.file_name().to_str() else {
            continue;
        };
        let kind = name
            .strip_suffix(AMENDED)
            .and_then(EntryKind::from_file_name);
        if let Some(kind) = kind {
            begun.push((kind, name.to_owned()));
        } else if name == DRAFT {
            unlinkat(&handle, DRAFT, AtFlags::empty())
                .map_err(io::Error::from)
                .map_err(failed())?;
        }
    }
    if begun.is_empty() {
        return Ok(());
    }
    let manifest = crate::writer::read_entry_manifest(&handle, directory)?;
    let manifest = Manifest::from_json(&manifest)?;
    for (kind, name) in begun {
        let wanted = kind.bundle_name(&manifest.stem);
        let record = manifest.entries.iter().find(|entry| entry.name == wanted);
        let found = open_regular(&handle, directory, &name)
            .ok()
            .and_then(|file| Digests::of_reader(file).ok());
        let is_listed = record.zip(found).is_some_and(|(record, found)| {
            record.size == found.size && record.sha256 == found.sha256
        });
        let done = match is_listed {
            true => renameat(&handle, name.as_str(), &handle, kind.file_name().as_str()),
            false => unlinkat(&handle, name.as_str(), AtFlags::empty()),
        };
        done.map_err(io::Error::from).map_err(failed())?;
    }
    rustix::fs::fsync(&handle)
        .map_err(io::Error::from)
        .map_err(failed())
}

/// Creates the file anew, replacing an old one, and syncs it to disk.
fn write_whole(directory: &OwnedFd, name: &str, bytes: &[u8]) -> io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::sample;
    use crate::{BundleWriter, EntryDir, Gap};

    fn sealed(spool: &Path) -> (std::path::PathBuf, Manifest) {
        let manifest = sample();
        let mut entry = EntryDir::create(spool, manifest.id).unwrap();
        entry.write_file(&EntryKind::DumpInfo, b"{}").unwrap();
        entry.write_file(&EntryKind::Proc, b"{\"pid\": 1}").unwrap();
        let path = entry.seal(manifest).unwrap();
        let manifest = BundleWriter::from_entry(&path).unwrap().manifest().clone();
        (path, manifest)
    }

    fn amended(mut manifest: Manifest) -> (Manifest, Vec<(EntryKind, Vec<u8>)>) {
        manifest.gaps.push(Gap {
            what: "workload".to_owned(),
            why: "a test".to_owned(),
        });
        let files = vec![
            (EntryKind::Log(0), b"last words\n".to_vec()),
            (EntryKind::DumpInfo, b"{\"namespace\": \"shop\"}".to_vec()),
            (EntryKind::PodInfo, b"{\"pod\": true}".to_vec()),
        ];
        (manifest, files)
    }

    fn whole(path: &Path) -> Manifest {
        let bundle = BundleWriter::from_entry(path).unwrap();
        bundle.write_to(&mut io::sink()).unwrap();
        bundle.manifest().clone()
    }

    #[test]
    fn amend_adds_and_replaces_files_in_bundle_order() {
        let spool = tempfile::tempdir().unwrap();
        let (path, before) = sealed(spool.path());
        let (manifest, files) = amended(before);
        amend(&path, manifest.clone(), &files).unwrap();
        amend(&path, manifest, &files).unwrap();
        settle(&path).unwrap();
        let names: Vec<_> = whole(&path).entries.into_iter().map(|e| e.name).collect();
        assert_eq!(
            names,
            [
                "stem-dump-info.json",
                "stem-proc.json",
                "stem-pod-info.json",
                "stem-0.log"
            ]
        );
        let info = std::fs::read(path.join("dump-info.json")).unwrap();
        assert_eq!(info, b"{\"namespace\": \"shop\"}");
    }

    #[test]
    fn settle_after_any_interruption_leaves_the_old_or_the_new_entry() {
        let mut outcomes = Vec::new();
        for limit in 0.. {
            let spool = tempfile::tempdir().unwrap();
            let (path, before) = sealed(spool.path());
            let (manifest, files) = amended(before.clone());
            let mut steps = 0;
            let interrupted = amend_by_steps(&path, manifest, &files, &mut || {
                steps += 1;
                match steps > limit {
                    true => Err(io::Error::other("the power is gone")),
                    false => Ok(()),
                }
            })
            .is_err();
            settle(&path).unwrap();
            let found = whole(&path);
            let is_new = found.gaps.iter().any(|gap| gap.what == "workload");
            assert!(is_new || found == before);
            let left = std::fs::read_dir(&path).unwrap().flatten();
            let left: Vec<_> = left.map(|item| item.file_name()).collect();
            let expected = if is_new { 5 } else { 3 };
            assert_eq!(left.len(), expected, "{left:?}");
            outcomes.push(is_new);
            if !interrupted {
                break;
            }
            // The next agent repeats the amendment and finishes it.
            let (manifest, files) = amended(before);
            amend(&path, manifest, &files).unwrap();
            assert_eq!(whole(&path).entries.len(), 4);
        }
        let news = outcomes.iter().filter(|is_new| **is_new).count();
        assert!(news >= 4 && outcomes.len() - news >= 4, "{outcomes:?}");
        assert!(outcomes.is_sorted(), "once new, always new: {outcomes:?}");
    }

    #[test]
    fn settle_deletes_planted_files() {
        let spool = tempfile::tempdir().unwrap();
        let (path, _) = sealed(spool.path());
        std::fs::write(path.join("proc.json.amended"), "forged").unwrap();
        std::fs::write(path.join("other.amended"), "not ours").unwrap();
        settle(&path).unwrap();
        whole(&path);
        assert!(!path.join("proc.json.amended").exists());
        let mut other = sample();
        other.stem = "stem".to_owned();
        assert!(amend(&path, other, &[]).is_err());
    }
}
