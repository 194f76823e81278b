//! Messages and effects: the complete interface between `update` and the outside.

use cdh_bundle::DumpId;
use cdh_store::{DumpSummary, FirstSeenIndex};
use jiff::Timestamp;
use ratatui::crossterm::event::{KeyEvent, MouseEvent};
use std::sync::Arc;

use super::model::{
    Arranged, Depth, Facts, Grouping, Job, Listing, Opened, Purpose, RequestId, Row, Rows, Source,
    Stacks, StoreLocation, Texts, TransferId,
};
use super::signals::Stop;
use crate::debugger::Invocation;
use crate::pipeline::SourceQuestion;
use crate::render::Group;
use crate::report::RenderedError;

/// An event for `update`.
#[derive(Debug)]
pub enum Msg {
    /// A key was pressed.
    Key(KeyEvent),
    /// A mouse event.
    Mouse(MouseEvent),
    /// Text was pasted.
    Paste(String),
    /// The terminal was resized.
    Resize(u16, u16),
    /// A clock tick.
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
    Refreshed(RequestId, Result<Vec<Row>, RenderedError>),
    /// A long list was arranged.
    Arranged(RequestId, Result<Box<Arranged>, RenderedError>),
    /// A long list was grouped, under this filter.
    Grouped(RequestId, String, Result<Vec<Group>, RenderedError>),
    /// A dump was opened, or opening it failed.
    Opened(RequestId, DumpId, Result<Arc<Opened>, RenderedError>),
    /// Its stacks were computed, or that failed.
    Stacks(RequestId, DumpId, Result<Arc<Stacks>, RenderedError>),
    /// Its texts were read.
    Texts(RequestId, DumpId, Arc<Texts>),
    /// All parts of a request about a dump were answered.
    Explained(RequestId, DumpId, Depth),
    /// The frame in which a dump crashed.
    Named(RequestId, Box<DumpSummary>, Option<String>),
    /// Facts from manifests.
    Facts(RequestId, Vec<(DumpId, Option<Facts>)>),
    /// Source around a frame.
    Source(RequestId, Box<Source>),
    /// A transfer started a step.
    Began(TransferId, String, Option<u64>),
    /// Bytes done of the step.
    Advanced(TransferId, u64),
    /// A transfer ended.
    Ended(TransferId, Result<Fetched, RenderedError>),
    /// A dump was deleted, or deleting it failed.
    Deleted(Box<DumpSummary>, Result<(), RenderedError>),
    /// The store was switched, or switching failed.
    Switched(Result<StoreLocation, RenderedError>),
    /// Another program returned the terminal, with a text to show.
    Returned(Result<Option<String>, RenderedError>),
    /// SIGTERM or a similar signal arrived.
    Terminate,
    /// Another process sent SIGTSTP.
    Stop,
    /// SIGCONT arrived.
    Continued,
}

/// Result of a transfer.
#[derive(Debug)]
pub enum Fetched {
    /// The dump is stored at this path.
    Here(String),
    /// A debugger can be started.
    Ready(Box<Invocation>),
}

/// A request from `update`.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// List the store.
    List(RequestId),
    /// List the newest dumps again; the rows are the known ones.
    Refresh(RequestId, Rows),
    /// Arrange a long list.
    Arrange(RequestId, Box<Job>),
    /// Group a long list.
    Group(RequestId, Box<Grouping>),
    /// Drop data that is no longer shown; this may take long.
    Discard(Vec<Rows>, Vec<Group>),
    /// Read a dump.
    Explain(RequestId, Box<DumpSummary>, Depth),
    /// Find the frame in which a dump crashed.
    Name(RequestId, Box<DumpSummary>),
    /// Read manifests for image and node.
    Facts(RequestId, Vec<DumpSummary>),
    /// Read source around a line.
    Source(RequestId, Box<SourceWanted>),
    /// Fetch a dump.
    Transfer(TransferId, Box<DumpSummary>, Purpose),
    /// Cancel a transfer.
    Cancel(TransferId),
    /// Delete a dump.
    Delete(Box<DumpSummary>),
    /// Switch to another store.
    Switch(String),
    /// Hand the terminal over to a debugger.
    Debug(Box<Invocation>, String),
    /// Show text in a pager.
    Pager(String),
    /// Copy text to the terminal's clipboard.
    Copy(String),
    /// Enable or disable mouse events.
    Mouse(bool),
    /// Restore the terminal and stop the process.
    Suspend(Stop),
    /// Take the terminal again; another program may have changed it.
    TakeTerminal,
}

/// The source around the selected frame.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceWanted {
    /// The source file.
    pub question: SourceQuestion,
    /// The line.
    pub line: u32,
    /// Whether it is the user's own code: only then, a reason is shown if there is no source.
    pub is_own: bool,
    /// The commit that the image was built from.
    pub revision: Option<String>,
    /// When the process crashed.
    pub crashed: Timestamp,
}
