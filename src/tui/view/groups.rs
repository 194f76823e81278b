//! The list of groups, and below it the images and workloads of the selected group.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use unicode_width::UnicodeWidthStr;

use super::list::{fresh, preview, select};
use super::{chrome::number, empty, page as draw_page, text};
use crate::render::{Group, TIMES, Tone, age, short_image, terminal_line};
use crate::tui::details::{self, DetailRow};
use crate::tui::layout::{Regions, group_columns, trend_width};
use crate::tui::model::{GroupColumn, Model, top};
use crate::tui::styled::{cut, fit};

/// Titles of the columns, and their sort columns.
const TITLES: [(&str, Option<GroupColumn>); 9] = [
    ("COUNT", Some(GroupColumn::Count)),
    ("LAST", Some(GroupColumn::Last)),
    ("FIRST", Some(GroupColumn::First)),
    ("TREND", None),
    ("EXE", Some(GroupColumn::Exe)),
    ("SIGNAL", Some(GroupColumn::Signal)),
    ("TOP FRAME", Some(GroupColumn::Top)),
    ("WORKLOADS", Some(GroupColumn::Workload)),
    ("IMAGES", None),
];

/// The sort column of the column with this number.
pub fn group_column(number: usize) -> Option<GroupColumn> {
    TITLES.get(number).and_then(|(_, column)| *column)
}

/// One row for each crash.
pub(super) fn groups(model: &Model, buffer: &mut Buffer, regions: &Regions) {
    let rooms = group_columns(regions.body.width);
    let (sorted, reverse) = model.groups.sort();
    let mut x = regions.titles.x + 1;
    for ((title, column), room) in TITLES.into_iter().zip(rooms) {
        let order = match column == Some(sorted) {
            true => model.glyphs.order(reverse),
            false => "",
        };
        let title = fit(&format!("{title}{order}"), usize::from(room), "");
        let strong = model.theme.tone(Tone::Strong);
        put(buffer, (x, regions.titles.y), room, &title, strong);
        x += if room > 0 { room + 1 } else { 0 };
    }
    if model.groups.list.is_empty() {
        let mut whole = *regions;
        whole.body.height += whole.details.height;
        return empty::dumps(model, buffer, &whole);
    }
    for line in 0..regions.body.height {
        let place = model.groups.top + usize::from(line);
        let Some(group) = model.groups.list.get(place) else {
            break;
        };
        let y = regions.body.y + line;
        fresh(model, buffer, (regions.body.x, y), &group.newest);
        let mut x = regions.body.x + 1;
        for ((value, style), room) in cells(model, group, regions.body.width)
            .into_iter()
            .zip(rooms)
        {
            let value = cut(&value, usize::from(room), model.glyphs.more());
            put(buffer, (x, y), room, &value, style);
            x += if room > 0 { room + 1 } else { 0 };
        }
        if place == model.groups.cursor {
            select(model, buffer, regions.body, line);
        }
    }
    pane(model, buffer, regions.details);
    preview(model, buffer, regions.preview);
}

fn put(buffer: &mut Buffer, (x, y): (u16, u16), room: u16, text: &str, style: Style) {
    let room = room.min(buffer.area.right().saturating_sub(x));
    if room > 0 {
        buffer.set_stringn(x, y, text, usize::from(room), style);
    }
}

fn cells(model: &Model, group: &Group, width: u16) -> [(String, Style); 9] {
    let plain = Style::new();
    let strong = model.theme.tone(Tone::Strong);
    let parts = TIMES / trend_width(width).max(1);
    let counts = group.over_time.chunks(parts.max(1));
    let counts: Vec<u32> = counts.map(|some| some.iter().sum()).collect();
    let names = |names: Vec<&str>| {
        let first = names.first().map(|name| terminal_line(name));
        match (first, names.len()) {
            (None, _) => String::new(),
            (Some(first), 1) => first,
            (Some(first), count) => format!("{first} +{}", count - 1),
        }
    };
    let images = group.images.iter();
    let images: Vec<String> = images
        .map(|image| short_image(&image.reference, image.release.as_deref()))
        .collect();
    let signal = group.signal.strip_prefix("SIG").unwrap_or(&group.signal);
    let bad = model.theme.tone(Tone::Bad);
    [
        (format!("{:>6}", number(group.count)), strong),
        (age(group.last, model.now), plain),
        match group.is_new {
            true => (format!("{:<5}NEW", age(group.first, model.now)), bad),
            false => (details::first(group, model.now), plain),
        },
        (
            model.glyphs.sparkline(&counts),
            model.theme.tone(Tone::Place),
        ),
        (terminal_line(&group.exe), strong),
        (terminal_line(signal), bad),
        (
            top(group, &model.tops).unwrap_or_default().to_owned(),
            model.theme.tone(Tone::Name),
        ),
        (
            names(group.workloads.iter().map(String::as_str).collect()),
            plain,
        ),
        (
            names(images.iter().map(String::as_str).collect()),
            model.theme.tone(Tone::Dim),
        ),
    ]
}

