//! Tests that cannot run on this machine: they print why, and `cargo xtask test` counts them.
//!
//! The test harness knows no tests that skip themselves and reports them as passed, without their output.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;

/// Variable with the path of the file to which each skipped test adds a line with the reason.
pub const SKIPPED_FILE: &str = "CDH_TEST_SKIPPED";

/// Records that the calling test does not run, and why. A test calls this once and returns.
pub fn skip(why: impl Display) {
    eprintln!("SKIPPED: {why}");
    let Some(path) = std::env::var_os(SKIPPED_FILE) else {
        return;
    };
    let why = why.to_string().replace('\n', " ");
    let file = OpenOptions::new().append(true).create(true).open(path);
    // One write: tests of several threads and processes add lines.
    if let Err(error) = file.and_then(|mut file| file.write_all(format!("{why}\n").as_bytes())) {
        eprintln!("the skipped test is not counted: {error}");
    }
}

/// The value, or `None` after [`skip`] with the reason that is there instead.
pub fn or_skip<T>(outcome: Result<T, String>) -> Option<T> {
    outcome.map_err(skip).ok()
}

/// Whether the root directory is a mount, or why a test that needs one cannot run: in a chroot it may be a plain
/// directory, and then `unshare --mount` fails and the table of mounts has no line for it.
///
/// # Errors
/// The reason for [`skip`].
pub fn root_is_a_mount() -> Result<(), String> {
    // The fifth field is the mount point (proc_pid_mountinfo(5)).
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let is_mount = mounts
        .lines()
        .any(|line| line.split(' ').nth(4) == Some("/"));
    is_mount
        .then_some(())
        .ok_or_else(|| "the root directory of this chroot is not a mount".to_owned())
}
