//! The list of dumps, and below it the backtrace of the selected dump if there is room.

use cdh_store::DumpSummary;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::{empty, paragraph, text};
use crate::render::{Tone, age, bytes, pod_owner, terminal_line};
use crate::tui::layout::{Regions, columns};
use crate::tui::model::{COLUMNS, Column, Model};
use crate::tui::pages;
use crate::tui::styled::{cut, fit};

/// One row for each dump.
pub(super) fn dumps(model: &Model, buffer: &mut Buffer, regions: &Regions) {
    let rooms = columns(regions.body.width);
    let (sorted, reverse) = model.dumps.sort();
    let mut x = regions.titles.x + 2;
    for (column, room) in COLUMNS.into_iter().zip(rooms) {
        let order = if column == sorted {
            model.glyphs.order(reverse)
        } else {
            ""
        };
        let title = format!("{}{order}", column.title());
        if room > 0 {
            let title = fit(&title, usize::from(room), "");
            buffer.set_stringn(
                x,
                regions.titles.y,
                title,
                usize::from(room),
                model.theme.tone(Tone::Strong),
            );
        }
        x += room + 1;
    }
    if model.dumps.visible_len() == 0 {
        return empty::dumps(model, buffer, regions);
    }
    for line in 0..regions.body.height {
        let place = model.dumps.top + usize::from(line);
        let Some(dump) = model.dumps.get(place) else {
            break;
        };
        row(model, buffer, regions.body, line, dump);
        if place == model.dumps.cursor {
            select(model, buffer, regions.body, line);
        }
    }
    preview(model, buffer, regions.preview);
}

pub(super) fn select(model: &Model, buffer: &mut Buffer, area: Rect, line: u16) {
    let row = Rect::new(area.x, area.y + line, area.width, 1);
    buffer.set_style(row, model.theme.selected());
}

fn row(model: &Model, buffer: &mut Buffer, area: Rect, line: u16, dump: &DumpSummary) {
    let y = area.y + line;
    if model.dumps.marks.contains(&dump.id) {
        buffer.set_stringn(
            area.x,
            y,
            model.glyphs.mark(),
            1,
            model.theme.tone(Tone::Good),
        );
    }
    fresh(model, buffer, (area.x + 1, y), dump);
    let roomy = area.width >= 120;
    let mut x = area.x + 2;
    for (column, room) in COLUMNS.into_iter().zip(columns(area.width)) {
        let (value, style) = cell(model, dump, column, roomy);
        let width = usize::from(room);
        let value = if column == Column::Size {
            format!("{:>width$}", cut(&value, width, model.glyphs.more()))
        } else {
            cut(&value, width, model.glyphs.more())
        };
        buffer.set_stringn(x, y, value, width, style);
        x += room + 1;
    }
}

/// Marks rows that the automatic refresh added.
pub(super) fn fresh(model: &Model, buffer: &mut Buffer, (x, y): (u16, u16), dump: &DumpSummary) {
    if model.dumps.fresh.has(dump.id) {
        buffer.set_stringn(x, y, model.glyphs.fresh(), 1, model.theme.tone(Tone::Bad));
    }
}

fn cell(model: &Model, dump: &DumpSummary, column: Column, roomy: bool) -> (String, Style) {
    let plain = Style::new();
    let bad = model.theme.tone(Tone::Bad);
    match column {
        Column::Time => {
            let age = dump
                .captured()
                .map_or_else(|| "-".to_owned(), |time| age(time, model.now));
            let fingerprint = dump.fingerprint.as_deref();
            match roomy && model.first_seen.is_new(fingerprint, model.now) {
                true => (format!("{age:<5}NEW"), bad),
                false => (age, plain),
            }
        }
        Column::Workload => (place(dump, roomy), plain),
        Column::Exe => (
            terminal_line(&dump.exe.to_string()),
            model.theme.tone(Tone::Strong),
        ),
        Column::Signal => {
            let signal = terminal_line(&dump.signal);
            let short = signal.strip_prefix("SIG").unwrap_or(&signal).to_owned();
            (if roomy { signal } else { short }, bad)
        }
        Column::Verdict => {
            let verdict = match (dump.verdict.as_str(), roomy) {
                ("truncated", false) => "cut",
                (word, _) => word,
            };
            let style = match dump.verdict.as_str() {
                "complete" => model.theme.tone(Tone::Good),
                "unknown" => model.theme.tone(Tone::Dim),
                _ => bad,
            };
            (terminal_line(verdict), style)
        }
        Column::Size => {
            let size = dump.size.map_or_else(|| "-".to_owned(), bytes);
            // On a narrow screen, `1.5 KiB` becomes `1.5K`.
            let short = || size.replace([' ', 'i', 'B'], "");
            (if roomy { size.clone() } else { short() }, plain)
        }
        Column::Top => {
            let top = model.tops.of(dump);
            (
                top.unwrap_or_default().to_owned(),
                model.theme.tone(Tone::Name),
            )
        }
    }
}

/// Namespace and pod; on a narrow screen, the pod's owner instead of the long pod name.
fn place(dump: &DumpSummary, roomy: bool) -> String {
    let text = match (&dump.namespace, &dump.pod) {
        (Some(namespace), Some(pod)) => {
            let owner = pod_owner(pod).filter(|_| !roomy);
            format!("{namespace}/{}", owner.unwrap_or(pod))
        }
        (one, other) => one
            .as_ref()
            .or(other.as_ref())
            .map_or("-", |name| name)
            .to_owned(),
    };
    terminal_line(&text)
}

/// Draws the backtrace of the selected dump.
pub(super) fn preview(model: &Model, buffer: &mut Buffer, area: Rect) {
    if area.height < 3 {
        return;
    }
    let Some(dump) = model.selected() else {
        return;
    };
    let title = format!(
        "{} {} ",
        model.glyphs.horizontal().repeat(2),
        dump.id.short()
    );
    let rule = model.glyphs.horizontal().repeat(usize::from(area.width));
    text(buffer, area, 0, &rule, model.theme.tone(Tone::Dim));
    text(buffer, area, 0, &title, model.theme.tone(Tone::Dim));
    let lines = pages::preview(model.known.get(dump.id), model.theme);
    let inner = Rect::new(area.x + 1, area.y + 1, area.width - 1, area.height - 1);
    paragraph(buffer, inner, &lines);
}
