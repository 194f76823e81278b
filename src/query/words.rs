//! Words without a term's name: they match anywhere in what a key says about a dump.

use cdh_store::DumpSummary;

/// A word that is searched for everywhere.
#[derive(Clone, Debug)]
pub struct Word {
    text: String,
    letters: u64,
}

impl Word {
    /// Letter case is ignored.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let text = text.to_lowercase();
        Self {
            letters: letters(&text),
            text,
        }
    }
}

/// Minimum length of a prefix of an id or a fingerprint. Shorter ones would find names such as `db` or
/// `cafe` in the ids of other dumps.
const ID_LETTERS: usize = 5;

/// The searchable text of a dump, computed once.
#[derive(Clone, Debug)]
pub struct Haystack {
    /// Fingerprint and id, one line each, then all other searchable parts, one per line, in lower case.
    text: Box<str>,
    /// Where the names begin in `text`, bytes.
    names: usize,
    /// The set of its letters.
    letters: u64,
}

impl Haystack {
    /// Of a dump, as its key describes it.
    #[must_use]
    pub fn of(dump: &DumpSummary) -> Self {
        let mut text = String::with_capacity(128);
        text.push_str(dump.fingerprint.as_deref().unwrap_or_default());
        text.push('\n');
        text.push_str(&dump.id.to_string());
        text.push('\n');
        let names = text.len();
        let mut push = |part: &str| {
            // Nearly all are ASCII; the others need a second string.
            if part.is_ascii() {
                text.push_str(part);
            } else {
                text.push_str(&part.to_lowercase());
            }
            text.push('\n');
        };
        push(dump.namespace.as_deref().unwrap_or_default());
        push(dump.pod.as_deref().unwrap_or_default());
        push(&dump.exe.to_string());
        push(&dump.signal);
        push(&dump.verdict);
        text.make_ascii_lowercase();
        Self {
            letters: letters(&text),
            text: text.into(),
            names,
        }
    }

    /// Whether the word occurs in a name, abbreviates one, or is a prefix of the id or the
    /// fingerprint.
    #[must_use]
    pub fn has(&self, word: &Word) -> bool {
        if word.letters & !self.letters != 0 {
            return false;
        }
        let (ids, names) = self.text.split_at_checked(self.names).unwrap_or_default();
        let mut ids = ids.lines();
        names.contains(&word.text)
            || names.split('\n').any(|part| abbreviates(&word.text, part))
            || word.text.len() >= ID_LETTERS && ids.any(|id| id.starts_with(&word.text))
    }
}

/// One bit for each letter or digit; some share a bit.
fn letters(text: &str) -> u64 {
    text.bytes()
        .filter(|byte| *byte != b'\n')
        .fold(0, |bits, byte| bits | 1 << (byte & 63))
}

/// Whether each letter of `word` continues the previous one in `name`, or begins a part of it.
fn abbreviates(word: &str, name: &str) -> bool {
    let (word, name) = (word.as_bytes(), name.as_bytes());
    if word.is_empty() || name.len() > 128 || word.len() > name.len() {
        return false;
    }
    let begins = |at: usize| {
        let before = at.checked_sub(1).and_then(|before| name.get(before));
        before.is_none_or(|before| !before.is_ascii_alphanumeric())
    };
    // Bit n: the letters so far can end at position n.
    let mut places: u128 = 0;
    for (number, letter) in word.iter().enumerate() {
        let mut next: u128 = 0;
        for (at, _) in name
            .iter()
            .enumerate()
            .filter(|(_, found)| *found == letter)
        {
            let below = (1_u128 << at) - 1;
            let continues = at > 0 && places & (1 << (at - 1)) != 0;
            let jumps = begins(at) && (number == 0 || places & below != 0);
            if continues || jumps {
                next |= 1 << at;
            }
        }
        if next == 0 {
            return false;
        }
        places = next;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::tests::dump;

    #[test]
    fn words_find_ids_by_their_start_only() {
        let dump = DumpSummary {
            id: "decafdb0-1111-4222-8333-0123456789ab".parse().unwrap(),
            fingerprint: Some("beefdb01".to_owned()),
            ..dump(1)
        };
        let haystack = Haystack::of(&dump);
        let finds = |word: &str| haystack.has(&Word::new(word));
        for word in ["decaf", "DECAFDB0-1111", "beefdb01", "worker"] {
            assert!(finds(word), "{word}");
        }
        for word in ["db", "cafe", "decaf1", "beef", "1111", "8333-0123456789ab"] {
            assert!(!finds(word), "{word}");
        }
    }
}
