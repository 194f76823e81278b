//! The key script: every view, and every key that the help names, in each context that names it.

use std::collections::BTreeSet;

use super::desk::Desk;
use crate::tui::keymap::{Action, CONTEXTS, Context, Key, Keymap};
use crate::tui::model::{Screen, TABS};

/// Ways into each context.
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

fn fresh(size: (u16, u16), way: &str) -> Desk {
    let mut desk = Desk::full(size, 40);
    if !way.is_empty() {
        desk.press(way);
    }
    desk
}

#[test]
fn every_key_of_the_help_does_something_everywhere_it_is_named() {
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

/// What must have been done before a key has something to do.
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
    let mut desk = fresh((80, 24), way);
    if !before.is_empty() {
        desk.press(before);
    }
    let asked = desk.asked.len();
    let at = |desk: &Desk| desk.model.prompt.as_ref().map(|prompt| prompt.at);
    let (shown, place) = (desk.screen(), at(&desk));
    desk.send(crate::tui::msg::Msg::Key(key.event()));
    let screen = desk.screen();
    assert!(
        !screen.contains("does nothing here"),
        "{way} {before}: {}",
        key.name()
    );
    desk.model.quit || desk.asked.len() > asked || screen != shown || at(&desk) != place
}

#[test]
fn key_script_visits_every_view() {
    let mut desk = Desk::full((100, 30), 60);
    let mut seen = BTreeSet::new();
    let mut visit = |desk: &Desk| {
        let name = format!("{:?}", desk.model.screen());
        seen.insert(name.split(' ').next().unwrap_or_default().to_owned());
        assert!(
            desk.screen().contains("help"),
            "the footer shows the way to the help"
        );
    };
    visit(&desk);
    desk.press("g");
    visit(&desk);
    desk.press("v");
    visit(&desk);
    desk.press("esc enter enter");
    visit(&desk);
    for (number, tab) in TABS.into_iter().enumerate() {
        desk.press(&(number + 1).to_string());
        assert_eq!(desk.model.dump.as_ref().unwrap().tab, tab);
        let page = desk.model.dump.as_ref().unwrap().page.text();
        assert!(
            !page.trim().is_empty() && !page.contains("reading"),
            "{tab:?}: {page}"
        );
    }
    desk.press("f t");
    visit(&desk);
    desk.press("s");
    visit(&desk);
    desk.press("esc esc esc esc esc esc space space D");
    visit(&desk);
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
    desk.press("? end ? q");
    assert!(desk.model.quit);
    assert_eq!(*desk.model.screen(), Screen::Diff);
}

#[test]
fn every_command_is_understood() {
    for command in crate::tui::commands::COMMANDS {
        let mut desk = fresh((80, 24), "");
        let argument = match command.name {
            "dump" => "00000003",
            "sort" => "exe",
            "store" => "stage",
            "tab" => "modules",
            "filter" => "api",
            _ => "",
        };
        let shown = desk.screen();
        let asked = desk.asked.len();
        desk.type_text(&format!(":{} {argument}", command.name));
        desk.press("enter");
        let changed = desk.screen() != shown || desk.asked.len() > asked || desk.model.quit;
        let stays = command.name == "dumps";
        assert!(changed || stays, "{}", command.name);
        assert!(
            !desk
                .model
                .message
                .as_ref()
                .is_some_and(|message| message.bad),
            "{}",
            command.name
        );
    }
}
