//! The kinds of files in a spool entry, and of entries in a bundle.
//!
//! ```text
//! spool            bundle
//! core.zst         <stem>.core.zst
//! 0.log            <stem>-0.log
//! manifest.json    <stem>-manifest.json
//! ```
//!
//! Bundle entries have the names that IBM's core-dump-handler uses, where it has such an entry.
//! Scripts written for its zips therefore work.

use serde::{Deserialize, Serialize};

/// How the core is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CoreEncoding {
    /// zstd in the seekable format, in a stored zip entry: any page can be read without the rest.
    ZstdSeekable,
    /// As the kernel wrote it.
    None,
    /// Deflated by the zip entry itself, as IBM's agent does: readable by any unzip, no random access.
    Deflate,
}

/// One of the files of `/proc/<pid>` that IBM's agent copies with `INCLUDE_PROC_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcFile(&'static str);

impl ProcFile {
    /// The allowed names; no other name becomes a file name.
    const NAMES: [&'static str; 18] = [
        "auxv",
        "cgroup",
        "cmdline",
        "comm",
        "environ",
        "io",
        "limits",
        "maps",
        "mountinfo",
        "mounts",
        "sched",
        "schedstat",
        "smaps",
        "stack",
        "stat",
        "statm",
        "status",
        "wchan",
    ];

    /// The file with this name below `/proc/<pid>`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES
            .into_iter()
            .find(|known| *known == name)
            .map(Self)
    }

    /// Recognizes an entry in a folder whose name ends with `proc`: `<stem>-proc/maps`.
    fn in_folder(bundle_name: &str) -> Option<Self> {
        let (folder, name) = bundle_name.rsplit_once('/')?;
        folder.ends_with("proc").then(|| Self::named(name))?
    }
}

/// What an entry contains. The order of the variants is the order in a bundle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EntryKind {
    /// IBM's summary.
    DumpInfo,
    /// `/proc/<pid>` facts.
    Proc,
    /// A small core with what a backtrace needs.
    Minicore,
    /// Frames of every thread.
    Backtrace,
    /// The pod, as reported by the container runtime.
    PodInfo,
    /// The sandbox, as reported by the container runtime.
    RuntimeInfo,
    /// The pod's containers.
    PsInfo,
    /// An image, by the number of its container.
    ImageInfo(u32),
    /// Last log lines of a container, by the container's number.
    Log(u32),
    /// A file of `/proc/<pid>`, as copied by IBM's agent.
    ProcFile(ProcFile),
    /// The core.
    Core(CoreEncoding),
    /// Log of the handler.
    HandlerLog,
    /// The manifest, always last.
    Manifest,
}

impl EntryKind {
    /// Name of the file in a spool entry.
    #[must_use]
    pub fn file_name(&self) -> String {
        match self {
            Self::DumpInfo => "dump-info.json".to_owned(),
            Self::Proc => "proc.json".to_owned(),
            Self::Minicore => "minicore.elf".to_owned(),
            Self::Backtrace => "backtrace.json".to_owned(),
            Self::PodInfo => "pod-info.json".to_owned(),
            Self::RuntimeInfo => "runtime-info.json".to_owned(),
            Self::PsInfo => "ps-info.json".to_owned(),
            Self::ImageInfo(number) => format!("{number}-image-info.json"),
            Self::Log(number) => format!("{number}.log"),
            Self::ProcFile(file) => format!("proc-{}", file.0),
            Self::Core(CoreEncoding::ZstdSeekable) => "core.zst".to_owned(),
            Self::Core(CoreEncoding::None) => "core".to_owned(),
            // The file is a raw deflate stream; the bundle's entry is named after the uncompressed
            // content.
            Self::Core(CoreEncoding::Deflate) => "core.deflate".to_owned(),
            Self::HandlerLog => "handler.log".to_owned(),
            Self::Manifest => "manifest.json".to_owned(),
        }
    }

    /// Name of the entry in a bundle.
    #[must_use]
    pub fn bundle_name(&self, stem: &str) -> String {
        match self {
            Self::Core(CoreEncoding::ZstdSeekable) => format!("{stem}.core.zst"),
            Self::Core(_) => format!("{stem}.core"),
            other => format!("{stem}-{}", other.file_name()),
        }
    }

