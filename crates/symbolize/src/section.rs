//! Contents of ELF sections, decompressed where they are stored compressed.
//!
//! Decompression stops at a limit and never trusts a stated size.

use std::io::{Read, Write};

use cdh_elfcore::{ElfObject, Encoding, Section};

use crate::buffer::Buffer;
use crate::{SectionArena, Surroundings};

/// `SHF_COMPRESSED`: the section starts with an `Elf64_Chdr` or `Elf32_Chdr`.
const COMPRESSED: u64 = 0x800;
const ZLIB: u32 = 1;
const ZSTD: u32 = 2;
/// `.gnu_debugdata` is a symbol table: the largest seen are a few MiB.
const MINI_DEBUG_INFO_LIMIT: u64 = 256 << 20;

/// Bytes of a section.
pub(crate) enum Contents<'data> {
    /// As they are in the file.
    Stored(&'data [u8]),
    /// Decompressed.
    Decompressed(Buffer),
}

impl AsRef<[u8]> for Contents<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Stored(bytes) => bytes,
            Self::Decompressed(buffer) => buffer.as_ref(),
        }
    }
}

/// Bytes of the section called `name`, or of its old-style compressed form (`.zdebug_`).
pub(crate) fn contents<'data>(
    object: &ElfObject<'data>,
    name: &str,
    limit: u64,
) -> Option<Contents<'data>> {
    if let Some(section) = object.section(name) {
        if section.flags & COMPRESSED == 0 {
            return Some(Contents::Stored(section.data)).filter(|data| !data.as_ref().is_empty());
        }
        let (kind, size, stored) = compressed(object.encoding(), section)?;
        return match kind {
            ZLIB => inflate(stored, size, limit),
            ZSTD => unpack(stored, size, limit),
            _ => None,
        }
        .map(Contents::Decompressed);
    }
    // `ZLIB` and the size in eight bytes, big-endian, stand before the stream.
    let old = format!(".z{}", name.strip_prefix('.')?);
    let stored = object.section(&old)?.data.strip_prefix(b"ZLIB")?;
    let (size, stored) = stored.split_first_chunk()?;
    inflate(stored, u64::from_be_bytes(*size), limit).map(Contents::Decompressed)
}

/// How a section is compressed, the size that its header states, and the stream.
///
/// ```text
/// Elf64_Chdr: ch_type u32, reserved u32, ch_size u64, ch_addralign u64
/// Elf32_Chdr: ch_type u32, ch_size u32, ch_addralign u32
/// ```
fn compressed<'data>(
    encoding: Encoding,
    section: &Section<'data>,
) -> Option<(u32, u64, &'data [u8])> {
    let is_compressed = section.flags & COMPRESSED != 0;
    // Three words; the first of them holds a number of four bytes.
    let (header, stored) = Some(section.data)
        .filter(|_| is_compressed)?
        .split_at_checked(encoding.word_size().checked_mul(3)?)?;
    let kind = encoding.u32_at(header, 0)?;
    let size = encoding.word_at(header, encoding.word_size())?;
    Some((kind, size, stored))
}

/// From this size on, opening only the beginning of a section is worth finding out where that ends.
const LONG: u64 = 1 << 20;
/// Inflating stops short of the end of its room by at most a block that is stored as it is (RFC 1951, 3.2.4).
const BLOCK: usize = 64 << 10;

/// Whether the section is deflated and long.
pub(crate) fn is_long_to_inflate(object: &ElfObject<'_>, name: &str) -> bool {
    let stored = object.section(name);
    let stored = stored.and_then(|section| compressed(object.encoding(), section));
    stored.is_some_and(|(kind, size, _)| kind == ZLIB && size >= LONG)
}

/// The first `end` bytes of a deflated section that has clearly more; its checksum is of all of it, and so
/// these are not checked.
pub(crate) fn beginning<'data>(
    object: &ElfObject<'data>,
    name: &str,
    end: usize,
    arena: &'data SectionArena,
) -> Option<&'data [u8]> {
    let (_, size, stored) = compressed(object.encoding(), object.section(name)?)?;
    let room = end.checked_add(BLOCK)?;
    let is_worth_it = (room as u64).saturating_mul(10) < size.saturating_mul(9);
    let bytes = is_worth_it
        .then(|| inflate_beginning(stored, room, arena.left_for(object.data())))
        .flatten()?;
    arena.keep_of(object.data(), bytes).get(..end)
}

