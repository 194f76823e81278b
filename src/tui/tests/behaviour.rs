//! `update` as a plain function.

use std::sync::Arc;

use super::desk::{Desk, opened, place, stacks, told};
use super::{dump, now};
use crate::report::ExitStatus;
use crate::tui::model::{Column, Depth, Listing, Overlay, RequestId, Row, Screen, Tab};
use crate::tui::msg::{Effect, Msg};

const SIZE: (u16, u16) = (80, 24);

fn explained(desk: &Desk) -> Vec<(String, Depth)> {
    let asked = desk.asked.iter().filter_map(|effect| match effect {
        Effect::Explain(_, dump, depth) => Some((dump.id.short(), *depth)),
        _ => None,
    });
    asked.collect()
}

#[test]
fn pages_come_in_and_the_first_is_shown_before_the_last_is_there() {
    let mut desk = Desk::new(SIZE);
    assert_eq!(desk.asked, [Effect::List(desk.model.listing)]);
    let request = desk.model.listing;
    desk.send(Msg::Page(
        request,
        (0..50).map(dump).map(Row::new).collect(),
    ));
    assert_eq!(desk.model.dumps.visible_len(), 50);
    assert!(desk.screen().contains("listing"));
    desk.press("down down");
    desk.send(Msg::Page(
        request,
        (50..80).map(dump).map(Row::new).collect(),
    ));
    desk.send(Msg::Listed(request, Listing::Done));
    assert_eq!(
        (desk.model.dumps.visible_len(), desk.model.dumps.cursor),
        (80, 2)
    );
}

#[test]
fn answers_to_older_questions_are_dropped() {
    let mut desk = Desk::full(SIZE, 10);
    let old = desk.model.listing;
    desk.press("r");
    assert_ne!(desk.model.listing, old);
    desk.send(Msg::Page(old, (100..200).map(dump).map(Row::new).collect()));
    desk.send(Msg::Listed(old, Listing::Done));
    assert_eq!(
        (desk.model.dumps.total(), &desk.model.dumps.listing),
        (10, &Listing::Running)
    );
    desk.press("s down enter");
    desk.send(Msg::Opened(
        RequestId(1),
        dump(0).id,
        Ok(Arc::new(opened(&dump(0)))),
    ));
    assert!(desk.model.known.get(dump(0).id).is_none());
}

#[test]
fn refreshed_list_keeps_what_is_shown_and_chosen() {
    let mut desk = Desk::full(SIZE, 30);
    desk.press("down down down");
    let chosen = desk.model.dumps.selected().unwrap().id;
    desk.press("r");
    assert_eq!(desk.model.dumps.visible_len(), 30);
    // Newer ones have come, the chosen one moves down.
    let mut newer: Vec<_> = (0..30).map(dump).collect();
    for number in 0..5 {
        let mut new = dump(1000 + number);
        new.captured_at = now();
        newer.insert(0, new);
    }
    desk.list(newer);
    assert_eq!(desk.model.dumps.visible_len(), 35);
    assert_eq!(desk.model.dumps.selected().unwrap().id, chosen);
    assert_eq!(desk.model.dumps.cursor, 8);
}

#[test]
fn backtrace_is_prefetched_when_the_selection_rests_and_not_before() {
    let mut desk = Desk::full(SIZE, 40);
    desk.asked.clear();
    desk.pass(10);
    for _ in 0..10 {
        desk.press("down");
        desk.pass(20);
    }
    assert_eq!(explained(&desk), []);
    desk.rest();
    assert_eq!(explained(&desk), [(dump(10).id.short(), Depth::Quick)]);
    desk.press("up");
    desk.rest();
    desk.press("down");
    desk.rest();
    assert_eq!(
        explained(&desk).len(),
        2,
        "what is known is not asked again"
    );
}

