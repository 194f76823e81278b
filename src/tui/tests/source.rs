//! The pane with the source, and which frame a line of the backtrace is.

use std::sync::Arc;

use super::desk::Desk;
use crate::tui::model::Stacks;
use crate::tui::msg::{Effect, Msg};

const SIZE: (u16, u16) = (120, 40);

fn frames_asked(desk: &Desk) -> Vec<u32> {
    let lines = desk.asked.iter().filter_map(|effect| match effect {
        Effect::Source(_, wanted) => Some(wanted.line),
        _ => None,
    });
    lines.collect()
}

#[test]
fn source_pane_shows_warnings_and_why_there_is_no_source() {
    let mut desk = Desk::full(SIZE, 5);
    desk.press("enter");
    desk.rest();
    let view = desk.model.dump.as_mut().unwrap();
    let source = view.source.as_mut().unwrap();
    source.warnings = vec!["app.c is newer than the program".to_owned()];
    let screen = desk.screen();
    assert!(
        screen.contains("warning: app.c is newer than the program"),
        "{screen}"
    );
    assert!(screen.contains("    line 7;"), "{screen}");
    let view = desk.model.dump.as_mut().unwrap();
    view.source.as_mut().unwrap().lines = Err("no file of that name is below `/x`".to_owned());
    let screen = desk.screen();
    assert!(
        screen.contains("source is not shown: no file of that name is below `/x`"),
        "{screen}"
    );
}

#[test]
fn cursor_finds_its_frame_below_a_folded_recursion() {
    let mut desk = Desk::full(SIZE, 5);
    desk.press("enter");
    desk.rest();
    let id = desk.model.dump.as_ref().unwrap().dump.id;
    let mut stacks = Stacks::clone(desk.model.known.stacks(id).unwrap());
    let thread = &mut stacks.backtrace.threads[0];
    let at = thread
        .frames
        .iter()
        .position(|frame| frame.location.is_some() && !frame.inline);
    let at = at.unwrap();
    let repeated = thread.frames[at].clone();
    for _ in 0..500 {
        thread.frames.insert(at, repeated.clone());
    }
    let last = thread
        .frames
        .iter()
        .filter_map(|frame| frame.location.as_ref());
    let last = last.map(|place| place.line).max().unwrap();
    desk.asked.clear();
    let request = desk.model.request();
    desk.send(Msg::Stacks(request, id, Ok(Arc::new(stacks))));
    let screen = desk.screen();
    assert!(
        screen.contains("the one above repeats 499 times"),
        "{screen}"
    );
    desk.press("down down down down down down down down down down");
    desk.press("up up");
    desk.rest();
    assert!(
        frames_asked(&desk).contains(&last),
        "{:?}",
        frames_asked(&desk)
    );
}
