//! Frees what a handler that only waits does not need: in a storm there are hundreds of them.
//!
//! Freed memory goes back to the kernel, and the program's own pages that no process can have changed (its
//! code and constants) out of the page tables: they stay in the page cache and come back from there.

#![allow(unsafe_code)]

/// Bytes of a program header.
const ENTRY: usize = size_of::<libc::Elf64_Phdr>();
/// Entries that are looked at.
const MOST: usize = 64;

/// Makes this process small until it goes on.
pub(crate) fn shrink() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a plain call of the C library.
    unsafe {
        libc::malloc_trim(0);
    }
    for (start, length) in constant_parts() {
        // SAFETY: pages of a private mapping of the program that cannot be written to and were never
        // changed; the kernel reads them from the file again.
        unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
}

/// Whole pages of the program's segments that are mapped without the right to write. What is made
/// read-only after it was relocated lies in a writable segment.
fn constant_parts() -> Vec<(usize, usize)> {
    // SAFETY: a plain call of the C library.
    let auxiliary = |kind| usize::try_from(unsafe { libc::getauxval(kind) }).unwrap_or(0);
    let (table, size, count) = (
        auxiliary(libc::AT_PHDR),
        auxiliary(libc::AT_PHENT),
        auxiliary(libc::AT_PHNUM),
    );
    if table == 0 || size != ENTRY {
        return Vec::new();
    }
    // SAFETY: the kernel says that so many program headers of this size stand there, in memory that is not
    // written.
    let headers =
        unsafe { std::slice::from_raw_parts(table as *const libc::Elf64_Phdr, count.min(MOST)) };
    let address = |header: &libc::Elf64_Phdr| usize::try_from(header.p_vaddr).unwrap_or(0);
    // A program that is not relocated has no header of the table, or one with the same address.
    let own = headers.iter().find(|header| header.p_type == libc::PT_PHDR);
    let bias = own.map_or(0, |own| table.wrapping_sub(address(own)));
    let page = rustix::param::page_size();
    let parts = headers
        .iter()
        .filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0);
    parts
        .filter_map(|header| {
            let start = bias.wrapping_add(address(header));
            let end = start.checked_add(usize::try_from(header.p_memsz).ok()?)?;
            // The pages at both ends may be shared with a neighbour.
            let (from, to) = (start.next_multiple_of(page), end / page * page);
            (from < to).then(|| (from, to - from))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_goes_on_after_it_was_made_small() {
        let parts = constant_parts();
        assert!(!parts.is_empty());
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        for (start, _) in &parts {
            let line = maps.lines().find(|line| {
                let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
                let hex = |text| usize::from_str_radix(text, 16).unwrap();
                (hex(from)..hex(to)).contains(start)
            });
            assert!(line.is_some_and(|line| line.contains(" r")), "{line:?}");
            assert!(line.is_some_and(|line| !line.contains(" rw")), "{line:?}");
        }
        let text = "still here".repeat(1000);
        shrink();
        assert_eq!(text.len(), 10_000);
        assert!(format!("{parts:?}").starts_with('['));
    }
}
