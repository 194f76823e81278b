//! What the kernel says of a process's mappings: which of them are plain memory of its own.
//!
//! ```text
//! 7f2c5c000000-7f2c5c021000 rw-p 00000000 00:00 0                          [heap]
//! start        end          perm offset   dev   inode                      name
//! ```
//! (`proc_pid_maps(5)`, `show_map_vma` in `fs/proc/task_mmu.c`)

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;

/// How a page that the process has never touched is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Memory of the process's own: such a page is zero, and the kernel does not make one for a core.
    Anonymous,
    /// Memory that only lives in a file system of memory: such a page may hold something.
    Shared,
    /// A file of the node, the vdso, a device: the page has to be asked for.
    Other,
    /// A file whose pages come from a server, or from an unknown place: reading one may take for
    /// ever. Only pages that are present are read.
    Foreign,
}

/// Device of a file: major and minor number.
pub(crate) type Device = (u32, u32);

/// One mapping, or several of the same kind that adjoin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryRange {
    /// Addresses.
    pub addresses: Range<u64>,
    /// Kind.
    pub kind: Kind,
    /// Where the mapping begins in its file; of no meaning for others than [`Kind::Shared`].
    pub offset: u64,
}

/// The mappings of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Maps {
    /// In address order, those of a kind that adjoin as one.
    pub ranges: Vec<MemoryRange>,
    /// Starts of the lowest private mappings that can be read, [`Kind::Foreign`] ones excepted.
    pub lowest_private: Vec<u64>,
    /// Starts of the highest mappings of the process's own memory, the highest first.
    pub highest_own: Vec<u64>,
    /// Devices of the [`Kind::Foreign`] mappings.
    pub foreign: BTreeSet<Device>,
}

impl Maps {
    /// The ranges that have addresses in `[start, end)`.
    pub(crate) fn overlapping(&self, addresses: &Range<u64>) -> impl Iterator<Item = &MemoryRange> {
        let first = self
            .ranges
            .partition_point(|range| range.addresses.end <= addresses.start);
        let end = addresses.end;
        self.ranges
            .iter()
            .skip(first)
            .take_while(move |range| range.addresses.start < end)
    }
}

/// How many of the lowest and highest mappings are remembered: pages at the start of one may be missing.
const ENDS: usize = 16;
/// Maximum length of a line in bytes: a path has 4096, and each may be escaped as four.
const LINE: usize = 20 << 10;

/// Takes the text of `/proc/<pid>/maps` apart, in address order. `is_local` says of a device whether a
/// page of its files can be asked for.
///
/// # Errors
/// When it does not look like one.
pub(crate) fn parse_maps(
    reader: &mut impl BufRead,
    is_local: &mut dyn FnMut(Device) -> bool,
) -> io::Result<Maps> {
    let mut maps = Maps::default();
    for_each_line(reader, |line| {
        let mapping =
            parse_line(line).ok_or_else(|| io::Error::other("a line is not understood"))?;
        let Mapping {
            mut range,
            permissions,
            device,
            inode,
        } = mapping;
        // What has no inode is no file.
        let is_file = inode != 0 && range.kind != Kind::Anonymous;
        if is_file && !is_local(device) {
            range.kind = Kind::Foreign;
            maps.foreign.insert(device);
        }
        let start = range.addresses.start;
        let is_private = permissions.readable && !permissions.shared;
        if is_private && range.kind != Kind::Foreign && maps.lowest_private.len() < ENDS {
            maps.lowest_private.push(start);
        }
        if range.kind == Kind::Anonymous {
            maps.highest_own.truncate(ENDS - 1);
            maps.highest_own.insert(0, start);
        }
        match maps.ranges.last_mut() {
            Some(last)
                if last.kind == range.kind
                    && range.kind != Kind::Shared
                    && last.addresses.end == range.addresses.start =>
            {
                last.addresses.end = range.addresses.end;
            }
            _ => maps.ranges.push(range),
        }
        Ok(())
    })?;
    Ok(maps)
}

