//! Layers with a table of contents: eStargz and zstd:chunked. Their contents are known, and any file
//! can be fetched, without reading the rest.
//!
//! A table is used only if the manifest, whose digest was verified, contains the table's digest; the
//! table contains the digest of each file.
//!
//! ```text
//! eStargz        gzip members | member with `stargz.index.json` in a tar | footer, 51 bytes:
//!                gzip header with the extra field "SG": <16 hex digits: offset of the table>"STARGZ"
//! zstd:chunked   zstd frames | skippable frame with the table, itself a zstd frame | footer
//!                the manifest's annotations say where it is: <offset>:<length>:<length inside>:<kind>
//! ```

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read, Seek};

use crate::cache::Draft;
use crate::index::{Node, normalized};
use crate::index_builder::IndexBuilder;
use crate::manifest::LayerBlob;
use crate::record::Record;
use crate::table::{TableEntry, each_entry};
use crate::tar::TarReader;
use crate::window::{Windows, ZstdReader};
use crate::{Cache, Digest, ImageReference, PullError, Registry, kept};

const STARGZ_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
const CHUNKED_DIGEST: &str = "io.github.containers.zstd-chunked.manifest-checksum";
const CHUNKED_POSITION: &str = "io.github.containers.zstd-chunked.manifest-position";
const FOOTER: u64 = 51;
/// A layer with a larger table is read like any other.
const MAX_TABLE: u64 = 48 << 20;
/// Maximum chunks of files fetched at once: 12 GiB of them at 64 KiB each.
const MAX_CHUNKS: usize = 200_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Stargz,
    Chunked,
}

#[derive(Clone, Debug)]
struct Chunk {
    offset: u64,
    end: u64,
    inner: u64,
    size: u64,
    zeros: bool,
}

#[derive(Clone, Debug)]
struct TocFile {
    size: u64,
    digest: Digest,
    chunks: Vec<Chunk>,
}

/// A table. It remains on disk, because it may be much larger than the answers.
#[derive(Clone, Debug)]
pub(crate) struct Toc {
    format: Format,
    /// Of the document in the cache.
    digest: Digest,
    /// Its range in the layer.
    at: u64,
}

/// Where some files of a layer are stored.
pub(crate) struct Located {
    format: Format,
    files: BTreeMap<Vec<u8>, TocFile>,
}

/// The context for reading a layer by ranges.
#[derive(Clone, Copy)]
pub(crate) struct LayerSource<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) image: &'a ImageReference,
    pub(crate) layer: &'a LayerBlob,
    pub(crate) windows: &'a Windows,
}

impl LayerSource<'_> {
    fn malformed(&self, problem: impl Into<String>) -> PullError {
        PullError::Layer {
            layer: self.layer.digest,
            problem: format!("its table of contents is not valid: {}", problem.into()),
        }
    }

    /// Bytes of the layer, in a temporary file, and their digest; `None` if they are not available.
    fn bytes(
        &self,
        cache: &Cache,
        first: u64,
        length: u64,
    ) -> Result<Option<(Draft, Digest)>, PullError> {
        let end = first.checked_add(length);
        if length == 0 || length > MAX_TABLE || end.is_none_or(|end| end > self.layer.size) {
            return Ok(None);
        }
        let Some(mut reader) =
            self.registry
                .range(self.image, self.layer.digest, (first, length))?
        else {
            return Ok(None);
        };
        let mut draft = cache.document_draft().map_err(disk)?;
        let (size, digest) =
            kept::copy(&mut reader, &mut draft.file).map_err(|source| PullError::Unreachable {
                registry: self.image.registry().to_owned(),
                source,
            })?;
        draft.file.rewind().map_err(disk)?;
        Ok((size == length).then_some((draft, digest)))
    }
}

fn disk(source: io::Error) -> PullError {
    PullError::Cache { source }
}

/// Fetches the table of a layer; `None` if it has none that is trusted, or ranges are not
/// supported.
pub(crate) fn open(place: &LayerSource<'_>, cache: &Cache) -> Result<Option<Toc>, PullError> {
    let annotation = |name: &str| place.layer.annotations.get(name).map(String::as_str);
    if let Some(digest) = annotation(CHUNKED_DIGEST).and_then(Digest::parse) {
        let position = annotation(CHUNKED_POSITION).unwrap_or_default();
        chunked(place, cache, digest, position)
    } else if let Some(digest) = annotation(STARGZ_DIGEST).and_then(Digest::parse) {
        stargz(place, cache, digest)
    } else {
        Ok(None)
    }
}

/// Reads the table of a layer into its index, if it has one.
pub(crate) fn load(
    place: &LayerSource<'_>,
    cache: &Cache,
    index: &mut IndexBuilder<'_>,
) -> Result<Option<Toc>, PullError> {
    let Some(toc) = open(place, cache)? else {
        return Ok(None);
    };
    let whole = toc.each(place, cache, &mut |entry| {
        index.add(record_of(entry).map_err(|problem| place.malformed(problem))?)
    })?;
    Ok(whole.then_some(toc))
}

