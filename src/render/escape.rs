//! Text from outside made safe for one line of a terminal.

use std::ffi::OsStr;

/// `text` with everything that could move the cursor, colour the screen, reorder text or break the line
/// written as an escape: C0 and C1 controls, DEL, and Unicode's line, paragraph and direction marks.
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

/// Format characters that change how their neighbours are shown (Unicode TR 36, "bidirectional text spoofing").
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A word as a shell takes it, on one line: quoted only if it has to be.
#[must_use]
pub fn shell_word(word: impl AsRef<OsStr>) -> String {
    let text = word.as_ref().to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+~".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else if text.chars().any(char::is_control) {
        // $'…' of bash and POSIX 2024 takes the same escapes that make the line safe to show.
        format!(
            "$'{}'",
            terminal_line(&text.replace('\\', "\\\\").replace('\'', "\\'"))
        )
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::terminal_line;

    #[test]
    fn terminal_gets_no_control_characters() {
        assert_eq!(
            terminal_line("a\x1b[31mb\n\u{9b}c\u{202e}d\x7f"),
            "a\\x1b[31mb\\n\\x9bc\\u{202e}d\\x7f"
        );
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        let text = r"C:\größe 日本 'quoted' naïve";
        assert_eq!(terminal_line(text), text);
    }
}