/// Starts of the mappings of a process's own memory, from its open `maps`.
pub(crate) fn anonymous_starts(file: &File) -> Vec<u64> {
    /// Bytes of a process with very many mappings that are looked at.
    const BYTES: u64 = 256 << 10;
    let mut starts = Vec::new();
    let _ = for_each_line(&mut BufReader::new(file.take(BYTES)), |line| {
        if let Some(mapping) = parse_line(line)
            && mapping.range.kind == Kind::Anonymous
            && mapping.permissions.readable
        {
            starts.push(mapping.range.addresses.start);
        }
        Ok(())
    });
    starts
}

fn for_each_line(
    reader: &mut impl BufRead,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if Read::take(&mut *reader, LINE as u64).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        each(&line)?;
    }
}

struct Mapping {
    range: MemoryRange,
    permissions: Permissions,
    device: Device,
    inode: u64,
}

#[derive(Clone, Copy)]
struct Permissions {
    readable: bool,
    shared: bool,
}

fn parse_line(line: &[u8]) -> Option<Mapping> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut rest = line;
    let mut field = || -> Option<&str> {
        let length = rest
            .iter()
            .position(|&byte| byte == b' ')
            .unwrap_or(rest.len());
        let (field, after) = rest.split_at_checked(length)?;
        rest = after.get(1..).unwrap_or_default();
        std::str::from_utf8(field).ok()
    };
    let (start, end) = field()?.split_once('-')?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let addresses = hex(start)?..hex(end)?;
    let letters = field()?.as_bytes();
    let permissions = Permissions {
        readable: letters.first() == Some(&b'r'),
        shared: letters.get(3) == Some(&b's'),
    };
    let offset = hex(field()?)?;
    let (major, minor) = field()?.split_once(':')?;
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let device = (number(major)?, number(minor)?);
    let inode: u64 = field()?.parse().ok()?;
    let name = rest.trim_ascii_start();
    let range = MemoryRange {
        addresses,
        kind: kind(permissions.shared, inode, name),
        offset,
    };
    Some(Mapping {
        range,
        permissions,
        device,
        inode,
    })
}

