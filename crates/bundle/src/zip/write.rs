//! The bytes around the entries of a zip, all computed before the first byte is written.

use jiff::{Timestamp, tz::TimeZone};

use super::{
    CENTRAL_MAGIC, END_MAGIC, FLAG_UTF8, IN_ZIP64, IN_ZIP64_SHORT, LOCAL_MAGIC, Method,
    ZIP64_END_LEN, ZIP64_END_MAGIC, ZIP64_EXTRA, ZIP64_LOCATOR_MAGIC,
};

/// Made on Unix, APPNOTE version 4.5: the external attributes contain a mode.
const MADE_BY: u16 = (3 << 8) | 45;
/// A regular file that only its owner may read: cores contain secrets.
const UNIX_MODE: u32 = 0o100_600;
const NEEDS_PLAIN: u16 = 20;
const NEEDS_ZIP64: u16 = 45;

/// An entry to write.
#[derive(Clone, Debug)]
pub(crate) struct NewEntry {
    pub(crate) name: String,
    pub(crate) method: Method,
    pub(crate) crc32: u32,
    pub(crate) stored: u64,
    pub(crate) size: u64,
}

/// Headers of a zip: a pure function of its entries and the time.
pub(crate) struct ZipLayout {
    /// One local header per entry, in order, each written before its content.
    pub(crate) local_headers: Vec<Vec<u8>>,
    /// Written after the last content.
    pub(crate) directory: Vec<u8>,
    /// Size of the complete zip in bytes.
    pub(crate) len: u64,
}

impl ZipLayout {
    pub(crate) fn new(entries: &[NewEntry], time: Timestamp) -> Self {
        let stamp = dos_time(time);
        let mut at = 0_u64;
        let mut local_headers = Vec::new();
        let mut directory = Vec::new();
        for entry in entries {
            let header = local_header(entry, stamp);
            push_central(&mut directory, entry, stamp, at);
            at = at
                .saturating_add(header.len() as u64)
                .saturating_add(entry.stored);
            local_headers.push(header);
        }
        push_end(&mut directory, entries.len() as u64, at);
        Self {
            len: at.saturating_add(directory.len() as u64),
            local_headers,
            directory,
        }
    }
}

/// The value, or the mark that it is in the extra field.
fn short(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(IN_ZIP64)
}

fn is_big(value: u64) -> bool {
    short(value) == IN_ZIP64
}

fn push_zip64(out: &mut Vec<u8>, values: &[u64]) {
    out.extend(ZIP64_EXTRA.to_le_bytes());
    out.extend((values.len() as u16).saturating_mul(8).to_le_bytes());
    values
        .iter()
        .for_each(|value| out.extend(value.to_le_bytes()));
}

/// The fields from `needs` to `name_len`, identical in both headers.
fn push_shared(out: &mut Vec<u8>, entry: &NewEntry, stamp: u32, zip64: bool, sizes: [u32; 2]) {
    out.extend(if zip64 { NEEDS_ZIP64 } else { NEEDS_PLAIN }.to_le_bytes());
    out.extend(FLAG_UTF8.to_le_bytes());
    out.extend(entry.method.number().to_le_bytes());
    out.extend(stamp.to_le_bytes());
    out.extend(entry.crc32.to_le_bytes());
    sizes.iter().for_each(|size| out.extend(size.to_le_bytes()));
    out.extend((entry.name.len() as u16).to_le_bytes());
}

fn local_header(entry: &NewEntry, stamp: u32) -> Vec<u8> {
    let mut extra = Vec::new();
    let zip64 = is_big(entry.size) || is_big(entry.stored);
    let mut sizes = [short(entry.stored), short(entry.size)];
    if zip64 {
        // APPNOTE 4.5.3: a local header must have both sizes.
        push_zip64(&mut extra, &[entry.size, entry.stored]);
        sizes = [IN_ZIP64; 2];
    }
    let mut out = LOCAL_MAGIC.to_le_bytes().to_vec();
    push_shared(&mut out, entry, stamp, zip64, sizes);
    out.extend((extra.len() as u16).to_le_bytes());
    out.extend(entry.name.as_bytes());
    out.extend(extra);
    out
}

