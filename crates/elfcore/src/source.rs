//! Where the bytes of a core or an ELF file come from: a memory map, a buffer, a file, a remote range reader.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Random access to bytes that may be short, remote or changing.
pub trait ByteSource: Send + Sync {
    /// Length in bytes that the source really holds now.
    fn len(&self) -> u64;

    /// Whether there is nothing to read.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` from `offset` on; returns how many bytes there were, less than asked only at the end.
    ///
    /// # Errors
    /// What the file, the network or the decompressor says.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// All bytes at once, where they are in memory anyway.
    fn as_slice(&self) -> Option<&[u8]> {
        None
    }
}

fn copy_from(data: &[u8], offset: u64, buf: &mut [u8]) -> usize {
    let tail = usize::try_from(offset)
        .ok()
        .and_then(|at| data.get(at..))
        .unwrap_or_default();
    let count = tail.len().min(buf.len());
    if let (Some(to), Some(from)) = (buf.get_mut(..count), tail.get(..count)) {
        to.copy_from_slice(from);
    }
    count
}

impl ByteSource for Vec<u8> {
    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        Ok(copy_from(self, offset, buf))
    }
    fn as_slice(&self) -> Option<&[u8]> {
        Some(self)
    }
}

/// Own files up to this size are copied, which takes less than 0.1 s for 64 MiB in the page cache.
const COPIED: u64 = 64 << 20;
/// Part of the machine's memory that a copy may take.
const MEMORY_SHARE: u64 = 4;
/// File systems on which only this machine's processes change files (`statfs(2)`): ext4, XFS, Btrfs, tmpfs,
/// overlayfs, F2FS, squashfs, EROFS, ZFS.
const LOCAL: [u64; 9] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x0102_1994,
    0x794c_7630,
    0xf2f5_2010,
    0x7371_7368,
    0xe0f5_e1e2,
    0x2fc1_2fc1,
];

/// All bytes of a file, which do not change for as long as this lives.
///
/// The bytes of a map change with the file, and reading them raises SIGBUS where the file was cut. So a file
/// is mapped only where no other user can change it, and copied everywhere else: see [`Self::from_file`].
#[derive(Debug)]
pub struct MappedFile(Contents);

#[derive(Debug)]
enum Contents {
    Map(memmap2::Mmap),
    Copy(Vec<u8>),
}

impl MappedFile {
    /// The bytes of the file at `path`, as [`Self::from_file`].
    ///
    /// # Errors
    /// If it cannot be opened or read.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::from_file(&File::open(path)?)
    }

    /// The bytes of an open file. It is mapped if it is on a local file system, its mode lets no group and
    /// no others write, and it belongs to
    ///
    /// - root: package managers replace such files, and never write into them;
    /// - or to this user, and has no write permission or more than 64 MiB. Smaller ones are copied, because
    ///   a build of the user's may cut them meanwhile.
    ///
    /// Any other file is copied.
    ///
    /// # Errors
    /// If it cannot be read, or takes more than a quarter of the machine's memory to copy.
    #[allow(unsafe_code)]
    pub fn from_file(file: &File) -> io::Result<Self> {
        if can_be_mapped(file)? {
            // SAFETY: only root, or this user on purpose, can change the file while it is mapped.
            return unsafe { Self::map(file) };
        }
        copy_of(file).map(|bytes| Self(Contents::Copy(bytes)))
    }

    /// Maps an open file that others may change: for a process that is made to die of SIGBUS, such as the
    /// handler's isolated child, where copying a large program would take too long.
    ///
    /// # Safety
    /// The file must not change while the value lives, or all that reads it must be confined to a process
    /// whose results are checked by another one.
    ///
    /// # Errors
    /// If it cannot be mapped.
    #[allow(unsafe_code)]
    pub unsafe fn map(file: &File) -> io::Result<Self> {
        // SAFETY: the map is read-only, and the caller answers for the file.
        unsafe { memmap2::Mmap::map(file) }.map(|map| Self(Contents::Map(map)))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Contents::Map(map) => map,
            Contents::Copy(bytes) => bytes,
        }
    }
}

fn can_be_mapped(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    // The group's bits are the mask of an access control list, too.
    if metadata.mode() & 0o022 != 0 || !metadata.is_file() {
        return Ok(false);
    }
    let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
    let is_fixed = metadata.mode() & 0o222 == 0 || metadata.len() > COPIED;
    if metadata.uid() != 0 && !(is_own && is_fixed) {
        return Ok(false);
    }
    let kind = rustix::fs::fstatfs(file)?.f_type;
    Ok(LOCAL
        .iter()
        .any(|local| i128::from(kind) == i128::from(*local)))
}

