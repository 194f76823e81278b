//! Small C programs that tests run: built when they are needed, by the machine's own compiler.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program of the test corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Dies as its arguments say.
    Crash,
    /// Stands between the kernel and a handler: keeps the core, kills who is to be killed, measures.
    Launcher,
}

impl Program {
    /// Its name, of the file too.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Launcher => "launcher",
        }
    }

    /// Its source.
    #[must_use]
    pub fn source(self) -> &'static str {
        match self {
            Self::Crash => include_str!("../programs/crash.c"),
            Self::Launcher => include_str!("../programs/launcher.c"),
        }
    }

    /// Compiles it into `directory`.
    ///
    /// # Errors
    /// When there is no compiler `cc`, or it fails.
    pub fn build(self, directory: &Path) -> io::Result<PathBuf> {
        let source = directory.join(format!("{}.c", self.name()));
        let program = directory.join(self.name());
        std::fs::write(&source, self.source())?;
        let output = Command::new("cc")
            .args(["-g", "-O1", "-fno-omit-frame-pointer", "-pthread", "-o"])
            .args([&program, &source])
            .output()?;
        match output.status.success() {
            true => Ok(program),
            false => Err(io::Error::other(
                String::from_utf8_lossy(&output.stderr).into_owned(),
            )),
        }
    }
}