#[test]
fn frames_of_visible_rows_are_asked_once_for_each_crash() {
    let desk = Desk::full((80, 24), 300);
    let names = desk
        .asked
        .iter()
        .filter(|effect| matches!(effect, Effect::Name(..)));
    assert_eq!(names.count(), 12);
    assert!(desk.screen().contains("price_of orders.c"));
}

#[test]
fn filter_works_while_it_is_typed_and_goes_with_escape() {
    let mut desk = Desk::full(SIZE, 200);
    desk.press("/");
    desk.type_text("namespace:pay");
    assert_eq!(desk.model.dumps.visible_len(), 50);
    desk.press("enter");
    assert_eq!(desk.model.dumps.filter().text, "namespace:pay*");
    desk.press("/ esc");
    assert_eq!(desk.model.dumps.visible_len(), 50);
    desk.press("/ ctrl-u");
    desk.type_text("sig:abrt idx");
    assert_eq!(desk.model.dumps.visible_len(), 0);
    desk.press("ctrl-w");
    assert_eq!(desk.model.dumps.visible_len(), 40);
    desk.press("esc");
    assert_eq!(desk.model.dumps.visible_len(), 50);
    desk.press("esc");
    assert_eq!(desk.model.dumps.visible_len(), 200);
    desk.press("/ n a tab");
    assert_eq!(desk.model.prompt.as_ref().unwrap().text, "namespace:");
    desk.press("tab tab");
    assert_eq!(
        desk.model.prompt.as_ref().unwrap().text,
        "namespace:payments "
    );
}

#[test]
fn filter_for_an_image_reads_manifests_and_then_matches() {
    let mut desk = Desk::full(SIZE, 150);
    desk.press("/");
    desk.type_text("image:*api*");
    desk.press("enter");
    desk.rest();
    let read: usize = desk
        .asked
        .iter()
        .map(|effect| {
            if let Effect::Facts(_, dumps) = effect {
                dumps.len()
            } else {
                0
            }
        })
        .sum();
    assert_eq!(read, 150);
    assert_eq!(desk.model.dumps.visible_len(), 38);
}

#[test]
fn filter_takes_process_id_unit_command_line_and_path() {
    let mut desk = Desk::full(SIZE, 150);
    let mut shown = |filter: &str| {
        desk.press("/");
        desk.press("ctrl-u");
        desk.type_text(filter);
        desk.press("enter");
        desk.rest();
        desk.model.dumps.visible_len()
    };
    let api = shown("exe:api");
    assert!(api > 0 && api < 150);
    for filter in [
        "unit:api",
        "unit:api.service",
        "cmdline:*api*serve",
        "exe:/usr/bin/api",
    ] {
        assert_eq!(shown(filter), api, "{filter}");
    }
    let size = dump(1).size.unwrap();
    assert_eq!(shown(&format!("pid:{}", 4000 + size)), 1);
    assert_eq!(shown("exe:/opt/bin/api"), 0);
}

#[test]
fn problem_of_a_filter_is_told() {
    let mut desk = Desk::full(SIZE, 10);
    desk.press("/");
    desk.type_text("since:someday");
    desk.press("enter");
    assert!(desk.screen().contains("invalid time"));
}

#[test]
fn columns_sort_both_ways() {
    let mut desk = Desk::full(SIZE, 30);
    desk.type_text(":sort size");
    desk.press("enter");
    let size = |desk: &Desk, place: usize| desk.model.dumps.get(place).unwrap().size;
    assert!(size(&desk, 0) > size(&desk, 29));
    desk.press("=");
    assert!(size(&desk, 0) < size(&desk, 29));
    desk.press("]");
    assert_eq!(desk.model.dumps.sort(), (Column::Top, false));
    desk.press("] [");
    assert_eq!(desk.model.dumps.sort().0, Column::Top);
}

