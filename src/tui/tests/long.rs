//! Long lists: work on other threads, and the behaviour of keys meanwhile.

use cdh_store::DumpSummary;

use super::dump;
use super::test_tui::TestTui;
use crate::tui::model::{AT_ONCE, Column, RequestId, Screen, arrange};
use crate::tui::msg::{Effect, Msg};

const SIZE: (u16, u16) = (80, 24);
const MANY: usize = AT_ONCE + 2000;

/// A TUI with a long list whose effects are no longer answered.
fn tui() -> TestTui {
    let mut tui = TestTui::full(SIZE, MANY);
    tui.answers = false;
    tui.asked.clear();
    tui
}

/// Answers requests to arrange or group, oldest first.
fn answer(tui: &mut TestTui) -> usize {
    let asked = std::mem::take(&mut tui.asked);
    let mut count = 0;
    for effect in asked {
        match effect {
            Effect::Arrange(request, job) => {
                let arranged = Box::new(arrange(&job));
                tui.send(Msg::Arranged(request, Ok(arranged)));
            }
            Effect::Group(request, grouping) => {
                let (filter, groups) = (grouping.filter.clone(), grouping.groups());
                tui.send(Msg::Grouped(request, filter, Ok(groups)));
            }
            _ => continue,
        }
        count += 1;
    }
    count
}

fn shown(tui: &TestTui) -> Vec<DumpSummary> {
    tui.model.dumps.visible().cloned().collect()
}

#[test]
fn long_list_is_sorted_in_the_background() {
    let mut tui = tui();
    let before = shown(&tui);
    tui.press("]");
    assert!(matches!(tui.last(), Some(Effect::Arrange(..))));
    assert!(tui.screen().contains("sorting by workload …"));
    assert_eq!(shown(&tui), before);
    tui.press("down down");
    let chosen = tui.model.dumps.selected().unwrap().id;
    assert_eq!(chosen, before[2].id);
    tui.pass(50);
    assert!(!tui.screen().contains("sorting ·"), "no flicker");
    tui.pass(150);
    assert!(tui.screen().contains("· sorting"), "{}", tui.screen());
    answer(&mut tui);
    let pods: Vec<_> = shown(&tui).iter().map(|dump| dump.pod.clone()).collect();
    assert!(pods.is_sorted() && pods.len() == MANY);
    assert_eq!(tui.model.dumps.selected().unwrap().id, chosen);
    tui.press("]");
    answer(&mut tui);
    assert!(tui.screen().contains("sorted by exe"), "{}", tui.screen());
}

#[test]
fn long_list_outdated_arrangement_is_dropped() {
    let mut tui = tui();
    tui.press("] ]");
    assert_eq!(tui.model.dumps.sort().0, Column::Exe);
    assert_eq!(answer(&mut tui), 2);
    assert!(shown(&tui).is_sorted_by_key(|dump| dump.exe.to_string()));
    tui.send(Msg::Arranged(RequestId(1), Ok(Box::default())));
    assert_eq!(tui.model.dumps.visible_len(), MANY);
    assert!(!tui.model.dumps.is_arranging());
}

#[test]
fn long_list_filter_shows_the_first_matches_early() {
    let mut tui = tui();
    tui.press("/");
    tui.type_text("namespace:payments");
    tui.press("enter");
    assert!(
        tui.screen().contains("… of 6,096 dumps"),
        "{}",
        tui.screen()
    );
    let first = tui.model.dumps.selected().unwrap().clone();
    assert_eq!(
        first.id,
        dump(1).id,
        "what is shown is right as far as it goes"
    );
    tui.press("enter");
    assert_eq!(tui.model.dump.as_ref().unwrap().dump.id, first.id);
    tui.press("esc");
    answer(&mut tui);
    assert_eq!(tui.model.dumps.visible_len(), MANY / 4);
    // The last one is beyond the rows that are searched immediately.
    tui.press("/ ctrl-u");
    tui.type_text(&dump(MANY - 1).id.to_string());
    tui.press("enter");
    let screen = tui.screen();
    assert!(screen.contains("looking through 6,096 dumps"), "{screen}");
    answer(&mut tui);
    assert_eq!(shown(&tui), [dump(MANY - 1)]);
}

#[test]
fn long_list_filter_keeps_the_selected_dump() {
    let mut tui = tui();
    tui.press("end");
    let chosen = tui.model.dumps.selected().unwrap().clone();
    tui.press("/");
    tui.type_text(chosen.namespace.as_deref().unwrap());
    assert_eq!(tui.model.dumps.selected(), Some(&chosen));
    answer(&mut tui);
    assert_eq!(tui.model.dumps.selected(), Some(&chosen));
    assert!(tui.model.dumps.visible_len() < MANY);
}

