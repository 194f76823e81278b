//! The journal with the backup of foreign settings: no sequence of events can lose it.
//!
//! Invariant: at every moment, each setting either holds a foreign value, or the journal on disk holds its
//! newest foreign value. The journal is therefore written and synced before a setting is changed. It
//! contains every value that was ours since boot, to distinguish a foreign change from our own. Our own
//! pattern is recognized by its program and never counts as foreign.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cdh_bundle::RawText;
use serde::{Deserialize, Serialize};

use crate::atomic_file::{sync_parent, write_atomically};
use crate::node::settings::NodeSettings;
use crate::node::trust::{TrustError, read_file};

/// Maximum bytes of the journal; one has about 1 KiB.
const LIMIT: u64 = 1 << 20;

/// Why the journal could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another user could have written it.
    #[error("cannot trust the backup of the node's settings")]
    Untrusted(#[from] TrustError),
    /// Readable, but no journal.
    #[error("{path} is not a backup of settings that this version can read")]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Cause.
        #[source]
        source: serde_json::Error,
    },
    /// Not writable.
    #[error("cannot write the backup of the node's settings, {path}")]
    Write {
        /// The journal.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// The content of `backup.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// 1.
    pub schema: u32,
    /// Kernel boot that `ours` belongs to: a reboot forgets all settings.
    pub boot_id: String,
    /// Newest foreign value of each setting.
    pub backup: NodeSettings,
    /// Every combination that was ours, or was about to be, since that boot; oldest first.
    pub ours: Vec<NodeSettings>,
}

