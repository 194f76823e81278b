//! Journal export files (`journalctl -o export`): the entries of systemd-coredump in them.
//!
//! ```text
//! COREDUMP_PID=4242\n                    a text field
//! COREDUMP\n<length: u64 le><bytes>\n    a binary one: here, the core itself
//! \n                                     the end of an entry
//! ```
//!
//! The format: <https://systemd.io/JOURNAL_EXPORT_FORMATS>. The file is untrusted: lines, fields and entries are
//! limited, and a core is written to disk, not to memory.

use std::fs::File;
use std::io::{self, BufRead, Read, Seek};
use std::path::Path;

use super::Provenance;

/// The start of an export: each entry begins with its cursor.
pub(super) const MAGIC: &[u8] = b"__CURSOR=";
/// `SD_MESSAGE_COREDUMP` (`sd-messages.h`): the entries of systemd-coredump.
const COREDUMP_MESSAGE: &[u8] = b"fc2e22bc6ee647b6b90729ab34a250b1";
/// Longest name of a field (`journal-file.c` allows 64).
const MAX_NAME: usize = 128;
/// Longest value of a text field; systemd stores up to 64 KiB of `/proc` files, `maps` may be larger.
const MAX_VALUE: u64 = 4 << 20;
/// Maximum bytes of all fields of an entry.
const MAX_ENTRY: usize = 16 << 20;
/// Maximum size of a core in the journal.
const MAX_CORE: u64 = 1 << 42;
/// Fields that describe the crash or the host, besides those with the prefix `COREDUMP_`.
const OTHERS: [&str; 7] = [
    "MESSAGE",
    "MESSAGE_ID",
    "_BOOT_ID",
    "_HOSTNAME",
    "_MACHINE_ID",
    "__CURSOR",
    "__REALTIME_TIMESTAMP",
];

/// One crash in the journal.
pub(super) struct JournalEntry {
    /// What it says.
    pub(super) provenance: Provenance,
    /// The core, if the journal itself holds it.
    pub(super) core: Option<File>,
}

/// Reads the entries of a journal export.
pub(super) struct JournalReader<'d, R> {
    input: R,
    /// The directory for cores while an entry is read.
    directory: &'d Path,
}

impl<'d, R: BufRead> JournalReader<'d, R> {
    pub(super) fn new(input: R, directory: &'d Path) -> Self {
        Self { input, directory }
    }

    /// The next crash; `None` at the end. Other entries are skipped.
    pub(super) fn next_crash(&mut self) -> io::Result<Option<JournalEntry>> {
        loop {
            let Some((entry, is_crash)) = self.entry()? else {
                return Ok(None);
            };
            if is_crash {
                return Ok(Some(entry));
            }
        }
    }

    fn entry(&mut self) -> io::Result<Option<(JournalEntry, bool)>> {
        let mut entry = JournalEntry {
            provenance: Provenance::default(),
            core: None,
        };
        let (mut is_crash, mut is_empty, mut size) = (false, true, 0_usize);
        loop {
            let (name, separator) = self.name()?;
            match separator {
                // The end of the file, perhaps within an entry.
                None if is_empty && name.is_empty() => return Ok(None),
                None => return Ok(Some((entry, is_crash))),
                Some(b'\n') if name.is_empty() => {
                    if is_empty {
                        continue;
                    }
                    return Ok(Some((entry, is_crash)));
                }
                Some(b'\n') if name == "COREDUMP" => {
                    is_empty = false;
                    entry.core = Some(self.core()?);
                    continue;
                }
                Some(_) => {}
            }
            is_empty = false;
            let value = match separator {
                Some(b'=') => self.line()?,
                _ => self.binary()?,
            };
            let is_wanted = name.starts_with("COREDUMP_") || OTHERS.contains(&name.as_str());
            size = size.saturating_add(value.len());
            if is_wanted && size <= MAX_ENTRY {
                is_crash |= name == "MESSAGE_ID" && value == COREDUMP_MESSAGE;
                // An export of selected fields (`--output-fields`) has no MESSAGE_ID.
                is_crash |= name == "COREDUMP_PID";
                entry.provenance.add(&name, &value);
            }
        }
    }

    /// A field's name, and the byte that ends it: `=`, a line's end, or none at the end of the file.
    fn name(&mut self) -> io::Result<(String, Option<u8>)> {
        let mut name = String::new();
        loop {
            let mut byte = [0];
            if self.input.read(&mut byte)? == 0 {
                return Ok((name, None));
            }
            match byte {
                [end @ (b'=' | b'\n')] => return Ok((name, Some(end))),
                [letter @ (b'A'..=b'Z' | b'0'..=b'9' | b'_')] if name.len() < MAX_NAME => {
                    name.push(char::from(letter));
                }
                _ => return Err(invalid("a field has an invalid name")),
            }
        }
    }

