//! The origin of modules' files, and the contents of the cache.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use cdh_elfcore::{BuildId, ModuleKind};
use cdh_symbolize::ModuleStatus;
use cdh_sysroot::CacheEntry;
use serde::Serialize;

use super::table::aligned;
use super::{Style, Tone, bytes, terminal_line};
use crate::pipeline::{FileSource, FoundModule, Gathered};

/// Maximum digits of a digest shown to people.
const SHORT: usize = 19;

/// What `cdh sysroot` shows.
pub struct SysrootView<'a> {
    /// The directory.
    pub directory: &'a Path,
    /// What was found.
    pub gathered: &'a Gathered,
    /// Whether the network was not used.
    pub offline: bool,
}

/// For people: the directory on the first line, then the table.
#[must_use]
pub fn sysroot_text(view: &SysrootView<'_>, style: Style) -> String {
    let mut text = format!("{}\n", terminal_line(&view.directory.display().to_string()));
    if let Some(image) = &view.gathered.image {
        let pulled = bytes(view.gathered.received);
        text.push_str(&format!("{}: {pulled} pulled\n", terminal_line(image)));
    }
    let modules = shown(view);
    let rows: Vec<Vec<String>> = modules.iter().map(|found| row(found, view)).collect();
    let lines = aligned(&["MODULE", "BUILD-ID", "FROM", "SYMBOLS", "TO DO"], &rows);
    for (number, line) in lines.iter().enumerate() {
        let bad = number.checked_sub(1).and_then(|number| modules.get(number));
        let tone = match bad {
            None => Tone::Strong,
            Some(found) if module_problem(found).is_some() => Tone::Bad,
            Some(_) => {
                text.push_str(&format!("{line}\n"));
                continue;
            }
        };
        text.push_str(&format!("{}\n", style.paint(tone, line)));
    }
    text
}

fn shown<'a>(view: &SysrootView<'a>) -> Vec<&'a FoundModule> {
    let modules = view.gathered.modules.iter();
    modules
        .filter(|found| found.module.kind != ModuleKind::Vdso)
        .collect()
}

fn row(found: &FoundModule, view: &SysrootView<'_>) -> Vec<String> {
    let id = found.module.build_id.as_ref().map(ToString::to_string);
    vec![
        found.module.display_path(),
        id.unwrap_or_else(|| "-".to_owned()),
        origin(found),
        symbols(found).to_owned(),
        to_do(found, view),
    ]
}

fn origin(found: &FoundModule) -> String {
    let main = found.source.map_or("-", source_word);
    match found.debug_source {
        Some(debug) if Some(debug) != found.source => format!("{main} + {}", source_word(debug)),
        _ => main.to_owned(),
    }
}

fn source_word(source: FileSource) -> &'static str {
    match source {
        FileSource::Core => "core",
        FileSource::Sysroot => "--sysroot",
        FileSource::Store => "store",
        FileSource::Image => "image",
        FileSource::Host => "this machine",
        FileSource::Debuginfod => "debuginfod",
        FileSource::DebugImage => "--debug-image",
    }
}

fn symbols(found: &FoundModule) -> &'static str {
    if found.is_missing() {
        "-"
    } else if !found.lacks_debug_info() {
        "functions and lines"
    } else if found.has_symbols() {
        "functions"
    } else {
        "exported only"
    }
}

/// Why a module's file cannot be used.
#[must_use]
pub fn module_problem(found: &FoundModule) -> Option<String> {
    match &found.status {
        ModuleStatus::Mismatch { expected, found } => {
            let found = found
                .as_ref()
                .map_or_else(|| "none".to_owned(), ToString::to_string);
            Some(format!(
                "mismatch: the file has build-id {found}, the process had {expected}"
            ))
        }
        ModuleStatus::Differs(why) => Some(format!("mismatch: {why}")),
        ModuleStatus::Unreadable(why) => Some(format!("cannot be read: {why}")),
        ModuleStatus::Missing => Some("not found".to_owned()),
        ModuleStatus::Verified | ModuleStatus::Unverified => None,
    }
}

