//! `view`: draws the model and changes nothing.
//!
//! Invariant: no cell contains a control character, whatever the model contains, and with `--ascii`
//! every cell is ASCII. `guard` enforces this after everything is drawn.

mod chrome;
mod dump;
mod empty;
mod groups;
mod list;
mod overlay;
mod places;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;

use super::layout::{SMALLEST, regions};
use super::model::{Model, Page, Screen};
use super::theme::Glyphs;

pub use dump::tab_places;
pub use groups::group_column;

/// Draws the screen.
pub fn view(model: &Model, frame: &mut Frame<'_>) {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        text(buffer, area, 0, "too small", Style::new());
        return;
    }
    // The terminal was resized, and the model does not know yet.
    if model.size != (area.width, area.height) {
        return;
    }
    let regions = regions(model);
    chrome::header(model, buffer, regions.header);
    chrome::banner(model, buffer, regions.banner);
    match model.screen() {
        Screen::Dumps { .. } => list::dumps(model, buffer, &regions),
        Screen::Groups => groups::groups(model, buffer, &regions),
        Screen::Group => groups::page(model, buffer, &regions),
        Screen::Dump => dump::dump(model, buffer, &regions),
        Screen::Diff => dump::diff(model, buffer, &regions),
        Screen::Transfers => places::transfers(model, buffer, &regions),
        Screen::Stores => places::stores(model, buffer, &regions),
    }
    let cursor = chrome::status(model, buffer, regions.status);
    chrome::footer(model, buffer, regions.footer);
    overlay::overlay(model, buffer, area);
    guard(buffer, model.glyphs);
    if let Some(cursor) = cursor {
        frame.set_cursor_position(cursor);
    }
}

/// Replaces control characters, and with `--ascii` also non-ASCII characters.
fn guard(buffer: &mut Buffer, glyphs: Glyphs) {
    for cell in &mut buffer.content {
        let symbol = cell.symbol();
        let plain = symbol.is_ascii() && !symbol.bytes().any(|byte| byte.is_ascii_control());
        if plain {
            continue;
        }
        let harmful = |c: char| {
            c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        if glyphs.ascii || symbol.chars().any(harmful) {
            cell.set_symbol("?");
        }
    }
}

/// Writes text into a line of `area`.
fn text(buffer: &mut Buffer, area: Rect, line: u16, text: &str, style: Style) {
    if line < area.height {
        buffer.set_stringn(area.x, area.y + line, text, usize::from(area.width), style);
    }
}

/// Writes styled lines from the top of `area`.
fn paragraph(buffer: &mut Buffer, area: Rect, lines: &[Line<'_>]) {
    for (y, line) in (area.y..area.bottom()).zip(lines) {
        buffer.set_line(area.x, y, line, area.width);
    }
}

/// Draws a page with the line of its cursor marked.
fn page(model: &Model, buffer: &mut Buffer, area: Rect, page: &Page) {
    let rows = page.lines.iter().enumerate().skip(page.top);
    for (y, (number, line)) in (area.y..area.bottom()).zip(rows) {
        line_from(buffer, area, y, line, page.left);
        if number == page.cursor && page.lines.len() > 1 {
            buffer.set_style(Rect::new(area.x, y, area.width, 1), model.theme.selected());
        }
    }
}

/// Draws a line, starting at a column.
fn line_from(buffer: &mut Buffer, area: Rect, y: u16, line: &Line<'_>, left: usize) {
    if left == 0 {
        buffer.set_line(area.x, y, line, area.width);
        return;
    }
    let mut skip = left;
    let mut x = area.x;
    for span in &line.spans {
        let shown: String = span
            .content
            .chars()
            .skip_while(|letter| {
                let width = unicode_width::UnicodeWidthChar::width(*letter).unwrap_or(0);
                let skipped = skip > 0;
                skip = skip.saturating_sub(width.max(1));
                skipped
            })
            .collect();
        let room = usize::from(area.right().saturating_sub(x));
        (x, _) = buffer.set_stringn(x, y, shown, room, span.style);
    }
}
