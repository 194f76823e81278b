//! Directories of cores, such as /var/lib/systemd/coredump.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::journal;
use crate::pipeline::compressed::Compression;
use crate::pipeline::dump;
use crate::pipeline::files::open_regular;
use crate::render::terminal_line;

/// What happens to a core that the store already has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicates {
    /// It is stored once more.
    Stored,
    /// It is not stored again.
    Skipped,
}

/// The files in a directory that look like dumps, by their first bytes, and the number of the others. Journal
/// exports come first, because they hold more facts than the core's own file. Sub-directories are not entered.
///
/// # Errors
/// When the directory cannot be read.
pub fn importable_files(directory: &Path) -> Result<(Vec<PathBuf>, usize)> {
    let shown = terminal_line(&directory.display().to_string());
    let entries = fs::read_dir(directory).map_err(|error| dump::unreadable(error, &shown))?;
    let (mut journals, mut cores, mut others) = (Vec::new(), Vec::new(), 0);
    for entry in entries {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        let path = entry.path();
        let mut start = [0; 16];
        // An unreadable file is included, so that its error is reported.
        let known = open_regular(&path).and_then(|mut file| file.read(&mut start));
        let start = start
            .get(..*known.as_ref().unwrap_or(&0))
            .unwrap_or_default();
        let is_dump = start.starts_with(b"\x7fELF")
            || start.starts_with(b"PK\x03\x04")
            || Compression::from_magic(start).is_some();
        match () {
            () if start.starts_with(journal::MAGIC) => journals.push(path),
            () if is_dump || known.is_err() => cores.push(path),
            () => others += 1,
        }
    }
    journals.sort();
    cores.sort();
    journals.append(&mut cores);
    Ok((journals, others))
}
