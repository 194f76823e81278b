//! Man pages and completions, from the declarations of the command line; JSON schemas, from the types that are
//! serialized.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::build;

/// Shell and file of each completion script.
const COMPLETIONS: [(&str, &str); 3] =
    [("bash", "cdh.bash"), ("zsh", "_cdh"), ("fish", "cdh.fish")];

/// The directories of generated files, below the root of the repository.
pub(crate) const DIRECTORIES: [&str; 3] = ["man", "completions", "docs/schema"];

/// The file with the digests of all versions of the schemas.
pub(crate) const VERSIONS: &str = "docs/schema/versions.toml";

/// Writes them into the repository.
pub(crate) fn generate() -> Result<()> {
    generate_into(build::root())
}

/// Writes [`DIRECTORIES`] below `root`.
pub(crate) fn generate_into(root: &Path) -> Result<()> {
    let cdh = build::cdh()?;
    let [man, completions, schemas] = DIRECTORIES.map(|directory| root.join(directory));
    fs::create_dir_all(&completions)?;
    if man.exists() {
        fs::remove_dir_all(&man)?;
    }
    build::succeed(Command::new(&cdh).arg("man").arg(&man))?;
    for (shell, file) in COMPLETIONS {
        let output = Command::new(&cdh)
            .args(["completions", shell])
            .output()
            .with_context(|| format!("cannot run {}", cdh.display()))?;
        fs::write(completions.join(file), output.stdout)?;
    }
    build::succeed(Command::new(&cdh).arg("schemas").arg(&schemas))?;
    println!(
        "wrote {}, {} and {}",
        man.display(),
        completions.display(),
        schemas.display()
    );
    Ok(())
}
