//! Cases: dumps unpacked on the desk, verified against their manifests.
//!
//! ```text
//! <case>/manifest.json      last, so that a directory with one is whole
//! <case>/core               plain, sparse
//! <case>/minicore.elf, proc.json, …
//! <case>/sysroot/           made by `cdh debug`
//! ```

use std::fs::DirBuilder;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cdh_bundle::{EntryKind, Manifest};

use super::files::open_regular;
use super::{Dump, FetchOptions, Observer, fetch_with};
use crate::render::terminal_line;
use crate::settings::Settings;

/// No manifest is larger.
const MAX_MANIFEST: u64 = 64 << 20;

/// A dump unpacked into a directory.
#[derive(Debug)]
pub struct Case {
    /// The directory.
    pub path: PathBuf,
    /// What the dump says of itself.
    pub manifest: Manifest,
}

impl Case {
    /// Opens a directory; `None` where it is no case.
    ///
    /// # Errors
    /// When its manifest cannot be read.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let file = path.join(EntryKind::Manifest.file_name());
        let shown = terminal_line(&file.display().to_string());
        let source = match open_regular(&file) {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot open `{shown}`")),
        };
        let mut json = Vec::new();
        source
            .take(MAX_MANIFEST)
            .read_to_end(&mut json)
            .with_context(|| format!("cannot read `{shown}`"))?;
        let manifest =
            Manifest::from_json(&json).with_context(|| format!("`{shown}` is not valid"))?;
        Ok(Some(Self {
            path: path.to_owned(),
            manifest,
        }))
    }

    /// Where the cache keeps the case of this dump.
    #[must_use]
    pub fn in_cache(settings: &Settings, manifest: &Manifest) -> PathBuf {
        settings.cache.join("cases").join(manifest.id.to_string())
    }

    /// The plain core in the case at `path`, where it has one.
    #[must_use]
    pub fn core_path(path: &Path) -> Option<PathBuf> {
        let core = path.join("core");
        core.is_file().then_some(core)
    }
}

/// Unpacks `dump` into `directory`, or into the cache; what is there already is not fetched again.
///
/// # Errors
/// As [`fetch_with`].
pub fn fetch(
    settings: &Settings,
    dump: &Dump,
    directory: Option<&Path>,
    observer: &dyn Observer,
) -> Result<Case> {
    let options = FetchOptions {
        directory: directory.map(Path::to_owned),
        ..FetchOptions::default()
    };
    fetch_with(settings, dump, &options, observer)
}

pub(super) fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}
