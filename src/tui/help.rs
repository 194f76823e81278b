//! The help page, made from the key map and the table of commands.

use ratatui::text::{Line, Span};

use super::commands::COMMANDS;
use super::keymap::{CONTEXTS, Context};
use super::model::{Model, Page};
use super::styled::wrapped;
use crate::query::TERMS;
use crate::render::Tone;

/// Columns that the page takes where there are more.
pub const WIDEST: u16 = 84;

/// The page: the keys of where we are first, then all others.
#[must_use]
pub fn page(model: &Model) -> Page {
    let here = model.context();
    let order = std::iter::once(here)
        .chain([Context::Lists, Context::Everywhere])
        .chain(CONTEXTS)
        .fold(Vec::new(), |mut order, context| {
            if !order.contains(&context) {
                order.push(context);
            }
            order
        });
    let strong = model.theme.tone(Tone::Strong);
    let mut lines = Vec::new();
    let heading = |lines: &mut Vec<Line<'static>>, text: &str| {
        if !lines.is_empty() {
            lines.push(Line::default());
        }
        lines.push(Line::from(Span::styled(text.to_owned(), strong)));
    };
    for context in order {
        heading(&mut lines, context.title());
        for binding in model.keymap.bindings(context) {
            let keys: Vec<String> = binding.keys.iter().map(|key| key.name()).collect();
            lines.extend(entry(model, &keys.join(" "), &binding.help));
        }
    }
    heading(&mut lines, "Commands");
    for command in COMMANDS {
        let typed = format!(":{} {}", command.name, command.arguments);
        lines.extend(entry(model, &typed, command.help));
    }
    heading(&mut lines, "Terms of a filter");
    for (name, help) in TERMS {
        lines.extend(entry(model, &format!("{name}:"), &format!("dumps {help}")));
    }
    Page::new(lines)
}

/// Columns of the keys.
const KEYS: usize = 22;

/// Keys, and beside them what they do, on as many lines as that takes.
fn entry(model: &Model, keys: &str, help: &str) -> Vec<Line<'static>> {
    // A frame, blanks within it, and two before the keys and after them.
    let room = usize::from(model.size.0.min(WIDEST)).saturating_sub(6 + KEYS + 4);
    let mut keys = Some(keys);
    let line = |help: String| {
        let keys = format!("  {:<KEYS$}  ", keys.take().unwrap_or_default());
        Line::from(vec![Span::styled(keys, model.theme.key()), Span::raw(help)])
    };
    wrapped(help, room.max(1)).into_iter().map(line).collect()
}
