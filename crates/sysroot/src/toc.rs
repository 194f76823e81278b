//! Layers with a table of contents: eStargz and zstd:chunked. What is in them is known, and any file of
//! them can be had, without reading the rest.
//!
//! A table is used only where the manifest, whose digest was checked, holds the table's own digest; the
//! table holds that of each file.
//!
//! ```text
//! eStargz        gzip members | member with `stargz.index.json` in a tar | footer, 51 bytes:
//!                gzip header with the extra field "SG": <16 hex digits: offset of the table>"STARGZ"
//! zstd:chunked   zstd frames | skippable frame with the table, itself a zstd frame | footer
//!                the manifest's annotations say where it is: <offset>:<length>:<length inside>:<kind>
//! ```

use std::collections::BTreeMap;
use std::io::{self, Read};

use serde::Deserialize;

use crate::index::{Node, normalized};
use crate::manifest::LayerBlob;
use crate::tar::TarReader;
use crate::{Cache, Digest, ImageReference, LayerIndex, PullError, Registry};

const STARGZ_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
const CHUNKED_DIGEST: &str = "io.github.containers.zstd-chunked.manifest-checksum";
const CHUNKED_POSITION: &str = "io.github.containers.zstd-chunked.manifest-position";
const FOOTER: u64 = 51;
/// A layer with a larger table is read as any other.
const MAX_TABLE: u64 = 48 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Stargz,
    Chunked,
}

#[derive(Deserialize)]
struct Table {
    entries: Vec<TableEntry>,
}

#[derive(Deserialize)]
struct TableEntry {
    #[serde(default)]
    name: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    size: u64,
    #[serde(default, rename = "linkName")]
    link: String,
    #[serde(default)]
    offset: u64,
    #[serde(default, rename = "endOffset")]
    end: u64,
    #[serde(default, rename = "innerOffset")]
    inner: u64,
    #[serde(default, rename = "chunkSize")]
    chunk_size: u64,
    #[serde(default, rename = "chunkType")]
    chunk_kind: String,
    #[serde(default)]
    digest: String,
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

/// Where the files of a layer are.
#[derive(Clone, Debug)]
pub(crate) struct Toc {
    format: Format,
    files: BTreeMap<Vec<u8>, TocFile>,
}

/// What is needed to read a layer by ranges.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) image: &'a ImageReference,
    pub(crate) layer: &'a LayerBlob,
}

impl Place<'_> {
    fn malformed(&self, problem: impl Into<String>) -> PullError {
        PullError::Layer {
            layer: self.layer.digest,
            problem: format!("its table of contents is not valid: {}", problem.into()),
        }
    }

    fn bytes(&self, first: u64, length: u64) -> Result<Option<Vec<u8>>, PullError> {
        let end = first.checked_add(length);
        if length == 0 || length > MAX_TABLE || end.is_none_or(|end| end > self.layer.size) {
            return Ok(None);
        }
        let Some(reader) = self
            .registry
            .range(self.image, self.layer.digest, (first, length))?
        else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        reader
            .take(length)
            .read_to_end(&mut bytes)
            .map_err(|source| PullError::Unreachable {
                registry: self.image.registry().to_owned(),
                source,
            })?;
        Ok((bytes.len() as u64 == length).then_some(bytes))
    }
}

/// Reads the table of a layer; `None` where it has none that we can trust, or no ranges can be had.
pub(crate) fn load(
    place: &Place<'_>,
    cache: &Cache,
) -> Result<Option<(LayerIndex, Toc)>, PullError> {
    let annotation = |name: &str| place.layer.annotations.get(name).map(String::as_str);
    let (format, json) = if let Some(digest) = annotation(CHUNKED_DIGEST).and_then(Digest::parse) {
        let position = annotation(CHUNKED_POSITION).unwrap_or_default();
        (Format::Chunked, chunked(place, cache, digest, position)?)
    } else if let Some(digest) = annotation(STARGZ_DIGEST).and_then(Digest::parse) {
        (Format::Stargz, stargz(place, cache, digest)?)
    } else {
        return Ok(None);
    };
    let Some((json, table_at)) = json else {
        return Ok(None);
    };
    let table: Table =
        serde_json::from_slice(&json).map_err(|error| place.malformed(error.to_string()))?;
    read_table(format, table, table_at)
        .map(Some)
        .map_err(|problem| place.malformed(problem))
}

type Json = Option<(Vec<u8>, u64)>;