/// Inflates into `room` bytes, all right except for the last [`BLOCK`]: libdeflate writes them in
/// order, and gives up at the first symbol or block that does not fit. That is how it is made, not what it
/// promises; a test here holds it to that.
fn inflate_beginning(stored: &[u8], room: usize, limit: u64) -> Option<Buffer> {
    let possible = (stored.len() as u64).saturating_mul(DEFLATE_RATIO);
    if room as u64 > limit.min(possible) {
        return None;
    }
    let mut bytes = Buffer::zeroed(room);
    let end = libdeflater::Decompressor::new().zlib_decompress(stored, bytes.as_mut());
    (end == Err(libdeflater::DecompressionError::InsufficientSpace)).then_some(bytes)
}

/// Most bytes that one byte of a stream can stand for: a stated size beyond it is not believed. Deflate: a
/// match of 258 bytes in two bits. zstd: a block of 128 KiB in four bytes (RFC 8878, 3.1.1.2).
const DEFLATE_RATIO: u64 = 1032;
const ZSTD_RATIO: u64 = 32 << 10;

/// Inflates a zlib stream that is said to hold `size` bytes.
///
/// Where that is true, libdeflate writes them at once, in half of the time that a streaming decoder takes:
/// of a backtrace in libc with its debug file most of the time goes here.
fn inflate(stored: &[u8], size: u64, limit: u64) -> Option<Buffer> {
    let at_once = |bytes: &mut [u8]| {
        let written = libdeflater::Decompressor::new().zlib_decompress(stored, bytes);
        written.ok()
    };
    whole(stored, size, limit, DEFLATE_RATIO, at_once)
        .or_else(|| read_all(flate2::bufread::ZlibDecoder::new(stored), limit))
}

/// The same of zstd frames.
fn unpack(stored: &[u8], size: u64, limit: u64) -> Option<Buffer> {
    let at_once = |bytes: &mut [u8]| zstd::bulk::decompress_to_buffer(stored, bytes).ok();
    whole(stored, size, limit, ZSTD_RATIO, at_once).or_else(|| {
        read_all(
            zstd::stream::read::Decoder::with_buffer(stored).ok()?,
            limit,
        )
    })
}

/// All of a stream, where it holds exactly as much as is said.
fn whole(
    stored: &[u8],
    size: u64,
    limit: u64,
    ratio: u64,
    decompress: impl FnOnce(&mut [u8]) -> Option<usize>,
) -> Option<Buffer> {
    let possible = (stored.len() as u64).saturating_mul(ratio);
    let size = usize::try_from(size).ok()?;
    if size as u64 > limit.min(possible) {
        return None;
    }
    let mut bytes = Buffer::zeroed(size);
    (decompress(bytes.as_mut())? == size).then_some(bytes)
}

/// As [`contents`], kept in `arena` where it had to be decompressed.
pub(crate) fn kept<'data>(
    object: &ElfObject<'data>,
    name: &str,
    arena: &'data SectionArena,
) -> Option<&'data [u8]> {
    let file = object.data();
    Some(match contents(object, name, arena.left_for(file))? {
        Contents::Stored(bytes) => bytes,
        Contents::Decompressed(bytes) => arena.keep_of(file, bytes),
    })
}

/// A compressed section above this size is kept decompressed, once a second crash has asked for it.
const REMEMBERED: usize = 256 << 10;
const REMEMBERED_MAGIC: &[u8; 8] = b"cdhsect1";

/// Whether what was decompressed is kept for later runs: the first crash of a program may be its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    No,
    ForLater,
}

