//! Escapes untrusted text for one line of a terminal.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

/// Escapes everything in `text` that could move the cursor, colour the screen, reorder text or break
/// the line: C0 and C1 controls, DEL, and Unicode's line, paragraph and direction marks.
#[must_use]
pub fn terminal_line(text: &str) -> String {
    // Almost everything is.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if c.is_control() && (c as u32) < 0x100 => {
                line.push_str(&format!("\\x{:02x}", c as u32));
            }
            c if is_invisible(c) => line.push_str(&format!("\\u{{{:x}}}", c as u32)),
            c => line.push(c),
        }
    }
    line
}

/// Format characters that change how their neighbours are displayed (Unicode TR 36, "bidirectional text
/// spoofing").
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// `value` as indented JSON that ends with a line feed. JSON allows C1 controls and direction marks; here they
/// are escaped like other controls, and parsers read the same text.
///
/// # Errors
/// If `value` cannot be serialized.
pub fn json_text(value: &(impl Serialize + ?Sized)) -> anyhow::Result<String> {
    Ok(escaped_json(&serde_json::to_string_pretty(value)?) + "\n")
}

/// Like [`json_text`], with the keys of each object in alphabetical order.
///
/// # Errors
/// If `value` cannot be serialized.
pub fn sorted_json(value: &impl Serialize) -> anyhow::Result<String> {
    json_text(&serde_json::to_value(value)?)
}

/// One JSON object per line, escaped like [`json_text`].
///
/// # Errors
/// If a row cannot be serialized.
pub(super) fn json_lines(rows: &[impl Serialize]) -> anyhow::Result<String> {
    let mut text = String::new();
    for row in rows {
        text.push_str(&escaped_json(&serde_json::to_string(row)?));
        text.push('\n');
    }
    Ok(text)
}

/// Escapes in JSON everything that a terminal would obey. Outside of strings, JSON has only ASCII.
fn escaped_json(json: &str) -> String {
    if json.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')) {
        return json.to_owned();
    }
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\n' => text.push('\n'),
            c if is_invisible(c) => text.push_str(&format!("\\u{:04x}", c as u32)),
            c => text.push(c),
        }
    }
    text
}

/// A word for a shell, on one line: quoted only if necessary.
#[must_use]
pub fn shell_word(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref();
    let text = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+~".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else if text.chars().any(is_invisible) || word.to_str().is_none() {
        // $'…' of bash and POSIX 2024: octal escapes are bytes of up to three digits.
        let mut quoted = String::from("$'");
        for chunk in word.as_bytes().utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\n' => quoted.push_str("\\n"),
                    '\\' | '\'' => quoted.extend(['\\', c]),
                    c if is_invisible(c) => {
                        let mut bytes = [0; 4];
                        c.encode_utf8(&mut bytes);
                        let bytes = bytes.iter().take(c.len_utf8());
                        bytes.for_each(|byte| quoted.push_str(&format!("\\{byte:03o}")));
                    }
                    c => quoted.push(c),
                }
            }
            let invalid = chunk.invalid().iter();
            invalid.for_each(|byte| quoted.push_str(&format!("\\{byte:03o}")));
        }
        quoted + "'"
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::process::Command;

    use super::{json_text, shell_word, terminal_line};

    const HOSTILE: &str = "a'b\\c\x1b[31m\u{9b}31m\u{202e}rtl\u{2066}\n$(id)\x7f1\u{9b}7";

    #[test]
    fn json_text_escapes_controls_and_stays_the_same_document() {
        let value = serde_json::json!({ HOSTILE: [HOSTILE, "größe"] });
        let text = json_text(&value).unwrap();
        let raw = |c: char| c != '\n' && super::is_invisible(c);
        assert!(!text.chars().any(raw), "{text:?}");
        assert!(
            text.contains("\\u009b31m\\u202ertl") && text.contains("größe"),
            "{text}"
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }

    #[test]
    fn shell_word_is_harmless_to_show_and_the_same_word_to_bash() {
        let words: [&[u8]; 4] = [HOSTILE.as_bytes(), b"plain", b"it's; id", b"\xff\x1b7"];
        for word in words {
            let quoted = shell_word(OsStr::from_bytes(word));
            assert!(!quoted.chars().any(super::is_invisible), "{quoted:?}");
            let script = format!("printf %s {quoted}");
            let answer = Command::new("bash").args(["-c", &script]).output().unwrap();
            assert_eq!(answer.stdout, word, "{quoted}");
        }
    }

    #[test]
    fn terminal_gets_no_control_characters() {
        assert_eq!(
            terminal_line("a\x1b[31mb\n\u{9b}c\u{202e}d\x7f"),
            "a\\x1b[31mb\\n\\x9bc\\u{202e}d\\x7f"
        );
    }

    #[test]
    fn ordinary_text_is_unchanged() {
        let text = r"C:\größe 日本 'quoted' naïve";
        assert_eq!(terminal_line(text), text);
    }
}
