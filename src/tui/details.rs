//! What is known of one group: since which version it crashes, and who is affected. The pane below the groups
//! and the group's own page show the same.

use jiff::Timestamp;
use ratatui::text::Line;

use super::model::{Model, top};
use super::styled::lines;
use super::theme::Theme;
use crate::render::{FirstFrom, Group, GroupsView, Style, age, group_text, short_image};

/// One image or one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetailRow {
    /// Its name, which can be used as a filter.
    pub name: String,
    /// The first and the last dump from it.
    pub times: (Timestamp, Timestamp),
    /// How many dumps are from it.
    pub count: usize,
}

/// The images of a group, the one that crashed first comes first.
#[must_use]
pub fn images(group: &Group) -> Vec<DetailRow> {
    let rows = group.images.iter().map(|image| DetailRow {
        name: short_image(&image.reference, image.release.as_deref()),
        times: (image.first, image.last),
        count: image.count,
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

/// The workloads of a group, the one that crashed first comes first.
#[must_use]
pub fn workloads(group: &Group) -> Vec<DetailRow> {
    let rows = group.affected.iter().map(|workload| DetailRow {
        name: workload.shown(),
        times: (workload.first, workload.last),
        count: workload.count,
    });
    rows.collect()
}

/// When a group was first seen: `3h`, `>3h` where it may be longer ago, `-` where the dumps have no
/// fingerprint, for then other bugs of the program may be among them.
#[must_use]
pub fn first(group: &Group, now: Timestamp) -> String {
    let age = age(group.first, now);
    match (&group.fingerprint, group.first_from) {
        (None, _) => "-".to_owned(),
        (Some(_), FirstFrom::Store) => age,
        (Some(_), FirstFrom::LookBack | FirstFrom::Selection) => format!(">{age}"),
    }
}

/// One line about a group.
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

/// All that is known of a group, as `cdh groups FINGERPRINT` prints it.
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
