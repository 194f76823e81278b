//! Details of one group: since which version it crashes, and which workloads it affects. The pane
//! below the groups and the group's own page show the same.

use jiff::Timestamp;
use ratatui::text::Line;

use super::model::{Model, top};
use super::styled::lines;
use super::theme::Theme;
use crate::render::{FirstFrom, Group, GroupsView, Style, age, group_text, short_image};

/// One image or one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetailRow {
    /// Its name, usable as a filter.
    pub name: String,
    /// Times of its first and its last dump.
    pub times: (Timestamp, Timestamp),
    /// Number of its dumps.
    pub count: usize,
}

/// The images of a group, sorted by their first crash.
#[must_use]
pub fn images(group: &Group) -> Vec<DetailRow> {
    let rows = group.images.iter().map(|image| DetailRow {
        name: short_image(&image.reference, image.release.as_deref()),
        times: (image.first, image.last),
        count: image.count,
    });
    rows.collect()
}

/// The title of the images. If not all dumps have one, it shows for how many the image is known.
#[must_use]
pub fn images_title(group: &Group) -> String {
    let known: usize = group.images.iter().map(|image| image.count).sum();
    match known {
        0 => "IMAGE".to_owned(),
        _ if known == group.count => "IMAGE".to_owned(),
        _ => format!("IMAGE (of {known} of {} dumps)", group.count),
    }
}

/// The workloads of a group, sorted by their first crash.
#[must_use]
pub fn workloads(group: &Group) -> Vec<DetailRow> {
    let rows = group.affected.iter().map(|workload| DetailRow {
        name: workload.shown(),
        times: (workload.first, workload.last),
        count: workload.count,
    });
    rows.collect()
}

/// When a group was first seen: `3h`, or `>3h` if it may be longer ago. `-` if the dumps have no
/// fingerprint: the group may then contain other bugs of the program.
#[must_use]
pub fn first(group: &Group, now: Timestamp) -> String {
    let age = age(group.first, now);
    match (&group.fingerprint, group.first_from) {
        (None, _) => "-".to_owned(),
        (Some(_), FirstFrom::Store) => age,
        (Some(_), FirstFrom::LookBack | FirstFrom::Selection) => format!(">{age}"),
    }
}

/// A one-line summary of a group.
#[must_use]
pub fn summary(group: &Group, model: &Model) -> String {
    let dot = model.glyphs.dot();
    let dumps = if group.count == 1 { "dump" } else { "dumps" };
    let mark = if group.is_new { "NEW, " } else { "" };
    let first = match &group.fingerprint {
        Some(_) => format!("{mark}first seen {} ago", first(group, model.now)),
        None => "no fingerprint".to_owned(),
    };
    let last = age(group.last, model.now);
    format!(
        "{} {dumps} {dot} {first} {dot} last {last} ago",
        group.count
    )
}

/// The details of a group, as `cdh groups FINGERPRINT` prints them.
#[must_use]
pub fn page(group: &Group, model: &Model, theme: Theme) -> Vec<Line<'static>> {
    let group = Group {
        top: top(group, &model.tops).map(str::to_owned),
        ..group.clone()
    };
    let view = GroupsView {
        now: model.now,
        style: Style::Colored,
        width: None,
    };
    let mut text = group_text(&group, &view);
    let known: usize = group.images.iter().map(|image| image.count).sum();
    if known < group.count {
        let count = group.count;
        text.push_str(&format!(
            "\nThe image is known of {known} of {count} dumps.\n"
        ));
    }
    lines(&text, theme)
}