#[test]
fn group_opens_as_a_filter_and_escape_comes_back() {
    let mut desk = Desk::full(SIZE, 120);
    desk.press("g");
    assert_eq!(*desk.model.screen(), Screen::Groups);
    assert_eq!(
        desk.model
            .groups
            .list
            .iter()
            .map(|group| group.count)
            .sum::<usize>(),
        120
    );
    let count = desk.model.groups.list[0].count;
    desk.press("enter");
    assert_eq!(desk.model.dumps.visible_len(), count);
    desk.press("esc");
    assert_eq!(*desk.model.screen(), Screen::Groups);
    desk.press("g");
    assert_eq!(*desk.model.screen(), Screen::Dumps { restore: None });
    assert_eq!(desk.model.dumps.visible_len(), 120);
}

#[test]
fn tabs_and_threads_of_a_dump_are_walked_through() {
    let mut desk = Desk::full(SIZE, 20);
    desk.press("enter");
    assert_eq!(desk.model.dump.as_ref().unwrap().tab, Tab::Backtrace);
    desk.press("n");
    let view = desk.model.dump.as_ref().unwrap();
    assert_eq!(view.thread, 1);
    assert!(view.page.text().contains("thread 4712"));
    desk.press("7");
    assert!(
        desk.model
            .dump
            .as_ref()
            .unwrap()
            .page
            .text()
            .contains("thread 4712")
    );
    desk.press("tab tab");
    assert_eq!(desk.model.dump.as_ref().unwrap().tab, Tab::Backtrace);
    desk.press("backtab");
    assert_eq!(desk.model.dump.as_ref().unwrap().tab, Tab::Manifest);
    desk.press("J");
    assert_eq!(desk.model.dump.as_ref().unwrap().dump.id, dump(1).id);
    assert_eq!(desk.model.dump.as_ref().unwrap().tab, Tab::Manifest);
    desk.press("K esc");
    assert_eq!(desk.model.dumps.cursor, 0);
}

#[test]
fn source_of_the_frame_under_the_cursor_is_asked_for() {
    let mut desk = Desk::full(SIZE, 5);
    desk.press("enter");
    let asked = |desk: &Desk| -> Vec<u32> {
        let lines = desk.asked.iter().filter_map(|effect| match effect {
            Effect::Source(_, wanted) => Some(wanted.line),
            _ => None,
        });
        lines.collect()
    };
    desk.press("down down down down down down down");
    assert_eq!(asked(&desk), [7, 12, 18]);
    assert_eq!(
        desk.model.dump.as_ref().unwrap().source,
        None,
        "the last frame has no source"
    );
}

#[test]
fn text_is_found_and_found_again() {
    let mut desk = Desk::full(SIZE, 5);
    desk.press("enter /");
    desk.type_text("frame");
    desk.press("ctrl-u");
    desk.type_text("#2");
    desk.press("enter");
    let cursor = desk.model.dump.as_ref().unwrap().page.cursor;
    desk.press("m");
    assert_eq!(
        desk.model.dump.as_ref().unwrap().page.cursor,
        cursor,
        "there is one"
    );
    desk.press("/ ctrl-u");
    desk.type_text("nothing like it");
    desk.press("enter");
    assert!(desk.screen().contains("`nothing like it` is not here"));
}

#[test]
fn mouse_selects_opens_sorts_and_scrolls() {
    let mut desk = Desk::full(SIZE, 60);
    desk.click(10, 6);
    assert_eq!(desk.model.dumps.cursor, 4);
    desk.pass(100);
    desk.click(10, 6);
    assert_eq!(*desk.model.screen(), Screen::Dump);
    assert_eq!(desk.model.dump.as_ref().unwrap().dump.id, dump(4).id);
    desk.click(5, 2);
    assert_eq!(
        desk.model.dump.as_ref().unwrap().tab,
        Tab::Info,
        "tabs have only numbers at 80 columns"
    );
    desk.press("esc");
    desk.click(12, 1);
    assert_eq!(desk.model.dumps.sort().0, Column::Workload);
    let before = desk.model.dumps.cursor;
    desk.wheel(true);
    assert_eq!(desk.model.dumps.cursor, before + 3);
    desk.press("x");
    desk.click(40, 12);
    assert!(
        matches!(desk.model.overlay, Some(Overlay::Delete(_))),
        "a slip of the hand deletes nothing"
    );
}

