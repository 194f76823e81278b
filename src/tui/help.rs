//! The help page, generated from the key map and the table of commands.

use ratatui::text::{Line, Span};

use super::commands::COMMANDS;
use super::keymap::{CONTEXTS, Context};
use super::model::{Model, Page};
use super::styled::wrapped;
use crate::query::TERMS;
use crate::render::Tone;

/// Maximum width of the page in columns.
pub const WIDEST: u16 = 84;

/// The page: first the keys of the current context, then all others.
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

/// Width of the column with the keys.
const KEYS: usize = 22;

/// Keys with their help text beside them, on as many lines as necessary.
fn entry(model: &Model, keys: &str, help: &str) -> Vec<Line<'static>> {
    // The frame, a blank inside it, and two blanks before and after the keys.
    let room = usize::from(model.size.0.min(WIDEST)).saturating_sub(6 + KEYS + 4);
    let mut keys = Some(keys);
    let line = |help: String| {
        let keys = format!("  {:<KEYS$}  ", keys.take().unwrap_or_default());
        Line::from(vec![Span::styled(keys, model.theme.key()), Span::raw(help)])
    };
    wrapped(help, room.max(1)).into_iter().map(line).collect()
}
