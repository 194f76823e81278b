//! The source pane, and the mapping from lines of the backtrace to frames.

use std::sync::Arc;

use cdh_cause::{Cause, Class, ListedInstruction, Listing};
use cdh_elfcore::Avma;

use super::test_tui::TestTui;
use crate::tui::model::Stacks;
use crate::tui::msg::{Effect, Msg};

const SIZE: (u16, u16) = (120, 40);

fn frames_asked(tui: &TestTui) -> Vec<u32> {
    let lines = tui.asked.iter().filter_map(|effect| match effect {
        Effect::Source(_, wanted) => Some(wanted.line),
        _ => None,
    });
    lines.collect()
}

#[test]
fn source_pane_shows_warnings_and_why_there_is_no_source() {
    let mut tui = TestTui::full(SIZE, 5);
    tui.press("enter");
    tui.rest();
    let view = tui.model.dump.as_mut().unwrap();
    let source = view.source.as_mut().unwrap();
    source.warnings = vec!["app.c is newer than the program".to_owned()];
    let screen = tui.screen();
    assert!(
        screen.contains("warning: app.c is newer than the program"),
        "{screen}"
    );
    assert!(screen.contains("    line 7;"), "{screen}");
    let view = tui.model.dump.as_mut().unwrap();
    view.source.as_mut().unwrap().lines = Err("no file of that name is below `/x`".to_owned());
    let screen = tui.screen();
    assert!(
        screen.contains("source is not shown: no file of that name is below `/x`"),
        "{screen}"
    );
}

#[test]
fn source_cursor_maps_to_frames_below_a_folded_recursion() {
    let mut tui = TestTui::full(SIZE, 5);
    tui.press("enter");
    tui.rest();
    let id = tui.model.dump.as_ref().unwrap().dump.id;
    let mut stacks = Stacks::clone(tui.model.known.stacks(id).unwrap());
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
    tui.asked.clear();
    let request = tui.model.request();
    tui.send(Msg::Stacks(request, id, Ok(Arc::new(stacks))));
    let screen = tui.screen();
    assert!(
        screen.contains("the one above repeats 499 times"),
        "{screen}"
    );
    tui.press("down down down down down down down down down down");
    tui.press("up up");
    tui.rest();
    assert!(
        frames_asked(&tui).contains(&last),
        "{:?}",
        frames_asked(&tui)
    );
}

#[test]
fn instructions_replace_the_source_of_a_frame_and_the_cause_is_the_first_line() {
    let mut tui = TestTui::full(SIZE, 5);
    tui.press("enter");
    tui.rest();
    let id = tui.model.dump.as_ref().unwrap().dump.id;
    let mut stacks = Stacks::clone(tui.model.known.stacks(id).unwrap());
    let shown = |address: u64, text: &str, current: bool| ListedInstruction {
        address: Avma(address),
        text: text.to_owned(),
        current,
        values: Vec::new(),
    };
    let listing = Listing {
        instructions: vec![
            shown(0x10, "push rbp", false),
            shown(0x11, "mov eax, [rdi]", true),
        ],
        guessed: false,
    };
    stacks.listings = vec![Some(listing); stacks.backtrace.threads[0].frames.len()];
    stacks.cause = Some(Cause {
        class: Class::NullPointer,
        sentence: "`f` tried to read through a null pointer.".to_owned(),
        facts: Vec::new(),
    });
    let request = tui.model.request();
    tui.send(Msg::Stacks(request, id, Ok(Arc::new(stacks))));
    let screen = tui.screen();
    assert!(
        screen.contains("`f` tried to read through a null pointer."),
        "{screen}"
    );
    assert!(!screen.contains("mov eax, [rdi]"), "{screen}");
    tui.press("a");
    let screen = tui.screen();
    assert!(
        screen.contains("> 0x0000000000000011 mov eax, [rdi]"),
        "{screen}"
    );
    tui.press("a");
    assert!(!tui.screen().contains("mov eax, [rdi]"));
}
