//! A directory with source files: finds files by name and reads them.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use super::revision::Revision;
use crate::pipeline::files::open_beneath;

/// Maximum size of a source file; generated ones reach some MiB.
pub(super) const SIZE_LIMIT: u64 = 16 << 20;
/// Maximum number of files that are searched.
const FILES: usize = 100_000;
/// Directories inside each other.
const DEPTH: usize = 24;
/// Directories of build tools, which contain copies and products.
const SKIPPED: [&str; 2] = ["target", "node_modules"];

/// A directory whose files may be read.
pub(super) struct Root {
    path: PathBuf,
    canonical: PathBuf,
    /// Whether the user named it; otherwise it is the current directory.
    is_named: bool,
    revision: Option<Revision>,
    index: OnceCell<HashMap<String, Vec<Entry>>>,
}

/// A file below a root.
struct Entry {
    path: PathBuf,
    blob: Option<String>,
}

/// A candidate for the wanted file.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Below the root.
    pub(super) path: PathBuf,
    /// In git, if it is read from there.
    blob: Option<String>,
    /// Number of equal components at the end of the path, and whether it is directly below the
    /// root.
    pub(super) rank: (usize, bool),
    /// Whether more than its name matches.
    pub(super) is_likely: bool,
}

/// What a file holds.
pub(super) struct Contents {
    pub(super) bytes: Vec<u8>,
    /// Its modification time; `None` if the revision is known to be right, so that the time does not matter.
    pub(super) modified: Option<SystemTime>,
}