fn chunked(
    place: &LayerSource<'_>,
    cache: &Cache,
    digest: Digest,
    position: &str,
) -> Result<Option<Toc>, PullError> {
    let numbers: Vec<u64> = position
        .split(':')
        .filter_map(|part| part.parse().ok())
        .collect();
    let (Some(&at), Some(&length)) = (numbers.first(), numbers.get(1)) else {
        return Ok(None);
    };
    let format = Format::Chunked;
    let toc = Toc { format, digest, at };
    if cache.open_document(digest).is_none() {
        let Some((draft, found)) = place.bytes(cache, at, length)? else {
            return Ok(None);
        };
        check(place, digest, found)?;
        cache.keep_draft(&draft, digest);
    }
    Ok(Some(toc))
}

fn stargz(
    place: &LayerSource<'_>,
    cache: &Cache,
    digest: Digest,
) -> Result<Option<Toc>, PullError> {
    let Some(end) = place.layer.size.checked_sub(FOOTER) else {
        return Ok(None);
    };
    let Some((mut draft, _)) = place.bytes(cache, end, FOOTER)? else {
        return Ok(None);
    };
    let mut footer = Vec::new();
    draft.file.read_to_end(&mut footer).map_err(disk)?;
    let digits = footer
        .get(16..32)
        .and_then(|digits| std::str::from_utf8(digits).ok());
    let at = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let (Some(at), Some(b"STARGZ")) = (at, footer.get(32..38)) else {
        return Ok(None);
    };
    let format = Format::Stargz;
    let toc = Toc { format, digest, at };
    if cache.open_document(digest).is_none() {
        let Some((packed, _)) = place.bytes(cache, at, end.saturating_sub(at))? else {
            return Ok(None);
        };
        let plain = flate2::read::MultiGzDecoder::new(io::BufReader::new(&packed.file));
        let mut tar = TarReader::new(plain.take(MAX_TABLE));
        let broken = |error: io::Error| place.malformed(error.to_string());
        tar.next().map_err(broken)?;
        let mut draft = cache.document_draft().map_err(disk)?;
        let (_, found) = kept::copy(&mut tar.content(), &mut draft.file).map_err(broken)?;
        check(place, digest, found)?;
        cache.keep_draft(&draft, digest);
    }
    Ok(Some(toc))
}

fn check(place: &LayerSource<'_>, expected: Digest, found: Digest) -> Result<(), PullError> {
    match found == expected {
        true => Ok(()),
        false => Err(PullError::Digest {
            what: format!("the table of contents of layer {}", place.layer.digest),
            expected,
            found,
        }),
    }
}

/// Converts an entry to an entry of the layer; chunks of files are ignored.
fn record_of(entry: TableEntry) -> Result<Option<Record>, String> {
    let path = normalized(entry.name.as_bytes())
        .map_err(|problem| format!("path `{}` {problem}", entry.name))?;
    let node = match entry.kind.as_str() {
        "reg" => Node::File {
            size: entry.size,
            build_id: None,
        },
        "chunk" => return Ok(None),
        "dir" => Node::Directory,
        "symlink" => Node::Symlink(entry.link.into_bytes()),
        "hardlink" => Node::Hardlink(
            normalized(entry.link.as_bytes())
                .map_err(|problem| format!("hard link to `{}`, which {problem}", entry.link))?,
        ),
        _ => Node::Special,
    };
    Ok(Record::of(path, node))
}

