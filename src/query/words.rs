//! Words without a term's name: they match anywhere in what a key says about a dump.

use cdh_store::DumpSummary;

/// A word that is looked for everywhere.
#[derive(Clone, Debug)]
pub struct Word {
    text: String,
    letters: u64,
}

impl Word {
    /// In any case of letters.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let text = text.to_lowercase();
        Self {
            letters: letters(&text),
            text,
        }
    }
}

/// What a filter looks at: made once for each dump.
#[derive(Clone, Debug)]
pub struct Haystack {
    /// Everything that words are looked for in, in lower case, one part a line.
    text: Box<str>,
    /// Which letters are in it.
    letters: u64,
}

impl Haystack {
    /// Of a dump, as its key describes it.
    #[must_use]
    pub fn of(dump: &DumpSummary) -> Self {
        let mut text = String::with_capacity(128);
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
        push(dump.fingerprint.as_deref().unwrap_or_default());
        push(&dump.id.to_string());
        text.make_ascii_lowercase();
        Self {
            letters: letters(&text),
            text: text.into(),
        }
    }

    /// Whether the word is in it, or abbreviates a name in it.
    #[must_use]
    pub fn has(&self, word: &Word) -> bool {
        word.letters & !self.letters == 0
            && (self.text.contains(&word.text)
                || self
                    .text
                    .split('\n')
                    .any(|part| abbreviates(&word.text, part)))
    }
}

/// One bit for each letter or digit, some shared.
fn letters(text: &str) -> u64 {
    text.bytes()
        .filter(|byte| *byte != b'\n')
        .fold(0, |bits, byte| bits | 1 << (byte & 63))
}

/// Whether each letter of `word` continues the one before in `name`, or begins a part of it.
fn abbreviates(word: &str, name: &str) -> bool {
    let (word, name) = (word.as_bytes(), name.as_bytes());
    if word.is_empty() || name.len() > 128 || word.len() > name.len() {
        return false;
    }
    let begins = |at: usize| {
        let before = at.checked_sub(1).and_then(|before| name.get(before));
        before.is_none_or(|before| !before.is_ascii_alphanumeric())
    };
    // Bit n: the letters so far can end at place n.
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
