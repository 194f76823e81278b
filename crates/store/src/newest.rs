//! Lists the newest dumps of a store, for a view that is refreshed every few seconds.
//!
//! Invariant: a refresh costs a limited number of requests, however many dumps the store holds. It only
//! sees dumps that are stored under `dumps/` and were captured since a given time; a full listing sees the
//! rest.

use std::ops::ControlFlow;

use jiff::Timestamp;

use crate::catalog::{DUMPS, second};
use crate::pages::Pairing;
use crate::{Catalog, DumpSummary, Listed, Listing, StoreError};

/// Maximum objects that one refresh lists: four requests to an S3 server, which returns 1,000 keys each.
const MAX_OBJECTS: usize = 4000;

impl Catalog<'_> {
    /// Dumps captured since this time, oldest first. If there are too many for the limit, the oldest
    /// are returned; call again with the newest of these.
    ///
    /// # Errors
    /// If the store cannot be listed.
    pub fn since(&self, since: Timestamp) -> Result<Vec<DumpSummary>, StoreError> {
        let start = second(since);
        let mut pairing = Pairing::default();
        let mut seen = 0;
        let mut dumps = Vec::new();
        self.store()
            .list(&Listing::all(DUMPS).after(&start), &mut |listed| {
                if let Listed::Object(object) = listed {
                    seen += 1;
                    dumps.extend(pairing.dump(object));
                }
                match seen {
                    MAX_OBJECTS.. => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            })?;
        Ok(dumps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DirectoryStore, ObjectKey, Store};

    fn put(store: &DirectoryStore, key: &str) {
        let key = ObjectKey::parse(key).unwrap();
        store.put(&key, &mut &b"x"[..], 1).unwrap();
    }

    fn stem(number: usize, day: &str, time: &str) -> String {
        let id = format!("{number:08x}-0000-4000-8000-000000000000");
        format!("dumps/{day}/{time}Z_shop_api-0_api_SIGSEGV_0011aabb_complete_{id}")
    }

    #[test]
    fn catalog_since_lists_only_what_was_captured_since() {
        let directory = tempfile::tempdir().unwrap();
        let store = DirectoryStore::create(directory.path()).unwrap();
        let times = [
            ("2026-01-29", "120000"),
            ("2026-01-31", "115959"),
            ("2026-01-31", "120000"),
            ("2026-02-01", "000001"),
        ];
        for (number, (day, time)) in times.into_iter().enumerate() {
            let stem = stem(number, day, time);
            put(&store, &format!("{stem}.manifest.json"));
            put(&store, &format!("{stem}.zip"));
        }
        // Not committed, and not a dump.
        put(&store, &format!("{}.zip", stem(9, "2026-02-01", "000002")));
        put(&store, "drops/2026-02-01/node-1.json");
        let catalog = Catalog::new(&store);
        let since = |time: &str| {
            let dumps = catalog.since(time.parse().unwrap()).unwrap();
            let ids = dumps.iter().map(|dump| dump.id.short());
            ids.collect::<Vec<_>>()
        };
        assert_eq!(since("2026-01-31T12:00:00Z"), ["00000002", "00000003"]);
        assert_eq!(since("2026-01-31T12:00:01Z"), ["00000003"]);
        assert_eq!(since("2026-03-01T00:00:00Z"), Vec::<String>::new());
        assert_eq!(since("1970-01-01T00:00:00Z").len(), 4);
    }

    #[test]
    fn catalog_since_stops_after_a_bounded_number_of_objects() {
        let directory = tempfile::tempdir().unwrap();
        let day = directory.path().join("dumps/2026-01-31");
        std::fs::create_dir_all(&day).unwrap();
        for number in 0..MAX_OBJECTS / 2 + 500 {
            let time = format!(
                "{:02}{:02}{:02}",
                number / 3600,
                number / 60 % 60,
                number % 60
            );
            let stem = stem(number, "2026-01-31", &time);
            let name = stem.rsplit('/').next().unwrap();
            for suffix in [".manifest.json", ".zip"] {
                std::fs::write(day.join(format!("{name}{suffix}")), "x").unwrap();
            }
        }
        let store = DirectoryStore::create(directory.path()).unwrap();
        let catalog = Catalog::new(&store);
        let first = catalog
            .since("2026-01-31T00:00:00Z".parse().unwrap())
            .unwrap();
        assert_eq!(first.len(), MAX_OBJECTS / 2);
        // Omitted dumps are found by a call from the newest of these.
        let newest = first.iter().map(|dump| dump.captured_at).max().unwrap();
        let second = catalog.since(newest).unwrap();
        assert_eq!(second.len(), 501, "the newest again, and what was left out");
    }
}
