//! Reads and writes the three kernel settings that decide where cores go.
//!
//! Invariant: after [`NodeSettings::apply`], either every setting has the wanted value, or each one has
//! its previous value. The order of the writes avoids a kernel warning: the kernel prints "Unsafe
//! core_pattern used with fs.suid_dumpable=2" if 2 is set together with a pattern that is neither a
//! pipe nor an absolute path (`validate_coredump_safety`, fs/coredump.c). Who set a value is recorded
//! in the journal, not here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cdh_bundle::RawText;
use serde::{Deserialize, Serialize};

use crate::paths::{CORE_PATTERN_MAX, SettingsFiles};

/// Why a setting could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// Not readable.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Not a number, although one is expected.
    #[error("{path} holds `{found}`, not a number")]
    NotANumber {
        /// Which file.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
    /// Longer than the kernel's limit.
    #[error("the core pattern has {found} bytes, the kernel's maximum is {limit}")]
    PatternTooLong {
        /// Its length, bytes.
        found: usize,
        /// The kernel's limit, bytes.
        limit: usize,
    },
    /// The kernel refused the value.
    #[error("cannot write `{value}` to {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// The value that was to be written.
        value: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The kernel accepted the value but shows another one.
    #[error("{path} holds `{found}` after `{wanted}` was written")]
    Altered {
        /// Which file.
        path: PathBuf,
        /// What was written.
        wanted: String,
        /// What is there now.
        found: String,
    },
}

/// Values of the three settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSettings {
    /// `kernel.core_pattern`, any bytes, without the newline.
    pub core_pattern: RawText,
    /// `kernel.core_pipe_limit`: maximum crashes piped at once; 0 means no limit and no waiting.
    pub core_pipe_limit: u32,
    /// `fs.suid_dumpable`: 0 never, 1 readable by the user, 2 by root only.
    pub suid_dumpable: u32,
}

impl NodeSettings {
    /// The kernel's defaults.
    #[must_use]
    pub fn kernel_defaults() -> Self {
        Self {
            core_pattern: RawText::from("core"),
            core_pipe_limit: 0,
            suid_dumpable: 0,
        }
    }

    /// The current values.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn read(files: &SettingsFiles) -> Result<Self, SettingsError> {
        Ok(Self {
            core_pattern: RawText::new(read_line(&files.core_pattern)?),
            core_pipe_limit: read_number(&files.core_pipe_limit)?,
            suid_dumpable: read_number(&files.suid_dumpable)?,
        })
    }

    /// Sets these values, or leaves all unchanged.
    ///
    /// # Errors
    /// If the pattern is too long, or the kernel refuses or alters a value; values that were
    /// already written are restored.
    pub fn apply(&self, files: &SettingsFiles) -> Result<(), SettingsError> {
        if self.core_pattern.as_bytes().len() > CORE_PATTERN_MAX {
            return Err(SettingsError::PatternTooLong {
                found: self.core_pattern.as_bytes().len(),
                limit: CORE_PATTERN_MAX,
            });
        }
        let before = Self::read(files)?;
        self.write_changed(&before, files).inspect_err(|_| {
            // The first failure is reported. A value that cannot be restored shows in `status`, and
            // the journal still has it.
            if let Ok(now) = Self::read(files) {
                let _ = before.write_changed(&now, files);
            }
        })
    }

    fn write_changed(&self, now: &Self, files: &SettingsFiles) -> Result<(), SettingsError> {
        let suid = || match self.suid_dumpable == now.suid_dumpable {
            true => Ok(()),
            false => write_number(&files.suid_dumpable, self.suid_dumpable),
        };
        let pattern = || match self.core_pattern == now.core_pattern {
            true => Ok(()),
            false => write_line(&files.core_pattern, self.core_pattern.as_bytes()),
        };
        if self.core_pipe_limit != now.core_pipe_limit {
            write_number(&files.core_pipe_limit, self.core_pipe_limit)?;
        }
        // A safe pattern is set before suid_dumpable becomes 2, and replaced after it was changed
        // back.
        if is_safe_with_suid(self.core_pattern.as_bytes()) {
            pattern().and_then(|()| suid())
        } else {
            suid().and_then(|()| pattern())
        }
    }
}