    /// The rest of a line, without its end.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.input
            .by_ref()
            .take(MAX_VALUE)
            .read_until(b'\n', &mut line)?;
        if line.pop_if(|last| *last == b'\n').is_none() && line.len() as u64 == MAX_VALUE {
            self.input.skip_until(b'\n')?;
        }
        Ok(line)
    }

    fn len(&mut self) -> io::Result<u64> {
        let mut len = [0; 8];
        self.input.read_exact(&mut len)?;
        Ok(u64::from_le_bytes(len))
    }

    /// A value that follows its length, and the line end after it.
    fn binary(&mut self) -> io::Result<Vec<u8>> {
        let len = self.len()?;
        let mut value = Vec::new();
        let kept = len.min(MAX_VALUE);
        self.input.by_ref().take(kept).read_to_end(&mut value)?;
        let rest = len.saturating_sub(kept);
        io::copy(&mut self.input.by_ref().take(rest), &mut io::sink())?;
        self.end_of_value()?;
        Ok(value)
    }

    /// A core, in an unlinked file.
    fn core(&mut self) -> io::Result<File> {
        let len = self.len()?;
        if len > MAX_CORE {
            return Err(invalid("a core is larger than 4 TiB"));
        }
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::TMPFILE;
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let mut core = File::from(rustix::fs::open(self.directory, flags, mode)?);
        let copied = io::copy(&mut self.input.by_ref().take(len), &mut core)?;
        if copied == len {
            self.end_of_value()?;
        }
        core.rewind()?;
        Ok(core)
    }

    fn end_of_value(&mut self) -> io::Result<()> {
        let mut end = [0];
        match self.input.read(&mut end)? {
            1 if end != *b"\n" => Err(invalid("a field is longer than its length")),
            _ => Ok(()),
        }
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crashes(bytes: &[u8]) -> io::Result<Vec<JournalEntry>> {
        let directory = tempfile::tempdir().unwrap();
        let mut reader = JournalReader::new(bytes, directory.path());
        let mut found = Vec::new();
        while let Some(entry) = reader.next_crash()? {
            found.push(entry);
        }
        Ok(found)
    }

    fn text(entry: &JournalEntry, name: &str) -> String {
        let field = entry.provenance.field(name);
        field.map(ToString::to_string).unwrap_or_default()
    }

    #[test]
    fn journal_export_gives_crashes_with_text_and_binary_fields() {
        let mut bytes = b"__CURSOR=a\nMESSAGE=nothing\n_HOSTNAME=vm\n\n".to_vec();
        bytes.extend(b"__CURSOR=b\n_HOSTNAME=vm\nCOREDUMP_PID=42\nPRIORITY=2\nCOREDUMP_CMDLINE\n");
        bytes.extend(7_u64.to_le_bytes());
        bytes.extend(b"a\nb = c\nCOREDUMP\n");
        bytes.extend(5_u64.to_le_bytes());
        bytes.extend(b"\n\0=xy\nCOREDUMP_UNIT=app.service\n\n");
        bytes.extend(
            b"__CURSOR=c\nMESSAGE_ID=fc2e22bc6ee647b6b90729ab34a250b1\nCOREDUMP_EXE=/bin/x",
        );
        let found = crashes(&bytes).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(text(&found[0], "COREDUMP_CMDLINE"), "a\\x0ab = c");
        assert_eq!(text(&found[0], "COREDUMP_UNIT"), "app.service");
        assert_eq!(text(&found[0], "PRIORITY"), "");
        let mut core = Vec::new();
        let mut file = found[0].core.as_ref().unwrap();
        file.read_to_end(&mut core).unwrap();
        assert_eq!(core, b"\n\0=xy");
        assert_eq!(text(&found[1], "COREDUMP_EXE"), "/bin/x");
    }

    #[test]
    fn damaged_journal_export_is_an_error_or_ends_early() {
        let mut huge = b"__CURSOR=a\nCOREDUMP_PID=1\nCOREDUMP\n".to_vec();
        huge.extend(u64::MAX.to_le_bytes());
        assert!(crashes(&huge).is_err());
        let mut cut = b"__CURSOR=a\nCOREDUMP_PID=1\nCOREDUMP_EXE\n".to_vec();
        cut.extend(u64::MAX.to_le_bytes());
        cut.extend(b"/bin/x");
        assert_eq!(text(&crashes(&cut).unwrap()[0], "COREDUMP_EXE"), "/bin/x");
        assert!(crashes(b"__CURSOR=a\n\xff\xfe=1\n").is_err());
        assert!(crashes(&[b'A'; 1 << 20]).is_err());
        assert!(crashes(b"").unwrap().is_empty() && crashes(b"\n\n\n").unwrap().is_empty());
    }
}
