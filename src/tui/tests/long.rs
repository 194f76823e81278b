//! Long lists: what is arranged elsewhere, and what the keys do meanwhile.

use cdh_store::DumpSummary;

use super::desk::Desk;
use super::dump;
use crate::tui::model::{AT_ONCE, Column, RequestId, Screen, arrange};
use crate::tui::msg::{Effect, Msg};

const SIZE: (u16, u16) = (80, 24);
const MANY: usize = AT_ONCE + 2000;

/// A desk with a long list on which nothing is answered any more.
fn desk() -> Desk {
    let mut desk = Desk::full(SIZE, MANY);
    desk.answers = false;
    desk.asked.clear();
    desk
}

/// Answers what is to be arranged or grouped, the oldest question first.
fn answer(desk: &mut Desk) -> usize {
    let asked = std::mem::take(&mut desk.asked);
    let mut count = 0;
    for effect in asked {
        match effect {
            Effect::Arrange(request, job) => {
                let arranged = Box::new(arrange(&job));
                desk.send(Msg::Arranged(request, Ok(arranged)));
            }
            Effect::Group(request, grouping) => {
                let (filter, groups) = (grouping.filter.clone(), grouping.groups());
                desk.send(Msg::Grouped(request, filter, Ok(groups)));
            }
            _ => continue,
        }
        count += 1;
    }
    count
}

fn shown(desk: &Desk) -> Vec<DumpSummary> {
    desk.model.dumps.visible().cloned().collect()
}

#[test]
fn long_list_is_sorted_elsewhere_and_the_keys_work_meanwhile() {
    let mut desk = desk();
    let before = shown(&desk);
    desk.press("]");
    assert!(matches!(desk.last(), Some(Effect::Arrange(..))));
    assert!(desk.screen().contains("sorting by workload …"));
    assert_eq!(shown(&desk), before);
    desk.press("down down");
    let chosen = desk.model.dumps.selected().unwrap().id;
    assert_eq!(chosen, before[2].id);
    desk.pass(50);
    assert!(!desk.screen().contains("sorting ·"), "no flicker");
    desk.pass(150);
    assert!(desk.screen().contains("· sorting"), "{}", desk.screen());
    answer(&mut desk);
    let pods: Vec<_> = shown(&desk).iter().map(|dump| dump.pod.clone()).collect();
    assert!(pods.is_sorted() && pods.len() == MANY);
    assert_eq!(desk.model.dumps.selected().unwrap().id, chosen);
    desk.press("]");
    answer(&mut desk);
    assert!(desk.screen().contains("sorted by exe"), "{}", desk.screen());
}

#[test]
fn arrangement_that_was_overtaken_is_dropped() {
    let mut desk = desk();
    desk.press("] ]");
    assert_eq!(desk.model.dumps.sort().0, Column::Exe);
    assert_eq!(answer(&mut desk), 2);
    assert!(shown(&desk).is_sorted_by_key(|dump| dump.exe.to_string()));
    desk.send(Msg::Arranged(RequestId(1), Ok(Box::default())));
    assert_eq!(desk.model.dumps.visible_len(), MANY);
    assert!(!desk.model.dumps.is_arranging());
}

#[test]
fn first_that_match_are_shown_before_all_are_found() {
    let mut desk = desk();
    desk.press("/");
    desk.type_text("namespace:payments");
    desk.press("enter");
    assert!(
        desk.screen().contains("… of 6,096 dumps"),
        "{}",
        desk.screen()
    );
    let first = desk.model.dumps.selected().unwrap().clone();
    assert_eq!(
        first.id,
        dump(1).id,
        "what is shown is right as far as it goes"
    );
    desk.press("enter");
    assert_eq!(desk.model.dump.as_ref().unwrap().dump.id, first.id);
    desk.press("esc");
    answer(&mut desk);
    assert_eq!(desk.model.dumps.visible_len(), MANY / 4);
    // The last of them is behind what is looked through at once.
    desk.press("/ ctrl-u");
    desk.type_text(&dump(MANY - 1).id.to_string());
    desk.press("enter");
    let screen = desk.screen();
    assert!(screen.contains("looking through 6,096 dumps"), "{screen}");
    answer(&mut desk);
    assert_eq!(shown(&desk), [dump(MANY - 1)]);
}

#[test]
fn filter_keeps_the_chosen_dump_under_the_cursor() {
    let mut desk = desk();
    desk.press("end");
    let chosen = desk.model.dumps.selected().unwrap().clone();
    desk.press("/");
    desk.type_text(chosen.namespace.as_deref().unwrap());
    assert_eq!(desk.model.dumps.selected(), Some(&chosen));
    answer(&mut desk);
    assert_eq!(desk.model.dumps.selected(), Some(&chosen));
    assert!(desk.model.dumps.visible_len() < MANY);
}

