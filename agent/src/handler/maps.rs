//! What the kernel says of a process's mappings: which of them are plain memory of its own.
//!
//! ```text
//! 7f2c5c000000-7f2c5c021000 rw-p 00000000 00:00 0                          [heap]
//! start        end          perm offset   dev   inode                      name
//! ```
//! (`proc_pid_maps(5)`, `show_map_vma` in `fs/proc/task_mmu.c`)

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;

/// How a page that the process has never touched is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Memory of the process's own: such a page is zero, and the kernel does not make one for a core.
    Anonymous,
    /// Memory that only lives in a file system of memory: such a page may hold something.
    Shared,
    /// A file, the vdso, a device: the page has to be asked for.
    Other,
}

/// One mapping, or several of the same kind that adjoin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemoryRange {
    /// Addresses.
    pub addresses: Range<u64>,
    /// Kind.
    pub kind: Kind,
    /// Where the mapping begins in its file; of no meaning for others than [`Kind::Shared`].
    pub offset: u64,
}

/// The mappings of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Maps {
    /// In address order, those of a kind that adjoin as one.
    pub ranges: Vec<MemoryRange>,
    /// Starts of the lowest private mappings that can be read.
    pub lowest_private: Vec<u64>,
    /// Start of the highest mapping of the process's own memory.
    pub highest_own: Option<u64>,
}

impl Maps {
    /// The ranges that have addresses in `[start, end)`.
    pub(super) fn overlapping(&self, addresses: &Range<u64>) -> impl Iterator<Item = &MemoryRange> {
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

/// How many of the lowest mappings are remembered: the file of the first may have been cut.
const LOWEST: usize = 4;
/// Bytes of a line at most: a path has 4096, each of which may be escaped as four.
const LINE: usize = 20 << 10;

/// Reads `/proc/<pid>/maps`, in address order.
///
/// # Errors
/// When it cannot be read, or does not look like one.
pub(super) fn read_maps(file: File) -> io::Result<Maps> {
    parse_maps(&mut BufReader::with_capacity(64 << 10, file))
}

/// Starts of the lowest private mappings that can be read, without reading all of the file.
pub(super) fn lowest_private(file: File) -> Vec<u64> {
    let mut start = vec![0; 4096];
    let Ok(count) = { &file }.read(&mut start) else {
        return Vec::new();
    };
    start.truncate(count);
    // Whole lines only.
    start.truncate(
        start
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |end| end + 1),
    );
    parse_maps(&mut start.as_slice())
        .map(|maps| maps.lowest_private)
        .unwrap_or_default()
}

fn parse_maps(reader: &mut impl BufRead) -> io::Result<Maps> {
    let mut maps = Maps::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if Read::take(&mut *reader, LINE as u64).read_until(b'\n', &mut line)? == 0 {
            return Ok(maps);
        }
        let (range, permissions) =
            parse_line(&line).ok_or_else(|| io::Error::other("a line is not understood"))?;
        let start = range.addresses.start;
        if permissions.readable && !permissions.shared && maps.lowest_private.len() < LOWEST {
            maps.lowest_private.push(start);
        }
        if range.kind == Kind::Anonymous {
            maps.highest_own = Some(start);
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
    }
}

#[derive(Clone, Copy)]
struct Permissions {
    readable: bool,
    shared: bool,
}

fn parse_line(line: &[u8]) -> Option<(MemoryRange, Permissions)> {
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
    let _device = field()?;
    let inode: u64 = field()?.parse().ok()?;
    let name = rest.trim_ascii_start();
    let range = MemoryRange {
        addresses,
        kind: kind(permissions.shared, inode, name),
        offset,
    };
    Some((range, permissions))
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
            let (range, _) = parse_line(line.as_bytes()).unwrap();
            assert_eq!(range.kind, expected, "{line}");
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
        let maps = parse_maps(&mut maps.as_slice()).unwrap();
        assert_eq!(maps.lowest_private, [0x1000, 0x6000]);
        assert_eq!(maps.highest_own, Some(0x6000));
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
        assert!(parse_maps(&mut &b"rubbish\n"[..]).is_err());
    }

    #[test]
    fn the_maps_of_this_process_are_read() {
        let maps = read_maps(File::open("/proc/self/maps").unwrap()).unwrap();
        let ranges = &maps.ranges;
        let lowest = lowest_private(File::open("/proc/self/maps").unwrap());
        assert!(!lowest.is_empty() && maps.lowest_private.starts_with(&lowest));
        assert!(ranges.iter().any(|range| range.kind == Kind::Anonymous));
        assert!(ranges.is_sorted_by_key(|range| range.addresses.start));
    }
}
