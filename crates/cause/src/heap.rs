//! Blocks on the free lists of glibc's malloc: the cache of each thread (`tcache`, `malloc/malloc.c`).
//!
//! The cache is the first block of its arena's heap. Since glibc 2.30:
//!
//! ```text
//! counts u16 × 64 | heads of the lists, pointers × 64
//! ```
//!
//! A free block begins with the address of the next one, since 2.32 combined with its own (`PROTECT_PTR`), and a
//! key. A pointer with one of these values was read from a block after it was freed: no other memory holds them.

use cdh_elfcore::{ModuleKind, Segment};

use crate::cause::Fact;
use crate::scene::{EXECUTABLE, Scene, WRITABLE};
use crate::words;

const BINS: usize = 64;
/// Size of the cache's block with the flag that the one before is in use, and that of another arena.
const CACHE_SIZES: [u64; 2] = [0x291, 0x295];
/// Offset of the heads from the counts.
const HEADS: u64 = 128;
/// Bytes at the start of a heap in which the cache is.
const REACH: usize = 4096;
/// Heaps of other arenas start at multiples of it (`HEAP_MAX_SIZE`).
const HEAP_ALIGNMENT: u64 = 64 << 20;
/// Heaps that are looked at.
const HEAPS: usize = 16;
/// Memory without a file after the program in which the main heap is looked for.
const AFTER_PROGRAM: usize = 3;
/// Most blocks of one list; the default is seven.
const LIST: u16 = 256;
/// Bytes after a word that still mean it: the member of a struct that it points to.
const MEMBER: u64 = 4096;
/// Smaller words say nothing.
const SMALLEST: u64 = 4 << 10;
/// Smaller words could be numbers: only these very words are meant.
const EXACT: u64 = 64 << 10;

/// A word that the allocator wrote.
pub(crate) struct AllocatorWord {
    /// The free block's address, as the program knew it.
    block: u64,
    /// Bytes that the program can use of such a block.
    size: u64,
    /// Offset of the word in it.
    offset: u64,
    /// The word.
    word: u64,
}

impl AllocatorWord {
    /// How sure it is that the block was used after it was freed, if a pointer was read from `read_from`.
    ///
    /// A new block still holds the link of the free one that it was: then it was used before it was filled.
    pub(crate) fn words(&self, read_from: Option<u64>) -> &'static str {
        let is_block = read_from == self.block.checked_add(self.offset);
        match self.offset == 0 && !is_block {
            true => "used memory after it was freed, or before it was filled",
            false => "used memory after it was freed",
        }
    }

    pub(crate) fn fact(&self) -> Fact {
        let what = match self.offset {
            0 => "the link to the next free block",
            _ => "the mark of a free block",
        };
        let text = format!(
            "the block of {} at {:#x} is on malloc's list of free blocks; at offset {} it holds {:#x}, {what}",
            words::bytes(self.size),
            self.block,
            self.offset,
            self.word
        );
        Fact::new(text).at(self.block)
    }
}

/// The free block that `pointer` was read from, if a list of free blocks shows one.
pub(crate) fn allocator_word(scene: &Scene<'_>, pointer: u64) -> Option<AllocatorWord> {
    if pointer < SMALLEST {
        return None;
    }
    heaps(scene).find_map(|cache| in_cache(scene, cache, pointer))
}

/// Addresses of the caches.
fn heaps<'s>(scene: &'s Scene<'_>) -> impl Iterator<Item = u64> + 's {
    let program = scene.crash.modules.iter();
    let program = program.filter(|loaded| loaded.module.kind == ModuleKind::Executable);
    let program = program
        .map(|loaded| loaded.module.end().0)
        .max()
        .unwrap_or(0);
    let is_heap = move |segment: &&Segment| {
        segment.flags & WRITABLE != 0
            && segment.flags & EXECUTABLE == 0
            && segment.file_size > 0
            && scene.mapped_file(segment.start.0).is_none()
    };
    let after = scene.crash.segments.iter().filter(is_heap);
    let after = after
        .filter(move |segment| segment.start.0 >= program)
        .take(AFTER_PROGRAM);
    let other = scene.crash.segments.iter().filter(is_heap);
    let other = other.filter(|segment| segment.start.0.is_multiple_of(HEAP_ALIGNMENT));
    after
        .chain(other)
        .take(HEAPS)
        .filter_map(|segment| cache_in(scene, segment.start.0))
}

fn cache_in(scene: &Scene<'_>, start: u64) -> Option<u64> {
    let mut page = vec![0; REACH];
    let known = scene.crash.memory.read(cdh_elfcore::Avma(start), &mut page);
    let (words, _) = page.get(..known)?.as_chunks::<8>();
    let is_size = |word: &[u8; 8]| CACHE_SIZES.contains(&u64::from_le_bytes(*word));
    let sizes = words
        .iter()
        .enumerate()
        .filter(|(index, word)| index % 2 == 1 && is_size(word));
    let caches = sizes
        .filter_map(|(index, _)| start.checked_add((index as u64).checked_add(1)?.checked_mul(8)?));
    caches.into_iter().find(|cache| is_cache(scene, *cache))
}

/// A list has a head if and only if its count is not zero, and heads are aligned.
fn is_cache(scene: &Scene<'_>, cache: u64) -> bool {
    let is_bin = |bin: usize| {
        let (count, head) = bin_of(scene, cache, bin)?;
        Some((count == 0) == (head == 0) && count <= LIST && head.is_multiple_of(16))
    };
    (0..BINS).all(|bin| is_bin(bin) == Some(true))
}

fn bin_of(scene: &Scene<'_>, cache: u64, bin: usize) -> Option<(u16, u64)> {
    let bin = bin as u64;
    let count = scene.u16_at(cache.checked_add(bin.checked_mul(2)?)?)?;
    let head = cache.checked_add(HEADS)?.checked_add(bin.checked_mul(8)?)?;
    Some((count, scene.u64_at(head)?))
}

fn in_cache(scene: &Scene<'_>, cache: u64, pointer: u64) -> Option<AllocatorWord> {
    let means = |word: u64| match word {
        ..SMALLEST => false,
        SMALLEST..EXACT => pointer == word,
        _ => pointer.checked_sub(word).is_some_and(|more| more < MEMBER),
    };
    (0..BINS).find_map(|bin| {
        let (count, mut block) = bin_of(scene, cache, bin)?;
        let size = (bin as u64).checked_mul(16)?.checked_add(24)?;
        for _ in 0..count.min(LIST) {
            let link = scene.u64_at(block)?;
            let key = scene.u64_at(block.checked_add(8)?)?;
            let found = |offset, word| AllocatorWord {
                block,
                size,
                offset,
                word,
            };
            if means(link) {
                return Some(found(0, link));
            }
            if means(key) {
                return Some(found(8, key));
            }
            block = (block >> 12) ^ link;
            if !block.is_multiple_of(16) || block == 0 {
                break;
            }
        }
        None
    })
}
