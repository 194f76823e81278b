//! The entries of a zip by its central directory.

#![deny(clippy::arithmetic_side_effects)]

use std::io;

use cdh_elfcore::ByteSource;

use super::{
    CENTRAL_LEN, CENTRAL_MAGIC, END_LEN, END_MAGIC, FLAG_ENCRYPTED, Fields, LOCAL_LEN, LOCAL_MAGIC,
    Method, RawEntry, ZIP64_END_LEN, ZIP64_END_MAGIC, ZIP64_LOCATOR_LEN, ZIP64_LOCATOR_MAGIC,
    resolve_zip64,
};
use crate::window::read_up_to;

/// Longest comment behind the end record.
const LONGEST_COMMENT: usize = u16::MAX as usize;

/// Biggest directory that is read: a bundle has a few dozen entries of some 200 bytes.
const LARGEST_DIRECTORY: u64 = 16 << 20;

/// The entries of the central directory, in its order. `None` where there is no directory, or it
/// contradicts the bytes: the local headers may still tell something.
pub(crate) fn read_directory(source: &dyn ByteSource) -> io::Result<Option<Vec<RawEntry>>> {
    let len = source.len();
    let tail_len = len.min(END_LEN.saturating_add(LONGEST_COMMENT) as u64);
    let tail_at = len.saturating_sub(tail_len);
    let tail = read_up_to(
        source,
        tail_at,
        usize::try_from(tail_len).unwrap_or_default(),
    )?;
    let magic = END_MAGIC.to_le_bytes();
    // The last one that ends where the zip does: a comment, or a core, may hold the magic too.
    for (skip, window) in tail.windows(END_LEN).enumerate().rev() {
        if !window.starts_with(&magic) {
            continue;
        }
        let end_at = tail_at.saturating_add(skip as u64);
        if let Some(place) = directory_place(source, window, end_at, len)?
            && let Some(entries) = entries(source, place)?
        {
            return Ok(Some(entries));
        }
    }
    Ok(None)
}

#[derive(Clone, Copy)]
struct Place {
    at: u64,
    len: u64,
    count: u64,
}

fn directory_place(
    source: &dyn ByteSource,
    end: &[u8],
    end_at: u64,
    zip_len: u64,
) -> io::Result<Option<Place>> {
    let mut fields = Fields(end.get(4..).unwrap_or_default());
    let mut shorts = [0_u16; 4];
    for short in &mut shorts {
        *short = fields.u16().unwrap_or_default();
    }
    let [disk, directory_disk, here, all] = shorts;
    let len = fields.u32().unwrap_or_default();
    let at = fields.u32().unwrap_or_default();
    let comment_len = fields.u16().unwrap_or_default();
    let ends_at = end_at
        .saturating_add(END_LEN as u64)
        .saturating_add(u64::from(comment_len));
    if ends_at != zip_len {
        return Ok(None);
    }
    let plain = Place {
        at: at.into(),
        len: len.into(),
        count: all.into(),
    };
    let place = match zip64_place(source, end_at)? {
        Some(place) => place,
        None if disk != 0 || directory_disk != 0 || here != all => return Ok(None),
        None => plain,
    };
    let fits = place
        .at
        .checked_add(place.len)
        .is_some_and(|end| end <= end_at);
    Ok((fits && place.len <= LARGEST_DIRECTORY).then_some(place))
}

fn zip64_place(source: &dyn ByteSource, end_at: u64) -> io::Result<Option<Place>> {
    let Some(locator_at) = end_at.checked_sub(ZIP64_LOCATOR_LEN as u64) else {
        return Ok(None);
    };
    let locator = read_up_to(source, locator_at, ZIP64_LOCATOR_LEN)?;
    let mut fields = Fields(&locator);
    if fields.u32() != Some(ZIP64_LOCATOR_MAGIC) {
        return Ok(None);
    }
    let _disk = fields.u32();
    let Some(record_at) = fields.u64() else {
        return Ok(None);
    };
    let record = read_up_to(source, record_at, ZIP64_END_LEN)?;
    let mut fields = Fields(&record);
    if fields.u32() != Some(ZIP64_END_MAGIC) {
        return Ok(None);
    }
    // Its own length, versions, disks and the count on this disk.
    fields.bytes(28);
    let parsed = (|| {
        Some(Place {
            count: fields.u64()?,
            len: fields.u64()?,
            at: fields.u64()?,
        })
    })();
    Ok(parsed)
}

fn entries(source: &dyn ByteSource, place: Place) -> io::Result<Option<Vec<RawEntry>>> {
    let bytes = read_up_to(
        source,
        place.at,
        usize::try_from(place.len).unwrap_or_default(),
    )?;
    let mut fields = Fields(&bytes);
    let mut entries = Vec::new();
    // The count is not trusted with memory: each entry is backed by its header.
    for _ in 0..place.count {
        match entry(&mut fields) {
            Some(mut entry) => {
                mark_cut(source, &mut entry);
                entries.push(entry);
            }
            None => return Ok(None),
        }
    }
    Ok(Some(entries))
}

fn mark_cut(source: &dyn ByteSource, entry: &mut RawEntry) {
    let end = entry
        .header_at
        .saturating_add(LOCAL_LEN as u64)
        .saturating_add(entry.stored);
    entry.cut = end > source.len();
}

fn entry(fields: &mut Fields<'_>) -> Option<RawEntry> {
    let mut fixed = Fields(fields.bytes(CENTRAL_LEN)?);
    if fixed.u32()? != CENTRAL_MAGIC {
        return None;
    }
    fixed.bytes(4)?;
    let flags = fixed.u16()?;
    let method = Method::from_number(fixed.u16()?);
    fixed.bytes(4)?;
    let crc32 = fixed.u32()?;
    let mut stored = u64::from(fixed.u32()?);
    let mut size = u64::from(fixed.u32()?);
    let (name_len, extra_len, comment_len) = (fixed.u16()?, fixed.u16()?, fixed.u16()?);
    fixed.bytes(8)?;
    let mut header_at = u64::from(fixed.u32()?);
    let name = fields.bytes(usize::from(name_len))?.to_vec();
    let extra = fields.bytes(usize::from(extra_len))?;
    fields.bytes(usize::from(comment_len))?;
    resolve_zip64(extra, &mut [&mut size, &mut stored, &mut header_at])?;
    let encrypted = flags & FLAG_ENCRYPTED != 0;
    Some(RawEntry {
        name,
        method,
        encrypted,
        crc32: Some(crc32),
        stored,
        size,
        header_at,
        cut: false,
    })
}

/// Where the content of the entry `name`, whose local header is at `header_at`, begins; `None` where
/// there is no local header of this name.
pub(crate) fn content_at(
    source: &dyn ByteSource,
    header_at: u64,
    name: &[u8],
) -> io::Result<Option<u64>> {
    // Of the name too: one request where the source is behind a network.
    let header = read_up_to(source, header_at, LOCAL_LEN.saturating_add(name.len()))?;
    let mut fields = Fields(&header);
    if fields.u32() != Some(LOCAL_MAGIC) {
        return Ok(None);
    }
    fields.bytes(22);
    let lens = fields.u16().zip(fields.u16());
    if lens.map(|(len, _)| usize::from(len)) != Some(name.len()) || fields.0 != name {
        return Ok(None);
    }
    Ok(lens.and_then(|(name_len, extra_len)| {
        header_at
            .checked_add(LOCAL_LEN as u64)?
            .checked_add(u64::from(name_len))?
            .checked_add(u64::from(extra_len))
    }))
}
