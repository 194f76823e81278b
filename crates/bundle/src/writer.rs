//! Streams a sealed spool entry as a zip: a pure function of its files.
//!
//! Nothing is buffered or compressed here, so the length of the zip is known before its first byte.
//! The same entry always gives the same bytes, even after a restart. Each file's CRC is computed
//! while it is read and compared with the manifest, so a damaged spool entry is not shipped as
//! intact.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use cdh_elfcore::ByteSource;

use crate::digest::copy;
use crate::entry_dir::{PARTIAL, open_directory, open_regular};
use crate::zip::{Method, NewEntry, ZipLayout};
use crate::{BundleError, CoreEncoding, DigestWriter, Digests, EntryKind, Manifest};

/// Maximum size of a manifest in bytes: one with 10 000 modules has 2 MiB.
pub(crate) const LARGEST_MANIFEST: u64 = 64 << 20;

/// Maximum number of entries in a bundle.
const MOST_ENTRIES: usize = 4096;

/// A bundle that is ready to be written.
pub struct BundleWriter {
    manifest: Manifest,
    sections: Arc<[Section]>,
    len: u64,
}

/// A section of the zip: bytes from memory, or a file.
enum Section {
    Bytes(Vec<u8>),
    File {
        name: String,
        file: File,
        len: u64,
        crc32: u32,
        method: Method,
    },
}

impl BundleWriter {
    /// Prepares the bundle of the sealed entry in `directory`.
    ///
    /// # Errors
    /// Fails if the entry is not sealed, or if its files do not match the manifest.
    pub fn from_entry(directory: &Path) -> Result<Self, BundleError> {
        let shown = directory.display();
        if directory
            .as_os_str()
            .as_encoded_bytes()
            .ends_with(PARTIAL.as_bytes())
        {
            return Err(BundleError::NotSealed {
                path: directory.to_owned(),
            });
        }
        let handle =
            open_directory(directory).map_err(BundleError::io(format!("open `{shown}`")))?;
        let json = read_entry_manifest(&handle, directory)?;
        let manifest = Manifest::from_json(&json)?;
        let mut entries = Vec::new();
        let mut files = Vec::new();
        for (kind, record) in kinds(&manifest)?.into_iter().zip(&manifest.entries) {
            let file = open_regular(&handle, directory, &kind.file_name())?;
            let action = format!("stat `{}`", directory.join(kind.file_name()).display());
            let found = file.metadata().map_err(BundleError::io(action))?.len();
            let stored = record.stored_size.unwrap_or(record.size);
            if found != stored {
                return Err(BundleError::Mismatch {
                    entry: record.name.clone(),
                    expected: format!("{stored} bytes"),
                    found: format!("{found} bytes"),
                });
            }
            let method = match kind {
                EntryKind::Core(CoreEncoding::Deflate) => Method::Deflated,
                _ => Method::Stored,
            };
            let (name, crc32) = (record.name.clone(), record.crc32);
            files.push(Section::File {
                name: name.clone(),
                file,
                len: stored,
                crc32,
                method,
            });
            entries.push(NewEntry {
                name,
                method,
                crc32,
                stored,
                size: record.size,
            });
        }
        entries.push(NewEntry {
            name: EntryKind::Manifest.bundle_name(&manifest.stem),
            method: Method::Stored,
            crc32: crc32fast::hash(&json),
            stored: json.len() as u64,
            size: json.len() as u64,
        });
        files.push(Section::Bytes(json));
        let layout = ZipLayout::new(&entries, manifest.listed_at());
        let headers = layout.local_headers.into_iter().map(Section::Bytes);
        let mut sections: Vec<Section> = headers
            .zip(files)
            .flat_map(|(header, file)| [header, file])
            .collect();
        sections.push(Section::Bytes(layout.directory));
        Ok(Self {
            manifest,
            sections: sections.into(),
            len: layout.len,
        })
    }

