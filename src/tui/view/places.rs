//! The views of transfers and of stores.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::text;
use crate::render::{Tone, bytes, terminal_line};
use crate::tui::layout::Regions;
use crate::tui::model::{Model, Purpose, State, Transfer};
use crate::tui::styled::{cut, fit};

/// Draws two lines for each transfer: description and progress.
pub(super) fn transfers(model: &Model, buffer: &mut Buffer, regions: &Regions) {
    let strong = model.theme.tone(Tone::Strong);
    text(buffer, regions.titles, 0, "  TRANSFERS", strong);
    if model.transfers.list.is_empty() {
        let key = model.keymap.key_for(
            crate::tui::keymap::Context::Dumps,
            crate::tui::keymap::Action::Fetch,
        );
        let line = format!("  Nothing was fetched yet. `{key}` on a dump fetches it.");
        return text(buffer, regions.body, 1, &line, ratatui::style::Style::new());
    }
    let shown = model
        .transfers
        .list
        .iter()
        .enumerate()
        .skip(model.transfers.top);
    for (slot, (number, transfer)) in (0..regions.body.height / 2).zip(shown) {
        let area = Rect::new(
            regions.body.x,
            regions.body.y + slot * 2,
            regions.body.width,
            2,
        );
        one(model, buffer, area, transfer);
        if number == model.transfers.cursor {
            buffer.set_style(Rect { height: 1, ..area }, model.theme.selected());
        }
    }
}

fn one(model: &Model, buffer: &mut Buffer, area: Rect, transfer: &Transfer) {
    let width = usize::from(area.width);
    let more = model.glyphs.more();
    let purpose = match transfer.purpose {
        Purpose::Fetch => "fetch",
        Purpose::Debug => "debug",
    };
    let place = transfer.dump.namespace.as_deref().unwrap_or("-");
    let title = format!(
        "  {} {} {} {purpose}",
        transfer.dump.id.short(),
        transfer.dump.exe,
        place
    );
    let title = fit(&terminal_line(&title), width, more);
    text(buffer, area, 0, &title, model.theme.tone(Tone::Strong));
    let (line, tone) = match &transfer.state {
        State::Waiting => ("waits for others".to_owned(), Tone::Dim),
        State::Running => (progress(model, transfer, width), Tone::Place),
        State::Done(place) => (terminal_line(place), Tone::Good),
        State::Failed(error) => {
            let hints = error.hints.iter().map(|hint| format!("to do: {hint}"));
            let all: Vec<String> = error.lines.iter().cloned().chain(hints).collect();
            (all.join("; "), Tone::Bad)
        }
        State::Cancelled => ("cancelled".to_owned(), Tone::Dim),
    };
    text(
        buffer,
        area,
        1,
        &cut(&format!("    {line}"), width, more),
        model.theme.tone(tone),
    );
}

/// `████░░░░  45 %  12.0 MiB of 26.7 MiB  8.1 MiB/s  2 s left`.
fn progress(model: &Model, transfer: &Transfer, width: usize) -> String {
    let mut parts = Vec::new();
    if let Some(part) = transfer.part() {
        let room = (width / 4).clamp(8, 40);
        let done = (part * room as f64) as usize;
        let (full, empty) = model.glyphs.bar();
        parts.push(full.repeat(done) + &empty.repeat(room - done.min(room)));
        parts.push(format!("{:>3} %", (part * 100.0) as u64));
    }
    match transfer.total {
        Some(total) => parts.push(format!("{} of {}", bytes(transfer.done), bytes(total))),
        None => parts.push(format!(
            "{} {}",
            terminal_line(&transfer.what),
            bytes(transfer.done)
        )),
    }
    if transfer.rate > 0.0 {
        parts.push(format!("{}/s", bytes(transfer.rate as u64)));
    }
    if let Some(seconds) = transfer.remaining() {
        parts.push(format!("{seconds} s left"));
    }
    parts.join("  ")
}

/// Draws one line for each store.
pub(super) fn stores(model: &Model, buffer: &mut Buffer, regions: &Regions) {
    let plain = ratatui::style::Style::new();
    text(
        buffer,
        regions.titles,
        0,
        "  STORES",
        model.theme.tone(Tone::Strong),
    );
    let current = model.place.current();
    for (line, (number, (name, url))) in
        (0..regions.body.height).zip(model.place.stores.iter().enumerate())
    {
        let mark = match current == Some(number) {
            true => model.glyphs.mark(),
            false => " ",
        };
        let row = format!("{mark} {name:<20} {url}");
        let row = cut(
            &terminal_line(&row),
            usize::from(regions.body.width),
            model.glyphs.more(),
        );
        text(buffer, regions.body, line, &row, plain);
        if number == model.store_cursor {
            let area = Rect::new(regions.body.x, regions.body.y + line, regions.body.width, 1);
            buffer.set_style(area, model.theme.selected());
        }
    }
    let below = u16::try_from(model.place.stores.len())
        .unwrap_or(u16::MAX)
        .saturating_add(1);
    let advice = [
        "  Named stores are in ~/.config/cdh/config.toml:",
        "",
        "    [stores.prod]",
        "    url = \"s3://BUCKET/PREFIX?region=REGION\"",
        "",
        "  Any other: `:store s3://BUCKET/PREFIX` or `:store DIRECTORY`.",
    ];
    for (number, line) in (below..).zip(advice) {
        text(
            buffer,
            regions.body,
            number,
            line,
            model.theme.tone(Tone::Dim),
        );
    }
}