#[test]
fn long_list_accepted_filter_becomes_a_prefix_if_only_that_matches() {
    let mut tui = tui();
    tui.press("/");
    tui.type_text("namespace:pay");
    tui.press("enter");
    answer(&mut tui);
    assert_eq!(tui.model.dumps.filter().text, "namespace:pay*");
    assert_eq!(tui.model.dumps.visible_len(), MANY / 4);
}

#[test]
fn long_list_is_grouped_in_the_background_and_group_keys_wait() {
    let mut tui = tui();
    tui.press("g");
    assert!(matches!(tui.last(), Some(Effect::Group(..))));
    assert!(tui.screen().contains("grouping 6,096 dumps"));
    tui.press("enter");
    assert_eq!(*tui.model.screen(), Screen::Groups);
    // Group, then open, then filter.
    while answer(&mut tui) > 0 {}
    let count = tui.model.groups.list[0].count;
    assert_eq!(tui.model.dumps.visible_len(), count);
    assert_eq!(tui.model.screens.len(), 3);
    // Back: the groups still exist, but no longer belong to the filter.
    tui.press("esc");
    assert!(!tui.model.groups.list.is_empty());
    while answer(&mut tui) > 0 {}
    let all: usize = tui.model.groups.list.iter().map(|group| group.count).sum();
    assert_eq!((all, tui.model.groups.list[0].count), (MANY, count));
    // A key that leaves the view works immediately and cancels the pending action.
    tui.press("esc g");
    tui.model.groups.list.clear();
    tui.press("enter esc");
    while answer(&mut tui) > 0 {}
    assert_eq!(tui.model.screens.len(), 1);
}

#[test]
fn long_list_is_replaced_when_the_new_one_is_sorted() {
    let mut tui = tui();
    tui.press("down down r");
    let chosen = tui.model.dumps.selected().unwrap().id;
    let old = shown(&tui);
    tui.list((0..MANY + 10).rev().map(dump).collect());
    assert_eq!(shown(&tui), old, "what was there is shown meanwhile");
    // Deleted while the new rows, which still contain it, are being sorted.
    tui.send(Msg::Deleted(Box::new(dump(0)), Ok(())));
    answer(&mut tui);
    assert_eq!(tui.model.dumps.total(), MANY + 9);
    assert!(shown(&tui).is_sorted_by_key(|dump| std::cmp::Reverse(dump.captured_at)));
    assert_eq!(tui.model.dumps.selected().unwrap().id, chosen);
    let discarded = tui
        .asked
        .iter()
        .any(|effect| matches!(effect, Effect::Discard(..)));
    assert!(discarded, "the old rows are dropped elsewhere");
}

#[test]
fn long_list_includes_pages_that_arrive_during_a_sort() {
    let mut tui = TestTui::new(SIZE);
    tui.answers = false;
    let page =
        |range: std::ops::Range<usize>| range.map(dump).map(crate::tui::model::Row::new).collect();
    let listing = tui.model.listing;
    tui.send(Msg::Page(listing, page(0..MANY)));
    tui.press("]");
    tui.send(Msg::Page(listing, page(MANY..MANY + 500)));
    answer(&mut tui);
    assert_eq!(tui.model.dumps.visible_len(), MANY + 500);
    tui.pass(100);
    answer(&mut tui);
    let sorted = shown(&tui);
    assert!(sorted.is_sorted_by(|a, b| (&a.namespace, &a.pod) <= (&b.namespace, &b.pod)));
    assert_eq!(sorted.len(), MANY + 500);
}

#[test]
fn long_list_filter_uses_manifests_during_and_after_a_sort() {
    let mut tui = tui();
    tui.answers = true;
    tui.press("/");
    tui.type_text("node:node-1");
    tui.press("enter");
    tui.rest();
    let node_1 = |dump: &DumpSummary| dump.size.unwrap() % 4 == 1;
    let expected: Vec<_> = (0..MANY).map(dump).filter(node_1).collect();
    assert_eq!(shown(&tui), expected);
}

#[test]
fn long_list_does_not_delay_switching_the_store() {
    let mut tui = tui();
    tui.press("] s down enter");
    let place = super::test_tui::place();
    tui.send(Msg::Switched(Ok(place)));
    assert_eq!(tui.model.dumps.total(), 0);
    answer(&mut tui);
    assert_eq!(
        tui.model.dumps.total(),
        0,
        "the answer is about the store before"
    );
}
