//! Everything that the TUI knows. Only `update` changes it, only `view` draws it.

mod arrange;
mod column;
mod dumps;
mod explained;
mod first_seen;
mod fresh;
mod group_column;
mod groups;
mod order;
mod page;
mod refresh;
mod rows;
mod transfers;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use cdh_bundle::DumpId;
use cdh_store::DumpSummary;
use jiff::Timestamp;

pub use arrange::{AT_ONCE, Arranged, Job, arrange};
pub use column::{COLUMNS, Column};
pub use dumps::{Dumps, Learnt, Listing};
pub use explained::{Depth, Explained, Facts, Known, Opened, Source, Stacks, Texts};
pub use first_seen::FirstSeen;
pub use fresh::Fresh;
pub use group_column::{GROUP_COLUMNS, GroupColumn, sort_groups, top};
pub use groups::{Grouping, Groups};
pub use page::{Page, follow};
pub use refresh::Refresh;
pub use rows::{Row, Rows};
pub use transfers::{Purpose, State, Transfer, TransferId, Transfers};

use super::keymap::{Context, Keymap};
use super::theme::{Glyphs, Theme};
use crate::report::Told;

/// Number of a question to the world. Answers to one that is no longer of interest are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The frames in which crashes happened. Dumps with the same fingerprint crashed in the same one, so
/// that one backtrace tells it for all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tops {
    by_fingerprint: HashMap<String, Option<String>>,
    by_dump: HashMap<DumpId, Option<String>>,
    asked: HashSet<DumpId>,
    asked_fingerprints: HashSet<String>,
}

impl Tops {
    /// The frame of a dump, where it is known.
    #[must_use]
    pub fn of(&self, dump: &DumpSummary) -> Option<&str> {
        let found = match &dump.fingerprint {
            Some(fingerprint) => self.by_fingerprint.get(fingerprint),
            None => self.by_dump.get(&dump.id),
        };
        found.and_then(Option::as_deref)
    }

    /// Whether it was looked for.
    #[must_use]
    pub fn knows(&self, dump: &DumpSummary) -> bool {
        match &dump.fingerprint {
            Some(fingerprint) => self.by_fingerprint.contains_key(fingerprint),
            None => self.by_dump.contains_key(&dump.id),
        }
    }

    /// Notes that it is being looked for; `false` where it is already.
    pub fn ask(&mut self, dump: &DumpSummary) -> bool {
        match &dump.fingerprint {
            Some(fingerprint) => self.asked_fingerprints.insert(fingerprint.clone()),
            None => self.asked.insert(dump.id),
        }
    }

    /// Notes what was found.
    pub fn note(&mut self, dump: &DumpSummary, top: Option<String>) {
        match &dump.fingerprint {
            Some(fingerprint) => {
                // A dump that cannot be read does not make its fellows forget.
                let known = self.by_fingerprint.entry(fingerprint.clone()).or_default();
                *known = top.or_else(|| known.take());
            }
            None => {
                self.by_dump.insert(dump.id, top);
            }
        }
    }
}

/// A view, as it was come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Screen {
    /// The list of dumps; `restore` is the filter to go back to.
    Dumps {
        /// The filter before a group was opened.
        restore: Option<String>,
    },
    /// Same crashes as one line.
    Groups,
    /// One of them: its images and workloads.
    Group,
    /// One dump.
    Dump,
    /// Two dumps compared.
    Diff,
    /// Downloads and pulls.
    Transfers,
    /// Stores to choose from.
    Stores,
}

/// Tabs of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // `title` says what each is
pub enum Tab {
    Backtrace,
    Info,
    Workload,
    Logs,
    Modules,
    Memory,
    Registers,
    Manifest,
}

/// All tabs, from left to right.
pub const TABS: [Tab; 8] = [
    Tab::Backtrace,
    Tab::Info,
    Tab::Workload,
    Tab::Logs,
    Tab::Modules,
    Tab::Memory,
    Tab::Registers,
    Tab::Manifest,
];

impl Tab {
    /// Its title.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Backtrace => "Backtrace",
            Self::Info => "Info",
            Self::Workload => "Workload",
            Self::Logs => "Logs",
            Self::Modules => "Modules",
            Self::Memory => "Memory",
            Self::Registers => "Registers",
            Self::Manifest => "Manifest",
        }
    }
}

