//! Which byte of a core holds which byte of memory.
//!
//! ```text
//! head | padding | segment | segment | … | section header, only for PN_XNUM
//! ```
//!
//! Invariant: a core laid out here is, byte for byte, the one that the kernel would write behind the
//! same head. Where the head promises something that is not memory (tags of arm64's MTE), or not in
//! the kernel's order, there is no layout, and the stream has to be read.

use std::ops::Range;

use cdh_elfcore::{CoreHead, CorePart, RearrangedHead};

/// A piece of memory in the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where it begins in the core.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Where it begins in memory.
    pub address: u64,
}

impl Extent {
    /// Where it ends in the core.
    #[must_use]
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// The part of a core behind its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Where the head ends.
    pub start: u64,
    /// Where the core ends.
    pub end: u64,
    /// Memory, in the order of the core. What lies between is zero.
    pub extents: Vec<Extent>,
    /// Bytes that stand behind all memory.
    pub tail: Vec<u8>,
}

/// `Elf64_Shdr` in bytes.
const SECTION_HEADER: u64 = 64;

impl Layout {
    /// Of the core that begins with `head`.
    ///
    /// # Errors
    /// In words, why only the stream shows what follows it.
    pub(crate) fn of(head: &CoreHead) -> Result<Self, String> {
        if let Some(kind) = head.other_contents() {
            return Err(format!("it has program headers of type {kind:#x}"));
        }
        let start = head.raw().len() as u64;
        let mut position = start;
        let mut extents = Vec::new();
        for segment in head
            .segments()
            .iter()
            .filter(|segment| segment.file_size > 0)
        {
            let extent = Extent {
                offset: segment.offset.0,
                length: segment.file_size,
                address: segment.start.0,
            };
            let whole = extent.offset.checked_add(extent.length).is_some()
                && extent.address.checked_add(extent.length).is_some()
                && segment.file_size <= segment.memory_size;
            if extent.offset < position || !whole {
                return Err("its segments are not in order".to_owned());
            }
            position = extent.end();
            extents.push(extent);
        }
        let end = head.expected_len();
        let tail = match end.checked_sub(position) {
            Some(0) => Vec::new(),
            Some(SECTION_HEADER) => head
                .extended_section_header()
                .ok_or("something follows its segments")?
                .to_vec(),
            // No segment holds anything: the core ends with its head.
            _ if extents.is_empty() && end == start => Vec::new(),
            _ => return Err("something follows its segments".to_owned()),
        };
        Ok(Self {
            start,
            end,
            extents,
            tail,
        })
    }

    /// Of a core with its memory in another order.
    #[must_use]
    pub(crate) fn of_rearranged(head: &RearrangedHead) -> Self {
        let extent = |part: &CorePart| Extent {
            offset: part.offset.0,
            length: part.size,
            address: part.start.0,
        };
        Self {
            start: head.bytes.len() as u64,
            end: head.len,
            extents: head.parts.iter().map(extent).collect(),
            tail: Vec::new(),
        }
    }

    /// Extents that have bytes in this part of the core.
    pub(crate) fn extents_in(&self, part: &Range<u64>) -> impl Iterator<Item = &Extent> {
        let first = self
            .extents
            .partition_point(|extent| extent.end() <= part.start);
        let end = part.end;
        self.extents
            .iter()
            .skip(first)
            .take_while(move |extent| extent.offset < end)
    }

    /// Bytes of memory in the core.
    #[must_use]
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.extents.iter().map(|extent| extent.length).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head with these program headers: type, offset, address, bytes in the core, bytes in memory.
    fn head(headers: &[(u32, u64, u64, u64, u64)]) -> CoreHead {
        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0\x3e\0\x01\0\0\0".to_vec();
        bytes.resize(64, 0);
        bytes[32] = 64;
        bytes[52] = 64;
        bytes[54] = 56;
        bytes[56] = headers.len() as u8;
        for (kind, offset, address, file_size, memory_size) in headers {
            bytes.extend(kind.to_le_bytes());
            bytes.extend(6_u32.to_le_bytes());
            for value in [offset, address, &0, file_size, memory_size, &4096] {
                bytes.extend(value.to_le_bytes());
            }
        }
        CoreHead::from_reader(&mut bytes.as_slice()).unwrap()
    }

    #[test]
    fn segments_with_bytes_stand_in_the_core_and_others_do_not() {
        let head = head(&[
            (1, 0x1000, 0x40_0000, 0x2000, 0x2000),
            (1, 0x3000, 0x50_0000, 0, 0x9000),
            (1, 0x3000, 0x60_0000, 0x1000, 0x2000),
        ]);
        let layout = Layout::of(&head).unwrap();
        assert_eq!((layout.start, layout.end), (64 + 3 * 56, 0x4000));
        assert_eq!(layout.memory_bytes(), 0x3000);
        let addresses = |part: Range<u64>| -> Vec<u64> {
            layout
                .extents_in(&part)
                .map(|extent| extent.address)
                .collect()
        };
        assert!(addresses(0..0x1000).is_empty());
        assert_eq!(addresses(0x2fff..0x3000), [0x40_0000]);
        assert_eq!(addresses(0x2fff..0x3001), [0x40_0000, 0x60_0000]);
        assert!(addresses(0x4000..0x9000).is_empty());
    }

    #[test]
    fn what_is_not_memory_or_not_in_order_has_to_be_streamed() {
        let tags = head(&[
            (1, 0x1000, 0, 0x1000, 0x1000),
            (0x7000_0002, 0x2000, 0, 8, 8),
        ]);
        assert!(Layout::of(&tags).is_err());
        let overlapping = head(&[(1, 0x1000, 0, 0x2000, 0x2000), (1, 0x2000, 0, 8, 8)]);
        assert!(Layout::of(&overlapping).is_err());
        let huge = head(&[(1, u64::MAX - 8, 0, 0x2000, 0x2000)]);
        assert!(Layout::of(&huge).is_err());
        let nothing = head(&[(1, 0x1000, 0, 0, 0x2000)]);
        assert!(Layout::of(&nothing).is_err(), "it promises padding");
    }
}
