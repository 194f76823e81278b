//! Patterns for names and paths: `*` is anything but `/`, `**` anything, `?` one character but `/`.
//!
//! Matching takes time in proportion to text times pattern at most, whatever the text: names are a
//! stranger's.

/// Bytes of a text that are looked at; longer ones match nothing. A path ends at 4096.
const LONGEST: usize = 8192;

/// Whether the whole text is as the pattern says.
#[must_use]
pub(super) fn matches(pattern: &str, text: &[u8]) -> bool {
    if text.len() > LONGEST {
        return false;
    }
    let pieces = pieces(pattern);
    // Which prefixes of the text the pieces so far can stand for.
    let mut reached = vec![false; text.len() + 1];
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    for piece in pieces {
        let mut next = vec![false; text.len() + 1];
        let mut carried = false;
        for (at, slot) in next.iter_mut().enumerate() {
            let before = at.checked_sub(1).and_then(|at| text.get(at).copied());
            let was = |at: usize| reached.get(at).copied().unwrap_or(false);
            *slot = match piece {
                Piece::Byte(byte) => before == Some(byte) && was(at.wrapping_sub(1)),
                Piece::One => before.is_some_and(|b| b != b'/') && was(at.wrapping_sub(1)),
                Piece::Many { slashes } => {
                    let goes_on = before.is_some_and(|byte| slashes || byte != b'/');
                    carried = was(at) || (carried && goes_on);
                    carried
                }
            };
        }
        reached = next;
    }
    reached.last().copied().unwrap_or(false)
}

#[derive(Clone, Copy)]
enum Piece {
    Byte(u8),
    One,
    Many { slashes: bool },
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for byte in pattern.bytes() {
        match (byte, pieces.last_mut()) {
            (b'*', Some(Piece::Many { slashes })) => *slashes = true,
            (b'*', _) => pieces.push(Piece::Many { slashes: false }),
            (b'?', _) => pieces.push(Piece::One),
            (byte, _) => pieces.push(Piece::Byte(byte)),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stop_at_slashes_and_two_stars_do_not() {
        let cases = [
            ("/usr/bin/*", "/usr/bin/api", true),
            ("/usr/bin/*", "/usr/bin/x/api", false),
            ("/usr/**", "/usr/bin/x/api", true),
            ("**/python3*", "/opt/venv/bin/python3.12", true),
            ("shop-*", "shop-eu", true),
            ("shop-*", "shop", false),
            ("s?op", "shop", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("**", "/", true),
            ("?", "/", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(
                matches(pattern, text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn a_text_made_to_take_long_does_not() {
        let begun = std::time::Instant::now();
        let text = vec![b'a'; LONGEST];
        assert!(!matches("*a*a*a*a*a*a*a*a*b", &text));
        assert!(!matches("*", &vec![b'a'; LONGEST + 1]));
        assert!(begun.elapsed().as_secs() < 5);
    }
}
