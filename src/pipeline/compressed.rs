//! Compressed cores: `.zst`, `.xz`, `.lz4`, `.gz` and `.bz2`, as systemd-coredump and users store them, and cores
//! in zips that are not bundles.
//!
//! The format is recognized by its first bytes. Limits for decompression: in memory, the window that a format
//! may request; in length, what the core's own headers promise; on disk, the free space. A core is unpacked into
//! a sparse file in a case of the cache, which is reused while the source file is unchanged.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use cdh_bundle::{CoreEncoding, CoreRecord, DigestReader, DumpId, EntryKind, Sha256};
use cdh_elfcore::{CoreError, CoreFile, FileSource};

use super::cached_cases::touch;
use super::fetch::sparse::{SparseFile, fill};
use super::other_file::{OtherFile, START};
use super::{Case, case, dump, import, zipped_core};
use crate::render::{shell_word, terminal_line};
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;

/// Maximum memory for an xz stream, in KiB. `xz -9` needs 65 MiB.
const XZ_MEMORY: u32 = 256 << 10;
/// Bytes of the core that are read to learn its length: program headers and notes.
const HEAD: u64 = 16 << 20;
/// Maximum bytes after the last segment: section headers, as `gcore` writes them.
const TAIL: u64 = 16 << 20;
/// Disk space to leave free when a core is unpacked.
const LEFT_FREE: u64 = 256 << 20;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Zstd,
    Xz,
    Lz4,
    Gzip,
    Bzip2,
}

/// The wrapper around a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrapping {
    /// A compressed file.
    Compressed(Compression),
    /// A zip that is not a bundle.
    Zip,
}

impl Compression {
    /// Determines the format from the first bytes of a file; `None` for any other format.
    pub(super) fn from_magic(start: &[u8]) -> Option<Self> {
        match start {
            // In some seekable files, a skippable frame precedes the data.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(Self::Lz4),
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Self::Bzip2),
            _ => None,
        }
    }

    /// Decompresses what `inner` reads.
    pub(super) fn reader<'r>(
        self,
        inner: impl Read + Send + 'r,
    ) -> io::Result<Box<dyn Read + Send + 'r>> {
        Ok(match self {
            Self::Zstd => Box::new(zstd::stream::read::Decoder::new(inner)?),
            Self::Xz => {
                let inner = BufReader::with_capacity(1 << 16, inner);
                Box::new(lzma_rust2::XzReader::new_mem_limit(inner, true, XZ_MEMORY))
            }
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(inner)),
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(inner)),
            Self::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(inner)),
        })
    }
}

/// A stream whose first bytes are known.
pub(super) struct Peeked<R> {
    /// The first bytes.
    pub(super) start: Vec<u8>,
    rest: R,
    at: usize,
}

impl<R: Read> Peeked<R> {
    /// Reads up to `len` bytes ahead.
    pub(super) fn new(mut rest: R, len: u64) -> io::Result<Self> {
        let mut start = Vec::new();
        match rest.by_ref().take(len).read_to_end(&mut start) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !start.is_empty() => {}
            other => drop(other?),
        }
        Ok(Self { start, rest, at: 0 })
    }
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut known = self.start.get(self.at..).unwrap_or_default();
        if known.is_empty() {
            return self.rest.read(buf);
        }
        let count = known.read(buf)?;
        self.at += count;
        Ok(count)
    }
}

/// A decompressed core that ends with an error when it is longer than its headers promise, because a few
/// bytes can decompress to any length. A truncated compressed file yields the part that it holds.
///
/// # Errors
/// If it is not a core, or cannot be decompressed.
pub(super) fn bounded<'r>(
    plain: impl Read + 'r,
    shown: &str,
    is_decompressed: bool,
) -> Result<Box<dyn Read + 'r>> {
    let peeked = match Peeked::new(plain, HEAD) {
        Ok(peeked) => peeked,
        Err(error) => return Err(cannot_decompress(error.into(), shown)),
    };
    if peeked.start.is_empty() {
        return Err(Failure::new(ExitStatus::Failure, format!("cannot read `{shown}`: it holds no core"))
            .hint("the disk was full, or RLIMIT_CORE too small, when the core was written: `ulimit -c unlimited`")
            .into());
    }
    let head = CoreFile::open(Box::new(peeked.start.clone())).map_err(|error| {
        match OtherFile::of(peeked.start.get(..START).unwrap_or(&peeked.start)) {
            // Commands for the content cannot open the compressed file.
            Some(inner)
                if is_decompressed
                    && matches!(error, CoreError::NotElf)
                    && !inner.is_opened_compressed() =>
            {
                let message = format!("cannot read `{shown}` as a core");
                Failure::new(ExitStatus::Failure, message)
                    .cause(anyhow::anyhow!("decompressed, {}", inner.cause()))
                    .hint("decompress it, then pass what was in it")
                    .into()
            }
            _ => dump::core_failure(error, shown, &peeked.start),
        }
    })?;
    let left = head.head().expected_len().saturating_add(TAIL);
    Ok(Box::new(Bounded {
        inner: peeked,
        left,
    }))
}

struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = match self.inner.read(buf) {
            // A truncated file still holds the start of a core, whose headers show what is missing.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            other => other?,
        };
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            let text = "it decompresses to more than the core's headers promise";
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        Ok(count)
    }
}

pub(super) fn cannot_decompress(error: anyhow::Error, shown: &str) -> anyhow::Error {
    let hint = memory_hint(&error, shown).unwrap_or_else(|| {
        "the file may be damaged or incomplete: copy it again from its source".to_owned()
    });
    let message = format!("cannot decompress `{shown}`");
    let failure = Failure::new(ExitStatus::Failure, message).cause(error);
    failure.hint(hint).into()
}

/// The command that decompresses a file whose window needs more memory than cdh allows.
fn memory_hint(error: &anyhow::Error, shown: &str) -> Option<String> {
    let error = error.downcast_ref::<io::Error>()?;
    let word = shell_word(shown);
    let command = match error.kind() {
        io::ErrorKind::OutOfMemory => format!("xz -dc {word} > core"),
        // The words of libzstd (`ZSTD_error_frameParameter_windowTooLarge`).
        _ if error.to_string().contains("requires too much memory") => {
            format!("zstd -d --long=31 {word} -o core")
        }
        _ => return None,
    };
    Some(format!(
        "it was compressed with a long window: decompress it with `{command}`, then pass `core`"
    ))
}

/// The plain core of a compressed file or a zip, unpacked into the cache if it is not there yet.
///
/// # Errors
/// When it is not a core, cannot be decompressed, or the disk is full.
pub(super) fn unpack(settings: &Settings, path: &Path, wrapping: Wrapping) -> Result<PathBuf> {
    let shown = terminal_line(&path.display().to_string());
    let mut file =
        super::files::open_regular(path).map_err(|error| dump::unreadable(error, &shown))?;
    file.rewind()?;
    let id = identity(path, &file)?;
    let cases = settings.cache.require("cases")?;
    let target = cases.join(id.to_string());
    if let Some(core) = Case::core_path(&target)
        && Case::open(&target).is_ok_and(|found| found.is_some())
    {
        touch(&target);
        return Ok(core);
    }
    case::private_directory(&cases)
        .with_context(|| format!("cannot create `{}`", cases.display()))?;
    let part = cases.join(format!(".{id}-{}.part", DumpId::random().short()));
    case::private_directory(&part)?;
    let outcome = unpack_into(&part, path, file, wrapping, &shown);
    let published = outcome.and_then(|()| match fs::rename(&part, &target) {
        // Another run was faster; its case is equal.
        Err(_) if Case::core_path(&target).is_some() => Ok(()),
        other => Ok(other?),
    });
    if part.exists() {
        let _ = fs::remove_dir_all(&part);
    }
    published?;
    Ok(target.join("core"))
}