    /// The kind of the entry with this name; `None` if the name is not one of ours.
    ///
    /// The name does not distinguish a deflated core from a plain one: both are `Core(None)` here.
    #[must_use]
    pub fn parse(bundle_name: &str, stem: &str) -> Option<Self> {
        if let Some(file) = ProcFile::in_folder(bundle_name) {
            return Some(Self::ProcFile(file));
        }
        match bundle_name.strip_prefix(stem)? {
            ".core.zst" => Some(Self::Core(CoreEncoding::ZstdSeekable)),
            ".core" => Some(Self::Core(CoreEncoding::None)),
            suffix => match Self::from_file_name(suffix.strip_prefix('-')?)? {
                Self::Core(_) => None,
                kind => Some(kind),
            },
        }
    }

    /// The kind of the file with this name in a spool entry.
    #[must_use]
    pub fn from_file_name(name: &str) -> Option<Self> {
        let plain = [
            Self::DumpInfo,
            Self::Proc,
            Self::Minicore,
            Self::Backtrace,
            Self::PodInfo,
            Self::RuntimeInfo,
            Self::PsInfo,
            Self::Core(CoreEncoding::ZstdSeekable),
            Self::Core(CoreEncoding::None),
            Self::Core(CoreEncoding::Deflate),
            Self::HandlerLog,
            Self::Manifest,
        ];
        if let Some(kind) = plain.into_iter().find(|kind| kind.file_name() == name) {
            return Some(kind);
        }
        if let Some(file) = name.strip_prefix("proc-").and_then(ProcFile::named) {
            return Some(Self::ProcFile(file));
        }
        let numbered = if let Some(number) = name.strip_suffix("-image-info.json") {
            Self::ImageInfo(number.parse().ok()?)
        } else {
            Self::Log(name.strip_suffix(".log")?.parse().ok()?)
        };
        // `+1` and `01` parse as numbers but are not ours: each kind has exactly one name.
        (numbered.file_name() == name).then_some(numbered)
    }

    /// The stem of a bundle with an entry of this name. Only works for kinds that every bundle has:
    /// the manifest, IBM's summary and the core.
    pub(crate) fn stem_of(bundle_name: &str) -> Option<&str> {
        ["-manifest.json", "-dump-info.json", ".core.zst", ".core"]
            .into_iter()
            .find_map(|suffix| bundle_name.strip_suffix(suffix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_kind_names_round_trip() {
        let kinds = [
            EntryKind::DumpInfo,
            EntryKind::Proc,
            EntryKind::Minicore,
            EntryKind::Backtrace,
            EntryKind::PodInfo,
            EntryKind::RuntimeInfo,
            EntryKind::PsInfo,
            EntryKind::ImageInfo(0),
            EntryKind::ImageInfo(12),
            EntryKind::Log(0),
            EntryKind::Log(7),
            EntryKind::Core(CoreEncoding::ZstdSeekable),
            EntryKind::Core(CoreEncoding::None),
            EntryKind::ProcFile(ProcFile("maps")),
            EntryKind::HandlerLog,
            EntryKind::Manifest,
        ];
        for kind in kinds {
            assert_eq!(
                EntryKind::from_file_name(&kind.file_name()),
                Some(kind.clone())
            );
            assert_eq!(
                EntryKind::parse(&kind.bundle_name("a-b.c"), "a-b.c"),
                Some(kind)
            );
        }
    }

    #[test]
    fn bundle_names_match_ibms() {
        let names = [
            (EntryKind::DumpInfo, "s-dump-info.json"),
            (EntryKind::PodInfo, "s-pod-info.json"),
            (EntryKind::RuntimeInfo, "s-runtime-info.json"),
            (EntryKind::PsInfo, "s-ps-info.json"),
            (EntryKind::ImageInfo(0), "s-0-image-info.json"),
            (EntryKind::Log(0), "s-0.log"),
            (EntryKind::Core(CoreEncoding::Deflate), "s.core"),
        ];
        for (kind, name) in names {
            assert_eq!(kind.bundle_name("s"), name);
        }
    }

    #[test]
    fn proc_files_are_recognized_in_any_proc_folder_by_exact_name() {
        let maps = Some(EntryKind::ProcFile(ProcFile("maps")));
        for name in ["s-proc/maps", "proc/maps", "s/4-proc/maps"] {
            assert_eq!(EntryKind::parse(name, "s"), maps, "{name}");
        }
        for name in [
            "proc/../maps/x",
            "proc/mem",
            "maps",
            "s-proc/",
            "process/maps",
        ] {
            assert_eq!(EntryKind::parse(name, "s"), None, "{name}");
        }
    }

    #[test]
    fn entry_kind_parse_rejects_other_names() {
        for name in [
            "s",
            "s-",
            "s-core",
            "s-+1.log",
            "s-01.log",
            "s-../x.log",
            "t-0.log",
            "s.core2",
        ] {
            assert_eq!(EntryKind::parse(name, "s"), None, "{name}");
        }
    }
}
