//! Keys are data: `keymap.toml` maps keys to actions per context, and help and footer are generated
//! from it.
//!
//! Invariant, enforced by a test: in each context no key has two meanings, and `update` handles
//! every action in the map.

use std::collections::BTreeMap;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde::Deserialize;

/// An action that a key can trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // `keymap.toml` says what each does
pub enum Action {
    Accept,
    Back,
    Backtrace,
    Cancel,
    Command,
    Complete,
    Copy,
    Debug,
    Delete,
    Diff,
    Down,
    Erase,
    EraseAll,
    EraseWord,
    Fetch,
    Filter,
    Find,
    FindNext,
    First,
    Groups,
    Help,
    Image,
    Instructions,
    Last,
    Mark,
    NewCrashes,
    Newer,
    NextDump,
    NextTab,
    NextThread,
    No,
    Older,
    Open,
    PageDown,
    PageUp,
    Pager,
    PreviousDump,
    PreviousTab,
    PreviousThread,
    Quit,
    Refresh,
    ScrollLeft,
    ScrollRight,
    SortNext,
    SortPrevious,
    SortReverse,
    Stores,
    Suspend,
    #[serde(rename = "tab-1")]
    Tab1,
    #[serde(rename = "tab-2")]
    Tab2,
    #[serde(rename = "tab-3")]
    Tab3,
    #[serde(rename = "tab-4")]
    Tab4,
    #[serde(rename = "tab-5")]
    Tab5,
    #[serde(rename = "tab-6")]
    Tab6,
    #[serde(rename = "tab-7")]
    Tab7,
    #[serde(rename = "tab-8")]
    Tab8,
    ToggleMouse,
    Transfers,
    Up,
    Variables,
    Versions,
    WordLeft,
    WordRight,
    Yes,
}

/// A context in which keys have meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Context {
    /// The list of dumps, and the list of groups.
    Dumps,
    /// Keys that differ in the list of groups.
    Groups,
    /// The page of one group: its images and workloads.
    Group,
    /// The tabs of one dump.
    Dump,
    /// The comparison of two dumps.
    Diff,
    /// Downloads and pulls.
    Transfers,
    /// Stores to choose from.
    Stores,
    /// Every view with lines.
    Lists,
    /// Every view.
    Everywhere,
    /// A line that is being typed.
    Prompt,
    /// A question that waits for an answer.
    Question,
}

impl Context {
    /// The contexts in which a key is looked up, in order.
    fn chain(self) -> &'static [Self] {
        match self {
            Self::Dumps => &[Self::Dumps, Self::Lists, Self::Everywhere],
            Self::Groups => &[Self::Groups, Self::Dumps, Self::Lists, Self::Everywhere],
            Self::Group => &[Self::Group, Self::Lists, Self::Everywhere],
            Self::Dump => &[Self::Dump, Self::Lists, Self::Everywhere],
            Self::Diff => &[Self::Diff, Self::Lists, Self::Everywhere],
            Self::Transfers => &[Self::Transfers, Self::Lists, Self::Everywhere],
            Self::Stores => &[Self::Stores, Self::Lists, Self::Everywhere],
            Self::Lists => &[Self::Lists, Self::Everywhere],
            Self::Everywhere => &[Self::Everywhere],
            Self::Prompt => &[Self::Prompt],
            Self::Question => &[Self::Question],
        }
    }

    /// The title on the help page.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Dumps => "Dumps and groups",
            Self::Groups => "Groups",
            Self::Group => "One group",
            Self::Dump => "One dump",
            Self::Diff => "Two dumps compared",
            Self::Transfers => "Transfers",
            Self::Stores => "Stores",
            Self::Lists => "Moving",
            Self::Everywhere => "Everywhere",
            Self::Prompt => "While typing a filter or a command",
            Self::Question => "When asked",
        }
    }
}

