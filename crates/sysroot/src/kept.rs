//! Copies files from a stream into the cache.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use cdh_elfcore::{BuildId, ElfObject, MappedFile};

use crate::FileRole;
use crate::digest::RunningDigest;

/// Number of bytes of an ELF file to examine before deciding whether to store it. Linkers place the
/// notes right after the program headers.
pub(crate) const HEAD: usize = 16 << 10;
/// No module is larger.
pub(crate) const MAX_FILE: u64 = 4 << 30;
/// Granularity of holes for zeros.
const BLOCK: usize = 64 << 10;
/// `SHT_NOBITS`.
const NOBITS: u32 = 8;

/// The build-id in the first bytes of an ELF file.
#[must_use]
pub fn build_id_of(head: &[u8]) -> Option<BuildId> {
    ElfObject::parse(head).ok()?.build_id()
}

/// Like [`build_id_of`], for bytes that are usually not an ELF file.
pub(crate) fn id_of(head: &[u8]) -> Option<BuildId> {
    head.starts_with(b"\x7fELF")
        .then(|| build_id_of(head))
        .flatten()
}

/// The first bytes of a stored file.
pub(crate) fn head_of(path: &Path) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)
        .ok()?
        .take(HEAD as u64)
        .read_to_end(&mut head)
        .ok()?;
    Some(head)
}

/// Copies a file, with holes for zeros; returns its length and digest.
pub(crate) fn copy(reader: &mut dyn Read, file: &mut File) -> io::Result<(u64, crate::Digest)> {
    let mut digest = RunningDigest::default();
    let mut block = vec![0; BLOCK];
    let mut size: u64 = 0;
    loop {
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match reader.read(rest) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let bytes = block.get(..filled).unwrap_or_default();
        if bytes.is_empty() {
            file.set_len(size)?;
            return Ok((size, digest.finish()));
        }
        size = size.saturating_add(filled as u64);
        if size > MAX_FILE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a wanted file in it is larger than 4 GiB",
            ));
        }
        digest.update(bytes);
        match bytes.iter().all(|byte| *byte == 0) {
            true => file
                .seek(SeekFrom::Current(i64::try_from(filled).unwrap_or(0)))
                .map(|_| ())?,
            false => file.write_all(bytes)?,
        }
    }
}

/// Facts from a stored file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) build_id: Option<BuildId>,
    pub(crate) part: Option<FileRole>,
    pub(crate) debug_link: Option<Vec<u8>>,
    pub(crate) alternate: Option<BuildId>,
    pub(crate) has_debug_info: bool,
    pub(crate) has_symbols: bool,
}

/// Reads a stored ELF file; other files have no facts.
pub(crate) fn facts(file: &File) -> Facts {
    let Ok(map) = MappedFile::from_file(file) else {
        return Facts::default();
    };
    let Ok(object) = ElfObject::parse(map.bytes()) else {
        return Facts::default();
    };
    // `objcopy --only-keep-debug` retains the headers of code and data and removes their bytes; dwz's
    // shared files never had any.
    let code = object.section(".text");
    let has_debug_info = object.section(".debug_info").is_some();
    let empty = match code {
        Some(section) => section.kind == NOBITS,
        None => has_debug_info && object.load_segments().is_empty(),
    };
    Facts {
        build_id: object.build_id(),
        part: Some(if empty {
            FileRole::Debug
        } else {
            FileRole::File
        }),
        debug_link: object.debug_link().map(|(name, _)| name.to_vec()),
        alternate: object.debug_alt_link().map(|(_, id)| id),
        has_debug_info,
        has_symbols: object.section(".symtab").is_some(),
    }
}
