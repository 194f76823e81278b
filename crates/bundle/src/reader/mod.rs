//! Reads a bundle, one of IBM's zips, or a truncated zip of either kind.
//!
//! Invariants: names in the zip are compared but never used as paths. Content is returned as bytes,
//! limited to the sizes that the zip states; nothing is extracted to a path. Returned bytes were
//! compared with a checksum, or [`BundleReader::is_verified`] reports that they were not. A
//! complete entry is checked with its CRC, a piece of a core with its frame's checksum. If the
//! zip's directory and the manifest contradict each other, the entry is not read.
//!
//! ```text
//! a directory at the end        entries as it lists them
//! none (the writer was killed)  entries by their local headers; `salvaged` says how far
//! ```

mod consistency;
mod content;
mod layout;
mod reads;
mod summary;
mod verify;

use std::io::Read;
use std::sync::Arc;

use cdh_elfcore::ByteSource;

use crate::legacy::LegacyInfo;
use crate::seekable::{SeekableError, SeekableReader};
use crate::window::SourceReader;
use crate::writer::LARGEST_MANIFEST;
use crate::zip::{self, Method, RawEntry};
use crate::{BundleError, CoreEncoding, EntryKind, Manifest, RawText, Window};

pub use layout::{CoreLayout, CorePiece};
pub use reads::ReadProblem;
pub use verify::{EntryCheck, Verification};

use content::Bounded;
use reads::{Noted, Reads};

/// Largest deflated entry that is inflated into memory, and largest stored entry that is read
/// completely so that its CRC can be checked before use.
const LARGEST_INFLATED: u64 = 64 << 20;

/// An entry of a bundle.
#[derive(Clone, Debug)]
pub struct BundleEntry {
    /// Its name: untrusted.
    pub name: RawText,
    /// Its kind, if it is one that bundles have.
    pub kind: Option<EntryKind>,
    /// Its uncompressed size: as stated, or as found if the zip was truncated before it was stated.
    pub size: u64,
    /// Its size in the zip.
    pub stored_size: u64,
    /// Its storage method.
    pub method: Method,
    /// Whether the zip ends before the entry does.
    pub cut: bool,
    /// CRC-32 of the uncompressed content, if the zip states it.
    pub crc32: Option<u32>,
    header_at: u64,
    encrypted: bool,
}

/// An open bundle.
pub struct BundleReader {
    source: Arc<dyn ByteSource>,
    entries: Vec<BundleEntry>,
    stem: String,
    manifest: Option<Manifest>,
    legacy: Option<LegacyInfo>,
    salvaged: Option<String>,
    damage: Vec<String>,
    reads: Arc<Reads>,
}

impl BundleReader {
    /// Reads the zip's directory and the manifest.
    ///
    /// # Errors
    /// Fails if it is not a bundle, if nothing of it can be salvaged, or if its manifest has a
    /// newer schema.
    pub fn open(source: Arc<dyn ByteSource>) -> Result<Self, BundleError> {
        let (raw, mut notes) = raw_entries(source.as_ref())?;
        let stem = find_stem(&raw).ok_or(BundleError::ForeignZip)?;
        let entries = entries(raw, &stem);
        let mut bundle = Self {
            source,
            entries,
            stem,
            manifest: None,
            legacy: None,
            salvaged: None,
            damage: Vec::new(),
            reads: Arc::default(),
        };
        match bundle.read_manifest() {
            Ok(manifest) => bundle.manifest = Some(manifest),
            Err(BundleError::NoEntry { .. }) => {}
            Err(error @ BundleError::Schema { .. }) => return Err(error),
            // The other entries may be intact.
            Err(error) => {
                let why = match &error {
                    BundleError::Manifest { source } => format!("{error}: {source}"),
                    BundleError::Io { source, .. } => format!("{error}: {source}"),
                    _ => error.to_string(),
                };
                bundle
                    .damage
                    .push(format!("the manifest is damaged: {why}"));
                notes.push(format!("its manifest cannot be read ({why})"));
            }
        }
        if let Ok(json) = bundle.small_entry(&EntryKind::DumpInfo, LARGEST_INFLATED) {
            bundle.legacy = Some(LegacyInfo::parse(&json));
        }
        bundle.salvaged = (!notes.is_empty()).then(|| notes.join("; "));
        let found = consistency::damage_of(&bundle);
        bundle.damage.extend(found);
        Ok(bundle)
    }