    /// The manifest at the end of the bundle.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest's bytes, identical in the entry and in the bundle.
    #[must_use]
    pub fn manifest_json(&self) -> &[u8] {
        // The zip directory is last, the manifest before it.
        match self.sections.iter().rev().nth(1) {
            Some(Section::Bytes(json)) => json,
            _ => &[],
        }
    }

    /// Exact size of the zip in bytes.
    #[allow(clippy::len_without_is_empty, reason = "a bundle is never empty")]
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Writes the zip.
    ///
    /// # Errors
    /// Fails if a file does not match the manifest, or if `out` cannot be written.
    pub fn write_to(&self, out: &mut dyn Write) -> Result<Digests, BundleError> {
        let failed = |error| BundleError::from_io("write the bundle".to_owned(), error);
        let mut out = DigestWriter::new(out);
        copy(&mut self.reader(), &mut out).map_err(failed)?;
        out.flush().map_err(failed)?;
        Ok(out.finish().1)
    }

    /// A reader of the zip. If a file does not match the manifest, reading fails with an error that
    /// contains a [`BundleError::Mismatch`].
    #[must_use]
    pub fn reader(&self) -> BundleStream {
        BundleStream {
            sections: Arc::clone(&self.sections),
            index: 0,
            at: 0,
            check: None,
        }
    }
}

/// The zip of a sealed entry with random access, without writing it anywhere.
pub struct EntrySource {
    sections: Arc<[Section]>,
    len: u64,
}

impl BundleWriter {
    /// The zip as a byte source: a dump in the spool is read like one in a store.
    #[must_use]
    pub fn source(&self) -> EntrySource {
        EntrySource {
            sections: Arc::clone(&self.sections),
            len: self.len,
        }
    }
}

impl Section {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Bytes(bytes) => {
                let at = usize::try_from(at).unwrap_or(usize::MAX);
                bytes.get(at..).unwrap_or_default().read(buf)
            }
            Self::File { file, len, .. } => {
                // The file may have grown since; the zip has not.
                let left = usize::try_from(len.saturating_sub(at)).unwrap_or(usize::MAX);
                let wanted = left.min(buf.len());
                file.read_at(buf.get_mut(..wanted).unwrap_or_default(), at)
            }
        }
    }
}

impl ByteSource for EntrySource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let (mut done, mut skip) = (0_usize, offset);
        for section in self.sections.iter() {
            if skip >= section.len() {
                skip = skip.saturating_sub(section.len());
                continue;
            }
            while skip < section.len() {
                let rest = buf.get_mut(done..).unwrap_or_default();
                if rest.is_empty() {
                    return Ok(done);
                }
                match section.read_at(skip, rest) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(count) => {
                        done = done.saturating_add(count);
                        skip = skip.saturating_add(count as u64);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            skip = 0;
        }
        Ok(done)
    }
}

/// The manifest's bytes in the sealed entry.
pub(crate) fn read_entry_manifest(
    handle: &OwnedFd,
    directory: &Path,
) -> Result<Vec<u8>, BundleError> {
    match open_regular(handle, directory, &EntryKind::Manifest.file_name()) {
        Ok(file) => read_manifest(file, directory),
        Err(BundleError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Err(BundleError::NotSealed {
                path: directory.to_owned(),
            })
        }
        Err(error) => Err(error),
    }
}

fn read_manifest(file: File, directory: &Path) -> Result<Vec<u8>, BundleError> {
    let entry = EntryKind::Manifest.file_name();
    let action = format!("read `{}`", directory.join(&entry).display());
    let mut json = Vec::new();
    let mut limited = file.take(LARGEST_MANIFEST.saturating_add(1));
    limited
        .read_to_end(&mut json)
        .map_err(BundleError::io(action))?;
    let size = json.len() as u64;
    if size > LARGEST_MANIFEST {
        return Err(BundleError::TooLarge {
            entry,
            size,
            limit: LARGEST_MANIFEST,
        });
    }
    Ok(json)
}