/// All contexts, in the order of the help page.
pub const CONTEXTS: [Context; 11] = [
    Context::Dumps,
    Context::Groups,
    Context::Group,
    Context::Dump,
    Context::Diff,
    Context::Transfers,
    Context::Stores,
    Context::Lists,
    Context::Everywhere,
    Context::Prompt,
    Context::Question,
];

/// A key with its modifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    code: KeyCode,
    modifiers: KeyModifiers,
}

impl From<KeyEvent> for Key {
    fn from(event: KeyEvent) -> Self {
        let mut modifiers = event.modifiers & (KeyModifiers::CONTROL | KeyModifiers::ALT);
        // Shift is already expressed by the capital letter.
        if event.code == KeyCode::BackTab {
            modifiers = KeyModifiers::NONE;
        }
        Self {
            code: event.code,
            modifiers,
        }
    }
}

impl Key {
    /// The event that a terminal reports for this key.
    #[must_use]
    pub fn event(self) -> KeyEvent {
        KeyEvent::new(self.code, self.modifiers)
    }

    /// Parses a key's name; `None` if it is invalid.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (modifiers, name) = match text.split_once('-') {
            Some(("ctrl", name)) => (KeyModifiers::CONTROL, name),
            Some(("alt", name)) => (KeyModifiers::ALT, name),
            _ => (KeyModifiers::NONE, text),
        };
        let mut letters = name.chars();
        let code = match (letters.next(), letters.next()) {
            (Some(letter), None) => KeyCode::Char(letter),
            _ => NAMES
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, code)| *code)
                .or_else(|| name.strip_prefix('f')?.parse().ok().map(KeyCode::F))?,
        };
        Some(Self { code, modifiers })
    }

    /// The name for display.
    #[must_use]
    pub fn name(self) -> String {
        let modifier = match self.modifiers {
            KeyModifiers::CONTROL => "ctrl-",
            KeyModifiers::ALT => "alt-",
            _ => "",
        };
        let known = NAMES.iter().find(|(_, code)| *code == self.code);
        let name = match (self.code, known) {
            (_, Some((name, _))) => (*name).to_owned(),
            (KeyCode::Char(letter), _) => letter.to_string(),
            (KeyCode::F(number), _) => format!("f{number}"),
            (other, _) => format!("{other:?}"),
        };
        format!("{modifier}{name}")
    }
}

const NAMES: [(&str, KeyCode); 15] = [
    ("enter", KeyCode::Enter),
    ("esc", KeyCode::Esc),
    ("tab", KeyCode::Tab),
    ("backtab", KeyCode::BackTab),
    ("space", KeyCode::Char(' ')),
    ("backspace", KeyCode::Backspace),
    ("delete", KeyCode::Delete),
    ("up", KeyCode::Up),
    ("down", KeyCode::Down),
    ("left", KeyCode::Left),
    ("right", KeyCode::Right),
    ("home", KeyCode::Home),
    ("end", KeyCode::End),
    ("pageup", KeyCode::PageUp),
    ("pagedown", KeyCode::PageDown),
];

/// One line of the map.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The action.
    pub action: Action,
    /// The keys that trigger it.
    pub keys: Vec<Key>,
    /// Help text.
    pub help: String,
    /// One word for the footer; `None` if it is not shown there.
    pub footer: Option<String>,
}

/// The complete map.
#[derive(Clone, Debug)]
pub struct Keymap(BTreeMap<Context, Vec<Binding>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    keys: Vec<String>,
    help: String,
    footer: Option<String>,
}

impl Keymap {
    /// The built-in map.
    ///
    /// # Panics
    /// Panics if `keymap.toml` is invalid; a test rules that out.
    #[must_use]
    #[allow(clippy::expect_used)]
    pub fn embedded() -> Self {
        Self::parse(include_str!("keymap.toml")).expect("the embedded keymap is valid")
    }

