//! Views of one dump with its tabs, and of the comparison of two dumps.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::{page, paragraph, text};
use crate::render::{Tone, age, terminal_line};
use crate::tui::layout::Regions;
use crate::tui::model::{DumpView, Model, Pane, Source, TABS};
use crate::tui::pages;
use crate::tui::styled::{cut, fit};

/// Start and end column of each tab's title. On a narrow screen, titles are only numbers.
#[must_use]
pub fn tab_places(width: u16) -> Vec<(u16, u16)> {
    let mut start = 1;
    let short = is_short(width);
    let place = |title: &str| {
        let columns = if short {
            3
        } else {
            u16::try_from(title.len()).unwrap_or(0) + 4
        };
        let place = (start, start + columns);
        start += columns;
        place
    };
    TABS.iter().map(|tab| tab.title()).map(place).collect()
}

fn is_short(width: u16) -> bool {
    let all: usize = TABS.iter().map(|tab| tab.title().len() + 4).sum();
    usize::from(width) < all + 2
}

/// Draws a dump.
pub(super) fn dump(model: &Model, buffer: &mut Buffer, regions: &Regions) {
    let Some(view) = &model.dump else { return };
    let dump = &view.dump;
    let dot = model.glyphs.dot();
    let place = [&dump.namespace, &dump.pod]
        .into_iter()
        .flatten()
        .cloned()
        .collect::<Vec<_>>()
        .join("/");
    let place = if place.is_empty() {
        String::new()
    } else {
        format!(" {dot} {place}")
    };
    let title = format!(
        " {} {dot} {} {dot} {}{place} {dot} {} ago {dot} {}",
        dump.id.short(),
        dump.exe,
        dump.signal,
        age(dump.captured_at, model.now),
        dump.verdict,
    );
    let title = cut(
        &terminal_line(&title),
        usize::from(regions.titles.width),
        model.glyphs.more(),
    );
    text(
        buffer,
        regions.titles,
        0,
        &title,
        model.theme.tone(Tone::Strong),
    );
    tabs(model, view, buffer, regions.titles);
    threads(model, view, buffer, regions.threads);
    page(model, buffer, regions.body, &view.page);
    if regions.preview.height == 0 {
        return;
    }
    match (view.pane, &view.source) {
        (Pane::Instructions, _) => instruction_pane(model, view, buffer, regions.preview),
        (Pane::Source, Some(source)) => source_pane(model, source, buffer, regions.preview),
        (Pane::Source, None) => {}
    }
}

fn tabs(model: &Model, view: &DumpView, buffer: &mut Buffer, area: Rect) {
    let short = is_short(area.width);
    let y = area.y + 1;
    for (number, (tab, (start, end))) in TABS.iter().zip(tab_places(area.width)).enumerate() {
        let shown = *tab == view.tab;
        let title = match (short, shown) {
            (true, _) => format!(" {} ", number + 1),
            (false, _) => format!(" {} {} ", number + 1, tab.title()),
        };
        let style = if shown {
            model.theme.selected()
        } else {
            Style::new()
        };
        let room = usize::from(end - start);
        buffer.set_stringn(area.x + start, y, title, room, style);
    }
    if short {
        let start = tab_places(area.width).last().map_or(0, |(_, end)| *end) + 1;
        let room = usize::from(area.width.saturating_sub(start));
        buffer.set_stringn(
            area.x + start,
            y,
            view.tab.title(),
            room,
            model.theme.tone(Tone::Strong),
        );
    }
}