/// One dump that is looked at.
#[derive(Clone, Debug)]
pub struct DumpView {
    /// Which.
    pub dump: DumpSummary,
    /// Which tab.
    pub tab: Tab,
    /// Which thread, by its place in the backtrace.
    pub thread: usize,
    /// First thread on the screen.
    pub thread_top: usize,
    /// The tab's lines.
    pub page: Page,
    /// Source around the frame that the cursor is on.
    pub source: Option<Source>,
    /// The place whose source was asked for last.
    pub source_wanted: Option<(String, u32)>,
}

/// Two dumps compared.
#[derive(Clone, Debug)]
pub struct DiffView {
    /// Which.
    pub dumps: Box<[DumpSummary; 2]>,
    /// What differs.
    pub page: Page,
}

/// What a line that is typed is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PromptKind {
    /// The filter of the list.
    Filter,
    /// A `:` command.
    Command,
    /// Text to find on a page.
    Find,
}

/// A line that is being typed.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// What for.
    pub kind: PromptKind,
    /// As far as it was typed.
    pub text: String,
    /// Place in it, in bytes.
    pub at: usize,
    /// What it was before.
    pub before: String,
    /// Which of the history is shown, counted from the end.
    pub history: usize,
    /// Ways to complete it, and which of them is shown.
    pub completions: Option<(Vec<String>, usize)>,
}

/// What lies over the view.
#[derive(Clone, Debug)]
pub enum Overlay {
    /// The keys.
    Help(Page),
    /// Whether to delete these dumps.
    Delete(Vec<DumpSummary>),
    /// Whether to quit though transfers run.
    Quit,
    /// Something that must be read.
    Notice {
        /// What it is about.
        title: String,
        /// What it says.
        lines: Vec<String>,
    },
    /// A debugger starts as soon as the dump is here.
    Waiting(TransferId),
}

/// A line at the bottom that goes away by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it says.
    pub text: String,
    /// Whether something went wrong.
    pub bad: bool,
    /// Until when, in milliseconds of the clock.
    pub until: u64,
}

/// Where the dumps are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// For people: `directory /var/lib/cdh/store`.
    pub store: String,
    /// Whether nobody asked for it by name.
    pub is_default: bool,
    /// Names to switch to, and where they lead.
    pub stores: Vec<(String, String)>,
}

impl Place {
    /// Where the store that is shown stands among those to switch to.
    #[must_use]
    pub fn current(&self) -> Option<usize> {
        let here = |(name, url): &(String, String)| *url == self.store || *name == self.store;
        self.stores.iter().position(here)
    }
}

/// Everything.
#[derive(Clone, Debug)]
pub struct Model {
    /// Wall clock of the last tick.
    pub now: Timestamp,
    /// Milliseconds since the start, of the last tick.
    pub clock: u64,
    /// Columns and lines of the terminal.
    pub size: (u16, u16),
    /// Colours.
    pub theme: Theme,
    /// Marks and lines.
    pub glyphs: Glyphs,
    /// Which key does what.
    pub keymap: Arc<Keymap>,
    /// Where the dumps are.
    pub place: Place,
    /// The way to the view that is shown, which is the last.
    pub screens: Vec<Screen>,
    /// What lies over it.
    pub overlay: Option<Overlay>,
    /// A line that is being typed.
    pub prompt: Option<Prompt>,
    /// What was typed before.
    pub history: BTreeMap<PromptKind, Vec<String>>,
    /// The dumps.
    pub dumps: Dumps,
    /// The groups.
    pub groups: Groups,
    /// What is known of the group that is looked at.
    pub group_page: Page,
    /// The dump that is looked at.
    pub dump: Option<DumpView>,
    /// The dumps that are compared.
    pub diff: Option<DiffView>,
    /// Downloads and pulls.
    pub transfers: Transfers,
    /// Place in the list of stores.
    pub store_cursor: usize,
    /// What is known of dumps.
    pub known: Known,
    /// Where crashes happened.
    pub tops: Tops,
    /// When crashes first appeared: what was listed, and the store's own records.
    pub first_seen: FirstSeen,
    /// The automatic refresh.
    pub refresh: Refresh,
    /// What manifests told.
    pub facts: HashMap<DumpId, Arc<Facts>>,
    /// Manifests that were asked for.
    pub facts_wanted: HashSet<DumpId>,
    /// The connection is lost; what was said.
    pub lost: Option<Told>,
    /// A line at the bottom.
    pub message: Option<Message>,
    /// Whether the mouse is ours.
    pub mouse: bool,
    /// The last press of a mouse's button: row and time.
    pub pressed: Option<(u16, u64)>,
    /// When the selection came to rest, and for what it was prepared.
    pub rest: Rest,
    /// The listing whose pages count.
    pub listing: RequestId,
    /// Answers to older questions do not count: they are about another store.
    pub since: RequestId,
    /// The end.
    pub quit: bool,
    /// Texts are drawn again: the terminal was used by others.
    pub redraw: bool,
    requests: u64,
}

