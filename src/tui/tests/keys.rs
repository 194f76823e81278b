//! Runs every key in the help, in each context that lists it, and visits every view.

use std::collections::BTreeSet;

use super::test_tui::TestTui;
use crate::tui::keymap::{Action, CONTEXTS, Context, Key, Keymap};
use crate::tui::model::{Screen, TABS};

/// Key sequences that lead to each context.
fn into(context: Context) -> Vec<&'static str> {
    match context {
        Context::Dumps => vec!["", "g"],
        Context::Groups => vec!["g"],
        Context::Group => vec!["g v", "n v"],
        Context::Dump => vec!["enter", "g b"],
        Context::Diff => vec!["space space D"],
        Context::Transfers => vec!["f t", "f down f t"],
        Context::Stores => vec!["s"],
        Context::Lists => vec!["", "g", "enter", "space space D", "f t", "s", "?"],
        Context::Everywhere => vec!["", "g", "enter", "space space D", "f t", "s"],
        Context::Prompt => vec!["/", ":", "enter /"],
        Context::Question => vec!["x"],
    }
}

fn fresh(size: (u16, u16), way: &str) -> TestTui {
    let mut tui = TestTui::full(size, 40);
    if !way.is_empty() {
        tui.press(way);
    }
    tui
}

#[test]
fn keymap_every_key_in_the_help_has_an_effect() {
    let map = Keymap::embedded();
    for context in CONTEXTS {
        for binding in map.bindings(context) {
            let mut did = false;
            for key in &binding.keys {
                for way in into(context) {
                    for prepared in prepared(binding.action) {
                        did |= acts(way, prepared, *key);
                    }
                }
            }
            assert!(did, "{context:?}: {:?} does nothing", binding.action);
        }
    }
}

/// Keys to press before an action has something to act on.
fn prepared(action: Action) -> Vec<&'static str> {
    match action {
        Action::Up | Action::First | Action::PageUp => vec!["end"],
        Action::PreviousThread => vec!["n"],
        Action::PreviousDump => vec!["J"],
        Action::ScrollLeft => vec!["right"],
        Action::FindNext => vec!["/ # enter", "/ s enter"],
        Action::Erase | Action::EraseWord | Action::EraseAll | Action::WordLeft => vec!["a"],
        Action::WordRight => vec!["a left"],
        Action::Complete => vec!["", "n"],
        Action::Older => vec!["a enter esc /"],
        Action::Newer => vec!["a enter esc / up"],
        Action::Tab1 => vec!["2"],
        Action::Backtrace => vec!["", "2"],
        Action::Diff => vec!["space space"],
        _ => vec![""],
    }
}

fn acts(way: &str, before: &str, key: Key) -> bool {
    let mut tui = fresh((80, 24), way);
    if !before.is_empty() {
        tui.press(before);
    }
    let asked = tui.asked.len();
    let at = |tui: &TestTui| tui.model.prompt.as_ref().map(|prompt| prompt.at);
    let (shown, place) = (tui.screen(), at(&tui));
    tui.send(crate::tui::msg::Msg::Key(key.event()));
    let screen = tui.screen();
    assert!(
        !screen.contains("does nothing here"),
        "{way} {before}: {}",
        key.name()
    );
    tui.model.quit || tui.asked.len() > asked || screen != shown || at(&tui) != place
}

#[test]
fn keymap_script_visits_every_view() {
    let mut tui = TestTui::full((100, 30), 60);
    let mut seen = BTreeSet::new();
    let mut visit = |tui: &TestTui| {
        let name = format!("{:?}", tui.model.screen());
        seen.insert(name.split(' ').next().unwrap_or_default().to_owned());
        assert!(
            tui.screen().contains("help"),
            "the footer shows the way to the help"
        );
    };
    visit(&tui);
    tui.press("g");
    visit(&tui);
    tui.press("v");
    visit(&tui);
    tui.press("esc enter enter");
    visit(&tui);
    for (number, tab) in TABS.into_iter().enumerate() {
        tui.press(&(number + 1).to_string());
        assert_eq!(tui.model.dump.as_ref().unwrap().tab, tab);
        let page = tui.model.dump.as_ref().unwrap().page.text();
        assert!(
            !page.trim().is_empty() && !page.contains("reading"),
            "{tab:?}: {page}"
        );
    }
    tui.press("f t");
    visit(&tui);
    tui.press("s");
    visit(&tui);
    tui.press("esc esc esc esc esc esc space space D");
    visit(&tui);
    let views = [
        "Diff",
        "Dump",
        "Dumps",
        "Group",
        "Groups",
        "Stores",
        "Transfers",
    ]
    .map(str::to_owned);
    assert_eq!(seen, views.into());
    tui.press("? end ? q");
    assert!(tui.model.quit);
    assert_eq!(*tui.model.screen(), Screen::Diff);
}

#[test]
fn commands_in_the_table_are_all_accepted() {
    for command in crate::tui::commands::COMMANDS {
        let mut tui = fresh((80, 24), "");
        let argument = match command.name {
            "dump" => "00000003",
            "sort" => "exe",
            "store" => "stage",
            "tab" => "modules",
            "filter" => "api",
            _ => "",
        };
        let shown = tui.screen();
        let asked = tui.asked.len();
        tui.type_text(&format!(":{} {argument}", command.name));
        tui.press("enter");
        let changed = tui.screen() != shown || tui.asked.len() > asked || tui.model.quit;
        let stays = command.name == "dumps";
        assert!(changed || stays, "{}", command.name);
        assert!(
            !tui.model
                .message
                .as_ref()
                .is_some_and(|message| message.bad),
            "{}",
            command.name
        );
    }
}