fn threads(model: &Model, view: &DumpView, buffer: &mut Buffer, area: Rect) {
    let Some(stacks) = model.known.stacks(view.dump.id).filter(|_| area.width > 0) else {
        return;
    };
    let all = stacks
        .backtrace
        .threads
        .iter()
        .enumerate()
        .skip(view.thread_top);
    for (line, (number, thread)) in (0..area.height).zip(all) {
        let name = thread
            .frames
            .iter()
            .find_map(|frame| frame.function.as_ref().ok());
        let name = name.map_or("??", |function| function.name.as_str());
        let mark = if thread.crashing { "!" } else { " " };
        let label = format!("{mark}{} {}", thread.tid, terminal_line(name));
        let label = fit(&label, usize::from(area.width), model.glyphs.more());
        let style = match (number == view.thread, thread.crashing) {
            (true, _) => model.theme.selected(),
            (false, true) => model.theme.tone(Tone::Bad),
            (false, false) => Style::new(),
        };
        text(buffer, area, line, &label, style);
    }
    for y in area.y..area.bottom() {
        let line = model.glyphs.vertical();
        buffer.set_stringn(area.right(), y, line, 1, model.theme.tone(Tone::Dim));
    }
}

fn instruction_pane(model: &Model, view: &DumpView, buffer: &mut Buffer, area: Rect) {
    let rule = model.glyphs.horizontal().repeat(usize::from(area.width));
    text(buffer, area, 0, &rule, model.theme.tone(Tone::Dim));
    if let Some(stacks) = model.known.stacks(view.dump.id) {
        let lines = pages::instructions(view, stacks, model.theme);
        let inner = Rect::new(area.x, area.y + 1, area.width, area.height - 1);
        paragraph(buffer, inner, &lines);
    }
}

fn source_pane(model: &Model, source: &Source, buffer: &mut Buffer, area: Rect) {
    let rule = model.glyphs.horizontal().repeat(usize::from(area.width));
    text(buffer, area, 0, &rule, model.theme.tone(Tone::Dim));
    let place = format!(
        "{} {}:{} ",
        model.glyphs.horizontal().repeat(2),
        terminal_line(&source.file),
        source.line
    );
    text(
        buffer,
        area,
        0,
        &cut(&place, usize::from(area.width), model.glyphs.more()),
        model.theme.tone(Tone::Place),
    );
    let width = usize::from(area.width);
    let mut note = |row: u16, words: &str| {
        let line = cut(&terminal_line(words), width, model.glyphs.more());
        text(buffer, area, row, &line, model.theme.tone(Tone::Bad));
    };
    let lines = match &source.lines {
        Ok(lines) => lines,
        Err(reason) => return note(1, &format!("source is not shown: {reason}")),
    };
    let mut top = 1;
    for warning in &source.warnings {
        note(top, &format!("warning: {warning}"));
        top += 1;
    }
    // Centre the frame's line.
    let room = usize::from(area.height.saturating_sub(top));
    let target = usize::try_from(source.line.saturating_sub(source.first)).unwrap_or(0);
    let skip = target
        .saturating_sub(room / 2)
        .min(lines.len().saturating_sub(room));
    for (row, (number, line)) in (top..area.height).zip(lines.iter().enumerate().skip(skip)) {
        let shown = source
            .first
            .saturating_add(u32::try_from(number).unwrap_or(0));
        let mark = if number == target { ">" } else { " " };
        let style = if number == target {
            Style::new().add_modifier(Modifier::BOLD)
        } else {
            model.theme.tone(Tone::Dim)
        };
        let line = format!("{mark}{shown:>5}  {line}");
        text(
            buffer,
            area,
            row,
            &cut(&line, usize::from(area.width), model.glyphs.more()),
            style,
        );
    }
}

/// Draws the comparison.
pub(super) fn diff(model: &Model, buffer: &mut Buffer, regions: &Regions) {
    let Some(view) = &model.diff else { return };
    let [first, second] = &*view.dumps;
    let title = format!(
        " - {} {} ago   + {} {} ago",
        first.id.short(),
        age(first.captured_at, model.now),
        second.id.short(),
        age(second.captured_at, model.now),
    );
    text(
        buffer,
        regions.titles,
        0,
        &title,
        model.theme.tone(Tone::Strong),
    );
    page(model, buffer, regions.body, &view.page);
}
