//! Finds what else sets the kernel's core settings: sysctl.d at boot, systemd-coredump, apport,
//! abrt. Read-only.
//!
//! systemd-sysctl reads `*.conf` of several directories. If two files have the same name, the directory
//! listed first takes precedence, and a link to `/dev/null` disables the other file. The remaining files
//! are applied in the order of their names, so the last one that sets a value decides. procps reads
//! `/etc/sysctl.conf` last (Debian links it as `99-sysctl.conf`).

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Directories of sysctl.d, in order of precedence.
const DIRECTORIES: [&str; 5] = [
    "etc/sysctl.d",
    "run/sysctl.d",
    "usr/local/lib/sysctl.d",
    "usr/lib/sysctl.d",
    "lib/sysctl.d",
];
/// Maximum bytes of a settings file.
const LIMIT: u64 = 1 << 20;

/// A setting that takes effect at the next boot, or when `systemd-sysctl` runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BootSetting {
    /// The file that decides.
    pub file: PathBuf,
    /// `kernel.core_pattern`.
    pub name: String,
    /// Its value there.
    pub value: String,
}

/// Another program that captures cores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OtherHandler {
    /// What it is called.
    pub name: &'static str,
    /// Whether something starts it so that it sets the core pattern.
    pub sets_pattern: bool,
    /// The command that disables it.
    pub stop: &'static str,
}

/// The values of the three settings that files below `root` set at boot.
#[must_use]
pub fn boot_settings(root: &Path) -> Vec<BootSetting> {
    let mut files: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    for directory in DIRECTORIES {
        let items = fs::read_dir(root.join(directory))
            .into_iter()
            .flatten()
            .flatten();
        for path in items.map(|item| item.path()) {
            if path.extension().is_some_and(|end| end == "conf")
                && let Some(name) = path.file_name()
            {
                files.entry(name.to_owned()).or_insert(path);
            }
        }
    }
    let last = root.join("etc/sysctl.conf");
    let mut found: BTreeMap<String, BootSetting> = BTreeMap::new();
    for file in files.into_values().chain([last]) {
        for (name, value) in settings_of(&file) {
            let setting = BootSetting {
                file: file.clone(),
                name: name.clone(),
                value,
            };
            found.insert(name, setting);
        }
    }
    found.into_values().collect()
}

fn settings_of(path: &Path) -> Vec<(String, String)> {
    let mut bytes = Vec::new();
    // `/dev/null` is empty, and another target has no lines of ours.
    let is_plain = fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    if is_plain && let Ok(file) = fs::File::open(path) {
        let _ = file.take(LIMIT).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with(['#', ';']));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| {
            (
                name.trim().trim_start_matches('-').replace('/', "."),
                value.trim().to_owned(),
            )
        })
        .filter(|(name, _)| {
            [
                "kernel.core_pattern",
                "kernel.core_pipe_limit",
                "fs.suid_dumpable",
            ]
            .contains(&name.as_str())
        })
        .collect()
}

/// Other programs on this machine that capture cores.
#[must_use]
pub fn other_handlers(root: &Path) -> Vec<OtherHandler> {
    let is_there = |path: &str| root.join(path).exists();
    let mut found = Vec::new();
    if is_there("usr/lib/systemd/systemd-coredump") || is_there("lib/systemd/systemd-coredump") {
        found.push(OtherHandler {
            name: "systemd-coredump",
            // sysctl.d does, and is reported separately.
            sets_pattern: false,
            stop: "ln -s /dev/null /etc/sysctl.d/50-coredump.conf",
        });
    }
    if is_there("usr/share/apport/apport") {
        let off = fs::read_to_string(root.join("etc/default/apport"))
            .is_ok_and(|text| text.lines().any(|line| line.trim() == "enabled=0"));
        found.push(OtherHandler {
            name: "apport",
            sets_pattern: !off,
            stop: "systemctl disable --now apport",
        });
    }
    if is_there("usr/libexec/abrt-hook-ccpp") {
        found.push(OtherHandler {
            name: "abrt-ccpp",
            sets_pattern: true,
            stop: "systemctl disable --now abrt-ccpp",
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_last_name_wins_and_etc_overrides_a_file_of_the_same_name() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let found = || boot_settings(root.path());
        assert!(found().is_empty());
        write(
            "usr/lib/sysctl.d/50-coredump.conf",
            "# comment\nkernel.core_pattern=|/usr/lib/systemd/systemd-coredump %P %u\nkernel.core_pipe_limit = 16\nvm.swappiness=1\n",
        );
        let settings = found();
        assert_eq!(settings.len(), 2);
        assert_eq!(
            settings[0].value,
            "|/usr/lib/systemd/systemd-coredump %P %u"
        );
        write(
            "etc/sysctl.d/60-own.conf",
            "-kernel/core_pattern = core.%p\n",
        );
        assert_eq!(found()[0].value, "core.%p");
        assert!(found()[0].file.ends_with("etc/sysctl.d/60-own.conf"));
        fs::remove_file(root.path().join("etc/sysctl.d/60-own.conf")).unwrap();
        std::os::unix::fs::symlink(
            "/dev/null",
            root.path().join("etc/sysctl.d/50-coredump.conf"),
        )
        .unwrap();
        assert!(found().is_empty());
    }

    #[test]
    fn other_handlers_are_known_by_their_files() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert!(other_handlers(root.path()).is_empty());
        write("usr/lib/systemd/systemd-coredump", "");
        write("usr/share/apport/apport", "");
        let found = other_handlers(root.path());
        assert_eq!(
            found.iter().map(|one| one.name).collect::<Vec<_>>(),
            ["systemd-coredump", "apport"]
        );
        assert!(found[1].sets_pattern);
        write("etc/default/apport", "enabled=0\n");
        assert!(!other_handlers(root.path())[1].sets_pattern);
    }
}