    /// Opens a zip that is not a bundle, for its entries: none of them has a kind.
    ///
    /// # Errors
    /// When it is no zip, or nothing of it is left.
    pub fn open_foreign(source: Arc<dyn ByteSource>) -> Result<Self, BundleError> {
        let (raw, notes) = raw_entries(source.as_ref())?;
        let mut entries = entries(raw, "");
        entries.iter_mut().for_each(|entry| entry.kind = None);
        Ok(Self {
            source,
            entries,
            stem: String::new(),
            manifest: None,
            legacy: None,
            salvaged: (!notes.is_empty()).then(|| notes.join("; ")),
            damage: Vec::new(),
            reads: Arc::default(),
        })
    }

    fn read_manifest(&self) -> Result<Manifest, BundleError> {
        Manifest::from_json(&self.small_entry(&EntryKind::Manifest, LARGEST_MANIFEST)?)
    }

    /// The bytes of the bundle.
    #[must_use]
    pub fn source(&self) -> &Arc<dyn ByteSource> {
        &self.source
    }

    /// The entries, in the order of the zip's directory.
    #[must_use]
    pub fn entries(&self) -> &[BundleEntry] {
        &self.entries
    }

    /// The manifest; `None` in IBM's zips and in truncated bundles.
    #[must_use]
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// IBM's summary; our bundles have it too.
    #[must_use]
    pub fn legacy(&self) -> Option<&LegacyInfo> {
        self.legacy.as_ref()
    }

    /// What was salvaged, and why; `None` for an intact bundle.
    #[must_use]
    pub fn salvaged(&self) -> Option<&str> {
        self.salvaged.as_deref()
    }

    /// Known damage, found without reading the entries: in the zip's directory, in the manifest, or
    /// an entry on which they disagree. Zips of IBM's agent have no manifest to compare with.
    #[must_use]
    pub fn damage(&self) -> &[String] {
        &self.damage
    }

