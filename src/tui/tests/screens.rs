//! Screens at several sizes, as pictures made of text.

use super::desk::{Desk, told};
use super::dump;
use crate::report::ExitStatus;
use crate::tui::model::{Listing, Place};
use crate::tui::msg::Msg;

const NARROW: (u16, u16) = (80, 24);
const WIDE: (u16, u16) = (160, 45);

/// Keys that lead to each picture.
const VIEWS: [(&str, &str); 15] = [
    ("dumps", "down down space"),
    ("groups", "g"),
    ("backtrace", "enter down down"),
    ("info", "enter 2"),
    ("workload", "enter 3"),
    ("logs", "enter 4"),
    ("modules", "enter 5"),
    ("memory", "enter 6"),
    ("registers", "enter 7"),
    ("manifest", "enter 8"),
    ("transfers", "f down f t"),
    ("diff", "space space D"),
    ("stores", "s"),
    ("help", "?"),
    ("delete", "space space x"),
];

#[test]
fn views_look_as_they_did() {
    for (size, name) in [(NARROW, "80x24"), (WIDE, "160x45")] {
        for (view, keys) in VIEWS {
            let mut desk = Desk::full(size, 330);
            desk.press(keys);
            desk.rest();
            // What is said at the bottom is of no interest here.
            desk.model.message = None;
            insta::assert_snapshot!(format!("{view}_{name}"), desk.screen());
        }
    }
}

#[test]
fn filter_is_shown_while_it_is_typed() {
    let mut desk = Desk::full(NARROW, 330);
    desk.press("/");
    insta::assert_snapshot!("filter_begins", desk.screen());
    desk.type_text("namespace:payments signal:SEGV wor");
    insta::assert_snapshot!("filter_typed", desk.screen());
}

#[test]
fn empty_and_broken_stores_teach() {
    let mut desk = Desk::new(NARROW);
    insta::assert_snapshot!("listing", desk.screen());
    desk.list(Vec::new());
    insta::assert_snapshot!("empty", desk.screen());
    desk.model.place = Place {
        store: "/var/lib/cdh/store".to_owned(),
        is_default: true,
        stores: Vec::new(),
    };
    insta::assert_snapshot!("empty_default", desk.screen());
    desk.list((0..30).map(dump).collect());
    desk.press("/");
    desk.type_text("nothing like it");
    desk.press("enter");
    insta::assert_snapshot!("unmatched", desk.screen());
    let mut desk = Desk::new(NARROW);
    let failed = told(
        "no permission for s3://crashes: AccessDenied",
        "check the credentials",
        ExitStatus::Failure,
    );
    desk.send(Msg::Listed(desk.model.listing, Listing::Failed(failed)));
    insta::assert_snapshot!("denied", desk.screen());
    let mut desk = Desk::full(NARROW, 30);
    let failed = told(
        "s3://crashes cannot be reached: timeout",
        "check the network",
        ExitStatus::Unreachable,
    );
    desk.press("r");
    desk.send(Msg::Listed(desk.model.listing, Listing::Failed(failed)));
    insta::assert_snapshot!("lost", desk.screen());
}

#[test]
fn ascii_screens_hold_nothing_but_ascii() {
    for (view, keys) in VIEWS {
        let mut desk = Desk::with(WIDE, true, true);
        let mut dumps: Vec<_> = (0..60).map(dump).collect();
        dumps[1].pod = Some("größe-日本".to_owned());
        desk.list(dumps);
        desk.rest();
        desk.press(keys);
        desk.rest();
        let screen = desk.screen();
        assert!(screen.is_ascii(), "{view}: {screen}");
        if view == "groups" || view == "help" {
            insta::assert_snapshot!(format!("{view}_ascii"), screen);
        }
    }
}

#[test]
fn without_colours_no_cell_has_one() {
    for (view, keys) in VIEWS {
        let mut desk = Desk::with(NARROW, false, false);
        desk.list((0..60).map(dump).collect());
        desk.rest();
        desk.press(keys);
        desk.rest();
        use ratatui::style::Color;
        for cell in &desk.buffer().content {
            assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset), "{view}");
        }
    }
}

#[test]
fn colours_are_of_the_sixteen_that_both_backgrounds_bear() {
    use ratatui::style::Color;
    let good = [
        Color::Reset,
        Color::Red,
        Color::Green,
        Color::Magenta,
        Color::Cyan,
    ];
    for (view, keys) in VIEWS {
        let mut desk = Desk::full(WIDE, 60);
        desk.press(keys);
        for cell in &desk.buffer().content {
            assert!(
                good.contains(&cell.fg) && good.contains(&cell.bg),
                "{view}: {cell:?}"
            );
        }
    }
}

#[test]
fn every_view_fits_every_size() {
    for (view, keys) in VIEWS {
        let mut desk = Desk::full(NARROW, 60);
        desk.press(keys);
        for width in [1, 5, 20, 21, 39, 59, 60, 79, 119, 121, 200, 400] {
            for height in [1, 5, 6, 7, 12, 29, 30, 31, 60] {
                desk.send(Msg::Resize(width, height));
                let screen = desk.screen();
                assert!(!screen.trim().is_empty(), "{view} {width}x{height}");
            }
        }
    }
    let mut desk = Desk::full((40, 10), 60);
    desk.rest();
    insta::assert_snapshot!("dumps_40x10", desk.screen());
}

#[test]
fn hostile_names_never_reach_the_terminal() {
    let evil = "a\x1b]52;c;ZXZpbA==\x07\x1b[31m\u{202e}\u{9b}2J\r\nb\u{200f}";
    for (view, keys) in VIEWS {
        let mut desk = Desk::new(WIDE);
        desk.model.place.store = evil.to_owned();
        let mut dumps: Vec<_> = (0..10).map(dump).collect();
        for dump in &mut dumps {
            dump.namespace = Some(evil.to_owned());
            dump.pod = Some(evil.to_owned());
            dump.exe = evil.into();
            dump.signal = evil.to_owned();
            dump.verdict = evil.to_owned();
            dump.fingerprint = Some(evil.to_owned());
        }
        desk.list(dumps);
        desk.rest();
        desk.press(keys);
        desk.rest();
        for cell in &desk.buffer().content {
            let symbol = cell.symbol();
            let harmful = |c: char| {
                c.is_control()
                    || ('\u{200e}'..='\u{200f}').contains(&c)
                    || ('\u{202a}'..='\u{202e}').contains(&c)
            };
            assert!(!symbol.chars().any(harmful), "{view}: {symbol:?}");
        }
    }
}
