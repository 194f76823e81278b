//! The words and the length of sentences in what people read: documentation, man pages, messages and comments.
//!
//! Paraphrases of standard terms and long sentences are refused. It checks words, not truth: a sentence that passes can
//! still be bad. Code between backquotes and in code blocks is not prose.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::build;

/// A sentence may have so many words. The man pages' synopses and tables are not sentences.
const MOST_WORDS: usize = 30;

/// Phrases in lower case that are not used, and what to write.
const RETIRED: &[(&str, &str)] = &[
    ("tell", "show, report, say"),
    ("tells", "shows, reports, says"),
    ("told", "showed, reported, recorded"),
    ("telling", "showing, reporting"),
    (
        "somebody",
        "the actor: another handler, the kernel, the user",
    ),
    ("anybody", "the actor: any process, any user"),
    ("nobody", "the actor: no process, no user"),
    ("whoever", "the actor: the process that, the user who"),
    ("whose it is", "the owner"),
    ("stands", "is, is stored"),
    ("given back", "restored, returned"),
    ("give back", "restore, return"),
    ("gives back", "restores, returns"),
    ("desk", "workstation"),
    ("being seen", "observability"),
    ("what counts most", "takes precedence"),
    ("became of", "the outcome of"),
    ("side room", "background task"),
    ("side rooms", "background tasks"),
    ("of which", "two sentences"),
    ("befell", "happened to"),
    ("stand in", "are in, are stored in"),
    ("gives way", "is replaced"),
    ("way around", "workaround"),
    ("is believed", "is trusted"),
    ("not believed", "not trusted"),
    ("what comes of", "the result of"),
    ("all the same", "nevertheless"),
    ("is no", "is not a"),
    ("are no", "are not"),
    ("be had", "be obtained"),
    ("takes cores", "captures cores"),
    ("takes a core", "captures a core"),
    ("take cores", "capture cores"),
    ("takes the core", "captures the core"),
    ("core is taken", "core is captured"),
    ("cores are taken", "cores are captured"),
    ("core was taken", "core was captured"),
    ("whole core", "complete core"),
    ("core is whole", "core is complete"),
    ("whole cores", "complete cores"),
    ("store is away", "store is unreachable"),
    ("rule fits", "rule matches"),
    ("kept modules", "stored modules"),
    ("hands cores over", "passes cores"),
    ("whose dumps are whose", "attribution"),
    ("begins anew", "starts over"),
];

/// Files where old phrases may be, one line each: a path or its beginning, a phrase (or `long` for sentences), and the
/// reason.
const ALLOWED: &str = include_str!("prose_allowed.txt");

/// Something to rewrite.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// From 1.
    line: usize,
    /// The phrase, or `long`.
    rule: &'static str,
    text: String,
}

/// A piece of prose, and the line where it begins, from 1.
struct Passage {
    line: usize,
    text: String,
}

/// Checks all tracked files.
///
/// # Errors
/// When git cannot list them, or there is a finding that is not allowed; all findings are printed.
pub(crate) fn check() -> Result<()> {
    let allowed = allowances(ALLOWED)?;
    let mut git = Command::new("git");
    git.current_dir(build::root()).args(["ls-files", "-z"]);
    let listed = git.output().context("cannot start git")?;
    ensure!(
        listed.status.success(),
        "git cannot list the repository's files"
    );
    let listed = String::from_utf8(listed.stdout).context("a file's name is not UTF-8")?;
    let mut count = 0_usize;
    for name in listed.split('\0').filter(|name| is_prose(name)) {
        let Ok(text) = fs::read_to_string(build::root().join(name)) else {
            continue;
        };
        for found in findings(name, &text) {
            let is_allowed = |(path, rule, _): &&(&str, &str, &str)| {
                name.starts_with(path) && *rule == found.rule
            };
            if !allowed.iter().any(|it| is_allowed(&it)) {
                count += 1;
                println!("{name}:{}: {}", found.line, explained(&found));
            }
        }
    }
    ensure!(count == 0, "{count} findings: rewrite the sentences");
    Ok(())
}

fn explained(found: &Finding) -> String {
    let instead = RETIRED.iter().find(|(phrase, _)| *phrase == found.rule);
    match instead {
        Some((phrase, instead)) => format!("`{phrase}` (write: {instead}): {}", found.text),
        None => format!("more than {MOST_WORDS} words: {}", found.text),
    }
}

fn allowances(text: &'static str) -> Result<Vec<(&'static str, &'static str, &'static str)>> {
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut fields = line.splitn(3, ": ");
            match (fields.next(), fields.next(), fields.next()) {
                (Some(path), Some(rule), Some(reason)) => Ok((path, rule, reason)),
                _ => bail!("a line is not `path: phrase: reason`: {line}"),
            }
        })
        .collect()
}

fn is_prose(name: &str) -> bool {
    const OTHERS: [&str; 3] = ["tests/fixtures/", "fuzz/corpus/", "xtask/src/prose"];
    let has = |extension: &str| {
        Path::new(name)
            .extension()
            .is_some_and(|it| it == extension)
    };
    let is_manual = name.starts_with("man/");
    (has("md") || has("rs") || is_manual) && !OTHERS.iter().any(|other| name.starts_with(other))
}