fn to_do(found: &FoundModule, view: &SysrootView<'_>) -> String {
    let sources = match (&view.gathered.image, view.offline) {
        (_, true) => "run without `--offline`, or pass `--sysroot DIR`",
        (None, false) => "pass `--image REF` or `--sysroot DIR`, or set DEBUGINFOD_URLS",
        (Some(_), false) => "pass `--sysroot DIR`, or set DEBUGINFOD_URLS",
    };
    match &found.status {
        ModuleStatus::Mismatch { .. } | ModuleStatus::Differs(_) => format!(
            "{}; name the image that ran with `--image REF`",
            module_problem(found).unwrap_or_default()
        ),
        ModuleStatus::Missing | ModuleStatus::Unreadable(_) => {
            format!("{}; {sources}", module_problem(found).unwrap_or_default())
        }
        ModuleStatus::Unverified => "unproven: the core holds no build-id of it".to_owned(),
        ModuleStatus::Verified if found.lacks_debug_info() => match view.offline {
            true => "for lines: run without `--offline`".to_owned(),
            false => "for lines: set DEBUGINFOD_URLS, or pass `--debug-image REF`".to_owned(),
        },
        ModuleStatus::Verified => String::new(),
    }
}

/// The files that `cdh sysroot` pulled and found.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SysrootDocument<'a> {
    /// Directory laid out like the root of the crashed process.
    directory: String,
    /// Image that the files are from.
    image: Option<&'a str>,
    /// Bytes received from the network.
    pulled_bytes: u64,
    /// Modules of the core, without the vdso.
    modules: Vec<SysrootModule<'a>>,
    /// Other files in the directory that debuggers read.
    files: Vec<String>,
}

/// A module and the file that was found for it.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SysrootModule<'a> {
    /// Path as the process saw it.
    path: String,
    /// Its build-id in the core.
    build_id: Option<&'a BuildId>,
    /// Whether the file is the one that was mapped.
    status: &'a ModuleStatus,
    /// Where the file came from.
    source: Option<FileSource>,
    /// Path of the file on this machine.
    file: Option<String>,
    /// Where the debug file came from.
    debug_source: Option<FileSource>,
    /// Path of the debug file on this machine.
    debug_file: Option<String>,
    /// What the file names: `functions and lines`, `functions`, `exported only`, or `-`.
    symbols: &'a str,
    /// How to obtain what is missing; empty if nothing is.
    to_do: String,
}

/// One JSON document.
///
/// # Errors
/// Never in practice: the parts are plain text and numbers.
pub fn sysroot_json(view: &SysrootView<'_>) -> Result<String> {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let modules = shown(view).into_iter().map(|found| SysrootModule {
        path: found.module.display_path(),
        build_id: found.module.build_id.as_ref(),
        status: &found.status,
        source: found.source,
        file: path(&found.path),
        debug_source: found.debug_source,
        debug_file: path(&found.debug_path),
        symbols: symbols(found),
        to_do: to_do(found, view),
    });
    let files = view.gathered.extras.iter();
    super::sorted_json(&SysrootDocument {
        directory: view.directory.display().to_string(),
        image: view.gathered.image.as_deref(),
        pulled_bytes: view.gathered.received,
        modules: modules.collect(),
        files: files
            .map(|(path, _)| String::from_utf8_lossy(path).into_owned())
            .collect(),
    })
}

/// Limits of the cache; `None` if there are none.
#[derive(Clone, Copy, Debug)]
pub struct CacheLimits {
    /// Time after which an unused case is deleted.
    pub case_age: Option<Duration>,
    /// Maximum bytes of all cases.
    pub case_bytes: Option<u64>,
    /// Maximum number of cases.
    pub case_count: Option<usize>,
    /// Maximum bytes of files from images, stores and debuginfod servers.
    pub image_bytes: u64,
}