fn kind(shared: bool, inode: u64, name: &[u8]) -> Kind {
    let begins = |prefix: &str| name.starts_with(prefix.as_bytes());
    // Explicit huge pages have an inode of hugetlbfs; a private page never touched is not made.
    if !shared && begins("/anon_hugepage (deleted)") {
        return Kind::Anonymous;
    }
    let in_memory = [
        "/memfd:",
        "/SYSV",
        "/dev/zero (deleted)",
        "/dev/shm/",
        "[anon_shmem:",
    ];
    if in_memory.into_iter().any(begins) {
        return Kind::Shared;
    }
    let own = name.is_empty() || begins("[heap]") || begins("[stack") || begins("[anon:");
    match inode == 0 && !shared && own {
        true => Kind::Anonymous,
        false => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_from_the_lines_of_a_real_kernel() {
        let cases = [
            (
                "55a0-55b0 r--p 00000000 fe:00 1234      /usr/bin/x",
                Kind::Other,
            ),
            (
                "1000-2000 rw-p 00000000 00:00 0         [heap]",
                Kind::Anonymous,
            ),
            ("1000-2000 rw-p 00000000 00:00 0 ", Kind::Anonymous),
            ("1000-2000 ---p 00000000 00:00 0", Kind::Anonymous),
            (
                "1000-2000 rw-p 00000000 00:00 0  [anon:stack and [heap]",
                Kind::Anonymous,
            ),
            (
                "1000-2000 rw-s 00000000 00:01 9  /dev/zero (deleted)",
                Kind::Shared,
            ),
            (
                "1000-2000 rw-s 00000000 00:01 9  /memfd:x y (deleted)",
                Kind::Shared,
            ),
            (
                "1000-2000 rw-s 00000000 00:01 9  /SYSV00000000 (deleted)",
                Kind::Shared,
            ),
            (
                "1000-2000 rw-p 00000000 00:0f 9  /anon_hugepage (deleted)",
                Kind::Anonymous,
            ),
            (
                "1000-2000 rw-s 00000000 00:0f 9  /anon_hugepage (deleted)",
                Kind::Other,
            ),
            ("1000-2000 r--p 00000000 00:00 0  [vvar]", Kind::Other),
            ("1000-2000 r-xp 00000000 00:00 0  [vdso]", Kind::Other),
            (
                "1000-2000 rw-s 00000000 00:0e 5  anon_inode:[io_uring]",
                Kind::Other,
            ),
            (
                "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]",
                Kind::Other,
            ),
        ];
        for (line, expected) in cases {
            let found = parse_line(line.as_bytes()).unwrap();
            assert_eq!(found.range.kind, expected, "{line}");
        }
        for line in ["", "x", "1000 rw-p", "1000-2000 rw-p 0 0:0 x"] {
            assert!(parse_line(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn adjoining_memory_becomes_one_range_and_shared_memory_stays_apart() {
        let maps = b"1000-2000 rw-p 0 00:00 0\n2000-3000 ---p 0 00:00 0\n\
            3000-4000 rw-s 0 00:01 9 /memfd:a\n4000-5000 rw-s 5000 00:01 9 /memfd:a\n\
            6000-7000 rw-p 0 00:00 0\n";
        let maps = parse_maps(&mut maps.as_slice(), &mut |_| true).unwrap();
        assert_eq!(maps.lowest_private, [0x1000, 0x6000]);
        assert_eq!(maps.highest_own, [0x6000, 0x2000, 0x1000]);
        assert_eq!(maps.overlapping(&(0x2fff..0x4001)).count(), 3);
        assert_eq!(maps.overlapping(&(0x5000..0x6000)).count(), 0);
        let shown: Vec<_> = maps
            .ranges
            .iter()
            .map(|range| (range.addresses.clone(), range.kind, range.offset))
            .collect();
        assert_eq!(
            shown,
            [
                (0x1000..0x3000, Kind::Anonymous, 0),
                (0x3000..0x4000, Kind::Shared, 0),
                (0x4000..0x5000, Kind::Shared, 0x5000),
                (0x6000..0x7000, Kind::Anonymous, 0),
            ]
        );
        assert!(parse_maps(&mut &b"rubbish\n"[..], &mut |_| true).is_err());
    }

    #[test]
    fn files_of_foreign_devices_are_foreign_whatever_they_are_called() {
        let text =
            b"1000-2000 r--p 0 00:99 7 /mnt/f\n2000-3000 rw-s 0 00:99 8 /memfd:a (deleted)\n\
            3000-4000 r--p 0 fe:00 9 /lib/a\n4000-5000 r-xp 0 00:00 0 [vdso]\n\
            5000-6000 rw-p 0 00:00 0\n";
        let maps = parse_maps(&mut text.as_slice(), &mut |device| device == (0xfe, 0)).unwrap();
        let kinds: Vec<_> = maps.ranges.iter().map(|range| range.kind).collect();
        use Kind::{Anonymous, Foreign, Other};
        assert_eq!(kinds, [Foreign, Other, Anonymous]);
        assert_eq!(maps.foreign.into_iter().collect::<Vec<_>>(), [(0, 0x99)]);
        assert_eq!(maps.lowest_private, [0x3000, 0x4000, 0x5000]);
    }

    #[test]
    fn the_maps_of_this_process_are_read() {
        let text = std::fs::read("/proc/self/maps").unwrap();
        let maps = parse_maps(&mut text.as_slice(), &mut |_| true).unwrap();
        let ranges = &maps.ranges;
        let starts = anonymous_starts(&File::open("/proc/self/maps").unwrap());
        assert!(!starts.is_empty() && !maps.lowest_private.is_empty());
        assert!(ranges.iter().any(|range| range.kind == Kind::Anonymous));
        assert!(ranges.is_sorted_by_key(|range| range.addresses.start));
    }
}
