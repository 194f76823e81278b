//! Where a core must end, computed in constant memory: for callers that must not spend memory on a stranger's file.

use super::{CoreError, check_header, count_from_entry, count_from_section, read_range, table_end};
use crate::ByteSource;
use crate::elf_header::{ElfHeader, HEADER_SIZE, PN_XNUM, ProgramHeader};
use crate::head::SECTION_HEADER_SIZE;

/// Bytes of program headers that are read at once.
const CHUNK: u64 = 64 << 10;
const PT_NULL: u32 = 0;

/// Length in bytes that the headers of a core promise, as [`CoreHead::expected_len`](crate::CoreHead::expected_len), but
/// without its notes and with one buffer of 64 KiB. `None` while headers are missing (the kernel writes no `PT_NULL`, so
/// that is a hole), or if there are more than `max_headers`.
///
/// # Errors
/// Fails if it is not a supported core, or if the source cannot be read.
pub fn promised_len(source: &dyn ByteSource, max_headers: u64) -> Result<Option<u64>, CoreError> {
    let start = read_range(source, 0, HEADER_SIZE as u64)?;
    let header = match check_header(&start, ElfHeader::parse_any) {
        Err(CoreError::Empty | CoreError::HeadTruncated { .. }) => return Ok(None),
        header => header?,
    };
    let entry = header.encoding.class.program_header_size() as u64;
    let (count, is_extended) = match header.program_header_count {
        PN_XNUM => match count_from_section(source, &header) {
            Some(count) => (count, true),
            None => {
                let first = read_range(source, header.program_headers, entry)?;
                if (first.len() as u64) < entry {
                    return Ok(None);
                }
                (count_from_entry(&first, &header)?, true)
            }
        },
        count => (u64::from(count), false),
    };
    if count > max_headers {
        return Ok(None);
    }
    let end = table_end(&header, count)?;
    let mut promised = end;
    if is_extended && header.section_headers > 0 {
        promised = promised.max(header.section_headers.saturating_add(SECTION_HEADER_SIZE));
    }
    let chunk = CHUNK.saturating_sub(CHUNK.checked_rem(entry).unwrap_or(0));
    let mut at = header.program_headers;
    while at < end {
        let wanted = chunk.min(end.saturating_sub(at));
        let table = read_range(source, at, wanted)?;
        if (table.len() as u64) < wanted {
            return Ok(None);
        }
        for header in ProgramHeader::parse_table(header.encoding, &table) {
            if header.kind == PT_NULL {
                return Ok(None);
            }
            promised = promised.max(header.offset.saturating_add(header.file_size));
        }
        at = at.saturating_add(wanted);
    }
    Ok(Some(promised))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CoreHead;

    /// An x86_64 core with this number of program headers, each of 16 bytes behind the other.
    fn core(count: u16) -> Vec<u8> {
        let end = 64 + 56 * usize::from(count);
        let mut bytes = vec![0_u8; end];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[16..20].copy_from_slice(&[4, 0, 62, 0]); // ET_CORE, EM_X86_64
        bytes[32] = 64; // e_phoff
        bytes[52..56].copy_from_slice(&[64, 0, 56, 0]);
        bytes[56..58].copy_from_slice(&count.to_le_bytes());
        for index in 0..usize::from(count) {
            let at = 64 + 56 * index;
            bytes[at] = 1; // PT_LOAD
            let offset = (end + 16 * index) as u64;
            bytes[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
            bytes[at + 32..at + 40].copy_from_slice(&16_u64.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn promised_length_is_that_of_the_complete_head() {
        for count in [0, 1, 3, 5000] {
            let core = core(count);
            let head = CoreHead::from_source(&core).unwrap();
            assert_eq!(
                promised_len(&core, 65_536).unwrap(),
                Some(head.expected_len()),
                "{count}"
            );
        }
    }

    #[test]
    fn promised_length_is_unknown_while_headers_are_missing() {
        let mut core = core(3000);
        assert_eq!(
            promised_len(&core, 2999).unwrap(),
            None,
            "more than allowed"
        );
        core[64 + 56 * 2000] = 0;
        assert_eq!(promised_len(&core, 3000).unwrap(), None, "a hole");
        for length in [0, 3, 63, 64, 100] {
            let begun = core[..length].to_vec();
            assert_eq!(promised_len(&begun, 3000).unwrap(), None, "{length}");
        }
        let text = b"no core, but a text that is longer than the header of an ELF file".to_vec();
        assert!(promised_len(&text, 3000).is_err());
    }

    /// A sparse file that counts what is read.
    struct Sparse {
        start: Vec<u8>,
        read: std::sync::atomic::AtomicUsize,
    }

    impl ByteSource for Sparse {
        fn len(&self) -> u64 {
            1 << 50
        }

        fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
            assert!(buf.len() as u64 <= CHUNK, "{}", buf.len());
            buf.fill(0);
            let from = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(self.start.len());
            let there = &self.start[from..];
            let count = there.len().min(buf.len());
            buf[..count].copy_from_slice(&there[..count]);
            self.read
                .fetch_add(buf.len(), std::sync::atomic::Ordering::Relaxed);
            Ok(buf.len())
        }
    }

    #[test]
    fn hostile_sparse_core_costs_few_reads() {
        let mut start = core(1);
        // 4 Mi headers by the first section header, far away.
        start[56..58].copy_from_slice(&PN_XNUM.to_le_bytes());
        for (e_phoff, e_shoff) in [(64_u64, 0_u64), (1 << 40, 128), (1 << 40, 1 << 41)] {
            start[32..40].copy_from_slice(&e_phoff.to_le_bytes());
            start[40..48].copy_from_slice(&e_shoff.to_le_bytes());
            start.resize(256, 0);
            start[128 + 44..128 + 48].copy_from_slice(&(4_u32 << 20).to_le_bytes());
            let source = Sparse {
                start: start.clone(),
                read: std::sync::atomic::AtomicUsize::new(0),
            };
            let _ = promised_len(&source, 65_536);
            let read = source.read.into_inner();
            assert!(read < 1000, "{read} bytes for {e_phoff}, {e_shoff}");
        }
    }
}