fn chunked(
    place: &Place<'_>,
    cache: &Cache,
    digest: Digest,
    position: &str,
) -> Result<Json, PullError> {
    let numbers: Vec<u64> = position
        .split(':')
        .filter_map(|part| part.parse().ok())
        .collect();
    let (Some(&offset), Some(&length)) = (numbers.first(), numbers.get(1)) else {
        return Ok(None);
    };
    let packed = match cache.document(digest) {
        Some(bytes) => bytes,
        None => {
            let Some(bytes) = place.bytes(offset, length)? else {
                return Ok(None);
            };
            check(place, digest, &bytes)?;
            cache.keep_document(digest, &bytes);
            bytes
        }
    };
    let mut json = Vec::new();
    let unpacked = zstd::Decoder::new(packed.as_slice())
        .and_then(|decoder| decoder.take(MAX_TABLE).read_to_end(&mut json));
    unpacked.map_err(|error| place.malformed(error.to_string()))?;
    Ok(Some((json, offset)))
}

fn stargz(place: &Place<'_>, cache: &Cache, digest: Digest) -> Result<Json, PullError> {
    let Some(end) = place.layer.size.checked_sub(FOOTER) else {
        return Ok(None);
    };
    let Some(footer) = place.bytes(end, FOOTER)? else {
        return Ok(None);
    };
    let digits = footer
        .get(16..32)
        .and_then(|digits| std::str::from_utf8(digits).ok());
    let offset = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let (Some(offset), Some(b"STARGZ")) = (offset, footer.get(32..38)) else {
        return Ok(None);
    };
    if let Some(json) = cache.document(digest) {
        return Ok(Some((json, offset)));
    }
    let Some(packed) = place.bytes(offset, end.saturating_sub(offset))? else {
        return Ok(None);
    };
    let mut tar =
        TarReader::new(flate2::read::MultiGzDecoder::new(packed.as_slice()).take(MAX_TABLE));
    let mut json = Vec::new();
    let read = tar
        .next()
        .and_then(|_| tar.content().read_to_end(&mut json));
    read.map_err(|error| place.malformed(error.to_string()))?;
    check(place, digest, &json)?;
    cache.keep_document(digest, &json);
    Ok(Some((json, offset)))
}

fn check(place: &Place<'_>, expected: Digest, bytes: &[u8]) -> Result<(), PullError> {
    let found = Digest::of(bytes);
    match found == expected {
        true => Ok(()),
        false => Err(PullError::Digest {
            what: format!("the table of contents of layer {}", place.layer.digest),
            expected,
            found,
        }),
    }
}

fn read_table(format: Format, table: Table, table_at: u64) -> Result<(LayerIndex, Toc), String> {
    let mut index = LayerIndex::default();
    let mut files: BTreeMap<Vec<u8>, TocFile> = BTreeMap::new();
    let mut starts: Vec<u64> = table.entries.iter().map(|entry| entry.offset).collect();
    starts.push(table_at);
    starts.sort_unstable();
    for entry in table.entries {
        let path = normalized(entry.name.as_bytes())
            .map_err(|problem| format!("path `{}` {problem}", entry.name))?;
        let next = starts.partition_point(|start| *start <= entry.offset);
        let end = match format {
            Format::Chunked => entry.end,
            Format::Stargz => starts.get(next).copied().unwrap_or(table_at),
        };
        let chunk = Chunk {
            offset: entry.offset,
            end,
            inner: entry.inner,
            size: entry.chunk_size,
            zeros: entry.chunk_kind == "zeros",
        };
        let node = match entry.kind.as_str() {
            "reg" => {
                if let Some(digest) = Digest::parse(&entry.digest) {
                    let chunks = vec![chunk];
                    files.insert(
                        path.clone(),
                        TocFile {
                            size: entry.size,
                            digest,
                            chunks,
                        },
                    );
                }
                Node::File {
                    size: entry.size,
                    build_id: None,
                }
            }
            "chunk" => {
                if let Some(file) = files.get_mut(&path) {
                    file.chunks.push(chunk);
                }
                continue;
            }
            "dir" => Node::Directory,
            "symlink" => Node::Symlink(entry.link.into_bytes()),
            "hardlink" => Node::Hardlink(
                normalized(entry.link.as_bytes())
                    .map_err(|problem| format!("hard link to `{}`, which {problem}", entry.link))?,
            ),
            _ => Node::Special,
        };
        index.insert(path, node)?;
    }
    Ok((index, Toc { format, files }))
}

/// The bytes of a file, and the digest that they must have.
pub(crate) type TocReader = (Box<dyn Read>, Digest);

impl Toc {
    /// The bytes of one file and their digest; `None` where the table does not say where they are.
    pub(crate) fn open(
        &self,
        place: &Place<'_>,
        path: &[u8],
    ) -> Result<Option<TocReader>, PullError> {
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
        let mut plain: Box<dyn Read> = match self.format {
            Format::Stargz => Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::new(raw))),
            Format::Chunked => Box::new(zstd::Decoder::new(raw).map_err(broken)?),
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

/// Puts the zeros back that are not stored.
struct WithZeros {
    plain: Box<dyn Read>,
    /// Length, and whether it is zeros; a length of 0 means all the rest.
    chunks: Vec<(u64, bool)>,
    at: usize,
    done: u64,
}

impl Read for WithZeros {
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
