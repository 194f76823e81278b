//! The automatic refresh: what it asks, what it brings, and what stays where it is.

use cdh_store::DumpSummary;
use jiff::SignedDuration;

use super::desk::{Desk, told};
use super::{dump, now};
use crate::report::ExitStatus;
use crate::tui::model::{AT_ONCE, Listing, RequestId, Row, Screen};
use crate::tui::msg::{Effect, Msg};

const SIZE: (u16, u16) = (80, 24);

/// A TUI with a refresh every five seconds.
fn desk(dumps: usize) -> Desk {
    let mut desk = Desk::full(SIZE, dumps);
    desk.model.refresh.interval = 5000;
    desk
}

/// A dump that was captured just now.
fn new(n: usize) -> DumpSummary {
    let mut new = dump(10_000 + n);
    new.captured_at = now() - SignedDuration::from_secs(n as i64);
    new
}

fn asked(desk: &Desk) -> Vec<RequestId> {
    let asked = desk.asked.iter().filter_map(|effect| match effect {
        Effect::Refresh(request, _) => Some(*request),
        _ => None,
    });
    asked.collect()
}

fn come(desk: &mut Desk, dumps: Vec<DumpSummary>) {
    desk.pass(60_000);
    let request = *asked(desk).last().unwrap();
    let rows = dumps.into_iter().map(Row::new).collect();
    desk.send(Msg::Refreshed(request, Ok(rows)));
}

fn shown(desk: &Desk, at: usize) -> DumpSummary {
    desk.model.dumps.get(at).unwrap().clone()
}

#[test]
fn refresh_asks_while_the_user_is_idle_and_not_otherwise() {
    let mut desk = desk(30);
    desk.press("down");
    desk.pass(1000);
    assert!(asked(&desk).is_empty(), "a key was pressed just now");
    desk.pass(6000);
    assert_eq!(asked(&desk).len(), 1);
    desk.pass(60_000);
    assert_eq!(asked(&desk).len(), 1, "one at a time");
    let request = asked(&desk)[0];
    desk.send(Msg::Refreshed(request, Ok(Vec::new())));
    desk.press("/");
    desk.pass(60_000);
    assert_eq!(asked(&desk).len(), 1, "a filter is being typed");
    desk.press("esc x");
    desk.pass(60_000);
    assert_eq!(asked(&desk).len(), 1, "a question is open");
    desk.press("n");
    desk.type_text(":refresh 0");
    desk.press("enter");
    desk.pass(60_000);
    assert_eq!(asked(&desk).len(), 1, "it is turned off");
    desk.type_text(":refresh 2");
    desk.press("enter");
    desk.pass(60_000);
    assert_eq!(asked(&desk).len(), 2);
}

#[test]
fn refresh_marks_new_rows_and_the_cursor_stays_on_its_dump() {
    let mut desk = desk(30);
    let chosen = shown(&desk, 0);
    // Known ones come again.
    come(&mut desk, vec![new(0), new(1), dump(0), dump(5)]);
    assert_eq!(desk.model.dumps.total(), 32);
    assert_eq!(shown(&desk, 0).id, new(0).id);
    assert_eq!(desk.model.dumps.selected().unwrap().id, chosen.id);
    assert_eq!((desk.model.dumps.cursor, desk.model.dumps.top), (2, 0));
    let screen = desk.screen();
    assert!(screen.contains("2 new"), "{screen}");
    assert_eq!(
        screen.lines().filter(|line| line.starts_with(" +")).count(),
        2
    );
    desk.press("up");
    assert!(desk.screen().contains("1 new"));
    desk.press("up");
    assert!(!desk.screen().contains("1 new"), "{}", desk.screen());
    come(&mut desk, vec![new(2)]);
    assert!(desk.screen().contains("1 new"));
    desk.pass(60_001);
    assert!(!desk.screen().contains("1 new"), "marks go with time");
}

