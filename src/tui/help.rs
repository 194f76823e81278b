//! The help page, made from the key map and the table of commands.

use ratatui::text::{Line, Span};

use super::commands::COMMANDS;
use super::keymap::{CONTEXTS, Context};
use super::model::{Model, Page};
use crate::query::TERMS;
use crate::render::Tone;

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
            lines.push(Line::from(vec![
                Span::styled(format!("  {:<18}", keys.join(" ")), model.theme.key()),
                Span::raw(binding.help.clone()),
            ]));
        }
    }
    heading(&mut lines, "Commands");
    for command in COMMANDS {
        let typed = format!(":{} {}", command.name, command.arguments);
        lines.push(Line::from(vec![
            Span::styled(format!("  {typed:<18}"), model.theme.key()),
            Span::raw(command.help),
        ]));
    }
    heading(&mut lines, "Terms of a filter");
    for (name, help) in TERMS {
        lines.push(Line::from(vec![
            Span::styled(format!("  {:<18}", format!("{name}:")), model.theme.key()),
            Span::raw(format!("dumps {help}")),
        ]));
    }
    Page::new(lines)
}
