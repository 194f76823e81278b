//! Splits Rust source into the few tokens that paths are made of, without comments, strings and test code.

/// A token. Punctuation other than `::` is one character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    /// `::`
    Colons,
    Sign(char),
}

impl Token {
    pub(super) fn is(&self, sign: char) -> bool {
        *self == Self::Sign(sign)
    }

    pub(super) fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            _ => None,
        }
    }
}

/// The tokens of a file, without items under `#[cfg(test)]`.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    without_tests(&all_tokens(text))
}

fn all_tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        at += match rest {
            ['/', '/', ..] => length_until(rest, &['\n']),
            ['/', '*', ..] => block_comment(rest),
            ['"', ..] => string(rest),
            ['\'', ..] => char_or_lifetime(rest),
            ['r', '"' | '#', ..] if raw_string(rest).is_some() => raw_string(rest).unwrap_or(1),
            [first, ..] if first.is_alphanumeric() || *first == '_' => {
                let is_word = |c: &&char| c.is_alphanumeric() || **c == '_';
                let word: String = rest.iter().take_while(is_word).collect();
                let length = word.chars().count();
                // `b"…"`, `br"…"` and `c"…"` are prefixes of strings.
                found.push(Token::Word(word));
                length
            }
            [':', ':', ..] => {
                found.push(Token::Colons);
                2
            }
            [sign, ..] => {
                if !sign.is_whitespace() {
                    found.push(Token::Sign(*sign));
                }
                1
            }
            [] => 1,
        };
    }
    found
}

fn length_until(rest: &[char], end: &[char]) -> usize {
    let found = rest.windows(end.len()).position(|window| window == end);
    found.unwrap_or(rest.len())
}

/// Block comments nest.
fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// `r"…"`, `r#"…"#`; `None` for a raw name such as `r#type`.
fn raw_string(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return None;
    }
    let mut end = vec!['"'];
    end.extend(std::iter::repeat_n('#', hashes));
    let begin = 2 + hashes;
    Some(begin + length_until(&rest[begin..], &end) + end.len())
}

fn char_or_lifetime(rest: &[char]) -> usize {
    match rest {
        ['\'', '\\', _, ..] => 3 + length_until(&rest[3..], &['\'']),
        ['\'', _, '\'', ..] => 3,
        _ => 1,
    }
}

fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let word = |offset: usize| tokens.get(at + offset).and_then(Token::word);
        let is_test = tokens[at].is('#')
            && word(2) == Some("cfg")
            && (word(4) == Some("test") || word(4) == Some("all") && word(6) == Some("test"));
        if !is_test {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        at = end_of_item(tokens, at);
    }
    kept
}

/// The index behind the item that begins at `at`: its body or its semicolon.
fn end_of_item(tokens: &[Token], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            Token::Sign('{' | '(' | '[') => depth += 1,
            Token::Sign('}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    break;
                }
            }
            Token::Sign(')' | ']') => depth = depth.saturating_sub(1),
            Token::Sign(';') if depth == 0 => break,
            _ => {}
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let words = tokens(text);
        words
            .iter()
            .filter_map(|token| token.word().map(str::to_owned))
            .collect()
    }

    #[test]
    fn tokens_skip_comments_strings_and_test_code() {
        let text = r##"
            // use one::a;
            /* two /* three */ four */
            fn five<'a>(six: &'a str) -> char { let _ = (r#"seven "eight"#, "nine \" ten"); '\'' }
            #[cfg(test)]
            mod tests { use eleven; }
            #[cfg(all(test, feature = "x"))]
            mod more;
            use twelve;
        "##;
        let found = words(text);
        assert!(found.contains(&"five".to_owned()) && found.contains(&"twelve".to_owned()));
        for hidden in [
            "one", "two", "three", "four", "seven", "eight", "nine", "ten", "eleven", "more",
        ] {
            assert!(!found.contains(&hidden.to_owned()), "{hidden} in {found:?}");
        }
    }
}
