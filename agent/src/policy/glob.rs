//! Patterns for names and paths: `*` matches anything except `/`, `**` anything, `?` one character
//! except `/`.
//!
//! The time is at most proportional to the length of the text times that of the pattern, for any
//! text: names come from untrusted processes.

/// Maximum length of a text in bytes; longer texts match nothing. A path has a maximum of 4096.
const LONGEST: usize = 8192;

/// Whether the pattern matches the complete text.
#[must_use]
pub(super) fn matches(pattern: &str, text: &[u8]) -> bool {
    if text.len() > LONGEST {
        return false;
    }
    let tokens = tokens(pattern);
    // Which prefixes of the text the pattern matches so far.
    let mut reached = vec![false; text.len() + 1];
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    for token in tokens {
        let mut next = vec![false; text.len() + 1];
        let mut carried = false;
        for (at, slot) in next.iter_mut().enumerate() {
            let before = at.checked_sub(1).and_then(|at| text.get(at).copied());
            let was = |at: usize| reached.get(at).copied().unwrap_or(false);
            *slot = match token {
                Token::Byte(byte) => before == Some(byte) && was(at.wrapping_sub(1)),
                Token::One => before.is_some_and(|b| b != b'/') && was(at.wrapping_sub(1)),
                Token::Many { slashes } => {
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
enum Token {
    Byte(u8),
    One,
    Many { slashes: bool },
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    for byte in pattern.bytes() {
        match (byte, tokens.last_mut()) {
            (b'*', Some(Token::Many { slashes })) => *slashes = true,
            (b'*', _) => tokens.push(Token::Many { slashes: false }),
            (b'?', _) => tokens.push(Token::One),
            (byte, _) => tokens.push(Token::Byte(byte)),
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glob_star_stops_at_a_slash_and_double_star_does_not() {
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
    fn glob_time_is_bounded_for_hostile_texts() {
        let begun = std::time::Instant::now();
        let text = vec![b'a'; LONGEST];
        assert!(!matches("*a*a*a*a*a*a*a*a*b", &text));
        assert!(!matches("*", &vec![b'a'; LONGEST + 1]));
        assert!(begun.elapsed().as_secs() < 5);
    }
}
