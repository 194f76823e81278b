//! Converts the terminal text of `render` to lines of styled spans.
//!
//! `render` marks tones with the escape sequences of `Style::paint`, and escapes every control
//! character from outside. So every escape here is one of ours, and unknown ones are dropped.

use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::theme::Theme;
use crate::render::{Tone, terminal_line};

/// Converts text from `render` to lines, styled by `theme`.
#[must_use]
pub fn lines(text: &str, theme: Theme) -> Vec<Line<'static>> {
    text.lines().map(|line| styled(line, theme)).collect()
}

fn styled(line: &str, theme: Theme) -> Line<'static> {
    let mut spans = Vec::new();
    let mut tone = None;
    for (number, piece) in line.split('\x1b').enumerate() {
        let text = if number == 0 {
            piece
        } else {
            let Some((code, rest)) = piece
                .strip_prefix('[')
                .and_then(|piece| piece.split_once('m'))
            else {
                continue;
            };
            tone = tone_of(code);
            rest
        };
        if !text.is_empty() {
            let style = tone.map_or_else(ratatui::style::Style::new, |tone| theme.tone(tone));
            spans.push(Span::styled(terminal_line(text), style));
        }
    }
    Line::from(spans)
}

/// The inverse of `render::Style::paint`.
fn tone_of(code: &str) -> Option<Tone> {
    Some(match code {
        "1" => Tone::Strong,
        "2" => Tone::Dim,
        "32" => Tone::Good,
        "31" => Tone::Bad,
        "33" => Tone::Name,
        "36" => Tone::Place,
        _ => return None,
    })
}

/// The text of a line.
#[must_use]
pub fn plain(line: &Line<'_>) -> String {
    line.spans
        .iter()
        .map(|span| span.content.as_ref())
        .collect()
}

/// Truncates `text` to a maximum of `width` columns, and marks the cut with `more`.
#[must_use]
pub fn cut(text: &str, width: usize, more: &str) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(more.width());
    let mut used = 0;
    let mut short = String::new();
    for character in text.chars() {
        let wide = unicode_width::UnicodeWidthChar::width(character).unwrap_or(0);
        if used + wide > room {
            break;
        }
        used += wide;
        short.push(character);
    }
    if width >= more.width() {
        short.push_str(more);
    }
    short
}

/// Truncates or pads `text` to exactly `width` columns.
#[must_use]
pub fn fit(text: &str, width: usize, more: &str) -> String {
    let mut text = cut(text, width, more);
    let blanks = width.saturating_sub(text.width());
    text.extend(std::iter::repeat_n(' ', blanks));
    text
}

/// Wraps text at blanks to a maximum of `width` columns.
#[must_use]
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let used = lines.last().map_or(0, |line| line.width());
        if used > 0 && used + 1 + word.width() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::Style;

    #[test]
    fn styled_lines_convert_tones_to_spans() {
        let theme = Theme::new(true);
        let text = format!("a {}{} z", Style::Colored.paint(Tone::Bad, "b"), "c");
        let all = lines(&text, theme);
        assert_eq!(plain(&all[0]), "a bc z");
        assert_eq!(all[0].spans[1].style, theme.tone(Tone::Bad));
        assert_eq!(all[0].spans[2].style, ratatui::style::Style::new());
    }

    #[test]
    fn styled_lines_drop_foreign_escapes() {
        let all = lines("a\x1b]52;c;evil\x07b\rc\u{9b}31m", Theme::new(true));
        assert_eq!(plain(&all[0]), "a");
        let all = lines("a\rc\u{9b}31m\u{202e}", Theme::new(true));
        assert_eq!(plain(&all[0]), "a\\rc\\x9b31m\\u{202e}");
    }

    #[test]
    fn styled_widths_count_wide_characters_twice() {
        assert_eq!(fit("日本語", 5, "…"), "日本…");
        assert_eq!(fit("日本語", 4, "…"), "日… ");
        assert_eq!(fit("ab", 4, "…"), "ab  ");
        assert_eq!(cut("abc", 0, "…"), "");
    }
}
