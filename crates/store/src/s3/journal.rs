//! Records the progress of a multipart upload in a file, so that the next process can resume it.
//!
//! ```text
//! {"version":1,"place":"s3://b at http://…","key":"dumps/….zip","len":…,"part_size":…,"upload":"…","crc64":true}
//! {"number":1,"size":8388608,"etag":"…","crc64":1234}
//! {"number":3,…}
//! ```
//!
//! One line per finished part, in the order of completion. The file is only a hint: the server is
//! asked which parts it has, and each part's checksum is computed again from the body. A line that
//! a crash truncated is ignored.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Increase it when the meaning of the lines changes.
const VERSION: u32 = 1;
/// Maximum size: 10,000 parts of 200 bytes, and a margin.
const LARGEST: u64 = 8 << 20;

/// Which upload it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    pub(super) version: u32,
    pub(super) place: String,
    pub(super) key: String,
    pub(super) len: u64,
    pub(super) part_size: u64,
    pub(super) upload: String,
    /// Whether parts carry CRC-64/NVME; MD5 otherwise.
    pub(super) crc64: bool,
}

impl Begun {
    pub(super) fn new(place: &str, key: &str, len: u64, part_size: u64) -> Self {
        Self {
            version: VERSION,
            place: place.to_owned(),
            key: key.to_owned(),
            len,
            part_size,
            upload: String::new(),
            crc64: false,
        }
    }

    /// Whether it belongs to an upload of the same content to the same place.
    fn continues(&self, wanted: &Self) -> bool {
        let same = Self {
            upload: self.upload.clone(),
            crc64: self.crc64,
            ..wanted.clone()
        };
        *self == same && !self.upload.is_empty()
    }
}

/// A part that the server has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UploadedPart {
    pub(super) number: i32,
    pub(super) size: u64,
    pub(super) etag: String,
    pub(super) crc64: u64,
}

/// The open file. A failed write only prevents resuming, never the upload.
#[derive(Default)]
pub(super) struct Journal(Option<File>);

impl Journal {
    /// Reads a journal if it belongs to the `wanted` upload.
    pub(super) fn read(
        path: &Path,
        wanted: &Begun,
    ) -> Option<(Begun, BTreeMap<i32, UploadedPart>)> {
        let mut text = String::new();
        let file = File::open(path).ok()?;
        file.take(LARGEST).read_to_string(&mut text).ok()?;
        let mut lines = text.lines();
        let begun: Begun = serde_json::from_str(lines.next()?).ok()?;
        if !begun.continues(wanted) {
            return None;
        }
        let parts = lines.filter_map(|line| serde_json::from_str::<UploadedPart>(line).ok());
        Some((begun, parts.map(|part| (part.number, part)).collect()))
    }

    /// Starts a new journal, or continues the one that was read.
    pub(super) fn write(path: Option<&Path>, begun: &Begun, is_new: bool) -> Self {
        let open = |path: &Path| -> io::Result<File> {
            if let Some(above) = path.parent() {
                fs::create_dir_all(above)?;
            }
            let mut options = OpenOptions::new();
            options.create(true).mode(0o600);
            if is_new {
                options.write(true).truncate(true);
            } else {
                options.append(true);
            }
            let mut file = options.open(path)?;
            if is_new {
                line(&mut file, begun)?;
            } else {
                // Truncate an incomplete last line.
                file.write_all(b"\n")?;
            }
            Ok(file)
        };
        Self(path.and_then(|path| open(path).ok()))
    }

    /// Notes a finished part.
    pub(super) fn finished(&mut self, part: &UploadedPart) {
        if let Some(file) = &mut self.0
            && line(file, part).is_err()
        {
            self.0 = None;
        }
    }
}

fn line(file: &mut File, value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string(value)?;
    text.push('\n');
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upload_journal_round_trips_only_for_the_same_upload() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("uploads/a");
        let wanted = Begun::new("s3://b", "k", 100, 10);
        let begun = Begun {
            upload: "u".to_owned(),
            crc64: true,
            ..wanted.clone()
        };
        let part = |number| UploadedPart {
            number,
            size: 10,
            etag: "e".to_owned(),
            crc64: u64::MAX,
        };
        let mut journal = Journal::write(Some(&path), &begun, true);
        journal.finished(&part(2));
        journal.finished(&part(1));
        drop(journal);
        // A truncated line, and one after it.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"number\":7,\"si").unwrap();
        let mut journal = Journal::write(Some(&path), &begun, false);
        journal.finished(&part(3));
        let (read, parts) = Journal::read(&path, &wanted).unwrap();
        assert_eq!(read, begun);
        assert_eq!(parts.into_keys().collect::<Vec<_>>(), [1, 2, 3]);
        for other in [
            Begun::new("s3://c", "k", 100, 10),
            Begun::new("s3://b", "l", 100, 10),
            Begun::new("s3://b", "k", 101, 10),
            Begun::new("s3://b", "k", 100, 11),
        ] {
            assert!(Journal::read(&path, &other).is_none());
        }
        fs::write(&path, "nonsense").unwrap();
        assert!(Journal::read(&path, &wanted).is_none());
    }
}