fn push_central(out: &mut Vec<u8>, entry: &NewEntry, stamp: u32, offset: u64) {
    let big: Vec<u64> = [entry.size, entry.stored, offset]
        .into_iter()
        .filter(|&value| is_big(value))
        .collect();
    let mut extra = Vec::new();
    if !big.is_empty() {
        push_zip64(&mut extra, &big);
    }
    out.extend(CENTRAL_MAGIC.to_le_bytes());
    out.extend(MADE_BY.to_le_bytes());
    push_shared(
        out,
        entry,
        stamp,
        !big.is_empty(),
        [short(entry.stored), short(entry.size)],
    );
    out.extend((extra.len() as u16).to_le_bytes());
    // No comment, disk 0, no internal attributes.
    out.extend([0; 6]);
    out.extend((UNIX_MODE << 16).to_le_bytes());
    out.extend(short(offset).to_le_bytes());
    out.extend(entry.name.as_bytes());
    out.extend(extra);
}

fn push_end(directory: &mut Vec<u8>, count: u64, at: u64) {
    let len = directory.len() as u64;
    let short_count = u16::try_from(count).unwrap_or(IN_ZIP64_SHORT);
    if short_count == IN_ZIP64_SHORT || is_big(len) || is_big(at) {
        directory.extend(ZIP64_END_MAGIC.to_le_bytes());
        directory.extend((ZIP64_END_LEN as u64).saturating_sub(12).to_le_bytes());
        directory.extend(MADE_BY.to_le_bytes());
        directory.extend(NEEDS_ZIP64.to_le_bytes());
        directory.extend([0; 8]);
        for value in [count, count, len, at] {
            directory.extend(value.to_le_bytes());
        }
        directory.extend(ZIP64_LOCATOR_MAGIC.to_le_bytes());
        directory.extend([0; 4]);
        directory.extend(at.saturating_add(len).to_le_bytes());
        directory.extend(1_u32.to_le_bytes());
    }
    directory.extend(END_MAGIC.to_le_bytes());
    directory.extend([0; 4]);
    directory.extend(short_count.to_le_bytes());
    directory.extend(short_count.to_le_bytes());
    directory.extend(short(len).to_le_bytes());
    directory.extend(short(at).to_le_bytes());
    directory.extend([0; 2]);
}

/// 2107-12-31 23:59:58.
const LAST_DOS_TIME: u32 = 127 << 25 | 12 << 21 | 31 << 16 | 23 << 11 | 59 << 5 | 29;

/// A DOS date and time in UTC: two-second resolution, 1980 to 2107.
fn dos_time(time: Timestamp) -> u32 {
    let utc = TimeZone::UTC.to_datetime(time);
    let Some(year) = u32::try_from(utc.year())
        .ok()
        .and_then(|year| year.checked_sub(1980))
    else {
        return 1 << 21 | 1 << 16;
    };
    if year > 127 {
        return LAST_DOS_TIME;
    }
    let field = |value: i8, shift: u32| u32::try_from(value).unwrap_or_default() << shift;
    year << 25
        | field(utc.month(), 21)
        | field(utc.day(), 16)
        | field(utc.hour(), 11)
        | field(utc.minute(), 5)
        | (field(utc.second(), 0) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dos_time_is_utc_with_two_second_resolution() {
        let table = [
            (
                "2026-01-31T12:34:57Z",
                (46 << 25) | (1 << 21) | (31 << 16) | (12 << 11) | (34 << 5) | 28,
            ),
            ("1970-01-01T00:00:00Z", (1 << 21) | (1 << 16)),
            ("1980-01-01T00:00:00Z", (1 << 21) | (1 << 16)),
            (
                "2107-12-31T23:59:59Z",
                (127 << 25) | (12 << 21) | (31 << 16) | (23 << 11) | (59 << 5) | 29,
            ),
        ];
        for (time, expected) in table {
            assert_eq!(dos_time(time.parse().unwrap()), expected, "{time}");
        }
    }

    #[test]
    fn zip_layout_length_is_exact() {
        let entry = |size: u64| NewEntry {
            name: "stem.core".to_owned(),
            method: Method::Stored,
            crc32: 1,
            stored: size,
            size,
        };
        for sizes in [
            vec![],
            vec![3],
            vec![u64::from(u32::MAX), 1],
            vec![1, 5 << 32, 7],
        ] {
            let entries: Vec<NewEntry> = sizes.iter().map(|&size| entry(size)).collect();
            let layout = ZipLayout::new(&entries, Timestamp::UNIX_EPOCH);
            let headers: usize = layout.local_headers.iter().map(Vec::len).sum();
            let content: u64 = sizes.iter().sum();
            assert_eq!(
                layout.len,
                headers as u64 + content + layout.directory.len() as u64
            );
        }
    }
}
