//! The little roff that the man pages need, in a form that `mandoc -T lint` accepts.

/// Longest line, bytes; `mandoc` accepts 80.
const WIDTH: usize = 78;

/// Escapes text, and sets what is between backquotes in bold.
pub(super) fn text(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split('`').enumerate() {
        let escaped = part
            .replace('\\', "\\e")
            .replace('-', "\\-")
            .replace('\'', "\\(aq");
        match index % 2 {
            0 => out.push_str(&escaped),
            _ => out.push_str(&format!("\\fB{escaped}\\fR")),
        }
    }
    out
}

/// A section heading.
pub(super) fn section(title: &str) -> String {
    format!(".SH {title}\n")
}

/// Paragraphs that empty lines separate.
pub(super) fn paragraphs(source: &str) -> String {
    let parts: Vec<_> = source
        .split("\n\n")
        .map(|part| format!("{}\n", text(part.trim())))
        .collect();
    parts.join(".PP\n")
}

/// A list of terms with explanations.
pub(super) fn terms<'a>(items: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let items = items.into_iter();
    items
        .map(|(term, meaning)| format!(".TP\n\\fB{}\\fR\n{}\n", text(term), text(&meaning)))
        .collect()
}

/// Breaks long lines at spaces, drops spaces at their ends, and writes paragraphs the way `mandoc` wants.
pub(super) fn tidied(page: &str) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut is_example = false;
    for line in page.lines() {
        let line = line.trim_end();
        match line {
            ".nf" => is_example = true,
            ".fi" => is_example = false,
            _ => {}
        }
        if line.is_empty() || line == ".br" && out.last().is_some_and(|last| last == ".sp") {
            continue;
        }
        // clap_mangen writes a line break, an empty line and a line break.
        if line == ".br" {
            out.push(".sp".to_owned());
        } else if line.starts_with('.') || is_example {
            out.push(line.to_owned());
        } else {
            out.extend(wrapped(line));
        }
    }
    out.join("\n") + "\n"
}

/// Lines that end at a sentence or at a space. None begins with a character that roff takes for a request.
fn wrapped(line: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split_whitespace() {
        let last = lines.last().map_or("", String::as_str);
        let ends = last.ends_with(['.', '?', '!']) && !last.ends_with("..");
        let is_long = last.len() + 1 + word.len() > WIDTH;
        if !last.is_empty() && (is_long || ends) && !word.starts_with(['.', '\'']) {
            lines.push(word.to_owned());
        } else if let Some(last) = lines.last_mut() {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_sets_code_in_bold_and_escapes() {
        assert_eq!(text("a `-b` c's \\"), "a \\fB\\-b\\fR c\\(aqs \\e");
    }

    #[test]
    fn tidied_wraps_at_sentences_and_at_the_width() {
        let page = format!(".SH X\nOne. Two \n\n.br\n\n.br\n{}\n", "word ".repeat(20));
        let tidy = tidied(&page);
        assert!(
            tidy.starts_with(".SH X\nOne.\nTwo\n.sp\nword word"),
            "{tidy}"
        );
        assert!(tidy.lines().all(|line| line.len() <= WIDTH), "{tidy}");
    }
}