#[test]
fn filter_that_was_kept_is_open_at_its_end_where_only_that_matches() {
    let mut desk = desk();
    desk.press("/");
    desk.type_text("namespace:pay");
    desk.press("enter");
    answer(&mut desk);
    assert_eq!(desk.model.dumps.filter().text, "namespace:pay*");
    assert_eq!(desk.model.dumps.visible_len(), MANY / 4);
}

#[test]
fn long_list_is_grouped_elsewhere_and_a_key_for_a_group_waits_for_the_first() {
    let mut desk = desk();
    desk.press("g");
    assert!(matches!(desk.last(), Some(Effect::Group(..))));
    assert!(desk.screen().contains("grouping 6,096 dumps"));
    desk.press("enter");
    assert_eq!(*desk.model.screen(), Screen::Groups);
    // Grouped, then opened, then filtered.
    while answer(&mut desk) > 0 {}
    let count = desk.model.groups.list[0].count;
    assert_eq!(desk.model.dumps.visible_len(), count);
    assert_eq!(desk.model.screens.len(), 3);
    // Back: the groups are there still, and are no longer those of the filter.
    desk.press("esc");
    assert!(!desk.model.groups.list.is_empty());
    while answer(&mut desk) > 0 {}
    let all: usize = desk.model.groups.list.iter().map(|group| group.count).sum();
    assert_eq!((all, desk.model.groups.list[0].count), (MANY, count));
    // A key that leads away is not held up, and forgets what was to be done.
    desk.press("esc g");
    desk.model.groups.list.clear();
    desk.press("enter esc");
    while answer(&mut desk) > 0 {}
    assert_eq!(desk.model.screens.len(), 1);
}

#[test]
fn refreshed_long_list_takes_its_place_when_it_is_in_order() {
    let mut desk = desk();
    desk.press("down down r");
    let chosen = desk.model.dumps.selected().unwrap().id;
    let old = shown(&desk);
    desk.list((0..MANY + 10).rev().map(dump).collect());
    assert_eq!(shown(&desk), old, "what was there is shown meanwhile");
    // Deleted while the new ones, which still hold it, are being put in order.
    desk.send(Msg::Deleted(Box::new(dump(0)), Ok(())));
    answer(&mut desk);
    assert_eq!(desk.model.dumps.total(), MANY + 9);
    assert!(shown(&desk).is_sorted_by_key(|dump| std::cmp::Reverse(dump.captured_at)));
    assert_eq!(desk.model.dumps.selected().unwrap().id, chosen);
    let discarded = desk
        .asked
        .iter()
        .any(|effect| matches!(effect, Effect::Discard(..)));
    assert!(discarded, "the old rows are dropped elsewhere");
}

#[test]
fn pages_that_come_while_it_is_sorted_are_there_afterwards() {
    let mut desk = Desk::new(SIZE);
    desk.answers = false;
    let page =
        |range: std::ops::Range<usize>| range.map(dump).map(crate::tui::model::Row::new).collect();
    let listing = desk.model.listing;
    desk.send(Msg::Page(listing, page(0..MANY)));
    desk.press("]");
    desk.send(Msg::Page(listing, page(MANY..MANY + 500)));
    answer(&mut desk);
    assert_eq!(desk.model.dumps.visible_len(), MANY + 500);
    desk.pass(100);
    answer(&mut desk);
    let sorted = shown(&desk);
    assert!(sorted.is_sorted_by(|a, b| (&a.namespace, &a.pod) <= (&b.namespace, &b.pod)));
    assert_eq!(sorted.len(), MANY + 500);
}

#[test]
fn manifests_decide_what_passes_while_and_after_a_long_list_is_arranged() {
    let mut desk = desk();
    desk.answers = true;
    desk.press("/");
    desk.type_text("node:node-1");
    desk.press("enter");
    desk.rest();
    let node_1 = |dump: &DumpSummary| dump.size.unwrap() % 4 == 1;
    let expected: Vec<_> = (0..MANY).map(dump).filter(node_1).collect();
    assert_eq!(shown(&desk), expected);
}

#[test]
fn another_store_is_not_held_up_by_the_first() {
    let mut desk = desk();
    desk.press("] s down enter");
    let place = super::desk::place();
    desk.send(Msg::Switched(Ok(place)));
    assert_eq!(desk.model.dumps.total(), 0);
    answer(&mut desk);
    assert_eq!(
        desk.model.dumps.total(),
        0,
        "the answer is about the store before"
    );
}
