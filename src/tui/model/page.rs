//! A page of lines that can be scrolled, searched and copied.

use ratatui::text::Line;

use crate::tui::styled::plain;

/// A page of text with cursor and scroll position.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The lines.
    pub lines: Vec<Line<'static>>,
    /// Index of the selected line.
    pub cursor: usize,
    /// Index of the first line on the screen.
    pub top: usize,
    /// Index of the first column on the screen.
    pub left: usize,
    /// The last search text.
    pub sought: String,
}

impl Page {
    /// Creates a page with the cursor at its start.
    #[must_use]
    pub fn new(lines: Vec<Line<'static>>) -> Self {
        Self {
            lines,
            ..Self::default()
        }
    }

    /// Replaces the lines and preserves the position.
    pub fn replace(&mut self, lines: Vec<Line<'static>>) {
        self.lines = lines;
        self.cursor = self.cursor.min(self.lines.len().saturating_sub(1));
    }

    /// The plain text, for pagers and clipboards.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.iter().map(|line| plain(line) + "\n").collect()
    }

    /// Moves the cursor by this many lines.
    pub fn move_by(&mut self, lines: isize) {
        let last = self.lines.len().saturating_sub(1);
        self.cursor = self.cursor.saturating_add_signed(lines).min(last);
    }

    /// Scrolls by this many columns, up to the end of the text.
    pub fn scroll_by(&mut self, columns: isize) {
        let widest = self.lines.iter().map(Line::width).max().unwrap_or_default();
        self.left = self
            .left
            .saturating_add_signed(columns)
            .min(widest.saturating_sub(1));
    }

    /// Scrolls so that the cursor is on a screen of this height.
    pub fn follow(&mut self, height: usize) {
        self.top = follow(self.top, self.cursor, height, self.lines.len());
    }

    /// Moves to the next line that contains `text`, wrapping around at the end. Returns whether
    /// there is one.
    pub fn find(&mut self, text: &str, from_here: bool) -> bool {
        text.clone_into(&mut self.sought);
        let wanted = text.to_lowercase();
        if wanted.is_empty() {
            return true;
        }
        let count = self.lines.len();
        let first = self.cursor.saturating_add(usize::from(!from_here));
        let places = (0..count).map(|step| (first + step) % count.max(1));
        let holds = |place: &usize| {
            let line = self.lines.get(*place);
            line.is_some_and(|line| plain(line).to_lowercase().contains(&wanted))
        };
        let found = places.into_iter().find(holds);
        if let Some(place) = found {
            self.cursor = place;
        }
        found.is_some()
    }
}

/// The first line of a screen of `height` lines that shows `cursor`, scrolled no more than
/// necessary.
#[must_use]
pub fn follow(top: usize, cursor: usize, height: usize, count: usize) -> usize {
    let height = height.max(1);
    let lowest = count.saturating_sub(height);
    top.min(cursor)
        .max((cursor + 1).saturating_sub(height))
        .min(lowest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_scrolls_only_as_far_as_the_cursor() {
        assert_eq!(follow(0, 5, 10, 100), 0);
        assert_eq!(follow(0, 10, 10, 100), 1);
        assert_eq!(follow(50, 40, 10, 100), 40);
        assert_eq!(follow(95, 99, 10, 100), 90);
        assert_eq!(follow(5, 0, 10, 3), 0);
        assert_eq!(follow(5, 5, 0, 10), 5);
    }

    #[test]
    fn page_search_wraps_around_and_ignores_case() {
        let lines = ["alpha", "Beta", "gamma", "beta"].map(Line::from);
        let mut page = Page::new(lines.to_vec());
        assert!(page.find("BETA", true));
        assert_eq!(page.cursor, 1);
        assert!(page.find("beta", false));
        assert_eq!(page.cursor, 3);
        assert!(page.find("beta", false));
        assert_eq!(page.cursor, 1);
        assert!(!page.find("delta", false));
        assert!(!Page::default().find("x", false));
    }
}
