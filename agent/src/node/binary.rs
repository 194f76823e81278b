//! Installs the handler's binary where the kernel finds it.
//!
//! Invariant: the name always leads to a complete binary that passed a test run on this node. A
//! handler that runs from the old binary is not disturbed. The kernel's settings are not changed.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cdh_bundle::RawText;
use cdh_elfcore::{ElfError, ElfObject, MappedFile};
use rustix::fs::{MemfdFlags, StatVfsMountFlags, memfd_create};
use serde::Serialize;

use crate::atomic_file::{TEMPORARY_SUFFIX, sync_parent};
use crate::handler::SETTINGS_NAME;

/// Time limit of the self-test. It takes a millisecond, or more on an overloaded node.
const SELF_TEST_TIME: Duration = Duration::from_secs(10);

/// Why the handler's binary could not be installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BinaryError {
    /// The binary to install cannot be read.
    #[error("cannot read the handler {path}")]
    Read {
        /// Binary to install.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The binary to install is not a program.
    #[error("{path} is not a program that can be the handler")]
    NotAProgram {
        /// Binary to install.
        path: PathBuf,
        /// Cause.
        #[source]
        source: ElfError,
    },
    /// It cannot be written to its directory.
    #[error("cannot write the handler {path}")]
    Write {
        /// Where it goes.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The node cannot execute it.
    #[error("this node cannot run a program in {directory} (is it mounted noexec?)")]
    NotExecutable {
        /// Directory of the handler.
        directory: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// It runs and fails.
    #[error("the handler's self-test failed: {problem}")]
    SelfTest {
        /// What it said.
        problem: String,
    },
}

/// How a handler is linked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Linkage {
    /// Runs on any host.
    Static,
    /// It needs this loader, and its libraries, on the host.
    Dynamic {
        /// `PT_INTERP`.
        interpreter: RawText,
    },
}

impl Linkage {
    /// Whether it runs without any file of the host.
    #[must_use]
    pub fn is_static(&self) -> bool {
        matches!(self, Self::Static)
    }
}

/// How the program at `path` is linked.
///
/// # Errors
/// If it cannot be read as an ELF file.
pub fn linkage(path: &Path) -> Result<Linkage, BinaryError> {
    let map = MappedFile::open(path).map_err(|source| BinaryError::Read {
        path: path.to_owned(),
        source,
    })?;
    let object = ElfObject::parse(map.bytes()).map_err(|source| BinaryError::NotAProgram {
        path: path.to_owned(),
        source,
    })?;
    Ok(match object.interpreter() {
        None => Linkage::Static,
        Some(interpreter) => Linkage::Dynamic {
            interpreter: RawText::from(interpreter),
        },
    })
}

/// Who starts the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartedBy {
    /// The kernel, from its path.
    Kernel,
    /// This agent, which serves the kernel's socket: from memory if its file system is `noexec`.
    Agent,
}

/// A handler that this agent can execute, wherever it is stored.
pub(crate) struct Runnable {
    program: PathBuf,
    name: PathBuf,
    _memory: Option<File>,
}

impl Runnable {
    /// The program itself, or a copy of it in memory if its file system is mounted `noexec`.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub(crate) fn open(handler: &Path) -> io::Result<Self> {
        let name = handler.to_owned();
        if !is_noexec(handler) {
            return Ok(Self {
                program: name.clone(),
                name,
                _memory: None,
            });
        }
        let memory = memfd_create(
            crate::paths::HANDLER_NAME,
            MemfdFlags::CLOEXEC | MemfdFlags::EXEC,
        )?;
        let mut memory = File::from(memory);
        io::copy(&mut File::open(handler)?, &mut memory)?;
        // A program that is open for writing cannot be executed.
        let path = |file: &File| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let readable = File::open(path(&memory))?;
        Ok(Self {
            program: path(&readable),
            name,
            _memory: Some(readable),
        })
    }

    /// Starts it under its own name.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg0(&self.name);
        command
    }
}

/// Whether the kernel cannot execute programs from there. If that is unknown, `false`.
pub(crate) fn is_noexec(path: &Path) -> bool {
    let disk = rustix::fs::statvfs(path);
    disk.is_ok_and(|disk| disk.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

/// Copies the program `from` to a temporary name, tests it there, and then renames it to `to`.
///
/// # Errors
/// If it cannot be copied or does not run; an existing file is then unchanged.
pub fn place(from: &Path, to: &Path, by: StartedBy) -> Result<Linkage, BinaryError> {
    let linkage = linkage(from)?;
    let write = |source| BinaryError::Write {
        path: to.to_owned(),
        source,
    };
    let directory = to.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(write)?;
    // A name per process: a concurrent install with the lock of another state directory must not
    // replace the binary between test and rename.
    let temporary = directory.join(format!(".cdh-handler.{}", std::process::id()));
    let placed = copy(from, &temporary)
        .map_err(write)
        .and_then(|()| self_test(&temporary, by))
        .and_then(|()| {
            fs::rename(&temporary, to)
                .and_then(|()| sync_parent(to))
                .map_err(write)
        });
    if placed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    placed.map(|()| linkage)
}

/// Removes partial files that killed installers left beside the handler. Those of running installers
/// remain.
///
/// # Errors
/// If one cannot be removed.
pub(crate) fn remove_leftovers(handler: &Path) -> io::Result<()> {
    let directory = handler.parent().unwrap_or(Path::new("/"));
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let settings = format!("{SETTINGS_NAME}{TEMPORARY_SUFFIX}");
    for entry in entries {
        let name = entry?.file_name();
        let name = name.to_str().unwrap_or_default();
        let pid = name.strip_prefix(".cdh-handler.");
        let is_dead = pid
            .and_then(|pid| pid.parse::<u32>().ok())
            .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        if is_dead || name == settings {
            fs::remove_file(directory.join(name))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, temporary: &Path) -> io::Result<()> {
    let _ = fs::remove_file(temporary);
    let mut source = File::open(from)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(temporary)?;
    io::copy(&mut source, &mut file)?;
    file.set_permissions(Permissions::from_mode(0o755))?;
    file.sync_all()
}

/// Runs the handler like the kernel does (empty environment, cwd `/`), without a crash.
///
/// # Errors
/// If it does not run, or reports that it cannot work here.
pub(crate) fn self_test(program: &Path, by: StartedBy) -> Result<(), BinaryError> {
    let not_executable = |source| BinaryError::NotExecutable {
        directory: program.parent().unwrap_or(program).to_owned(),
        source,
    };
    let runnable = match by {
        StartedBy::Agent => Some(Runnable::open(program).map_err(not_executable)?),
        StartedBy::Kernel => None,
    };
    let failed = |problem: String| BinaryError::SelfTest { problem };
    let deadline = Instant::now() + SELF_TEST_TIME;
    let mut child = loop {
        let mut command = match &runnable {
            Some(runnable) => runnable.command(),
            None => Command::new(program),
        };
        command
            .arg("--self-test")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null());
        match command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn() {
            Ok(child) => break child,
            // A concurrent fork in another thread may still hold the file open for writing.
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy
                    && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(10));
            }
            Err(source) => return Err(not_executable(source)),
        }
    };
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => {
                let mut said = Vec::new();
                if let Some(stderr) = child.stderr.take() {
                    let _ = stderr.take(1024).read_to_end(&mut said);
                }
                let said = RawText::new(said.trim_ascii().to_vec());
                return Err(failed(format!("{status}: {said}")));
            }
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(format!(
                    "no end after {} s",
                    SELF_TEST_TIME.as_secs()
                )));
            }
            Err(error) => return Err(failed(error.to_string())),
        }
    }
}
