//! Keys that act on dumps: debugger, delete, transfer, compare, and the messages on failure.

use super::dump;
use super::test_tui::{TestTui, failure};
use crate::report::ExitStatus;
use crate::tui::model::{Listing, Overlay, Screen, State};
use crate::tui::msg::{Effect, Fetched, Msg};

const SIZE: (u16, u16) = (80, 24);

impl TestTui {
    fn answer_transfer(&mut self, id: crate::tui::model::TransferId) {
        let view = crate::pipeline::DebugView {
            executable: None,
            started: None,
            placed: Vec::new(),
            core: "/core".into(),
            sysroot: "/root".into(),
            library_directories: Vec::new(),
            debug_directory: "/debug".into(),
            offline: false,
            in_use: None,
        };
        let invocation = crate::debugger::Invocation::new("gdb", &view, &[]);
        self.send(Msg::Ended(id, Ok(Fetched::Ready(Box::new(invocation)))));
    }
}

#[test]
fn debugger_starts_when_the_transfer_ends() {
    let mut tui = TestTui::full(SIZE, 5);
    tui.answers = false;
    tui.press("d");
    let Some(Effect::Transfer(id, ..)) = tui.last().cloned() else {
        panic!("{:?}", tui.last());
    };
    assert!(matches!(tui.model.overlay, Some(Overlay::Waiting(_))));
    tui.answers = true;
    tui.answer_transfer(id);
    assert!(matches!(tui.last(), Some(Effect::Debug(..))));
    assert!(tui.model.overlay.is_none() && tui.model.redraw);
    assert_eq!(*tui.model.screen(), Screen::Dumps { restore: None });
}

#[test]
fn debugger_does_not_start_after_a_cancel() {
    let mut tui = TestTui::full(SIZE, 5);
    tui.answers = false;
    tui.press("d");
    let Some(Effect::Transfer(id, ..)) = tui.last().cloned() else {
        panic!("{:?}", tui.last());
    };
    tui.press("esc");
    assert_eq!(tui.last(), Some(&Effect::Cancel(id)));
    tui.answer_transfer(id);
    assert!(
        !tui.asked
            .iter()
            .any(|effect| matches!(effect, Effect::Debug(..)))
    );
}

#[test]
fn missing_debugger_is_reported_with_a_fix() {
    let mut tui = TestTui::full(SIZE, 5);
    tui.answers = false;
    tui.press("d");
    let Some(Effect::Transfer(id, ..)) = tui.last().cloned() else {
        panic!("{:?}", tui.last());
    };
    let failure = failure(
        "`gdb` is not installed",
        "install it with `apt install gdb`",
        ExitStatus::Failure,
    );
    tui.send(Msg::Ended(id, Err(failure)));
    let screen = tui.screen();
    assert!(
        screen.contains("The debugger cannot be started"),
        "{screen}"
    );
    assert!(screen.contains("apt install gdb"), "{screen}");
    tui.press("esc");
    assert!(tui.model.overlay.is_none());
}

#[test]
fn delete_requires_a_confirmation() {
    let mut tui = TestTui::full(SIZE, 20);
    tui.press("space space x");
    let deleted = |tui: &TestTui| {
        tui.asked
            .iter()
            .filter(|e| matches!(e, Effect::Delete(_)))
            .count()
    };
    for key in ["j", "enter"] {
        tui.press(key);
        assert_eq!(deleted(&tui), 0);
    }
    assert!(tui.model.overlay.is_none());
    tui.press("x y");
    assert_eq!(deleted(&tui), 2);
    assert_eq!(tui.model.dumps.total(), 18);
    assert!(tui.model.dumps.marks.is_empty());
}

#[test]
fn lost_connection_shows_a_banner_and_r_retries() {
    let mut tui = TestTui::full(SIZE, 20);
    tui.press("r");
    let failure = failure(
        "s3://crashes cannot be reached",
        "check the network",
        ExitStatus::Unreachable,
    );
    tui.send(Msg::Listed(tui.model.listing, Listing::Failed(failure)));
    let screen = tui.screen();
    assert!(
        screen.contains("cannot be reached") && screen.contains("`r` tries again"),
        "{screen}"
    );
    assert_eq!(tui.model.dumps.visible_len(), 20, "what was listed stays");
    tui.press("r");
    tui.list((0..25).map(dump).collect());
    assert!(!tui.screen().contains("cannot be reached"));
    assert_eq!(tui.model.dumps.visible_len(), 25);
}

#[test]
fn transfers_show_their_progress_and_can_be_cancelled() {
    let mut tui = TestTui::full(SIZE, 20);
    tui.answers = false;
    tui.press("f");
    let Some(Effect::Transfer(id, ..)) = tui.last().cloned() else {
        panic!("{:?}", tui.last());
    };
    tui.press("t");
    tui.send(Msg::Began(id, "fetching".to_owned(), Some(10 << 20)));
    tui.pass(1000);
    tui.send(Msg::Advanced(id, 4 << 20));
    let screen = tui.screen();
    assert!(screen.contains(" 40 %  4.0 MiB of 10.0 MiB"), "{screen}");
    assert!(
        screen.contains("MiB/s") && screen.contains("s left"),
        "{screen}"
    );
    tui.press("q");
    assert!(matches!(tui.model.overlay, Some(Overlay::Quit)));
    tui.press("n c");
    assert_eq!(tui.last(), Some(&Effect::Cancel(id)));
    assert_eq!(tui.model.transfers.get(id).unwrap().state, State::Cancelled);
    // Later progress messages have no effect.
    tui.send(Msg::Began(id, "fetching".to_owned(), None));
    assert!(!tui.model.transfers.get(id).unwrap().is_active());
    tui.press("c");
    assert!(tui.model.transfers.list.is_empty());
    tui.press("q");
    assert!(tui.model.quit);
}

#[test]
fn diff_compares_two_marked_dumps_oldest_first() {
    let mut tui = TestTui::full(SIZE, 20);
    tui.press("D");
    assert!(tui.screen().contains("mark two dumps"));
    tui.press("space space D");
    assert_eq!(*tui.model.screen(), Screen::Diff);
    let screen = tui.screen();
    assert!(
        screen.contains("- 00000001") && screen.contains("+ 00000000"),
        "{screen}"
    );
    let text = tui.model.diff.as_ref().unwrap().page.text();
    assert!(
        text.contains("- #1   crash_51a70001 at orders.c:12"),
        "{text}"
    );
    assert!(
        text.contains("+ #1   crash_51a70000 at orders.c:12"),
        "{text}"
    );
    assert!(text.contains("2 are the same"), "{text}");
}
