//! Recovers the entries of a zip without a central directory from its local headers.
//!
//! Folklore: IBM's composer seeks back to write an entry's sizes when the entry is done. If it is
//! killed or runs out of space, the last local header says 0 bytes and CRC 0, followed by the
//! deflated content and nothing else. A deflate stream marks its own end, so such an entry is
//! inflated to find it. A stored entry extends to the next header that names the same dump, or to
//! the end of the file. Test: `salvage_recovers_the_zip_of_a_killed_composer`.

#![deny(clippy::arithmetic_side_effects)]

use std::io;

use cdh_elfcore::ByteSource;

use super::{
    CENTRAL_MAGIC, END_MAGIC, FLAG_DESCRIPTOR, FLAG_ENCRYPTED, Fields, LOCAL_LEN, LOCAL_MAGIC,
    Method, RawEntry, resolve_zip64,
};
use crate::EntryKind;
use crate::window::read_up_to;

/// Maximum number of entries to look for: a hostile zip of empty entries must not exhaust memory.
const MOST_ENTRIES: usize = 4096;

/// Maximum size of a data descriptor in bytes: magic, CRC, two 64-bit sizes.
const LONGEST_DESCRIPTOR: u64 = 24;

struct LocalHeader {
    entry: RawEntry,
    content_at: u64,
    /// Whether the header has the sizes: not in a descriptor, and not still unwritten.
    sized: bool,
}

/// Finds entries by their local headers. The last one may be truncated.
pub(crate) fn salvage(source: &dyn ByteSource) -> io::Result<Vec<RawEntry>> {
    let mut entries = Vec::new();
    let mut at = 0;
    let mut stem: Option<Vec<u8>> = None;
    while entries.len() < MOST_ENTRIES {
        let Some(header) = local_header(source, at)? else {
            break;
        };
        let LocalHeader {
            mut entry,
            content_at,
            sized,
        } = header;
        if stem.is_none() {
            let name = str::from_utf8(&entry.name).ok();
            stem = name
                .and_then(EntryKind::stem_of)
                .map(|stem| stem.as_bytes().to_vec());
        }
        let left = source.len().saturating_sub(content_at);
        let sized = sized || (entry.stored == 0 && is_followed(source, content_at)?);
        if sized {
            entry.cut = entry.stored > left;
            entry.stored = entry.stored.min(left);
        } else {
            match entry.method {
                Method::Deflated => {
                    let found = inflate_to_end(source, content_at)?;
                    (entry.stored, entry.size, entry.cut) =
                        (found.stored, found.size, !found.whole);
                }
                _ => {
                    let next = next_header(source, content_at, stem.as_deref())?;
                    entry.stored = next.unwrap_or(source.len()).saturating_sub(content_at);
                    entry.size = entry.stored;
                    // It ends with the file: whether that is its real end is unknown.
                    entry.cut = next.is_none();
                }
            }
            entry.crc32 = None;
        }
        let end = content_at.saturating_add(entry.stored);
        let done = entry.cut;
        entries.push(entry);
        if done {
            break;
        }
        at = match local_header(source, end)? {
            Some(_) => end,
            None if sized => break,
            None => match magic_near(source, end)? {
                Some(at) => at,
                None => break,
            },
        };
    }
    Ok(entries)
}

fn local_header(source: &dyn ByteSource, at: u64) -> io::Result<Option<LocalHeader>> {
    let header = read_up_to(source, at, LOCAL_LEN)?;
    let Some((mut header, name_len, extra_len)) = fixed_part(&header, at) else {
        return Ok(None);
    };
    let names_at = at.saturating_add(LOCAL_LEN as u64);
    let names_len = usize::from(name_len).saturating_add(usize::from(extra_len));
    let names = read_up_to(source, names_at, names_len)?;
    let (Some(name), Some(extra)) = (
        names.get(..usize::from(name_len)),
        names.get(usize::from(name_len)..names_len),
    ) else {
        return Ok(None);
    };
    header.entry.name = name.to_vec();
    header.content_at = names_at.saturating_add(names_len as u64);
    let sizes = &mut [&mut header.entry.size, &mut header.entry.stored];
    Ok(resolve_zip64(extra, sizes).map(|()| {
        // A zip64 writer was killed in this entry: both sizes are in the extra field, and 0.
        let unwritten = header.entry.stored == 0 && header.entry.crc32 == Some(0);
        header.sized &= !unwritten;
        header
    }))
}

