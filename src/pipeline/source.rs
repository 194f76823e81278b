//! Finds the source files of frames, and marks those that may be wrong.
//!
//! The paths come from the program's debug information, which is not trusted. Only regular files below a
//! directory that the user named, or below the current checkout, are read; links and `..` cannot leave
//! it. The file with the longest common path end is chosen. It is compared with the checksum in the debug
//! information, otherwise with the revision that the image was built from, otherwise by its time.

mod revision;
mod root;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Error;
use cdh_bundle::Manifest;
use cdh_symbolize::{Frame, Location};
use jiff::Timestamp;
use md5::{Digest, Md5};

use super::NamedStacks;
use crate::render::{SourceText, Sources};
use crate::report::{ExitStatus, Failure};
use root::{Candidate, Contents, Root};

/// Maximum files of one name that are compared with a checksum.
const COMPARED: usize = 64;
/// Archives and images set the times of their files to years like 1970 or 1980.
const FIRST_REAL_TIME: u64 = 946_684_800;

/// Where source files are looked for.
#[derive(Clone, Debug, Default)]
pub struct SourceSearch {
    /// Replacements of the start of a path.
    pub mappings: Vec<(String, PathBuf)>,
    /// Directories that hold source files. The current checkout is searched too.
    pub directories: Vec<PathBuf>,
}

/// Which file is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceQuestion {
    /// The path in the debug information.
    pub file: String,
    /// The checksum in the debug information.
    pub md5: Option<String>,
    /// When the module was written, if its file is on this machine.
    pub built: Option<SystemTime>,
}

/// Searches directories for source files.
pub struct SourceFinder {
    mappings: Vec<(String, Root)>,
    roots: Vec<Root>,
    crashed: SystemTime,
}

impl SourceQuestion {
    /// The file of a location in a module.
    #[must_use]
    pub fn new(place: &Location, built: Option<SystemTime>) -> Self {
        Self {
            file: place.file.clone(),
            md5: place.md5.clone(),
            built,
        }
    }
}

impl SourceFinder {
    /// Searches where `search` says and in the current checkout, for the source of the crashed program.
    #[must_use]
    pub fn new(search: &SourceSearch, revision: Option<&str>, crashed: Timestamp) -> Self {
        let named = |path: &PathBuf| Root::open(path, revision, true);
        let mut roots: Vec<Root> = search.directories.iter().filter_map(named).collect();
        roots.extend(root::checkout().and_then(|path| Root::open(&path, revision, false)));
        let mapping =
            |(from, to): &(String, PathBuf)| Some((from.clone(), Root::open(to, revision, true)?));
        Self {
            mappings: search.mappings.iter().filter_map(mapping).collect(),
            roots,
            // If the time of the crash is unknown, no file counts as newer.
            crashed: match crashed == Timestamp::UNIX_EPOCH {
                true => SystemTime::now(),
                false => system_time(crashed),
            },
        }
    }

    /// The file with warnings, or why it is not shown.
    ///
    /// # Errors
    /// A sentence whose subject, the file, is omitted.
    pub fn find(&self, question: &SourceQuestion) -> Result<SourceText, String> {
        let candidates = self.candidates(question);
        let mut first: Option<(&Root, &Candidate, Contents)> = None;
        for (root, candidate) in candidates.iter().take(COMPARED) {
            let Some(contents) = root.read(candidate) else {
                continue;
            };
            let is_right = question
                .md5
                .as_deref()
                .is_none_or(|md5| has_md5(&contents.bytes, md5));
            if is_right {
                return Ok(self.text(question, root, candidate, contents));
            }
            // The checksum decides among files of one name, but a file with another checksum is
            // better than none.
            if first.is_none() && candidate.is_likely {
                first = Some((root, candidate, contents));
            }
        }
        match first {
            Some((root, candidate, contents)) => Ok(self.text(question, root, candidate, contents)),
            None => Err(self.reason(question)),
        }
    }

    fn candidates(&self, question: &SourceQuestion) -> Vec<(&Root, Candidate)> {
        let mut found = Vec::new();
        for (from, root) in &self.mappings {
            let exact = root.mapped(&question.file, from);
            found.extend(exact.map(|candidate| (root, candidate)));
        }
        let mut others = Vec::new();
        for root in &self.roots {
            let same_name = root.candidates(&question.file);
            others.extend(same_name.into_iter().map(|candidate| (root, candidate)));
        }
        // A stable sort: directories that the user named come first.
        others.sort_by_key(|(_, candidate)| std::cmp::Reverse(candidate.rank));
        // If one directory contains the other, a file in both is one file.
        let mut seen = BTreeSet::new();
        others.retain(|(root, candidate)| seen.insert(root.absolute(candidate)));
        let is_ambiguous = match others.as_slice() {
            [(_, first), (_, second), ..] => first.rank == second.rank,
            _ => false,
        };
        if question.md5.is_none() {
            others.retain(|(_, candidate)| candidate.is_likely);
            if is_ambiguous {
                others.clear();
            }
        }
        found.extend(others);
        found
    }

