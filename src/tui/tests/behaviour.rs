//! `update` as a plain function.

use std::sync::Arc;

use super::test_tui::{TestTui, failure, opened, place, stacks};
use super::{dump, now};
use crate::report::ExitStatus;
use crate::tui::model::{Column, Depth, Listing, Overlay, RequestId, Row, Screen, Tab};
use crate::tui::msg::{Effect, Msg};

const SIZE: (u16, u16) = (80, 24);

fn explained(tui: &TestTui) -> Vec<(String, Depth)> {
    let asked = tui.asked.iter().filter_map(|effect| match effect {
        Effect::Explain(_, dump, depth) => Some((dump.id.short(), *depth)),
        _ => None,
    });
    asked.collect()
}

#[test]
fn listing_shows_the_first_page_before_the_last_arrives() {
    let mut tui = TestTui::new(SIZE);
    assert_eq!(tui.asked, [Effect::List(tui.model.listing)]);
    let request = tui.model.listing;
    tui.send(Msg::Page(
        request,
        (0..50).map(dump).map(Row::new).collect(),
    ));
    assert_eq!(tui.model.dumps.visible_len(), 50);
    assert!(tui.screen().contains("listing"));
    tui.press("down down");
    tui.send(Msg::Page(
        request,
        (50..80).map(dump).map(Row::new).collect(),
    ));
    tui.send(Msg::Listed(request, Listing::Done));
    assert_eq!(
        (tui.model.dumps.visible_len(), tui.model.dumps.cursor),
        (80, 2)
    );
}

#[test]
fn answers_to_outdated_requests_are_dropped() {
    let mut tui = TestTui::full(SIZE, 10);
    let old = tui.model.listing;
    tui.press("r");
    assert_ne!(tui.model.listing, old);
    tui.send(Msg::Page(old, (100..200).map(dump).map(Row::new).collect()));
    tui.send(Msg::Listed(old, Listing::Done));
    assert_eq!(
        (tui.model.dumps.total(), &tui.model.dumps.listing),
        (10, &Listing::Running)
    );
    tui.press("s down enter");
    tui.send(Msg::Opened(
        RequestId(1),
        dump(0).id,
        Ok(Arc::new(opened(&dump(0)))),
    ));
    assert!(tui.model.known.get(dump(0).id).is_none());
}

#[test]
fn relisting_preserves_the_view_and_the_selection() {
    let mut tui = TestTui::full(SIZE, 30);
    tui.press("down down down");
    let chosen = tui.model.dumps.selected().unwrap().id;
    tui.press("r");
    assert_eq!(tui.model.dumps.visible_len(), 30);
    // Newer dumps have arrived, so the selected one moves down.
    let mut newer: Vec<_> = (0..30).map(dump).collect();
    for number in 0..5 {
        let mut new = dump(1000 + number);
        new.captured_at = now();
        newer.insert(0, new);
    }
    tui.list(newer);
    assert_eq!(tui.model.dumps.visible_len(), 35);
    assert_eq!(tui.model.dumps.selected().unwrap().id, chosen);
    assert_eq!(tui.model.dumps.cursor, 8);
}

#[test]
fn backtrace_is_prefetched_only_when_the_selection_is_idle() {
    let mut tui = TestTui::full(SIZE, 40);
    tui.asked.clear();
    tui.pass(10);
    for _ in 0..10 {
        tui.press("down");
        tui.pass(20);
    }
    assert_eq!(explained(&tui), []);
    tui.rest();
    assert_eq!(explained(&tui), [(dump(10).id.short(), Depth::Quick)]);
    tui.press("up");
    tui.rest();
    tui.press("down");
    tui.rest();
    assert_eq!(explained(&tui).len(), 2, "what is known is not asked again");
}

#[test]
fn top_frames_of_visible_rows_are_requested_once_per_crash() {
    let tui = TestTui::full((80, 24), 300);
    let names = tui
        .asked
        .iter()
        .filter(|effect| matches!(effect, Effect::Name(..)));
    assert_eq!(names.count(), 12);
    assert!(tui.screen().contains("price_of orders.c"));
}

#[test]
fn filter_applies_while_typed_and_escape_clears_it() {
    let mut tui = TestTui::full(SIZE, 200);
    tui.press("/");
    tui.type_text("namespace:pay");
    assert_eq!(tui.model.dumps.visible_len(), 50);
    tui.press("enter");
    assert_eq!(tui.model.dumps.filter().text, "namespace:pay*");
    tui.press("/ esc");
    assert_eq!(tui.model.dumps.visible_len(), 50);
    tui.press("/ ctrl-u");
    tui.type_text("sig:abrt idx");
    assert_eq!(tui.model.dumps.visible_len(), 0);
    tui.press("ctrl-w");
    assert_eq!(tui.model.dumps.visible_len(), 40);
    tui.press("esc");
    assert_eq!(tui.model.dumps.visible_len(), 50);
    tui.press("esc");
    assert_eq!(tui.model.dumps.visible_len(), 200);
    tui.press("/ n a tab");
    assert_eq!(tui.model.prompt.as_ref().unwrap().text, "namespace:");
    tui.press("tab tab");
    assert_eq!(
        tui.model.prompt.as_ref().unwrap().text,
        "namespace:payments "
    );
}

