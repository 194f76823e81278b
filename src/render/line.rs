//! A line in spans with roles: for a terminal, for the TUI, for plain files.

use super::{Style, Tone};

/// A part of a line, already escaped for a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its role; `None` for plain text.
    pub tone: Option<Tone>,
    /// What it says.
    pub text: String,
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(pub Vec<Span>);

impl Line {
    pub(super) fn push(&mut self, text: impl Into<String>) {
        let (tone, text) = (None, text.into());
        self.0.push(Span { tone, text });
    }

    pub(super) fn toned(&mut self, tone: Tone, text: impl Into<String>) {
        let (tone, text) = (Some(tone), text.into());
        self.0.push(Span { tone, text });
    }

    pub(super) fn of(tone: Tone, text: impl Into<String>) -> Self {
        let mut line = Self::default();
        line.toned(tone, text);
        line
    }

    /// All spans in one tone, for a frame that is less important.
    pub(super) fn all(self, tone: Tone) -> Self {
        let text: String = self.0.into_iter().map(|span| span.text).collect();
        Self::of(tone, text)
    }

    /// Appends the line for a terminal, without a line end.
    pub(super) fn paint_into(&self, style: Style, text: &mut String) {
        for span in &self.0 {
            match span.tone {
                Some(tone) if style != Style::Plain => {
                    text.push_str(&style.paint(tone, &span.text))
                }
                _ => text.push_str(&span.text),
            }
        }
    }
}
