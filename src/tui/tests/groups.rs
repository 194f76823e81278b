//! The groups: their order, what is new, since which version, who is affected.

use cdh_store::DumpSummary;
use jiff::SignedDuration;

use super::desk::Desk;
use super::{dump, now};
use crate::tui::model::{GROUP_COLUMNS, GroupColumn, Screen};

const NARROW: (u16, u16) = (80, 24);
const WIDE: (u16, u16) = (160, 45);

/// A store with an old bug, one that began two hours ago, and dumps without a fingerprint.
fn history() -> Vec<DumpSummary> {
    let mut dumps: Vec<DumpSummary> = (0..60).map(|n| dump(n * 40)).collect();
    for (number, dump) in dumps.iter_mut().enumerate() {
        dump.fingerprint = Some(format!("0000000{}", number % 3));
        (dump.exe, dump.signal) = ("api".into(), "SIGSEGV".to_owned());
    }
    for (number, dump) in dumps.iter_mut().enumerate().take(6) {
        dump.captured_at = now() - SignedDuration::from_mins(20 * number as i64 + 1);
        dump.exe = "worker".into();
        dump.fingerprint = (number > 0).then(|| "feedbeef".to_owned());
    }
    dumps.sort_by_key(|dump| std::cmp::Reverse(dump.captured_at));
    dumps
}

fn desk(size: (u16, u16)) -> Desk {
    let mut desk = Desk::new(size);
    desk.list(history());
    desk.rest();
    desk
}

fn fingerprints(desk: &Desk) -> Vec<String> {
    let groups = desk.model.groups.list.iter();
    groups
        .map(|group| group.fingerprint.clone().unwrap_or_default())
        .collect()
}

#[test]
fn brackets_sort_the_groups_and_not_the_hidden_dumps() {
    let mut desk = Desk::full(NARROW, 330);
    let dumps = desk.model.dumps.sort();
    desk.press("g down down");
    let chosen = desk.model.groups.selected().unwrap().clone();
    let mut seen = Vec::new();
    for _ in GROUP_COLUMNS {
        seen.push(desk.model.groups.sort().0);
        assert_eq!(
            desk.model.groups.selected().unwrap().crash(),
            chosen.crash()
        );
        desk.press("]");
    }
    assert_eq!(seen, GROUP_COLUMNS);
    assert_eq!(desk.model.groups.sort(), (GroupColumn::Count, false));
    assert_eq!(desk.model.dumps.sort(), dumps);
    desk.press("[ [ [");
    assert_eq!(desk.model.groups.sort().0, GroupColumn::Signal);
    let signals = |desk: &Desk| -> Vec<String> {
        desk.model
            .groups
            .list
            .iter()
            .map(|group| group.signal.clone())
            .collect()
    };
    assert!(signals(&desk).is_sorted());
    assert!(desk.screen().contains("SIGNAL▾"), "{}", desk.screen());
    desk.press("=");
    assert!(signals(&desk).iter().rev().is_sorted());
    assert!(desk.screen().contains("SIGNAL▴") && desk.screen().contains("reversed"));
    desk.type_text(":sort exe");
    desk.press("enter");
    assert!(
        desk.model
            .groups
            .list
            .is_sorted_by_key(|group| group.exe.clone())
    );
    // A press on a title, and again.
    desk.click(15, 1);
    assert_eq!(desk.model.groups.sort(), (GroupColumn::First, false));
    desk.click(15, 1);
    assert_eq!(desk.model.groups.sort(), (GroupColumn::First, true));
}

#[test]
fn groups_sorted_by_top_frame_are_sorted_when_the_frames_are_known() {
    let mut desk = Desk::full(NARROW, 330);
    desk.press("g ] ] ] ] ]");
    assert_eq!(desk.model.groups.sort().0, GroupColumn::Top);
    desk.pass(1000);
    desk.rest();
    let tops = desk.model.groups.list.iter();
    let tops: Vec<_> = tops
        .map(|group| desk.model.tops.of(&group.newest))
        .collect();
    assert!(
        tops.iter().all(Option::is_some) && tops.is_sorted(),
        "{tops:?}"
    );
}