/// As [`kept`], but large sections come decompressed from an earlier run where one has kept them.
///
/// ```text
/// "cdhsect1" | CRC-32 u32le of the rest | contents
/// ```
pub(crate) fn kept_or_remembered<'data>(
    object: &ElfObject<'data>,
    name: &str,
    arena: &'data SectionArena,
    surroundings: &dyn Surroundings,
    keep: Keep,
) -> Option<&'data [u8]> {
    let is_large =
        |stored: &Section<'_>| stored.flags & COMPRESSED != 0 && stored.data.len() >= REMEMBERED;
    let large = object.section(name).is_some_and(is_large);
    let Some(id) = object.build_id().filter(|_| large) else {
        return kept(object, name, arena);
    };
    let key = format!("section-{id}{}", name.replace(['.', '_'], "-"));
    if let Some(bytes) = surroundings.remembered(&key)
        && let Some(contents) = checked((*bytes).as_ref())
    {
        let skipped = (*bytes).as_ref().len().checked_sub(contents.len())?;
        return arena.keep_owner(bytes).get(skipped..);
    }
    let contents = kept(object, name, arena)?;
    if keep == Keep::ForLater {
        let mut check = flate2::Crc::new();
        check.update(contents);
        let head = [&REMEMBERED_MAGIC[..], &check.sum().to_le_bytes()].concat();
        surroundings.remember(&key, &[&head, contents].concat());
    }
    Some(contents)
}

fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (crc, contents) = bytes.strip_prefix(REMEMBERED_MAGIC)?.split_first_chunk()?;
    let mut check = flate2::Crc::new();
    check.update(contents);
    (check.sum() == u32::from_le_bytes(*crc)).then_some(contents)
}

/// Whether the object has a section called `name`, in any form.
pub(crate) fn present(object: &ElfObject<'_>, name: &str) -> bool {
    let has = |name: &str| {
        object
            .section(name)
            .is_some_and(|section| !section.data.is_empty())
    };
    has(name)
        || name
            .strip_prefix('.')
            .is_some_and(|rest| has(&format!(".z{rest}")))
}

/// The ELF file inside `.gnu_debugdata` (MiniDebugInfo): only symbols, compressed with xz.
pub(crate) fn mini_debug_info(object: &ElfObject<'_>, limit: u64) -> Option<Vec<u8>> {
    let stored = object.section(".gnu_debugdata")?.data;
    if xz_block_size(stored)? > limit.min(MINI_DEBUG_INFO_LIMIT) {
        return None;
    }
    let mut out = Limited {
        bytes: Vec::new(),
        left: limit.min(MINI_DEBUG_INFO_LIMIT),
    };
    lzma_rs::xz_decompress(&mut &*stored, &mut out).ok()?;
    Some(out.bytes)
}

/// Uncompressed size of the only block of an xz stream, from the headers of its LZMA2 chunks.
///
/// The decoder buffers a whole block before it writes anything, so that a limit on the output alone
/// would not bound its memory.
///
/// ```text
/// xz:    magic and flags 12 | block header (first byte + 1) * 4 | LZMA2 chunks | padding, check, index
/// chunk: 00 end | 01, 02: size-1 u16be, bytes | >= 80: size-1 (5 bits + u16be), packed-1 u16be, [props], bytes
/// ```
fn xz_block_size(stream: &[u8]) -> Option<u64> {
    let block = stream.strip_prefix(b"\xfd7zXZ\0")?.get(6..)?;
    let header = usize::from(*block.first()?)
        .checked_add(1)?
        .checked_mul(4)?;
    let mut chunks = block.get(header..)?;
    let mut total = 0_u64;
    loop {
        let (&control, rest) = chunks.split_first()?;
        let (size, rest) = match control {
            0 => break,
            1 | 2 => {
                let size = u64::from(u16::from_be_bytes(*rest.first_chunk()?)).checked_add(1)?;
                (size, rest.get(2..)?.get(usize::try_from(size).ok()?..)?)
            }
            0x80.. => {
                let low = u64::from(u16::from_be_bytes(*rest.first_chunk()?));
                let size = (u64::from(control & 0x1f) << 16 | low).checked_add(1)?;
                let rest = rest.get(2..)?;
                let packed =
                    usize::from(u16::from_be_bytes(*rest.first_chunk()?)).checked_add(1)?;
                let properties = usize::from(control >= 0xc0);
                (size, rest.get(2..)?.get(properties..)?.get(packed..)?)
            }
            _ => return None,
        };
        total = total.checked_add(size)?;
        chunks = rest;
    }
    // Check: up to 64 bytes; a second block would begin with a header size that is not 0.
    let check = match *stream.get(7)? & 0xf {
        0 => 0,
        1 => 4,
        4 => 8,
        10 => 32,
        _ => return None,
    };
    let used = stream.len().checked_sub(chunks.len())?.checked_add(1)?;
    let index = used.checked_next_multiple_of(4)?.checked_add(check)?;
    (stream.get(index) == Some(&0)).then_some(total)
}