    fn text(
        &self,
        question: &SourceQuestion,
        root: &Root,
        candidate: &Candidate,
        contents: Contents,
    ) -> SourceText {
        let name = candidate.path.display();
        let mut warnings: Vec<String> = root.warning().into_iter().collect();
        let is_newer = |than: SystemTime| contents.modified.is_some_and(|time| time > than);
        match (&question.md5, real_time(question.built)) {
            (Some(md5), _) if has_md5(&contents.bytes, md5) => {}
            (Some(_), _) => warnings.push(format!(
                "{name} differs from the source this program was built from (MD5)"
            )),
            (None, Some(built)) if is_newer(built) => {
                warnings.push(format!("{name} is newer than the program"));
            }
            (None, None) if is_newer(self.crashed) => {
                warnings.push(format!("{name} is newer than the crash: not verified"));
            }
            _ => {}
        }
        let text = String::from_utf8_lossy(&contents.bytes);
        SourceText {
            lines: text.lines().map(str::to_owned).collect(),
            warnings,
        }
    }

    fn reason(&self, question: &SourceQuestion) -> String {
        let roots: Vec<String> = self
            .mappings
            .iter()
            .map(|(_, root)| root)
            .chain(&self.roots)
            .map(|root| format!("`{}`", root.path().display()))
            .collect();
        let roots = roots.join(", ");
        let of_root = |root: &Root| -> Vec<PathBuf> {
            let candidates = root.candidates(&question.file);
            candidates
                .iter()
                .map(|found| root.absolute(found))
                .collect()
        };
        let all: BTreeSet<PathBuf> = self.roots.iter().flat_map(of_root).collect();
        match all.len() {
            _ if roots.is_empty() => "the home directory is not searched".to_owned(),
            0 => format!("no file of that name is below {roots}"),
            1 => format!("only its name is equal to that of a file below {roots}"),
            count => format!("{count} files below {roots} match equally well"),
        }
    }
}

/// Reads the files of all frames. For the user's own frames without a file, the remark says why.
#[must_use]
pub fn sources(
    stacks: &NamedStacks,
    manifest: &Manifest,
    search: &SourceSearch,
) -> (Sources, Vec<Error>) {
    let image = manifest.image.as_ref();
    let revision = image.and_then(|image| image.revision.as_deref());
    let finder = SourceFinder::new(search, revision, manifest.captured_at);
    let backtrace = &stacks.backtrace;
    let mut found = Sources::new();
    let mut missing: BTreeMap<String, String> = BTreeMap::new();
    let mut asked: BTreeSet<(&str, Option<usize>)> = BTreeSet::new();
    let frames = backtrace.threads.iter().flat_map(|thread| &thread.frames);
    for frame in frames {
        let Some(place) = &frame.location else {
            continue;
        };
        if !asked.insert((&place.file, frame.module)) || found.contains_key(&place.file) {
            continue;
        }
        match finder.find(&SourceQuestion::new(place, stacks.built(frame))) {
            Ok(text) => {
                found.insert(place.file.clone(), text);
            }
            Err(reason) if frame.is_own(&backtrace.modules) => {
                missing.insert(place.file.clone(), reason);
            }
            Err(_) => {}
        }
    }
    let remark = missing.first_key_value().map(|(file, reason)| {
        let others = match missing.len() {
            1 => String::new(),
            count => format!(" (and of {} other files)", count - 1),
        };
        let message = format!("source of `{file}`{others} is not shown: {reason}");
        Failure::new(ExitStatus::Nothing, message)
            .hint(
                "run it in the checkout, or pass `--source-dir <DIR>` or `--source-map <FROM=TO>`",
            )
            .into()
    });
    (found, remark.into_iter().collect())
}

impl NamedStacks {
    /// When the file of a frame's module was written, if it is this machine's.
    #[must_use]
    pub fn built(&self, frame: &Frame) -> Option<SystemTime> {
        *self.module_times.get(frame.module?)?
    }
}

fn system_time(time: Timestamp) -> SystemTime {
    let millis = u64::try_from(time.as_millisecond()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(millis)
}

fn real_time(time: Option<SystemTime>) -> Option<SystemTime> {
    let first = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(FIRST_REAL_TIME);
    time.filter(|time| *time > first)
}

/// Whether the checksum is that of `bytes`. GNU as writes it as a number, lowest byte first; clang writes
/// the bytes in their order.
fn has_md5(bytes: &[u8], md5: &str) -> bool {
    let digest = Md5::digest(bytes);
    let hex = |byte: &u8| format!("{byte:02x}");
    let (straight, reversed): (String, String) = (
        digest.iter().map(hex).collect(),
        digest.iter().rev().map(hex).collect(),
    );
    md5 == straight || md5 == reversed
}

#[cfg(test)]
mod tests;