impl Journal {
    /// Reads the journal; `None` if there is none.
    ///
    /// # Errors
    /// If it exists and cannot be read.
    pub fn read(path: &Path) -> Result<Option<Self>, JournalError> {
        // Root is about to obey it: an uninstall writes its pattern to the kernel.
        let Some(bytes) = read_file(path, LIMIT)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| JournalError::Damaged {
                path: path.to_owned(),
                source,
            })
    }

    /// Writes the journal atomically: either the old one or the new one is on disk.
    ///
    /// # Errors
    /// If it cannot be written and synced.
    pub fn write(&self, path: &Path) -> Result<(), JournalError> {
        let write = || -> io::Result<()> {
            write_atomically(path, &serde_json::to_vec_pretty(self)?, 0o600)
        };
        write().map_err(|source| JournalError::Write {
            path: path.to_owned(),
            source,
        })
    }

    /// Removes the journal, once every setting is foreign again.
    ///
    /// # Errors
    /// If it exists and cannot be removed.
    pub fn remove(path: &Path) -> Result<(), JournalError> {
        match fs::remove_file(path).and_then(|()| sync_parent(path)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(JournalError::Write {
                path: path.to_owned(),
                source,
            }),
            _ => Ok(()),
        }
    }

    /// The journal to write before `wanted` is applied over `now`.
    ///
    /// A setting with a value of ours keeps its older backup; any other value is the newest foreign one.
    /// If the pattern is ours and there is no journal, the previous value is unknown, and the kernel's
    /// default is used.
    #[must_use]
    pub fn before_install(
        old: Option<&Self>,
        now: &NodeSettings,
        wanted: &NodeSettings,
        boot_id: &str,
        is_our_pattern: impl Fn(&RawText) -> bool,
    ) -> Self {
        let pattern_ours = is_our_pattern(&now.core_pattern);
        // After a reboot, the numbers are ours only if a start script set our pattern.
        let valid = old.filter(|old| old.boot_id == boot_id || pattern_ours);
        let ours = valid.map(|old| old.ours.clone()).unwrap_or_default();
        let backup = old.map_or_else(NodeSettings::kernel_defaults, |old| old.backup.clone());
        // Without a journal, the numbers beside our own pattern are ours too.
        let orphan = old.is_none() && pattern_ours;
        let limit_ours = orphan
            || ours
                .iter()
                .any(|one| one.core_pipe_limit == now.core_pipe_limit);
        let suid_ours = orphan
            || ours
                .iter()
                .any(|one| one.suid_dumpable == now.suid_dumpable);
        let backup = NodeSettings {
            core_pattern: if pattern_ours {
                backup.core_pattern
            } else {
                now.core_pattern.clone()
            },
            core_pipe_limit: if limit_ours {
                backup.core_pipe_limit
            } else {
                now.core_pipe_limit
            },
            suid_dumpable: if suid_ours {
                backup.suid_dumpable
            } else {
                now.suid_dumpable
            },
        };
        let mut ours: Vec<_> = ours.into_iter().filter(|one| one != wanted).collect();
        ours.push(wanted.clone());
        Self {
            schema: 1,
            boot_id: boot_id.to_owned(),
            backup,
            ours,
        }
    }

    /// The journal after the newest of our values took effect: older ones no longer exist on the
    /// node, so a later appearance of them is foreign.
    #[must_use]
    pub fn settled(mut self) -> Self {
        self.ours = self.ours.pop().into_iter().collect();
        self
    }

    /// The settings to restore in an uninstall over `now`: the backup for a value of ours, and the
    /// current value for a foreign one.
    #[must_use]
    pub fn after_uninstall(
        &self,
        now: &NodeSettings,
        boot_id: &str,
        is_our_pattern: impl Fn(&RawText) -> bool,
    ) -> NodeSettings {
        let pattern_ours = is_our_pattern(&now.core_pattern);
        let valid = self.boot_id == boot_id || pattern_ours;
        let ours = |is: &dyn Fn(&NodeSettings) -> bool| valid && self.ours.iter().any(is);
        let limit_ours = ours(&|one| one.core_pipe_limit == now.core_pipe_limit);
        let suid_ours = ours(&|one| one.suid_dumpable == now.suid_dumpable);
        NodeSettings {
            core_pattern: match pattern_ours {
                true => self.backup.core_pattern.clone(),
                false => now.core_pattern.clone(),
            },
            core_pipe_limit: match limit_ours {
                true => self.backup.core_pipe_limit,
                false => now.core_pipe_limit,
            },
            suid_dumpable: if suid_ours {
                self.backup.suid_dumpable
            } else {
                now.suid_dumpable
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pattern: &str, limit: u32, suid: u32) -> NodeSettings {
        NodeSettings {
            core_pattern: RawText::from(pattern),
            core_pipe_limit: limit,
            suid_dumpable: suid,
        }
    }

    fn is_ours(pattern: &RawText) -> bool {
        pattern.as_bytes().starts_with(b"|/ours")
    }

    fn install(old: Option<&Journal>, now: &NodeSettings, wanted: &NodeSettings) -> Journal {
        Journal::before_install(old, now, wanted, "boot", is_ours)
    }

    #[test]
    fn second_install_preserves_the_backup_of_the_first() {
        let (foreign, ours) = (settings("|/apport", 4, 1), settings("|/ours 1", 1024, 2));
        let first = install(None, &foreign, &ours).settled();
        let newer = settings("|/ours 2", 512, 2);
        let second = install(Some(&first), &ours, &newer);
        assert_eq!(second.backup, foreign);
        assert_eq!(
            second.settled().after_uninstall(&newer, "boot", is_ours),
            foreign
        );
    }

    #[test]
    fn interrupted_install_can_be_undone_and_repeated() {
        let (foreign, ours) = (settings("core", 0, 0), settings("|/ours", 1024, 2));
        let journal = install(None, &foreign, &ours);
        assert_eq!(journal.after_uninstall(&foreign, "boot", is_ours), foreign);
        // An interrupted change: the limit was written, the pattern was not.
        let half = settings("core", 1024, 0);
        assert_eq!(journal.after_uninstall(&half, "boot", is_ours), foreign);
        assert_eq!(install(Some(&journal), &half, &ours).backup, foreign);
    }

    #[test]
    fn uninstall_preserves_settings_changed_by_another_program() {
        let (foreign, ours) = (settings("core", 0, 0), settings("|/ours", 1024, 2));
        let journal = install(None, &foreign, &ours).settled();
        let changed = settings("|/systemd-coredump", 16, 2);
        let undone = journal.after_uninstall(&changed, "boot", is_ours);
        assert_eq!(undone, settings("|/systemd-coredump", 16, 0));
        let again = install(Some(&journal), &changed, &ours);
        assert_eq!(again.backup, settings("|/systemd-coredump", 16, 0));
    }

    #[test]
    fn our_own_pattern_without_a_journal_is_never_a_backup() {
        let ours = settings("|/ours", 1024, 2);
        let journal = install(None, &ours, &ours);
        assert_eq!(journal.backup, NodeSettings::kernel_defaults());
    }

    #[test]
    fn journal_after_a_reboot_treats_equal_numbers_as_foreign() {
        let (foreign, ours) = (settings("core", 0, 0), settings("|/ours", 1024, 2));
        let journal = install(None, &foreign, &ours).settled();
        let now = settings("core", 1024, 2);
        assert_eq!(journal.after_uninstall(&now, "later boot", is_ours), now);
    }

    #[test]
    fn journal_round_trips_and_a_damaged_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("backup.json");
        assert_eq!(Journal::read(&path).unwrap(), None);
        let journal = install(None, &settings("a\\b", 0, 0), &settings("|/ours", 1, 2));
        journal.write(&path).unwrap();
        journal.write(&path).unwrap();
        assert_eq!(Journal::read(&path).unwrap(), Some(journal));
        fs::write(&path, "{}").unwrap();
        assert!(matches!(
            Journal::read(&path),
            Err(JournalError::Damaged { .. })
        ));
        Journal::remove(&path).unwrap();
        Journal::remove(&path).unwrap();
    }
}