/// Whether the kernel accepts the pattern with `suid_dumpable` 2 without a warning.
#[must_use]
pub fn is_safe_with_suid(pattern: &[u8]) -> bool {
    matches!(pattern.first(), Some(b'/' | b'|' | b'@'))
}

fn read_line(path: &Path) -> Result<Vec<u8>, SettingsError> {
    let mut line = fs::read(path).map_err(|source| SettingsError::Read {
        path: path.to_owned(),
        source,
    })?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(line)
}

fn read_number(path: &Path) -> Result<u32, SettingsError> {
    let line = read_line(path)?;
    let text = String::from_utf8_lossy(&line);
    text.trim().parse().map_err(|_| SettingsError::NotANumber {
        path: path.to_owned(),
        found: RawText::from(text.trim()).to_string(),
    })
}

fn write_number(path: &Path, value: u32) -> Result<(), SettingsError> {
    write_line(path, value.to_string().as_bytes())
}

fn write_line(path: &Path, value: &[u8]) -> Result<(), SettingsError> {
    let shown = |bytes: &[u8]| RawText::from(bytes).to_string();
    // With the newline, because the kernel ignores a write of zero bytes.
    let mut line = value.to_vec();
    line.push(b'\n');
    fs::write(path, &line).map_err(|source| SettingsError::Write {
        path: path.to_owned(),
        value: shown(value),
        source,
    })?;
    let found = read_line(path)?;
    if found == value {
        return Ok(());
    }
    Err(SettingsError::Altered {
        path: path.to_owned(),
        wanted: shown(value),
        found: shown(&found),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pattern: &str, limit: &str, suid: &str) -> (tempfile::TempDir, SettingsFiles) {
        let directory = tempfile::tempdir().unwrap();
        let files = SettingsFiles::in_directory(directory.path());
        fs::write(&files.core_pattern, pattern).unwrap();
        fs::write(&files.core_pipe_limit, limit).unwrap();
        fs::write(&files.suid_dumpable, suid).unwrap();
        (directory, files)
    }

    fn settings(pattern: &[u8], limit: u32, suid: u32) -> NodeSettings {
        NodeSettings {
            core_pattern: RawText::from(pattern),
            core_pipe_limit: limit,
            suid_dumpable: suid,
        }
    }

    #[test]
    fn applied_settings_are_read_back() {
        let (_directory, files) = files("core\n", "0\n", "0\n");
        let wanted = settings(b"|/x/cdh-handler \xff P%P", 1024, 2);
        wanted.apply(&files).unwrap();
        assert_eq!(NodeSettings::read(&files).unwrap(), wanted);
    }

    #[test]
    fn pattern_longer_than_the_kernel_keeps_is_refused_before_any_write() {
        let (_directory, files) = files("core\n", "0\n", "0\n");
        let error = settings(&[b'x'; 128], 7, 2).apply(&files).unwrap_err();
        assert!(matches!(
            error,
            SettingsError::PatternTooLong {
                found: 128,
                limit: 127
            }
        ));
        assert_eq!(NodeSettings::read(&files).unwrap(), settings(b"core", 0, 0));
        settings(&[b'x'; 127], 7, 2).apply(&files).unwrap();
    }

    #[test]
    fn settings_apply_restores_the_others_if_one_is_refused() {
        let (_directory, mut files) = files("core\n", "5\n", "0\n");
        // /proc/self/comm accepts a write and truncates it to 15 bytes: a setting that the kernel
        // alters.
        files.core_pattern = "/proc/thread-self/comm".into();
        let before = NodeSettings::read(&files).unwrap();
        let error = settings(b"|/a/pattern/that/is/cut", 9, 2)
            .apply(&files)
            .unwrap_err();
        assert!(matches!(error, SettingsError::Altered { .. }), "{error}");
        assert_eq!(NodeSettings::read(&files).unwrap(), before);
    }

    #[test]
    fn text_where_a_number_must_be_is_an_error_that_shows_it_escaped() {
        let (_directory, files) = files("core\n", "a\x1b[31m\n", "0\n");
        let error = NodeSettings::read(&files).unwrap_err().to_string();
        assert!(
            error.contains("not a number") && !error.contains('\x1b'),
            "{error}"
        );
    }
}