    /// Whether everything returned so far was checked against a checksum. A truncated core that is
    /// not stored in frames is not covered.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        let is_framed = Some(EntryKind::Core(CoreEncoding::ZstdSeekable));
        let core = self.core_entry();
        self.reads.is_verified() && !core.is_some_and(|core| core.cut && core.kind != is_framed)
    }

    /// The first failed read of the core or minicore. Readers of the core may have treated it as a
    /// hole.
    #[must_use]
    pub fn read_problem(&self) -> Option<ReadProblem> {
        self.reads.problem()
    }

    /// Compares the complete stored core with the zip's CRC.
    ///
    /// # Errors
    /// Fails if the core is damaged or cannot be read.
    pub fn verify_stored_core(&self) -> Result<(), BundleError> {
        let Some(entry) = self.core_entry() else {
            return Ok(());
        };
        let failed = |error| BundleError::from_io("read the core".to_owned(), error);
        std::io::copy(&mut self.entry_reader(entry)?, &mut std::io::sink()).map_err(failed)?;
        Ok(())
    }

    /// Whether the stored core begins with a frame that has a checksum; `None` if it is not stored
    /// in frames.
    ///
    /// # Errors
    /// Fails if it cannot be read.
    pub fn core_has_checksums(&self) -> Result<Option<bool>, BundleError> {
        let is_framed =
            |entry: &&BundleEntry| entry.kind == Some(EntryKind::Core(CoreEncoding::ZstdSeekable));
        let Some(entry) = self.core_entry().filter(is_framed) else {
            return Ok(None);
        };
        let failed = |error| BundleError::from_io("read the core".to_owned(), error);
        let content = self.content(entry)?;
        let head = crate::window::read_up_to(&content, 0, 5).map_err(failed)?;
        Ok(Some(crate::seekable::has_checksum(&head)))
    }

    /// The manifest, or one built from the other entries.
    #[must_use]
    pub fn summary_manifest(&self) -> Manifest {
        self.manifest.clone().unwrap_or_else(|| summary::of(self))
    }

    /// The first entry of this kind. `Core` with any encoding finds the core.
    #[must_use]
    pub fn entry(&self, kind: &EntryKind) -> Option<&BundleEntry> {
        let wanted = |entry: &&BundleEntry| match (&entry.kind, kind) {
            (Some(EntryKind::Core(_)), EntryKind::Core(_)) => true,
            (found, kind) => found.as_ref() == Some(kind),
        };
        self.entries.iter().find(wanted)
    }

    /// Random access to an entry. Up to 64 MiB it is read into memory and compared with its CRC. A
    /// larger entry is read in place, unverified.
    ///
    /// # Errors
    /// Fails if there is no such entry, or if it is too large or damaged.
    pub fn entry_source(&self, kind: &EntryKind) -> Result<Box<dyn ByteSource>, BundleError> {
        let entry = self.wanted(kind)?;
        if entry.method == Method::Stored && (entry.size > LARGEST_INFLATED || entry.cut) {
            let content = self.content(entry)?;
            return Ok(Box::new(Noted::unverified(content, &self.reads)));
        }
        Ok(Box::new(self.inflated(entry, LARGEST_INFLATED)?))
    }

    /// Reads an entry's content from start to end, and compares it with the zip's CRC at its end. A
    /// truncated entry gives the bytes that exist.
    ///
    /// # Errors
    /// Fails if the storage method is not supported, or if the zip is inconsistent.
    pub fn entry_reader(&self, entry: &BundleEntry) -> Result<Box<dyn Read + Send>, BundleError> {
        let content = SourceReader::new(self.content(entry)?);
        Ok(unpacked(entry, content))
    }

    /// Reads the plain core from start to end, in any encoding. A truncated core gives the bytes
    /// that exist.
    ///
    /// # Errors
    /// Like `entry_reader`. Reading fails if the number of bytes differs from the manifest.
    pub fn core_reader(&self) -> Result<Option<Box<dyn Read + Send>>, BundleError> {
        let Some(entry) = self.core_entry() else {
            return Ok(None);
        };
        let content = SourceReader::new(self.content(entry)?);
        self.plain_core(entry, content).map(Some)
    }

    /// Reads the plain core from a copy of the entry's stored bytes.
    fn plain_core(
        &self,
        entry: &BundleEntry,
        content: impl Read + Send + 'static,
    ) -> Result<Box<dyn Read + Send>, BundleError> {
        let stored = unpacked(entry, content);
        if entry.kind != Some(EntryKind::Core(CoreEncoding::ZstdSeekable)) {
            return Ok(stored);
        }
        let failed = |error| BundleError::from_io("read the core".to_owned(), error);
        let plain = zstd::stream::read::Decoder::new(stored).map_err(failed)?;
        let record = self
            .manifest
            .as_ref()
            .and_then(|manifest| manifest.core.as_ref());
        let name = entry.name.to_string();
        Ok(match record {
            Some(core) => Box::new(Bounded::new(plain, name, core.size, None, entry.cut)),
            // Without a manifest the expected size is unknown: return everything that can be
            // decoded.
            None => Box::new(Bounded::new(plain, name, u64::MAX, None, true)),
        })
    }

    /// Random access to the plain core without unpacking it; `None` if there is no core, or if its
    /// encoding has no random access.
    ///
    /// # Errors
    /// Returns errors of the source.
    pub fn core_source(&self) -> Result<Option<Box<dyn ByteSource>>, BundleError> {
        let Some(entry) = self
            .core_entry()
            .filter(|entry| entry.method == Method::Stored)
        else {
            return Ok(None);
        };
        let content = self.content(entry)?;
        if entry.kind != Some(EntryKind::Core(CoreEncoding::ZstdSeekable)) {
            if entry.size <= LARGEST_INFLATED && !entry.cut {
                return Ok(Some(Box::new(self.inflated(entry, LARGEST_INFLATED)?)));
            }
            return Ok(Some(Box::new(Noted::unverified(content, &self.reads))));
        }
        let Some(core) = seekable(entry, content)? else {
            return Ok(None);
        };
        self.compare_plain_size(entry, core.plain_len())?;
        let core = core.note_unverified(self.reads.unverified_flag());
        Ok(Some(Box::new(Noted::new(core, &self.reads))))
    }

    /// Compares every entry with the manifest, or without a manifest, with the zip's own CRCs.
    ///
    /// # Errors
    /// Returns errors of the source. Mismatches are part of the result.
    pub fn verify(&self) -> Result<Verification, BundleError> {
        verify::verify(self)
    }

    /// Checks the sizes in a seek table, which place each frame in the core. Only their sum, stored
    /// in the manifest, covers them.
    fn compare_plain_size(&self, entry: &BundleEntry, found: u64) -> Result<(), BundleError> {
        let record = self.manifest.as_ref().and_then(|it| it.core.as_ref());
        match record.filter(|core| core.size != found && !entry.cut) {
            None => Ok(()),
            Some(core) => Err(BundleError::Mismatch {
                entry: entry.name.to_string(),
                expected: format!("a core of {} bytes", core.size),
                found: format!("frames of {found} bytes"),
            }),
        }
    }

    fn core_entry(&self) -> Option<&BundleEntry> {
        self.entry(&EntryKind::Core(CoreEncoding::None))
    }

    fn wanted(&self, kind: &EntryKind) -> Result<&BundleEntry, BundleError> {
        self.entry(kind).ok_or_else(|| BundleError::NoEntry {
            entry: kind.file_name(),
        })
    }

    /// The stored bytes of an entry.
    fn content(&self, entry: &BundleEntry) -> Result<Window, BundleError> {
        consistency::compare_with_manifest(self, entry)?;
        let unsupported = |what: &str| BundleError::Unsupported {
            entry: entry.name.to_string(),
            what: what.to_owned(),
        };
        match entry.method {
            _ if entry.encrypted => return Err(unsupported("it is encrypted")),
            Method::Other(number) => {
                return Err(unsupported(&format!("compression method {number}")));
            }
            Method::Stored if entry.stored_size != entry.size && !entry.cut => {
                return Err(unsupported("its sizes contradict each other"));
            }
            _ => {}
        }
        let at = zip::content_at(self.source.as_ref(), entry.header_at, entry.name.as_bytes())
            .map_err(|error| BundleError::from_io("read the bundle".to_owned(), error))?;
        let at = consistency::content_at(self, entry, at)?;
        Ok(Window::new(Arc::clone(&self.source), at, entry.stored_size))
    }

    /// Reads a small entry and compares it with its CRC.
    ///
    /// # Errors
    /// Fails if there is no such entry, if it is larger than `limit`, or if it is damaged.
    pub fn small_entry(&self, kind: &EntryKind, limit: u64) -> Result<Vec<u8>, BundleError> {
        self.inflated(self.wanted(kind)?, limit)
    }

    fn inflated(&self, entry: &BundleEntry, limit: u64) -> Result<Vec<u8>, BundleError> {
        let name = entry.name.to_string();
        if entry.size > limit {
            return Err(BundleError::TooLarge {
                entry: name,
                size: entry.size,
                limit,
            });
        }
        let mut bytes = Vec::new();
        self.entry_reader(entry)?
            .read_to_end(&mut bytes)
            .map_err(|error| BundleError::from_io(format!("read entry `{name}`"), error))?;
        Ok(bytes)
    }
}