#[test]
fn refresh_does_not_scroll_the_list() {
    for count in [200, AT_ONCE + 500] {
        let mut desk = desk(count);
        for _ in 0..60 {
            desk.press("down");
        }
        for _ in 0..5 {
            desk.press("up");
        }
        let rows = |desk: &Desk| -> Vec<String> {
            let screen = desk.screen();
            screen.lines().skip(2).take(19).map(str::to_owned).collect()
        };
        let before = rows(&desk);
        come(&mut desk, (0..7).map(new).collect());
        assert_eq!(rows(&desk), before, "{count}");
        assert_eq!(desk.model.dumps.cursor, 62);
    }
}

#[test]
fn refresh_keeps_filter_and_order() {
    let mut desk = desk(200);
    desk.type_text(":filter exe:api");
    desk.press("enter");
    desk.type_text(":sort size");
    desk.press("enter");
    let before = desk.model.dumps.visible_len();
    come(&mut desk, (0..8).map(new).collect());
    assert_eq!(desk.model.dumps.visible_len(), before + 2);
    let sizes: Vec<_> = desk.model.dumps.visible().map(|dump| dump.size).collect();
    assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
    desk.press("esc");
    assert_eq!(desk.model.dumps.visible_len(), 208);
}

#[test]
fn failed_refresh_is_said_once_and_keeps_the_list() {
    let mut desk = desk(30);
    let fail = |desk: &mut Desk| {
        desk.pass(60_000);
        let request = *asked(desk).last().unwrap();
        let told = told("timeout", "check the network", ExitStatus::Unreachable);
        desk.send(Msg::Refreshed(request, Err(told)));
    };
    fail(&mut desk);
    let screen = desk.screen();
    assert!(
        screen.contains("the store is unreachable; the list remains as it was"),
        "{screen}"
    );
    assert!(screen.contains("unreachable for 0s"), "{screen}");
    assert_eq!(desk.model.dumps.visible_len(), 30);
    desk.model.message = None;
    fail(&mut desk);
    assert!(desk.model.message.is_none(), "once");
    come(&mut desk, vec![new(0)]);
    assert!(!desk.screen().contains("unreachable"));
    assert_eq!(desk.model.dumps.visible_len(), 31);
}

#[test]
fn refresh_lists_the_whole_store_when_a_lost_one_is_back() {
    let mut desk = desk(30);
    desk.press("r");
    let failed = told("timeout", "check the network", ExitStatus::Unreachable);
    desk.send(Msg::Listed(desk.model.listing, Listing::Failed(failed)));
    assert!(desk.model.lost.is_some());
    let lists = |desk: &Desk| {
        desk.asked
            .iter()
            .filter(|e| matches!(e, Effect::List(_)))
            .count()
    };
    let before = lists(&desk);
    come(&mut desk, vec![new(0)]);
    assert_eq!(lists(&desk), before + 1);
}

#[test]
fn refresh_groups_again_and_the_cursor_stays_on_its_group() {
    let mut desk = desk(30);
    desk.press("g down down");
    assert_eq!(*desk.model.screen(), Screen::Groups);
    let chosen = desk.model.groups.selected().unwrap().clone();
    let mut others: Vec<DumpSummary> = (0..5).map(new).collect();
    for dump in &mut others {
        dump.fingerprint = Some("feedbeef".to_owned());
        (dump.exe, dump.signal) = ("api".into(), "SIGSEGV".to_owned());
    }
    come(&mut desk, others);
    assert_eq!(desk.model.groups.list[0].count, 5);
    assert!(desk.model.groups.list[0].is_new);
    assert_eq!(
        desk.model.groups.selected().unwrap().crash(),
        chosen.crash()
    );
    let screen = desk.screen();
    assert!(screen.lines().any(|line| line.starts_with('+')), "{screen}");
}

#[test]
fn store_that_was_deleted_is_a_banner_until_it_can_be_listed_again() {
    let mut desk = desk(30);
    desk.pass(60_000);
    let request = *asked(&desk).last().unwrap();
    let gone = told("the store was deleted", "r", ExitStatus::Failure);
    desk.send(Msg::Refreshed(request, Err(gone)));
    desk.model.message = None;
    let screen = desk.screen();
    assert!(
        screen.contains("the store cannot be listed: the store was deleted"),
        "{screen}"
    );
    assert_eq!(desk.model.dumps.visible_len(), 30);
    come(&mut desk, vec![new(0)]);
    assert!(!desk.screen().contains("cannot be listed"));
}
