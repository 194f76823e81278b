//! The parts of the zip format that bundles need (PKWARE APPNOTE 6.3.10), little-endian throughout.
//!
//! ```text
//! local header       50 4B 03 04  needs:2 flags:2 method:2 time:2 date:2 crc:4 stored:4 size:4
//!                                 name_len:2 extra_len:2  name extra  … content …
//! central header     50 4B 01 02  made_by:2 needs:2 flags:2 method:2 time:2 date:2 crc:4 stored:4
//!                                 size:4 name_len:2 extra_len:2 comment_len:2 disk:2 internal:2
//!                                 external:4 offset:4  name extra comment
//! zip64 end          50 4B 06 06  rest:8 made_by:2 needs:2 disk:4 disk:4 here:8 all:8 len:8 offset:8
//! zip64 locator      50 4B 06 07  disk:4 offset:8 disks:4
//! end                50 4B 05 06  disk:2 disk:2 here:2 all:2 len:4 offset:4 comment_len:2  comment
//! extra field 0001   id:2 len:2  then size:8 stored:8 offset:8, each only where the header says FFFFFFFF
//! ```
//!
//! Written: stored and deflated entries with sizes in the local header. Read: the same, with or
//! without data descriptors. Not read: encryption, multiple disks, other methods.

mod directory;
mod salvage;
mod write;

pub(crate) use directory::{content_at, read_directory};
pub(crate) use salvage::salvage;
pub(crate) use write::{NewEntry, ZipLayout};

const LOCAL_MAGIC: u32 = 0x0403_4B50;
const CENTRAL_MAGIC: u32 = 0x0201_4B50;
const END_MAGIC: u32 = 0x0605_4B50;
const ZIP64_END_MAGIC: u32 = 0x0606_4B50;
const ZIP64_LOCATOR_MAGIC: u32 = 0x0706_4B50;

/// Size of the fixed part of a local header.
const LOCAL_LEN: usize = 30;
/// Size of the fixed part of a central header.
const CENTRAL_LEN: usize = 46;
/// Size of the fixed part of the end record.
const END_LEN: usize = 22;
const ZIP64_END_LEN: usize = 56;
const ZIP64_LOCATOR_LEN: usize = 20;

/// Marks a 32-bit field whose value is in the zip64 extra field.
const IN_ZIP64: u32 = u32::MAX;
/// The same mark for 16-bit fields.
const IN_ZIP64_SHORT: u16 = u16::MAX;
const ZIP64_EXTRA: u16 = 1;

const FLAG_ENCRYPTED: u16 = 1;
const FLAG_DESCRIPTOR: u16 = 1 << 3;
const FLAG_UTF8: u16 = 1 << 11;

const METHOD_STORED: u16 = 0;
const METHOD_DEFLATED: u16 = 8;

/// Storage method of an entry's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// Uncompressed.
    Stored,
    /// Deflated.
    Deflated,
    /// A method that neither we nor IBM's agent use.
    Other(u16),
}

impl Method {
    fn from_number(number: u16) -> Self {
        match number {
            METHOD_STORED => Self::Stored,
            METHOD_DEFLATED => Self::Deflated,
            other => Self::Other(other),
        }
    }

    fn number(self) -> u16 {
        match self {
            Self::Stored => METHOD_STORED,
            Self::Deflated => METHOD_DEFLATED,
            Self::Other(number) => number,
        }
    }
}

/// An entry as described by the zip's own headers, unchecked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawEntry {
    pub(crate) name: Vec<u8>,
    pub(crate) method: Method,
    pub(crate) encrypted: bool,
    pub(crate) crc32: Option<u32>,
    pub(crate) stored: u64,
    pub(crate) size: u64,
    /// Offset of the local header.
    pub(crate) header_at: u64,
    /// Whether the zip ends before the content does.
    pub(crate) cut: bool,
}

/// Reads little-endian fields from the front of a slice; `None` when bytes run out.
struct Fields<'d>(&'d [u8]);

impl<'d> Fields<'d> {
    fn bytes(&mut self, count: usize) -> Option<&'d [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// Replaces marked values with those in the zip64 extra field. `None` if they are missing there.
fn resolve_zip64(extra: &[u8], fields: &mut [&mut u64]) -> Option<()> {
    let mut wanted = fields
        .iter_mut()
        .filter(|field| ***field == u64::from(IN_ZIP64))
        .peekable();
    if wanted.peek().is_none() {
        return Some(());
    }
    let mut extra = Fields(extra);
    loop {
        let (id, len) = (extra.u16()?, extra.u16()?);
        let body = extra.bytes(usize::from(len))?;
        if id == ZIP64_EXTRA {
            let mut body = Fields(body);
            for field in wanted {
                **field = body.u64()?;
            }
            return Some(());
        }
    }
}