/// All findings of a file, in the order of its lines.
fn findings(name: &str, text: &str) -> Vec<Finding> {
    let passages = match name.rsplit_once('.') {
        Some((_, "rs")) => of_rust(text),
        Some((_, "md")) => of_markdown(text),
        _ => of_manual(text),
    };
    passages.iter().flat_map(of_passage).collect()
}

fn of_passage(passage: &Passage) -> Vec<Finding> {
    let prose = without_code(&passage.text);
    let mut found = Vec::new();
    let (mut sentence, mut sentences) = (Vec::new(), Vec::new());
    for word in prose.split_whitespace() {
        sentence.push(word);
        if word.ends_with(['.', '!', '?', ':', ';']) {
            sentences.push(std::mem::take(&mut sentence));
        }
    }
    sentences.push(sentence);
    for words in sentences {
        let plain: Vec<String> = words.iter().map(|word| bare(word)).collect();
        let joined = format!(" {} ", plain.join(" "));
        let mut add = |rule| {
            let text = words.join(" ");
            found.push(Finding {
                line: passage.line,
                rule,
                text,
            });
        };
        for (phrase, _) in RETIRED {
            let is_used = match *phrase {
                "is no" | "are no" => denies_a_noun(&plain, phrase),
                _ => joined.contains(&format!(" {phrase} ")),
            };
            if is_used {
                add(*phrase);
            }
        }
        // A word has a letter: figures and punctuation do not count.
        let count = plain
            .iter()
            .filter(|word| word.contains(char::is_alphabetic))
            .count();
        if count > MOST_WORDS {
            add("long");
        }
    }
    found
}

/// Whether the sentence says "X is no Y". "There is no Y" and "is no longer Y" are plain English.
fn denies_a_noun(words: &[String], phrase: &str) -> bool {
    let is_it = |at: usize| {
        let pair = words.get(at..at + 2).map(|pair| pair.join(" "));
        let before = at.checked_sub(1).and_then(|before| words.get(before));
        let after = words.get(at + 2).map_or("", String::as_str);
        pair.as_deref() == Some(phrase)
            && before.is_none_or(|word| word != "there")
            && !["", "longer", "more"].contains(&after)
    };
    (0..words.len()).any(is_it)
}

/// In lower case, without punctuation around it.
fn bare(word: &str) -> String {
    word.trim_matches(|c: char| !c.is_alphanumeric())
        .to_lowercase()
}

/// What is between backquotes counts as one word without letters.
fn without_code(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts
        .map(|(index, part)| if index % 2 == 0 { part } else { "0" })
        .collect()
}

/// Paragraphs, list items, headings and table cells; not code blocks.
fn of_markdown(text: &str) -> Vec<Passage> {
    let mut passages: Vec<Passage> = Vec::new();
    let (mut in_code, mut in_comment, mut begins) = (false, false, true);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with("```") {
            in_code = !in_code;
            begins = true;
            continue;
        }
        in_comment |= line.starts_with("<!--");
        if in_code || in_comment || line.is_empty() {
            in_comment &= !line.ends_with("-->");
            begins = true;
            continue;
        }
        if line.starts_with('|') {
            let cells = line.split('|').map(str::to_owned);
            passages.extend(cells.map(|text| Passage {
                line: index + 1,
                text,
            }));
            begins = true;
            continue;
        }
        let is_item = line.starts_with(['-', '*', '#', '>'])
            || line
                .split_once(". ")
                .is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        match passages.last_mut() {
            Some(last) if !begins && !is_item => {
                last.text.push(' ');
                last.text.push_str(line);
            }
            _ => passages.push(Passage {
                line: index + 1,
                text: line.to_owned(),
            }),
        }
        begins = line.starts_with('#');
    }
    passages
}

/// Text lines of a manual page in roff; a request ends a paragraph.
fn of_manual(text: &str) -> Vec<Passage> {
    let mut passages: Vec<Passage> = Vec::new();
    let (mut begins, mut in_code, mut in_synopsis) = (true, false, false);
    for (index, line) in text.lines().enumerate() {
        if let Some(title) = line.strip_prefix(".SH ") {
            in_synopsis = title.starts_with("SYNOPSIS");
        }
        match line {
            ".nf" | ".EX" => in_code = true,
            ".fi" | ".EE" => in_code = false,
            _ => {}
        }
        if line.starts_with(['.', '\'']) || line.is_empty() || in_code || in_synopsis {
            begins = true;
            continue;
        }
        let mut plain = line.replace("\\-", "-").replace("\\&", "");
        for font in ["\\fB", "\\fI", "\\fR"] {
            plain = plain.replace(font, "");
        }
        match passages.last_mut() {
            Some(last) if !begins => {
                last.text.push(' ');
                last.text.push_str(&plain);
            }
            _ => passages.push(Passage {
                line: index + 1,
                text: plain,
            }),
        }
        begins = false;
    }
    passages
}