impl Toc {
    /// Reads the table; returns whether it exists.
    fn each(
        &self,
        place: &LayerSource<'_>,
        cache: &Cache,
        take: &mut dyn FnMut(TableEntry) -> Result<(), PullError>,
    ) -> Result<bool, PullError> {
        let Some(document) = cache.open_document(self.digest) else {
            return Ok(false);
        };
        let broken = |error: io::Error| place.malformed(error.to_string());
        let json: Box<dyn Read + '_> = match self.format {
            Format::Stargz => Box::new(document),
            Format::Chunked => Box::new(ZstdReader::new(document, place.windows).map_err(broken)?),
        };
        let mut problem = None;
        let read = each_entry(json.take(MAX_TABLE), &mut |entry| match take(entry) {
            Ok(()) => true,
            Err(error) => {
                problem = Some(error);
                false
            }
        });
        match (problem, read) {
            (Some(problem), _) => Err(problem),
            (None, Err(error)) => Err(place.malformed(error.to_string())),
            (None, Ok(())) => Ok(true),
        }
    }

    /// Where the files at these paths are stored; `None` if the table does not list them.
    pub(crate) fn locate(
        &self,
        place: &LayerSource<'_>,
        cache: &Cache,
        paths: &HashSet<Vec<u8>>,
    ) -> Result<Option<Located>, PullError> {
        let mut files: BTreeMap<Vec<u8>, TocFile> = BTreeMap::new();
        let mut count = 0_usize;
        let found = self.each(place, cache, &mut |entry| {
            let is_file = matches!(entry.kind.as_str(), "reg" | "chunk");
            let path = normalized(entry.name.as_bytes()).unwrap_or_default();
            if !is_file || !paths.contains(&path) || count >= MAX_CHUNKS {
                return Ok(());
            }
            count = count.saturating_add(1);
            let chunk = Chunk {
                offset: entry.offset,
                end: entry.end,
                inner: entry.inner,
                size: entry.chunk_size,
                zeros: entry.chunk_kind == "zeros",
            };
            if entry.kind == "chunk" {
                if let Some(file) = files.get_mut(&path) {
                    file.chunks.push(chunk);
                }
            } else if let Some(digest) = Digest::parse(&entry.digest) {
                let (size, chunks) = (entry.size, vec![chunk]);
                files.insert(
                    path,
                    TocFile {
                        size,
                        digest,
                        chunks,
                    },
                );
            }
            Ok(())
        })?;
        if !found || count >= MAX_CHUNKS {
            return Ok(None);
        }
        if self.format == Format::Stargz && !self.find_ends(place, cache, &mut files)? {
            return Ok(None);
        }
        Ok(Some(Located {
            format: self.format,
            files,
        }))
    }

    /// A chunk of an eStargz ends where the next one begins, or the table.
    fn find_ends(
        &self,
        place: &LayerSource<'_>,
        cache: &Cache,
        files: &mut BTreeMap<Vec<u8>, TocFile>,
    ) -> Result<bool, PullError> {
        let chunks = files.values().flat_map(|file| &file.chunks);
        let mut ends: BTreeMap<u64, u64> = chunks.map(|chunk| (chunk.offset, self.at)).collect();
        let found = self.each(place, cache, &mut |entry| {
            // For those that begin before the last of them, that one is nearer.
            if let Some((_, end)) = ends.range_mut(..entry.offset).next_back() {
                *end = entry.offset.min(*end);
            }
            Ok(())
        })?;
        for chunk in files.values_mut().flat_map(|file| &mut file.chunks) {
            chunk.end = ends.get(&chunk.offset).copied().unwrap_or(self.at);
        }
        Ok(found)
    }
}

/// The bytes of a file, and their expected digest.
pub(crate) type TocReader<'a> = (Box<dyn Read + 'a>, Digest);

impl Located {
    /// The bytes of one file and their digest; `None` if the table does not contain their place.
    pub(crate) fn open<'a>(
        &self,
        place: &LayerSource<'a>,
        path: &[u8],
    ) -> Result<Option<TocReader<'a>>, PullError> {
        let Some(file) = self.files.get(path) else {
            return Ok(None);
        };
        let stored = || file.chunks.iter().filter(|chunk| !chunk.zeros);
        let (Some(first), Some(last)) = (stored().next(), stored().next_back()) else {
            let zeros = io::repeat(0).take(file.size);
            return Ok(Some((Box::new(zeros), file.digest)));
        };
        let (start, inner, end) = (first.offset, first.inner, last.end);
        let length = end.checked_sub(start).filter(|_| end <= place.layer.size);
        let length = length
            .filter(|length| *length > 0)
            .ok_or_else(|| place.malformed("a file is outside the layer"))?;
        let Some(raw) = place
            .registry
            .range(place.image, place.layer.digest, (start, length))?
        else {
            return Ok(None);
        };
        let broken = |error: io::Error| place.malformed(error.to_string());
        let mut plain: Box<dyn Read + 'a> = match self.format {
            Format::Stargz => Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::new(raw))),
            Format::Chunked => Box::new(ZstdReader::new(raw, place.windows).map_err(broken)?),
        };
        io::copy(&mut plain.by_ref().take(inner), &mut io::sink()).map_err(broken)?;
        let zeros = file
            .chunks
            .iter()
            .map(|chunk| (chunk.size, chunk.zeros))
            .collect();
        let reader = WithZeros {
            plain,
            chunks: zeros,
            at: 0,
            done: 0,
        };
        Ok(Some((Box::new(reader.take(file.size)), file.digest)))
    }
}

/// Restores zeros that are not stored.
struct WithZeros<'a> {
    plain: Box<dyn Read + 'a>,
    /// Length, and whether it is zeros; a length of 0 means the complete rest.
    chunks: Vec<(u64, bool)>,
    at: usize,
    done: u64,
}

impl Read for WithZeros<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while let Some((size, zeros)) = self.chunks.get(self.at).copied() {
            let left = match size {
                0 if zeros => 0,
                0 => u64::MAX,
                size => size.saturating_sub(self.done),
            };
            if left == 0 {
                self.at = self.at.saturating_add(1);
                self.done = 0;
                continue;
            }
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
            let part = buf.get_mut(..room).unwrap_or_default();
            let count = match zeros {
                true => {
                    part.fill(0);
                    room
                }
                false => self.plain.read(part)?,
            };
            self.done = self.done.saturating_add(count as u64);
            return Ok(count);
        }
        Ok(0)
    }
}