#[test]
fn new_crashes_are_two_keys_away() {
    let mut desk = desk(NARROW);
    desk.press("g n");
    assert_eq!(fingerprints(&desk)[0], "feedbeef");
    assert_eq!(
        fingerprints(&desk).last().unwrap(),
        "",
        "without a fingerprint nothing is new"
    );
    let groups = &desk.model.groups.list;
    assert!(groups[0].is_new && groups.iter().skip(1).all(|group| !group.is_new));
    let screen = desk.screen();
    assert!(
        screen.contains("FIRST▾") && screen.contains("101m NEW"),
        "{screen}"
    );
    // From the list of dumps it is one key.
    desk.press("g n");
    assert_eq!(fingerprints(&desk)[0], "feedbeef");
    desk.press("n");
    assert_eq!(desk.model.groups.sort().0, GroupColumn::Count);
}

#[test]
fn group_is_new_by_the_whole_store_and_not_by_the_filter() {
    let mut desk = desk(NARROW);
    desk.type_text(":filter since:2d");
    desk.press("enter");
    desk.press("g n");
    let old = desk
        .model
        .groups
        .list
        .iter()
        .find(|group| group.exe == "api")
        .unwrap();
    assert!(!old.is_new && now().duration_since(old.first).as_hours() > 48);
    assert!(old.count < 10, "the filter hides the older ones");
}

#[test]
fn nothing_is_new_while_the_store_is_being_listed() {
    let mut desk = Desk::new(NARROW);
    let rows = history()
        .into_iter()
        .map(crate::tui::model::Row::new)
        .collect();
    desk.send(crate::tui::msg::Msg::Page(desk.model.listing, rows));
    desk.press("g n");
    assert!(desk.model.groups.list.iter().all(|group| !group.is_new));
}

#[test]
fn groups_show_images_and_workloads_of_the_selected_one() {
    for (size, name) in [(NARROW, "80x24"), (WIDE, "160x45")] {
        let mut desk = desk(size);
        desk.press("g n");
        desk.rest();
        desk.model.message = None;
        let screen = desk.screen();
        assert!(
            screen.contains("IMAGE") && screen.contains("worker:1.4.2"),
            "{screen}"
        );
        insta::assert_snapshot!(format!("groups_new_{name}"), screen);
        desk.press("v");
        insta::assert_snapshot!(format!("group_{name}"), desk.screen());
    }
}

#[test]
fn versions_of_the_selected_dump_are_one_key_away() {
    let mut desk = desk(NARROW);
    desk.press("end v");
    assert_eq!(*desk.model.screen(), Screen::Group);
    let group = desk.model.groups.selected().unwrap();
    let last = history().pop().unwrap();
    assert_eq!(group.fingerprint, last.fingerprint);
    desk.press("enter");
    assert_eq!(desk.model.dumps.visible_len(), group_count(&desk));
    desk.press("esc esc esc");
    assert_eq!(*desk.model.screen(), Screen::Dumps { restore: None });
}

fn group_count(desk: &Desk) -> usize {
    desk.model.groups.selected().unwrap().count
}

#[test]
fn image_that_is_shown_filters_with_one_key() {
    let mut desk = desk(NARROW);
    desk.press("g n");
    desk.rest();
    desk.press("i");
    let typed = |desk: &Desk| desk.model.prompt.as_ref().unwrap().text.clone();
    let first = typed(&desk);
    assert!(first.starts_with("image:worker"), "{first}");
    assert_eq!(desk.model.dumps.filter().text, first, "it filters at once");
    desk.press("tab");
    let second = typed(&desk);
    assert!(
        second.starts_with("image:worker") && second != first,
        "{second}"
    );
    desk.press("tab tab");
    let all = [first.clone(), second];
    assert!(all.contains(&typed(&desk)) || typed(&desk).starts_with("image:worker"));
    desk.press("enter");
    desk.rest();
    assert!(
        desk.model
            .dumps
            .visible()
            .all(|dump| dump.exe.to_string() == "worker")
    );
    assert!(desk.model.dumps.visible_len() > 0);
    // Of a dump, where its manifest was read; the image replaces the one before.
    desk.press("g");
    desk.rest();
    desk.press("i");
    assert_eq!(typed(&desk).matches("image:").count(), 1);
    desk.press("esc esc");
    assert!(desk.model.dumps.filter().is_empty());
}
