//! What is known of one group: since which version it crashes, and who is affected. The pane below the groups
//! and the group's own page show the same.

use jiff::Timestamp;
use ratatui::text::Line;

use super::model::{Model, top};
use super::styled::{fit, lines};
use super::theme::Theme;
use crate::render::{Group, Style, Tone, age, short_image, terminal_line};

/// One image or one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetailRow {
    /// Its name, which can be used as a filter.
    pub name: String,
    /// Its full name, where that is longer.
    pub full: Option<String>,
    /// The first and the last dump from it.
    pub times: Option<(Timestamp, Timestamp)>,
    /// How many dumps are from it.
    pub count: Option<usize>,
}

/// The images of a group, the one that crashed first comes first.
#[must_use]
pub fn images(group: &Group) -> Vec<DetailRow> {
    let rows = group.images.iter().map(|image| DetailRow {
        name: short_image(&image.reference, image.release.as_deref()),
        full: Some(image.reference.clone()),
        times: Some((image.first, image.last)),
        count: Some(image.count),
    });
    rows.collect()
}

/// The title of the images, with how many dumps they are known of where that is not all.
#[must_use]
pub fn images_title(group: &Group) -> String {
    let known: usize = group.images.iter().map(|image| image.count).sum();
    match known {
        0 => "IMAGE".to_owned(),
        _ if known == group.count => "IMAGE".to_owned(),
        _ => format!("IMAGE (of {known} of {} dumps)", group.count),
    }
}

/// The workloads of a group.
#[must_use]
pub fn workloads(group: &Group) -> Vec<DetailRow> {
    let rows = group.workloads.iter().map(|name| DetailRow {
        name: name.clone(),
        full: None,
        times: None,
        count: None,
    });
    rows.collect()
}

/// When a group was first seen. Without a fingerprint that is not known: other crashes of the program may be
/// in the same group.
#[must_use]
pub fn first(group: &Group, now: Timestamp) -> String {
    match &group.fingerprint {
        Some(_) => age(group.first, now),
        None => "-".to_owned(),
    }
}

/// One line about a group.
#[must_use]
pub fn summary(group: &Group, model: &Model) -> String {
    let dot = model.glyphs.dot();
    let dumps = if group.count == 1 { "dump" } else { "dumps" };
    let mark = if group.is_new { "NEW, " } else { "" };
    let first = match &group.fingerprint {
        Some(_) => format!("{mark}first seen {} ago", age(group.first, model.now)),
        None => "no fingerprint".to_owned(),
    };
    let last = age(group.last, model.now);
    format!(
        "{} {dumps} {dot} {first} {dot} last {last} ago",
        group.count
    )
}

/// All that is known of a group, as a page.
#[must_use]
pub fn page(group: &Group, model: &Model, theme: Theme) -> Vec<Line<'static>> {
    const STYLE: Style = Style::Colored;
    let strong = |text: String| STYLE.paint(Tone::Strong, text);
    let mut text = String::new();
    let title = format!("{} in {}", group.signal, group.exe);
    text.push_str(&format!("{}\n\n", strong(terminal_line(&title))));
    let mut field = |name: &str, value: &str| {
        let name = STYLE.paint(Tone::Strong, format!("{name:<12}"));
        text.push_str(&format!("{name} {}\n", terminal_line(value)));
    };
    if let Some(top) = top(group, &model.tops) {
        field("top frame", top);
    }
    field("fingerprint", group.fingerprint.as_deref().unwrap_or("-"));
    let incomplete = match group.incomplete {
        0 => String::new(),
        count => format!(", {count} not complete"),
    };
    field("dumps", &format!("{}{incomplete}", group.count));
    let time = |time: Timestamp| format!("{} ({} ago)", time, age(time, model.now));
    let new = if group.is_new { "  NEW" } else { "" };
    match &group.fingerprint {
        Some(_) => field("first seen", &format!("{}{new}", time(group.first))),
        None => field("first seen", "unknown: the dumps have no fingerprint"),
    }
    field("last seen", &time(group.last));
    let mut table = |title: &str, rows: &[DetailRow], none: &str| {
        let width = rows
            .iter()
            .map(|row| terminal_line(&row.name).chars().count());
        let width = width.max().unwrap_or(0).clamp(title.len(), 48);
        let head = match rows.first().and_then(|row| row.count) {
            Some(_) => format!(
                "{title:<width$}  {:<6} {:<6} {:>6}",
                "FIRST", "LAST", "COUNT"
            ),
            None => title.to_owned(),
        };
        text.push_str(&format!("\n{}\n", strong(head)));
        if rows.is_empty() {
            text.push_str(&format!("{none}\n"));
        }
        for row in rows {
            let name = terminal_line(&row.name);
            match (row.times, row.count) {
                (Some((first, last)), Some(count)) => {
                    let (first, last) = (age(first, model.now), age(last, model.now));
                    let name = fit(&name, width, "…");
                    text.push_str(&format!("{name}  {first:<6} {last:<6} {count:>6}"));
                }
                _ => text.push_str(&name),
            }
            if let Some(full) = &row.full {
                let full = STYLE.paint(Tone::Dim, terminal_line(full));
                text.push_str(&format!("  {full}"));
            }
            text.push('\n');
        }
    };
    table(&images_title(group), &images(group), "no image is known");
    table("WORKLOAD", &workloads(group), "no workload is known");
    lines(&text, theme)
}