fn fixed_part(header: &[u8], at: u64) -> Option<(LocalHeader, u16, u16)> {
    let mut fields = Fields(header);
    if fields.u32()? != LOCAL_MAGIC {
        return None;
    }
    fields.bytes(2)?;
    let flags = fields.u16()?;
    let method = Method::from_number(fields.u16()?);
    fields.bytes(4)?;
    let crc32 = Some(fields.u32()?);
    let (stored, size) = (u64::from(fields.u32()?), u64::from(fields.u32()?));
    let (name_len, extra_len) = (fields.u16()?, fields.u16()?);
    let encrypted = flags & FLAG_ENCRYPTED != 0;
    let name = Vec::new();
    let entry = RawEntry {
        name,
        method,
        encrypted,
        crc32,
        stored,
        size,
        header_at: at,
        cut: false,
    };
    let sized = flags & FLAG_DESCRIPTOR == 0;
    Some((
        LocalHeader {
            entry,
            content_at: 0,
            sized,
        },
        name_len,
        extra_len,
    ))
}

/// Whether a header of any kind is at `at`: then an entry that seems empty really is.
fn is_followed(source: &dyn ByteSource, at: u64) -> io::Result<bool> {
    let magic = read_up_to(source, at, 4)?;
    Ok([LOCAL_MAGIC, CENTRAL_MAGIC, END_MAGIC]
        .iter()
        .any(|known| magic == known.to_le_bytes()))
}

struct Inflated {
    stored: u64,
    size: u64,
    whole: bool,
}

/// Inflates the stream at `at` to its end, or to the point where it breaks off.
fn inflate_to_end(source: &dyn ByteSource, at: u64) -> io::Result<Inflated> {
    let mut inflate = flate2::Decompress::new(false);
    let mut sink = vec![0; 256 << 10];
    let mut next = at;
    loop {
        let input = read_up_to(source, next, 64 << 10)?;
        let before_input = inflate.total_in();
        let mut rest = input.as_slice();
        loop {
            let before = (inflate.total_in(), inflate.total_out());
            let flush = flate2::FlushDecompress::None;
            let status = inflate.decompress(rest, &mut sink, flush);
            let taken = inflate.total_in().saturating_sub(before.0);
            rest = usize::try_from(taken)
                .ok()
                .and_then(|taken| rest.get(taken..))
                .unwrap_or_default();
            let (stored, size) = (inflate.total_in(), inflate.total_out());
            match status {
                Ok(flate2::Status::StreamEnd) => {
                    return Ok(Inflated {
                        stored,
                        size,
                        whole: true,
                    });
                }
                // What was inflated so far is valid; the stream extends to the end of the zip.
                Err(_) => {
                    let stored = source.len().saturating_sub(at);
                    return Ok(Inflated {
                        stored,
                        size,
                        whole: false,
                    });
                }
                Ok(_) if (stored, size) == before => break,
                Ok(_) => {}
            }
        }
        if input.is_empty() || inflate.total_in() == before_input {
            let (stored, size) = (inflate.total_in(), inflate.total_out());
            return Ok(Inflated {
                stored,
                size,
                whole: false,
            });
        }
        next = at.saturating_add(inflate.total_in());
    }
}

/// Offset of the next local header of the same dump, starting at `from`.
fn next_header(source: &dyn ByteSource, at: u64, stem: Option<&[u8]>) -> io::Result<Option<u64>> {
    let Some(stem) = stem else { return Ok(None) };
    let magic = LOCAL_MAGIC.to_le_bytes();
    let mut from = at;
    loop {
        let piece = read_up_to(source, from, 1 << 20)?;
        for (skip, _) in piece
            .windows(4)
            .enumerate()
            .filter(|(_, window)| *window == magic)
        {
            let found = from.saturating_add(skip as u64);
            // A process's memory may contain any zip, but is unlikely to contain one that names
            // this dump.
            if let Some(header) = local_header(source, found)?
                && header.entry.name.starts_with(stem)
            {
                return Ok(Some(found));
            }
        }
        if piece.len() < 4 {
            return Ok(None);
        }
        // The magic may span two chunks.
        from = from.saturating_add(piece.len() as u64).saturating_sub(3);
        if from.saturating_add(3) >= source.len() {
            return Ok(None);
        }
    }
}

/// Looks for a local header after a data descriptor.
fn magic_near(source: &dyn ByteSource, at: u64) -> io::Result<Option<u64>> {
    for skip in 1..=LONGEST_DESCRIPTOR {
        let near = at.saturating_add(skip);
        if local_header(source, near)?.is_some() {
            return Ok(Some(near));
        }
    }
    Ok(None)
}
