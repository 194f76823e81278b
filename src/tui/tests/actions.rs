//! What keys make of dumps: debuggers, deletions, transfers, comparisons, and what is said when it fails.

use super::desk::{Desk, told};
use super::dump;
use crate::report::ExitStatus;
use crate::tui::model::{Listing, Overlay, Screen, State};
use crate::tui::msg::{Effect, Fetched, Msg};

const SIZE: (u16, u16) = (80, 24);

impl Desk {
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
fn debugger_gets_the_terminal_as_soon_as_the_dump_is_here() {
    let mut desk = Desk::full(SIZE, 5);
    desk.answers = false;
    desk.press("d");
    let Some(Effect::Transfer(id, ..)) = desk.last().cloned() else {
        panic!("{:?}", desk.last());
    };
    assert!(matches!(desk.model.overlay, Some(Overlay::Waiting(_))));
    desk.answers = true;
    desk.answer_transfer(id);
    assert!(matches!(desk.last(), Some(Effect::Debug(..))));
    assert!(desk.model.overlay.is_none() && desk.model.redraw);
    assert_eq!(*desk.model.screen(), Screen::Dumps { restore: None });
}

#[test]
fn debugger_that_nobody_waits_for_is_not_started() {
    let mut desk = Desk::full(SIZE, 5);
    desk.answers = false;
    desk.press("d");
    let Some(Effect::Transfer(id, ..)) = desk.last().cloned() else {
        panic!("{:?}", desk.last());
    };
    desk.press("esc");
    assert_eq!(desk.last(), Some(&Effect::Cancel(id)));
    desk.answer_transfer(id);
    assert!(
        !desk
            .asked
            .iter()
            .any(|effect| matches!(effect, Effect::Debug(..)))
    );
}

#[test]
fn missing_debugger_is_told_with_what_mends_it() {
    let mut desk = Desk::full(SIZE, 5);
    desk.answers = false;
    desk.press("d");
    let Some(Effect::Transfer(id, ..)) = desk.last().cloned() else {
        panic!("{:?}", desk.last());
    };
    let told = told(
        "`gdb` is not installed",
        "install it with `apt install gdb`",
        ExitStatus::Failure,
    );
    desk.send(Msg::Ended(id, Err(told)));
    let screen = desk.screen();
    assert!(
        screen.contains("The debugger cannot be started"),
        "{screen}"
    );
    assert!(screen.contains("apt install gdb"), "{screen}");
    desk.press("esc");
    assert!(desk.model.overlay.is_none());
}

#[test]
fn nothing_is_deleted_without_an_answer() {
    let mut desk = Desk::full(SIZE, 20);
    desk.press("space space x");
    let deleted = |desk: &Desk| {
        desk.asked
            .iter()
            .filter(|e| matches!(e, Effect::Delete(_)))
            .count()
    };
    for key in ["j", "enter"] {
        desk.press(key);
        assert_eq!(deleted(&desk), 0);
    }
    assert!(desk.model.overlay.is_none());
    desk.press("x y");
    assert_eq!(deleted(&desk), 2);
    assert_eq!(desk.model.dumps.total(), 18);
    assert!(desk.model.dumps.marks.is_empty());
}

#[test]
fn lost_connection_is_a_banner_and_a_key_tries_again() {
    let mut desk = Desk::full(SIZE, 20);
    desk.press("r");
    let told = told(
        "s3://crashes cannot be reached",
        "check the network",
        ExitStatus::Unreachable,
    );
    desk.send(Msg::Listed(desk.model.listing, Listing::Failed(told)));
    let screen = desk.screen();
    assert!(
        screen.contains("cannot be reached") && screen.contains("`r` tries again"),
        "{screen}"
    );
    assert_eq!(desk.model.dumps.visible_len(), 20, "what was listed stays");
    desk.press("r");
    desk.list((0..25).map(dump).collect());
    assert!(!desk.screen().contains("cannot be reached"));
    assert_eq!(desk.model.dumps.visible_len(), 25);
}

#[test]
fn transfers_show_their_progress_and_can_be_cancelled() {
    let mut desk = Desk::full(SIZE, 20);
    desk.answers = false;
    desk.press("f");
    let Some(Effect::Transfer(id, ..)) = desk.last().cloned() else {
        panic!("{:?}", desk.last());
    };
    desk.press("t");
    desk.send(Msg::Began(id, "fetching".to_owned(), Some(10 << 20)));
    desk.pass(1000);
    desk.send(Msg::Advanced(id, 4 << 20));
    let screen = desk.screen();
    assert!(screen.contains(" 40 %  4.0 MiB of 10.0 MiB"), "{screen}");
    assert!(
        screen.contains("MiB/s") && screen.contains("s left"),
        "{screen}"
    );
    desk.press("q");
    assert!(matches!(desk.model.overlay, Some(Overlay::Quit)));
    desk.press("n c");
    assert_eq!(desk.last(), Some(&Effect::Cancel(id)));
    assert_eq!(
        desk.model.transfers.get(id).unwrap().state,
        State::Cancelled
    );
    // What comes after that changes nothing.
    desk.send(Msg::Began(id, "fetching".to_owned(), None));
    assert!(!desk.model.transfers.get(id).unwrap().is_active());
    desk.press("c");
    assert!(desk.model.transfers.list.is_empty());
    desk.press("q");
    assert!(desk.model.quit);
}

#[test]
fn two_marked_dumps_are_compared_the_older_first() {
    let mut desk = Desk::full(SIZE, 20);
    desk.press("D");
    assert!(desk.screen().contains("mark two dumps"));
    desk.press("space space D");
    assert_eq!(*desk.model.screen(), Screen::Diff);
    let screen = desk.screen();
    assert!(
        screen.contains("- 00000001") && screen.contains("+ 00000000"),
        "{screen}"
    );
    let text = desk.model.diff.as_ref().unwrap().page.text();
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
