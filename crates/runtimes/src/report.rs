//! What a runtime knows of a crash, in words and numbers that need no knowledge of the language.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use cdh_symbolize::{Frame, Stop};

/// A language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Language {
    /// Go, as gc compiles it.
    Go,
    /// CPython.
    Python,
}

impl Language {
    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Go => "Go",
            Self::Python => "Python",
        }
    }
}

/// What the runtime of one language knows of the crash.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RuntimeReport {
    /// Whose runtime it is.
    pub language: Language,
    /// Version as the runtime states it, such as `go1.21.13` or `3.12.4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether the runtime ended the program because of the last message.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended_program: bool,
    /// Why the program ended, in the order in which it happened: panics, fatal errors, exceptions.
    pub messages: Vec<Message>,
    /// What is known of single threads beyond their stacks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub threads: Vec<ThreadFacts>,
    /// Tasks that the runtime schedules on threads, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Tasks>,
    /// What could not be read, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<String>,
}

/// A reason for the end of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Message {
    /// What it is, in the runtime's words: `panic`, `fatal error`, `exception`.
    pub kind: Cow<'static, str>,
    /// The message, as the runtime would print it after the kind; a hostile text of many lines.
    pub text: String,
    /// Type of the value or exception.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_name: Option<String>,
    /// What happened to it, such as `recovered`, or how it led to the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Cow<'static, str>>,
    /// Thread that it happened in, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<u32>,
    /// Task that it happened in, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<u64>,
}

impl Message {
    /// As the runtime prints it: `panic: text [recovered]`.
    #[must_use]
    pub fn line(&self) -> String {
        let note = self.note.as_ref();
        let note = note.map_or_else(String::new, |note| format!(" [{note}]"));
        format!("{}: {}{note}", self.kind, self.text)
    }
}

/// What a runtime knows of one thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ThreadFacts {
    /// Thread id in the process's own pid namespace.
    pub tid: u32,
    /// Name that the runtime gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Task that runs on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<u64>,
    /// Facts for the title of the thread, such as `holds the GIL`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Tasks that a runtime schedules on threads: goroutines, coroutines.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Tasks {
    /// What the language calls one: `goroutine`.
    pub noun: Cow<'static, str>,
    /// Number of tasks that the program started and that had not ended.
    pub total: usize,
    /// Number of tasks that belong to the runtime itself.
    pub system: usize,
    /// Those that are not the runtime's own by state, the most frequent state first.
    pub states: Vec<TaskCount>,
    /// The task that crashed, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crashing: Option<u64>,
    /// The crashing task first, then by id. Without stacks, only the crashing one.
    pub list: Vec<Task>,
    /// Stacks; tasks refer to them by index. Tasks with equal stacks share one.
    pub stacks: Vec<TaskStack>,
}

/// How many tasks are in one state.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TaskCount {
    /// The state, in the runtime's words.
    pub state: Cow<'static, str>,
    /// Number of tasks.
    pub count: usize,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Task {
    /// Id, as the runtime prints it.
    pub id: u64,
    /// What it does or waits for, in the runtime's words: `running`, `chan receive`.
    pub state: Cow<'static, str>,
    /// Seconds for which it has waited, if the runtime recorded that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_seconds: Option<u64>,
    /// Thread that it runs on or is locked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<u32>,
    /// Whether it runs on one thread only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub locked: bool,
    /// Whether it belongs to the runtime itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub system: bool,
    /// Labels that the program gave it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The task that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u64>,
    /// Where it was started.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "shared")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Frame>"))]
    pub created_by: Option<Arc<Frame>>,
    /// Index of its stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<usize>,
}

/// The stack of one or several tasks.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TaskStack {
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// Why there are no more.
    pub stop: Stop,
}

mod shared {
    use std::sync::Arc;

    use cdh_symbolize::Frame;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(clippy::ref_option)] // the form that serde wants
    pub(super) fn serialize<S: Serializer>(
        frame: &Option<Arc<Frame>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        frame.as_deref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Arc<Frame>>, D::Error> {
        Ok(Option::<Frame>::deserialize(deserializer)?.map(Arc::new))
    }
}

/// An argument or a local variable of an interpreted frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Type of its value.
    pub type_name: String,
    /// Its value in a few words: numbers and short texts as the language writes them, containers by their length.
    pub value: String,
    /// Whether the caller passed it.
    pub is_argument: bool,
}