fn copy_of(file: &File) -> io::Result<Vec<u8>> {
    let source = FileSource::new(file.try_clone()?)?;
    let memory = rustix::system::sysinfo();
    let memory = memory.totalram.saturating_mul(memory.mem_unit.into());
    if source.len() > memory / MEMORY_SHARE {
        let problem = "it is too large to copy, and another user can change it";
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    let mut bytes = vec![0; usize::try_from(source.len()).unwrap_or(0)];
    let count = source.read_at(0, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}

impl ByteSource for MappedFile {
    fn len(&self) -> u64 {
        self.bytes().len() as u64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        Ok(copy_from(self.bytes(), offset, buf))
    }
    fn as_slice(&self) -> Option<&[u8]> {
        Some(self.bytes())
    }
}

/// A file read by `pread(2)`: for files that may change or shrink.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    len: u64,
}

impl FileSource {
    /// Takes over an open file with the length it has now.
    ///
    /// # Errors
    /// When its length cannot be asked.
    pub fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, len })
    }
}

impl ByteSource for FileSource {
    fn len(&self) -> u64 {
        self.len
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(count) => done = done.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

/// Bytes that are read at once: of most stacks the frames take less than a page, and of a thousand stacks
/// each block more is megabytes that are copied in vain.
const BLOCK: u64 = 4 << 10;
/// Reads of this size and more are not kept.
const PIECE: u64 = 2 << 10;
/// Blocks that are kept: 2 MiB, enough for the threads that are unwound at the same time.
const BLOCKS: u64 = 512;

/// A file read by `pread(2)` in blocks, with a cache of some of them.
///
/// For cores: a thousand stacks in a map cost a page table's neighbourhood of memory each, and a core
/// may shrink while it is looked at.
#[derive(Debug)]
pub struct BlockSource {
    file: FileSource,
    /// Number of the block that each slot holds, and its bytes.
    slots: Vec<Mutex<(u64, Vec<u8>)>>,
}

impl BlockSource {
    /// Takes over an open file with the length it has now.
    ///
    /// # Errors
    /// When its length cannot be asked.
    pub fn new(file: File) -> io::Result<Self> {
        let empty = || Mutex::new((u64::MAX, Vec::new()));
        Ok(Self {
            file: FileSource::new(file)?,
            slots: std::iter::repeat_with(empty)
                .take(BLOCKS as usize)
                .collect(),
        })
    }

    /// Copies from the one block that holds `offset`.
    fn read_block(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let number = offset / BLOCK;
        let slot = usize::try_from(number % BLOCKS).unwrap_or(0);
        let Some(slot) = self.slots.get(slot) else {
            return Ok(0);
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.0 != number {
            slot.0 = u64::MAX;
            slot.1.resize(BLOCK as usize, 0);
            let count = self
                .file
                .read_at(number.saturating_mul(BLOCK), &mut slot.1)?;
            slot.1.truncate(count);
            slot.0 = number;
        }
        Ok(copy_from(&slot.1, offset % BLOCK, buf))
    }
}

impl ByteSource for BlockSource {
    fn len(&self) -> u64 {
        self.file.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        // Who reads so much at once keeps it too.
        if buf.len() as u64 >= PIECE {
            return self.file.read_at(offset, buf);
        }
        let mut done = 0_usize;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.read_block(offset.saturating_add(done as u64), rest)? {
                0 => break,
                count => done = done.saturating_add(count),
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn mapped_file_does_not_change_with_a_file_that_others_or_a_build_may_cut() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, owner) in [(0o666, 0), (0o664, 0), (0o755, 65534), (0o400, 65534)] {
            let path = dir.path().join(format!("{mode:o}-{owner}"));
            std::fs::write(&path, vec![7; 3 << 20]).unwrap();
            let file = File::options().read(true).write(true).open(&path).unwrap();
            use std::os::unix::fs::{PermissionsExt, fchown};
            file.set_permissions(std::fs::Permissions::from_mode(mode))
                .unwrap();
            if owner != 0 && fchown(&file, Some(owner), None).is_err() {
                eprintln!("SKIPPED: only root gives files away");
                continue;
            }
            let mapped = MappedFile::open(&path).unwrap();
            assert!(matches!(mapped.0, Contents::Copy(_)), "{mode:o} {owner}");
            file.set_len(0).unwrap();
            // A map would raise SIGBUS here.
            assert!(mapped.bytes().iter().all(|byte| *byte == 7));
            assert_eq!(ByteSource::len(&mapped), 3 << 20);
        }
        let system = MappedFile::open(Path::new("/bin/sh")).unwrap();
        let is_local = can_be_mapped(&File::open("/bin/sh").unwrap()).unwrap();
        assert_eq!(matches!(system.0, Contents::Map(_)), is_local);
    }

    #[test]
    fn blocks_give_what_the_file_holds() {
        let content: Vec<u8> = (0..3 * BLOCK as u32 + 100)
            .map(|n| (n % 251) as u8)
            .collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let source = BlockSource::new(file).unwrap();
        let ends = [
            0,
            5,
            BLOCK as usize - 3,
            BLOCK as usize,
            3 * BLOCK as usize,
            content.len(),
        ];
        for from in ends {
            for length in [0, 1, 8, 100, PIECE as usize, 4096, BLOCK as usize + 1] {
                let mut found = vec![0; length];
                let count = source.read_at(from as u64, &mut found).unwrap();
                let expected = &content[from..(from + length).min(content.len())];
                assert_eq!(&found[..count], expected, "{from} {length}");
            }
        }
    }
}