/// Draws one group as a page.
pub(super) fn page(model: &Model, buffer: &mut Buffer, regions: &Regions) {
    text(
        buffer,
        regions.titles,
        0,
        " One crash: its images and workloads",
        model.theme.tone(Tone::Strong),
    );
    draw_page(model, buffer, regions.body, &model.group_page);
}

/// Draws images and workloads of the selected group side by side.
fn pane(model: &Model, buffer: &mut Buffer, area: Rect) {
    let Some(group) = model.groups.selected().filter(|_| area.height > 2) else {
        return;
    };
    let dim = model.theme.tone(Tone::Dim);
    let rule = model.glyphs.horizontal();
    text(buffer, area, 0, &rule.repeat(usize::from(area.width)), dim);
    let title = format!("{} {} ", rule.repeat(2), details::summary(group, model));
    text(buffer, area, 0, &title, dim);
    let left = area.width / 2;
    let rest = Rect::new(area.x, area.y + 1, area.width, area.height - 1);
    let images = Rect {
        x: rest.x + 1,
        width: left.saturating_sub(2),
        ..rest
    };
    let workloads = Rect {
        x: rest.x + left,
        width: rest.width - left,
        ..rest
    };
    let title = details::images_title(group);
    let none = match model.facts.contains_key(&group.newest.id) {
        true => "no image is known",
        false => "reading manifests",
    };
    table(model, buffer, images, &title, &details::images(group), none);
    let none = "no workload is known";
    table(
        model,
        buffer,
        workloads,
        "WORKLOAD",
        &details::workloads(group),
        none,
    );
}

/// Draws names with times and counts. If not all fit, the first and the last are shown.
fn table(
    model: &Model,
    buffer: &mut Buffer,
    area: Rect,
    title: &str,
    rows: &[DetailRow],
    none: &str,
) {
    let strong = model.theme.tone(Tone::Strong);
    let dim = model.theme.tone(Tone::Dim);
    let names = rows.iter().map(|row| terminal_line(&row.name).width());
    let name = names.max().unwrap_or(0).max(title.width());
    let name = name.min(usize::from(area.width).saturating_sub(19));
    let more = model.glyphs.more();
    let title = fit(title, name, more);
    let head = format!("{title} {:<5} {:<5} {:>5}", "FIRST", "LAST", "COUNT");
    let head = if rows.is_empty() { &title } else { &head };
    text(
        buffer,
        area,
        0,
        &cut(head, usize::from(area.width), ""),
        strong,
    );
    if rows.is_empty() {
        return text(buffer, area, 1, none, dim);
    }
    let room = usize::from(area.height.saturating_sub(1));
    let line = |row: &DetailRow| {
        let (first, last) = row.times;
        format!(
            "{} {:<5} {:<5} {:>5}",
            fit(&terminal_line(&row.name), name, more),
            age(first, model.now),
            age(last, model.now),
            number(row.count)
        )
    };
    let lines: Vec<(String, Style)> = match rows {
        [first @ .., last] if rows.len() > room && room >= 2 => {
            let shown = first.iter().take(room.saturating_sub(2));
            let hidden = rows.len() - room.saturating_sub(1);
            let mut lines: Vec<_> = shown.map(|row| (line(row), Style::new())).collect();
            lines.push((format!("{more} {hidden} more"), dim));
            lines.push((line(last), Style::new()));
            lines
        }
        _ => rows.iter().map(|row| (line(row), Style::new())).collect(),
    };
    for (number, (line, style)) in (1..area.height).zip(lines) {
        text(
            buffer,
            area,
            number,
            &cut(&line, usize::from(area.width), more),
            style,
        );
    }
}
