//! Reads the entries of a zip from its central directory.

#![deny(clippy::arithmetic_side_effects)]

use std::io;

use cdh_elfcore::ByteSource;

use super::{
    CENTRAL_LEN, CENTRAL_MAGIC, END_LEN, END_MAGIC, FLAG_ENCRYPTED, Fields, LOCAL_LEN, LOCAL_MAGIC,
    Method, RawEntry, ZIP64_END_LEN, ZIP64_END_MAGIC, ZIP64_LOCATOR_LEN, ZIP64_LOCATOR_MAGIC,
    resolve_zip64,
};
use crate::window::read_up_to;

/// Maximum length of the comment after the end record.
const LONGEST_COMMENT: usize = u16::MAX as usize;

/// Maximum size of a directory in bytes: a bundle has a few dozen entries of about 200 bytes.
const LARGEST_DIRECTORY: u64 = 16 << 20;

/// The entries of the central directory in its order. `None` if there is no directory or it
/// contradicts the bytes; the local headers may still be usable.
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
    // Use the last record that ends with the zip: a comment or a core may contain the magic, too.
    for (skip, window) in tail.windows(END_LEN).enumerate().rev() {
        if !window.starts_with(&magic) {
            continue;
        }
        let end_at = tail_at.saturating_add(skip as u64);
        if let Some(range) = directory_range(source, window, end_at, len)?
            && let Some(entries) = entries(source, range)?
        {
            return Ok(Some(entries));
        }
    }
    Ok(None)
}

#[derive(Clone, Copy)]
struct DirectoryRange {
    at: u64,
    len: u64,
    count: u64,
}

fn directory_range(
    source: &dyn ByteSource,
    end: &[u8],
    end_at: u64,
    zip_len: u64,
) -> io::Result<Option<DirectoryRange>> {
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
    let plain = DirectoryRange {
        at: at.into(),
        len: len.into(),
        count: all.into(),
    };
    let range = match zip64_range(source, end_at)? {
        Some(range) => range,
        None if disk != 0 || directory_disk != 0 || here != all => return Ok(None),
        None => plain,
    };
    let fits = range
        .at
        .checked_add(range.len)
        .is_some_and(|end| end <= end_at);
    Ok((fits && range.len <= LARGEST_DIRECTORY).then_some(range))
}

fn zip64_range(source: &dyn ByteSource, end_at: u64) -> io::Result<Option<DirectoryRange>> {
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
    // Skip its own length, versions, disks and the count on this disk.
    fields.bytes(28);
    let parsed = (|| {
        Some(DirectoryRange {
            count: fields.u64()?,
            len: fields.u64()?,
            at: fields.u64()?,
        })
    })();
    Ok(parsed)
}

fn entries(source: &dyn ByteSource, range: DirectoryRange) -> io::Result<Option<Vec<RawEntry>>> {
    let bytes = read_up_to(
        source,
        range.at,
        usize::try_from(range.len).unwrap_or_default(),
    )?;
    let mut fields = Fields(&bytes);
    let mut entries = Vec::new();
    // Do not allocate for an untrusted count: each entry must have its header.
    for _ in 0..range.count {
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

/// The offset of the content of entry `name`, whose local header is at `header_at`; `None` if there
/// is no local header with this name.
pub(crate) fn content_at(
    source: &dyn ByteSource,
    header_at: u64,
    name: &[u8],
) -> io::Result<Option<u64>> {
    // Read the name in the same request: the source may be remote.
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
