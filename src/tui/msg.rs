//! What comes in, and what goes out: the only words between `update` and the world.

use cdh_bundle::DumpId;
use cdh_store::{DumpSummary, FirstSeenIndex};
use jiff::Timestamp;
use ratatui::crossterm::event::{KeyEvent, MouseEvent};
use std::sync::Arc;

use super::model::{
    Arranged, Depth, Facts, Grouping, Job, Listing, Opened, Place, Purpose, RequestId, Row, Rows,
    Source, Stacks, Texts, TransferId,
};
use super::signals::Stop;
use crate::debugger::Invocation;
use crate::pipeline::SourceQuestion;
use crate::render::Group;
use crate::report::Told;

/// Something happened.
#[derive(Debug)]
pub enum Msg {
    /// A key was pressed.
    Key(KeyEvent),
    /// The mouse did something.
    Mouse(MouseEvent),
    /// Text was pasted.
    Paste(String),
    /// The terminal has another size.
    Resize(u16, u16),
    /// Time passes.
    Tick {
        /// Wall clock.
        now: Timestamp,
        /// Milliseconds since the start.
        clock: u64,
    },
    /// A page of a listing.
    Page(RequestId, Vec<Row>),
    /// A listing ended.
    Listed(RequestId, Listing),
    /// The store's own records of when crashes were first seen.
    FirstSeen(RequestId, FirstSeenIndex),
    /// Dumps that a refresh found, or why it failed.
    Refreshed(RequestId, Result<Vec<Row>, Told>),
    /// A long list was arranged.
    Arranged(RequestId, Result<Box<Arranged>, Told>),
    /// A long list was grouped, under this filter.
    Grouped(RequestId, String, Result<Vec<Group>, Told>),
    /// A dump was opened, or cannot be.
    Opened(RequestId, DumpId, Result<Arc<Opened>, Told>),
    /// Its stacks were made, or cannot be.
    Stacks(RequestId, DumpId, Result<Arc<Stacks>, Told>),
    /// Its texts were read.
    Texts(RequestId, DumpId, Arc<Texts>),
    /// All that was asked about a dump has been answered.
    Explained(RequestId, DumpId, Depth),
    /// In which frame a dump crashed.
    Named(RequestId, Box<DumpSummary>, Option<String>),
    /// What manifests say of image and node.
    Facts(RequestId, Vec<(DumpId, Option<Facts>)>),
    /// Source around a frame.
    Source(RequestId, Box<Source>),
    /// A piece of work of a transfer began.
    Began(TransferId, String, Option<u64>),
    /// So many bytes of it are done.
    Advanced(TransferId, u64),
    /// It ended.
    Ended(TransferId, Result<Fetched, Told>),
    /// A dump was deleted, or cannot be.
    Deleted(Box<DumpSummary>, Result<(), Told>),
    /// Another store was chosen, or is none.
    Switched(Result<Place, Told>),
    /// The terminal was given away and came back; what is to be said about it.
    Returned(Result<Option<String>, Told>),
    /// Whoever runs us wants the end.
    Terminate,
    /// Another process sent SIGTSTP.
    Stop,
    /// SIGCONT came.
    Continued,
}

/// What came of a transfer.
#[derive(Debug)]
pub enum Fetched {
    /// The case is here.
    Here(String),
    /// A debugger can be started.
    Ready(Box<Invocation>),
}

/// Something is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// List the store.
    List(RequestId),
    /// List the newest dumps again; these are the ones that are known.
    Refresh(RequestId, Rows),
    /// Arrange a long list.
    Arrange(RequestId, Box<Job>),
    /// Group a long list.
    Group(RequestId, Box<Grouping>),
    /// Drop what is no longer shown: that takes long.
    Discard(Vec<Rows>, Vec<Group>),
    /// Read a dump.
    Explain(RequestId, Box<DumpSummary>, Depth),
    /// Tell in which frame a dump crashed.
    Name(RequestId, Box<DumpSummary>),
    /// Read manifests for image and node.
    Facts(RequestId, Vec<DumpSummary>),
    /// Read source around a line.
    Source(RequestId, Box<SourceWanted>),
    /// Fetch a dump.
    Transfer(TransferId, Box<DumpSummary>, Purpose),
    /// End a transfer.
    Cancel(TransferId),
    /// Delete a dump.
    Delete(Box<DumpSummary>),
    /// Take another store.
    Switch(String),
    /// Give the terminal to a debugger.
    Debug(Box<Invocation>, String),
    /// Show text in a pager.
    Pager(String),
    /// Put text into the terminal's clipboard.
    Copy(String),
    /// Take the mouse, or leave it.
    Mouse(bool),
    /// Give the terminal back and stop.
    Suspend(Stop),
    /// Take the terminal again, which another program may have changed.
    TakeTerminal,
}

/// The source that the cursor asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceWanted {
    /// Which file.
    pub question: SourceQuestion,
    /// Which line.
    pub line: u32,
    /// Whether it is the user's own code: only then a reason is given if there is none.
    pub is_own: bool,
    /// The commit that the image was built from.
    pub revision: Option<String>,
    /// When the process crashed.
    pub crashed: Timestamp,
}
