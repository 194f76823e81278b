//! Small C programs that tests run: built when they are needed, by the machine's own compiler.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Exit status of a program to which the kernel does not offer what it needs.
pub const NOT_HERE: i32 = 77;

/// The kinds of process that [`Program::Kinds`] can be.
pub const KINDS: [&str; 43] = [
    "plain",
    "threads",
    "leader-gone",
    "huge-transparent",
    "huge-explicit",
    "huge-explicit-shared",
    "dont-dump",
    "wipe-on-fork",
    "shared",
    "shared-of-another",
    "shared-sparse",
    "sysv",
    "memfd",
    "memfd-cut",
    "file-private",
    "file-written",
    "file-shared",
    "file-cut",
    "no-access",
    "write-only",
    "execute-only",
    "locked",
    "locked-on-fault",
    "freed",
    "cold",
    "guard",
    "mergeable",
    "grows-down",
    "many-mappings",
    "filter-none",
    "filter-all",
    "not-dumpable-again",
    "root-only",
    "user-namespace",
    "chroot",
    "seccomp",
    "io-uring",
    "userfault",
    "userfault-shared",
    "vfork-child",
    "zero-device",
    "stack-deep",
    "killed-by-sender",
];

/// A program of the test corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Dies as its arguments say.
    Crash,
    /// Dies as one of many kinds of process: `kinds KIND [MEBIBYTES]`.
    Kinds,
    /// Catches its own crash: `handlers STYLE FAULT`.
    Handlers,
    /// Measures a handler that the kernel starts through it.
    Meter,
    /// Dies as a 32-bit process, where the compiler and the kernel know such.
    Small,
    /// Runs between the kernel and a handler: keeps the core, kills who is to be killed, measures.
    Launcher,
    /// Dies with pages of a file whose server is silent: `fuse DEVICE MOUNTPOINT OWNER KIND`.
    Fuse,
    /// The only program of an image, linked statically: `pod pause`, `pod crash COUNT NOTE`.
    Pod,
}

impl Program {
    /// Its name, of the file too.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Kinds => "kinds",
            Self::Handlers => "handlers",
            Self::Meter => "meter",
            Self::Small => "small",
            Self::Launcher => "launcher",
            Self::Fuse => "fuse",
            Self::Pod => "pod",
        }
    }

    /// Its source.
    #[must_use]
    pub fn source(self) -> &'static str {
        match self {
            Self::Crash => include_str!("../programs/crash.c"),
            Self::Kinds => include_str!("../programs/kinds.c"),
            Self::Handlers => include_str!("../programs/handlers.c"),
            Self::Meter => include_str!("../programs/meter.c"),
            Self::Small => include_str!("../programs/small.c"),
            Self::Launcher => include_str!("../programs/launcher.c"),
            Self::Fuse => include_str!("../programs/fuse.c"),
            Self::Pod => include_str!("../programs/pod.c"),
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
        let flags: &[&str] = match self {
            Self::Small => &[
                "-m32",
                "-nostdlib",
                "-static",
                "-fno-stack-protector",
                "-fno-pie",
                "-no-pie",
            ],
            Self::Pod => &["-pthread", "-static"],
            _ => &["-pthread"],
        };
        let output = Command::new("cc")
            .args(["-g", "-O1", "-fno-omit-frame-pointer"])
            .args(flags)
            .arg("-o")
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
