//! Colours, or none.

use std::fmt::Display;

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// No escape sequences at all.
    Plain,
    /// ANSI colours, the sixteen that every terminal theme defines.
    Colored,
}

/// The role of a text, not its appearance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Headings.
    Strong,
    /// Less important: addresses, runtime frames.
    Dim,
    /// As it should be.
    Good,
    /// Look here: truncated, mismatch.
    Bad,
    /// Names of functions.
    Name,
    /// Places in source files.
    Place,
}

impl Style {
    /// `text` in `tone`.
    #[must_use]
    pub fn paint(self, tone: Tone, text: impl Display) -> String {
        if self == Self::Plain {
            return text.to_string();
        }
        let code = match tone {
            Tone::Strong => "1",
            Tone::Dim => "2",
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Name => "33",
            Tone::Place => "36",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}