/// The frames of a core; `None` for a zstd stream without frames of ours, which is only readable
/// from its start.
fn seekable(
    entry: &BundleEntry,
    content: Window,
) -> Result<Option<SeekableReader<Window>>, BundleError> {
    match SeekableReader::open(content.clone()) {
        Ok(core) => return Ok(Some(core)),
        Err(error @ SeekableError::Io(_)) => return Err(error.into()),
        // The table is missing or wrong, but the frames can still be read.
        Err(_) => {}
    }
    let found = SeekableReader::recover(content.clone())?;
    let foreign = found.plain_len() == 0 && !content.is_empty();
    Ok((!foreign || entry.cut).then_some(found))
}

/// The content of an entry, from its stored bytes.
fn unpacked(entry: &BundleEntry, content: impl Read + Send + 'static) -> Box<dyn Read + Send> {
    let name = entry.name.to_string();
    let (size, crc32, cut) = (entry.size, entry.crc32, entry.cut);
    if entry.method != Method::Deflated {
        return Box::new(Bounded::new(content, name, size, crc32, cut));
    }
    let buffered = std::io::BufReader::with_capacity(256 << 10, content);
    let inflated = flate2::bufread::DeflateDecoder::new(buffered);
    Box::new(Bounded::new(inflated, name, size, crc32, cut))
}

