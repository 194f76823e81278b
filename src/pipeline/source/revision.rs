//! Reads files of the revision that an image was built from, from a git checkout.
//!
//! git is run, if it is installed, with object names only: no untrusted path or name becomes an
//! argument. It fetches nothing and runs no hook.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::root::SIZE_LIMIT;

/// Maximum bytes of the list of a revision's files.
const LIST_LIMIT: u64 = 64 << 20;
/// Number of digits of a revision that are shown.
const SHOWN: usize = 12;

/// The wanted revision, and that of the checkout.
pub(super) struct Revision {
    wanted: String,
    head: String,
    is_there: bool,
}

impl Revision {
    /// `None` without git, outside of a checkout, or if the revision is not a commit.
    pub(super) fn open(directory: &Path, wanted: &str) -> Option<Self> {
        let wanted = wanted.trim().to_ascii_lowercase();
        let is_hex = wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex || !(7..=64).contains(&wanted.len()) {
            return None;
        }
        let commit = |name: &str| {
            let name = format!("{name}^{{commit}}");
            let out = git(directory, &["rev-parse", "--verify", "--quiet", &name], 128)?;
            let id = String::from_utf8(out).ok()?.trim().to_owned();
            (!id.is_empty()).then_some(id)
        };
        let head = commit("HEAD")?;
        let found = commit(&wanted);
        Some(Self {
            is_there: found.is_some(),
            wanted: found.unwrap_or(wanted),
            head,
        })
    }

    pub(super) fn is_there(&self) -> bool {
        self.is_there
    }

    pub(super) fn warning(&self) -> Option<String> {
        if self.head == self.wanted {
            return None;
        }
        let short = |id: &str| id.get(..SHOWN).unwrap_or(id).to_owned();
        let (head, wanted) = (short(&self.head), short(&self.wanted));
        Some(if self.is_there {
            format!(
                "the checkout is at {head}, the image was built from {wanted}: \
                 the source is that of {wanted}"
            )
        } else {
            format!(
                "the checkout is at {head} and does not have {wanted}, which the image was built from: \
                 run `git fetch`"
            )
        })
    }

    /// Regular files of the revision below the directory, and their objects. `None` if the revision is
    /// not in this repository.
    pub(super) fn list(&self, directory: &Path) -> Option<Vec<(PathBuf, String)>> {
        if !self.is_there {
            return None;
        }
        let out = git(
            directory,
            &["ls-tree", "-r", "-z", &self.wanted],
            LIST_LIMIT,
        )?;
        let entry = |line: &[u8]| {
            let line = std::str::from_utf8(line).ok()?;
            let (facts, path) = line.split_once('\t')?;
            let mut facts = facts.split(' ');
            let (mode, _, object) = (facts.next()?, facts.next()?, facts.next()?);
            let is_object = object.bytes().all(|byte| byte.is_ascii_hexdigit());
            (mode.starts_with("100") && is_object).then(|| (PathBuf::from(path), object.to_owned()))
        };
        Some(out.split(|byte| *byte == 0).filter_map(entry).collect())
    }

    /// The contents of an object that `list` named.
    pub(super) fn read(&self, directory: &Path, object: &str) -> Option<Vec<u8>> {
        git(directory, &["cat-file", "blob", object], SIZE_LIMIT)
    }
}

/// The output of git, if it succeeds and prints no more than `limit`.
fn git(directory: &Path, words: &[&str], limit: u64) -> Option<Vec<u8>> {
    let mut child = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args([
            "-c",
            "core.fsmonitor=false",
            "-c",
            "core.hooksPath=/dev/null",
        ])
        .args(words)
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_NO_LAZY_FETCH", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut out = Vec::new();
    let read = child.stdout.take().map(|pipe| {
        let mut pipe = pipe.take(limit.saturating_add(1));
        pipe.read_to_end(&mut out)
    });
    let is_short = u64::try_from(out.len()).is_ok_and(|length| length <= limit);
    if !is_short {
        // Best effort: git may have ended.
        let _ = child.kill();
    }
    let status = child.wait().ok()?;
    (is_short && status.success() && matches!(read, Some(Ok(_)))).then_some(out)
}
