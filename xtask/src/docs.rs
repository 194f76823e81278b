//! Man pages, from the declarations of the command line; JSON schemas, from the types that are
//! serialized.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::build;

/// The directories of generated files, below the root of the repository.
pub(crate) const DIRECTORIES: [&str; 2] = ["man", "docs/schema"];

/// The file with the digests of all versions of the schemas.
pub(crate) const VERSIONS: &str = "docs/schema/versions.toml";

/// Writes them into the repository.
pub(crate) fn generate() -> Result<()> {
    generate_into(build::root())
}

/// Writes [`DIRECTORIES`] below `root`.
pub(crate) fn generate_into(root: &Path) -> Result<()> {
    let cdh = build::cdh()?;
    let [man, schemas] = DIRECTORIES.map(|directory| root.join(directory));
    if man.exists() {
        fs::remove_dir_all(&man)?;
    }
    build::succeed(Command::new(&cdh).arg("man").arg(&man))?;
    build::succeed(Command::new(&cdh).arg("schemas").arg(&schemas))?;
    println!("wrote {} and {}", man.display(), schemas.display());
    Ok(())
}
