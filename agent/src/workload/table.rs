//! The node's table of pods with settings for their dumps: one small file per pod in the spool,
//! named by its UID.
//!
//! The daemon writes the files; the handler reads one of them and never waits. A pod without a file
//! has default settings. The daemon checks the pod's settings again before it ships, so the
//! settings of a pod that was too new for the table are still respected.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags};

use crate::policy::pod_settings::PodSettings;
use crate::private_file::PrivateDirectory;

const DIRECTORY: &str = ".pods";
/// Maximum bytes of a pod's file, which contains the labels that rules have conditions on.
const LARGEST: u64 = 64 << 10;
/// How long a pod's settings outlive the pod: its last process may crash after it was deleted.
const KEPT: Duration = Duration::from_secs(600);

/// The table of one spool.
#[derive(Clone, Debug)]
pub(crate) struct PodTable {
    directory: PathBuf,
}

impl PodTable {
    /// The table of this spool.
    #[must_use]
    pub(crate) fn of(spool: &Path) -> Self {
        Self {
            directory: spool.join(DIRECTORY),
        }
    }

    /// The pod's settings, if it has any.
    #[must_use]
    pub(crate) fn get(&self, uid: &str) -> Option<PodSettings> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(self.path(uid)?, flags, Mode::empty()).ok()?;
        let mut text = Vec::new();
        File::from(file).take(LARGEST).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Writes a pod's settings; a pod without settings has no file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn set(&self, uid: &str, settings: &PodSettings) -> io::Result<()> {
        let Some(path) = self.path(uid) else {
            return Ok(());
        };
        if settings.is_usual() {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        if self.get(uid).as_ref() == Some(settings) {
            return Ok(());
        }
        let _private = PrivateDirectory::create(&self.directory)?;
        let draft = self.directory.join(format!(".{uid}.new"));
        let _ = fs::remove_file(&draft);
        let mut file = fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(&serde_json::to_vec(settings)?)?;
        fs::rename(&draft, path)
    }

    /// Removes pods that no longer exist. `listed` are the runtime's current pods.
    pub(crate) fn keep(&self, listed: &BTreeMap<String, PodSettings>) {
        for (uid, settings) in listed {
            // Without a file, the pod's settings are applied when its dump is shipped.
            let _ = self.set(uid, settings);
        }
        for item in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let known = item
                .file_name()
                .to_str()
                .is_some_and(|uid| listed.contains_key(uid));
            let age = item
                .metadata()
                .and_then(|metadata| metadata.modified())
                .ok()
                .and_then(|time| SystemTime::now().duration_since(time).ok());
            if !known && age.is_none_or(|age| age > KEPT) {
                let _ = fs::remove_file(item.path());
            }
        }
    }

    fn path(&self, uid: &str) -> Option<PathBuf> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let usable = (1..=128).contains(&uid.len()) && uid.bytes().all(plain);
        usable.then(|| self.directory.join(uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Profile;

    #[test]
    fn pod_table_round_trips_from_daemon_to_handler() {
        let spool = tempfile::tempdir().unwrap();
        let table = PodTable::of(spool.path());
        let settings = PodSettings {
            profile: Some(Profile::Minicore),
            ..PodSettings::default()
        };
        assert_eq!(table.get("6a9b"), None);
        table.set("6a9b", &settings).unwrap();
        assert_eq!(table.get("6a9b"), Some(settings.clone()));
        table.set("6a9b", &PodSettings::default()).unwrap();
        assert_eq!(table.get("6a9b"), None);
        table.set("../evil", &settings).unwrap();
        assert!(!spool.path().join("evil").exists());
        table.keep(&BTreeMap::from([("6a9b".to_owned(), settings.clone())]));
        table.keep(&BTreeMap::new());
        assert_eq!(table.get("6a9b"), Some(settings), "a pod that just went");
    }
}