/// The distinct kinds of the manifest's entries; the file names are derived from them.
fn kinds(manifest: &Manifest) -> Result<Vec<EntryKind>, BundleError> {
    let refuse = |name: &str| BundleError::Name {
        name: crate::RawText::from(name).to_string(),
    };
    if !crate::is_safe_stem(&manifest.stem) {
        return Err(refuse(&manifest.stem));
    }
    if manifest.entries.len() > MOST_ENTRIES {
        return Err(refuse("…"));
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut kinds = Vec::new();
    for record in &manifest.entries {
        let kind = match EntryKind::parse(&record.name, &manifest.stem) {
            Some(EntryKind::Core(CoreEncoding::None)) if record.stored_size.is_some() => {
                EntryKind::Core(CoreEncoding::Deflate)
            }
            Some(kind) if kind != EntryKind::Manifest => kind,
            _ => return Err(refuse(&record.name)),
        };
        if !seen.insert(record.name.as_str()) {
            return Err(refuse(&record.name));
        }
        kinds.push(kind);
    }
    Ok(kinds)
}

/// Sequential reader of a bundle's bytes.
pub struct BundleStream {
    sections: Arc<[Section]>,
    index: usize,
    /// Bytes read of the current section.
    at: u64,
    check: Option<Check>,
}

/// Computes the CRC of what a zip reader will see.
enum Check {
    Stored(Box<crc32fast::Hasher>),
    Deflated(Box<flate2::write::DeflateDecoder<CrcSink>>),
}

#[derive(Default)]
struct CrcSink(crc32fast::Hasher);

impl Write for CrcSink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.update(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Check {
    fn new(method: Method) -> Self {
        match method {
            Method::Deflated => Self::Deflated(Box::new(flate2::write::DeflateDecoder::new(
                CrcSink::default(),
            ))),
            _ => Self::Stored(Box::default()),
        }
    }

    fn update(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Stored(hasher) => hasher.update(data),
            Self::Deflated(decoder) => decoder.write_all(data)?,
        }
        Ok(())
    }

    fn finish(self) -> io::Result<u32> {
        match self {
            Self::Stored(hasher) => Ok(hasher.finalize()),
            Self::Deflated(decoder) => Ok(decoder.finish()?.0.finalize()),
        }
    }
}

impl BundleStream {
    fn next_section(&mut self) {
        self.index = self.index.saturating_add(1);
        self.at = 0;
        self.check = None;
    }

    fn verify(&mut self, name: &str, crc32: u32) -> io::Result<()> {
        let Some(check) = self.check.take() else {
            return Ok(());
        };
        let found = check.finish()?;
        if found == crc32 {
            return Ok(());
        }
        Err(io::Error::other(BundleError::Mismatch {
            entry: name.to_owned(),
            expected: format!("CRC-32 {crc32:08x}"),
            found: format!("{found:08x}"),
        }))
    }
}

impl Read for BundleStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let sections = Arc::clone(&self.sections);
        while let Some(section) = sections.get(self.index) {
            let count = match section {
                Section::Bytes(bytes) => {
                    let at = usize::try_from(self.at).unwrap_or(usize::MAX);
                    bytes.get(at..).unwrap_or_default().read(buf)?
                }
                Section::File {
                    name,
                    file,
                    len,
                    crc32,
                    method,
                } => {
                    let left = usize::try_from(len.saturating_sub(self.at)).unwrap_or(usize::MAX);
                    let wanted = buf.len().min(left);
                    let part = buf.get_mut(..wanted).unwrap_or_default();
                    let check = self.check.get_or_insert_with(|| Check::new(*method));
                    if part.is_empty() {
                        self.verify(name, *crc32)?;
                        0
                    } else {
                        let count = file.read_at(part, self.at)?;
                        if count == 0 {
                            return Err(io::Error::other(BundleError::Mismatch {
                                entry: name.clone(),
                                expected: format!("{len} bytes"),
                                found: format!("{} bytes", self.at),
                            }));
                        }
                        check.update(part.get(..count).unwrap_or_default())?;
                        count
                    }
                }
            };
            if count > 0 {
                self.at = self.at.saturating_add(count as u64);
                return Ok(count);
            }
            self.next_section();
        }
        Ok(0)
    }
}
