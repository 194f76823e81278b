//! The automatic refresh: its requests, its new rows, and what it must not change.

use cdh_store::DumpSummary;
use jiff::SignedDuration;

use super::test_tui::{TestTui, failure};
use super::{dump, now};
use crate::report::ExitStatus;
use crate::tui::model::{AT_ONCE, Listing, RequestId, Row, Screen};
use crate::tui::msg::{Effect, Msg};

const SIZE: (u16, u16) = (80, 24);

/// A TUI with a refresh every five seconds.
fn tui(dumps: usize) -> TestTui {
    let mut tui = TestTui::full(SIZE, dumps);
    tui.model.refresh.interval = 5000;
    tui
}

/// A dump that was just captured.
fn new(n: usize) -> DumpSummary {
    let mut new = dump(10_000 + n);
    new.captured_at = now() - SignedDuration::from_secs(n as i64);
    new
}

fn asked(tui: &TestTui) -> Vec<RequestId> {
    let asked = tui.asked.iter().filter_map(|effect| match effect {
        Effect::Refresh(request, _) => Some(*request),
        _ => None,
    });
    asked.collect()
}

fn come(tui: &mut TestTui, dumps: Vec<DumpSummary>) {
    tui.pass(60_000);
    let request = *asked(tui).last().unwrap();
    let rows = dumps.into_iter().map(Row::new).collect();
    tui.send(Msg::Refreshed(request, Ok(rows)));
}

fn shown(tui: &TestTui, at: usize) -> DumpSummary {
    tui.model.dumps.get(at).unwrap().clone()
}

#[test]
fn refresh_runs_only_while_the_user_is_idle() {
    let mut tui = tui(30);
    tui.press("down");
    tui.pass(1000);
    assert!(asked(&tui).is_empty(), "a key was pressed just now");
    tui.pass(6000);
    assert_eq!(asked(&tui).len(), 1);
    tui.pass(60_000);
    assert_eq!(asked(&tui).len(), 1, "one at a time");
    let request = asked(&tui)[0];
    tui.send(Msg::Refreshed(request, Ok(Vec::new())));
    tui.press("/");
    tui.pass(60_000);
    assert_eq!(asked(&tui).len(), 1, "a filter is being typed");
    tui.press("esc x");
    tui.pass(60_000);
    assert_eq!(asked(&tui).len(), 1, "a question is open");
    tui.press("n");
    tui.type_text(":refresh 0");
    tui.press("enter");
    tui.pass(60_000);
    assert_eq!(asked(&tui).len(), 1, "it is turned off");
    tui.type_text(":refresh 2");
    tui.press("enter");
    tui.pass(60_000);
    assert_eq!(asked(&tui).len(), 2);
}

#[test]
fn refresh_marks_new_rows_and_the_cursor_stays_on_its_dump() {
    let mut tui = tui(30);
    let chosen = shown(&tui, 0);
    // Known dumps are listed again.
    come(&mut tui, vec![new(0), new(1), dump(0), dump(5)]);
    assert_eq!(tui.model.dumps.total(), 32);
    assert_eq!(shown(&tui, 0).id, new(0).id);
    assert_eq!(tui.model.dumps.selected().unwrap().id, chosen.id);
    assert_eq!((tui.model.dumps.cursor, tui.model.dumps.top), (2, 0));
    let screen = tui.screen();
    assert!(screen.contains("2 new"), "{screen}");
    assert_eq!(
        screen.lines().filter(|line| line.starts_with(" +")).count(),
        2
    );
    tui.press("up");
    assert!(tui.screen().contains("1 new"));
    tui.press("up");
    assert!(!tui.screen().contains("1 new"), "{}", tui.screen());
    come(&mut tui, vec![new(2)]);
    assert!(tui.screen().contains("1 new"));
    tui.pass(60_001);
    assert!(!tui.screen().contains("1 new"), "marks go with time");
}