/// What is prepared while the user looks.
#[derive(Clone, Debug, Default)]
pub struct Rest {
    /// When the selection moved last, in milliseconds.
    pub moved: u64,
    /// Whether what is selected has been prepared.
    pub done: bool,
}

/// What a model starts with.
#[derive(Clone, Debug)]
pub struct Start {
    /// Wall clock.
    pub now: Timestamp,
    /// Columns and lines.
    pub size: (u16, u16),
    /// Colours.
    pub theme: Theme,
    /// Marks and lines.
    pub glyphs: Glyphs,
    /// Where the dumps are.
    pub place: Place,
    /// Whether the mouse is ours.
    pub mouse: bool,
    /// Seconds between two automatic refreshes; 0 turns them off.
    pub refresh_seconds: u64,
}

impl Model {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(start: Start) -> Self {
        Self {
            now: start.now,
            clock: 0,
            size: start.size,
            theme: start.theme,
            glyphs: start.glyphs,
            keymap: Arc::new(Keymap::embedded()),
            place: start.place,
            screens: vec![Screen::Dumps { restore: None }],
            overlay: None,
            prompt: None,
            history: BTreeMap::new(),
            dumps: Dumps::default(),
            groups: Groups::default(),
            group_page: Page::default(),
            dump: None,
            diff: None,
            transfers: Transfers::default(),
            store_cursor: 0,
            known: Known::default(),
            tops: Tops::default(),
            first_seen: FirstSeen::default(),
            refresh: Refresh::every(start.refresh_seconds),
            facts: HashMap::new(),
            facts_wanted: HashSet::new(),
            lost: None,
            message: None,
            mouse: start.mouse,
            pressed: None,
            rest: Rest::default(),
            listing: RequestId::default(),
            since: RequestId::default(),
            quit: false,
            redraw: false,
            requests: 0,
        }
    }

    /// The number of the next question.
    pub fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    /// The view that is shown.
    #[must_use]
    pub fn screen(&self) -> &Screen {
        const FIRST: Screen = Screen::Dumps { restore: None };
        self.screens.last().unwrap_or(&FIRST)
    }

    /// Where keys are pressed now.
    #[must_use]
    pub fn context(&self) -> Context {
        if self.prompt.is_some() {
            return Context::Prompt;
        }
        match &self.overlay {
            Some(Overlay::Delete(_) | Overlay::Quit) => return Context::Question,
            Some(Overlay::Help(_) | Overlay::Notice { .. } | Overlay::Waiting(_)) => {
                return Context::Lists;
            }
            None => {}
        }
        match self.screen() {
            Screen::Dumps { .. } => Context::Dumps,
            Screen::Groups => Context::Groups,
            Screen::Group => Context::Group,
            Screen::Dump => Context::Dump,
            Screen::Diff => Context::Diff,
            Screen::Transfers => Context::Transfers,
            Screen::Stores => Context::Stores,
        }
    }

    /// The dump that keys act on.
    #[must_use]
    pub fn selected(&self) -> Option<&DumpSummary> {
        match self.screen() {
            Screen::Dumps { .. } => self.dumps.selected(),
            Screen::Groups | Screen::Group => self.groups.selected().map(|group| &group.newest),
            Screen::Dump => self.dump.as_ref().map(|view| &view.dump),
            Screen::Transfers => self.transfers.selected().map(|transfer| &transfer.dump),
            Screen::Diff | Screen::Stores => None,
        }
    }

    /// Says something at the bottom for some seconds.
    pub fn say(&mut self, text: impl Into<String>) {
        self.message = Some(Message {
            text: text.into(),
            bad: false,
            until: self.clock + 6_000,
        });
    }

    /// Says at the bottom that something went wrong.
    pub fn complain(&mut self, text: impl Into<String>) {
        self.message = Some(Message {
            text: text.into(),
            bad: true,
            until: self.clock + 12_000,
        });
    }

    /// Whether something goes on that the screen shows moving.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.dumps.listing == Listing::Running
            || self.dumps.is_arranging()
            || self.groups.is_asked()
            || self.transfers.active() > 0
            || self.known.is_pending()
            || !self.facts_wanted.is_empty()
    }
}
