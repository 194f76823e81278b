//! The complete state of the TUI. Only `update` changes it, only `view` draws it.

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

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use cdh_bundle::DumpId;
use cdh_store::DumpSummary;
use jiff::Timestamp;

pub use arrange::{AT_ONCE, Arranged, Job, arrange};
pub use column::{COLUMNS, Column};
pub use dumps::{Dumps, Learnt, Listing};
pub use explained::{Depth, DumpCache, Explained, Facts, Opened, Source, Stacks, Texts};
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
use crate::report::RenderedError;

/// Id of a request to `effects`. Answers to outdated requests are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The frames in which dumps crashed. Dumps with the same fingerprint crashed in the same frame, so
/// one backtrace is enough for all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tops {
    by_fingerprint: HashMap<String, Option<String>>,
    by_dump: HashMap<DumpId, Option<String>>,
    asked: HashSet<DumpId>,
    asked_fingerprints: HashSet<String>,
}

impl Tops {
    /// The frame of a dump, if known.
    #[must_use]
    pub fn of(&self, dump: &DumpSummary) -> Option<&str> {
        let found = match &dump.fingerprint {
            Some(fingerprint) => self.by_fingerprint.get(fingerprint),
            None => self.by_dump.get(&dump.id),
        };
        found.and_then(Option::as_deref)
    }

    /// Whether it was already looked up.
    #[must_use]
    pub fn knows(&self, dump: &DumpSummary) -> bool {
        match &dump.fingerprint {
            Some(fingerprint) => self.by_fingerprint.contains_key(fingerprint),
            None => self.by_dump.contains_key(&dump.id),
        }
    }

    /// Records that a lookup has started; `false` if it already had.
    pub fn ask(&mut self, dump: &DumpSummary) -> bool {
        match &dump.fingerprint {
            Some(fingerprint) => self.asked_fingerprints.insert(fingerprint.clone()),
            None => self.asked.insert(dump.id),
        }
    }

    /// Records the result of a lookup.
    pub fn note(&mut self, dump: &DumpSummary, top: Option<String>) {
        match &dump.fingerprint {
            Some(fingerprint) => {
                // An unreadable dump must not erase the result of another one.
                let known = self.by_fingerprint.entry(fingerprint.clone()).or_default();
                *known = top.or_else(|| known.take());
            }
            None => {
                self.by_dump.insert(dump.id, top);
            }
        }
    }
}

/// A view in the navigation history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Screen {
    /// The list of dumps; `restore` is the filter to restore when leaving it.
    Dumps {
        /// The filter before a group was opened.
        restore: Option<String>,
    },
    /// Dumps grouped by crash.
    Groups,
    /// One group: its images and workloads.
    Group,
    /// One dump.
    Dump,
    /// The comparison of two dumps.
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

/// What is shown below a backtrace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pane {
    /// The source around the selected frame.
    Source,
    /// The instructions around its address.
    Instructions,
}

/// The open dump.
#[derive(Clone, Debug)]
pub struct DumpView {
    /// The dump.
    pub dump: DumpSummary,
    /// The visible tab.
    pub tab: Tab,
    /// Index of the thread in the backtrace.
    pub thread: usize,
    /// Index of the first thread on the screen.
    pub thread_top: usize,
    /// Frames whose variables are shown, by thread id and number.
    pub expanded: BTreeSet<(u32, usize)>,
    /// The tab's lines.
    pub page: Page,
    /// Source around the selected frame.
    pub source: Option<Source>,
    /// The location whose source was requested last.
    pub source_wanted: Option<(String, u32)>,
    /// What is shown below the backtrace.
    pub pane: Pane,
}

/// The comparison of two dumps.
#[derive(Clone, Debug)]
pub struct DiffView {
    /// The dumps.
    pub dumps: Box<[DumpSummary; 2]>,
    /// The differences.
    pub page: Page,
}

/// Purpose of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PromptKind {
    /// The filter of the list.
    Filter,
    /// A `:` command.
    Command,
    /// Text to find on a page.
    Find,
}

/// An open prompt.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Its purpose.
    pub kind: PromptKind,
    /// The text typed so far.
    pub text: String,
    /// Offset of the cursor in the text, in bytes.
    pub at: usize,
    /// The text before editing.
    pub before: String,
    /// Index of the history entry shown, counted from the end.
    pub history: usize,
    /// Completions, and the index of the one shown.
    pub completions: Option<(Vec<String>, usize)>,
}

/// An overlay on top of the view.
#[derive(Clone, Debug)]
pub enum Overlay {
    /// The keys.
    Help(Page),
    /// Confirmation to delete these dumps.
    Delete(Vec<DumpSummary>),
    /// Confirmation to quit while transfers run.
    Quit,
    /// A message that the user must dismiss.
    Notice {
        /// Its title.
        title: String,
        /// Its text.
        lines: Vec<String>,
    },
    /// A debugger starts when this transfer ends.
    Waiting(TransferId),
}