/// Unchanged while the file is unchanged.
fn identity(path: &Path, file: &File) -> io::Result<DumpId> {
    let found = file.metadata()?;
    let text = format!(
        "{} {} {} {} {}.{} {}.{}",
        fs::canonicalize(path)?.display(),
        found.dev(),
        found.ino(),
        found.size(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    );
    Ok(DumpId::from_digest(&Sha256::of(text.as_bytes())))
}

fn unpack_into(
    part: &Path,
    path: &Path,
    file: File,
    wrapping: Wrapping,
    shown: &str,
) -> Result<()> {
    let failed = |error: io::Error| cannot_decompress(error.into(), shown);
    let plain = match wrapping {
        Wrapping::Compressed(compression) => compression.reader(file).map_err(failed)?,
        Wrapping::Zip => zipped_core::open(Arc::new(FileSource::new(file)?), shown)?,
    };
    let plain = bounded(plain, shown, true)?;
    let mut reader = DigestReader::new(plain);
    let core_path = part.join("core");
    let core = SparseFile::create(&core_path)?;
    let mut block = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let space = rustix::fs::statvfs(part)?;
        if space.f_bavail.saturating_mul(space.f_frsize) < LEFT_FREE {
            let message = format!("cannot unpack `{shown}`: no space left in the cache");
            let hint = "free space with `cdh cache clear`, or set XDG_CACHE_HOME to a larger disk";
            return Err(Failure::new(ExitStatus::Failure, message).hint(hint).into());
        }
        let (count, ended) = fill(&mut reader, &mut block);
        core.write_at(at, block.get(..count).unwrap_or_default())?;
        at += count as u64;
        if ended.map_err(failed)? {
            break;
        }
    }
    core.set_len(at)?;
    let digests = reader.digests();
    let opened = dump::open_core_file(&core_path)?;
    let original = super::files::open_regular(path)?;
    let provenance = import::Provenance::of_file(&original, path);
    let mut manifest = import::manifest_of_core(&opened, path, &provenance);
    manifest.core = Some(CoreRecord {
        entry: EntryKind::Core(CoreEncoding::None).file_name(),
        encoding: CoreEncoding::None,
        size: digests.size,
        expected: opened.head().expected_len(),
        sha256: Some(digests.sha256),
    });
    // Written last: a directory with a manifest is a complete case.
    fs::write(
        part.join(EntryKind::Manifest.file_name()),
        manifest.to_json()?,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn formats_are_recognized_and_decompressed() {
        let text = b"a core would be here ".repeat(5000);
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&text).unwrap();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&text).unwrap();
        for (bytes, expected) in [
            (bzip2.finish().unwrap(), Compression::Bzip2),
            (zstd, Compression::Zstd),
            (gzip.finish().unwrap(), Compression::Gzip),
            (lz4.finish().unwrap(), Compression::Lz4),
        ] {
            let found = Compression::from_magic(&bytes);
            assert_eq!(found, Some(expected));
            let mut plain = Vec::new();
            let mut reader = expected.reader(&bytes[..]).unwrap();
            reader.read_to_end(&mut plain).unwrap();
            assert!(plain == text, "{expected:?}");
        }
        assert_eq!(Compression::from_magic(b"\x7fELF"), None);
    }

    #[test]
    fn windows_that_need_too_much_memory_are_refused_with_a_command() {
        let text = b"a core would be here ".repeat(5000);
        let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        zstd.window_log(28).unwrap();
        zstd.include_contentsize(false).unwrap();
        zstd.write_all(&text).unwrap();
        let zstd = zstd.finish().unwrap();
        // The header of an xz stream without checks, and that of a block whose dictionary has 2 GiB (3.1.2, 5.3.1 of
        // the format): none is allocated.
        let with_crc = |bytes: &[u8]| [bytes, &crc32fast::hash(bytes).to_le_bytes()].concat();
        let flags = with_crc(&[0, 0]);
        let block = with_crc(&[2, 0, 0x21, 1, 38, 0, 0, 0]);
        let xz = [&b"\xfd7zXZ\0"[..], &flags, &block, &[0; 64]].concat();
        for (bytes, compression, command) in [
            (zstd, Compression::Zstd, "`zstd -d --long=31 x -o core`"),
            (xz, Compression::Xz, "`xz -dc x > core`"),
        ] {
            let mut reader = compression.reader(&bytes[..]).unwrap();
            let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
            let failure = cannot_decompress(error.into(), "x");
            let hints = crate::report::rendered(&failure).hints;
            assert!(hints[0].contains(command), "{hints:?}");
        }
    }

    #[test]
    fn bounded_reader_fails_beyond_its_length() {
        let mut reader = Bounded {
            inner: io::repeat(0),
            left: 1000,
        };
        let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn peeked_bytes_are_read_again() {
        let mut peeked = Peeked::new(&b"abcdef"[..], 3).unwrap();
        assert_eq!(peeked.start, b"abc");
        let mut all = Vec::new();
        peeked.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"abcdef");
    }
}
