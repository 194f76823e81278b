//! Identifies a file that is not a core by its first bytes, and suggests the command that extracts
//! the core.
//!
//! Formats that cdh opens itself are in `compressed` and `zipped_core`; this module has the others.

use crate::render::shell_word;
use crate::report::Failure;

/// Bytes of a file that [`OtherFile::of`] looks at.
pub(super) const START: usize = 512;

/// What to do with such a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Advice {
    /// A command that writes the content to `core`; `{}` is the file.
    Decompress(&'static str),
    /// A command that unpacks files; `{}` is the archive.
    Unpack(&'static str),
    /// Another command; `{}` is the file.
    Run(&'static str),
    /// In words.
    Do(&'static str),
}

/// A file of a kind that is not a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OtherFile {
    what: &'static str,
    advice: Advice,
}

/// Offset of the first bytes, the bytes, and the kind of file. The numbers are those of `file(1)`.
const KINDS: [(usize, &[u8], &str, Advice); 27] = [
    (257, b"ustar", "a tar archive", Advice::Unpack("tar -xf {}")),
    (
        0,
        b"7z\xbc\xaf\x27\x1c",
        "a 7z archive",
        Advice::Unpack("7z x {}"),
    ),
    (
        0,
        b"Rar!\x1a\x07",
        "a RAR archive",
        Advice::Unpack("unrar x {}"),
    ),
    (0, b"PK\x03\x04", "a zip", Advice::Unpack("unzip {}")),
    (
        0,
        b"070701",
        "a cpio archive",
        Advice::Unpack("cpio -id < {}"),
    ),
    (
        0,
        b"070707",
        "a cpio archive",
        Advice::Unpack("cpio -id < {}"),
    ),
    (
        0,
        b"\xc7\x71",
        "a cpio archive",
        Advice::Unpack("cpio -id < {}"),
    ),
    (0, b"!<arch>\n", "an ar archive", Advice::Unpack("ar x {}")),
    (0, b"MSCF", "a cabinet archive", Advice::Unpack("7z x {}")),
    (
        0,
        b"LZIP",
        "compressed by lzip",
        Advice::Decompress("lzip -dc {}"),
    ),
    (
        0,
        b"\x89LZO\0\r\n\x1a\n",
        "compressed by lzop",
        Advice::Decompress("lzop -dc {}"),
    ),
    (
        0,
        b"\x02\x21\x4c\x18",
        "compressed by lz4 (legacy frames)",
        Advice::Decompress("lz4 -dc {}"),
    ),
    (
        0,
        b"\x5d\0\0",
        "compressed by lzma",
        Advice::Decompress("xz --format=lzma -dc {}"),
    ),
    (
        0,
        b"\x1f\x9d",
        "compressed by compress",
        Advice::Decompress("gzip -dc {}"),
    ),
    (
        0,
        b"\x1f\xa0",
        "compressed by lzh",
        Advice::Decompress("gzip -dc {}"),
    ),
    (
        0,
        b"\x1f\x1e",
        "compressed by pack",
        Advice::Decompress("gzip -dc {}"),
    ),
    (
        0,
        b"\xff\x06\0\0sNaPpY",
        "compressed by snappy",
        Advice::Decompress("snzip -dc {}"),
    ),
    (
        0,
        b"Salted__",
        "encrypted by openssl",
        Advice::Do(
            "decrypt it with `openssl enc -d` and the cipher and key that it was encrypted with",
        ),
    ),
    (
        0,
        b"age-encryption.org/",
        "encrypted by age",
        Advice::Decompress("age -d {}"),
    ),
    (
        0,
        b"-----BEGIN PGP MESSAGE",
        "encrypted by PGP",
        Advice::Decompress("gpg -d {}"),
    ),
    (
        0,
        b"LPKSHHRH",
        "a journal of systemd",
        Advice::Run(
            "journalctl --file {} -o export MESSAGE_ID=fc2e22bc6ee647b6b90729ab34a250b1 > crashes.export` and `cdh import crashes.export",
        ),
    ),
    (
        0,
        b"ProblemType: ",
        "a report of apport",
        Advice::Run("apport-unpack {} report` and `cdh info report/CoreDump"),
    ),
    (
        0,
        b"MDMP",
        "a minidump, which holds no ELF core",
        Advice::Run("minidump-stackwalk {}"),
    ),
    (
        0,
        b"\xcf\xfa\xed\xfe",
        "a Mach-O file of macOS",
        Advice::Run("lldb -c {}"),
    ),
    (
        0,
        b"MZ",
        "a program of Windows",
        Advice::Do("pass the core of a Linux process"),
    ),
    (
        0,
        b"JAVA PROFILE ",
        "a heap dump of Java, not a core",
        Advice::Do("open it with a Java tool such as Eclipse MAT"),
    ),
    (
        0,
        b"version https://git-lfs",
        "a pointer of git-lfs to the file",
        Advice::Do("download the file itself with `git lfs pull`"),
    ),
];

impl OtherFile {
    /// Identifies a file by its first bytes, up to [`START`] of them.
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        let is_kind =
            |at: usize, magic: &[u8]| start.get(at..).is_some_and(|rest| rest.starts_with(magic));
        let known = KINDS
            .into_iter()
            .find(|(at, magic, ..)| is_kind(*at, magic))
            .map(|(_, _, what, advice)| Self { what, advice });
        known.or_else(|| Self::of_content(start))
    }

    /// Identifies a file by its content if there is no magic number.
    fn of_content(start: &[u8]) -> Option<Self> {
        let (what, advice) = match () {
            () if start.is_empty() => return None,
            () if start.iter().all(|byte| *byte == 0) => (
                "zeros: its data never reached the disk, or were lost",
                "copy the file again from its source",
            ),
            () if !is_text(start) => return None,
            () => {
                let text = String::from_utf8_lossy(start).to_ascii_lowercase();
                let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
                match () {
                    () if text.starts_with("<!doctype html") || text.contains("<html") => (
                        "an HTML page, such as a login page or the error of a proxy",
                        "download the file again, with the credentials that it needs",
                    ),
                    () if text.contains("<error>") && text.contains("<code>") => (
                        "the error message of an S3 server",
                        "read it with `cat`, and download the file again",
                    ),
                    () => (
                        "text",
                        "pass a core, or a bundle (zip) of cdh or of IBM's core-dump-handler",
                    ),
                }
            }
        };
        Some(Self {
            what,
            advice: Advice::Do(advice),
        })
    }

    /// Whether its command also reads it when compressed.
    pub(super) fn is_opened_compressed(self) -> bool {
        matches!(self.advice, Advice::Unpack(template) if template.starts_with("tar "))
    }

    /// The kind of file, as a cause: `caused by: the file is a tar archive`.
    pub(super) fn cause(self) -> String {
        format!("the file is {}", self.what)
    }

    /// Adds the command, for the file that messages call `shown`.
    pub(super) fn advise(self, failure: Failure, shown: &str) -> Failure {
        let command = |template: &str| template.replace("{}", &shell_word(shown));
        failure.hint(match self.advice {
            Advice::Decompress(template) => {
                format!(
                    "decompress it with `{} > core`, then pass `core`",
                    command(template)
                )
            }
            Advice::Unpack(template) => {
                format!(
                    "unpack it with `{}`, then pass the core that was in it",
                    command(template)
                )
            }
            Advice::Run(template) => format!("use `{}`", command(template)),
            Advice::Do(text) => text.to_owned(),
        })
    }
}

/// Whether these bytes look like text: UTF-8 without control characters; the last character may be incomplete.
fn is_text(start: &[u8]) -> bool {
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            let valid = start.get(..error.valid_up_to()).unwrap_or_default();
            std::str::from_utf8(valid).unwrap_or_default()
        }
        Err(_) => return false,
    };
    let is_binary = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{c}');
    !text.is_empty() && !text.chars().any(is_binary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::ExitStatus;

    fn hint(start: &[u8]) -> String {
        let found = OtherFile::of(start).unwrap();
        let failure = found.advise(Failure::new(ExitStatus::Failure, "x"), "dir/a b");
        crate::report::rendered(&failure.into()).hints.join("\n")
    }

    #[test]
    fn archives_and_compressed_files_are_named_with_the_command_that_opens_them() {
        let mut tar = vec![b'x'; 512];
        tar[257..262].copy_from_slice(b"ustar");
        let table: [(&[u8], &str); 6] = [
            (&tar, "`tar -xf 'dir/a b'`"),
            (b"7z\xbc\xaf\x27\x1c\0\x04", "`7z x 'dir/a b'`"),
            (b"LZIP\x01", "`lzip -dc 'dir/a b' > core`"),
            (b"\x02\x21\x4c\x18aa", "`lz4 -dc 'dir/a b' > core`"),
            (b"\x5d\0\0\x80\0", "`xz --format=lzma -dc 'dir/a b' > core`"),
            (b"\x1f\x9d\x90", "`gzip -dc 'dir/a b' > core`"),
        ];
        for (start, command) in table {
            assert!(hint(start).contains(command), "{}", hint(start));
        }
    }

    #[test]
    fn other_file_distinguishes_pages_and_texts_from_damaged_cores() {
        let what = |start: &[u8]| OtherFile::of(start).map(|found| found.what);
        assert!(what(b"\n<!DOCTYPE html><html>").unwrap().contains("HTML"));
        let error = b"<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code>";
        assert!(what(error).unwrap().contains("S3"));
        assert_eq!(what("h\u{e9}llo\n".as_bytes()), Some("text"));
        assert_eq!(what(b"h\xc3"), Some("text"));
        assert!(what(&[0; 512]).unwrap().contains("zeros"));
        assert_eq!(what(b"\x01\x02binary"), None);
        assert_eq!(what(b""), None);
    }
}
