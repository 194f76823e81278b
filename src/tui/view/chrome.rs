//! The frame of every view: location, problems, messages and prompts, keys.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use unicode_width::UnicodeWidthStr;

use super::text;
use crate::render::{Tone, age, terminal_line};
use crate::report::ExitStatus;
use crate::tui::keymap::{Action, Context};
use crate::tui::model::{Listing, Model, Prompt, PromptKind, Screen};
use crate::tui::styled::{cut, fit};

/// First line: program, store, number of dumps, activity.
pub(super) fn header(model: &Model, buffer: &mut Buffer, area: Rect) {
    let dot = format!(" {} ", model.glyphs.dot());
    let (shown, total) = (model.dumps.visible_len(), model.dumps.total());
    let count = match model.dumps.filter().is_empty() {
        false if model.dumps.is_arranging() => {
            format!("{} of {} dumps", model.glyphs.more(), number(total))
        }
        true => format!("{} {}", number(total), plural(total, "dump")),
        false => format!(
            "{} of {} {}",
            number(shown),
            number(total),
            plural(total, "dump")
        ),
    };
    let mut right = vec![count];
    if !model.dumps.marks.is_empty() {
        right.push(format!("{} marked", model.dumps.marks.len()));
    }
    if !model.dumps.fresh.is_empty() {
        right.push(format!("{} new", number(model.dumps.fresh.len())));
    }
    if let Some(failing) = model.refresh.failing {
        let what = match failing.is_unreachable {
            true => "unreachable",
            false => "not refreshed",
        };
        right.push(format!("{what} for {}", age(failing.since, model.now)));
    }
    let is_grouped = matches!(model.screen(), Screen::Groups | Screen::Group);
    if !model.facts_wanted.is_empty() && (is_grouped || model.dumps.filter().needs_facts()) {
        right.push("reading manifests".to_owned());
    }
    right.extend(model.dumps.takes_long(model.clock).map(str::to_owned));
    if model.groups.is_asked() && *model.screen() == Screen::Groups {
        right.push("grouping".to_owned());
    }
    if model.dumps.listing == Listing::Running {
        right.push("listing".to_owned());
    }
    match model.transfers.active() {
        0 => {}
        active => right.push(format!("{active} {}", plural(active, "transfer"))),
    }
    let spinner = if model.is_busy() {
        model.glyphs.spinner(model.clock / 100)
    } else {
        " "
    };
    let right = format!("  {} {spinner} ", right.join(&dot));
    let filter = terminal_line(model.dumps.filter().text.trim());
    let mut left = format!(" cdh{dot}{}", terminal_line(&model.place.store));
    if !filter.is_empty() {
        left.push_str(&format!("{dot}/{filter}"));
    }
    let width = usize::from(area.width);
    let room = width.saturating_sub(right.width());
    let line = fit(&left, room, model.glyphs.more()) + &right;
    text(
        buffer,
        area,
        0,
        &fit(&line, width, ""),
        model.theme.header(),
    );
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 {
        word.to_owned()
    } else {
        format!("{word}s")
    }
}

