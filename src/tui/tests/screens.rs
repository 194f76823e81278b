//! Snapshots of screens at several sizes.

use super::dump;
use super::test_tui::{TestTui, failure};
use crate::report::ExitStatus;
use crate::tui::model::{Listing, StoreLocation};
use crate::tui::msg::Msg;

const NARROW: (u16, u16) = (80, 24);
const WIDE: (u16, u16) = (160, 45);

/// Keys that lead to each view.
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
fn screens_match_their_snapshots() {
    for (size, name) in [(NARROW, "80x24"), (WIDE, "160x45")] {
        for (view, keys) in VIEWS {
            let mut tui = TestTui::full(size, 330);
            tui.press(keys);
            tui.rest();
            // Messages in the status line are not part of these snapshots.
            tui.model.message = None;
            insta::assert_snapshot!(format!("{view}_{name}"), tui.screen());
        }
    }
}

#[test]
fn screens_show_the_filter_while_it_is_typed() {
    let mut tui = TestTui::full(NARROW, 330);
    tui.press("/");
    insta::assert_snapshot!("filter_begins", tui.screen());
    tui.type_text("namespace:payments signal:SEGV wor");
    insta::assert_snapshot!("filter_typed", tui.screen());
}

#[test]
fn screens_of_empty_and_broken_stores_suggest_commands() {
    let mut tui = TestTui::new(NARROW);
    insta::assert_snapshot!("listing", tui.screen());
    tui.list(Vec::new());
    insta::assert_snapshot!("empty", tui.screen());
    tui.model.place = StoreLocation {
        store: "/var/lib/cdh/store".to_owned(),
        is_default: true,
        stores: Vec::new(),
    };
    insta::assert_snapshot!("empty_default", tui.screen());
    tui.list((0..30).map(dump).collect());
    tui.press("/");
    tui.type_text("nothing like it");
    tui.press("enter");
    insta::assert_snapshot!("unmatched", tui.screen());
    let mut tui = TestTui::new(NARROW);
    let failed = failure(
        "no permission for s3://crashes: AccessDenied",
        "check the credentials",
        ExitStatus::Failure,
    );
    tui.send(Msg::Listed(tui.model.listing, Listing::Failed(failed)));
    insta::assert_snapshot!("denied", tui.screen());
    let mut tui = TestTui::full(NARROW, 30);
    let failed = failure(
        "s3://crashes cannot be reached: timeout",
        "check the network",
        ExitStatus::Unreachable,
    );
    tui.press("r");
    tui.send(Msg::Listed(tui.model.listing, Listing::Failed(failed)));
    insta::assert_snapshot!("lost", tui.screen());
}

#[test]
fn screens_with_ascii_contain_only_ascii() {
    for (view, keys) in VIEWS {
        let mut tui = TestTui::with(WIDE, true, true);
        let mut dumps: Vec<_> = (0..60).map(dump).collect();
        dumps[1].pod = Some("größe-日本".to_owned());
        tui.list(dumps);
        tui.rest();
        tui.press(keys);
        tui.rest();
        let screen = tui.screen();
        assert!(screen.is_ascii(), "{view}: {screen}");
        if view == "groups" || view == "help" {
            insta::assert_snapshot!(format!("{view}_ascii"), screen);
        }
    }
}

#[test]
fn screens_without_colours_have_no_coloured_cell() {
    for (view, keys) in VIEWS {
        let mut tui = TestTui::with(NARROW, false, false);
        tui.list((0..60).map(dump).collect());
        tui.rest();
        tui.press(keys);
        tui.rest();
        use ratatui::style::Color;
        for cell in &tui.buffer().content {
            assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset), "{view}");
        }
    }
}

#[test]
fn screens_use_colours_readable_on_both_backgrounds() {
    use ratatui::style::Color;
    let good = [
        Color::Reset,
        Color::Red,
        Color::Green,
        Color::Magenta,
        Color::Cyan,
    ];
    for (view, keys) in VIEWS {
        let mut tui = TestTui::full(WIDE, 60);
        tui.press(keys);
        for cell in &tui.buffer().content {
            assert!(
                good.contains(&cell.fg) && good.contains(&cell.bg),
                "{view}: {cell:?}"
            );
        }
    }
}

#[test]
fn screens_fit_every_terminal_size() {
    for (view, keys) in VIEWS {
        let mut tui = TestTui::full(NARROW, 60);
        tui.press(keys);
        for width in [1, 5, 20, 21, 39, 59, 60, 79, 119, 121, 200, 400] {
            for height in [1, 5, 6, 7, 12, 29, 30, 31, 60] {
                tui.send(Msg::Resize(width, height));
                let screen = tui.screen();
                assert!(!screen.trim().is_empty(), "{view} {width}x{height}");
            }
        }
    }
    let mut tui = TestTui::full((40, 10), 60);
    tui.rest();
    insta::assert_snapshot!("dumps_40x10", tui.screen());
}

#[test]
fn screens_escape_hostile_names() {
    let evil = "a\x1b]52;c;ZXZpbA==\x07\x1b[31m\u{202e}\u{9b}2J\r\nb\u{200f}";
    for (view, keys) in VIEWS {
        let mut tui = TestTui::new(WIDE);
        tui.model.place.store = evil.to_owned();
        let mut dumps: Vec<_> = (0..10).map(dump).collect();
        for dump in &mut dumps {
            dump.namespace = Some(evil.to_owned());
            dump.pod = Some(evil.to_owned());
            dump.exe = evil.into();
            dump.signal = evil.to_owned();
            dump.verdict = evil.to_owned();
            dump.fingerprint = Some(evil.to_owned());
        }
        tui.list(dumps);
        tui.rest();
        tui.press(keys);
        tui.rest();
        for cell in &tui.buffer().content {
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
