//! The list of dumps and the list of groups, with the backtrace of what is selected below them where
//! there is room.

use cdh_store::DumpSummary;
use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::{chrome::number, empty, paragraph, text};
use crate::render::{Group, TIMES, Tone, age, bytes, pod_owner, terminal_line};
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

fn select(model: &Model, buffer: &mut Buffer, area: Rect, line: u16) {
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

fn cell(model: &Model, dump: &DumpSummary, column: Column, roomy: bool) -> (String, Style) {
    let plain = Style::new();
    let bad = model.theme.tone(Tone::Bad);
    match column {
        Column::Time => (age(dump.captured_at, model.now), plain),
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
            // `1.5 KiB` as `1.5K` where there is little room.
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

/// Namespace and pod; where there is little room, what made the pod instead of its long name.
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

/// One row for each crash.
pub(super) fn groups(model: &Model, buffer: &mut Buffer, regions: &Regions) {
    let width = usize::from(regions.body.width);
    let rooms = group_rooms(width);
    let titles = [
        "COUNT",
        "LAST",
        "FIRST",
        "OVER TIME",
        "EXE",
        "SIGNAL",
        "TOP FRAME",
        "WORKLOADS",
        "IMAGES",
    ];
    let mut x = usize::from(regions.titles.x) + 1;
    for (title, room) in titles.into_iter().zip(rooms) {
        put(
            buffer,
            x,
            regions.titles.y,
            &fit(title, room, ""),
            model.theme.tone(Tone::Strong),
        );
        x += if room > 0 { room + 1 } else { 0 };
    }
    if model.groups.list.is_empty() {
        return empty::dumps(model, buffer, regions);
    }
    for line in 0..regions.body.height {
        let place = model.groups.top + usize::from(line);
        let Some(group) = model.groups.list.get(place) else {
            break;
        };
        let cells = group_cells(model, group);
        let mut x = usize::from(regions.body.x) + 1;
        for ((value, style), room) in cells.into_iter().zip(rooms) {
            put(
                buffer,
                x,
                regions.body.y + line,
                &cut(&value, room, model.glyphs.more()),
                style,
            );
            x += if room > 0 { room + 1 } else { 0 };
        }
        if place == model.groups.cursor {
            select(model, buffer, regions.body, line);
        }
    }
    preview(model, buffer, regions.preview);
}

fn put(buffer: &mut Buffer, x: usize, y: u16, text: &str, style: Style) {
    let x = u16::try_from(x).unwrap_or(u16::MAX);
    let room = usize::from(buffer.area.right().saturating_sub(x));
    if room > 0 {
        buffer.set_stringn(x, y, text, room, style);
    }
}

/// Room of each column; what does not fit has none.
fn group_rooms(width: usize) -> [usize; 9] {
    let wide = width >= 120;
    let spark = if wide { TIMES } else { 12 };
    let first = if wide { 5 } else { 0 };
    let images = if wide { width / 6 } else { 0 };
    let exe = if wide { 16 } else { 11 };
    let fixed = 6 + 5 + first + spark + exe + 7 + images;
    let columns = if wide { 9 } else { 7 };
    let rest = width.saturating_sub(fixed + columns + 1);
    let top = rest * 3 / 5;
    [6, 5, first, spark, exe, 7, top, rest - top, images]
}

fn group_cells(model: &Model, group: &Group) -> [(String, Style); 9] {
    let plain = Style::new();
    let now: Timestamp = model.now;
    let wide = usize::from(model.size.0) >= 120;
    let counts: Vec<u32> = if wide {
        group.over_time.to_vec()
    } else {
        group
            .over_time
            .chunks(2)
            .map(|pair| pair.iter().sum())
            .collect()
    };
    let names = |names: Vec<&str>| {
        let first = names
            .first()
            .map(|name| terminal_line(name))
            .unwrap_or_default();
        match names.len() {
            0 | 1 => first,
            count => format!("{first} +{}", count - 1),
        }
    };
    let images: Vec<String> = group
        .images
        .iter()
        .map(|image| short_image(&image.reference))
        .collect();
    let signal = group.signal.strip_prefix("SIG").unwrap_or(&group.signal);
    [
        (
            format!("{:>6}", number(group.count)),
            model.theme.tone(Tone::Strong),
        ),
        (age(group.last, now), plain),
        (age(group.first, now), plain),
        (
            model.glyphs.sparkline(&counts),
            model.theme.tone(Tone::Place),
        ),
        (terminal_line(&group.exe), model.theme.tone(Tone::Strong)),
        (terminal_line(signal), model.theme.tone(Tone::Bad)),
        (
            model.tops.of(&group.newest).unwrap_or_default().to_owned(),
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

/// `worker@3f2a1b` for `registry.example/payments/worker@sha256:3f2a1b…`.
fn short_image(image: &str) -> String {
    let (name, digest) = image.split_once('@').unwrap_or((image, ""));
    let name = name.rsplit('/').next().unwrap_or(name);
    match digest.rsplit(':').next().and_then(|digest| digest.get(..6)) {
        Some(digest) => format!("{name}@{digest}"),
        None => name.to_owned(),
    }
}

/// The backtrace of what is selected.
fn preview(model: &Model, buffer: &mut Buffer, area: Rect) {
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