#[test]
fn refresh_does_not_scroll_the_list() {
    for count in [200, AT_ONCE + 500] {
        let mut tui = tui(count);
        for _ in 0..60 {
            tui.press("down");
        }
        for _ in 0..5 {
            tui.press("up");
        }
        let rows = |tui: &TestTui| -> Vec<String> {
            let screen = tui.screen();
            screen.lines().skip(2).take(19).map(str::to_owned).collect()
        };
        let before = rows(&tui);
        come(&mut tui, (0..7).map(new).collect());
        assert_eq!(rows(&tui), before, "{count}");
        assert_eq!(tui.model.dumps.cursor, 62);
    }
}

#[test]
fn refresh_keeps_filter_and_order() {
    let mut tui = tui(200);
    tui.type_text(":filter exe:api");
    tui.press("enter");
    tui.type_text(":sort size");
    tui.press("enter");
    let before = tui.model.dumps.visible_len();
    come(&mut tui, (0..8).map(new).collect());
    assert_eq!(tui.model.dumps.visible_len(), before + 2);
    let sizes: Vec<_> = tui.model.dumps.visible().map(|dump| dump.size).collect();
    assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
    tui.press("esc");
    assert_eq!(tui.model.dumps.visible_len(), 208);
}

#[test]
fn refresh_failure_is_shown_once_and_keeps_the_list() {
    let mut tui = tui(30);
    let fail = |tui: &mut TestTui| {
        tui.pass(60_000);
        let request = *asked(tui).last().unwrap();
        let failure = failure("timeout", "check the network", ExitStatus::Unreachable);
        tui.send(Msg::Refreshed(request, Err(failure)));
    };
    fail(&mut tui);
    let screen = tui.screen();
    assert!(
        screen.contains("the store is unreachable; the list remains as it was"),
        "{screen}"
    );
    assert!(screen.contains("unreachable for 0s"), "{screen}");
    assert_eq!(tui.model.dumps.visible_len(), 30);
    tui.model.message = None;
    fail(&mut tui);
    assert!(tui.model.message.is_none(), "once");
    come(&mut tui, vec![new(0)]);
    assert!(!tui.screen().contains("unreachable"));
    assert_eq!(tui.model.dumps.visible_len(), 31);
}

#[test]
fn refresh_lists_the_complete_store_after_a_lost_connection() {
    let mut tui = tui(30);
    tui.press("r");
    let failed = failure("timeout", "check the network", ExitStatus::Unreachable);
    tui.send(Msg::Listed(tui.model.listing, Listing::Failed(failed)));
    assert!(tui.model.lost.is_some());
    let lists = |tui: &TestTui| {
        tui.asked
            .iter()
            .filter(|e| matches!(e, Effect::List(_)))
            .count()
    };
    let before = lists(&tui);
    come(&mut tui, vec![new(0)]);
    assert_eq!(lists(&tui), before + 1);
}

#[test]
fn refresh_updates_groups_and_keeps_the_selected_one() {
    let mut tui = tui(30);
    tui.press("g down down");
    assert_eq!(*tui.model.screen(), Screen::Groups);
    let chosen = tui.model.groups.selected().unwrap().clone();
    let mut others: Vec<DumpSummary> = (0..5).map(new).collect();
    for dump in &mut others {
        dump.fingerprint = Some("feedbeef".to_owned());
        (dump.exe, dump.signal) = ("api".into(), "SIGSEGV".to_owned());
    }
    come(&mut tui, others);
    assert_eq!(tui.model.groups.list[0].count, 5);
    assert!(tui.model.groups.list[0].is_new);
    assert_eq!(tui.model.groups.selected().unwrap().crash(), chosen.crash());
    let screen = tui.screen();
    assert!(screen.lines().any(|line| line.starts_with('+')), "{screen}");
}

#[test]
fn refresh_shows_a_banner_while_the_store_is_deleted() {
    let mut tui = tui(30);
    tui.pass(60_000);
    let request = *asked(&tui).last().unwrap();
    let gone = failure("the store was deleted", "r", ExitStatus::Failure);
    tui.send(Msg::Refreshed(request, Err(gone)));
    tui.model.message = None;
    let screen = tui.screen();
    assert!(
        screen.contains("the store cannot be listed: the store was deleted"),
        "{screen}"
    );
    assert_eq!(tui.model.dumps.visible_len(), 30);
    come(&mut tui, vec![new(0)]);
    assert!(!tui.screen().contains("cannot be listed"));
}
