//! Cores that the handler does not take apart: of 32-bit processes only the length is read, so that a cut
//! is noticed. And files that look like cores and are of another system.
//!
//! ```text
//! Elf32_Ehdr, 52 bytes: e_machine at 18, e_phoff at 28, e_phentsize at 42, e_phnum at 44
//! Elf32_Phdr, 32 bytes: p_type at 0, p_offset at 4, p_filesz at 16
//! ```

use std::io::Read;

use crate::bytes::array_at;
use crate::elf_header::PN_XNUM;
use crate::note::{Note, Notes};
use crate::{CoreError, Encoding};

/// Whose core a file is that no Linux process left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ForeignSystem {
    what: &'static str,
    opener: &'static str,
}

impl ForeignSystem {
    /// By the owners of the notes, given with their alignment. Each system names its own; the notes of
    /// processors in a dump of a kernel or a machine have Linux's name.
    pub(crate) fn of<'n>(
        segments: impl Iterator<Item = (&'n [u8], u64)>,
        is_freebsd: bool,
        encoding: Encoding,
    ) -> Option<Self> {
        let system = |what, opener| Some(Self { what, opener });
        let of_note = |note: Note<'_>| match note.name {
            b"FreeBSD" => system("a core of FreeBSD", "`gdb` or `lldb` on FreeBSD"),
            b"OpenBSD" => system("a core of OpenBSD", "`gdb` on OpenBSD"),
            b"VMCOREINFO" => system("a dump of a Linux kernel", "`crash` or `drgn`"),
            b"QEMU" => system("memory of a virtual machine (QEMU)", "`crash` or `drgn`"),
            b"VBCORE" | b"VBCPU" => system("memory of a virtual machine (VirtualBox)", "`crash`"),
            b"Xen" => system("memory of a virtual machine (Xen)", "`crash`"),
            // Of a thread it has the thread's number behind an @.
            name if name.starts_with(b"NetBSD-CORE") => {
                system("a core of NetBSD", "`gdb` on NetBSD")
            }
            _ => None,
        };
        let notes = segments.flat_map(|(data, align)| Notes::new(encoding, data, align));
        // QEMU adds the kernel's own note to the memory of a machine that runs Linux.
        let mut found: Vec<Self> = notes.filter_map(of_note).collect();
        found.sort_by_key(|system| system.what.starts_with("a dump"));
        let by_header = is_freebsd.then_some("a core of FreeBSD");
        let by_header = by_header.and_then(|what| system(what, "`gdb` or `lldb` on FreeBSD"));
        found.first().copied().or(by_header)
    }
}

impl From<ForeignSystem> for CoreError {
    fn from(system: ForeignSystem) -> Self {
        Self::Foreign {
            what: system.what,
            opener: system.opener,
        }
    }
}

/// How the numbers of these cores are written.
const ORDER: Encoding = Encoding::LITTLE_32;
/// Size of `Elf32_Ehdr`, bytes.
const HEADER_SIZE: usize = 52;
/// Size of `Elf32_Phdr`, bytes.
const ENTRY_SIZE: usize = 32;
const ET_CORE: u16 = 4;
const PT_NOTE: u32 = 4;
/// Most program headers that are read: a process has `vm.max_map_count` mappings, 65,530 by default.
const MAX_ENTRIES: usize = 1 << 18;

/// What is known of a core that is not taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignCore {
    /// Its architecture.
    pub machine: &'static str,
    /// Bytes of the complete core, as its headers promise.
    pub expected_len: u64,
}

