//! Finds files below a directory that is not a copy of the process's root: a flat directory, a root below
//! another path, a `.build-id` tree, an unpacked AppImage.
//!
//! The directory is walked once, when the first file is not at the path that the core names. The walk does not
//! follow links or enter other file systems, and every count is limited. Found files are candidates: build-id and
//! contents decide.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use cdh_elfcore::{BuildId, ElfObject, MappedFile};

use super::files::open_in_root;

/// Maximum directories and files visited; a large root file system has half a million.
const MAX_ENTRIES: usize = 200_000;
/// Maximum files whose build-ids are read.
const MAX_READ: usize = 20_000;
/// Directories inside one another.
const MAX_DEPTH: usize = 32;
/// Where build-id trees are, below the directory that the user names.
const BUILD_ID_TREES: [&str; 4] = [
    ".build-id",
    "usr/lib/debug/.build-id",
    "lib/debug/.build-id",
    "usr/lib/.build-id",
];

/// The files below one directory.
#[derive(Clone, Debug)]
pub struct FileIndex {
    root: PathBuf,
    paths: Arc<OnceLock<Vec<PathBuf>>>,
    build_ids: Arc<OnceLock<Vec<(BuildId, PathBuf)>>>,
}

impl FileIndex {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            paths: Arc::default(),
            build_ids: Arc::default(),
        }
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Files with this build-id, relative to the directory: from trees by build-id, otherwise from anywhere.
    pub(super) fn by_build_id(&self, id: &BuildId) -> Vec<PathBuf> {
        let hex = id.to_string();
        let mut found = Vec::new();
        if let Some((first, rest)) = hex.split_at_checked(2) {
            let trees = BUILD_ID_TREES.iter().map(Path::new).chain([Path::new("")]);
            for tree in trees {
                let directory = tree.join(first);
                found.push(directory.join(rest));
                found.push(directory.join(format!("{rest}.debug")));
                found.push(directory.join(rest).join("executable"));
            }
            // The cache of a debuginfod client.
            found.push(Path::new(&hex).join("executable"));
            found.retain(|path| open_in_root(&self.root, path).is_ok());
            if !found.is_empty() {
                return found;
            }
        }
        let ids = self.build_ids.get_or_init(|| self.read_build_ids());
        let same = ids.iter().filter(|(found, _)| found == id);
        found.extend(same.map(|(_, path)| path.clone()));
        found
    }

    /// Files with the same name, relative to the directory, longest common path end first.
    pub(super) fn by_name(&self, path: &Path) -> Vec<PathBuf> {
        let paths = self.paths.get_or_init(|| self.walk());
        let same = paths
            .iter()
            .filter(|found| found.file_name() == path.file_name());
        let mut found: Vec<PathBuf> = same.cloned().collect();
        found.sort_by_key(|found| std::cmp::Reverse(common_end(found, path)));
        found
    }

    fn walk(&self) -> Vec<PathBuf> {
        let Ok(device) = fs::metadata(&self.root).map(|root| root.dev()) else {
            return Vec::new();
        };
        let mut files = Vec::new();
        let mut seen = 0;
        let mut directories = vec![(PathBuf::new(), 0)];
        while let Some((directory, depth)) = directories.pop() {
            let Ok(entries) = fs::read_dir(self.root.join(&directory)) else {
                continue;
            };
            for entry in entries.flatten() {
                seen += 1;
                if seen > MAX_ENTRIES {
                    return files;
                }
                let path = directory.join(entry.file_name());
                match entry.file_type() {
                    Ok(kind) if kind.is_file() => files.push(path),
                    Ok(kind) if kind.is_dir() && depth < MAX_DEPTH => {
                        let inside = entry.metadata();
                        if inside.is_ok_and(|inside| inside.dev() == device) {
                            directories.push((path, depth + 1));
                        }
                    }
                    _ => {}
                }
            }
        }
        // The order in which a file system lists them is arbitrary.
        files.sort();
        files
    }

    fn read_build_ids(&self) -> Vec<(BuildId, PathBuf)> {
        let paths = self.paths.get_or_init(|| self.walk());
        let read = |path: &PathBuf| {
            let file = open_in_root(&self.root, path).ok()?;
            let map = MappedFile::from_file(&file).ok()?;
            let id = ElfObject::parse(map.bytes()).ok()?.build_id()?;
            Some((id, path.clone()))
        };
        paths.iter().take(MAX_READ).filter_map(read).collect()
    }
}

/// Number of equal components at the end of two paths.
fn common_end(one: &Path, other: &Path) -> usize {
    let parts = |path: &Path| -> Vec<Vec<u8>> {
        let parts = path.components().rev();
        parts
            .map(|part| OsStr::as_bytes(part.as_os_str()).to_vec())
            .collect()
    };
    let (one, other) = (parts(one), parts(other));
    one.iter()
        .zip(&other)
        .take_while(|(one, other)| one == other)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_id(directory: &Path, path: &str, id: &str) {
        let file = directory.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let built = std::process::Command::new("sh")
            .current_dir(directory)
            .args(["-ec", "echo 'int f(void) { return 1; }' | gcc -shared -x c -o \"$1\" -Wl,--build-id=0x$2 -"])
            .args(["sh", path, id])
            .status();
        assert!(built.unwrap().success());
    }

    #[test]
    fn file_index_finds_files_by_build_id_in_any_layout() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        with_id(&root, "flat.so", "aa01");
        with_id(&root, "squashfs-root/usr/lib/libx.so", "aa02");
        with_id(&root, ".build-id/aa/03.debug", "aa03");
        with_id(dir.path(), "outside.so", "aa04");
        std::os::unix::fs::symlink("../outside.so", root.join("link.so")).unwrap();
        fs::write(root.join("text"), "no ELF file").unwrap();
        let index = FileIndex::new(root);
        let found = |id: &[u8]| index.by_build_id(&BuildId::from_bytes(id).unwrap());
        assert_eq!(found(&[0xaa, 1]), [PathBuf::from("flat.so")]);
        assert_eq!(
            found(&[0xaa, 2]),
            [PathBuf::from("squashfs-root/usr/lib/libx.so")]
        );
        assert_eq!(found(&[0xaa, 3])[0], Path::new(".build-id/aa/03.debug"));
        assert!(found(&[0xaa, 4]).is_empty());
    }

    #[test]
    fn file_index_prefers_the_file_that_shares_most_of_the_path() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/lib/x.so", "b/usr/lib/x.so", "x.so"] {
            let file = dir.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        let index = FileIndex::new(dir.path().to_owned());
        let found = index.by_name(Path::new("/tmp/.mount_App1/usr/lib/x.so"));
        let expected = ["b/usr/lib/x.so", "a/lib/x.so", "x.so"];
        assert_eq!(found, expected.map(PathBuf::from));
    }
}