/// `100,000`.
pub(super) fn number(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A lost connection.
pub(super) fn banner(model: &Model, buffer: &mut Buffer, area: Rect) {
    let Some(error) = model.lost.as_ref().filter(|_| area.height > 0) else {
        return;
    };
    let key = model.keymap.key_for(Context::Everywhere, Action::Refresh);
    let what = error.lines.last().map(String::as_str).unwrap_or_default();
    let width = usize::from(area.width);
    let end = format!(" {} `{key}` tries again ", model.glyphs.dot());
    let problem = match error.status {
        ExitStatus::Unreachable => "the store cannot be reached",
        _ => "the store cannot be listed",
    };
    let start = cut(
        &format!(" {problem}: {what}"),
        width.saturating_sub(end.width()),
        model.glyphs.more(),
    );
    let line = fit(&(start + &end), width, "");
    text(buffer, area, 0, &line, model.theme.banner());
}

/// A message or the prompt. Returns the cursor's position in a prompt.
pub(super) fn status(model: &Model, buffer: &mut Buffer, area: Rect) -> Option<Position> {
    if let Some(prompt) = &model.prompt {
        return Some(typed(model, prompt, buffer, area));
    }
    let (line, tone) = match &model.message {
        Some(message) if message.bad => (message.text.clone(), Tone::Bad),
        Some(message) => (message.text.clone(), Tone::Strong),
        None => match model.dumps.filter().problem.as_deref() {
            Some(problem) => (format!("filter: {problem}"), Tone::Bad),
            None => (place(model), Tone::Dim),
        },
    };
    let line = cut(
        &format!(" {line}"),
        usize::from(area.width),
        model.glyphs.more(),
    );
    text(buffer, area, 0, &line, model.theme.tone(tone));
    None
}

/// The position of the selection, if there is no message.
fn place(model: &Model) -> String {
    let of = |cursor: usize, count: usize| match count {
        0 => String::new(),
        count => format!("{} of {}", number(cursor + 1), number(count)),
    };
    match model.screen() {
        Screen::Dumps { .. } => {
            let id = model.dumps.selected().map(|dump| dump.id.short());
            let place = of(model.dumps.cursor, model.dumps.visible_len());
            format!("{place}  {}", id.unwrap_or_default())
        }
        Screen::Groups => of(model.groups.cursor, model.groups.list.len()),
        Screen::Group => {
            let page = &model.group_page;
            format!("line {}", of(page.cursor, page.lines.len()))
        }
        Screen::Transfers => of(model.transfers.cursor, model.transfers.list.len()),
        Screen::Stores => of(model.store_cursor, model.place.stores.len()),
        Screen::Dump => model.dump.as_ref().map_or_else(String::new, |view| {
            format!("line {}", of(view.page.cursor, view.page.lines.len()))
        }),
        Screen::Diff => model.diff.as_ref().map_or_else(String::new, |view| {
            format!("line {}", of(view.page.cursor, view.page.lines.len()))
        }),
    }
}

fn typed(model: &Model, prompt: &Prompt, buffer: &mut Buffer, area: Rect) -> Position {
    let sign = match prompt.kind {
        PromptKind::Filter | PromptKind::Find => "/",
        PromptKind::Command => ":",
    };
    let width = usize::from(area.width);
    let before = terminal_line(prompt.text.get(..prompt.at).unwrap_or_default());
    let after = terminal_line(prompt.text.get(prompt.at..).unwrap_or_default());
    // Show the end of the text, where the user types.
    let room = width.saturating_sub(2);
    let mut head = format!("{sign}{before}");
    while head.width() > room {
        head.remove(0);
    }
    let at = head.width();
    text(
        buffer,
        area,
        0,
        &cut(&(head + &after), width, ""),
        model.theme.tone(Tone::Strong),
    );
    let hint = hint(model, prompt);
    let used = at + after.width() + 3;
    if used + 10 < width && !hint.is_empty() {
        let hint = cut(&hint, width - used, model.glyphs.more());
        let x = area.x + u16::try_from(used).unwrap_or(0);
        buffer.set_stringn(x, area.y, &hint, width - used, model.theme.tone(Tone::Dim));
    }
    Position::new(area.x + u16::try_from(at).unwrap_or(0), area.y)
}

/// Help text for the prompt.
fn hint(model: &Model, prompt: &Prompt) -> String {
    match prompt.kind {
        PromptKind::Filter if prompt.text.is_empty() => {
            "namespace: pod: exe: signal: since: truncated: … or any word".to_owned()
        }
        PromptKind::Filter => match model.dumps.filter().problem.as_deref() {
            Some(problem) => problem.to_owned(),
            None if model.dumps.is_arranging() => String::new(),
            None => format!("{} match", number(model.dumps.visible_len())),
        },
        PromptKind::Command => {
            let (name, rest) = prompt
                .text
                .split_once(' ')
                .unwrap_or((prompt.text.as_str(), ""));
            let known = crate::tui::commands::COMMANDS;
            let exact = known.iter().find(|known| known.name == name);
            match exact {
                Some(known) if rest.is_empty() => format!("{} {}", known.arguments, known.help)
                    .trim()
                    .to_owned(),
                Some(_) => String::new(),
                None => {
                    let names = known.iter().filter(|known| known.name.starts_with(name));
                    names.map(|known| known.name).collect::<Vec<_>>().join(" ")
                }
            }
        }
        PromptKind::Find => String::new(),
    }
}

/// The keys of the current context, as many as fit. Keys to leave and for help are always included.
pub(super) fn footer(model: &Model, buffer: &mut Buffer, area: Rect) {
    let room = |pair: &(String, String)| pair.0.width() + pair.1.width() + 3;
    let always: Vec<(String, String)> = match model.context() {
        Context::Prompt | Context::Question => Vec::new(),
        _ => model.keymap.footer(Context::Everywhere),
    };
    let reserved: usize = always.iter().map(room).sum();
    let mut left = usize::from(area.width).saturating_sub(reserved);
    let mut shown = Vec::new();
    for pair in model.keymap.footer(model.context()) {
        if always.contains(&pair) {
            continue;
        }
        if room(&pair) > left {
            break;
        }
        left -= room(&pair);
        shown.push(pair);
    }
    let mut x = area.x + 1;
    for (key, word) in shown.into_iter().chain(always) {
        let room = |x: u16| usize::from(area.right().saturating_sub(x));
        (x, _) = buffer.set_stringn(x, area.y, &key, room(x), model.theme.key());
        let dim = model.theme.tone(Tone::Dim);
        (x, _) = buffer.set_stringn(x + 1, area.y, &word, room(x + 1), dim);
        x += 2;
    }
}