impl ForeignCore {
    /// Of the little-endian 32-bit core that begins with `begun` and goes on in `stream`, read up to the end of the
    /// program headers.
    pub fn from_reader(begun: &[u8], stream: &mut impl Read) -> Option<Self> {
        let mut raw = begun.to_vec();
        fill(&mut raw, stream, HEADER_SIZE)?;
        let ident: [u8; 6] = array_at(&raw, 0)?;
        let is_core = ident == [0x7f, b'E', b'L', b'F', 1, 1] && ORDER.u16_at(&raw, 16)? == ET_CORE;
        let table = usize::try_from(ORDER.u32_at(&raw, 28)?).ok()?;
        if !is_core || usize::from(ORDER.u16_at(&raw, 42)?) != ENTRY_SIZE || table != HEADER_SIZE {
            return None;
        }
        let count = match ORDER.u16_at(&raw, 44)? {
            PN_XNUM => {
                // The real number is at the end of the core; the first header, of the notes, says where the table
                // ends.
                fill(&mut raw, stream, table.checked_add(ENTRY_SIZE)?)?;
                let notes = usize::try_from(ORDER.u32_at(&raw, table.checked_add(4)?)?).ok()?;
                let is_note = ORDER.u32_at(&raw, table)? == PT_NOTE;
                notes.checked_sub(table).filter(|_| is_note)? / ENTRY_SIZE
            }
            count => usize::from(count),
        };
        let size = count.min(MAX_ENTRIES).checked_mul(ENTRY_SIZE)?;
        let end = table.checked_add(size)?;
        fill(&mut raw, stream, end)?;
        let ends = raw.get(table..end)?.chunks_exact(ENTRY_SIZE).map(|entry| {
            let offset = u64::from(ORDER.u32_at(entry, 4).unwrap_or(0));
            offset.saturating_add(u64::from(ORDER.u32_at(entry, 16).unwrap_or(0)))
        });
        Some(Self {
            machine: machine(ORDER.u16_at(&raw, 18)?),
            expected_len: ends.max()?,
        })
    }
}

/// Reads on until `raw` has `end` bytes. Memory grows with what arrives, not with what a header claims.
fn fill(raw: &mut Vec<u8>, stream: &mut impl Read, end: usize) -> Option<()> {
    let missing = end.saturating_sub(raw.len()) as u64;
    stream.by_ref().take(missing).read_to_end(raw).ok()?;
    (raw.len() >= end).then_some(())
}

/// Names of `e_machine` (elf.h) of processes that a 64-bit Linux runs as 32-bit ones.
fn machine(number: u16) -> &'static str {
    match number {
        3 => "i386",
        40 => "arm",
        62 => "x32",
        8 => "mips",
        20 => "ppc",
        243 => "riscv32",
        _ => "32-bit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 32-bit core with these program headers: type, offset, bytes in the core.
    fn core(count: u16, headers: &[(u32, u32, u32)]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x04\0\x03\0\x01\0\0\0".to_vec();
        bytes.resize(HEADER_SIZE, 0);
        bytes[28] = 52;
        bytes[42] = 32;
        bytes[44..46].copy_from_slice(&count.to_le_bytes());
        for (kind, offset, size) in headers {
            for value in [*kind, *offset, 0, 0, *size, *size, 0, 0] {
                bytes.extend(value.to_le_bytes());
            }
        }
        bytes
    }

    fn length(bytes: &[u8]) -> Option<u64> {
        let (begun, mut rest) = bytes.split_at(bytes.len().min(40));
        ForeignCore::from_reader(begun, &mut rest).map(|core| core.expected_len)
    }

    #[test]
    fn the_length_of_a_32_bit_core_is_where_its_last_segment_ends() {
        let bytes = core(2, &[(4, 116, 100), (1, 0x1000, 0x3000)]);
        assert_eq!(length(&bytes), Some(0x4000));
        let found = ForeignCore::from_reader(&bytes, &mut std::io::empty()).unwrap();
        assert_eq!(found.machine, "i386");
    }

    #[test]
    fn more_mappings_than_the_header_can_count_are_counted_by_the_first() {
        let mut headers = vec![(1, 0x1000, 0x10); 70_000];
        headers[0] = (4, 52 + 70_000 * 32, 100);
        headers[69_999] = (1, 0x40_0000, 0x1000);
        assert_eq!(length(&core(PN_XNUM, &headers)), Some(0x40_1000));
    }

    #[test]
    fn what_is_cut_or_no_32_bit_core_has_no_length() {
        let bytes = core(2, &[(4, 116, 100), (1, 0x1000, 0x3000)]);
        for end in 0..bytes.len() {
            assert_eq!(length(&bytes[..end]), None, "{end}");
        }
        let mut other = bytes;
        other[4] = 2;
        assert_eq!(length(&other), None);
        assert_eq!(length(&core(PN_XNUM, &[(4, 3, 0)])), None);
    }
}
