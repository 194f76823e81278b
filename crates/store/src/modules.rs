//! Modules that agents store beside the dumps (`modules/<build-id>-<SHA-256>`), and which of them are
//! unreferenced.
//!
//! Any process can map a file that claims the build-id of another one, so the digest is part of the key: each
//! dump names its own file. Earlier agents stored `modules/<build-id>`. Such a key is in use while a manifest
//! names the build-id without a digest.
//!
//! Invariant: a module that the manifest of a dump names is in use. If a manifest cannot be read, or is missing
//! beside its bundle, all modules count as in use. IBM's agent stores no modules, so its zips are not read.
//! Objects with other names are ignored.

use std::ops::ControlFlow;

use cdh_bundle::Sha256;
use cdh_elfcore::BuildId;
use jiff::Timestamp;

use crate::{Catalog, DumpSummary, Listed, Listing, ObjectKey, Store, StoreError};

/// Where they stand.
pub(crate) const MODULES: &str = "modules/";
/// Number of dumps whose manifests are in memory at once.
const AT_ONCE: usize = 64;
/// Maximum length of a build-id in bytes (`BuildId`).
const MAX_ID: usize = 64;

/// A module in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredModule {
    /// Its name.
    pub key: ObjectKey,
    /// Bytes.
    pub size: u64,
    /// When it was written. If the store does not report a time, it is never deleted.
    pub modified: Option<Timestamp>,
}

impl StoredModule {
    /// The key of a module in a store; without a digest, that of earlier agents.
    ///
    /// # Errors
    /// Cannot fail for a build-id, which consists of hexadecimal digits.
    pub fn key_of(id: &BuildId, digest: Option<&Sha256>) -> Result<ObjectKey, StoreError> {
        ObjectKey::parse(&match digest {
            Some(digest) => format!("{MODULES}{id}-{digest}"),
            None => format!("{MODULES}{id}"),
        })
    }