impl Root {
    /// `None` if it is not a directory.
    pub(super) fn open(path: &Path, revision: Option<&str>, is_named: bool) -> Option<Self> {
        let canonical = path.canonicalize().ok().filter(|path| path.is_dir())?;
        Some(Self {
            path: path.to_owned(),
            revision: revision.and_then(|revision| Revision::open(&canonical, revision)),
            canonical,
            is_named,
            index: OnceCell::new(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a candidate, with no links between the root and it.
    pub(super) fn absolute(&self, candidate: &Candidate) -> PathBuf {
        self.canonical.join(&candidate.path)
    }

    /// What the reader must know about every file in this root.
    pub(super) fn warning(&self) -> Option<String> {
        self.revision.as_ref().and_then(Revision::warning)
    }

    /// The file to which a mapping from `from` to this root leads.
    pub(super) fn mapped(&self, file: &str, from: &str) -> Option<Candidate> {
        let rest = normal(Path::new(file).strip_prefix(from).ok()?)?;
        let count = rest.components().count();
        let of_revision = self
            .revision
            .as_ref()
            .filter(|revision| revision.is_there());
        let blob = match of_revision {
            // The revision does not have the file.
            Some(_) => Some(self.blob(&rest)?),
            None => None,
        };
        Some(Candidate {
            blob,
            path: rest,
            rank: (count, true),
            is_likely: true,
        })
    }

    /// All files with the name of `file`.
    pub(super) fn candidates(&self, file: &str) -> Vec<Candidate> {
        let file = Path::new(file);
        let parts = parts(file);
        let Some(name) = parts.last() else {
            return Vec::new();
        };
        let below = normal_absolute(file);
        let below =
            below.and_then(|path| path.strip_prefix(&self.canonical).ok().map(Path::to_owned));
        let index = self.index.get_or_init(|| self.make_index());
        let mut found: Vec<Candidate> = index
            .get(name)
            .map(Vec::as_slice)
            .unwrap_or_default()
            .iter()
            .map(|entry| {
                let own = self::parts(&entry.path);
                let equal = own.iter().rev().zip(parts.iter().rev());
                let equal = equal.take_while(|(own, wanted)| own == wanted).count();
                let is_direct = equal == own.len();
                let is_exact = below.as_ref() == Some(&entry.path);
                Candidate {
                    path: entry.path.clone(),
                    blob: entry.blob.clone(),
                    rank: (if is_exact { usize::MAX } else { equal }, is_direct),
                    is_likely: self.is_named || is_direct || equal > 1 || equal == parts.len(),
                }
            })
            .collect();
        // Not in the index: there are too many files, or the directory is not searched.
        let is_new = |path: &PathBuf| found.iter().all(|other| other.path != *path);
        if let Some(path) = below.filter(|path| is_new(path) && !is_hidden(path)) {
            found.push(Candidate {
                path,
                blob: None,
                rank: (usize::MAX, true),
                is_likely: true,
            });
        }
        found
    }

    pub(super) fn read(&self, candidate: &Candidate) -> Option<Contents> {
        // The author of the debug information chose the path, and hidden files contain credentials.
        if is_hidden(&candidate.path) {
            return None;
        }
        if let (Some(blob), Some(revision)) = (&candidate.blob, &self.revision) {
            let bytes = revision.read(&self.canonical, blob)?;
            return Some(Contents {
                bytes,
                modified: None,
            });
        }
        let file: File = open_beneath(&self.canonical, &candidate.path).ok()?;
        let facts = file
            .metadata()
            .ok()
            .filter(|facts| facts.len() <= SIZE_LIMIT)?;
        let mut bytes = Vec::new();
        file.take(SIZE_LIMIT).read_to_end(&mut bytes).ok()?;
        Some(Contents {
            bytes,
            modified: facts.modified().ok(),
        })
    }

    fn blob(&self, path: &Path) -> Option<String> {
        let index = self.index.get_or_init(|| self.make_index());
        let entries = index.get(path.file_name()?.to_str()?)?;
        let entry = entries.iter().find(|entry| entry.path == path)?;
        entry.blob.clone()
    }

    fn make_index(&self) -> HashMap<String, Vec<Entry>> {
        let mut index: HashMap<String, Vec<Entry>> = HashMap::new();
        let mut add = |path: PathBuf, blob| {
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(name) = name.map(str::to_owned).filter(|_| !is_hidden(&path)) {
                index.entry(name).or_default().push(Entry { path, blob });
            }
        };
        let listed = self
            .revision
            .as_ref()
            .and_then(|revision| revision.list(&self.canonical));
        match listed {
            Some(files) => {
                for (path, blob) in files {
                    add(path, Some(blob));
                }
            }
            None => walk(&self.canonical, &mut |path| add(path, None)),
        }
        index
    }
}

/// The checkout of the current directory, otherwise the current directory; never the home directory or one
/// above it, which contain more than sources.
pub(super) fn checkout() -> Option<PathBuf> {
    let home = std::env::home_dir().and_then(|home| home.canonicalize().ok());
    checkout_of(&std::env::current_dir().ok()?, home.as_deref())
}

fn checkout_of(current: &Path, home: Option<&Path>) -> Option<PathBuf> {
    let above = current.ancestors().find(|path| path.join(".git").exists());
    let is_all = |path: &Path| home.is_some_and(|home| home.starts_with(path));
    let found = above.filter(|path| !is_all(path)).unwrap_or(current);
    (!is_all(found)).then(|| found.to_owned())
}

/// Whether a path below a root contains a hidden directory or file.
fn is_hidden(path: &Path) -> bool {
    let mut parts = path.components();
    parts.any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."))
}

/// Regular files below `root`, without following links.
fn walk(root: &Path, found: &mut dyn FnMut(PathBuf)) {
    let mut left = FILES;
    let mut open = vec![(PathBuf::new(), 0_usize)];
    while let Some((directory, depth)) = open.pop() {
        let Ok(entries) = fs::read_dir(root.join(&directory)) else {
            continue;
        };
        for entry in entries.flatten() {
            left = left.saturating_sub(1);
            if left == 0 {
                return;
            }
            let (name, kind) = (entry.file_name(), entry.file_type());
            let is_skipped = name
                .to_str()
                .is_none_or(|name| name.starts_with('.') || SKIPPED.contains(&name));
            match kind {
                Ok(kind) if kind.is_dir() && !is_skipped && depth < DEPTH => {
                    open.push((directory.join(name), depth + 1));
                }
                // A link is followed only below the root.
                Ok(kind) if kind.is_file() || kind.is_symlink() => found(directory.join(name)),
                _ => {}
            }
        }
    }
}

/// A relative path without `.` and `..`; `None` if it leads out.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::ParentDir if plain.pop() => {}
            Component::CurDir => {}
            _ => return None,
        }
    }
    (plain.components().count() > 0).then_some(plain)
}

fn normal_absolute(path: &Path) -> Option<PathBuf> {
    let rest = path.strip_prefix("/").ok()?;
    Some(Path::new("/").join(normal(rest)?))
}

/// The components of a path that a file can have below another directory.
fn parts(path: &Path) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::ParentDir => {
                parts.pop();
            }
            _ => {}
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_directory_is_no_checkout() {
        let dir = tempfile::tempdir().unwrap();
        let (home, checkout) = (dir.path().join("home"), dir.path().join("home/src/app"));
        fs::create_dir_all(checkout.join(".git")).unwrap();
        fs::create_dir_all(checkout.join("lib")).unwrap();
        fs::create_dir_all(home.join("notes")).unwrap();
        let of = |path: &Path| checkout_of(path, Some(&home));
        assert_eq!(of(&checkout.join("lib")), Some(checkout.clone()));
        assert_eq!(of(&home.join("notes")), Some(home.join("notes")));
        assert_eq!(of(&home), None);
        assert_eq!(of(dir.path()), None);
        assert_eq!(of(Path::new("/")), None);
        // Users who keep dotfiles under version control have a checkout of their whole home
        // directory.
        fs::create_dir_all(home.join(".git")).unwrap();
        assert_eq!(of(&home.join("notes")), Some(home.join("notes")));
        assert_eq!(of(&home), None);
    }

    #[test]
    fn hidden_files_are_not_sources() {
        let dir = tempfile::tempdir().unwrap();
        for path in [".git/config", ".env", "src/.netrc", ".ssh/creds", "src/a.c"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "secret").unwrap();
        }
        for is_named in [false, true] {
            let root = Root::open(dir.path(), None, is_named).unwrap();
            let read = |file: &str| {
                let absolute = root.canonical.join(file);
                let mut all = root.candidates(absolute.to_str().unwrap());
                all.extend(root.mapped(&format!("/build/{file}"), "/build"));
                all.iter().any(|candidate| root.read(candidate).is_some())
            };
            for file in [
                ".git/config",
                ".env",
                "src/.netrc",
                ".ssh/creds",
                "src/../.env",
            ] {
                assert!(!read(file), "{file}");
            }
            assert!(read("src/a.c"));
        }
    }
}