/// For people: a table, the total, and an explanation of each kind in it.
#[must_use]
pub fn cache_text(entries: &[CacheEntry], limits: &CacheLimits, now: SystemTime) -> String {
    let row = |entry: &CacheEntry| {
        let age = now.duration_since(entry.used).unwrap_or_default().as_secs();
        let age = match age {
            0..60 => format!("{age}s"),
            60..3600 => format!("{}m", age / 60),
            3600..86_400 => format!("{}h", age / 3600),
            _ => format!("{}d", age / 86_400),
        };
        let name = entry.name.get(..SHORT).unwrap_or(&entry.name);
        vec![
            entry.kind.clone(),
            name.to_owned(),
            entry.files.to_string(),
            bytes(entry.bytes),
            age,
        ]
    };
    let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
    let mut text = aligned(&["KIND", "NAME", "FILES", "SIZE", "USED"], &rows).join("\n");
    let total = entries.iter().map(|entry| entry.bytes).sum();
    text.push_str(&format!("\n{} in all\n", bytes(total)));
    if !entries.is_empty() {
        text.push_str(&cache_legend(entries, limits));
    }
    text
}

/// One line per kind that occurs: what it is, and when it is deleted.
fn cache_legend(entries: &[CacheEntry], limits: &CacheLimits) -> String {
    let days = |age: Duration| format!("{} days after the last use", age.as_secs() / 86_400);
    let case_limits: Vec<String> = [
        limits.case_age.map(days),
        limits
            .case_bytes
            .map(|limit| format!("beyond {}", bytes(limit))),
        limits
            .case_count
            .map(|limit| format!("beyond {limit} cases")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let case_limits = match case_limits.is_empty() {
        true => "never".to_owned(),
        false => case_limits.join(", or "),
    };
    let images = format!("beyond {}", bytes(limits.image_bytes));
    let legend = [
        (
            "case",
            "unpacked dumps with their cores",
            case_limits.as_str(),
        ),
        (
            "view",
            "links for debuggers of bare cores",
            case_limits.as_str(),
        ),
        (
            "import",
            "dumps that `cdh import` packs",
            case_limits.as_str(),
        ),
        ("layers", "files of image layers", images.as_str()),
        ("documents", "manifests of images", images.as_str()),
        (
            "build-ids",
            "files from stores and debuginfod servers",
            images.as_str(),
        ),
        (
            "symbols",
            "names and unwind tables of programs",
            "beyond 2.0 GiB",
        ),
        (
            "top-frames",
            "top frames for `cdh groups`",
            "beyond 2.0 MiB",
        ),
        (
            "manifests",
            "manifests of dumps in buckets",
            "beyond 64.0 MiB",
        ),
        (
            "listings",
            "the newest dumps of each store, for completions",
            "beyond 1,000 of a store",
        ),
    ];
    let mut text = "\nSIZE is disk space: holes of cores take none.\n".to_owned();
    for (kind, what, deleted) in legend {
        let occurs = entries.iter().any(|entry| {
            entry.kind == kind
                || entry
                    .kind
                    .strip_prefix(kind)
                    .is_some_and(|rest| rest.starts_with(' '))
        });
        if occurs {
            text.push_str(&format!("{kind}: {what}; deleted {deleted}\n"));
        }
    }
    text
}

/// What `cdh cache ls` lists.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListedCacheEntry<'a> {
    /// Kind: unpacked dumps, or files of images and debuginfod servers.
    kind: &'a str,
    /// Dump, digest or source.
    name: &'a str,
    /// Number of files.
    files: u64,
    /// Bytes on disk.
    bytes: u64,
    /// When it was last used, in seconds since 1970 (UTC).
    used_at: u64,
}

/// One JSON array.
///
/// # Errors
/// Never in practice: the parts are plain text and numbers.
pub fn cache_json(entries: &[CacheEntry]) -> Result<String> {
    let since_1970 = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH);
    let rows = entries.iter().map(|entry| ListedCacheEntry {
        kind: &entry.kind,
        name: &entry.name,
        files: entry.files,
        bytes: entry.bytes,
        used_at: since_1970(entry.used).unwrap_or_default().as_secs(),
    });
    super::sorted_json(&rows.collect::<Vec<_>>())
}
