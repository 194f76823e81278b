//! A handler that stores one core file, as a child of the collector.
//!
//! Invariant: nothing here waits for the child. Each pass checks it, even if its file or directory no longer
//! exists.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus};
use std::time::{Duration, Instant};

use cdh_bundle::DumpId;

use super::directories::{DirectoryOwner, OwnerKey};

/// Maximum duration of a handler: more than copying a core takes.
const DEADLINE: Duration = Duration::from_secs(2 * 3600);

/// The child.
#[derive(Debug)]
pub(super) struct RunningHandler {
    child: Child,
    /// The account that is charged for the dump.
    pub(super) account: OwnerKey,
    /// The container's id; `None` for the host and for shared directories.
    pub(super) container: Option<String>,
    /// When it is killed.
    pub(super) ends_at: Instant,
    is_late: bool,
}

/// How a handler ended.
#[derive(Debug)]
pub(super) enum HandlerResult {
    /// The dump is sealed; `None` if the policy stores none.
    Stored(Option<DumpId>),
    Failed {
        why: String,
        /// Whether another attempt would take as long.
        is_final: bool,
    },
}

impl RunningHandler {
    pub(super) fn start(command: &mut Command, owner: &DirectoryOwner) -> io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            child: command.spawn()?,
            account: owner.account(),
            container: owner.container().map(str::to_owned),
            ends_at: now.checked_add(DEADLINE).unwrap_or(now),
            is_late: false,
        })
    }

    /// How it ended; `None` while it runs. Kills it after its deadline.
    pub(super) fn poll(&mut self) -> Option<HandlerResult> {
        match self.child.try_wait() {
            Ok(Some(status)) => Some(self.result(status)),
            Ok(None) => {
                if !self.is_late && Instant::now() >= self.ends_at {
                    self.is_late = true;
                    let _ = self.child.kill();
                }
                None
            }
            Err(error) => Some(HandlerResult::Failed {
                why: error.to_string(),
                is_final: false,
            }),
        }
    }

    /// Kills it now. The shipper salvages what it wrote.
    pub(super) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn result(&mut self, status: ExitStatus) -> HandlerResult {
        if self.is_late {
            let hours = DEADLINE.as_secs() / 3600;
            return HandlerResult::Failed {
                why: format!("the handler did not end within {hours} hours"),
                is_final: true,
            };
        }
        if !status.success() {
            return HandlerResult::Failed {
                why: format!("the handler failed: {status}"),
                is_final: false,
            };
        }
        match self.child.stdout.take().map(printed).transpose() {
            // The handler prints the path of the sealed entry.
            Ok(text) => HandlerResult::Stored(dump_in(&text.unwrap_or_default())),
            Err(error) => HandlerResult::Failed {
                why: format!("cannot read what the handler printed: {error}"),
                is_final: false,
            },
        }
    }
}

/// The bytes that are in the pipe now: a process that inherited the other end must not block us.
fn printed(mut output: ChildStdout) -> io::Result<Vec<u8>> {
    rustix::io::ioctl_fionbio(&output, true)?;
    let mut bytes = vec![0; 4096];
    let count = match output.read(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        count => count?,
    };
    bytes.truncate(count);
    Ok(bytes)
}

fn dump_in(text: &[u8]) -> Option<DumpId> {
    let path = Path::new(std::str::from_utf8(text).ok()?.trim());
    path.file_name()?.to_str()?.parse().ok()
}