/// The entries of a zip, and what had to be salvaged of it.
fn raw_entries(source: &dyn ByteSource) -> Result<(Vec<RawEntry>, Vec<String>), BundleError> {
    let failed = |error| BundleError::from_io("read the bundle".to_owned(), error);
    if source.is_empty() {
        return Err(BundleError::Empty);
    }
    let (raw, notes) = match zip::read_directory(source).map_err(failed)? {
        Some(raw) => (raw, Vec::new()),
        None => {
            let raw = zip::salvage(source).map_err(failed)?;
            let note = salvage_note(&raw);
            (raw, vec![note])
        }
    };
    if raw.is_empty() {
        let magic = crate::window::read_up_to(source, 0, 2).map_err(failed)?;
        return Err(match magic.as_slice() {
            b"PK" => BundleError::Cut { len: source.len() },
            _ => BundleError::NotABundle {
                why: "it is no zip",
            },
        });
    }
    Ok((raw, notes))
}

fn salvage_note(raw: &[RawEntry]) -> String {
    let count = raw.len();
    let entries = if count == 1 { "entry" } else { "entries" };
    let note = format!("the zip has no directory, its writer was stopped: {count} {entries} found");
    match raw.last().filter(|entry| entry.cut) {
        Some(last) => {
            let name = RawText::from(last.name.as_slice());
            format!(
                "{note}, the last one, `{name}`, is cut after {} bytes",
                last.stored
            )
        }
        None => note,
    }
}

/// The common prefix of the names: from the manifest, which comes last, otherwise from IBM's
/// summary, otherwise from the core.
fn find_stem(raw: &[RawEntry]) -> Option<String> {
    let names: Vec<&str> = raw
        .iter()
        .filter_map(|entry| str::from_utf8(&entry.name).ok())
        .collect();
    let by = |suffix: &str| {
        names
            .iter()
            .rev()
            .find_map(|name| name.strip_suffix(suffix))
    };
    ["-manifest.json", "-dump-info.json", ".core.zst", ".core"]
        .into_iter()
        .find_map(by)
        .map(str::to_owned)
}

fn entries(raw: Vec<RawEntry>, stem: &str) -> Vec<BundleEntry> {
    let mut entries: Vec<BundleEntry> = Vec::new();
    for entry in raw {
        let name = str::from_utf8(&entry.name).ok();
        let kind = match name.and_then(|name| EntryKind::parse(name, stem)) {
            Some(EntryKind::Core(CoreEncoding::None)) if entry.method == Method::Deflated => {
                Some(EntryKind::Core(CoreEncoding::Deflate))
            }
            kind => kind,
        };
        entries.push(BundleEntry {
            name: RawText::from(entry.name),
            kind,
            size: entry.size,
            stored_size: entry.stored,
            method: entry.method,
            cut: entry.cut,
            crc32: entry.crc32,
            header_at: entry.header_at,
            encrypted: entry.encrypted,
        });
    }
    entries
}