    /// `<build-id>-<SHA-256>`, or `<build-id>` if an earlier agent stored it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.key.as_str().trim_start_matches(MODULES)
    }

    /// All modules of a store.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub fn list(store: &dyn Store) -> Result<Vec<Self>, StoreError> {
        let mut found = Vec::new();
        store.list(&Listing::all(MODULES), &mut |listed| {
            if let Listed::Object(object) = listed {
                let module = Self {
                    key: object.key,
                    size: object.size,
                    modified: object.modified,
                };
                if is_module(module.name()) {
                    found.push(module);
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// The modules that none of `dumps` names.
    ///
    /// # Errors
    /// If the manifest of an existing dump cannot be read.
    pub fn unused(
        catalog: &Catalog<'_>,
        mut modules: Vec<Self>,
        dumps: &[DumpSummary],
    ) -> Result<Vec<Self>, StoreError> {
        let dumps: Vec<_> = dumps.iter().filter(|dump| !dump.legacy).cloned().collect();
        for some in dumps.chunks(AT_ONCE) {
            if modules.is_empty() {
                break;
            }
            let mut needed = std::collections::BTreeSet::new();
            for (dump, manifest) in some.iter().zip(catalog.manifests(some)) {
                let manifest = match manifest {
                    Ok(manifest) => manifest,
                    // Removed since it was listed.
                    Err(StoreError::NotFound { .. }) if !catalog.has_bundle(dump)? => continue,
                    Err(error) => return Err(error),
                };
                for module in &manifest.modules {
                    if let Some(id) = &module.build_id {
                        needed.insert(Self::key_of(id, module.sha256.as_ref())?);
                    }
                }
            }
            modules.retain(|module| !needed.contains(&module.key));
        }
        Ok(modules)
    }
}

fn is_module(name: &str) -> bool {
    let is_hex = |text: &str, most: usize| {
        let mut bytes = text.bytes();
        !text.is_empty()
            && text.len() <= most * 2
            && text.len().is_multiple_of(2)
            && bytes.all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    match name.split_once('-') {
        Some((id, digest)) => is_hex(id, MAX_ID) && is_hex(digest, 32) && digest.len() == 64,
        None => is_hex(name, MAX_ID),
    }
}

#[cfg(test)]
mod tests {
    use cdh_bundle::{DumpId, Manifest, ModuleRecord, RawText, Verdict};
    use cdh_elfcore::ModuleKind;

    use super::*;
    use crate::{DirectoryStore, Query};

    fn put(store: &DirectoryStore, key: &str, bytes: &[u8]) {
        let key = ObjectKey::parse(key).unwrap();
        let mut body = bytes;
        store.put(&key, &mut body, bytes.len() as u64).unwrap();
    }

    fn dump(store: &DirectoryStore, second: u8, manifest: &[u8]) {
        let key = format!(
            "dumps/2026-01-01/1200{second:02}Z_-_-_x_SIGSEGV_-_complete_{}",
            DumpId::random()
        );
        put(store, &format!("{key}.zip"), b"PK");
        put(store, &format!("{key}.manifest.json"), manifest);
    }

    fn naming(id: u8) -> Vec<u8> {
        let json = serde_json::json!({
            "schema": 1, "id": DumpId::random(), "stem": "s", "captured_at": "2026-01-01T12:00:00Z",
            "process": {"pid": 1}, "signal": {"number": 11}, "verdict": Verdict::Complete,
        });
        let mut manifest: Manifest = serde_json::from_value(json).unwrap();
        let module = |build_id| ModuleRecord {
            path: RawText::from("/bin/x"),
            build_id,
            sha256: None,
            start: 0,
            end: 4096,
            kind: ModuleKind::Library,
        };
        manifest.modules = vec![module(None), module(BuildId::from_bytes(&[id; 20]))];
        serde_json::to_vec(&manifest).unwrap()
    }

    #[test]
    fn digest_in_the_manifest_names_one_of_several_files_with_a_build_id() {
        let directory = tempfile::tempdir().unwrap();
        let store = DirectoryStore::create(directory.path()).unwrap();
        let id = BuildId::from_bytes(&[1; 20]).unwrap();
        let digests = [Sha256::of(b"real"), Sha256::of(b"planted")];
        for digest in [None, Some(&digests[0]), Some(&digests[1])] {
            let key = StoredModule::key_of(&id, digest).unwrap();
            put(&store, key.as_str(), b"\x7fELF");
        }
        put(&store, &format!("modules/{id}-README"), b"");
        let mut manifest = Manifest::from_json(&naming(1)).unwrap();
        for module in &mut manifest.modules {
            module.sha256 = Some(digests[0]);
        }
        dump(&store, 1, &manifest.to_json().unwrap());
        let catalog = Catalog::new(&store);
        let dumps = catalog.find(&Query::default()).unwrap();
        let modules = StoredModule::list(&store).unwrap();
        assert_eq!(modules.len(), 3);
        let unused = StoredModule::unused(&catalog, modules, &dumps).unwrap();
        let names: Vec<_> = unused.iter().map(StoredModule::name).collect();
        assert_eq!(names, [id.to_string(), format!("{id}-{}", digests[1])]);
    }

    #[test]
    fn modules_unreferenced_by_all_manifests_are_unused_unless_one_is_unreadable() {
        let directory = tempfile::tempdir().unwrap();
        let store = DirectoryStore::create(directory.path()).unwrap();
        let ids = [1_u8, 2, 3].map(|id| format!("{id:02x}").repeat(20));
        for id in &ids {
            put(&store, &format!("modules/{id}"), b"\x7fELF");
        }
        for foreign in [
            "modules/README",
            "modules/abc",
            "modules/ab/cd",
            "modules/AB",
        ] {
            put(&store, foreign, b"");
        }
        dump(&store, 1, &naming(1));
        dump(&store, 2, &naming(3));
        let catalog = Catalog::new(&store);
        let unused = |dumps: &[DumpSummary]| {
            let modules = StoredModule::list(&store).unwrap();
            assert!(modules.iter().all(|module| module.modified.is_some()));
            let unused = StoredModule::unused(&catalog, modules, dumps);
            let name = |module: StoredModule| module.name().to_owned();
            unused.map(|all| all.into_iter().map(name).collect::<Vec<_>>())
        };
        let dumps = catalog.find(&Query::default()).unwrap();
        assert_eq!(dumps.len(), 2);
        assert_eq!(unused(&dumps).unwrap(), [ids[1].clone()]);
        assert_eq!(
            unused(&dumps[..1]).unwrap(),
            [ids[0].clone(), ids[1].clone()]
        );
        assert_eq!(unused(&[]).unwrap(), ids);
        // A zip that is not IBM's although it has such a name says nothing about modules.
        let legacy = "aa9f0c1c-ce41-4a51-9f4b-2c1c2a3f7d10-dump-1641203451-host-app-12-11.zip";
        put(&store, legacy, b"cut");
        let dumps = catalog.find(&Query::default()).unwrap();
        assert!(dumps.iter().any(|dump| dump.legacy), "{dumps:?}");
        assert_eq!(unused(&dumps).unwrap(), [ids[1].clone()]);
        // A dump that was removed since needs no module. A dump that only lost its manifest may need
        // any.
        let dumps: Vec<_> = dumps.into_iter().filter(|dump| !dump.legacy).collect();
        for dump in &dumps {
            store.delete(&dump.key.manifest().unwrap()).unwrap();
        }
        assert!(matches!(unused(&dumps), Err(StoreError::NotFound { .. })));
        for dump in &dumps {
            store.delete(&dump.key).unwrap();
        }
        assert_eq!(unused(&dumps).unwrap(), ids);
        dump(&store, 3, b"no manifest");
        let dumps = catalog.find(&Query::default()).unwrap();
        assert!(matches!(unused(&dumps), Err(StoreError::Bundle { .. })));
    }
}
