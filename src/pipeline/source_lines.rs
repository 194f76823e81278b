//! Finds the source files that frames are in.
//!
//! The paths come from the program's debug information, a stranger's word: only regular files of a size
//! that a person would write are read, and only where the user asked for source lines.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cdh_symbolize::Backtrace;
use std::io::Read;

use super::files::open_regular;
use crate::render::Sources;

/// The largest source file that is read; generated ones reach some MiB.
const SIZE_LIMIT: u64 = 16 << 20;

/// Where source files are looked for.
#[derive(Clone, Debug, Default)]
pub struct SourceSearch {
    /// Replacements of the start of a path.
    pub mappings: Vec<(String, PathBuf)>,
    /// Directories in which ever shorter ends of a path are looked for.
    pub directories: Vec<PathBuf>,
}

/// Reads the files of all frames; those that are not found are left out.
#[must_use]
pub fn sources(backtrace: &Backtrace, search: &SourceSearch) -> Sources {
    let frames = backtrace.threads.iter().flat_map(|thread| &thread.frames);
    let files: BTreeSet<&str> = frames
        .filter_map(|frame| Some(frame.location.as_ref()?.file.as_str()))
        .collect();
    let read = |file: &str| {
        let lines = candidates(file, search)
            .iter()
            .find_map(|path| read_lines(path))?;
        Some((file.to_owned(), lines))
    };
    files.into_iter().filter_map(read).collect()
}

fn candidates(file: &str, search: &SourceSearch) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (from, to) in &search.mappings {
        let rest = Path::new(file).strip_prefix(from);
        found.extend(rest.map(|rest| to.join(rest)));
    }
    let parts: Vec<&str> = file
        .split('/')
        .filter(|part| !matches!(*part, "" | "." | ".."))
        .collect();
    for directory in &search.directories {
        for start in 0..parts.len() {
            let end: PathBuf = parts.iter().skip(start).collect();
            found.push(directory.join(end));
        }
    }
    if file.starts_with('/') {
        found.push(PathBuf::from(file));
    }
    found
}

fn read_lines(path: &Path) -> Option<Vec<String>> {
    let file = open_regular(path).ok()?;
    if file.metadata().ok()?.len() > SIZE_LIMIT {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(SIZE_LIMIT).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    Some(text.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_mapping_directory_and_own_path() {
        let search = SourceSearch {
            mappings: vec![("/build".to_owned(), PathBuf::from("/home/me"))],
            directories: vec![PathBuf::from("/src")],
        };
        let found = candidates("/build/app/../lib/a.c", &search);
        let found: Vec<&str> = found.iter().filter_map(|path| path.to_str()).collect();
        assert_eq!(found[0], "/home/me/app/../lib/a.c");
        assert!(found.contains(&"/src/lib/a.c") && found.contains(&"/src/a.c"));
        assert_eq!(found.last(), Some(&"/build/app/../lib/a.c"));
    }
}
