//! The command line that bash completes. bash also splits it at `:` and `=`, and replaces only the part after the
//! last of them, so this module splits the whole line again.

use super::Candidate;

/// `COMP_TYPE` of a normal TAB, of menu completion and of `insert-completions` (readline): a description would be
/// inserted. The others list the values.
const INSERTING: [&str; 3] = ["9", "37", "42"];

/// The line up to the cursor.
#[derive(Clone, Debug)]
pub(super) struct BashLine {
    /// The words before the current one, without the command.
    pub(super) words: Vec<String>,
    /// The current word, perhaps empty.
    pub(super) current: String,
    /// Length of the part of the current word that bash does not replace.
    kept: usize,
    inserts: bool,
}

impl BashLine {
    /// From `COMP_LINE`, `COMP_POINT`, `COMP_TYPE` and `COMP_WORDBREAKS`.
    pub(super) fn parse(arguments: &[String]) -> Option<Self> {
        let [line, point, kind, breaks] = arguments else {
            return None;
        };
        let point = point.parse().unwrap_or(line.len());
        let line = line.get(..point).unwrap_or(line);
        let mut words = split(line);
        let current = words.pop().unwrap_or_default();
        let first = words.iter().position(|word| !is_assignment(word));
        let words = words.split_off(first.map_or(words.len(), |first| first + 1));
        let last = current.rfind(|c: char| ":=@".contains(c) && breaks.contains(c));
        Some(Self {
            words,
            kept: last.map_or(0, |last| last + 1),
            current,
            inserts: INSERTING.contains(&kind.as_str()),
        })
    }

    /// A value as bash expects it. If bash lists several values, descriptions are shown.
    pub(super) fn shown(&self, found: &Candidate, count: usize) -> String {
        let value = found.value.get(self.kept..).unwrap_or_default();
        match self.inserts || count < 2 || found.description.is_empty() {
            true => value.to_owned(),
            false => format!("{value}  ({})", found.description),
        }
    }
}

/// `CDH_STORE=x` before a command.
fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map(|(name, _)| name);
    name.is_some_and(|name| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// The words of a line; the last one is the current one. Quotes and backslashes are those of a shell.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut letters = line.chars();
    let mut is_between = true;
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, ' ' | '\t' | '\n') => {
                if !is_between {
                    words.push(std::mem::take(&mut word));
                }
                is_between = true;
                continue;
            }
            // Another command begins.
            (None, ';' | '|' | '&' | '(') => {
                words.clear();
                word.clear();
                is_between = true;
                continue;
            }
            (None, '\'' | '"') => quote = Some(letter),
            (Some(open), _) if open == letter => quote = None,
            (None | Some('"'), '\\') => word.extend(letters.next()),
            _ => word.push(letter),
        }
        is_between = false;
    }
    words.push(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, kind: &str) -> BashLine {
        let arguments = [text, &text.len().to_string(), kind, " \t\n\"'@><=;|&(:"];
        BashLine::parse(&arguments.map(str::to_owned)).unwrap()
    }

    #[test]
    fn bash_line_is_split_as_bash_would_without_its_word_breaks() {
        let found = line("CDH_STORE=x cdh ls 'a b' namespace:sh", "9");
        assert_eq!(found.words, ["ls", "a b"]);
        assert_eq!(found.current, "namespace:sh");
        assert_eq!(
            found.shown(&Candidate::new("namespace:shop", "x"), 2),
            "shop"
        );
        let found = line("true; cdh info ", "63");
        assert_eq!((found.words.len(), found.current.as_str()), (1, ""));
        assert_eq!(found.shown(&Candidate::new("abc", "x"), 2), "abc  (x)");
        assert_eq!(found.shown(&Candidate::new("abc", "x"), 1), "abc");
        assert_eq!(line("cdh", "9").words.len(), 0);
    }
}
