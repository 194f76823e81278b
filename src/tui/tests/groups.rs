//! The groups: sort order, new crashes, versions, affected workloads.

use cdh_store::DumpSummary;
use jiff::SignedDuration;

use super::test_tui::TestTui;
use super::{dump, now};
use crate::tui::model::{GROUP_COLUMNS, GroupColumn, Screen};

const NARROW: (u16, u16) = (80, 24);
const WIDE: (u16, u16) = (160, 45);

/// A store with an old bug, one that appeared two hours ago, and dumps without a fingerprint.
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

fn tui(size: (u16, u16)) -> TestTui {
    let mut tui = TestTui::new(size);
    tui.list(history());
    tui.rest();
    tui
}

fn fingerprints(tui: &TestTui) -> Vec<String> {
    let groups = tui.model.groups.list.iter();
    groups
        .map(|group| group.fingerprint.clone().unwrap_or_default())
        .collect()
}

#[test]
fn groups_sort_keys_do_not_sort_the_hidden_dumps() {
    let mut tui = TestTui::full(NARROW, 330);
    let dumps = tui.model.dumps.sort();
    tui.press("g down down");
    let chosen = tui.model.groups.selected().unwrap().clone();
    let mut seen = Vec::new();
    for _ in GROUP_COLUMNS {
        seen.push(tui.model.groups.sort().0);
        assert_eq!(tui.model.groups.selected().unwrap().crash(), chosen.crash());
        tui.press("]");
    }
    assert_eq!(seen, GROUP_COLUMNS);
    assert_eq!(tui.model.groups.sort(), (GroupColumn::Count, false));
    assert_eq!(tui.model.dumps.sort(), dumps);
    tui.press("[ [ [");
    assert_eq!(tui.model.groups.sort().0, GroupColumn::Signal);
    let signals = |tui: &TestTui| -> Vec<String> {
        tui.model
            .groups
            .list
            .iter()
            .map(|group| group.signal.clone())
            .collect()
    };
    assert!(signals(&tui).is_sorted());
    assert!(tui.screen().contains("SIGNAL▾"), "{}", tui.screen());
    tui.press("=");
    assert!(signals(&tui).iter().rev().is_sorted());
    assert!(tui.screen().contains("SIGNAL▴") && tui.screen().contains("reversed"));
    tui.type_text(":sort exe");
    tui.press("enter");
    assert!(
        tui.model
            .groups
            .list
            .is_sorted_by_key(|group| group.exe.clone())
    );
    // Click a title twice.
    tui.click(15, 1);
    assert_eq!(tui.model.groups.sort(), (GroupColumn::First, false));
    tui.click(15, 1);
    assert_eq!(tui.model.groups.sort(), (GroupColumn::First, true));
}

#[test]
fn groups_sort_by_top_frame_when_the_frames_are_known() {
    let mut tui = TestTui::full(NARROW, 330);
    tui.press("g ] ] ] ] ]");
    assert_eq!(tui.model.groups.sort().0, GroupColumn::Top);
    tui.pass(1000);
    tui.rest();
    let tops = tui.model.groups.list.iter();
    let tops: Vec<_> = tops.map(|group| tui.model.tops.of(&group.newest)).collect();
    assert!(
        tops.iter().all(Option::is_some) && tops.is_sorted(),
        "{tops:?}"
    );
}

#[test]
fn groups_show_new_crashes_first_with_two_keys() {
    let mut tui = tui(NARROW);
    tui.press("g n");
    assert_eq!(fingerprints(&tui)[0], "feedbeef");
    assert_eq!(
        fingerprints(&tui).last().unwrap(),
        "",
        "without a fingerprint nothing is new"
    );
    let groups = &tui.model.groups.list;
    assert!(groups[0].is_new && groups.iter().skip(1).all(|group| !group.is_new));
    let screen = tui.screen();
    assert!(
        screen.contains("FIRST▾") && screen.contains("101m NEW"),
        "{screen}"
    );
    // From the list of dumps, one key is enough.
    tui.press("g n");
    assert_eq!(fingerprints(&tui)[0], "feedbeef");
    tui.press("n");
    assert_eq!(tui.model.groups.sort().0, GroupColumn::Count);
}

#[test]
fn groups_decide_new_by_the_complete_store() {
    let mut tui = tui(NARROW);
    tui.type_text(":filter since:2d");
    tui.press("enter");
    tui.press("g n");
    let old = tui
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
fn groups_show_nothing_as_new_during_the_listing() {
    let mut tui = TestTui::new(NARROW);
    let rows = history()
        .into_iter()
        .map(crate::tui::model::Row::new)
        .collect();
    tui.send(crate::tui::msg::Msg::Page(tui.model.listing, rows));
    tui.press("g n");
    assert!(tui.model.groups.list.iter().all(|group| !group.is_new));
}

#[test]
fn groups_show_images_and_workloads_of_the_selected_one() {
    for (size, name) in [(NARROW, "80x24"), (WIDE, "160x45")] {
        let mut tui = tui(size);
        tui.press("g n");
        tui.rest();
        tui.model.message = None;
        let screen = tui.screen();
        assert!(
            screen.contains("IMAGE") && screen.contains("worker:1.4.2"),
            "{screen}"
        );
        insta::assert_snapshot!(format!("groups_new_{name}"), screen);
        tui.press("v");
        insta::assert_snapshot!(format!("group_{name}"), tui.screen());
    }
}

#[test]
fn group_page_opens_from_the_selected_dump() {
    let mut tui = tui(NARROW);
    tui.press("end v");
    assert_eq!(*tui.model.screen(), Screen::Group);
    let group = tui.model.groups.selected().unwrap();
    let last = history().pop().unwrap();
    assert_eq!(group.fingerprint, last.fingerprint);
    tui.press("enter");
    assert_eq!(tui.model.dumps.visible_len(), group_count(&tui));
    tui.press("esc esc esc");
    assert_eq!(*tui.model.screen(), Screen::Dumps { restore: None });
}

fn group_count(tui: &TestTui) -> usize {
    tui.model.groups.selected().unwrap().count
}

#[test]
fn group_image_becomes_a_filter_with_one_key() {
    let mut tui = tui(NARROW);
    tui.press("g n");
    tui.rest();
    tui.press("i");
    let typed = |tui: &TestTui| tui.model.prompt.as_ref().unwrap().text.clone();
    let first = typed(&tui);
    assert!(first.starts_with("image:worker"), "{first}");
    assert_eq!(tui.model.dumps.filter().text, first, "it filters at once");
    tui.press("tab");
    let second = typed(&tui);
    assert!(
        second.starts_with("image:worker") && second != first,
        "{second}"
    );
    tui.press("tab tab");
    let all = [first.clone(), second];
    assert!(all.contains(&typed(&tui)) || typed(&tui).starts_with("image:worker"));
    tui.press("enter");
    tui.rest();
    assert!(
        tui.model
            .dumps
            .visible()
            .all(|dump| dump.exe.to_string() == "worker")
    );
    assert!(tui.model.dumps.visible_len() > 0);
    // For a dump whose manifest was read: its image replaces the previous one.
    tui.press("g");
    tui.rest();
    tui.press("i");
    assert_eq!(typed(&tui).matches("image:").count(), 1);
    tui.press("esc esc");
    assert!(tui.model.dumps.filter().is_empty());
}