fn read_all(stream: impl Read, limit: u64) -> Option<Buffer> {
    let mut bytes = Vec::new();
    // A damaged tail still leaves what came before it: gimli checks every read.
    let result = stream.take(limit.checked_add(1)?).read_to_end(&mut bytes);
    let fits = bytes.len() as u64 <= limit;
    (fits && (result.is_ok() || !bytes.is_empty())).then(|| bytes.into())
}

struct Limited {
    bytes: Vec<u8>,
    left: u64,
}

impl Write for Limited {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let left = self.left.checked_sub(data.len() as u64);
        self.left = left.ok_or_else(|| std::io::Error::other("more than the limit"))?;
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_contents_of_an_earlier_run_are_not_used() {
        let mut check = flate2::Crc::new();
        check.update(b"contents");
        let good = [
            &REMEMBERED_MAGIC[..],
            &check.sum().to_le_bytes(),
            b"contents",
        ]
        .concat();
        assert_eq!(checked(&good), Some(&b"contents"[..]));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(checked(&bad), None);
            assert_eq!(checked(&good[..at]), None);
        }
    }

    #[test]
    fn decompressing_gives_the_same_whatever_size_is_stated() {
        let content: Vec<u8> = (0..400_000_u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(&content).unwrap();
        let deflated = encoder.finish().unwrap();
        // Two frames, as parallel compressors make them.
        let (front, back) = content.split_at(content.len() / 3);
        let frames = [front, back].map(|part| zstd::bulk::compress(part, 3).unwrap());
        let size = content.len() as u64;
        type Decompress = fn(&[u8], u64, u64) -> Option<Buffer>;
        let kinds: [(Vec<u8>, Decompress); 2] = [(deflated, inflate), (frames.concat(), unpack)];
        for (stored, decompress) in kinds {
            for stated in [0, 1, size - 1, size, size + 1, u64::MAX] {
                let found = decompress(&stored, stated, 1 << 30).unwrap();
                assert!(found.as_ref() == content, "{stated}");
            }
            assert!(decompress(&stored, size, size - 1).is_none());
            // A damaged tail leaves what came before it.
            let cut = decompress(&stored[..stored.len() / 2], size, 1 << 30).unwrap();
            assert!(cut.as_ref().len() > 1000 && content.starts_with(cut.as_ref()));
        }
    }

    #[test]
    fn beginning_of_a_stream_is_that_of_its_contents() {
        let mut random = 1_u32;
        let mut noise = || {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 24) as u8
        };
        // Stored blocks, single bytes, and matches of every length.
        let contents: [Vec<u8>; 4] = [
            (0..300_000).map(|_| noise()).collect(),
            (0..300_000).map(|_| noise() & 7).collect(),
            (0..3000).flat_map(|n| vec![noise(); n % 300]).collect(),
            vec![0; 400_000],
        ];
        for (content, level) in contents
            .iter()
            .flat_map(|one| [0, 1, 6, 9].map(|l| (one, l)))
        {
            let mut encoder =
                flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(level));
            encoder.write_all(content).unwrap();
            let stored = encoder.finish().unwrap();
            for room in (BLOCK..content.len())
                .step_by(9973)
                .chain([content.len() - 1])
            {
                let found = inflate_beginning(&stored, room, 1 << 30).unwrap();
                let right = room - BLOCK;
                assert!(
                    found.as_ref()[..right] == content[..right],
                    "{level}, {room}"
                );
            }
            // All of it is no beginning.
            assert!(inflate_beginning(&stored, content.len(), 1 << 30).is_none());
        }
    }

    #[test]
    fn reading_stops_at_the_limit() {
        let read = |limit| read_all(&[7_u8; 9][..], limit);
        assert_eq!(read(9).unwrap().as_ref(), [7; 9]);
        assert!(read(8).is_none());
    }

    #[test]
    fn xz_block_size_is_that_of_the_content() {
        let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut stream = Vec::new();
        lzma_rs::xz_compress(&mut &content[..], &mut stream).unwrap();
        assert_eq!(xz_block_size(&stream), Some(content.len() as u64));
        assert_eq!(xz_block_size(&stream[..stream.len() / 2]), None);
    }
}
