//! The page of a stack that is being unwound, read once: each frame asks for a few words of it.

use std::cell::RefCell;

use cdh_elfcore::{Avma, Memory};

/// Bytes that are read at once, and their alignment.
const PAGE: u64 = 4096;

/// Another memory, of which the last page is kept. For one thread at a time.
pub(super) struct PageMemory<'m> {
    memory: &'m dyn Memory,
    page: RefCell<Page>,
}

struct Page {
    start: u64,
    bytes: Vec<u8>,
}

impl<'m> PageMemory<'m> {
    pub(super) fn over(memory: &'m dyn Memory) -> Self {
        let (start, bytes) = (u64::MAX, Vec::new());
        let page = RefCell::new(Page { start, bytes });
        Self { memory, page }
    }
}

impl Memory for PageMemory<'_> {
    fn read(&self, at: Avma, buf: &mut [u8]) -> usize {
        let start = at.0 & !(PAGE - 1);
        let mut page = self.page.borrow_mut();
        if page.start != start {
            page.bytes.resize(PAGE as usize, 0);
            let known = self.memory.read(Avma(start), &mut page.bytes);
            page.bytes.truncate(known);
            page.start = start;
        }
        let from = usize::try_from(at.0.wrapping_sub(start)).ok();
        let kept = from.and_then(|from| page.bytes.get(from..)?.get(..buf.len()));
        match kept {
            Some(kept) => {
                buf.copy_from_slice(kept);
                buf.len()
            }
            // Over the end of the page, or in a page of which the beginning is not known.
            None => self.memory.read(at, buf),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Knows the bytes from 5000 to 9000, each its address.
    struct Some4000;

    impl Memory for Some4000 {
        fn read(&self, at: Avma, buf: &mut [u8]) -> usize {
            let known = 9000_u64.saturating_sub(at.0) as usize;
            let count = if at.0 < 5000 { 0 } else { known.min(buf.len()) };
            let bytes = buf.iter_mut().take(count).zip(at.0..);
            bytes.for_each(|(byte, address)| *byte = address as u8);
            count
        }
    }

    #[test]
    fn kept_page_says_what_the_memory_says() {
        let kept = PageMemory::over(&Some4000);
        for at in [
            0,
            4095,
            4999,
            5000,
            5001,
            8000,
            8190,
            8192,
            8995,
            9000,
            5000,
            u64::MAX,
        ] {
            for length in [0, 1, 8, 16] {
                let (mut ours, mut theirs) = ([0; 16], [0; 16]);
                let found = kept.read(Avma(at), &mut ours[..length]);
                assert_eq!(
                    found,
                    Some4000.read(Avma(at), &mut theirs[..length]),
                    "{at} {length}"
                );
                assert_eq!(ours[..found], theirs[..found], "{at} {length}");
            }
        }
    }
}
