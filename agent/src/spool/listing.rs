//! What is in the spool, by the names of its entries alone.
//!
//! Names that are not ours are not entries: nothing is done with them, and nothing fails on them.

use std::fs;
use std::io;
use std::path::Path;

use cdh_bundle::DumpId;
use serde::Serialize;

/// Sub-directory for entries of which nothing can be made.
pub const QUARANTINE: &str = "quarantine";

/// State of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Found {
    /// Ready to be shipped.
    Sealed,
    /// A handler writes it, or has died.
    Partial,
    /// In the store already.
    Shipped,
    /// Its handler had not even locked it.
    New,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpoolEntry {
    /// State.
    pub state: Found,
    /// Id.
    pub id: DumpId,
}

impl SpoolEntry {
    /// Parses the name of an entry.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (state, id) = if let Some(id) = name.strip_suffix(".partial") {
            (Found::Partial, id)
        } else if let Some(id) = name.strip_suffix(".shipped") {
            (Found::Shipped, id)
        } else if let Some(id) = name
            .strip_prefix('.')
            .and_then(|rest| rest.strip_suffix(".new"))
        {
            (Found::New, id)
        } else {
            (Found::Sealed, name)
        };
        let parsed: DumpId = id.parse().ok()?;
        // Only the one spelling that we write.
        (parsed.to_string() == id).then_some(Self { state, id: parsed })
    }

    /// Its name in the spool.
    #[must_use]
    pub fn name(&self) -> String {
        match self.state {
            Found::Sealed => self.id.to_string(),
            Found::Partial => format!("{}.partial", self.id),
            Found::Shipped => format!("{}.shipped", self.id),
            Found::New => format!(".{}.new", self.id),
        }
    }
}

/// The entries of a spool, oldest first; none where there is no spool.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(spool: &Path) -> io::Result<Vec<SpoolEntry>> {
    let directory = match fs::read_dir(spool) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        directory => directory?,
    };
    let mut entries = Vec::new();
    for entry in directory {
        let entry = entry?;
        let Some(found) = entry.file_name().to_str().and_then(SpoolEntry::parse) else {
            continue;
        };
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => {
                entries.push((metadata.modified().ok(), found));
            }
            _ => {}
        }
    }
    entries.sort();
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

/// How many entries there are in which state, and how much room they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SpoolCount {
    /// Wait to be shipped.
    pub sealed: u64,
    /// Being written, or left by a dead handler.
    pub partial: u64,
    /// In quarantine.
    pub quarantined: u64,
    /// Bytes on disk of all of these.
    pub bytes: u64,
}

/// Counts the spool.
///
/// # Errors
/// When a directory cannot be read.
pub fn count(spool: &Path) -> io::Result<SpoolCount> {
    let mut count = SpoolCount::default();
    for entry in list(spool)? {
        match entry.state {
            Found::Sealed => count.sealed += 1,
            Found::Partial => count.partial += 1,
            Found::Shipped | Found::New => continue,
        }
        count.bytes += size_of(&spool.join(entry.name()));
    }
    match fs::read_dir(spool.join(QUARANTINE)) {
        Ok(directory) => {
            for entry in directory.flatten() {
                count.quarantined += 1;
                count.bytes += size_of(&entry.path());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(count)
}

/// Bytes on disk of the files of an entry; entries vanish while we look, which is no error.
fn size_of(entry: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = fs::read_dir(entry).into_iter().flatten().flatten();
    files
        .filter_map(|file| file.metadata().ok())
        .map(|metadata| metadata.blocks() * 512)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_known_by_their_names_and_nothing_else_is_one() {
        let id = DumpId::random();
        for state in [Found::Sealed, Found::Partial, Found::Shipped, Found::New] {
            let entry = SpoolEntry { state, id };
            assert_eq!(SpoolEntry::parse(&entry.name()), Some(entry));
        }
        for name in [
            "",
            "quarantine",
            "x.partial",
            ".new",
            "../x",
            &id.to_string().to_uppercase(),
        ] {
            assert_eq!(SpoolEntry::parse(name), None, "{name}");
        }
    }

    #[test]
    fn files_and_strangers_in_the_spool_are_passed_over() {
        let spool = tempfile::tempdir().unwrap();
        let (sealed, file) = (DumpId::random(), DumpId::random());
        fs::create_dir(spool.path().join(sealed.to_string())).unwrap();
        fs::create_dir(spool.path().join("lost+found")).unwrap();
        fs::write(spool.path().join(file.to_string()), "not a directory").unwrap();
        std::os::unix::fs::symlink(
            "/",
            spool.path().join(format!("{}.partial", DumpId::random())),
        )
        .unwrap();
        let found = list(spool.path()).unwrap();
        assert_eq!(
            found,
            [SpoolEntry {
                state: Found::Sealed,
                id: sealed
            }]
        );
        assert_eq!(count(spool.path()).unwrap().sealed, 1);
        assert_eq!(list(&spool.path().join("absent")).unwrap(), []);
    }
}