#[test]
fn filter_for_an_image_reads_manifests_first() {
    let mut tui = TestTui::full(SIZE, 150);
    tui.press("/");
    tui.type_text("image:*api*");
    tui.press("enter");
    tui.rest();
    let read: usize = tui
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
    assert_eq!(tui.model.dumps.visible_len(), 38);
}

#[test]
fn filter_accepts_process_id_unit_command_line_and_path() {
    let mut tui = TestTui::full(SIZE, 150);
    let mut shown = |filter: &str| {
        tui.press("/");
        tui.press("ctrl-u");
        tui.type_text(filter);
        tui.press("enter");
        tui.rest();
        tui.model.dumps.visible_len()
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
fn filter_error_is_shown() {
    let mut tui = TestTui::full(SIZE, 10);
    tui.press("/");
    tui.type_text("since:someday");
    tui.press("enter");
    assert!(tui.screen().contains("invalid time"));
}

#[test]
fn sort_keys_sort_columns_in_both_directions() {
    let mut tui = TestTui::full(SIZE, 30);
    tui.type_text(":sort size");
    tui.press("enter");
    let size = |tui: &TestTui, place: usize| tui.model.dumps.get(place).unwrap().size;
    assert!(size(&tui, 0) > size(&tui, 29));
    tui.press("=");
    assert!(size(&tui, 0) < size(&tui, 29));
    tui.press("]");
    assert_eq!(tui.model.dumps.sort(), (Column::Top, false));
    tui.press("] [");
    assert_eq!(tui.model.dumps.sort().0, Column::Top);
}

#[test]
fn group_opens_as_a_filter_and_escape_returns() {
    let mut tui = TestTui::full(SIZE, 120);
    tui.press("g");
    assert_eq!(*tui.model.screen(), Screen::Groups);
    assert_eq!(
        tui.model
            .groups
            .list
            .iter()
            .map(|group| group.count)
            .sum::<usize>(),
        120
    );
    let count = tui.model.groups.list[0].count;
    tui.press("enter");
    assert_eq!(tui.model.dumps.visible_len(), count);
    tui.press("esc");
    assert_eq!(*tui.model.screen(), Screen::Groups);
    tui.press("g");
    assert_eq!(*tui.model.screen(), Screen::Dumps { restore: None });
    assert_eq!(tui.model.dumps.visible_len(), 120);
}

#[test]
fn dump_view_cycles_through_tabs_and_threads() {
    let mut tui = TestTui::full(SIZE, 20);
    tui.press("enter");
    assert_eq!(tui.model.dump.as_ref().unwrap().tab, Tab::Backtrace);
    tui.press("n");
    let view = tui.model.dump.as_ref().unwrap();
    assert_eq!(view.thread, 1);
    assert!(view.page.text().contains("thread 4712"));
    tui.press("7");
    assert!(
        tui.model
            .dump
            .as_ref()
            .unwrap()
            .page
            .text()
            .contains("thread 4712")
    );
    tui.press("tab tab");
    assert_eq!(tui.model.dump.as_ref().unwrap().tab, Tab::Backtrace);
    tui.press("backtab");
    assert_eq!(tui.model.dump.as_ref().unwrap().tab, Tab::Manifest);
    tui.press("J");
    assert_eq!(tui.model.dump.as_ref().unwrap().dump.id, dump(1).id);
    assert_eq!(tui.model.dump.as_ref().unwrap().tab, Tab::Manifest);
    tui.press("K esc");
    assert_eq!(tui.model.dumps.cursor, 0);
}

#[test]
fn dump_view_requests_the_source_of_the_selected_frame() {
    let mut tui = TestTui::full(SIZE, 5);
    tui.press("enter");
    let asked = |tui: &TestTui| -> Vec<u32> {
        let lines = tui.asked.iter().filter_map(|effect| match effect {
            Effect::Source(_, wanted) => Some(wanted.line),
            _ => None,
        });
        lines.collect()
    };
    tui.press("down down down down down down down");
    assert_eq!(asked(&tui), [7, 12, 18]);
    assert_eq!(
        tui.model.dump.as_ref().unwrap().source,
        None,
        "the last frame has no source"
    );
}

#[test]
fn find_and_find_next_search_the_page() {
    let mut tui = TestTui::full(SIZE, 5);
    tui.press("enter /");
    tui.type_text("frame");
    tui.press("ctrl-u");
    tui.type_text("#2");
    tui.press("enter");
    let cursor = tui.model.dump.as_ref().unwrap().page.cursor;
    tui.press("m");
    assert_eq!(
        tui.model.dump.as_ref().unwrap().page.cursor,
        cursor,
        "there is one"
    );
    tui.press("/ ctrl-u");
    tui.type_text("nothing like it");
    tui.press("enter");
    assert!(tui.screen().contains("`nothing like it` is not here"));
}

#[test]
fn mouse_selects_opens_sorts_and_scrolls_rows() {
    let mut tui = TestTui::full(SIZE, 60);
    tui.click(10, 6);
    assert_eq!(tui.model.dumps.cursor, 4);
    tui.pass(100);
    tui.click(10, 6);
    assert_eq!(*tui.model.screen(), Screen::Dump);
    assert_eq!(tui.model.dump.as_ref().unwrap().dump.id, dump(4).id);
    tui.click(5, 2);
    assert_eq!(
        tui.model.dump.as_ref().unwrap().tab,
        Tab::Info,
        "tabs have only numbers at 80 columns"
    );
    tui.press("esc");
    tui.click(12, 1);
    assert_eq!(tui.model.dumps.sort().0, Column::Workload);
    let before = tui.model.dumps.cursor;
    tui.wheel(true);
    assert_eq!(tui.model.dumps.cursor, before + 3);
    tui.press("x");
    tui.click(40, 12);
    assert!(
        matches!(tui.model.overlay, Some(Overlay::Delete(_))),
        "a slip of the hand deletes nothing"
    );
}

#[test]
fn switching_the_store_clears_the_model() {
    let mut tui = TestTui::full(SIZE, 20);
    tui.press("enter s down enter");
    assert_eq!(tui.model.place.store, "s3://stage");
    assert_eq!((tui.model.dumps.total(), tui.model.screens.len()), (0, 1));
    assert_eq!(tui.last(), Some(&Effect::List(tui.model.listing)));
    tui.send(Msg::Switched(Err(failure(
        "no such store",
        "check the name",
        ExitStatus::Failure,
    ))));
    assert!(tui.screen().contains("The store was not switched"));
    assert_eq!(tui.model.place.stores, place().stores);
}

#[test]
fn listing_error_is_shown_with_a_fix() {
    let mut tui = TestTui::new(SIZE);
    let hint = "check the credentials with `aws sts get-caller-identity`";
    let failure = failure("no permission for s3://crashes", hint, ExitStatus::Failure);
    tui.send(Msg::Listed(tui.model.listing, Listing::Failed(failure)));
    let screen = tui.screen();
    assert!(
        screen.contains("no permission") && screen.contains("aws sts"),
        "{screen}"
    );
    assert!(screen.contains("r tries again"), "{screen}");
}

#[test]
fn update_never_panics_on_ten_thousand_random_keys() {
    let mut tui = TestTui::full((80, 24), 60);
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
        tui.press(names[(state % names.len() as u64) as usize]);
        match step % 97 {
            0 => tui.pass(50 * (state % 9)),
            1 => tui.send(Msg::Resize(
                1 + (state % 180) as u16,
                1 + (state % 60) as u16,
            )),
            2 => tui.click((state % 80) as u16, (state % 24) as u16),
            3 => tui.wheel(state.is_multiple_of(2)),
            4 => tui.send(Msg::Paste("pasted\ntext".to_owned())),
            5 if tui.model.dumps.listing == Listing::Running => {
                tui.list((0..60).map(dump).collect())
            }
            _ => {}
        }
        tui.model.quit = false;
        tui.asked.clear();
        if step % 50 == 0 {
            tui.buffer();
        }
    }
}

#[test]
fn minicore_stacks_remain_when_the_core_is_unreadable() {
    let mut tui = TestTui::full(SIZE, 3);
    tui.answers = false;
    tui.press("enter");
    let asked = tui.asked.iter().rev().find_map(|effect| match effect {
        Effect::Explain(request, dump, _) => Some((*request, dump.clone())),
        _ => None,
    });
    let (request, dump) = asked.unwrap();
    tui.send(Msg::Stacks(request, dump.id, Ok(Arc::new(stacks(&dump)))));
    let failed = failure("the core is damaged", "fetch it again", ExitStatus::Failure);
    tui.send(Msg::Stacks(request, dump.id, Err(failed)));
    assert!(tui.model.known.stacks(dump.id).is_some());
}
