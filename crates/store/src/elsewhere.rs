//! Finds dumps near a store that has none: a misspelt prefix or directory looks like an empty store.
//!
//! The search is limited: it lists single levels, one page each, a maximum of [`LISTINGS`] of them. Levels
//! that cannot be listed are skipped, so with credentials for one prefix only the hint is missing.

use std::collections::{BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::catalog::{DUMPS, OURS};
use crate::similar::distance;
use crate::{DirectoryStore, DumpSummary, Listed, Listing, Store, StoreError, StoreUrl};

/// Maximum number of requests of a search.
const LISTINGS: usize = 24;
/// Number of levels below the start of a search.
const DEPTH: usize = 3;
/// Maximum number of stores shown.
const ENOUGH: usize = 3;

/// Stores with dumps in the bucket of `url`, or near its directory; empty if the search is not
/// permitted.
#[must_use]
pub fn find_elsewhere(url: &StoreUrl) -> Vec<StoreUrl> {
    match url {
        StoreUrl::Directory(path) => near_directory(path),
        StoreUrl::S3 {
            bucket,
            prefix,
            options,
        } => {
            let root = StoreUrl::S3 {
                bucket: bucket.clone(),
                prefix: String::new(),
                options: options.clone(),
            };
            let Ok(store) = crate::open_store(&root) else {
                return Vec::new();
            };
            let found = Search::new(store.as_ref(), prefix).run();
            let url = |prefix: &String| StoreUrl::S3 {
                bucket: bucket.clone(),
                prefix: prefix.trim_end_matches('/').to_owned(),
                options: options.clone(),
            };
            found.iter().map(url).collect()
        }
    }
}

/// Searches from the nearest existing parent directory; if more than the last part of the path is missing, also
/// from its parent. The root of the file system is never searched.
fn near_directory(path: &Path) -> Vec<StoreUrl> {
    let Ok(path) = std::path::absolute(path) else {
        return Vec::new();
    };
    let bases = path.ancestors().skip(1).filter(|above| above.is_dir());
    let bases = bases.filter(|above| above.parent().is_some());
    let is_parent_there = path.parent().is_some_and(Path::is_dir);
    let found = bases.take(if is_parent_there { 1 } else { 2 }).map(|base| {
        let wanted = path.strip_prefix(base).unwrap_or(&path);
        let (Some(wanted), Ok(store)) = (wanted.to_str(), DirectoryStore::open(base)) else {
            return Vec::new();
        };
        let found = Search::new(&store, wanted).run();
        let url = |prefix: &String| StoreUrl::Directory(joined(base, prefix));
        found.iter().map(url).collect()
    });
    found
        .into_iter()
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

fn joined(base: &Path, prefix: &str) -> PathBuf {
    match prefix.trim_end_matches('/') {
        "" => base.to_owned(),
        prefix => base.join(prefix),
    }
}

struct Search<'s> {
    store: &'s dyn Store,
    wanted: Vec<&'s str>,
    listings: usize,
    seen: BTreeSet<String>,
    found: Vec<String>,
}

impl<'s> Search<'s> {
    fn new(store: &'s dyn Store, wanted: &'s str) -> Self {
        Self {
            store,
            wanted: wanted.split('/').filter(|part| !part.is_empty()).collect(),
            listings: LISTINGS,
            seen: BTreeSet::new(),
            found: Vec::new(),
        }
    }

    /// Prefixes of stores with dumps: nearest to the wanted prefix first, from its own level up to the root.
    fn run(mut self) -> Vec<String> {
        for parts in (0..=self.wanted.len()).rev() {
            let start = self.wanted.get(..parts).unwrap_or_default();
            let start = start.iter().map(|part| format!("{part}/")).collect();
            self.walk(start);
            if !self.found.is_empty() {
                break;
            }
        }
        self.found
    }

    fn walk(&mut self, start: String) {
        let mut queue = VecDeque::from([(start, 0)]);
        while let Some((prefix, depth)) = queue.pop_front() {
            if self.found.len() >= ENOUGH || !self.seen.insert(prefix.clone()) {
                continue;
            }
            let Ok((has_dumps, below)) = self.level(&prefix) else {
                continue;
            };
            if has_dumps {
                self.found.push(prefix);
            } else if depth < DEPTH {
                queue.extend(below.into_iter().map(|below| (below, depth + 1)));
            }
        }
    }

    /// Whether the level is a store with dumps, and its sub-levels, the most similar names first.
    fn level(&mut self, prefix: &str) -> Result<(bool, Vec<String>), StoreError> {
        let mut below = Vec::new();
        let mut has_dumps = false;
        let mut has_days = false;
        self.list(Listing::level(prefix), &mut |listed| match listed {
            Listed::Prefix(name) => {
                match name.strip_prefix(prefix).unwrap_or(&name) {
                    DUMPS => has_days = true,
                    name if OURS.contains(&name) => {}
                    _ => below.push(name),
                }
                ControlFlow::Continue(())
            }
            // Zips of another agent are recognized by their names.
            Listed::Object(object) => {
                has_dumps =
                    DumpSummary::from_key(&object.key).is_some_and(|dump| dump.is_certain());
                match has_dumps {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            }
        })?;
        if has_days && !has_dumps {
            let dumps = format!("{prefix}{DUMPS}");
            self.list(Listing::all(&dumps), &mut |listed| {
                let Listed::Object(object) = listed else {
                    return ControlFlow::Continue(());
                };
                has_dumps = DumpSummary::from_key(&object.key).is_some();
                match has_dumps {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            })?;
        }
        let wanted = self.wanted.get(prefix.matches('/').count()).copied();
        below.sort_by_key(|name| {
            let name = name.strip_prefix(prefix).unwrap_or(name);
            distance(name.trim_end_matches('/'), wanted.unwrap_or_default())
        });
        Ok((has_dumps, below))
    }

    fn list(
        &mut self,
        listing: Listing<'_>,
        visit: &mut dyn FnMut(Listed) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let Some(left) = self.listings.checked_sub(1) else {
            return Err(StoreError::Stopped);
        };
        self.listings = left;
        let listing = Listing {
            first_page: true,
            ..listing
        };
        self.store.list(&listing, visit)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const DUMP: &str = "2026-01-31/123456Z_-_-_app_SIGSEGV_01234567_complete_3fa85f64-5717-4562-b3fc-2c963f66afa6.zip";

    fn add(root: &Path, store: &str) {
        let path = root.join(store).join("dumps").join(DUMP);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "zip").unwrap();
    }

    /// The results for `store` beneath `root`, as relative paths.
    fn near(root: &Path, store: &str) -> Vec<String> {
        find_elsewhere(&StoreUrl::Directory(root.join(store)))
            .iter()
            .map(|url| url.to_string().replace(&root.display().to_string(), ""))
            .collect()
    }

    #[test]
    fn elsewhere_finds_the_most_similar_directory_with_dumps() {
        let root = tempfile::tempdir().unwrap();
        for store in ["alpha/x", "prod", "team/dev"] {
            add(root.path(), store);
        }
        fs::create_dir_all(root.path().join("prdo-old/dumps")).unwrap();
        let found = near(root.path(), "prdo");
        assert_eq!(
            found.first().map(String::as_str),
            Some("/prod"),
            "{found:?}"
        );
        assert_eq!(near(root.path(), "team/dve"), ["/team/dev"]);
        assert!(
            near(root.path(), "prdo-old/x/y")
                .iter()
                .any(|url| url == "/prod")
        );
        let empty = tempfile::tempdir().unwrap();
        fs::create_dir(empty.path().join("a")).unwrap();
        let inside = empty.path().join("a/b");
        let found = find_elsewhere(&StoreUrl::Directory(inside));
        assert_eq!(found, []);
    }

    #[test]
    fn elsewhere_stops_after_a_bounded_number_of_listings() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..200 {
            fs::create_dir_all(root.path().join(format!("d{number:03}/x"))).unwrap();
        }
        add(root.path(), "zzzzzzzzzzzzzzzz");
        let store = DirectoryStore::open(root.path()).unwrap();
        let mut search = Search::new(&store, "d1");
        search.walk(String::new());
        assert_eq!((search.listings, search.found.len()), (0, 0));
    }
}