/// A message in the status line that disappears after a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its text.
    pub text: String,
    /// Whether it reports a failure.
    pub bad: bool,
    /// When it disappears, in milliseconds of the clock.
    pub until: u64,
}

/// Location of the dumps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreLocation {
    /// For display: `directory /var/lib/cdh/store`.
    pub store: String,
    /// Whether it is the default, not chosen by the user.
    pub is_default: bool,
    /// Configured stores: name and location.
    pub stores: Vec<(String, String)>,
}

impl StoreLocation {
    /// Index of the current store in `stores`.
    #[must_use]
    pub fn current(&self) -> Option<usize> {
        let here = |(name, url): &(String, String)| *url == self.store || *name == self.store;
        self.stores.iter().position(here)
    }
}

/// The state of the TUI.
#[derive(Clone, Debug)]
pub struct Model {
    /// Wall clock of the last tick.
    pub now: Timestamp,
    /// Milliseconds between the start and the last tick.
    pub clock: u64,
    /// Width and height of the terminal in cells.
    pub size: (u16, u16),
    /// Colours.
    pub theme: Theme,
    /// Marks and lines.
    pub glyphs: Glyphs,
    /// The key map.
    pub keymap: Arc<Keymap>,
    /// Location of the dumps.
    pub place: StoreLocation,
    /// Navigation history; the last screen is visible.
    pub screens: Vec<Screen>,
    /// Overlay on top of the view.
    pub overlay: Option<Overlay>,
    /// The open prompt.
    pub prompt: Option<Prompt>,
    /// History of the prompts.
    pub history: BTreeMap<PromptKind, Vec<String>>,
    /// The dumps.
    pub dumps: Dumps,
    /// The groups.
    pub groups: Groups,
    /// Page of the open group.
    pub group_page: Page,
    /// The open dump.
    pub dump: Option<DumpView>,
    /// The compared dumps.
    pub diff: Option<DiffView>,
    /// Downloads and pulls.
    pub transfers: Transfers,
    /// Index of the selected store.
    pub store_cursor: usize,
    /// Cache of what was read from dumps.
    pub known: DumpCache,
    /// The frames in which dumps crashed.
    pub tops: Tops,
    /// When crashes first appeared, from the listing and from the store's own records.
    pub first_seen: FirstSeen,
    /// The automatic refresh.
    pub refresh: Refresh,
    /// Facts from manifests.
    pub facts: HashMap<DumpId, Arc<Facts>>,
    /// Manifests that were requested.
    pub facts_wanted: HashSet<DumpId>,
    /// Error of a lost connection.
    pub lost: Option<RenderedError>,
    /// Message in the status line.
    pub message: Option<Message>,
    /// Whether the TUI handles the mouse.
    pub mouse: bool,
    /// Row and time of the last mouse press.
    pub pressed: Option<(u16, u64)>,
    /// Whether the selection is idle and was prepared for.
    pub rest: Rest,
    /// Id of the current listing.
    pub listing: RequestId,
    /// Answers to older requests belong to another store and are dropped.
    pub since: RequestId,
    /// Whether to quit.
    pub quit: bool,
    /// Whether to redraw everything, because another program used the terminal.
    pub redraw: bool,
    requests: u64,
}

/// State of the preparation while the selection is idle.
#[derive(Clone, Debug, Default)]
pub struct Rest {
    /// When the selection last moved, in milliseconds.
    pub moved: u64,
    /// Whether the preparation for the selection is done.
    pub done: bool,
}

/// Initial values of a model.
#[derive(Clone, Debug)]
pub struct Start {
    /// Wall clock.
    pub now: Timestamp,
    /// Width and height of the terminal in cells.
    pub size: (u16, u16),
    /// Colours.
    pub theme: Theme,
    /// Marks and lines.
    pub glyphs: Glyphs,
    /// Location of the dumps.
    pub place: StoreLocation,
    /// Whether the TUI handles the mouse.
    pub mouse: bool,
    /// Seconds between two automatic refreshes; 0 turns them off.
    pub refresh_seconds: u64,
}

impl Model {
    /// Creates an empty model.
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
            known: DumpCache::default(),
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

    /// Allocates the id of the next request.
    pub fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    /// The visible screen.
    #[must_use]
    pub fn screen(&self) -> &Screen {
        const FIRST: Screen = Screen::Dumps { restore: None };
        self.screens.last().unwrap_or(&FIRST)
    }

    /// The context in which keys are interpreted now.
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

    /// The selected dump.
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

    /// Shows a message in the status line for some seconds.
    pub fn say(&mut self, text: impl Into<String>) {
        self.message = Some(Message {
            text: text.into(),
            bad: false,
            until: self.clock + 6_000,
        });
    }

    /// Shows an error in the status line.
    pub fn complain(&mut self, text: impl Into<String>) {
        self.message = Some(Message {
            text: text.into(),
            bad: true,
            until: self.clock + 12_000,
        });
    }

    /// Whether the screen shows an animation.
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
