//! Overlays: help, questions, notices.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use crate::render::{Tone, bytes, terminal_line};
use crate::tui::help::WIDEST;
use crate::tui::keymap::{Action, Context};
use crate::tui::model::{Model, Overlay};
use crate::tui::styled::{cut, wrapped};

/// Maximum number of dumps listed in a question.
const NAMED: usize = 8;

pub(super) fn overlay(model: &Model, buffer: &mut Buffer, area: Rect) {
    let Some(overlay) = &model.overlay else {
        return;
    };
    match overlay {
        Overlay::Help(page) => {
            let height = usize::from(area.height.saturating_sub(6));
            let shown: Vec<Line<'_>> = page
                .lines
                .iter()
                .skip(page.top)
                .take(height)
                .cloned()
                .collect();
            let title = format!(
                "keys {} of {}",
                (page.top + shown.len()).min(page.lines.len()),
                page.lines.len()
            );
            frame(model, buffer, area, &title, &shown, WIDEST);
        }
        Overlay::Delete(dumps) => {
            let mut lines = Vec::new();
            for dump in dumps.iter().take(NAMED) {
                let size = dump.size.map(bytes).unwrap_or_default();
                let line = format!("{} {} {} {size}", dump.id.short(), dump.exe, dump.signal);
                lines.push(Line::from(terminal_line(&line)));
            }
            if dumps.len() > NAMED {
                lines.push(Line::from(format!("and {} more", dumps.len() - NAMED)));
            }
            lines.push(Line::default());
            lines.push(answer(model));
            let title = match dumps.len() {
                1 => "Delete this dump from the store?".to_owned(),
                count => format!("Delete these {count} dumps from the store?"),
            };
            frame(model, buffer, area, &title, &lines, 60);
        }
        Overlay::Quit => {
            let active = model.transfers.active();
            let line = format!("{active} transfers are not done; quitting ends them.");
            frame(
                model,
                buffer,
                area,
                "Quit?",
                &[Line::from(line), Line::default(), answer(model)],
                60,
            );
        }
        Overlay::Notice { title, lines } => {
            let width = usize::from(area.width.saturating_sub(6)).min(90);
            let mut all: Vec<Line<'_>> = lines
                .iter()
                .flat_map(|line| wrapped(line, width))
                .map(Line::from)
                .collect();
            all.push(Line::default());
            let key = model.keymap.key_for(Context::Everywhere, Action::Back);
            all.push(Line::from(vec![
                Span::styled(key, model.theme.key()),
                Span::raw(" closes this"),
            ]));
            frame(model, buffer, area, title, &all, 94);
        }
        Overlay::Waiting(id) => {
            let Some(transfer) = model.transfers.get(*id) else {
                return;
            };
            let done = match (transfer.part(), transfer.done) {
                (Some(part), _) => format!(
                    "{} %, {}/s",
                    (part * 100.0) as u64,
                    bytes(transfer.rate as u64)
                ),
                (None, 0) => String::new(),
                (None, done) => bytes(done),
            };
            let key = model.keymap.key_for(Context::Everywhere, Action::Back);
            let lines = [
                Line::from(format!("{} {done}", terminal_line(&transfer.what))),
                Line::default(),
                Line::from(vec![
                    Span::styled(key, model.theme.key()),
                    Span::raw(" stays here instead"),
                ]),
            ];
            frame(
                model,
                buffer,
                area,
                "The debugger starts when the dump is here",
                &lines,
                60,
            );
        }
    }
}

fn answer(model: &Model) -> Line<'static> {
    let key = |action| {
        Span::styled(
            model.keymap.key_for(Context::Question, action),
            model.theme.key(),
        )
    };
    Line::from(vec![
        key(Action::Yes),
        Span::raw(" yes   "),
        key(Action::No),
        Span::raw(" no"),
    ])
}

/// Draws a box in the middle.
fn frame(
    model: &Model,
    buffer: &mut Buffer,
    area: Rect,
    title: &str,
    lines: &[Line<'_>],
    widest: u16,
) {
    let needed = lines
        .iter()
        .map(Line::width)
        .max()
        .unwrap_or(0)
        .max(title.width() + 2);
    let width = u16::try_from(needed).unwrap_or(u16::MAX).saturating_add(4);
    let width = width.min(widest).min(area.width.saturating_sub(2)).max(4);
    let height = u16::try_from(lines.len())
        .unwrap_or(u16::MAX)
        .saturating_add(2);
    let height = height.min(area.height.saturating_sub(2)).max(3);
    let inside = Rect::new(
        area.x + (area.width - width) / 2,
        area.y + (area.height - height) / 2,
        width,
        height,
    );
    for y in inside.y..inside.bottom() {
        for x in inside.x..inside.right() {
            if let Some(cell) = buffer.cell_mut((x, y)) {
                cell.reset();
            }
        }
    }
    let [top_left, top_right, bottom_left, bottom_right] = model.glyphs.corners();
    let rule = model.glyphs.horizontal().repeat(usize::from(width - 2));
    let room = usize::from(width);
    let plain = Style::new();
    buffer.set_stringn(
        inside.x,
        inside.y,
        format!("{top_left}{rule}{top_right}"),
        room,
        plain,
    );
    let bottom = inside.bottom() - 1;
    buffer.set_stringn(
        inside.x,
        bottom,
        format!("{bottom_left}{rule}{bottom_right}"),
        room,
        plain,
    );
    for y in inside.y + 1..bottom {
        for x in [inside.x, inside.right() - 1] {
            buffer.set_stringn(x, y, model.glyphs.vertical(), 1, plain);
        }
    }
    let title = format!(
        " {} ",
        cut(
            &terminal_line(title),
            room.saturating_sub(6),
            model.glyphs.more()
        )
    );
    buffer.set_stringn(
        inside.x + 1,
        inside.y,
        title,
        room - 2,
        model.theme.tone(Tone::Strong),
    );
    for (y, line) in (inside.y + 1..bottom).zip(lines) {
        buffer.set_line(inside.x + 2, y, line, width - 4);
    }
}
