//! Empty views: explain why they are empty and show commands that help.

use ratatui::buffer::Buffer;
use ratatui::text::{Line, Span};

use super::{chrome::number, paragraph};
use crate::render::{Tone, terminal_line};
use crate::tui::keymap::{Action, Context};
use crate::tui::layout::Regions;
use crate::tui::model::{Listing, Model};
use crate::tui::pages;

/// No dumps: still listing, none in the store, none that match, or the listing failed.
pub(super) fn dumps(model: &Model, buffer: &mut Buffer, regions: &Regions) {
    let mut area = regions.body;
    area.height += regions.preview.height;
    area.x += 2;
    area.width = area.width.saturating_sub(4);
    let lines = match &model.dumps.listing {
        Listing::Failed(error) if model.dumps.total() == 0 => {
            let mut lines = pages::problem(error, model.theme);
            lines.push(Line::default());
            lines.push(keys(
                model,
                &[
                    (Context::Everywhere, Action::Refresh, "tries again"),
                    (Context::Everywhere, Action::Stores, "chooses another store"),
                ],
            ));
            lines
        }
        _ if model.dumps.is_arranging() || model.groups.is_asked() => {
            let what = match model.dumps.is_arranging() {
                true => "looking through",
                false => "grouping",
            };
            let more = model.glyphs.more();
            let count = number(model.dumps.total());
            vec![Line::from(format!("{what} {count} dumps {more}"))]
        }
        _ if model.dumps.total() > 0 => unmatched(model),
        Listing::Done => nothing(model),
        _ => vec![Line::from(format!(
            "listing {} …",
            terminal_line(&model.place.store)
        ))],
    };
    area.y += u16::from(area.height > 4);
    area.height = area.height.saturating_sub(1);
    paragraph(buffer, area, &lines);
}

fn keys(model: &Model, all: &[(Context, Action, &str)]) -> Line<'static> {
    let mut spans = Vec::new();
    for (number, (context, action, does)) in all.iter().enumerate() {
        if number > 0 {
            spans.push(Span::raw(", "));
        }
        let key = model.keymap.key_for(*context, *action);
        spans.push(Span::styled(key, model.theme.key()));
        spans.push(Span::raw(format!(" {does}")));
    }
    Line::from(spans)
}

fn unmatched(model: &Model) -> Vec<Line<'static>> {
    let filter = terminal_line(model.dumps.filter().text.trim());
    let reading = !model.facts_wanted.is_empty() && model.dumps.filter().needs_facts();
    let first = match reading {
        true => format!("No dump matches `{filter}` yet; manifests are still being read."),
        false => format!("No dump matches `{filter}`."),
    };
    vec![
        Line::from(Span::styled(first, model.theme.tone(Tone::Strong))),
        Line::default(),
        keys(
            model,
            &[
                (Context::Everywhere, Action::Back, "shows all again"),
                (Context::Dumps, Action::Filter, "changes the filter"),
            ],
        ),
    ]
}

fn nothing(model: &Model) -> Vec<Line<'static>> {
    let strong = model.theme.tone(Tone::Strong);
    let mut lines = vec![
        Line::from(Span::styled(
            format!("No dumps in {}.", terminal_line(&model.place.store)),
            strong,
        )),
        Line::default(),
    ];
    if model.place.is_default {
        lines.push(Line::from(
            "No store was named, so this is the one on this machine. Name another one:",
        ));
        lines.push(Line::default());
        lines.push(command(model, "cdh --store s3://BUCKET/PREFIX", "a bucket"));
        lines.push(command(model, "cdh --store DIRECTORY", "a directory"));
        lines.push(Line::default());
        lines.push(Line::from("Or add dumps to this one:"));
    } else {
        lines.push(Line::from(
            "The store exists and is readable. To add dumps:",
        ));
    }
    lines.push(Line::default());
    lines.push(command(
        model,
        "cdh agent install",
        "captures crashes on this machine, as root",
    ));
    lines.push(command(model, "cdh agent run", "ships what was captured"));
    lines.push(command(
        model,
        "cdh import CORE",
        "imports an existing core",
    ));
    lines.push(Line::default());
    lines.push(keys(
        model,
        &[
            (Context::Everywhere, Action::Refresh, "looks again"),
            (Context::Everywhere, Action::Stores, "chooses another store"),
        ],
    ));
    lines
}

fn command(model: &Model, line: &str, does: &str) -> Line<'static> {
    Line::from(vec![
        Span::styled(format!("  {line:<32}"), model.theme.key()),
        Span::raw(does.to_owned()),
    ])
}
