//! Wording that several sentences share.

/// Longest text of the process that is quoted.
const LONGEST: usize = 300;
/// Longest sentence, in characters.
const LONGEST_SENTENCE: usize = 1000;

/// Text from the process on one line, cut if it is long.
pub(crate) fn quoted(text: &str) -> String {
    let text = text.trim();
    let mut out = String::new();
    // Lines become one: their ends and indentation are one space.
    let mut is_new_line = false;
    for (count, letter) in text.chars().enumerate() {
        if count >= LONGEST {
            out.push('…');
            break;
        }
        let is_space = letter.is_control() || is_new_line && letter == ' ';
        if !is_space {
            out.push(letter);
        } else if !is_new_line {
            out.push(' ');
        }
        is_new_line = is_space;
    }
    out
}

/// A sentence on one line: names and texts of the process may hold anything.
pub(crate) fn on_one_line(sentence: &str) -> String {
    let shown = |letter: char| if letter.is_control() { ' ' } else { letter };
    let mut out: String = sentence.chars().take(LONGEST_SENTENCE).map(shown).collect();
    if sentence.chars().nth(LONGEST_SENTENCE).is_some() {
        out.push('…');
    }
    out
}

/// `1 byte`, `4 bytes`, `67,108,928 bytes`.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        1 => "1 byte".to_owned(),
        10_000.. => format!("{} bytes", grouped(count)),
        _ => format!("{count} bytes"),
    }
}

/// A size of memory: `8 MiB`, `132 KiB`, `80 bytes`.
pub(crate) fn size(count: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    match count {
        MIB.. if count.is_multiple_of(MIB) => format!("{} MiB", count >> 20),
        KIB.. if count.is_multiple_of(KIB) => format!("{} KiB", count >> 10),
        KIB.. => format!("{} bytes", grouped(count)),
        _ => bytes(count),
    }
}

/// A number with separated thousands.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        let left = digits.len().saturating_sub(index);
        if index > 0 && left.is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The text that a pointer spells if all its bytes are printable: a string was copied over it.
pub(crate) fn spelled(pointer: u64) -> Option<String> {
    let bytes = pointer.to_le_bytes();
    let length = bytes.iter().rposition(|byte| *byte != 0)?.checked_add(1)?;
    let text = bytes.get(..length).filter(|text| text.len() >= 6)?;
    let is_text = text.iter().all(|byte| (0x20..0x7f).contains(byte));
    is_text.then(|| String::from_utf8_lossy(text).into_owned())
}

/// What a well-known fill pattern means.
pub(crate) fn pattern(pointer: u64) -> Option<&'static str> {
    let bytes = pointer.to_le_bytes();
    let first = bytes.first().copied().filter(|_| pointer != 0)?;
    let low = pointer & 0xffff_ffff;
    if bytes.iter().all(|byte| *byte == first) {
        return Some(match first {
            0xff => "all bits are set, as in -1",
            0xbe => "AddressSanitizer fills new blocks with this byte",
            0xa5 => "jemalloc fills new blocks with this byte",
            0x5a => "jemalloc fills freed blocks with this byte",
            _ => "all its bytes are equal: a fill pattern",
        });
    }
    match low {
        0xdead_beef | 0xbaad_f00d | 0xcafe_babe | 0xfeed_face | 0xdead_dead => {
            Some("a constant that programs use to mark memory")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_read_as_text_and_patterns() {
        assert_eq!(spelled(0x4141_4141_4141_4141).as_deref(), Some("AAAAAAAA"));
        assert_eq!(spelled(0x7ffc_1234_5678), None);
        assert_eq!(spelled(0), None);
        assert!(pattern(0x5a5a_5a5a_5a5a_5a5a).unwrap().contains("freed"));
        assert_eq!(pattern(0x5555_5555_9260), None);
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(12), "12");
        assert_eq!(size(8 << 20), "8 MiB");
        assert_eq!(size(132 << 10), "132 KiB");
        assert_eq!(bytes(1), "1 byte");
        assert_eq!(bytes(18_272), "18,272 bytes");
        assert_eq!(quoted("a\nb"), "a b");
        assert_eq!(
            quoted("differ\n  left: 1\n right: 2"),
            "differ left: 1 right: 2"
        );
    }
}
