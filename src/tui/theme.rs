//! Colours and glyphs: the sixteen colours that the terminal's own theme defines, or none;
//! box-drawing characters, or ASCII.
//!
//! Yellow, white and the bright colours are avoided: they cannot be read on a light background.
//! Everything that a colour says is also said by a word or a mark.

use ratatui::style::{Color, Modifier, Style};

use crate::render::Tone;

/// Styles of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    colored: bool,
}

impl Theme {
    /// With colours, or only with bold and reverse (`NO_COLOR`).
    #[must_use]
    pub fn new(colored: bool) -> Self {
        Self { colored }
    }

    fn color(self, color: Color) -> Style {
        if self.colored {
            Style::new().fg(color)
        } else {
            Style::new()
        }
    }

    /// The style of a tone.
    #[must_use]
    pub fn tone(self, tone: Tone) -> Style {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        match tone {
            Tone::Strong => bold,
            Tone::Dim => Style::new().add_modifier(Modifier::DIM),
            Tone::Good => self.color(Color::Green),
            Tone::Bad if self.colored => self.color(Color::Red),
            Tone::Bad => bold,
            Tone::Name => self.color(Color::Magenta),
            Tone::Place => self.color(Color::Cyan),
        }
    }

    /// The first line of the screen.
    #[must_use]
    pub fn header(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// The selected line: in one colour, because reversed multi-coloured text is hard to read.
    #[must_use]
    pub fn selected(self) -> Style {
        self.color(Color::Reset)
            .add_modifier(Modifier::REVERSED)
            .remove_modifier(Modifier::DIM)
    }

    /// Names of keys.
    #[must_use]
    pub fn key(self) -> Style {
        self.color(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    /// A banner for a persistent problem.
    #[must_use]
    pub fn banner(self) -> Style {
        self.color(Color::Red)
            .add_modifier(Modifier::REVERSED | Modifier::BOLD)
    }
}

/// Characters for lines and marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glyphs {
    /// Whether to use ASCII only.
    pub ascii: bool,
}

impl Glyphs {
    fn pick(self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.ascii { ascii } else { unicode }
    }

    /// Marks truncated text.
    #[must_use]
    pub fn more(self) -> &'static str {
        self.pick("…", "~")
    }

    /// Separates parts of a line.
    #[must_use]
    pub fn dot(self) -> &'static str {
        self.pick("·", "-")
    }

    /// Marks a marked dump.
    #[must_use]
    pub fn mark(self) -> &'static str {
        self.pick("●", "*")
    }

    /// Marks a dump that just arrived.
    #[must_use]
    pub fn fresh(self) -> &'static str {
        "+"
    }

    /// Follows the name of the sort column.
    #[must_use]
    pub fn order(self, reverse: bool) -> &'static str {
        match reverse {
            false => self.pick("▾", "v"),
            true => self.pick("▴", "^"),
        }
    }

    /// Horizontal line.
    #[must_use]
    pub fn horizontal(self) -> &'static str {
        self.pick("─", "-")
    }

    /// Vertical line.
    #[must_use]
    pub fn vertical(self) -> &'static str {
        self.pick("│", "|")
    }

    /// Corners: top left, top right, bottom left, bottom right.
    #[must_use]
    pub fn corners(self) -> [&'static str; 4] {
        if self.ascii {
            ["+"; 4]
        } else {
            ["╭", "╮", "╰", "╯"]
        }
    }

    /// The done and the remaining part of a progress bar.
    #[must_use]
    pub fn bar(self) -> (&'static str, &'static str) {
        if self.ascii {
            ("#", ".")
        } else {
            ("█", "░")
        }
    }

    /// An activity indicator.
    #[must_use]
    pub fn spinner(self, step: u64) -> &'static str {
        const UNICODE: [&str; 8] = ["⠋", "⠙", "⠸", "⠴", "⠦", "⠇", "⠏", "⠛"];
        const ASCII: [&str; 4] = ["|", "/", "-", "\\"];
        let pick = |frames: &[&'static str]| {
            let index = step % frames.len().max(1) as u64;
            frames.get(index as usize).copied().unwrap_or("*")
        };
        if self.ascii {
            pick(&ASCII)
        } else {
            pick(&UNICODE)
        }
    }

    /// A line of bars for counts: zero is a blank, other counts at least the lowest bar.
    #[must_use]
    pub fn sparkline(self, counts: &[u32]) -> String {
        let levels: &[char] = if self.ascii {
            &['.', ':', '-', '=', '+', '*', '#', '@']
        } else {
            &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
        };
        let most = u64::from(counts.iter().copied().max().unwrap_or_default().max(1));
        let last = levels.len() as u64 - 1;
        let bar = |count: &u32| match u64::from(*count) {
            0 => ' ',
            count => {
                let level = (count * last).div_ceil(most).min(last) as usize;
                levels.get(level).copied().unwrap_or('#')
            }
        };
        counts.iter().map(bar).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparkline_shows_zero_as_blank_and_small_counts_as_bars() {
        let glyphs = Glyphs { ascii: false };
        assert_eq!(glyphs.sparkline(&[0, 1, 1000]), " ▂█");
        assert_eq!(Glyphs { ascii: true }.sparkline(&[0, 5, 5]), " @@");
        assert_eq!(glyphs.sparkline(&[0, 0]), "  ");
    }

    #[test]
    fn theme_without_colours_has_none() {
        let theme = Theme::new(false);
        let tones = [
            Tone::Strong,
            Tone::Dim,
            Tone::Good,
            Tone::Bad,
            Tone::Name,
            Tone::Place,
        ];
        let styles = tones.map(|tone| theme.tone(tone)).into_iter();
        for style in styles.chain([
            theme.header(),
            theme.selected(),
            theme.key(),
            theme.banner(),
        ]) {
            assert_eq!((style.fg, style.bg), (None, None));
        }
    }
}