/// Comments, joined over their lines, and string literals that have several words.
fn of_rust(text: &str) -> Vec<Passage> {
    let mut passages = Vec::new();
    // Consecutive comments of one kind are one Markdown text.
    let mut comment = String::new();
    let mut comment_line = 0;
    let mut rest = text;
    let mut line = 1;
    let flush = |comment: &mut String, from: usize, passages: &mut Vec<Passage>| {
        let inside = of_markdown(comment).into_iter();
        passages.extend(inside.map(|it| Passage {
            line: it.line + from - 1,
            text: it.text,
        }));
        comment.clear();
    };
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            let end = rest.find('\n').unwrap_or(rest.len());
            if comment.is_empty() {
                comment_line = line;
            }
            comment.push_str(rest[..end].trim_start_matches('/').trim_start_matches('!'));
            comment.push('\n');
            end
        } else if first == '"' || first == 'r' && raw_string(rest).is_some() {
            flush(&mut comment, comment_line, &mut passages);
            let (length, content) = match first {
                '"' => string(rest),
                _ => raw_string(rest).unwrap_or((1, "")),
            };
            // A literal of several lines is a snapshot or a program.
            let text = content.replace("\\\n", " ");
            if text.split_whitespace().nth(2).is_some() && !text.contains('\n') {
                let text = text.replace("\\\"", "").replace("\\n", "; ");
                passages.push(Passage { line, text });
            }
            length
        } else if first == '\'' {
            character(rest)
        } else {
            if !first.is_whitespace() {
                flush(&mut comment, comment_line, &mut passages);
            }
            // A name that ends with `r` before a quotation mark is no raw string.
            let name = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            name.filter(|length| *length > 0)
                .unwrap_or(first.len_utf8())
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    flush(&mut comment, comment_line, &mut passages);
    passages
}

/// The length of a string literal, and what is in it. Continued lines are joined.
fn string(text: &str) -> (usize, &str) {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return (at + 1, &text[1..at]),
            _ => {}
        }
    }
    (text.len(), "")
}

/// The same for `r"…"` and `r#"…"#`.
fn raw_string(text: &str) -> Option<(usize, &str)> {
    let after = text.strip_prefix('r')?;
    let hashes = after.find(|c| c != '#')?;
    let content = after[hashes..].strip_prefix('"')?;
    let end = content.find(&format!("\"{}", "#".repeat(hashes)))?;
    Some((1 + hashes + 1 + end + 1 + hashes, &content[..end]))
}

/// The length of a character literal, or of the mark of a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => text
            .get(3..)
            .and_then(|rest| rest.find('\''))
            .map_or(2, |end| 3 + end + 1),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(name: &str, text: &str) -> Vec<(usize, &'static str)> {
        let found = findings(name, text).into_iter();
        found.map(|found| (found.line, found.rule)).collect()
    }

    #[test]
    fn prose_finds_retired_words_in_comments_and_messages() {
        let text = "//! A module.\n//!\n//! Nobody\n//! knows.\nfn told() {\n    let x = 'a';\n    print(\"it is told to the user\");\n}\n";
        assert_eq!(rules("a.rs", text), [(3, "nobody"), (7, "told")]);
    }

    #[test]
    fn prose_ignores_code() {
        let text = "Call `tell`.\n\n```\nnobody\n```\n\nIt stands.\n";
        assert_eq!(rules("a.md", text), [(7, "stands")]);
        assert_eq!(rules("a.rs", "let told = r\"a\"; // `told` it\n"), []);
        assert_eq!(
            rules("a.rs", "fn a<'a>(x: &'a str) {} // told\n"),
            [(1, "told")]
        );
        assert_eq!(
            rules("a.rs", "let c = '\\''; let d = '\"'; // told\n"),
            [(1, "told")]
        );
    }

    #[test]
    fn prose_refuses_is_no_with_a_noun() {
        assert_eq!(rules("a.md", "It is no core.\n"), [(1, "is no")]);
        assert_eq!(rules("a.md", "These are no cores.\n"), [(1, "are no")]);
        for plain in [
            "There is no core.\n",
            "It is no longer here.\n",
            "There are no more.\n",
        ] {
            assert_eq!(rules("a.md", plain), [], "{plain}");
        }
    }

    #[test]
    fn prose_limits_the_words_of_a_sentence() {
        let sentence = |count: usize| format!("{}\n", vec!["word"; count].join(" "));
        assert_eq!(rules("a.md", &sentence(MOST_WORDS)), []);
        assert_eq!(rules("a.md", &sentence(MOST_WORDS + 1)), [(1, "long")]);
        assert_eq!(
            rules("man/a.1", &format!(".SH X\n{}", sentence(31))),
            [(2, "long")]
        );
        assert_eq!(
            rules("man/a.1", &format!(".SH SYNOPSIS\n{}", sentence(31))),
            []
        );
    }

    #[test]
    fn prose_reads_the_allowances() {
        assert!(allowances(ALLOWED).is_ok());
        assert!(allowances("docs/x.md\n").is_err());
    }
}