    fn parse(text: &str) -> Result<Self, String> {
        // `toml::Table` preserves the order of the file, which is the order in help and footer.
        let table: BTreeMap<Context, toml::Table> =
            toml::from_str(text).map_err(|error| error.to_string())?;
        let mut map = BTreeMap::new();
        for (context, entries) in table {
            let mut bindings = Vec::new();
            for (name, value) in entries {
                let action = Action::deserialize(toml::Value::String(name.clone()))
                    .map_err(|error| format!("{name}: {error}"))?;
                let entry: Entry = value
                    .try_into()
                    .map_err(|error: toml::de::Error| format!("{name}: {error}"))?;
                let read = |key: &String| Key::parse(key).ok_or(format!("`{key}` is not a key"));
                bindings.push(Binding {
                    action,
                    keys: entry.keys.iter().map(read).collect::<Result<_, _>>()?,
                    help: entry.help,
                    footer: entry.footer,
                });
            }
            map.insert(context, bindings);
        }
        Ok(Self(map))
    }

    /// The action of `key` in this context.
    #[must_use]
    pub fn action(&self, context: Context, key: Key) -> Option<Action> {
        let bound = |context: &Context| {
            let bindings = self.0.get(context)?;
            let binding = bindings.iter().find(|known| known.keys.contains(&key))?;
            Some(binding.action)
        };
        context.chain().iter().find_map(bound)
    }

    /// The bindings of one context, in the order of the map.
    #[must_use]
    pub fn bindings(&self, context: Context) -> &[Binding] {
        self.0.get(&context).map(Vec::as_slice).unwrap_or_default()
    }

    /// The first key and the word of each binding in the footer.
    #[must_use]
    pub fn footer(&self, context: Context) -> Vec<(String, String)> {
        let all = context.chain().iter().flat_map(|part| self.bindings(*part));
        let mut seen = Vec::new();
        let shown = all.filter_map(|binding| {
            let key = binding.keys.first()?;
            if seen.contains(&binding.action) {
                return None;
            }
            seen.push(binding.action);
            Some((key.name(), binding.footer.clone()?))
        });
        shown.collect()
    }

    /// The name of the first key for an action, for sentences such as "press `r`".
    #[must_use]
    pub fn key_for(&self, context: Context, action: Action) -> String {
        let mut all = context.chain().iter().flat_map(|part| self.bindings(*part));
        let found = all.find(|binding| binding.action == action);
        found
            .and_then(|binding| binding.keys.first())
            .map(|key| key.name())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn keymap_has_one_meaning_per_key_and_context() {
        let map = Keymap::embedded();
        for context in CONTEXTS {
            let mut seen = HashSet::new();
            for binding in map.bindings(context) {
                assert!(!binding.keys.is_empty() && !binding.help.is_empty());
                for key in &binding.keys {
                    assert!(seen.insert(*key), "{context:?}: {}", key.name());
                    assert_eq!(Key::parse(&key.name()), Some(*key));
                    assert_eq!(
                        map.action(context, Key::from(key.event())),
                        Some(binding.action)
                    );
                }
            }
            assert!(!seen.is_empty(), "{context:?}");
        }
    }

    #[test]
    fn keymap_contexts_do_not_hide_global_keys() {
        let map = Keymap::embedded();
        for context in CONTEXTS {
            let chain = context.chain();
            for (index, part) in chain.iter().enumerate() {
                for binding in map.bindings(*part) {
                    let reachable = binding.keys.iter().any(|key| {
                        let above = chain
                            .iter()
                            .take(index)
                            .flat_map(|part| map.bindings(*part));
                        let is_other = |other: &Binding| other.action != binding.action;
                        !above
                            .clone()
                            .any(|other| other.keys.contains(key) && is_other(other))
                    });
                    assert!(reachable, "{context:?}: {:?}", binding.action);
                }
            }
        }
    }

    #[test]
    fn keymap_preserves_the_order_of_the_file() {
        let map = Keymap::embedded();
        let first: Vec<Action> = map
            .bindings(Context::Dumps)
            .iter()
            .map(|b| b.action)
            .collect();
        assert_eq!(first[..3], [Action::Open, Action::Backtrace, Action::Debug]);
    }
}