#[test]
fn another_store_forgets_everything_about_the_first() {
    let mut desk = Desk::full(SIZE, 20);
    desk.press("enter s down enter");
    assert_eq!(desk.model.place.store, "s3://stage");
    assert_eq!((desk.model.dumps.total(), desk.model.screens.len()), (0, 1));
    assert_eq!(desk.last(), Some(&Effect::List(desk.model.listing)));
    desk.send(Msg::Switched(Err(told(
        "no such store",
        "check the name",
        ExitStatus::Failure,
    ))));
    assert!(desk.screen().contains("The store was not switched"));
    assert_eq!(desk.model.place.stores, place().stores);
}

#[test]
fn store_that_cannot_be_listed_says_how_to_mend_it() {
    let mut desk = Desk::new(SIZE);
    let hint = "check the credentials with `aws sts get-caller-identity`";
    let told = told("no permission for s3://crashes", hint, ExitStatus::Failure);
    desk.send(Msg::Listed(desk.model.listing, Listing::Failed(told)));
    let screen = desk.screen();
    assert!(
        screen.contains("no permission") && screen.contains("aws sts"),
        "{screen}"
    );
    assert!(screen.contains("r tries again"), "{screen}");
}

#[test]
fn ten_thousand_keys_of_any_kind_never_panic() {
    let mut desk = Desk::full((80, 24), 60);
    let names = [
        "down",
        "up",
        "pagedown",
        "pageup",
        "home",
        "end",
        "enter",
        "esc",
        "b",
        "d",
        "g",
        "f",
        "space",
        "D",
        "o",
        "y",
        "x",
        "n",
        "[",
        "]",
        "=",
        "tab",
        "backtab",
        "1",
        "4",
        "6",
        "8",
        "p",
        "J",
        "K",
        "/",
        "m",
        "right",
        "left",
        "t",
        "s",
        "r",
        "?",
        ":",
        "c",
        "M",
        "j",
        "l",
        "z",
        "backspace",
        "ctrl-w",
    ];
    let mut state = 88_172_645_463_325_252_u64;
    for step in 0..10_000_u64 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        desk.press(names[(state % names.len() as u64) as usize]);
        match step % 97 {
            0 => desk.pass(50 * (state % 9)),
            1 => desk.send(Msg::Resize(
                1 + (state % 180) as u16,
                1 + (state % 60) as u16,
            )),
            2 => desk.click((state % 80) as u16, (state % 24) as u16),
            3 => desk.wheel(state.is_multiple_of(2)),
            4 => desk.send(Msg::Paste("pasted\ntext".to_owned())),
            5 if desk.model.dumps.listing == Listing::Running => {
                desk.list((0..60).map(dump).collect())
            }
            _ => {}
        }
        desk.model.quit = false;
        desk.asked.clear();
        if step % 50 == 0 {
            desk.buffer();
        }
    }
}

#[test]
fn stacks_of_the_minicore_stay_when_the_core_cannot_be_read() {
    let mut desk = Desk::full(SIZE, 3);
    desk.answers = false;
    desk.press("enter");
    let asked = desk.asked.iter().rev().find_map(|effect| match effect {
        Effect::Explain(request, dump, _) => Some((*request, dump.clone())),
        _ => None,
    });
    let (request, dump) = asked.unwrap();
    desk.send(Msg::Stacks(request, dump.id, Ok(Arc::new(stacks(&dump)))));
    let failed = told("the core is damaged", "fetch it again", ExitStatus::Failure);
    desk.send(Msg::Stacks(request, dump.id, Err(failed)));
    assert!(desk.model.known.stacks(dump.id).is_some());
}
